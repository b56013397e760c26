"""The exercise GemmaModel of decoder_0.py."""

from dataclasses import replace

import torch
from torch import nn

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.decoder.inputs import SIZES, SMALL_GEMMA, bf16, embeddings, model_with_cache
from decoder_1 import GemmaDecoderLayer, GemmaRMSNorm, GemmaRotaryEmbedding

# Other right ways.


class AppendAnotherOrderOfCreation:
    def __init__(self, config):
        super().__init__()
        self.norm = GemmaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.layers = nn.ModuleList()
        for i in range(config.num_hidden_layers):
            self.layers.append(GemmaDecoderLayer(config, layer_idx=i))
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=0)
        self.rope = GemmaRotaryEmbedding(rope_theta=config.rope_theta, head_dim=config.head_dim)
        self.register_buffer("scale", torch.tensor(config.hidden_size**0.5), persistent=False)

    def forward(self, inputs_embeds, attention_mask, position_ids, kv_cache):
        x = inputs_embeds * self.scale.to(inputs_embeds.dtype)
        turns = self.rope(x, position_ids)
        for i in range(len(self.layers)):
            x = self.layers[i](x, attention_mask=attention_mask, position_embeddings=turns, kv_cache=kv_cache)
        return self.norm(x)


class AnglesComputedAgainInEachLayer:
    def forward(self, inputs_embeds, attention_mask, position_ids, kv_cache):
        D = inputs_embeds.shape[-1]
        x = inputs_embeds * inputs_embeds.new_tensor(D).float().sqrt().to(inputs_embeds.dtype)
        for layer in self.layers:
            x = layer(x, attention_mask, self.rotary_emb(x, position_ids), kv_cache)
        return self.norm(x)


