"""The exercise _merge_input_ids_with_image_features of decoder_0.py."""

from dataclasses import replace

import torch

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.decoder.inputs import IMAGE, PADDED, PROMPTS, SMALL_GEMMA, SMALL_PALIGEMMA, bf16
from course.exercises.inputs import randn

PALIGEMMA_WITHOUT_LAYERS = replace(
    SMALL_PALIGEMMA,
    vision_config=replace(SMALL_PALIGEMMA.vision_config, num_hidden_layers=0),
    text_config=replace(SMALL_GEMMA, num_hidden_layers=0),
)


def to_merge(rows, features=torch.float32, embeds=torch.float32):
    """Inputs of the merge: rows of ids, and random features and embeddings in these dtypes."""

    def inputs() -> dict:
        input_ids = torch.tensor(rows)
        return {
            "image_features": randn(len(rows), 4, 28, seed=1, dtype=features),
            "inputs_embeds": randn(*input_ids.shape, 28, dtype=embeds),
            "input_ids": input_ids,
        }

    return inputs


def merge(made, **inputs) -> torch.Tensor:
    return made._merge_input_ids_with_image_features(**inputs)


def learning(name: str):
    """Inputs of the merge, one of which is in training."""

    def inputs() -> dict:
        made = to_merge(PADDED)()
        made[name].requires_grad_()
        return made

    return inputs


ANYWHERE = [[*IMAGE, 2, 11, 12, 13, 3], [2, 50, 21, 50, 50, 22, 23, 50, 3], [2, 31, 32, 33, 3, *IMAGE]]


# Known mistakes that take whole functions.


def with_the_gradients_cut_off(
    self, image_features: torch.Tensor, inputs_embeds: torch.Tensor, input_ids: torch.Tensor
) -> torch.Tensor:
    B, N, D = image_features.shape
    is_image = input_ids == self.config.image_token_index  # [B, T]
    if (is_image.sum(dim=1) != N).any():
        counts = is_image.sum(dim=1).tolist()
        raise ValueError(f"each prompt needs {N} image tokens, one per patch, but they have {counts}")

    normalizer = torch.tensor(D**0.5, dtype=inputs_embeds.dtype)
    image_features = image_features.to(inputs_embeds.dtype) / normalizer
    image_features = image_features.detach()
    # masked_scatter fills row by row, so features stay with their own picture.
    return inputs_embeds.masked_scatter(is_image[:, :, None], image_features)


def in_the_dtype_of_the_features(
    self, image_features: torch.Tensor, inputs_embeds: torch.Tensor, input_ids: torch.Tensor
) -> torch.Tensor:
    B, N, D = image_features.shape
    is_image = input_ids == self.config.image_token_index  # [B, T]
    if (is_image.sum(dim=1) != N).any():
        counts = is_image.sum(dim=1).tolist()
        raise ValueError(f"each prompt needs {N} image tokens, one per patch, but they have {counts}")

    normalizer = torch.tensor(D**0.5, dtype=inputs_embeds.dtype)
    image_features = image_features / normalizer
    inputs_embeds = inputs_embeds.to(image_features.dtype)
    # masked_scatter fills row by row, so features stay with their own picture.
    return inputs_embeds.masked_scatter(is_image[:, :, None], image_features)


# Other right ways.


def written_into_a_copy(self, image_features, inputs_embeds, input_ids):
    places = input_ids == self.config.image_token_index
    for count in places.sum(1):
        if count != image_features.shape[1]:
            raise ValueError("wrong number of image tokens")
    scale = torch.tensor(image_features.shape[-1]).sqrt().to(inputs_embeds.dtype)
    merged = inputs_embeds.clone()
    merged[places] = (image_features.type_as(merged) / scale).reshape(-1, merged.shape[-1])
    return merged


