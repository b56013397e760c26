"""The reference says the same as transformers' PaliGemma, on small models with random weights.

Real weights cannot be shipped with the tests, and need not be: two programs that agree to six
digits on random weights of any size compute the same function, and so agree on real ones.

The sizes of each model all differ from each other, so that no dimension can be taken for another.
Letters: B batch, N image tokens, T tokens, V vocabulary.
"""

from copy import deepcopy
from functools import cache

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from decoder_1 import GemmaConfig, PaliGemmaConfig, PaliGemmaForConditionalGeneration
from generation_1 import generate
from load_weights import load_hf_model
from text_image_token_processor_1 import PaliGemmaProcessor
from vision_transformer_1 import VisionConfig

PAD, BOS, NEWLINE = 0, 2, 5

# What config.json would hold; eps and theta are far from their defaults, for a default that is used
# in place of the config's value to show.
SIZES = {
    "one key/value head": {
        "vision": dict(
            hidden_size=60,
            intermediate_size=52,
            num_hidden_layers=3,
            num_attention_heads=5,
            patch_size=4,
            image_size=12,
            layer_norm_eps=1e-2,
        ),
        "text": dict(
            vocab_size=131,
            hidden_size=56,
            intermediate_size=90,
            num_hidden_layers=2,
            num_attention_heads=6,
            num_key_value_heads=1,
            head_dim=10,
            rms_norm_eps=2e-2,
            rope_theta=77.0,
        ),
        "image_token_index": 130,
    },
    "two key/value heads": {
        "vision": dict(
            hidden_size=48,
            intermediate_size=80,
            num_hidden_layers=2,
            num_attention_heads=4,
            patch_size=7,
            image_size=28,
            layer_norm_eps=3e-3,
        ),
        "text": dict(
            vocab_size=99,
            hidden_size=40,
            intermediate_size=72,
            num_hidden_layers=3,
            num_attention_heads=8,
            num_key_value_heads=2,
            head_dim=14,
            rms_norm_eps=5e-3,
            rope_theta=500.0,
        ),
        "image_token_index": 61,
    },
    "as many key/value heads as heads": {
        "vision": dict(
            hidden_size=36,
            intermediate_size=100,
            num_hidden_layers=1,
            num_attention_heads=2,
            patch_size=5,
            image_size=10,
            layer_norm_eps=1e-1,
        ),
        "text": dict(
            vocab_size=115,
            hidden_size=64,
            intermediate_size=44,
            num_hidden_layers=4,
            num_attention_heads=3,
            num_key_value_heads=3,
            head_dim=22,
            rms_norm_eps=1e-1,
            rope_theta=1e6,
        ),
        "image_token_index": 7,
    },
}
every_model = pytest.mark.parametrize("name", SIZES)


@cache
def both_models(name):
    """The same random weights twice: in transformers' model and in ours, both in eval mode."""
    sizes = SIZES[name]
    theirs = transformers.PaliGemmaForConditionalGeneration(
        transformers.PaliGemmaConfig(
            vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **sizes["vision"]},
            text_config={"model_type": "gemma", **sizes["text"]},
            projection_dim=sizes["text"]["hidden_size"],
            image_token_index=sizes["image_token_index"],
        )
    ).eval()
    torch.manual_seed(len(name))
    with torch.no_grad():
        for parameter_name, parameter in theirs.named_parameters():
            if parameter.dim() == 1:
                # Norm weights start at 0 or 1: moved away, for a norm that does not use them to show.
                parameter.add_(0.3 * torch.randn_like(parameter))
            elif "embed_tokens" in parameter_name:
                # Small: large embeddings, tied to the output, would say the same token forever.
                parameter.normal_(std=0.1)
            else:
                # Matrices keep the size of what they multiply, nearly, so that no part drowns another.
                parameter.normal_(std=1.5 * parameter.shape[1:].numel() ** -0.5)

    ours = PaliGemmaForConditionalGeneration(
        PaliGemmaConfig(
            vision_config=VisionConfig(**sizes["vision"]),
            text_config=GemmaConfig(**sizes["text"]),
            projection_dim=sizes["text"]["hidden_size"],
            image_token_index=sizes["image_token_index"],
        )
    ).eval()
    ours.load_state_dict({our_name(key): tensor.clone() for key, tensor in theirs.state_dict().items()})
    return theirs, ours