EXERCISE = Exercise(
    name="GemmaModel",
    file="decoder",
    minutes=20,
    difficulty="medium",
    why="From embeddings of picture and words to the features that predict the answer.",
    builds_on=("GemmaRMSNorm", "GemmaRotaryEmbedding", "GemmaDecoderLayer"),
    steps={
        "__init__": [
            "Make embed_tokens, a table with a vector of hidden_size for each token, and rotary_emb.",
            "Make layers: num_hidden_layers blocks, each with its own number, in a container whose "
            "modules torch sees; and norm, with the eps of the config.",
        ],
        "forward": [
            "Round sqrt(D) to the dtype of the embeddings, and multiply them by it.",
            "Make cos and sin once, for all layers.",
            "Send the tokens through the blocks, one after another, all with the same mask, angles and "
            "cache.",
            "Normalize what comes out.",
        ],
    },
    hints=(
        "A loop between a scaling and a norm. Look up which arguments a block and the rotary embedding take.",
        "The blocks are numbered 0, 1, 2, ... because each finds its keys in the cache by its number. A "
        "Python number is not rounded to bfloat16, a tensor of that dtype is.",
        "normalizer = torch.tensor(D**0.5, dtype=inputs_embeds.dtype); for layer in self.layers: "
        "hidden_states = layer(hidden_states, attention_mask, position_embeddings, kv_cache).",
    ),
    make=lambda m: m.GemmaModel(SMALL_GEMMA),
    result={"output": "B T D", "key_cache": "B K L Hd", "value_cache": "B K L Hd"},
    sizes=SIZES,
    cases=[
        Case(
            "no layers, small values, where eps counts",
            embeddings(),
            make=lambda m: m.GemmaModel(replace(SMALL_GEMMA, num_hidden_layers=0, rms_norm_eps=5.0)),
            call=model_with_cache,
        ),
        Case(
            "no layers, bfloat16: sqrt(D) is rounded first",
            embeddings(T=31, dtype=bf16),
            make=lambda m: m.GemmaModel(replace(SMALL_GEMMA, num_hidden_layers=0, rms_norm_eps=50.0)),
            call=model_with_cache,
            dtype=bf16,
            exact=0.9,
        ),
        Case(
            "three layers, one token alone",
            embeddings(T=1, padding=(0, 0), suffix=(0, 0)),
            call=model_with_cache,
            tolerance=5e-5,
        ),
        Case(
            "three layers, one row padded", embeddings(), call=model_with_cache, tolerance=5e-5, training=True
        ),
        Case(
            "three new tokens after five",
            embeddings(T=3, cached=5, layers=3, suffix=(3, 3)),
            call=model_with_cache,
            tolerance=5e-5,
        ),
        Case(
            "one layer, bfloat16",
            embeddings(dtype=bf16),
            make=lambda m: m.GemmaModel(replace(SMALL_GEMMA, num_hidden_layers=1)),
            call=model_with_cache,
            dtype=bf16,
            tolerance=0.1,
        ),
    ],
    mistakes=[
        Mistake(
            "without multiplying by sqrt(D)",
            {" * normalizer": ""},
            "Gemma's embeddings are small: they are multiplied by sqrt(D) on their way in.",
        ),
        Mistake(
            "when multiplied by D instead of its root",
            {"** 0.5": "** 1.0"},
            "it is the root of the width.",
        ),
        Mistake(
            "when divided by sqrt(D)",
            {"* normalizer": "/ normalizer"},
            "the embeddings are multiplied.",
        ),
        Mistake(
            "when multiplied by sqrt(Hd)",
            {"inputs_embeds.shape[-1] ** 0.5": "self.rotary_emb.head_dim ** 0.5"},
            "D is the width of the decoder, not the size of a head.",
        ),
        Mistake(
            "when multiplied twice",
            {"* normalizer": "* normalizer * normalizer"},
            "once is enough.",
        ),
        Mistake(
            "when sqrt(D) is not rounded to the dtype",
            {
                "torch.tensor(inputs_embeds.shape[-1] ** 0.5, dtype=inputs_embeds.dtype)": (
                    "(inputs_embeds.shape[-1] ** 0.5)"
                ),
            },
            "the makers' code rounds sqrt(D) to the model's dtype: in bfloat16 45.25, where sqrt(2048) "
            "is 45.2548.",
        ),
        Mistake(
            "when multiplied again before every layer",
            {
                "hidden_states = inputs_embeds * normalizer": "hidden_states = inputs_embeds",
                "hidden_states = layer(hidden_states,": (
                    "hidden_states = hidden_states * normalizer\n            hidden_states = "
                    "layer(hidden_states,"
                ),
            },
            "the embeddings are multiplied once, before the first layer, and not inside the loop.",
        ),
        Mistake(
            "when multiplied after the layers",
            {
                "hidden_states = inputs_embeds * normalizer": "hidden_states = inputs_embeds",
                "self.norm(hidden_states)": "self.norm(hidden_states * normalizer)",
            },
            "it is the embeddings that are multiplied, before the first block.",
        ),
        Mistake(
            "without the last norm",
            {"self.norm(hidden_states)": "hidden_states"},
            "the blocks are pre-norm, so nothing has normalized what the last one made.",
        ),
        Mistake(
            "with the norm before the blocks",
            {
                "inputs_embeds * normalizer": "self.norm(inputs_embeds * normalizer)",
                "return self.norm(hidden_states)": "return hidden_states",
            },
            "norm comes last; each block normalizes its own input.",
        ),
        Mistake(
            "with the usual eps for the last norm",
            {", eps=config.rms_norm_eps": ""},
            "1e-6 is only GemmaRMSNorm's default; the config decides.",
        ),
        Mistake(
            "with a plain list",
            {
                (
                    "nn.ModuleList(\n            [GemmaDecoderLayer(config, layer_idx) for layer_idx in "
                    "range(config.num_hidden_layers)]\n        )"
                ): (
                    "[GemmaDecoderLayer(config, layer_idx) for layer_idx in range(config.num_hidden_layers)]"
                ),
            },
            "torch does not look into lists: no weights would be loaded or trained.",
        ),
        Mistake(
            "with one layer used again and again",
            {
                "[GemmaDecoderLayer(config, layer_idx) for layer_idx in range(config.num_hidden_layers)]": (
                    "[GemmaDecoderLayer(config, 0)] * config.num_hidden_layers"
                ),
            },
            "`[layer] * n` is n times the same object; each block has weights of its own.",
        ),
        Mistake(
            "with number 0 for every layer",
            {"GemmaDecoderLayer(config, layer_idx)": "GemmaDecoderLayer(config, 0)"},
            "by its number a block finds its own keys in the cache.",
        ),
        Mistake(
            "with numbers that begin at 1",
            {"GemmaDecoderLayer(config, layer_idx)": "GemmaDecoderLayer(config, layer_idx + 1)"},
            "the cache counts layers from 0.",
        ),
        Mistake(
            "with the layers in reverse",
            {"in self.layers:": "in reversed(self.layers):"},
            "layer 0 comes first.",
        ),
        Mistake(
            "with the first layer alone",
            {"in self.layers:": "in self.layers[:1]:"},
            "all blocks are needed; is a `return` inside the loop?",
            also=(
                {
                    "position_embeddings, kv_cache)\n        return": (
                        "position_embeddings, kv_cache)\n            return"
                    )
                },
            ),
        ),
        Mistake(
            "with the last layer left out",
            {"in self.layers:": "in self.layers[:-1]:"},
            "all blocks are needed.",
        ),
        Mistake(
            "when every layer reads the first input",
            {
                "hidden_states = inputs_embeds * normalizer": (
                    "hidden_states = x = inputs_embeds * normalizer"
                ),
                "layer(hidden_states,": "layer(x,",
            },
            "each block reads what the one before it made.",
        ),
        Mistake(
            "with a new cache for each layer",
            {"position_embeddings, kv_cache)": "position_embeddings, KVCache())"},
            "the cache that is passed in holds the earlier tokens of all layers, and has to be extended.",
        ),
        Mistake(
            "without the mask",
            {
                "layer(hidden_states, attention_mask,": (
                    "layer(hidden_states, torch.ones_like(attention_mask),"
                ),
            },
            "attention has to know what it must not look at.",
        ),
        Mistake(
            "with positions counted from 0 again",
            {
                "(hidden_states, position_ids)": (
                    "(hidden_states, torch.arange(position_ids.shape[1]).expand_as(position_ids))"
                ),
            },
            "position_ids says where each token is: padding and a cache shift it.",
        ),
        Mistake(
            "with 10000 as theta",
            {"config.rope_theta": "10_000.0"},
            "10000 is the usual theta, but the config decides.",
        ),
        Mistake(
            "with D as the size of a head",
            {"GemmaRotaryEmbedding(config.head_dim": "GemmaRotaryEmbedding(config.hidden_size"},
            "it is the numbers of one head that are rotated.",
        ),
        Mistake(
            "with the sizes of the table swapped",
            {
                "nn.Embedding(config.vocab_size, config.hidden_size)": (
                    "nn.Embedding(config.hidden_size, config.vocab_size)"
                ),
            },
            "a row for each token, hidden_size numbers in each.",
        ),
        Mistake(
            "with the input changed in place",
            {
                "hidden_states = inputs_embeds * normalizer": (
                    "inputs_embeds *= normalizer\n        hidden_states = inputs_embeds"
                ),
            },
            "`*=` writes into the caller's tensor.",
        ),
    ],
    right_ways=[
        RightWay("append, another order of creation", AppendAnotherOrderOfCreation),
        RightWay("angles computed again in each layer", AnglesComputedAgainInEachLayer),
    ],
    compare="where the scaling is: embeddings come in unscaled, so that features of a picture can "
    "replace some of them first.",
)