def row_by_row(self, image_features, inputs_embeds, input_ids):
    D = inputs_embeds.shape[-1]
    features = image_features.to(inputs_embeds) / torch.tensor(D**0.5).to(inputs_embeds)
    rows = []
    for ids, row, patches in zip(input_ids, inputs_embeds, features):
        patches, new = list(patches), []
        for token, embedding in zip(ids.tolist(), row):
            if token == self.config.image_token_index:
                if not patches:
                    raise ValueError("too many image tokens")
                new.append(patches.pop(0))
            else:
                new.append(embedding)
        if patches:
            raise ValueError("too few image tokens")
        rows.append(torch.stack(new))
    return torch.stack(rows)


def which_patch_is_next_by_counting_and_torch_where(self, image_features, inputs_embeds, input_ids):
    B, N, D = image_features.shape
    is_image = input_ids.eq(self.config.image_token_index)
    if not torch.all(is_image.sum(-1) == N):
        raise ValueError(f"{N} image tokens needed")
    patch = (is_image.cumsum(1) - 1).clamp(min=0)
    spread = image_features.gather(1, patch[..., None].expand(-1, -1, D))
    root = inputs_embeds.new_full((), D**0.5)
    return torch.where(is_image[..., None], spread.to(inputs_embeds.dtype) / root, inputs_embeds)


def a_mask_of_all_numbers(self, image_features, inputs_embeds, input_ids):
    mask = (input_ids == self.config.image_token_index).unsqueeze(-1).expand_as(inputs_embeds)
    B, N, D = image_features.shape
    if mask[:, :, 0].sum(1).ne(N).any():
        raise ValueError
    root = torch.tensor(D**0.5, dtype=inputs_embeds.dtype)
    out = inputs_embeds.clone()
    out.masked_scatter_(mask, image_features.to(out.dtype).div(root))
    return out


