"""The exercises of decoder_0.py from the block to the whole model. What each field means is told in
exercises.py."""

from dataclasses import replace

import torch
from torch import nn

from course.exercise_inputs import randn
from course.exercise_types import Case, Exercise, Mistake, RightWay
from course.exercises_decoder import SIZES, SMALL, bf16, cache, mask_2d, tokens, types, with_cache
from decoder_1 import KVCache, PaliGemmaConfig, prefix_lm_mask
from vision_transformer_1 import VisionConfig

# N 4 (2 x 2 patches), C 18; the ids of `<image>` and of labels to be left out are not the usual ones.
WHOLE = PaliGemmaConfig(
    vision_config=VisionConfig(
        hidden_size=18,
        intermediate_size=23,
        num_hidden_layers=1,
        num_attention_heads=3,
        patch_size=5,
        image_size=10,
        layer_norm_eps=0.3,
    ),
    text_config=replace(SMALL, num_hidden_layers=1),
    projection_dim=28,
    image_token_index=50,
    ignore_index=-7,
)
NO_LAYERS = replace(
    WHOLE,
    vision_config=replace(WHOLE.vision_config, num_hidden_layers=0),
    text_config=replace(SMALL, num_hidden_layers=0),
)


def embeddings(
    T: int = 7,
    cached: int = 0,
    layers: int = 0,
    padding=(0, 2),
    suffix=(2, 3),
    dtype=torch.float32,
    scale: float = 0.3,
    **more,
):
    """Inputs of GemmaModel: T new tokens, after `cached` ones in each of some layers."""

    def inputs() -> dict:
        mask = mask_2d(cached + T, padding)
        return {
            "inputs_embeds": randn(len(padding), T, 28, scale=scale, dtype=dtype),
            "attention_mask": prefix_lm_mask(mask, types(T, suffix)),
            "position_ids": mask.cumsum(dim=1)[:, cached:],
            "kv_cache": cache(layers, cached, len(padding), dtype=dtype),
        } | more

    return inputs


def model_with_cache(made, kv_cache, **inputs) -> dict:
    """Calls a stack of blocks, and looks into the cache afterwards."""
    return {"output": made(kv_cache=kv_cache, **inputs), "kv_cache": kv_cache}


def output_layer(made) -> dict:
    """Whether the two are tied, and the sizes that lm_head was made for."""
    return {
        "one parameter": made.lm_head.weight is made.model.embed_tokens.weight,
        "lm_head.in_features": getattr(made.lm_head, "in_features", 28),
        "lm_head.out_features": getattr(made.lm_head, "out_features", 53),
    }


def loaded(made, embed_tokens) -> dict:
    """What a loader does: it puts another parameter in place, and ties again."""
    made.model.embed_tokens.weight = nn.Parameter(embed_tokens.clone())
    made.tie_weights()
    return {
        "one parameter": made.lm_head.weight is made.model.embed_tokens.weight,
        "embed_tokens.weight": made.model.embed_tokens.weight,
        "lm_head.weight": made.lm_head.weight,
    }


def trained(made, hidden_states) -> dict:
    """A step of training by the output layer alone: the embeddings have to take it too."""
    made.tie_weights()
    logits = made.lm_head(hidden_states)
    with torch.no_grad():
        made.lm_head.weight.add_(1.0)
    return {"logits": logits, "embed_tokens.weight": made.model.embed_tokens.weight}


def untied(made):
    """The two as separate parameters, as a loader may leave them."""
    made.lm_head.weight = nn.Parameter(made.lm_head.weight.detach().clone())
    return made


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


# Ids: 50 is `<image>`, 2 `<bos>`, 3 a newline, 0 padding, 1 `<eos>`.
IMAGE = [50, 50, 50, 50]
PROMPTS = [[*IMAGE, 2, 11, 12, 13, 3], [*IMAGE, 2, 21, 22, 23, 3]]
PADDED = [[*IMAGE, 2, 11, 12, 13, 3], [0, 0, *IMAGE, 2, 21, 3]]
ANYWHERE = [[*IMAGE, 2, 11, 12, 13, 3], [2, 50, 21, 50, 50, 22, 23, 50, 3], [2, 31, 32, 33, 3, *IMAGE]]
ANSWERED = [[*IMAGE, 2, 11, 3, 31, 32, 33, 1], [0, 0, *IMAGE, 2, 3, 41, 42, 1]]
PADDED_MASK = [[1] * 9, [0, 0, *[1] * 7]]


def batch(rows, pictures: bool = True, **more):
    """Inputs of forward, by name: lists become tensors, and a new cache is made."""

    def inputs() -> dict:
        made = {"input_ids": torch.tensor(rows)}
        if pictures:
            made["pixel_values"] = randn(len(rows), 3, 10, 10)
        for name, value in more.items():
            value = value() if callable(value) else value
            made[name] = torch.tensor(value) if isinstance(value, list) else value
        return made

    return inputs


def by_name(made, **inputs):
    return made(**inputs)


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


