"""The exercise GemmaDecoderLayer of decoder_0.py."""

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.decoder.inputs import SIZES, SMALL_GEMMA, bf16, tokens, with_cache
from decoder_1 import GemmaAttention, GemmaMLP, GemmaRMSNorm

# Known mistakes that take whole functions.


class WithTheNormsAfterTheSublayers:
    def forward(self, hidden_states, *others):
        hidden_states = hidden_states + self.input_layernorm(self.self_attn(hidden_states, *others))
        return hidden_states + self.post_attention_layernorm(self.mlp(hidden_states))


class WithTheNormsAroundTheSums:
    def forward(self, hidden_states, *others):
        hidden_states = self.input_layernorm(hidden_states + self.self_attn(hidden_states, *others))
        return self.post_attention_layernorm(hidden_states + self.mlp(hidden_states))


class WithPostAttentionLayernormRightAfterAttention:
    def forward(self, hidden_states, *others):
        attended = self.self_attn(self.input_layernorm(hidden_states), *others)
        hidden_states = hidden_states + self.post_attention_layernorm(attended)
        return hidden_states + self.mlp(hidden_states)


class WithTheResidualTakenAfterTheNorm:
    def forward(self, hidden_states, *others):
        hidden_states = self.input_layernorm(hidden_states)
        hidden_states = hidden_states + self.self_attn(hidden_states, *others)
        hidden_states = self.post_attention_layernorm(hidden_states)
        return hidden_states + self.mlp(hidden_states)


class WithTheFirstInputAddedAgain:
    def forward(self, hidden_states, *others):
        residual = hidden_states
        hidden_states = residual + self.self_attn(self.input_layernorm(hidden_states), *others)
        return residual + self.mlp(self.post_attention_layernorm(hidden_states))


class WithTheMLPBesideAttention:
    def forward(self, hidden_states, *others):
        attended = self.self_attn(self.input_layernorm(hidden_states), *others)
        return hidden_states + attended + self.mlp(self.post_attention_layernorm(hidden_states))


class WithTheMLPFirst:
    def forward(self, hidden_states, *others):
        hidden_states = hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))
        return hidden_states + self.self_attn(self.input_layernorm(hidden_states), *others)


# Other right ways.


class WithANameForEachResidual:
    def forward(self, hidden_states, attention_mask, position_embeddings, kv_cache):
        residual = hidden_states
        x = self.input_layernorm(hidden_states)
        x = self.self_attn(
            hidden_states=x,
            attention_mask=attention_mask,
            position_embeddings=position_embeddings,
            kv_cache=kv_cache,
        )
        x += residual
        y = self.mlp(self.post_attention_layernorm(x))
        return y.add_(x)


class AnotherOrderOfCreation:
    def __init__(self, config, layer_idx):
        super().__init__()
        D, eps = config.hidden_size, config.rms_norm_eps
        self.mlp = GemmaMLP(config)
        self.self_attn = GemmaAttention(layer_idx=layer_idx, config=config)
        self.post_attention_layernorm, self.input_layernorm = GemmaRMSNorm(D, eps), GemmaRMSNorm(D, eps)


EXERCISE = Exercise(
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
    make=lambda m: m.GemmaDecoderLayer(SMALL_GEMMA, 0),
    result={"output": "B T D", "key_cache": "B K L Hd", "value_cache": "B K L Hd"},
    sizes=SIZES,
    cases=[
        Case("prefix and suffix, one row padded", tokens(), call=with_cache, tolerance=3e-5, training=True),
        Case("small values, where eps counts", tokens(scale=0.2), call=with_cache, tolerance=3e-5),
        Case(
            "three new tokens after five, in the second layer",
            tokens(T=3, cached=5, layers=2, suffix=(3, 3)),
            make=lambda m: m.GemmaDecoderLayer(SMALL_GEMMA, 1),
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
            WithTheNormsAfterTheSublayers,
            "each norm comes before its sublayer (pre-norm).",
        ),
        Mistake(
            "with the norms around the sums",
            WithTheNormsAroundTheSums,
            "that is the first transformer's post-norm; Gemma normalizes what goes into a sublayer.",
        ),
        Mistake(
            "with post_attention_layernorm right after attention",
            WithPostAttentionLayernormRightAfterAttention,
            "that is what the name sounds like, and what Gemma 2 does; in Gemma it is the norm before "
            "the MLP.",
        ),
        Mistake(
            "with the residual taken after the norm",
            WithTheResidualTakenAfterTheNorm,
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
                "self.input_layernorm(hidden_states)": (
                    "self.post_attention_layernorm(hidden_states)  # first"
                ),
                "self.post_attention_layernorm(hidden_states))": ("self.input_layernorm(hidden_states))"),
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
            "when the second residual is still the first input",
            WithTheFirstInputAddedAgain,
            "the MLP's result is added to what came out of attention: renew the residual in between.",
        ),
        Mistake(
            "with the MLP beside attention",
            WithTheMLPBesideAttention,
            "the MLP works on what attention has gathered, so it comes after it.",
        ),
        Mistake(
            "with the MLP first",
            WithTheMLPFirst,
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
                "attention_mask, position_embeddings, kv_cache": (
                    "attention_mask, position_embeddings, KVCache()"
                ),
            },
            "the cache that is passed in holds the earlier tokens, and has to be extended.",
        ),
        Mistake(
            "without the mask",
            {
                "attention_mask, position_embeddings, kv_cache": (
                    "torch.ones_like(attention_mask), position_embeddings, kv_cache"
                ),
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
        RightWay("with a name for each residual", WithANameForEachResidual),
        RightWay("another order of creation", AnotherOrderOfCreation),
    ],
    compare="the two lines next to those of EncoderLayer: the only difference is what is passed on to "
    "attention.",
)