def our_name(their_name):
    """transformers 5 renamed the modules; ours have the names of the hub's files."""
    if their_name == "lm_head.weight":
        return "language_model.lm_head.weight"
    return (
        their_name.replace("model.language_model.", "language_model.model.")
        .replace("model.multi_modal_projector.", "multi_modal_projector.")
        .replace("model.vision_tower.", "vision_tower.vision_model.")
    )


def batch_of(name, lengths, padding_side="left", seed=0):
    """Random pictures, each with a prompt of so many random tokens between `<bos>` and newline."""
    random = torch.Generator().manual_seed(seed)
    vision, image_id = SIZES[name]["vision"], SIZES[name]["image_token_index"]
    S, N = vision["image_size"], (vision["image_size"] // vision["patch_size"]) ** 2
    rows = []
    for length in lengths:
        words = torch.randint(8, 60, (length,), generator=random).tolist()
        rows.append([image_id] * N + [BOS] + words + [NEWLINE])
    T = max(map(len, rows))
    padded, mask = [], []
    for row in rows:
        padding = [PAD] * (T - len(row))
        padded.append(padding + row if padding_side == "left" else row + padding)
        ones = [1] * len(row)
        zeros = [0] * len(padding)
        mask.append(zeros + ones if padding_side == "left" else ones + zeros)
    return {
        "input_ids": torch.tensor(padded),
        "pixel_values": torch.randn(len(rows), 3, S, S, generator=random),
        "attention_mask": torch.tensor(mask),
    }


def without_padding(batch, row):
    """One row of a batch, as a batch of its own."""
    real = batch["attention_mask"][row].bool()
    return {
        "input_ids": batch["input_ids"][row : row + 1, real],
        "pixel_values": batch["pixel_values"][row : row + 1],
        "attention_mask": batch["attention_mask"][row : row + 1, real],
    }


def assert_near(ours, theirs, tolerance=2e-5):
    """At most this part of the largest value apart. Rounding alone makes 1e-6, an erf GELU 1e-4."""
    assert ours.shape == theirs.shape
    difference = (ours - theirs).abs().max() / theirs.abs().max()
    assert difference < tolerance, f"{difference:.1e} of the largest value apart"


@torch.no_grad()
def greedy(model, batch, num_tokens):
    """The likeliest token again and again: the picture goes in once, then one token at a time.

    Returns the tokens [B, num_tokens] and the logits each was read from [B, num_tokens, V].
    """
    mask = batch["attention_mask"]
    output = model(batch["input_ids"], batch["pixel_values"], mask, logits_to_keep=1)
    logits = [output["logits"]]
    tokens = [output["logits"][:, -1:].argmax(dim=-1)]
    while len(tokens) < num_tokens:
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        output = model(tokens[-1], attention_mask=mask, kv_cache=output["kv_cache"], logits_to_keep=1)
        logits.append(output["logits"])
        tokens.append(output["logits"][:, -1:].argmax(dim=-1))
    return torch.cat(tokens, dim=1), torch.cat(logits, dim=1)


@torch.no_grad()
def their_greedy(model, batch, num_tokens):
    """The same by transformers. Told by token_type_ids that the prompt is a prefix: else it is causal."""
    output = model.generate(
        **batch,
        token_type_ids=torch.zeros_like(batch["input_ids"]),
        do_sample=False,
        min_new_tokens=num_tokens,
        max_new_tokens=num_tokens,
        eos_token_id=None,
        pad_token_id=PAD,
        output_logits=True,
        return_dict_in_generate=True,
    )
    T = batch["input_ids"].shape[1]
    return output.sequences[:, T:], torch.stack(output.logits, dim=1)


# --- picture ----------------------------------------------------------------------------------------


@every_model
@torch.no_grad()
def test_vision_features(name):
    """A wrong tower gives plausible features: only a second opinion tells."""
    theirs, ours = both_models(name)
    pixel_values = batch_of(name, [1, 1])["pixel_values"]
    features = ours.vision_tower(pixel_values)
    assert_near(features, theirs.model.vision_tower(pixel_values).last_hidden_state)
    assert_near(ours.multi_modal_projector(features), theirs.get_image_features(pixel_values).pooler_output)


# --- logits -----------------------------------------------------------------------------------------


@every_model
@torch.no_grad()
def test_prefill_logits(name):
    """Every position of picture and prompt, not the last alone: errors may hide behind one position."""
    theirs, ours = both_models(name)
    batch = batch_of(name, [6, 6])
    expected = theirs(**batch, token_type_ids=torch.zeros_like(batch["input_ids"])).logits
    assert_near(ours(**batch)["logits"], expected)


@every_model
@torch.no_grad()
def test_left_padded_prefill_logits(name):
    """Rows of unequal length are the normal case of a batch; what stands in the padding is nobody's."""
    theirs, ours = both_models(name)
    batch = batch_of(name, [1, 9, 4])
    real = batch["attention_mask"].bool()
    expected = theirs(**batch, token_type_ids=torch.zeros_like(batch["input_ids"])).logits
    assert_near(ours(**batch)["logits"][real], expected[real])


@every_model
def test_40_greedy_tokens(name):
    """Forty steps through the cache: an error that grows with each step, or a tie broken otherwise, shows."""
    theirs, ours = both_models(name)
    batch = batch_of(name, [5])
    expected_tokens, expected_logits = their_greedy(theirs, batch, 40)
    tokens, logits = greedy(ours, batch, 40)
    assert len(set(expected_tokens[0].tolist())) > 4, "the random model repeats itself: that tests nothing"
    assert tokens.tolist() == expected_tokens.tolist()
    assert_near(logits, expected_logits)


@every_model
def test_left_padded_greedy_tokens(name):
    """A batch must answer as transformers' batch, and as each of its pictures does alone."""
    theirs, ours = both_models(name)
    batch = batch_of(name, [2, 8, 5], seed=1)
    expected_tokens, expected_logits = their_greedy(theirs, batch, 20)
    tokens, logits = greedy(ours, batch, 20)
    assert tokens.tolist() == expected_tokens.tolist()
    assert_near(logits, expected_logits)
    for row in range(3):
        alone, alone_logits = greedy(ours, without_padding(batch, row), 20)
        assert alone.tolist() == tokens[row : row + 1].tolist()
        assert_near(alone_logits, logits[row : row + 1])


@every_model
@torch.no_grad()
def test_one_pass_equals_decoding_step_by_step(name):
    """Training sees the whole answer at once, generation one token at a time: both must be one model."""
    theirs, ours = both_models(name)
    batch = batch_of(name, [3, 7])
    answer, step_logits = greedy(ours, batch, 12)
    whole = torch.cat([batch["input_ids"], answer], dim=1)
    mask = torch.cat([batch["attention_mask"], torch.ones_like(answer)], dim=1)
    types = torch.cat([torch.zeros_like(batch["input_ids"]), torch.ones_like(answer)], dim=1)
    inputs = {**batch, "input_ids": whole, "attention_mask": mask, "token_type_ids": types}
    logits = ours(**inputs)["logits"]
    # The token at a position was read from the logits of the position before.
    assert_near(logits[:, -13:-1], step_logits)
    assert_near(logits[:, -13:], theirs(**inputs).logits[:, -13:])


@torch.no_grad()
def test_positions_are_counted_from_one_and_leave_padding_out():
    """RoPE sees differences of positions only, so no logits would show a shift that bfloat16 pays for."""
    theirs, ours = both_models("one key/value head")
    batch = batch_of("one key/value head", [2, 5])
    seen = {"theirs": [], "ours": []}

    def keep(who):
        return lambda module, args, kwargs, _: seen[who].append((*args, *kwargs.values())[1])

    hooks = [
        theirs.model.language_model.rotary_emb.register_forward_hook(keep("theirs"), with_kwargs=True),
        ours.language_model.model.rotary_emb.register_forward_hook(keep("ours"), with_kwargs=True),
    ]
    their_greedy(theirs, batch, 4)
    greedy(ours, batch, 4)
    for hook in hooks:
        hook.remove()
    real = batch["attention_mask"].bool()
    assert seen["ours"][0][real].tolist() == seen["theirs"][0][real].tolist()
    assert seen["ours"][0][:, -1].tolist() == batch["attention_mask"].sum(dim=1).tolist()
    for step in range(1, 4):
        assert seen["ours"][step].tolist() == seen["theirs"][step].tolist()


# --- bfloat16 ---------------------------------------------------------------------------------------


@every_model
@torch.no_grad()
def test_bfloat16_logits(name):
    """The 3B model is run in bfloat16: ours must lose no more by it than transformers does."""
    theirs, ours = both_models(name)
    batch = batch_of(name, [3, 6])
    real = batch["attention_mask"].bool()
    types = torch.zeros_like(batch["input_ids"])
    exact = theirs(**batch, token_type_ids=types).logits[real]

    logits = half(ours)(**batch)["logits"]
    assert logits.dtype == torch.float32
    batch["pixel_values"] = batch["pixel_values"].bfloat16()
    their_logits = half(theirs)(**batch, token_type_ids=types).logits[real].float()
    our_loss, their_loss = (logits[real] - exact).norm(), (their_logits - exact).norm()
    assert our_loss < 1.3 * their_loss
    assert our_loss < 0.1 * exact.norm()


def half(model):
    """A copy with its parameters in bfloat16; transformers' buffers (RoPE's frequencies) stay float32."""
    model = deepcopy(model)
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    return model


@torch.no_grad()
def test_bfloat16_embeddings_are_scaled_by_a_rounded_sqrt():
    """In bfloat16 sqrt(D) is itself rounded (45.25 for 2048), and the weights were trained with that.

    Text embeddings must come out bit for bit as transformers'. Image features must come out as they
    went in, but for the roundings of the division and the multiplication, which average out.
    """
    name = "two key/value heads"
    theirs, ours = map(half, both_models(name))
    batch = batch_of(name, [40])
    N = int((batch["input_ids"] == SIZES[name]["image_token_index"]).sum())
    seen = []
    hook = ours.language_model.model.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    ours(**batch)
    hook.remove()
    assert seen[0].dtype == torch.bfloat16
    assert torch.equal(seen[0][:, N:], theirs.get_input_embeddings()(batch["input_ids"][:, N:]))

    features = ours.multi_modal_projector(ours.vision_tower(batch["pixel_values"])).double()
    merged = seen[0][:, :N].double()
    assert_near(merged, features, tolerance=1e-2)
    scale = (merged * features).sum() / features.pow(2).sum()
    assert abs(scale - 1) < 5e-4


@torch.no_grad()
def test_bfloat16_norm_and_angles():
    """RMSNorm and the angles of RoPE are computed in float32 and cast at the end, to the very bit."""
    theirs, ours = map(half, both_models("two key/value heads"))
    x = (10 * torch.randn(7, 40, generator=torch.Generator().manual_seed(0))).bfloat16()
    norm, their_norm = ours.language_model.model.norm, theirs.model.language_model.norm
    assert torch.equal(norm(x), their_norm(x))
    # Past position 256, bfloat16 cannot even count.
    positions = torch.tensor([[1, 2, 255, 257, 999, 4096]])
    rotary, their_rotary = ours.language_model.model.rotary_emb, theirs.model.language_model.rotary_emb
    for mine, other in zip(rotary(x, positions), their_rotary(x, positions), strict=True):
        assert mine.dtype == torch.bfloat16
        assert_near(mine.float(), other.float(), tolerance=1e-3)


# --- training ---------------------------------------------------------------------------------------


def training_batch(name, padding_side):
    """Prompts with answers of 4, 2 and 6 tokens: token types 0 and 1, labels where the type is 1."""
    batch = batch_of(name, [7, 9, 12], padding_side)
    types = torch.zeros_like(batch["input_ids"])
    for row, num_answer in enumerate([4, 2, 6]):
        last = batch["attention_mask"][row].nonzero().max().item()
        types[row, last - num_answer + 1 : last + 1] = 1
    labels = batch["input_ids"].masked_fill(types == 0, -100)
    return {**batch, "token_type_ids": types, "labels": labels}


@pytest.mark.parametrize("padding_side", ["left", "right"])
@every_model
def test_training_loss_and_every_gradient(name, padding_side):
    """The same forward is trained: an error that the answers hardly show would be learned around for days."""
    theirs, ours = both_models(name)
    batch = training_batch(name, padding_side)
    expected = theirs(**batch).loss
    loss = ours(**batch)["loss"]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)

    theirs.zero_grad()
    ours.zero_grad()
    expected.backward()
    loss.backward()
    their_gradients = {our_name(key): weight.grad for key, weight in theirs.named_parameters()}
    our_gradients = {key: weight.grad for key, weight in ours.named_parameters()}
    theirs.zero_grad()
    ours.zero_grad()
    assert our_gradients.keys() == their_gradients.keys()
    largest = max(gradient.abs().max() for gradient in their_gradients.values())
    for key, gradient in their_gradients.items():
        if key.endswith("self_attn.k_proj.bias"):
            # One number added to all scores of a query changes no softmax: only roundings are left.
            assert our_gradients[key].abs().max() < 1e-5 * largest
            continue
        difference = (our_gradients[key] - gradient).abs().max() / gradient.abs().max()
        assert difference < 1e-3, f"{key}: {difference:.1e} of the largest value apart"


