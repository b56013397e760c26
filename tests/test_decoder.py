"""What the reference promises about itself: who sees whom, what is refused, what never matters.

Letters: B batch, N image tokens, T tokens.
"""

import pytest
import torch

from decoder_1 import KVCache, PaliGemmaForConditionalGeneration, prefix_lm_mask, repeat_kv
from load_weights import import_set, read_config
from random_weights.small import random_tensors, small_config

BOS, NEWLINE, WORDS = 2, 260, range(261, 271)


@pytest.fixture(scope="module")
def model():
    """A small random model in eval mode."""
    config = small_config(text={"num_key_value_heads": 2})
    model = PaliGemmaForConditionalGeneration(read_config(config, import_set(1)))
    tensors = random_tensors(config)
    tensors["language_model.lm_head.weight"] = tensors["language_model.model.embed_tokens.weight"]
    model.load_state_dict(tensors)
    return model.eval()


def inputs(model, batch_size=1, words=WORDS):
    """Pictures and a prompt, the same one for each."""
    config = model.config
    prompt = [config.image_token_index] * config.vision_config.num_patches + [BOS, *words, NEWLINE]
    S = config.vision_config.image_size
    pixel_values = torch.randn(batch_size, 3, S, S, generator=torch.Generator().manual_seed(0))
    return {"input_ids": torch.tensor([prompt] * batch_size), "pixel_values": pixel_values}


def rows(mask):
    """A mask [1, 1, T, L] as it is drawn in the docstring."""
    return ["".join(str(int(seen)) for seen in row) for row in mask[0, 0]]


# --- the mask ---------------------------------------------------------------------------------------


def test_mask_of_a_prefix_and_a_suffix():
    """The docstring's first drawing: the prefix sees itself whole, the suffix its past."""
    mask = prefix_lm_mask(torch.tensor([[1, 1, 1, 1, 1]]), torch.tensor([[0, 0, 0, 1, 1]]))
    assert mask.dtype == torch.bool and mask.shape == (1, 1, 5, 5)
    assert rows(mask) == ["11100", "11100", "11100", "11110", "11111"]


def test_mask_of_padding():
    """The docstring's second drawing: nobody looks at padding, though its type says prefix."""
    mask = prefix_lm_mask(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 0, 1]]))
    assert rows(mask) == ["010", "010", "011"]
    # Padded on the right, as one may in training.
    mask = prefix_lm_mask(torch.tensor([[1, 1, 1, 0]]), torch.tensor([[0, 0, 1, 0]]))
    assert rows(mask) == ["1100", "1100", "1110", "1110"]


def test_mask_of_a_decoding_step():
    """The docstring's third drawing: a new token sees all that is cached, but padding."""
    assert rows(prefix_lm_mask(torch.tensor([[1, 1, 1, 1, 1]]), torch.tensor([[1]]))) == ["11111"]
    assert rows(prefix_lm_mask(torch.tensor([[0, 1, 1, 1, 1]]), torch.tensor([[1]]))) == ["01111"]
    # Several new tokens at once: each its own past.
    assert rows(prefix_lm_mask(torch.tensor([[1, 1, 1, 1]]), torch.tensor([[1, 1]]))) == ["1110", "1111"]


def test_mask_of_a_batch():
    """Each row of a batch has its own padding and its own prefix."""
    mask = prefix_lm_mask(torch.tensor([[1, 1, 1], [0, 1, 1]]), torch.tensor([[0, 1, 1], [0, 0, 0]]))
    assert rows(mask[:1]) == ["100", "110", "111"]
    assert rows(mask[1:]) == ["011", "011", "011"]


@torch.no_grad()
def test_the_prompt_sees_itself_in_both_directions(model):
    """The first image token hears of the last word of the prompt: else the picture is read blindly."""
    before = inputs(model)
    after = inputs(model, words=[*WORDS[:-1], WORDS[0]])
    difference = (model(**before)["logits"] - model(**after)["logits"]).abs().amax(dim=-1)[0]
    assert (difference > 1e-4).all()


