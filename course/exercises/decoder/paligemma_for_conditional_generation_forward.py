"""The exercise PaliGemmaForConditionalGeneration.forward of decoder_0.py."""

import torch
from torch.nn import functional as F

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.decoder.inputs import (
    IMAGE,
    PADDED,
    PADDED_MASK,
    PROMPTS,
    SIZES,
    SMALL_PALIGEMMA,
    batch,
    bf16,
    by_name,
    cache,
)
from decoder_1 import KVCache, prefix_lm_mask

ANSWERED = [[*IMAGE, 2, 11, 3, 31, 32, 33, 1], [0, 0, *IMAGE, 2, 3, 41, 42, 1]]


def at_tokens(made, attention_mask, **inputs):
    """What the model makes of the tokens: nobody reads what comes out at padding, so it is set to 0."""
    output = made(attention_mask=attention_mask, **inputs)
    if not isinstance(output, dict):
        return output
    T = inputs["input_ids"].shape[1]
    seen, logits, kept = dict(output), output.get("logits"), output.get("kv_cache")
    if isinstance(logits, torch.Tensor) and logits.shape[:2] == (len(attention_mask), T):
        seen["logits"] = logits * attention_mask[:, -T:, None]
    if isinstance(kept, KVCache):
        seen["kv_cache"] = KVCache()
        for name in ("key_cache", "value_cache"):
            for tensor in getattr(kept, name):
                fits = tensor.dim() == 4 and tensor.shape[2] == attention_mask.shape[1]
                shown = tensor * attention_mask[:, None, :, None] if fits else tensor
                getattr(seen["kv_cache"], name).append(shown)
    return seen


def training(**more):
    """Two answers of different lengths, one row padded; only the answers have to be learned."""
    suffix = [[0] * 7 + [1] * 4, [0] * 8 + [1] * 3]
    labels = [
        [token if kind else -7 for token, kind in zip(row, kinds, strict=True)]
        for row, kinds in zip(ANSWERED, suffix, strict=True)
    ]
    mask = [[1] * 11, [0, 0, *[1] * 9]]
    return batch(ANSWERED, **{"attention_mask": mask, "token_type_ids": suffix, "labels": labels} | more)


def two_calls(made, input_ids, pixel_values, answer) -> dict:
    """A prompt, then two tokens with the cache that came back."""
    first = made(input_ids, pixel_values)
    return made(answer, kv_cache=first["kv_cache"] if isinstance(first, dict) else None)


def own_cache(made, kv_cache, **inputs) -> dict:
    """Calls the model with a cache of the caller's, and looks into that one afterwards."""
    output = made(kv_cache=kv_cache, **inputs)
    return {"logits": output["logits"] if isinstance(output, dict) else None, "kv_cache": kv_cache}


# Other right ways.


def in_other_words(
    self,
    input_ids,
    pixel_values=None,
    attention_mask=None,
    kv_cache=None,
    token_type_ids=None,
    labels=None,
    logits_to_keep=0,
):
    if token_type_ids is None and labels is not None:
        raise ValueError("token_type_ids are missing")
    if kv_cache is None:
        kv_cache = KVCache()
    past, (B, T) = kv_cache.num_items(), input_ids.shape
    if attention_mask is None:
        attention_mask = torch.ones(B, past + T, dtype=torch.int64, device=input_ids.device)
    if token_type_ids is None:
        token_type_ids = torch.ones_like(input_ids) if past > 0 else torch.zeros_like(input_ids)
    lm = self.language_model
    x = F.embedding(input_ids, lm.model.embed_tokens.weight)
    if pixel_values is not None:
        x = self._merge_input_ids_with_image_features(
            image_features=self.multi_modal_projector(self.vision_tower(pixel_values)),
            inputs_embeds=x,
            input_ids=input_ids,
        )
    positions = (attention_mask.cumsum(-1) * attention_mask)[:, -T:]
    mask = prefix_lm_mask(attention_mask, token_type_ids)
    logits = lm(x, mask, positions, kv_cache, logits_to_keep=logits_to_keep)
    if labels is None:
        return dict(logits=logits, kv_cache=kv_cache)
    before, after = logits[:, :-1], labels[:, 1:]
    learned = after != self.config.ignore_index
    scores = before[learned].log_softmax(-1)
    loss = -scores.gather(1, after[learned][:, None]).mean()
    return dict(logits=logits, kv_cache=kv_cache, loss=loss)