EXERCISE = Exercise(
    name="_merge_input_ids_with_image_features",
    inside="PaliGemmaForConditionalGeneration",
    file="decoder",
    minutes=30,
    difficulty="hard",
    why="The moment in which the picture enters the language model: its patches become tokens.",
    builds_on=("GemmaModel", "PaliGemmaMultiModalProjector", "PaliGemmaForConditionalGeneration"),
    steps=[
        "Find the image tokens: [B, T].",
        "Refuse, with a ValueError, a row that does not hold N of them.",
        "Cast the features to the dtype of the embeddings, and divide them by sqrt(D), rounded to that "
        "dtype too.",
        "In a new tensor, put the features of each row, in order, where its image tokens are; "
        "everywhere else the embeddings stay.",
    ],
    hints=(
        "Begin with one row and a loop over its tokens: a counter says which patch is next. Then look "
        "for a function that does it for the whole batch.",
        "A comparison gives a bool mask. Counting it over the whole batch is not enough: one row could "
        "have too many and another too few. To write into a tensor, make a copy first.",
        "features = image_features.to(inputs_embeds.dtype) / normalizer; "
        "inputs_embeds.masked_scatter(is_image[:, :, None], features), or merged = inputs_embeds.clone(); "
        "merged[is_image] = features.flatten(0, 1).",
    ),
    make=lambda m: m.PaliGemmaForConditionalGeneration(PALIGEMMA_WITHOUT_LAYERS),
    result="B T D",
    sizes={"D": 28, "N": 4, "T": 9},
    cases=[
        Case("pictures in front of the prompts", to_merge(PROMPTS), call=merge),
        Case("one row padded on the left", to_merge(PADDED), call=merge, training=True),
        Case("image tokens anywhere, in three rows", to_merge(ANYWHERE), call=merge),
        Case(
            "another id for `<image>`",
            to_merge([[2, 5, 5, 5, 5, 50], [5, 5, 50, 0, 5, 5]]),
            make=lambda m: m.PaliGemmaForConditionalGeneration(
                replace(PALIGEMMA_WITHOUT_LAYERS, image_token_index=5)
            ),
            call=merge,
        ),
        Case("bfloat16", to_merge(PADDED, bf16, bf16), call=merge, exact=0.95),
        Case("features in float32, embeddings in bfloat16", to_merge(PADDED, embeds=bf16), call=merge),
        Case("features in bfloat16, embeddings in float32", to_merge(PADDED, features=bf16), call=merge),
        Case("features in training", learning("image_features"), call=merge),
        Case("embeddings in training", learning("inputs_embeds"), call=merge),
        Case(
            "a row with three image tokens for four patches: a ValueError",
            to_merge([[*IMAGE, 2, 3], [50, 50, 50, 2, 11, 3]]),
            call=merge,
        ),
        Case(
            "a row with five image tokens for four patches: a ValueError",
            to_merge([[50, *IMAGE, 2], [*IMAGE, 2, 3]]),
            call=merge,
        ),
        Case(
            "five image tokens in one row, three in the other: a ValueError",
            to_merge([[50, *IMAGE, 3], [50, 50, 50, 2, 11, 3]]),
            call=merge,
        ),
        Case("no image tokens at all: a ValueError", to_merge([[2, 11, 3], [2, 12, 3]]), call=merge),
        Case("on another device", to_merge(PADDED), call=merge, other_device=True),
    ],
    mistakes=[
        Mistake(
            "without dividing by sqrt(D)",
            {" / normalizer": ""},
            "GemmaModel multiplies everything by sqrt(D); divided first, the features come out as they were.",
        ),
        Mistake(
            "when multiplied by sqrt(D)",
            {" / normalizer": " * normalizer"},
            "GemmaModel multiplies everything by sqrt(D), so here they are divided.",
        ),
        Mistake(
            "when divided by D instead of its root",
            {"D**0.5": "D"},
            "GemmaModel multiplies by the root.",
        ),
        Mistake(
            "when divided by sqrt(N)",
            {"D**0.5": "N**0.5"},
            "GemmaModel multiplies by sqrt(D), the root of the width.",
        ),
        Mistake(
            "when divided twice",
            {" / normalizer": " / normalizer / normalizer"},
            "once is enough.",
        ),
        Mistake(
            "with the text divided too",
            {"inputs_embeds.masked_scatter": "(inputs_embeds / normalizer).masked_scatter"},
            "the embeddings of words are meant to be multiplied by sqrt(D).",
        ),
        Mistake(
            "when sqrt(D) is not rounded to the dtype",
            {"torch.tensor(D**0.5, dtype=inputs_embeds.dtype)": "D**0.5"},
            "GemmaModel multiplies by the rounded one: the two have to be the same number.",
        ),
        Mistake(
            "with the features at the first places",
            {
                "inputs_embeds.masked_scatter(is_image[:, :, None], image_features)": (
                    "torch.cat([image_features, inputs_embeds[:, N:]], dim=1)"
                ),
            },
            "padding may come first: they belong where the ids say `<image>`.",
        ),
        Mistake(
            "with the features put in front",
            {
                "inputs_embeds.masked_scatter(is_image[:, :, None], image_features)": (
                    "torch.cat([image_features, inputs_embeds], dim=1)"
                ),
            },
            "they replace the image tokens: the length stays T.",
        ),
        Mistake(
            "with the first picture in every row",
            {
                "masked_scatter(is_image[:, :, None], image_features)": (
                    "masked_scatter(is_image[:, :, None], image_features[:1].expand(B, N, D))"
                ),
            },
            "each row has a picture of its own.",
        ),
        Mistake(
            "with the rows' features mixed",
            {
                "masked_scatter(is_image[:, :, None], image_features)": (
                    "masked_scatter(is_image[:, :, None], image_features.transpose(0, 1).contiguous())"
                ),
            },
            "the N features of the first row come first, then those of the second.",
        ),
        Mistake(
            "with the pictures in another order",
            {
                "masked_scatter(is_image[:, :, None], image_features)": (
                    "masked_scatter(is_image[:, :, None], image_features.flip(0))"
                ),
            },
            "row b of the ids belongs to picture b.",
        ),
        Mistake(
            "with the patches in reverse",
            {
                "masked_scatter(is_image[:, :, None], image_features)": (
                    "masked_scatter(is_image[:, :, None], image_features.flip(1))"
                ),
            },
            "the first image token is the patch at the top left.",
        ),
        Mistake(
            "with the first patch at every place",
            {
                "masked_scatter(is_image[:, :, None], image_features)": (
                    "masked_scatter(is_image[:, :, None], image_features[:, :1].expand(B, N, D))"
                ),
            },
            "each image token gets the next patch.",
        ),
        Mistake(
            "with the features added",
            {
                "return inputs_embeds.masked_scatter(is_image[:, :, None], image_features)": (
                    "return inputs_embeds + torch.zeros_like(inputs_embeds).masked_scatter(is_image[:, "
                    ":, None], image_features)"
                ),
            },
            "they replace the embedding of `<image>`, which means nothing.",
        ),
        Mistake(
            "with zeros where the text is",
            {"inputs_embeds.masked_scatter": "torch.zeros_like(inputs_embeds).masked_scatter"},
            "everywhere else the embeddings stay.",
        ),
        Mistake(
            "when nothing is replaced",
            {
                "return inputs_embeds.masked_scatter(is_image[:, :, None], image_features)": (
                    "return inputs_embeds.clone()"
                ),
            },
            "many tensor functions return a new tensor: is the result used?",
        ),
        Mistake(
            "with the embeddings changed in place",
            {
                "return inputs_embeds.masked_scatter(is_image[:, :, None], image_features)": (
                    "with torch.no_grad():\n            inputs_embeds[is_image] = image_features.flatten("
                    "0, 1)\n        return inputs_embeds"
                ),
            },
            "the embeddings belong to the caller: copy them, and write into the copy.",
        ),
        Mistake(
            "without the check",
            {"(is_image.sum(dim=1) != N).any()": "False"},
            "with a wrong number of image tokens, features would be lost or get into another row: that "
            "has to be a ValueError.",
        ),
        Mistake(
            "with a check of the whole batch",
            {"(is_image.sum(dim=1) != N).any()": "is_image.sum() != B * N"},
            "five in one row and three in another add up, and are wrong all the same.",
        ),
        Mistake(
            "with a check for too few alone",
            {"is_image.sum(dim=1) != N": "is_image.sum(dim=1) < N"},
            "too many are wrong too.",
        ),
        Mistake(
            "with a check for too many alone",
            {"is_image.sum(dim=1) != N": "is_image.sum(dim=1) > N"},
            "too few are wrong too.",
        ),
        Mistake(
            "when it is only refused if every row is wrong",
            {".any()": ".all()"},
            "one wrong row is enough.",
        ),
        Mistake(
            "with 257152 written out",
            {"self.config.image_token_index": "257152"},
            "that is the id in one checkpoint: the config says which id `<image>` has.",
        ),
        Mistake(
            "with the padding token as the image token",
            {"self.config.image_token_index": "self.config.pad_token_id"},
            "image_token_index is the id of `<image>`.",
        ),
        Mistake(
            "with the id written out",
            {"self.config.image_token_index": "50"},
            "the config says which id `<image>` has.",
        ),
        Mistake(
            "with the gradients cut off",
            with_the_gradients_cut_off,
            "training has to reach the projector and the tower.",
        ),
        Mistake(
            "in the dtype of the features",
            in_the_dtype_of_the_features,
            "the decoder continues in the dtype of the embeddings.",
        ),
        Mistake(
            "without casting the features",
            {"image_features.to(inputs_embeds.dtype)": "image_features"},
            "a tensor can only be filled with values of its own dtype.",
        ),
    ],
    right_ways=[
        RightWay("written into a copy", written_into_a_copy),
        RightWay("row by row", row_by_row),
        RightWay(
            "which patch is next, by counting, and torch.where",
            which_patch_is_next_by_counting_and_torch_where,
        ),
        RightWay("a mask of all numbers", a_mask_of_all_numbers),
    ],
    compare="masked_scatter takes the values one after another, row by row: that is why every row must "
    "hold exactly N, and why the check comes first.",
)
