"""The exercise GemmaForCausalLM of decoder_0.py."""

from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.decoder.inputs import (
    SIZES,
    SMALL_GEMMA,
    bf16,
    embeddings,
    model_with_cache,
    output_layer,
)
from decoder_1 import GemmaModel


def product_in_bfloat16(made, kv_cache, **inputs) -> dict:
    """Whether the logits are numbers of bfloat16, whatever their dtype is now."""
    logits = made(kv_cache=kv_cache, **inputs)
    rounded = isinstance(logits, torch.Tensor) and torch.equal(logits, logits.bfloat16().to(logits.dtype))
    return {"the product with lm_head is computed in bfloat16": rounded}


# Other right ways.


class AskingWhetherItIs0NoLmHeadCall:
    def forward(self, inputs_embeds, attention_mask, position_ids, kv_cache, logits_to_keep=0):
        x = self.model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            kv_cache=kv_cache,
        )
        if logits_to_keep > 0:
            x = x[:, x.shape[1] - logits_to_keep :, :]
        return F.linear(x, self.model.embed_tokens.weight).to(torch.float32)


class TiedByHand:
    def __init__(self, config):
        super().__init__()
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.model = GemmaModel(config)
        self.lm_head.weight = self.model.embed_tokens.weight


class AllOfThemThenCut:
    def forward(self, inputs_embeds, attention_mask, position_ids, kv_cache, logits_to_keep=0):
        logits = self.lm_head(self.model(inputs_embeds, attention_mask, position_ids, kv_cache)).float()
        return logits if logits_to_keep == 0 else logits[:, -logits_to_keep:]