# Known mistakes of those who count the columns from the end, as the second hint does.
LAST_COLUMNS = {"[:, num_cached:]": "[:, -T:]"}

EXERCISE = Exercise(
    name="PaliGemmaForConditionalGeneration.forward",
    file="decoder",
    minutes=40,
    difficulty="hard",
    why="After this, the model answers: one call reads picture and prompt, each further call a token.",
    builds_on=(
        "KVCache.num_items",
        "prefix_lm_mask",
        "GemmaForCausalLM",
        "_merge_input_ids_with_image_features",
    ),
    steps=[
        "Refuse, with a ValueError, labels without token_type_ids.",
        "Fill in what was not given: an empty cache, a mask without padding over cached and new "
        "tokens, token types as the docstring says.",
        "Look up the embeddings of the ids and, if there are pictures, send them through tower and "
        "projector and merge their features in.",
        "Number the tokens: each by how many tokens there are up to it in the attention mask, without "
        "padding; those of the cache come before the new ones.",
        "Run the language model with the prefix-LM mask, and return logits and cache in a dict.",
        "With labels, add the loss: the mean cross entropy of the labels, each under the logits one "
        "position before it, without those that are ignore_index.",
    ],
    hints=(
        "Write down B, T and L for a prompt, and for the first token after it. Which tensors have T "
        "columns, and which have L?",
        "A running sum over the mask counts tokens without padding; the new ones are its last T "
        "columns. Ask how many are cached before the language model runs: it adds to the cache.",
        "position_ids = attention_mask.cumsum(dim=1)[:, num_cached:]; loss = F.cross_entropy(logits[:, "
        ":-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=self.config.ignore_index).",
    ),
    make=lambda m: m.PaliGemmaForConditionalGeneration(SMALL_PALIGEMMA),
    result={"logits": "B T V", "key_cache": "B K L Hd", "value_cache": "B K L Hd"},
    sizes=SIZES,
    cases=[
        Case("two pictures and prompts", batch(PROMPTS), call=by_name, tolerance=1e-4, training=True),
        Case(
            "one row padded on the left",
            batch(PADDED, attention_mask=PADDED_MASK),
            call=at_tokens,
            tolerance=1e-4,
        ),
        Case(
            "text alone, token 0 among it, but no mask: no padding",
            batch([[2, 11, 0, 12, 3], [0, 0, 2, 21, 3]], pictures=False),
            call=by_name,
            tolerance=1e-4,
        ),
        Case(
            "one new token after five",
            batch([[31], [41]], pictures=False, kv_cache=lambda: cache(1, 5)),
            call=by_name,
            tolerance=1e-4,
        ),
        Case(
            "three new tokens after five, one row padded",
            batch(
                [[31, 32, 33], [41, 42, 43]],
                pictures=False,
                attention_mask=[[1] * 8, [0, 0, *[1] * 6]],
                kv_cache=lambda: cache(1, 5),
            ),
            call=at_tokens,
            tolerance=1e-4,
        ),
        Case(
            "three new tokens after five, the first two of them prefix",
            batch(
                [[31, 32, 33], [41, 42, 43]],
                pictures=False,
                kv_cache=lambda: cache(1, 5),
                token_type_ids=[[0, 0, 1], [0, 0, 1]],
            ),
            call=by_name,
            tolerance=1e-4,
        ),
        Case(
            "a prompt, then two tokens with the cache that came back",
            lambda: batch(PROMPTS)() | {"answer": torch.tensor([[31, 32], [41, 42]])},
            call=two_calls,
            tolerance=1e-4,
        ),
        Case(
            "an empty cache of the caller's, which has to be filled",
            batch(PROMPTS, kv_cache=KVCache),
            call=own_cache,
            tolerance=1e-4,
        ),
        Case("the last position", batch(PROMPTS, logits_to_keep=1), call=by_name, tolerance=1e-4),
        Case("the last three positions", batch(PROMPTS, logits_to_keep=3), call=by_name, tolerance=1e-4),
        Case(
            "training: answers of different lengths, one row padded",
            training(),
            call=at_tokens,
            tolerance=1e-4,
        ),
        Case(
            "training: a token of the answer that need not be learned, and one of the prompt that has to be",
            training(
                labels=[
                    [-7, -7, -7, -7, -7, -7, 3, 31, -7, 33, 1],
                    [-7, -7, -7, -7, -7, -7, -7, 3, 41, 42, -7],
                ]
            ),
            call=at_tokens,
            tolerance=1e-4,
        ),
        Case("labels without token_type_ids: a ValueError", training(token_type_ids=None), call=by_name),
        Case(
            "three image tokens for four patches: a ValueError",
            batch([[50, 50, 50, 2, 11, 3], [*IMAGE, 2, 3]]),
            call=by_name,
        ),
        Case(
            "weights in bfloat16, pictures in float32",
            batch(PADDED, attention_mask=PADDED_MASK),
            call=at_tokens,
            dtype=bf16,
            tolerance=0.15,
        ),
        Case("on another device", batch(PROMPTS), call=by_name, tolerance=1e-4, other_device=True),
    ],
    mistakes=[
        Mistake(
            "with positions that count padding",
            {
                "attention_mask.cumsum(dim=1)[:, num_cached:]": (
                    "torch.arange(num_cached + 1, num_cached + T + 1, device=input_ids.device).expand(B, T)"
                ),
            },
            "the first token of every row is at 1, however much padding comes before it.",
            also=(
                {
                    "attention_mask.cumsum(dim=1)[:, num_cached:]": (
                        "torch.arange(num_cached + 1, num_cached + T + 1).expand(B, T)"
                    ),
                },
            ),
        ),
        Mistake(
            "with positions that begin at 0",
            {"attention_mask.cumsum(dim=1)[": "(attention_mask.cumsum(dim=1) - 1)["},
            "the token itself is counted, so the first one is at 1. Attention sees only differences, "
            "but the keys in the cache count from 1.",
        ),
        Mistake(
            "with positions that start again after a cache",
            {
                "attention_mask.cumsum(dim=1)[:, num_cached:]": (
                    "attention_mask[:, num_cached:].cumsum(dim=1)"
                ),
            },
            "tokens in the cache come before the new ones, and are counted.",
        ),
        Mistake(
            "with the positions of the first tokens",
            {"[:, num_cached:]": "[:, :T]"},
            "the new tokens are the last T of the L.",
        ),
        Mistake(
            "with the number of cached tokens added once more",
            {"[:, num_cached:]": "[:, num_cached:] + num_cached"},
            "the running sum over the whole mask has counted them.",
        ),
        Mistake(
            "without the merge",
            {
                (
                    "inputs_embeds = self._merge_input_ids_with_image_features(\n                "
                    "image_features, inputs_embeds, input_ids\n            )"
                ): ("pass"),
            },
            "the picture would never reach the language model.",
        ),
        Mistake(
            "with the embeddings multiplied by sqrt(D) here too",
            {"embed_tokens(input_ids)": "embed_tokens(input_ids) * self.config.projection_dim**0.5"},
            "GemmaModel does that.",
        ),
        Mistake(
            "without the projector",
            {
                "self.multi_modal_projector(self.vision_tower(pixel_values))": (
                    "self.vision_tower(pixel_values)"
                ),
            },
            "the tower's features have to be projected to the decoder's width first.",
        ),
        Mistake(
            "with the first picture for every row",
            {
                "self.vision_tower(pixel_values)": (
                    "self.vision_tower(pixel_values[:1].expand_as(pixel_values))"
                ),
            },
            "each row has a picture of its own.",
        ),
        Mistake(
            "when a picture is always required",
            {"if pixel_values is not None:": "if True:"},
            "in a decoding step there is none.",
        ),
        Mistake(
            "with a causal mask for the prompt",
            {"1 if num_cached else 0": "1"},
            "without token_type_ids, a prompt is all prefix: 0.",
        ),
        Mistake(
            "with prefix for what follows a cache",
            {"1 if num_cached else 0": "0"},
            "what follows a cache is suffix: each token sees its past, not the next one.",
        ),
        Mistake(
            "with prefix and suffix swapped",
            {"1 if num_cached else 0": "0 if num_cached else 1"},
            "a prompt is all prefix, 0; what follows a cache is all suffix, 1.",
        ),
        Mistake(
            "without using token_type_ids that were given",
            {"if token_type_ids is None:": "if True:"},
            "None means that they have to be filled in; what was passed in counts.",
        ),
        Mistake(
            "without a mask that was given",
            {"if attention_mask is None:": "if True:"},
            "None means that it has to be filled in; what was passed in counts.",
        ),
        Mistake(
            "with a mask for the new tokens alone",
            {"new_ones(B, num_cached + T)": "new_ones(B, T)"},
            "the mask is over all L tokens, the cached ones too.",
            also=({"new_ones(B, num_cached + T)": "new_ones(B, T)"} | LAST_COLUMNS,),
        ),
        Mistake(
            "with a mask made from the ids",
            {
                "input_ids.new_ones(B, num_cached + T)": (
                    "F.pad((input_ids != self.config.pad_token_id).long(), (num_cached, 0), value=1)"
                ),
            },
            "None means that there is no padding, whatever the ids are.",
            also=(
                {
                    "input_ids.new_ones(B, num_cached + T)": (
                        "(input_ids != self.config.pad_token_id).long()"
                    ),
                }
                | LAST_COLUMNS,
            ),
        ),
        Mistake(
            "with a new cache at every call",
            {"KVCache() if kv_cache is None else kv_cache": "KVCache()"},
            "the one that is passed in holds the earlier tokens.",
            also=({"KVCache() if kv_cache is None else kv_cache": "KVCache()"} | LAST_COLUMNS,),
        ),
        Mistake(
            "without returning the cache",
            {', "kv_cache": kv_cache}': "}"},
            "the next call needs it.",
        ),
        Mistake(
            "with the logits alone",
            {"return output": 'return output["logits"]'},
            "the result has to be a dict: logits, kv_cache and, with labels, loss.",
        ),
        Mistake(
            "without passing logits_to_keep on",
            {"            logits_to_keep,\n": ""},
            "the language model would score all positions.",
        ),
        Mistake(
            "with labels that are not shifted",
            {"logits[:, :-1]": "logits", "labels[:, 1:]": "labels"},
            "the logits at a position predict the next token: here each would learn to repeat itself.",
        ),
        Mistake(
            "with labels shifted the other way",
            {"logits[:, :-1]": "logits[:, 1:]", "labels[:, 1:]": "labels[:, :-1]"},
            "the logits come one position before their label.",
        ),
        Mistake(
            "with labels shifted by two",
            {"logits[:, :-1]": "logits[:, :-2]", "labels[:, 1:]": "labels[:, 2:]"},
            "the logits come one position before their label.",
        ),
        Mistake(
            "with a loss over the prefix too",
            {"labels[:, 1:].flatten()": "input_ids[:, 1:].flatten()"},
            "only what the labels name has to be learned.",
        ),
        Mistake(
            "with a loss over the whole suffix, whatever the labels say",
            {
                "labels[:, 1:].flatten()": (
                    "input_ids.masked_fill(token_type_ids == 0, self.config.ignore_index)[:, 1:].flatten()"
                )
            },
            "what has to be learned is said by the labels: everything but ignore_index.",
            also=(
                {
                    "labels[:, 1:].flatten()": (
                        "labels.masked_fill(token_type_ids == 0, self.config.ignore_index)[:, 1:].flatten()"
                    )
                },
            ),
        ),
        Mistake(
            "when the picture's part gets no gradients",
            {
                "self.multi_modal_projector(self.vision_tower(pixel_values))": (
                    "self.multi_modal_projector(self.vision_tower(pixel_values).detach())"
                )
            },
            "whether the tower is trained is decided by who trains; the model lets gradients through.",
            also=(
                {
                    "self.multi_modal_projector(self.vision_tower(pixel_values))": (
                        "self.multi_modal_projector(self.vision_tower(pixel_values)).detach()"
                    )
                },
            ),
        ),
        Mistake(
            "with a loss that counts ignored labels",
            {
                "ignore_index=self.config.ignore_index\n            )": (
                    "ignore_index=self.config.ignore_index, reduction='none'\n            ).mean()"
                ),
            },
            "the mean is over the labels that are learned, not over all positions.",
        ),
        Mistake(
            "with the sum instead of the mean",
            {
                "ignore_index=self.config.ignore_index": (
                    "ignore_index=self.config.ignore_index, reduction='sum'"
                ),
            },
            "the loss is a mean: it must not grow with the batch.",
        ),
        Mistake(
            "with -100 as ignore_index",
            {"ignore_index=self.config.ignore_index": "ignore_index=-100"},
            "-100 is the usual one, but the config decides.",
        ),
        Mistake(
            "with a mean for each row first",
            {
                'output["loss"] = F.cross_entropy(': (
                    'output["loss"] = sum(F.cross_entropy(row[:-1], label[1:], '
                    "ignore_index=self.config.ignore_index) for row, label in zip(logits, labels)) / B\n  "
                    "          _ = F.cross_entropy("
                ),
            },
            "every label counts the same, in a long answer and in a short one.",
        ),
        Mistake(
            "with softmax before the cross entropy",
            {"logits[:, :-1].flatten(0, 1)": "logits.softmax(-1)[:, :-1].flatten(0, 1)"},
            "F.cross_entropy takes the scores themselves: its softmax is inside.",
        ),
        Mistake(
            "with a loss of None where there are no labels",
            {'"kv_cache": kv_cache}': '"kv_cache": kv_cache, "loss": None}'},
            "`loss` is only in the dict if labels are given.",
        ),
        Mistake(
            "with labels taken without token_type_ids",
            {
                (
                    'raise ValueError("labels need token_type_ids (0 prefix, 1 suffix): the answer must '
                    'be causal")'
                ): ("pass"),
            },
            "all would be prefix, and see the answer that has to be learned: a ValueError.",
        ),
    ],
    right_ways=[
        RightWay("in other words", in_other_words),
        RightWay(
            "with padding at position 1, as transformers has it",
            {
                "attention_mask.cumsum(dim=1)[": (
                    "attention_mask.cumsum(dim=1).masked_fill(attention_mask == 0, 1)["
                ),
            },
        ),
        RightWay(
            "with the last label left out instead of the first",
            {
                (
                    'output["loss"] = F.cross_entropy(\n                logits[:, :-1].flatten(0, 1), '
                    "labels[:, 1:].flatten(), ignore_index=self.config.ignore_index\n            )"
                ): (
                    "labels = F.pad(labels[:, 1:], (0, 1), value=self.config.ignore_index)\n            "
                    "output['loss'] = F.cross_entropy(logits.transpose(1, 2), labels, "
                    "ignore_index=self.config.ignore_index)"
                ),
            },
        ),
    ],
    compare="how the same lines serve the prompt, each decoding step and training: what differs is "
    "what is in the cache, and which tokens are suffix.",
)