@torch.no_grad()
def test_the_suffix_sees_no_future(model):
    """In training the answer stands there whole: a token that saw the next would learn to copy it."""
    batch = inputs(model)
    types = torch.zeros_like(batch["input_ids"])
    types[:, -5:] = 1
    before = model(**batch, token_type_ids=types)["logits"]
    batch["input_ids"][:, -3] = WORDS[0]
    after = model(**batch, token_type_ids=types)["logits"]
    changed = (before - after).abs().amax(dim=-1)[0] > 1e-5
    assert not changed[:-3].any()
    assert changed[-3:].all()


# --- what never matters -----------------------------------------------------------------------------


@torch.no_grad()
def test_what_stands_in_the_padding_never_matters(model):
    """Padding has embeddings like any token: one forgotten mask, and answers depend on the batch."""
    batch = inputs(model, batch_size=2)
    batch["input_ids"] = torch.nn.functional.pad(batch["input_ids"], (3, 0))
    batch["attention_mask"] = (batch["input_ids"] != 0).long()
    before = model(**batch)
    batch["input_ids"][:, :3] = torch.tensor(WORDS[:3])
    after = model(**batch)
    assert torch.equal(before["logits"][:, 3:], after["logits"][:, 3:])

    grown = torch.nn.functional.pad(batch["attention_mask"], (0, 1), value=1)
    token = torch.tensor([[WORDS[1]]] * 2)
    steps = [model(token, attention_mask=grown, kv_cache=output["kv_cache"]) for output in (before, after)]
    assert torch.equal(steps[0]["logits"], steps[1]["logits"])


@torch.no_grad()
def test_padding_that_sees_nothing_spoils_nothing(model):
    """Text without a prefix, padded on the left: a softmax over no key must not be NaN, for that spreads."""
    words = torch.tensor([list(WORDS)])
    alone = model(words, token_type_ids=torch.ones_like(words))["logits"]
    padded = torch.nn.functional.pad(words, (3, 0))
    mask = (padded != 0).long()
    logits = model(padded, attention_mask=mask, token_type_ids=torch.ones_like(padded))["logits"]
    torch.testing.assert_close(logits[:, 3:], alone, rtol=0, atol=1e-4)


@torch.no_grad()
def test_each_picture_stays_in_its_own_row(model):
    """Features are put in place for the whole batch at once, and must not slip into another row."""
    batch = inputs(model, batch_size=3)
    batch["input_ids"][1] = batch["input_ids"][1].roll(4)  # words before the picture, in one row
    together = model(**batch)["logits"]
    for row in range(3):
        alone = model(batch["input_ids"][row : row + 1], batch["pixel_values"][row : row + 1])["logits"]
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-4)


@torch.no_grad()
def test_without_a_mask_there_is_no_padding(model):
    """The short way to call the model for one picture must mean the same, in decoding too."""
    batch = inputs(model)
    ones = torch.ones_like(batch["input_ids"])
    short, long = model(**batch), model(**batch, attention_mask=ones, token_type_ids=0 * ones)
    assert torch.equal(short["logits"], long["logits"])
    # Two tokens at once after the prompt are suffix, and causal.
    answer = torch.tensor([[WORDS[0], WORDS[1]]])
    grown = torch.ones(1, ones.shape[1] + 2, dtype=torch.int64)
    short = model(answer, kv_cache=short["kv_cache"])
    suffix = torch.ones_like(answer)
    long = model(answer, attention_mask=grown, token_type_ids=suffix, kv_cache=long["kv_cache"])
    assert torch.equal(short["logits"], long["logits"])


# --- the pieces -------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("logits_to_keep", [1, 2, 5])
def test_logits_to_keep(model, logits_to_keep):
    """Scoring a quarter of a million words at 260 positions to read one of them is a fifth of the work."""
    batch = inputs(model)
    everything = model(**batch)["logits"]
    assert everything.shape == (*batch["input_ids"].shape, model.config.text_config.vocab_size)
    scored = []
    lm_head = model.language_model.lm_head
    hook = lm_head.register_forward_pre_hook(lambda _, args: scored.append(args[0].shape[1]))
    kept = model(**batch, logits_to_keep=logits_to_keep)["logits"]
    hook.remove()
    assert scored == [logits_to_keep], "all positions were scored, and most thrown away"
    torch.testing.assert_close(kept, everything[:, -logits_to_keep:], rtol=0, atol=1e-5)