EXERCISES = [
    Exercise(
        name="GemmaDecoderLayer",
        file="decoder",
        minutes=15,
        difficulty="medium",
        why="One block, repeated 18 times, is the whole decoder.",
        builds_on=("GemmaRMSNorm", "GemmaMLP", "GemmaAttention"),
        steps={
            "__init__": [
                "Make input_layernorm and post_attention_layernorm, of hidden_size with the eps of the "
                "config, self_attn, which has to know its layer_idx, and mlp.",
            ],
            "forward": [
                "Normalize the input, send it through attention with everything that attention needs, and "
                "add the input itself.",
                "Normalize that sum, send it through the MLP, and add the sum itself.",
                "Leave the tensor that came in as it was.",
            ],
        },
        hints=(
            "It is the rhythm of the vision tower's EncoderLayer: normalize, work, add, twice. Which of "
            "them needs more than one argument now?",
            "Each norm comes before its sublayer; what is added is the input before the norm. "
            "post_attention_layernorm is the norm of the MLP.",
            "hidden_states = hidden_states + self.self_attn(self.input_layernorm(hidden_states), "
            "attention_mask, position_embeddings, kv_cache); then the same with "
            "self.mlp(self.post_attention_layernorm(hidden_states)).",
        ),
        make=lambda m: m.GemmaDecoderLayer(SMALL, 0),
        result={"output": "B T D", "key_cache": "B K L Hd", "value_cache": "B K L Hd"},
        sizes=SIZES,
        cases=[
            Case("prefix and suffix, one row padded", tokens(), call=with_cache, tolerance=3e-5),
            Case("small values, where eps counts", tokens(scale=0.2), call=with_cache, tolerance=3e-5),
            Case(
                "three new tokens after five, in the second layer",
                tokens(T=3, cached=5, layers=2, suffix=(3, 3)),
                make=lambda m: m.GemmaDecoderLayer(SMALL, 1),
                call=with_cache,
                tolerance=3e-5,
            ),
            Case("bfloat16", tokens(dtype=bf16), dtype=bf16, tolerance=0.1, call=with_cache),
        ],
        mistakes=[
            Mistake(
                "without the residual around attention",
                {"hidden_states = hidden_states + self.self_attn(": "hidden_states = self.self_attn("},
                "what attention found is added to the token; it does not replace it.",
            ),
            Mistake(
                "without the residual around the MLP",
                {"hidden_states = hidden_states + self.mlp(": "hidden_states = self.mlp("},
                "what the MLP makes is added to the token; it does not replace it.",
            ),
            Mistake(
                "with the norms after the sublayers",
                """
def forward(self, hidden_states, *others):
    hidden_states = hidden_states + self.input_layernorm(self.self_attn(hidden_states, *others))
    return hidden_states + self.post_attention_layernorm(self.mlp(hidden_states))
""",
                "each norm comes before its sublayer (pre-norm).",
            ),
            Mistake(
                "with the norms around the sums",
                """
def forward(self, hidden_states, *others):
    hidden_states = self.input_layernorm(hidden_states + self.self_attn(hidden_states, *others))
    return self.post_attention_layernorm(hidden_states + self.mlp(hidden_states))
""",
                "that is the first transformer's post-norm; Gemma normalizes what goes into a sublayer.",
            ),
            Mistake(
                "with post_attention_layernorm right after attention",
                """
def forward(self, hidden_states, *others):
    attended = self.self_attn(self.input_layernorm(hidden_states), *others)
    hidden_states = hidden_states + self.post_attention_layernorm(attended)
    return hidden_states + self.mlp(hidden_states)
""",
                "that is what the name sounds like, and what Gemma 2 does; in Gemma it is the norm before "
                "the MLP.",
            ),
            Mistake(
                "with the residual taken after the norm",
                """
def forward(self, hidden_states, *others):
    hidden_states = self.input_layernorm(hidden_states)
    hidden_states = hidden_states + self.self_attn(hidden_states, *others)
    hidden_states = self.post_attention_layernorm(hidden_states)
    return hidden_states + self.mlp(hidden_states)
""",
                "what is added is the input of the norm, so that it can pass through all blocks untouched.",
            ),
            Mistake(
                "without the first norm",
                {"self.input_layernorm(hidden_states)": "hidden_states"},
                "attention reads a normalized input.",
            ),
            Mistake(
                "without the second norm",
                {"self.post_attention_layernorm(hidden_states)": "hidden_states"},
                "the MLP reads a normalized input.",
            ),
            Mistake(
                "with the norms swapped",
                {
                    "self.input_layernorm(hidden_states)": "self.post_attention_layernorm("
                    "hidden_states)  # first",
                    "self.post_attention_layernorm(hidden_states))": "self.input_layernorm(hidden_states))",
                },
                "input_layernorm comes before attention, post_attention_layernorm before the MLP.",
            ),
            Mistake(
                "with one norm for both",
                {"self.post_attention_layernorm(hidden_states)": "self.input_layernorm(hidden_states)"},
                "each sublayer has a norm of its own.",
            ),
            Mistake(
                "with the usual eps",
                {", eps=config.rms_norm_eps": ""},
                "1e-6 is only GemmaRMSNorm's default; the config decides.",
            ),
            Mistake(
                "with the MLP beside attention",
                """
def forward(self, hidden_states, *others):
    attended = self.self_attn(self.input_layernorm(hidden_states), *others)
    return hidden_states + attended + self.mlp(self.post_attention_layernorm(hidden_states))
""",
                "the MLP works on what attention has gathered, so it comes after it.",
            ),
            Mistake(
                "with the MLP first",
                """
def forward(self, hidden_states, *others):
    hidden_states = hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))
    return hidden_states + self.self_attn(self.input_layernorm(hidden_states), *others)
""",
                "attention comes first.",
            ),
            Mistake(
                "with the first layer's cache for all",
                {"GemmaAttention(config, layer_idx)": "GemmaAttention(config, 0)"},
                "attention has to know which layer it is in, to find its own keys and values.",
            ),
            Mistake(
                "with a new cache",
                {
                    "attention_mask, position_embeddings, kv_cache": "attention_mask, position_embeddings, "
                    "KVCache()"
                },
                "the cache that is passed in holds the earlier tokens, and has to be extended.",
            ),
            Mistake(
                "without the mask",
                {
                    "attention_mask, position_embeddings, kv_cache": "torch.ones_like(attention_mask), "
                    "position_embeddings, kv_cache"
                },
                "attention has to know what it must not look at.",
            ),
            Mistake(
                "with the input changed in place",
                {"hidden_states = hidden_states + self.self_attn(": "hidden_states += self.self_attn("},
                "`+=` on a tensor writes into it, so the caller's tensor changes too.",
            ),
        ],
        right_ways=[
            RightWay(
                "with a name for each residual",
                """
def forward(self, hidden_states, attention_mask, position_embeddings, kv_cache):
    residual = hidden_states
    x = self.input_layernorm(hidden_states)
    x = self.self_attn(hidden_states=x, attention_mask=attention_mask,
                       position_embeddings=position_embeddings, kv_cache=kv_cache)
    x += residual
    y = self.mlp(self.post_attention_layernorm(x))
    return y.add_(x)
""",
            ),
            RightWay(
                "another order of creation",
                """
def __init__(self, config, layer_idx):
    super().__init__()
    D, eps = config.hidden_size, config.rms_norm_eps
    self.mlp = GemmaMLP(config)
    self.self_attn = GemmaAttention(layer_idx=layer_idx, config=config)
    self.post_attention_layernorm, self.input_layernorm = GemmaRMSNorm(D, eps), GemmaRMSNorm(D, eps)
""",
            ),
        ],
        compare="the two lines next to those of EncoderLayer: the only difference is what is passed on to "
        "attention.",
    ),
    Exercise(
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
            "A loop between a scaling and a norm. Look up which arguments a block and the rotary embedding "
            "take.",
            "The blocks are numbered 0, 1, 2, ... because each finds its keys in the cache by its number. A "
            "Python number is not rounded to bfloat16, a tensor of that dtype is.",
            "normalizer = torch.tensor(D**0.5, dtype=inputs_embeds.dtype); for layer in self.layers: "
            "hidden_states = layer(hidden_states, attention_mask, position_embeddings, kv_cache).",
        ),
        make=lambda m: m.GemmaModel(SMALL),
        result={"output": "B T D", "key_cache": "B K L Hd", "value_cache": "B K L Hd"},
        sizes=SIZES,
        cases=[
            Case(
                "no layers, small values, where eps counts",
                embeddings(),
                make=lambda m: m.GemmaModel(replace(SMALL, num_hidden_layers=0, rms_norm_eps=5.0)),
                call=model_with_cache,
            ),
            Case(
                "no layers, bfloat16: sqrt(D) is rounded first",
                embeddings(T=31, dtype=bf16),
                make=lambda m: m.GemmaModel(replace(SMALL, num_hidden_layers=0, rms_norm_eps=50.0)),
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
            Case("three layers, one row padded", embeddings(), call=model_with_cache, tolerance=5e-5),
            Case(
                "three new tokens after five",
                embeddings(T=3, cached=5, layers=3, suffix=(3, 3)),
                call=model_with_cache,
                tolerance=5e-5,
            ),
            Case(
                "one layer, bfloat16",
                embeddings(dtype=bf16),
                make=lambda m: m.GemmaModel(replace(SMALL, num_hidden_layers=1)),
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
                    "torch.tensor(inputs_embeds.shape[-1] ** 0.5, dtype=inputs_embeds.dtype)": "("
                    "inputs_embeds.shape[-1] ** 0.5)"
                },
                "the makers' code rounds sqrt(D) to the model's dtype: in bfloat16 45.25, where sqrt(2048) "
                "is 45.2548.",
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
                    "nn.ModuleList(\n            [GemmaDecoderLayer(config, layer_idx) for layer_idx in "
                    "range(config.num_hidden_layers)]\n        )": "[GemmaDecoderLayer(config, layer_idx) "
                    "for layer_idx in range(config.num_hidden_layers)]"
                },
                "torch does not look into lists: no weights would be loaded or trained.",
            ),
            Mistake(
                "with one layer used again and again",
                {
                    "[GemmaDecoderLayer(config, layer_idx) for layer_idx in "
                    "range(config.num_hidden_layers)]": "[GemmaDecoderLayer(config, 0)] * "
                    "config.num_hidden_layers"
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
            ),
            Mistake(
                "with the last layer left out",
                {"in self.layers:": "in self.layers[:-1]:"},
                "all blocks are needed.",
            ),
            Mistake(
                "when every layer reads the first input",
                {
                    "hidden_states = inputs_embeds * normalizer": "hidden_states = x = inputs_embeds * "
                    "normalizer",
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
                    "layer(hidden_states, attention_mask,": "layer(hidden_states, "
                    "torch.ones_like(attention_mask),"
                },
                "attention has to know what it must not look at.",
            ),
            Mistake(
                "with positions counted from 0 again",
                {
                    "(hidden_states, position_ids)": "(hidden_states, torch.arange("
                    "position_ids.shape[1]).expand_as(position_ids))"
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
                    "nn.Embedding(config.vocab_size, config.hidden_size)": "nn.Embedding(config.hidden_size, "
                    "config.vocab_size)"
                },
                "a row for each token, hidden_size numbers in each.",
            ),
            Mistake(
                "with the input changed in place",
                {
                    "hidden_states = inputs_embeds * normalizer": "inputs_embeds *= normalizer\n        "
                    "hidden_states = inputs_embeds"
                },
                "`*=` writes into the caller's tensor.",
            ),
        ],
        right_ways=[
            RightWay(
                "append, another order of creation",
                """
def __init__(self, config):
    super().__init__()
    self.norm = GemmaRMSNorm(config.hidden_size, config.rms_norm_eps)
    self.layers = nn.ModuleList()
    for i in range(config.num_hidden_layers):
        self.layers.append(GemmaDecoderLayer(config, layer_idx=i))
    self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=0)
    self.rope = GemmaRotaryEmbedding(rope_theta=config.rope_theta, head_dim=config.head_dim)
    self.register_buffer("scale", torch.tensor(config.hidden_size ** 0.5), persistent=False)

def forward(self, inputs_embeds, attention_mask, position_ids, kv_cache):
    x = inputs_embeds * self.scale.to(inputs_embeds.dtype)
    turns = self.rope(x, position_ids)
    for i in range(len(self.layers)):
        x = self.layers[i](x, attention_mask=attention_mask, position_embeddings=turns, kv_cache=kv_cache)
    return self.norm(x)
""",
            ),
            RightWay(
                "angles computed again in each layer",
                """
def forward(self, inputs_embeds, attention_mask, position_ids, kv_cache):
    D = inputs_embeds.shape[-1]
    x = inputs_embeds * inputs_embeds.new_tensor(D).float().sqrt().to(inputs_embeds.dtype)
    for layer in self.layers:
        x = layer(x, attention_mask, self.rotary_emb(x, position_ids), kv_cache)
    return self.norm(x)
""",
            ),
        ],
        compare="where the scaling is: embeddings come in unscaled, so that features of a picture can "
        "replace some of them first.",
    ),
    Exercise(
        name="GemmaForCausalLM.tie_weights",
        file="decoder",
        minutes=5,
        difficulty="easy",
        why="The checkpoint holds no lm_head: without this, the answers would be noise.",
        builds_on=("GemmaModel",),
        steps=[
            "Find the parameter that has to stay: the one that the checkpoint holds.",
            "Put that very object, not a copy, in place of the other.",
            "Leave the modules themselves as they are: one looks up, the other multiplies.",
        ],
        hints=(
            "Two names for one object: what does `=` do in Python?",
            "The weight of an nn.Linear is an attribute that can be set to another nn.Parameter.",
            "self.lm_head.weight = self.model.embed_tokens.weight.",
        ),
        make=lambda m: m.GemmaForCausalLM(replace(SMALL, num_hidden_layers=0)),
        sizes=SIZES,
        cases=[
            Case(
                "a model that was just made",
                call=output_layer,
            ),
            Case(
                "other embeddings were loaded",
                lambda: {"embed_tokens": randn(53, 28)},
                call=loaded,
            ),
            Case(
                "a step of training by the output layer",
                lambda: {"hidden_states": randn(2, 7, 28)},
                call=trained,
                make=lambda m: untied(m.GemmaForCausalLM(replace(SMALL, num_hidden_layers=0))),
            ),
        ],
        mistakes=[
            Mistake(
                "with a copy",
                {"self.model.embed_tokens.weight": "nn.Parameter(self.model.embed_tokens.weight.clone())"},
                "a copy is right until the first step of training; then the two drift apart.",
            ),
            Mistake(
                "with two parameters that share their numbers",
                {
                    "self.lm_head.weight = self.model.embed_tokens.weight": "self.lm_head.weight.data = "
                    "self.model.embed_tokens.weight.data"
                },
                "each would have gradients of its own, and a saved checkpoint would hold both: it has to "
                "be one parameter.",
            ),
            Mistake(
                "with the embeddings replaced",
                {
                    "self.lm_head.weight = self.model.embed_tokens.weight": "self.model.embed_tokens.weight "
                    "= self.lm_head.weight"
                },
                "the checkpoint holds embed_tokens, so that is the one to keep.",
            ),
            Mistake(
                "with the module in place of its weight",
                {
                    "self.lm_head.weight = self.model.embed_tokens.weight": "self.lm_head = "
                    "self.model.embed_tokens"
                },
                "an nn.Embedding looks rows up; the output layer has to multiply.",
            ),
            Mistake(
                "with the table transposed",
                {"self.model.embed_tokens.weight": "nn.Parameter(self.model.embed_tokens.weight.T)"},
                "both are [V, D]: nn.Linear itself multiplies by the transpose of its weight.",
            ),
            Mistake(
                "when nothing is tied",
                {"self.lm_head.weight = self.model.embed_tokens.weight": "pass"},
                "lm_head would keep its random numbers.",
            ),
            Mistake(
                "when it is done only once",
                {
                    "self.lm_head.weight = self.model.embed_tokens.weight": "if not hasattr(self, 'tied'):\n"
                    "            self.lm_head.weight = self.model.embed_tokens.weight\n        self.tied = "
                    "True"
                },
                "a loader puts other parameters in place and calls it again.",
            ),
        ],
        right_ways=[
            RightWay(
                "register_parameter",
                """
def tie_weights(self):
    table = self.model.embed_tokens
    self.lm_head.register_parameter("weight", table.weight)
""",
            ),
            RightWay(
                "only where it is needed",
                """
def tie_weights(self):
    if self.lm_head.weight is not self.model.embed_tokens.weight:
        setattr(self.lm_head, "weight", self.model.get_parameter("embed_tokens.weight"))
    return self
""",
            ),
        ],
        compare="one line, and half a billion parameters fewer: 257216 * 2048 numbers that would be "
        "stored twice.",
    ),
    Exercise(
        name="GemmaForCausalLM",
        file="decoder",
        minutes=15,
        difficulty="medium",
        why="Here features become words: a score for each of the 257216 tokens.",
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
            "x[:, -0:] is x[:, 0:], which is everything: the same slice serves all cases. The cast comes "
            "last.",
            "self.lm_head(hidden_states[:, -logits_to_keep:]).float().",
        ),
        make=lambda m: m.GemmaForCausalLM(replace(SMALL, num_hidden_layers=1)),
        result={"output": "B T V", "key_cache": "B K L Hd", "value_cache": "B K L Hd"},
        sizes=SIZES | {"V": 53},
        cases=[
            Case("all positions", embeddings(), call=model_with_cache, tolerance=3e-5),
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
                "logits_to_keep says how many: in training all of them count.",
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
                    "hidden_states[:, "
                    "-logits_to_keep:]).float()": "hidden_states[:, -logits_to_keep:].float())"
                },
                "the product is in the dtype of the weights; the result is cast.",
            ),
            Mistake(
                "with softmax",
                {"return self.lm_head(": "return F.softmax(self.lm_head(", ".float()": ".float(), dim=-1)"},
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
            RightWay(
                "asking whether it is 0, no lm_head call",
                """
def forward(self, inputs_embeds, attention_mask, position_ids, kv_cache, logits_to_keep=0):
    x = self.model(inputs_embeds=inputs_embeds, attention_mask=attention_mask,
                   position_ids=position_ids, kv_cache=kv_cache)
    if logits_to_keep > 0:
        x = x[:, x.shape[1] - logits_to_keep:, :]
    return F.linear(x, self.model.embed_tokens.weight).to(torch.float32)
""",
            ),
            RightWay(
                "tied by hand",
                """
def __init__(self, config):
    super().__init__()
    self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
    self.model = GemmaModel(config)
    self.lm_head.weight = self.model.embed_tokens.weight
""",
            ),
            RightWay(
                "all of them, then cut",
                """
def forward(self, inputs_embeds, attention_mask, position_ids, kv_cache, logits_to_keep=0):
    logits = self.lm_head(self.model(inputs_embeds, attention_mask, position_ids, kv_cache)).float()
    return logits if logits_to_keep == 0 else logits[:, -logits_to_keep:]
""",
            ),
        ],
        compare="where the positions are cut: before lm_head. For a prompt of 260 tokens that saves 259 "
        "products with a table of half a billion numbers.",
    ),
    Exercise(
        name="PaliGemmaMultiModalProjector",
        file="decoder",
        minutes=5,
        difficulty="easy",
        why="The tower's vectors are 1152 wide and mean nothing to Gemma, which reads 2048 numbers.",
        steps={
            "__init__": [
                "Make linear: from the width of the vision tower to projection_dim, with bias.",
            ],
            "forward": [
                "Project the features of all patches.",
                "Return them as they are: no activation, no scaling.",
            ],
        },
        hints=(
            "One layer. Which of the two widths is in the vision_config?",
            "nn.Linear(in, out): the sizes are config.vision_config.hidden_size and config.projection_dim.",
            "return self.linear(image_features).",
        ),
        make=lambda m: m.PaliGemmaMultiModalProjector(WHOLE),
        result="B N D",
        sizes={"C": 18, "D": 28, "N": 4},
        cases=[
            Case("a batch of two", lambda: {"image_features": randn(2, 4, 18)}),
            Case("bfloat16", lambda: {"image_features": randn(2, 4, 18, dtype=bf16)}, dtype=bf16),
        ],
        mistakes=[
            Mistake(
                "without the bias",
                {"config.projection_dim)": "config.projection_dim, bias=False)"},
                "this one has a bias, unlike Gemma's projections.",
            ),
            Mistake(
                "with the two widths swapped",
                {
                    "config.vision_config.hidden_size, config.projection_dim": "config.projection_dim, "
                    "config.vision_config.hidden_size"
                },
                "nn.Linear(in, out): from the tower to the decoder.",
            ),
            Mistake(
                "with GELU",
                {
                    "return self.linear(image_features)": "return F.gelu(self.linear(image_features), "
                    'approximate="tanh")'
                },
                "PaliGemma's projector is one linear layer, without an activation.",
            ),
            Mistake(
                "when divided by sqrt(D)",
                {
                    "return "
                    "self.linear(image_features)": "x = self.linear(image_features)\n        return x / "
                    "x.shape[-1] ** 0.5"
                },
                "that is done where the features are merged with the embeddings; here it would be one time "
                "too many.",
            ),
            Mistake(
                "with a layer norm",
                {
                    "self.linear(image_features)": "self.linear(F.layer_norm(image_features, "
                    "image_features.shape[-1:]))"
                },
                "the tower's post_layernorm has already normalized the features.",
            ),
            Mistake(
                "with another attribute name",
                {"self.linear": "self.proj"},
                "the names of the weights come from the names of the attributes.",
            ),
            Mistake(
                "with the patches averaged",
                {"return self.linear(image_features)": "return self.linear(image_features).mean(dim=1)"},
                "the decoder reads every patch.",
            ),
            Mistake(
                "with a residual",
                {"return self.linear(image_features)": "return image_features + self.linear(image_features)"},
                "the two widths differ: there is nothing to add to.",
            ),
        ],
        right_ways=[
            RightWay(
                "by its formula",
                """
def forward(self, image_features):
    return F.linear(image_features, self.linear.weight, self.linear.bias)
""",
            ),
            RightWay(
                "a product and a sum",
                """
def forward(self, image_features):
    return image_features @ self.linear.weight.T + self.linear.bias
""",
            ),
        ],
        compare="how little joins the two models: 2.4 of 2923 million parameters.",
    ),
    Exercise(
        name="PaliGemmaForConditionalGeneration",
        file="decoder",
        minutes=5,
        difficulty="easy",
        why="The parts come together under the names that the checkpoint gives them.",
        builds_on=("VisionModel", "GemmaForCausalLM", "PaliGemmaMultiModalProjector"),
        steps={
            "__init__": [
                "Keep the config: the methods below look up ids in it.",
                "Make vision_tower and language_model, each from its own part of the config.",
                "Make multi_modal_projector, which has to know both widths.",
            ],
        },
        hints=(
            "Three modules and the config. Which config does each of them take?",
            "VisionModel takes config.vision_config, GemmaForCausalLM config.text_config, and the "
            "projector the whole config.",
            "self.vision_tower = VisionModel(config.vision_config), and so on for the other two.",
        ),
        make=lambda m: m.PaliGemmaForConditionalGeneration(WHOLE),
        attributes=("config",),
        result={"logits": "B T V"},
        cases=[
            Case(
                "pictures and prompts",
                batch(PADDED, attention_mask=PADDED_MASK),
                call=by_name,
                tolerance=5e-5,
            ),
            Case("the config is kept", call=lambda made: made.config == WHOLE),
        ],
        mistakes=[
            Mistake(
                "without keeping the config",
                {"self.config = config": "pass"},
                "the methods below look up image_token_index and ignore_index in it.",
            ),
            Mistake(
                "when only the text's config is kept",
                {"self.config = config": "self.config = config.text_config"},
                "image_token_index is in the whole config.",
            ),
            Mistake(
                "with the bare tower",
                {"VisionModel(config.vision_config)": "VisionModel(config.vision_config).vision_model"},
                "the checkpoint's names begin with vision_tower.vision_model.",
            ),
            Mistake(
                "with GemmaModel as the language model",
                {"GemmaForCausalLM(config.text_config)": "GemmaModel(config.text_config)"},
                "it has to give scores, so it is the one with lm_head.",
            ),
            Mistake(
                "with another name for the projector",
                {"self.multi_modal_projector": "self.projector"},
                "the names of the weights come from the names of the attributes.",
            ),
            Mistake(
                "with another name for the tower",
                {"self.vision_tower": "self.vision_model"},
                "the names of the weights come from the names of the attributes.",
            ),
            Mistake(
                "with another name for the language model",
                {"self.language_model": "self.text_model"},
                "the names of the weights come from the names of the attributes.",
            ),
            Mistake(
                "with the whole config for the tower",
                {"VisionModel(config.vision_config)": "VisionModel(config)"},
                "each part takes its own config.",
            ),
            Mistake(
                "without the projector",
                {"self.multi_modal_projector = PaliGemmaMultiModalProjector(config)": "pass"},
                "the tower's features are not as wide as the decoder's.",
            ),
        ],
        right_ways=[
            RightWay(
                "another order of creation",
                """
def __init__(self, config):
    super().__init__()
    self.language_model = GemmaForCausalLM(config=config.text_config)
    self.multi_modal_projector = PaliGemmaMultiModalProjector(config=config)
    self.vision_tower = VisionModel(config=config.vision_config)
    self.config, self.pad_token_id = config, config.pad_token_id
""",
            ),
        ],
        compare="the three names in front of all 603 tensors of the checkpoint: vision_tower, "
        "multi_modal_projector, language_model.",
    ),
    Exercise(
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
            "inputs_embeds.masked_scatter(is_image[:, :, None], image_features / normalizer), or merged = "
            "inputs_embeds.clone(); merged[is_image] = features.flatten(0, 1).",
        ),
        make=lambda m: m.PaliGemmaForConditionalGeneration(NO_LAYERS),
        result="B T D",
        sizes={"D": 28, "N": 4, "T": 9},
        cases=[
            Case("pictures in front of the prompts", to_merge(PROMPTS), call=merge),
            Case("one row padded on the left", to_merge(PADDED), call=merge),
            Case("image tokens anywhere, in three rows", to_merge(ANYWHERE), call=merge),
            Case(
                "another id for `<image>`",
                to_merge([[2, 5, 5, 5, 5, 50], [5, 5, 50, 0, 5, 5]]),
                make=lambda m: m.PaliGemmaForConditionalGeneration(replace(NO_LAYERS, image_token_index=5)),
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
        ],
        mistakes=[
            Mistake(
                "without dividing by sqrt(D)",
                {" / normalizer": ""},
                "GemmaModel multiplies everything by sqrt(D); divided first, the features come out as they "
                "were.",
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
                    "inputs_embeds.masked_scatter(is_image[:, :, None], image_features)": "torch.cat(["
                    "image_features, inputs_embeds[:, N:]], dim=1)"
                },
                "padding may come first: they belong where the ids say `<image>`.",
            ),
            Mistake(
                "with the features put in front",
                {
                    "inputs_embeds.masked_scatter(is_image[:, :, None], image_features)": "torch.cat(["
                    "image_features, inputs_embeds], dim=1)"
                },
                "they replace the image tokens: the length stays T.",
            ),
            Mistake(
                "with the first picture in every row",
                {
                    "masked_scatter(is_image[:, :, None], image_features)": "masked_scatter(is_image[:, :, "
                    "None], image_features[:1].expand(B, N, D))"
                },
                "each row has a picture of its own.",
            ),
            Mistake(
                "with the rows' features mixed",
                {
                    "masked_scatter(is_image[:, :, None], image_features)": "masked_scatter(is_image[:, :, "
                    "None], image_features.transpose(0, 1).contiguous())"
                },
                "the N features of the first row come first, then those of the second.",
            ),
            Mistake(
                "with the pictures in another order",
                {
                    "masked_scatter(is_image[:, :, None], image_features)": "masked_scatter(is_image[:, :, "
                    "None], image_features.flip(0))"
                },
                "row b of the ids belongs to picture b.",
            ),
            Mistake(
                "with the patches in reverse",
                {
                    "masked_scatter(is_image[:, :, None], image_features)": "masked_scatter(is_image[:, :, "
                    "None], image_features.flip(1))"
                },
                "the first image token is the patch at the top left.",
            ),
            Mistake(
                "with the first patch at every place",
                {
                    "masked_scatter(is_image[:, :, None], image_features)": "masked_scatter(is_image[:, :, "
                    "None], image_features[:, :1].expand(B, N, D))"
                },
                "each image token gets the next patch.",
            ),
            Mistake(
                "with the features added",
                {
                    "return inputs_embeds.masked_scatter(is_image[:, :, None], image_features)": "return "
                    "inputs_embeds + torch.zeros_like(inputs_embeds).masked_scatter(is_image[:, :, None], "
                    "image_features)"
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
                    "return inputs_embeds.masked_scatter(is_image[:, :, None], image_features)": "return "
                    "inputs_embeds.clone()"
                },
                "many tensor functions return a new tensor: is the result used?",
            ),
            Mistake(
                "with the embeddings changed in place",
                {
                    "return inputs_embeds.masked_scatter(is_image[:, :, None], image_features)": "with "
                    "torch.no_grad():\n            inputs_embeds[is_image] = image_features.flatten(0, "
                    "1)\n        return inputs_embeds"
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
                {"/ normalizer": "/ normalizer\n        image_features = image_features.detach()"},
                "training has to reach the projector and the tower.",
            ),
            Mistake(
                "in the dtype of the features",
                {
                    "image_features.to(inputs_embeds.dtype) / normalizer": "image_features / normalizer\n"
                    "        inputs_embeds = inputs_embeds.to(image_features.dtype)"
                },
                "the decoder continues in the dtype of the embeddings.",
            ),
            Mistake(
                "without casting the features",
                {"image_features.to(inputs_embeds.dtype)": "image_features"},
                "a tensor can only be filled with values of its own dtype.",
            ),
        ],
        right_ways=[
            RightWay(
                "written into a copy",
                """
def _merge_input_ids_with_image_features(self, image_features, inputs_embeds, input_ids):
    places = input_ids == self.config.image_token_index
    for count in places.sum(1):
        if count != image_features.shape[1]:
            raise ValueError("wrong number of image tokens")
    scale = torch.tensor(image_features.shape[-1]).sqrt().to(inputs_embeds.dtype)
    merged = inputs_embeds.clone()
    merged[places] = (image_features.type_as(merged) / scale).reshape(-1, merged.shape[-1])
    return merged
""",
            ),
            RightWay(
                "row by row",
                """
def _merge_input_ids_with_image_features(self, image_features, inputs_embeds, input_ids):
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
""",
            ),
            RightWay(
                "which patch is next, by counting, and torch.where",
                """
def _merge_input_ids_with_image_features(self, image_features, inputs_embeds, input_ids):
    B, N, D = image_features.shape
    is_image = input_ids.eq(self.config.image_token_index)
    if not torch.all(is_image.sum(-1) == N):
        raise ValueError(f"{N} image tokens needed")
    patch = (is_image.cumsum(1) - 1).clamp(min=0)
    spread = image_features.gather(1, patch[..., None].expand(-1, -1, D))
    root = inputs_embeds.new_full((), D**0.5)
    return torch.where(is_image[..., None], spread.to(inputs_embeds.dtype) / root, inputs_embeds)
""",
            ),
            RightWay(
                "a mask of all numbers",
                """
def _merge_input_ids_with_image_features(self, image_features, inputs_embeds, input_ids):
    mask = (input_ids == self.config.image_token_index).unsqueeze(-1).expand_as(inputs_embeds)
    B, N, D = image_features.shape
    if mask[:, :, 0].sum(1).ne(N).any():
        raise ValueError
    root = torch.tensor(D**0.5, dtype=inputs_embeds.dtype)
    out = inputs_embeds.clone()
    out.masked_scatter_(mask, image_features.to(out.dtype).div(root))
    return out
""",
            ),
        ],
        compare="masked_scatter takes the values one after another, row by row: that is why every row must "
        "hold exactly N, and why the check comes first.",
    ),
    Exercise(
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
        make=lambda m: m.PaliGemmaForConditionalGeneration(WHOLE),
        result={"logits": "B T V", "key_cache": "B K L Hd", "value_cache": "B K L Hd"},
        sizes=SIZES,
        cases=[
            Case("two pictures and prompts", batch(PROMPTS), call=by_name, tolerance=1e-4),
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
        ],
        mistakes=[
            Mistake(
                "with positions that count padding",
                {
                    "attention_mask.cumsum(dim=1)[:, "
                    "num_cached:]": "torch.arange(num_cached + 1, num_cached + T + 1).expand(B, T)"
                },
                "the first token of every row is at 1, however much padding comes before it.",
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
                    "attention_mask.cumsum(dim=1)[:, num_cached:]": "attention_mask[:, num_cached:].cumsum("
                    "dim=1)"
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
                    "inputs_embeds = self._merge_input_ids_with_image_features(\n                "
                    "image_features, inputs_embeds, input_ids\n            )": "pass"
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
                    "self.multi_modal_projector(self.vision_tower(pixel_values))": "self.vision_tower("
                    "pixel_values)"
                },
                "the tower's features have to be projected to the decoder's width first.",
            ),
            Mistake(
                "with the first picture for every row",
                {
                    "self.vision_tower(pixel_values)": "self.vision_tower(pixel_values[:1].expand_as("
                    "pixel_values))"
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
            ),
            Mistake(
                "with a mask made from the ids",
                {
                    "input_ids.new_ones(B, num_cached + T)": "F.pad((input_ids != self.config.pad_token_id)."
                    "long(), (num_cached, 0), value=1)"
                },
                "None means that there is no padding, whatever the ids are.",
            ),
            Mistake(
                "with a new cache at every call",
                {"KVCache() if kv_cache is None else kv_cache": "KVCache()"},
                "the one that is passed in holds the earlier tokens.",
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
                "with a loss that counts ignored labels",
                {
                    "ignore_index=self.config.ignore_index\n            )": "ignore_index="
                    "self.config.ignore_index, reduction='none'\n            ).mean()"
                },
                "the mean is over the labels that are learned, not over all positions.",
            ),
            Mistake(
                "with the sum instead of the mean",
                {
                    "ignore_index=self.config.ignore_index": "ignore_index=self.config.ignore_index, "
                    "reduction='sum'"
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
                    'output["loss"] = F.cross_entropy(': 'output["loss"] = sum(F.cross_entropy(row[:-1], '
                    "label[1:], ignore_index=self.config.ignore_index) for row, label in zip(logits, "
                    "labels)) / B\n            _ = F.cross_entropy("
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
                    'raise ValueError("labels need token_type_ids (0 prefix, 1 suffix): the answer must be '
                    'causal")': "pass"
                },
                "all would be prefix, and see the answer that has to be learned: a ValueError.",
            ),
        ],
        right_ways=[
            RightWay(
                "in other words",
                """
def forward(self, input_ids, pixel_values=None, attention_mask=None, kv_cache=None, token_type_ids=None,
            labels=None, logits_to_keep=0):
    if token_type_ids is None and labels is not None:
        raise ValueError("token_type_ids are missing")
    if kv_cache is None:
        kv_cache = KVCache()
    past, (B, T) = kv_cache.num_items(), input_ids.shape
    if attention_mask is None:
        attention_mask = torch.ones(B, past + T, dtype=torch.int64)
    if token_type_ids is None:
        token_type_ids = torch.ones_like(input_ids) if past > 0 else torch.zeros_like(input_ids)
    lm = self.language_model
    x = F.embedding(input_ids, lm.model.embed_tokens.weight)
    if pixel_values is not None:
        x = self._merge_input_ids_with_image_features(
            image_features=self.multi_modal_projector(self.vision_tower(pixel_values)),
            inputs_embeds=x, input_ids=input_ids)
    positions = (attention_mask.cumsum(-1) * attention_mask)[:, -T:]
    mask = prefix_lm_mask(attention_mask, token_type_ids)
    logits = lm(x, mask, positions, kv_cache, logits_to_keep=logits_to_keep)
    if labels is None:
        return dict(logits=logits, kv_cache=kv_cache)
    before, after = logits[:, :-1], labels[:, 1:]
    learnt = after != self.config.ignore_index
    scores = before[learnt].log_softmax(-1)
    loss = -scores.gather(1, after[learnt][:, None]).mean()
    return dict(logits=logits, kv_cache=kv_cache, loss=loss)
""",
            ),
            RightWay(
                "with padding at position 1, as transformers has it",
                {
                    "attention_mask.cumsum(dim=1)[": "attention_mask.cumsum(dim=1).masked_fill("
                    "attention_mask == 0, 1)["
                },
            ),
            RightWay(
                "with the last label left out instead of the first",
                {
                    'output["loss"] = F.cross_entropy(\n                logits[:, :-1].flatten(0, 1), '
                    "labels[:, 1:].flatten(), ignore_index=self.config.ignore_index\n            "
                    ")": "labels = F.pad("
                    "labels[:, 1:], (0, 1), value=self.config.ignore_index)\n            output['loss'] = "
                    "F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=self.config.ignore_index)"
                },
            ),
        ],
        compare="how the same lines serve the prompt, each decoding step and training: what differs is "
        "what is in the cache, and which tokens are suffix.",
    ),
]