# --- files ------------------------------------------------------------------------------------------


def save_tokenizer(folder, name):
    """A vocabulary of as many words as the model knows, for a model of no language."""
    special = {PAD: "<pad>", 1: "<eos>", BOS: "<bos>", 3: "<unk>", NEWLINE: "\n"}
    special[SIZES[name]["image_token_index"]] = "<image>"
    words = [special.get(i, f"word{i}") for i in range(SIZES[name]["text"]["vocab_size"])]
    vocabulary = {word: i for i, word in enumerate(words)}
    Tokenizer(WordLevel(vocabulary, unk_token="<unk>")).save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize("layout", ["transformers 5", "transformers 4", "hub"])
@every_model
@torch.no_grad()
def test_loading_what_transformers_saved(name, layout, tmp_path):
    """People train with transformers and want to see the result here, whatever its names of that year."""
    theirs, ours = both_models(name)
    theirs.save_pretrained(tmp_path, save_original_format=layout == "transformers 4", max_shard_size="100KB")
    save_tokenizer(tmp_path, name)
    if layout == "hub":
        (tmp_path / "model.safetensors.index.json").unlink()
        tensors = {our_name(key): weight for key, weight in theirs.state_dict().items()}
        del tensors["language_model.lm_head.weight"]  # tied, so not stored
        save_file(tensors, tmp_path / "model.safetensors")

    loaded, tokenizer = load_hf_model(tmp_path)
    assert tokenizer.token_to_id("<image>") == loaded.config.image_token_index
    assert loaded.config == ours.config
    batch = batch_of(name, [3, 5])
    assert torch.equal(loaded(**batch)["logits"], ours(**batch)["logits"])