def test_cache_keeps_every_layer_apart():
    """Keys of one layer under another's number would give an answer, and a wrong one."""
    cache = KVCache()
    assert cache.num_items() == 0
    first = {layer: torch.randn(2, 1, 3, 4) for layer in range(2)}
    for layer, key in first.items():
        cache.update(key, -key, layer)
    assert cache.num_items() == 3
    second = torch.randn(2, 1, 1, 4)
    keys, values = cache.update(second, -second, 1)
    assert torch.equal(keys, torch.cat([first[1], second], dim=2))
    assert torch.equal(values, -keys)
    assert torch.equal(cache.key_cache[0], first[0])


@torch.no_grad()
def test_cache_grows_by_what_is_new(model):
    """A decoding step computes one token; were the prompt computed again, it would cost as the first did."""
    batch = inputs(model)
    T = batch["input_ids"].shape[1]
    output = model(**batch)
    assert output["kv_cache"].num_items() == T
    output = model(torch.tensor([[WORDS[0]]]), kv_cache=output["kv_cache"])
    assert output["logits"].shape[1] == 1
    # K heads, not H: sharing them is what makes the cache small.
    assert [tuple(key.shape) for key in output["kv_cache"].key_cache] == [(1, 2, T + 1, 10)] * 3


def test_repeat_kv_keeps_neighbors_together():
    """Query heads 0 and 1 share key head 0, as repeat_interleave says and repeat does not."""
    heads = torch.arange(3.0)[None, :, None, None].expand(2, 3, 4, 5)
    repeated = repeat_kv(heads, 2)
    assert repeated.shape == (2, 6, 4, 5)
    assert repeated[0, :, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_output_layer_and_embeddings_are_one(model):
    """Half a billion numbers of the 3B model serve twice; a copy would also train apart."""
    assert model.language_model.lm_head.weight is model.language_model.model.embed_tokens.weight


def test_loss_is_about_the_next_token(model, monkeypatch):
    """The mean cross entropy of each label under the logits one place before, ignore_index left out."""
    monkeypatch.setattr(model.config, "ignore_index", -7)
    batch = inputs(model)
    types = torch.zeros_like(batch["input_ids"])
    types[:, -4:] = 1
    labels = batch["input_ids"].masked_fill(types == 0, -7)
    output = model(**batch, token_type_ids=types, labels=labels)
    scores = output["logits"][0, -5:-1].log_softmax(dim=-1)
    expected = -scores[range(4), batch["input_ids"][0, -4:]].mean()
    torch.testing.assert_close(output["loss"], expected)
    assert "loss" not in model(**batch)


# --- what is refused --------------------------------------------------------------------------------


def test_labels_need_token_types(model):
    """Without types all is prefix, the answer is seen, and the loss falls to nothing by copying."""
    batch = inputs(model)
    with pytest.raises(ValueError, match="token_type_ids"):
        model(**batch, labels=batch["input_ids"])


@pytest.mark.parametrize("change", [-1, 1])
def test_wrong_number_of_image_tokens(model, change):
    """Features would land on the wrong places, or be dropped, in silence."""
    batch = inputs(model)
    image_id = model.config.image_token_index
    if change < 0:
        batch["input_ids"][0, 0] = WORDS[0]
    else:
        batch["input_ids"][0, -1] = image_id
    with pytest.raises(ValueError, match="image tokens"):
        model(**batch)


def test_image_tokens_are_counted_in_each_row(model):
    """One too many here and one too few there add up, but give a picture to another's prompt."""
    batch = inputs(model, batch_size=2)
    batch["input_ids"][0, 0] = WORDS[0]
    batch["input_ids"][1, -1] = model.config.image_token_index
    with pytest.raises(ValueError, match="image tokens"):
        model(**batch)