EXERCISE = Exercise(
    name="GemmaForCausalLM",
    file="decoder",
    minutes=15,
    difficulty="medium",
    why="Here features become words: a score for each of the 257,216 tokens.",
    builds_on=("GemmaModel", "GemmaForCausalLM.tie_weights"),
    steps={
        "__init__": [
            "Make model, and lm_head from hidden_size to vocab_size without bias, and tie them.",
        ],
        "forward": [
            "Send everything through the model.",
            "Keep the last logits_to_keep positions, or all of them if it is 0, before the scores are "
            "computed: scoring all of them costs a lot.",
            "Score them, and return the scores in float32.",
        ],
    },
    hints=(
        "What does x[:, -n:] give for n = 3, for n = 1, and for n = 0?",
        "x[:, -0:] is x[:, 0:], which is everything: the same slice serves all cases. The cast comes last.",
        "self.lm_head(hidden_states[:, -logits_to_keep:]).float().",
    ),
    make=lambda m: m.GemmaForCausalLM(replace(SMALL_GEMMA, num_hidden_layers=1)),
    result={"output": "B T V", "key_cache": "B K L Hd", "value_cache": "B K L Hd"},
    sizes=SIZES | {"V": 53},
    cases=[
        Case("all positions", embeddings(), call=model_with_cache, tolerance=3e-5, training=True),
        Case("the last one", embeddings(logits_to_keep=1), call=model_with_cache, tolerance=3e-5),
        Case("the last three", embeddings(logits_to_keep=3), call=model_with_cache, tolerance=3e-5),
        Case("0 of the last: all", embeddings(logits_to_keep=0), call=model_with_cache, tolerance=3e-5),
        Case(
            "three new tokens after five",
            embeddings(T=3, cached=5, layers=1, suffix=(3, 3)),
            call=model_with_cache,
            tolerance=3e-5,
        ),
        Case(
            "lm_head and embed_tokens are one parameter",
            call=output_layer,
        ),
        Case("bfloat16", embeddings(dtype=bf16), call=model_with_cache, dtype=bf16, tolerance=0.1),
        Case(
            "bfloat16: the product is in bfloat16, and the result cast",
            embeddings(dtype=bf16),
            call=product_in_bfloat16,
            dtype=bf16,
        ),
    ],
    mistakes=[
        Mistake(
            "without tying",
            {"self.tie_weights()": "pass"},
            "the checkpoint has no lm_head: its weight is that of embed_tokens.",
        ),
        Mistake(
            "with all positions whatever logits_to_keep says",
            {"[:, -logits_to_keep:]": ""},
            "for the next token only the last position is read, and each position costs a product with "
            "the whole vocabulary.",
        ),
        Mistake(
            "with the last position alone",
            {"-logits_to_keep:": "-1:"},
            "logits_to_keep says how many: training needs those of the whole answer.",
        ),
        Mistake(
            "with the first positions instead of the last",
            {"-logits_to_keep:": ":logits_to_keep or None"},
            "the next token is read from the last position.",
        ),
        Mistake(
            "when 0 keeps nothing",
            {"-logits_to_keep:": "hidden_states.shape[1] - logits_to_keep:"},
            "0 stands for all positions.",
        ),
        Mistake(
            "with one position too many",
            {"-logits_to_keep:": "-logits_to_keep - 1:"},
            "the last n positions are x[:, -n:].",
        ),
        Mistake(
            "without the axis of the tokens",
            {"hidden_states[:, -logits_to_keep:]": "hidden_states[:, -1]"},
            "the axis stays, even if its length is 1: [B, logits_to_keep, V].",
            also=({"-logits_to_keep:]": "-logits_to_keep]"},),
        ),
        Mistake(
            "in the dtype of the weights",
            {".float()": ""},
            "logits are float32, so that the softmax after them, in the loss or in sampling, is "
            "computed in float32 too.",
        ),
        Mistake(
            "when cast before the product",
            {
                "hidden_states[:, -logits_to_keep:]).float()": (
                    "hidden_states[:, -logits_to_keep:].float())"
                ),
            },
            "the product is in the dtype of the weights; the result is cast.",
        ),
        Mistake(
            "with the product in float32",
            {
                "self.lm_head(hidden_states[:, -logits_to_keep:]).float()": (
                    "F.linear(hidden_states[:, -logits_to_keep:].float(), self.lm_head.weight.float())"
                ),
            },
            "that copies a table of half a billion numbers to float32 for every token: the product is in the "
            "dtype of the weights, and the result is cast.",
        ),
        Mistake(
            "with softmax",
            {
                "return self.lm_head(": "return F.softmax(self.lm_head(",
                ".float()": ".float(), dim=-1)",
            },
            "logits are scores: softmax is taken where they are used, in the loss or in sampling.",
        ),
        Mistake(
            "with scores capped at 30",
            {
                "return self.lm_head(": "return 30 * torch.tanh(self.lm_head(",
                ".float()": ".float() / 30)",
            },
            "Gemma 2 caps its logits, Gemma does not.",
        ),
        Mistake(
            "with a bias",
            {"bias=False": "bias=True"},
            "there is none in the checkpoint.",
        ),
        Mistake(
            "with the sizes of lm_head swapped",
            {"config.hidden_size, config.vocab_size": "config.vocab_size, config.hidden_size"},
            "nn.Linear(in, out): from hidden_size to vocab_size. It works at all only because the "
            "weight is replaced by that of embed_tokens.",
        ),
        Mistake(
            "without the decoder",
            {"self.model(inputs_embeds, attention_mask, position_ids, kv_cache)": "inputs_embeds"},
            "the embeddings go through the model first.",
        ),
        Mistake(
            "with the best token instead of the scores",
            {".float()": ".argmax(dim=-1)"},
            "what to do with the scores is up to the caller.",
        ),
        Mistake(
            "with a new cache",
            {"position_ids, kv_cache)": "position_ids, KVCache())"},
            "the cache that is passed in holds the earlier tokens, and has to be extended.",
        ),
    ],
    right_ways=[
        RightWay("asking whether it is 0, no lm_head call", AskingWhetherItIs0NoLmHeadCall),
        RightWay("tied by hand", TiedByHand),
        RightWay("all of them, then cut", AllOfThemThenCut),
    ],
    compare="where the positions are cut: before lm_head. For a prompt of 260 tokens that saves 259 "
    "products with a table of half a billion numbers.",
)