@torch.no_grad()
def test_a_checkpoint_of_the_hub_means_the_same_to_transformers(checkpoint):
    """The same folder, read by both: also what its config.json leaves out, as the 3B model's does."""
    theirs = transformers.PaliGemmaForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    ours, tokenizer = load_hf_model(checkpoint)
    processor = PaliGemmaProcessor(tokenizer, num_image_tokens=9, image_size=12)
    batch = processor(["caption en", "detect cat"], [Image.new("RGB", (30, 20), "red")] * 2)
    real = batch["attention_mask"].bool()
    expected = theirs(**batch, token_type_ids=torch.zeros_like(batch["input_ids"])).logits
    assert_near(ours(**batch)["logits"][real], expected[real])


def test_generation_sees_each_picture_once(checkpoint):
    """The tower is costly: in inference.py it runs once, and the decoder on nothing twice."""
    model, tokenizer = load_hf_model(checkpoint)
    processor = PaliGemmaProcessor(tokenizer, num_image_tokens=9, image_size=12)
    batch = processor(["caption en", "a"], [Image.new("RGB", (30, 20), "red")] * 2)
    pictures, positions, tokens = [], [], []
    model.vision_tower.register_forward_hook(lambda module, args, output: pictures.append(len(args[0])))
    model.language_model.lm_head.register_forward_hook(
        lambda module, args, output: positions.append(args[0].shape[1])
    )
    model.language_model.model.layers[0].register_forward_hook(
        lambda module, args, output: tokens.append(args[0].shape[1])
    )
    steps = list(generate(model, batch, eos_token_id=-1, max_tokens=6))
    assert len(steps) == 6
    assert pictures == [2]
    assert positions == [1] * 6
    assert tokens == [batch["input_ids"].shape[1]] + [1] * 5


@every_model
def test_generate_of_inference_equals_transformers(name):
    """The loop that users run, not only the tests' own."""
    theirs, ours = both_models(name)
    batch = batch_of(name, [2, 6], seed=2)
    expected, _ = their_greedy(theirs, batch, 10)
    steps = list(generate(ours, batch, eos_token_id=-1, max_tokens=10))
    assert [list(row) for row in zip(*steps, strict=True)] == expected.tolist()
