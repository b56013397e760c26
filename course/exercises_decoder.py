"""The exercises of decoder_0.py up to attention. What each field means is told in exercises.py."""

from dataclasses import replace

import torch

from course.exercise_inputs import randn
from course.exercise_types import Case, Exercise, Mistake, RightWay
from decoder_1 import GemmaConfig, GemmaRotaryEmbedding, KVCache, prefix_lm_mask

# B 2, T 7, D 28, H 12, K 3, Hd 10, M 45, V 53; eps and theta are far from the defaults.
SMALL = GemmaConfig(
    vocab_size=53,
    hidden_size=28,
    intermediate_size=45,
    num_hidden_layers=3,
    num_attention_heads=12,
    num_key_value_heads=3,
    head_dim=10,
    rms_norm_eps=0.3,
    rope_theta=700.0,
)
SIZES = {"Hd": 10, "D": 28, "H": 12, "K": 3, "M": 45, "H * Hd": 120}
bf16 = torch.bfloat16


def cache(layers: int = 1, L: int = 5, B: int = 2, K: int = 3, Hd: int = 10, dtype=torch.float32) -> KVCache:
    """A cache in which L tokens are kept already, different ones in each layer."""
    filled = KVCache()
    for layer in range(layers):
        filled.key_cache.append(randn(B, K, L, Hd, seed=20 + layer, dtype=dtype))
        filled.value_cache.append(randn(B, K, L, Hd, seed=40 + layer, dtype=dtype))
    return filled


def mask_2d(L: int, padding=(0, 2)) -> torch.Tensor:
    """An attention_mask, int64 [B, L], with that many padding tokens at the left of each row."""
    return torch.tensor([[0] * n + [1] * (L - n) for n in padding])


def types(T: int, suffix=(2, 3)) -> torch.Tensor:
    """token_type_ids, int64 [B, T]: the last tokens of each row are suffix."""
    return torch.tensor([[0] * (T - n) + [1] * n for n in suffix])


def turns(position_ids: torch.Tensor, Hd: int = 10, dtype=torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """The cos and sin of these positions."""
    return GemmaRotaryEmbedding(Hd, SMALL.rope_theta)(torch.zeros((), dtype=dtype), position_ids)


def tokens(
    T: int = 7,
    cached: int = 0,
    layers: int = 0,
    padding=(0, 2),
    suffix=(2, 3),
    K: int = 3,
    Hd: int = 10,
    dtype=torch.float32,
    scale: float = 1.5,
):
    """Inputs of attention and of a block: T new tokens, after `cached` ones in each of some layers."""

    def inputs() -> dict:
        mask = mask_2d(cached + T, padding)
        return {
            "hidden_states": randn(len(padding), T, 28, scale=scale, dtype=dtype),
            "attention_mask": prefix_lm_mask(mask, types(T, suffix)),
            "position_embeddings": turns(mask.cumsum(dim=1)[:, cached:], Hd, dtype),
            "kv_cache": cache(layers, cached, len(padding), K, Hd, dtype),
        }

    return inputs


def with_cache(made, hidden_states, attention_mask, position_embeddings, kv_cache) -> dict:
    """Calls attention or a block, and looks into the cache afterwards."""
    output = made(hidden_states, attention_mask, position_embeddings, kv_cache)
    return {"output": output, "kv_cache": kv_cache}


def filling(made, keys, values=None):
    """Puts keys and values, or what another cache holds, into an empty cache."""
    if values is None:
        keys, values = keys.key_cache, keys.value_cache
    made.key_cache.extend(keys)
    made.value_cache.extend(values)
    return made


def new_tokens(T: int, **options) -> dict:
    return {"key": randn(2, 3, T, 10, **options), "value": randn(2, 3, T, 10, seed=1, **options)}


def cached_tokens(T: int, **options) -> dict:
    return {
        "cached_key": randn(2, 3, T, 10, seed=2, **options),
        "cached_value": randn(2, 3, T, 10, seed=3, **options),
    }


def angles_case(position_ids, dtype=torch.float32):
    """Inputs of GemmaRotaryEmbedding: x is there for its dtype alone."""
    return lambda: {"x": randn(2, 4, 28, dtype=dtype), "position_ids": torch.tensor(position_ids)}


def to_turn(T: int = 7, H: int = 12, K: int = 3, Hd: int = 10, dtype=torch.float32):
    """Inputs of apply_rotary_pos_emb: two rows whose positions differ."""

    def inputs() -> dict:
        cos, sin = turns(torch.stack([torch.arange(T) + 1, torch.arange(T) + 5]), Hd, dtype)
        query, key = randn(2, H, T, Hd, dtype=dtype), randn(2, K, T, Hd, seed=1, dtype=dtype)
        return {"query": query, "key": key, "cos": cos, "sin": sin}

    return inputs


def masks(attention_mask, token_type_ids):
    """Inputs of prefix_lm_mask, from rows that are drawn as "00111"."""
    return lambda: {
        "attention_mask": torch.tensor([[int(x) for x in row] for row in attention_mask]),
        "token_type_ids": torch.tensor([[int(x) for x in row] for row in token_type_ids]),
    }


def without_padding(output: torch.Tensor, padding) -> dict:
    """The output of the tokens alone, row after row, and whether padding came to numbers too."""
    rows = [row[n:] for row, n in zip(output, padding, strict=True)]
    return {"output": torch.cat(rows), "numbers": bool(torch.isfinite(output).all())}


EXERCISES = [
    Exercise(
        name="KVCache.num_items",
        file="decoder",
        minutes=5,
        difficulty="easy",
        why="A new token has to know its position, and that depends on how many came before it.",
        steps=[
            "While no layer has stored keys, there are 0 tokens.",
            "Otherwise take the keys of any layer: all hold the same number of tokens.",
            "Return the length of their axis of tokens.",
        ],
        hints=(
            "Look at the shape of the tensors in the cache: which letter of it counts the tokens? What is "
            "in the lists before the first call?",
            "An empty list counts as False. The tokens are axis 2 of [B, K, L, Hd].",
            "return self.key_cache[0].shape[2] if self.key_cache else 0.",
        ),
        make=lambda m: m.KVCache(),
        cases=[
            Case("nothing cached yet", call=lambda made: made.num_items()),
            Case(
                "five tokens, one layer",
                lambda: {"filled": cache(1, 5)},
                call=lambda made, filled: filling(made, filled).num_items(),
            ),
            Case(
                "one token, four layers",
                lambda: {"filled": cache(4, 1)},
                call=lambda made, filled: filling(made, filled).num_items(),
            ),
            Case(
                "six tokens, one key/value head, a single row",
                lambda: {"filled": cache(2, 6, B=1, K=1)},
                call=lambda made, filled: filling(made, filled).num_items(),
            ),
            Case(
                "after an update",
                lambda: {"filled": cache(1, 5), "key": randn(2, 3, 4, 10), "value": randn(2, 3, 4, 10)},
                call=lambda made, filled, key, value: (
                    filling(made, filled).update(key, value, 0) and made.num_items()
                ),
            ),
        ],
        mistakes=[
            Mistake(
                "without asking whether there is a layer",
                {" if self.key_cache else 0": ""},
                "before the first tokens the lists are empty, and there is no element 0.",
            ),
            Mistake(
                "with the number of layers",
                {"self.key_cache[0].shape[2] if self.key_cache else 0": "len(self.key_cache)"},
                "the lists have an entry for each layer; the tokens are an axis of the tensors in them.",
            ),
            Mistake(
                "with the number of heads",
                {"shape[2]": "shape[1]"},
                "the shape is [B, K, L, Hd]: axis 1 counts the heads, axis 2 the tokens.",
            ),
            Mistake(
                "with the size of the batch",
                {"shape[2]": "shape[0]"},
                "the shape is [B, K, L, Hd]: axis 0 counts the rows, axis 2 the tokens.",
            ),
            Mistake(
                "with the size of a head",
                {"shape[2]": "shape[-1]"},
                "the shape is [B, K, L, Hd]: the tokens are the last axis but one.",
            ),
            Mistake(
                "when added up over the layers",
                {
                    "self.key_cache[0].shape[2] if self.key_cache else 0": "sum(key.shape[2] for key in "
                    "self.key_cache)"
                },
                "each layer keeps the same tokens, so one of them is enough.",
            ),
            Mistake(
                "with None for an empty cache",
                {" if self.key_cache else 0": " if self.key_cache else None"},
                "positions continue from this number, so it has to be 0.",
            ),
            Mistake(
                "with the shape instead of the number",
                {".shape[2]": ".shape"},
                "one axis of it counts the tokens.",
            ),
        ],
        right_ways=[
            RightWay(
                "from the values of the last layer",
                """
def num_items(self):
    if len(self.value_cache) == 0:
        return 0
    return self.value_cache[-1].size(-2)
""",
            ),
            RightWay(
                "the largest of all",
                """
def num_items(self):
    return max([key.shape[2] for key in self.key_cache], default=0)
""",
            ),
        ],
        compare="nothing is counted: the length is read off the tensors, so it cannot go out of step with "
        "them.",
    ),
    Exercise(
        name="KVCache.update",
        file="decoder",
        minutes=15,
        difficulty="medium",
        why="The picture's 256 tokens are read once; every later token finds their keys and values here.",
        builds_on=("KVCache.num_items",),
        steps=[
            "Find out whether the layer has stored anything yet.",
            "If it has not, keep the new keys and values as its entries of the two lists.",
            "If it has, join what is there and what is new along the axis of tokens, the new ones last, "
            "and keep the result.",
            "Return all keys and all values of the layer.",
        ],
        hints=(
            "Which axis of [B, K, T, Hd] grows with every token? And how can you tell, from the lists and "
            "layer_idx alone, that a layer is new?",
            "torch.cat([old, new], dim=2) makes a new tensor. Layers come in order, so a new one has the "
            "index that a list would give to what is appended to it.",
            "if layer_idx == len(self.key_cache): append both; else self.key_cache[layer_idx] = "
            "torch.cat([self.key_cache[layer_idx], key], dim=2), and the same for the values.",
        ),
        make=lambda m: m.KVCache(),
        result={"returned": "B K L Hd", "key_cache": "B K L Hd", "value_cache": "B K L Hd"},
        cases=[
            Case(
                "the first tokens of the first layer",
                lambda: new_tokens(7),
                call=lambda made, key, value: {"returned": made.update(key, value, 0), "cache": made},
            ),
            Case(
                "three new tokens after five",
                lambda: cached_tokens(5) | new_tokens(3),
                call=lambda made, key, value, cached_key, cached_value: {
                    "returned": filling(made, [cached_key], [cached_value]).update(key, value, 0),
                    "cache": made,
                },
            ),
            Case(
                "the first tokens of the second layer",
                lambda: cached_tokens(7) | new_tokens(7),
                call=lambda made, key, value, cached_key, cached_value: {
                    "returned": filling(made, [cached_key], [cached_value]).update(key, value, 1),
                    "cache": made,
                },
            ),
            Case(
                "three layers, a prompt and then two single tokens",
                lambda: {
                    "steps": [
                        (
                            randn(2, 3, T, 10, seed=6 * T + layer),
                            randn(2, 3, T, 10, seed=60 * T + layer),
                            layer,
                        )
                        for T in (6, 1, 1)
                        for layer in range(3)
                    ]
                },
                call=lambda made, steps: {"returned": [made.update(*step) for step in steps], "cache": made},
            ),
            Case(
                "in training, where gradients have to flow back",
                lambda: {name: tensor.requires_grad_() for name, tensor in new_tokens(7).items()},
                call=lambda made, key, value: {
                    "returned": (*made.update(key, value, 0), *made.update(key * 2, value * 2, 0))
                },
            ),
            Case(
                "bfloat16",
                lambda: cached_tokens(4, dtype=bf16) | new_tokens(1, dtype=bf16),
                call=lambda made, key, value, cached_key, cached_value: {
                    "returned": filling(made, [cached_key], [cached_value]).update(key, value, 0),
                    "cache": made,
                },
            ),
        ],
        mistakes=[
            Mistake(
                "with the old ones overwritten",
                {
                    "torch.cat([self.key_cache[layer_idx], key], dim=2)": "key",
                    "torch.cat([self.value_cache[layer_idx], value], dim=2)": "value",
                },
                "the new ones are appended to those that are there.",
            ),
            Mistake(
                "when joined along the heads",
                {"dim=2": "dim=1"},
                "the shape is [B, K, L, Hd]: the tokens are axis 2, and heads are axis 1.",
            ),
            Mistake(
                "when joined along the last axis",
                {"dim=2": "dim=-1"},
                "the shape is [B, K, L, Hd]: the last axis is one token's vector.",
            ),
            Mistake(
                "when joined along the batch",
                {"dim=2": "dim=0"},
                "the shape is [B, K, L, Hd]: the tokens are axis 2.",
            ),
            Mistake(
                "with the new ones in front",
                {
                    "[self.key_cache[layer_idx], key]": "[key, self.key_cache[layer_idx]]",
                    "[self.value_cache[layer_idx], value]": "[value, self.value_cache[layer_idx]]",
                },
                "the mask counts columns from the oldest token to the newest.",
            ),
            Mistake(
                "when only the new ones are returned",
                {"return self.key_cache[layer_idx], self.value_cache[layer_idx]": "return key, value"},
                "the new tokens look at all the old ones, so attention needs them all.",
            ),
            Mistake(
                "when nothing is kept",
                """
def update(self, key, value, layer_idx):
    if layer_idx < len(self.key_cache):
        key = torch.cat([self.key_cache[layer_idx], key], dim=2)
        value = torch.cat([self.value_cache[layer_idx], value], dim=2)
    return key, value
""",
                "what is returned has to be in the cache too, for the next token.",
            ),
            Mistake(
                "when the first tokens alone are kept",
                """
def update(self, key, value, layer_idx):
    if layer_idx == len(self.key_cache):
        self.key_cache.append(key)
        self.value_cache.append(value)
        return key, value
    key = torch.cat([self.key_cache[layer_idx], key], dim=2)
    value = torch.cat([self.value_cache[layer_idx], value], dim=2)
    return key, value
""",
                "the joined tensors have to take the place of the old ones in the lists.",
            ),
            Mistake(
                "with every call as a new layer",
                """
def update(self, key, value, layer_idx):
    self.key_cache.append(key)
    self.value_cache.append(value)
    return self.key_cache[layer_idx], self.value_cache[layer_idx]
""",
                "a layer has one entry, which grows.",
            ),
            Mistake(
                "with one store for all layers",
                """
def update(self, key, value, layer_idx):
    if self.key_cache:
        key = torch.cat([self.key_cache[0], key], dim=2)
        value = torch.cat([self.value_cache[0], value], dim=2)
    self.key_cache[:1], self.value_cache[:1] = [key], [value]
    return key, value
""",
                "every layer has keys and values of its own: layer_idx says whose these are.",
            ),
            Mistake(
                "when only an empty cache gets a new layer",
                {"if layer_idx == len(self.key_cache):": "if len(self.key_cache) == 0:"},
                "the second layer comes when the first is there already, and is new too.",
            ),
            Mistake(
                "with keys and values swapped",
                {
                    "return self.key_cache[layer_idx], self.value_cache[layer_idx]": "return "
                    "self.value_cache[layer_idx], self.key_cache[layer_idx]"
                },
                "keys come first.",
            ),
            Mistake(
                "with the keys joined to the values",
                {"[self.value_cache[layer_idx], value]": "[self.value_cache[layer_idx], key]"},
                "values are joined to values.",
            ),
            Mistake(
                "when the values are not joined",
                {"torch.cat([self.value_cache[layer_idx], value], dim=2)": "value"},
                "each key has its value: both lists grow together.",
            ),
            Mistake(
                "with the gradients cut off",
                {
                    "self.key_cache.append(key)": "self.key_cache.append(key.detach())",
                    "self.value_cache.append(value)": "self.value_cache.append(value.detach())",
                    "[self.key_cache[layer_idx], key]": "[self.key_cache[layer_idx], key.detach()]",
                    "[self.value_cache[layer_idx], value]": "[self.value_cache[layer_idx], value.detach()]",
                },
                "training goes through the cache too, and would not reach k_proj and v_proj.",
            ),
            Mistake(
                "with the old and the new side by side in a list",
                """
def update(self, key, value, layer_idx):
    if layer_idx == len(self.key_cache):
        self.key_cache.append([])
        self.value_cache.append([])
    self.key_cache[layer_idx].append(key)
    self.value_cache[layer_idx].append(value)
    return self.key_cache[layer_idx], self.value_cache[layer_idx]
""",
                "attention needs one tensor, [B, K, L, Hd].",
            ),
            Mistake(
                "without a return",
                {"return self.key_cache[layer_idx], self.value_cache[layer_idx]": "return None"},
                "attention needs what is returned.",
            ),
        ],
        right_ways=[
            RightWay(
                "joined with nothing at first",
                """
def update(self, key, value, layer_idx):
    while len(self.key_cache) <= layer_idx:
        self.key_cache.append(key[:, :, :0])
        self.value_cache.append(value[:, :, :0])
    self.key_cache[layer_idx] = torch.cat((self.key_cache[layer_idx], key), -2)
    self.value_cache[layer_idx] = torch.cat((self.value_cache[layer_idx], value), -2)
    return self.key_cache[layer_idx], self.value_cache[layer_idx]
""",
            ),
            RightWay(
                "with an exception",
                """
def update(self, key, value, layer_idx):
    try:
        key = torch.concat([self.key_cache[layer_idx], key], dim=2)
        value = torch.concat([self.value_cache[layer_idx], value], dim=2)
    except IndexError:
        self.key_cache += [key.clone()]
        self.value_cache += [value.clone()]
    self.key_cache[layer_idx], self.value_cache[layer_idx] = key, value
    return [key, value]
""",
            ),
            RightWay(
                "one loop for both lists",
                """
def update(self, key, value, layer_idx):
    for store, new in ((self.key_cache, key), (self.value_cache, value)):
        old = store[layer_idx:layer_idx + 1]
        store[layer_idx:layer_idx + 1] = [torch.cat([*old, new], dim=2)]
    return self.key_cache[layer_idx], self.value_cache[layer_idx]
""",
            ),
        ],
        compare="torch.cat copies all earlier keys and values for every new token. Allocating the space "
        "beforehand avoids that, at the price of knowing how long the answer gets.",
    ),
    Exercise(
        name="GemmaRMSNorm",
        file="decoder",
        minutes=15,
        difficulty="medium",
        why="Every block reads normalized vectors; otherwise the sums of 18 layers would grow without bound.",
        steps={
            "__init__": [
                "Keep eps, and make the parameter weight: dim zeros.",
            ],
            "forward": [
                "Cast x to float32, whatever its dtype.",
                "Divide each vector by the root of the mean of its squares, with eps added under the root.",
                "Multiply by one plus the weight, still in float32.",
                "Cast the result back to the dtype of x.",
            ],
        },
        hints=(
            "Work through the formula from the inside: square, mean, eps, root, division. Over which axis "
            "is the mean, and does the result still fit x?",
            "mean(dim=-1, keepdim=True) leaves a 1 in place of D, so that it divides every number of its "
            "vector. The checkpoint stores the weight as an offset from one.",
            "x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + eps) * (1 + self.weight.float()), then "
            ".to(x.dtype).",
        ),
        make=lambda m: m.GemmaRMSNorm(20, eps=0.3),
        result="B T D",
        sizes={"D": 20},
        cases=[
            Case("a batch of two", lambda: {"x": randn(2, 7, 20)}),
            Case("small values, where eps counts", lambda: {"x": randn(2, 7, 20, scale=0.2)}),
            Case("values around 5, not around 0", lambda: {"x": randn(2, 7, 20) + 5}),
            Case(
                "the eps that it has when none is given",
                lambda: {"x": randn(2, 7, 20, scale=1e-3)},
                make=lambda m: m.GemmaRMSNorm(20),
            ),
            Case("a single vector", lambda: {"x": randn(20)}),
            Case(
                "the weight at the start: zeros",
                lambda: {"x": randn(3, 20)},
                make=lambda m: m.GemmaRMSNorm,
                call=lambda cls, x: cls(20, eps=0.1).weight,
            ),
            Case("bfloat16", lambda: {"x": randn(6, 31, 20, dtype=bf16)}, dtype=bf16, exact=0.95),
            Case(
                "input in bfloat16, weight in float32",
                lambda: {"x": randn(6, 31, 20, dtype=bf16)},
                exact=0.95,
            ),
        ],
        mistakes=[
            Mistake(
                "without the `1 +`",
                {"(1 + self.weight.float())": "self.weight.float()"},
                "Gemma stores the weight as an offset from one.",
            ),
            Mistake(
                "when the mean is subtracted first",
                {"x32 = x.float()": "x32 = x.float() - x.float().mean(dim=-1, keepdim=True)"},
                "that is LayerNorm; RMSNorm leaves the mean where it is.",
            ),
            Mistake(
                "without eps", {" + self.eps": ""}, "eps keeps a vector of zeros from being divided by zero."
            ),
            Mistake(
                "with eps outside the root",
                {
                    "torch.rsqrt(x32.pow(2).mean(dim=-1, keepdim=True) + "
                    "self.eps)": "1 / (x32.pow(2).mean(dim=-1, keepdim=True).sqrt() + self.eps)"
                },
                "eps is added to the mean of the squares, before the root.",
            ),
            Mistake(
                "with 1e-6 whatever eps says", {"+ self.eps": "+ 1e-6"}, "the argument says how large it is."
            ),
            Mistake(
                "with the sum of squares instead of their mean",
                {".mean(dim=-1": ".sum(dim=-1"},
                "it is the root of the *mean* square.",
            ),
            Mistake(
                "with the mean over everything",
                {".mean(dim=-1, keepdim=True)": ".mean()"},
                "each vector has its own root mean square: the mean is over the last axis.",
            ),
            Mistake(
                "without the root",
                {
                    "torch.rsqrt(x32.pow(2).mean(dim=-1, keepdim=True) + "
                    "self.eps)": "1 / (x32.pow(2).mean(dim=-1, keepdim=True) + self.eps)"
                },
                "the root mean square divides, not the mean square.",
            ),
            Mistake(
                "when computed in bfloat16",
                {
                    "x32 = x.float()": "x32 = x",
                    "self.weight.float()": "self.weight",
                    "+ self.eps": "+ self.eps",
                },
                "each step in bfloat16 is off by up to 0.4 %: x goes to float32 first, and the result is "
                "rounded once, at the end.",
            ),
            Mistake(
                "when cast back before the weight",
                {
                    "(normed * (1 + self.weight.float())).to(x.dtype)": "(normed.to(x.dtype) * (1 + "
                    "self.weight.to(x.dtype)))"
                },
                "LLaMA does that; Gemma multiplies in float32 and casts last.",
            ),
            Mistake("without casting back", {".to(x.dtype)": ""}, "the result has the dtype of x."),
            Mistake(
                "with a weight of ones at the start",
                {"torch.zeros(dim)": "torch.ones(dim)"},
                "the weight is an offset from one, so it starts at zero.",
            ),
        ],
        right_ways=[
            RightWay(
                "dividing by the root",
                """
def forward(self, x):
    rms = (x.float().square().mean(-1, keepdim=True) + self.eps).sqrt()
    return (x.float() / rms * (self.weight.float() + 1)).type_as(x)
""",
            ),
            RightWay(
                "F.rms_norm",
                """
def forward(self, x):
    return F.rms_norm(x.float(), (x.shape[-1],), 1 + self.weight.float(), self.eps).to(x.dtype)
""",
            ),
            RightWay(
                "in place on its own tensor",
                """
def forward(self, x):
    y = x.to(torch.float32, copy=True)
    scale = torch.linalg.vector_norm(y.detach() if not y.requires_grad else y, dim=-1, keepdim=True)
    y = y * (scale.pow(2) / x.shape[-1] + self.eps) ** -0.5
    y = y + y * self.weight.float()
    return y.to(x.dtype)
""",
            ),
        ],
        compare="where the cast back is: at the very end, after the weight. In LLaMA it comes before the "
        "weight.",
    ),
    Exercise(
        name="GemmaRotaryEmbedding",
        file="decoder",
        minutes=20,
        difficulty="medium",
        why="Attention by itself does not see the order of tokens; rotation by these angles shows it their "
        "distances.",
        steps={
            "forward": [
                "Make the Hd/2 exponents 2i / Hd in float32, on the device of x.",
                "Raise theta to minus these: how far each pair of numbers turns per position.",
                "Multiply every position by every one of them, in float32: [B, T, Hd/2].",
                "Repeat the whole row of angles once after itself: [B, T, Hd].",
                "Take cos and sin, and only then cast to the dtype of x.",
            ],
        },
        hints=(
            "Write the Hd/2 exponents down for Hd = 6 first. Then: which two shapes have to meet so that "
            "every position is multiplied by every frequency?",
            "torch.arange(0, Hd, 2) / Hd counts 2i / Hd. position_ids[:, :, None] is [B, T, 1] and so "
            "spreads over [Hd/2]. Not every whole number above 256 fits in bfloat16.",
            "angles = position_ids[:, :, None].float() * self.rope_theta**-exponents; angles = "
            "torch.cat([angles, angles], dim=-1); return angles.cos().to(x.dtype), and the same with sin.",
        ),
        make=lambda m: m.GemmaRotaryEmbedding(10, 700.0),
        attributes=("head_dim", "rope_theta"),
        result="B T Hd",
        sizes=SIZES,
        cases=[
            Case(
                "positions 0 to 4 and 3 to 7",
                angles_case([[0, 1, 2, 3, 4], [3, 4, 5, 6, 7]]),
                tolerance=5e-5,
            ),
            Case(
                "padding at 0, and a row that is not in order",
                angles_case([[0, 0, 1, 2, 3, 4], [9, 2, 14, 1, 0, 5]]),
                tolerance=5e-5,
            ),
            Case(
                "another size of head and another theta",
                angles_case([[1, 2, 3], [4, 5, 6]]),
                make=lambda m: m.GemmaRotaryEmbedding(6, 30.0),
                tolerance=5e-5,
            ),
            Case(
                "one new token after many",
                angles_case([[130], [257]]),
                tolerance=3e-4,
            ),
            Case(
                "bfloat16, positions up to 400",
                angles_case([list(range(0, 400, 13)), list(range(1, 401, 13))], dtype=bf16),
                exact=0.95,
            ),
            Case(
                "on another device",
                angles_case([[0, 1, 2], [3, 4, 5]]),
                tolerance=5e-5,
                other_device=True,
            ),
        ],
        mistakes=[
            Mistake(
                "without the minus",
                {"self.rope_theta**-exponents": "self.rope_theta**exponents"},
                "theta^(2i / Hd) is large: the angles have to get smaller from pair to pair.",
            ),
            Mistake(
                "with the angles only once",
                {"torch.cat([angles, angles], dim=-1)": "angles"},
                "each angle serves two numbers, one in each half of the head.",
            ),
            Mistake(
                "with each angle next to itself",
                {"torch.cat([angles, angles], dim=-1)": "angles.repeat_interleave(2, dim=-1)"},
                "that fits neighboring pairs; rotate_half pairs i with i + Hd/2, so the whole row of angles "
                "comes twice.",
            ),
            Mistake(
                "with cos and sin swapped",
                {
                    "angles.cos().to(x.dtype), angles.sin().to(x.dtype)": "angles.sin().to(x.dtype), "
                    "angles.cos().to(x.dtype)"
                },
                "cos comes first.",
            ),
            Mistake(
                "with angles in bfloat16",
                {
                    "position_ids[:, :, None].float() * inv_freq": "position_ids[:, :, None].to(x.dtype) * "
                    "inv_freq.to(x.dtype)"
                },
                "bfloat16 cannot tell position 256 from 257: angles are computed in float32.",
            ),
            Mistake(
                "with the angles cast before cos and sin",
                {
                    "angles.cos().to(x.dtype), angles.sin().to(x.dtype)": "angles.to(x.dtype).cos(), "
                    "angles.to(x.dtype).sin()"
                },
                "an angle of 300 in bfloat16 is wrong by up to a whole radian: only the results are cast.",
            ),
            Mistake(
                "without casting to the dtype of x",
                {".to(x.dtype)": ""},
                "in float32 they would turn all of attention to float32.",
            ),
            Mistake(
                "when divided by Hd/2 instead of Hd",
                {"/ self.head_dim": "/ (self.head_dim / 2)"},
                "the exponents 2i / Hd go from 0 to just below 1.",
            ),
            Mistake(
                "with i instead of 2i",
                {"torch.arange(0, self.head_dim, 2": "torch.arange(0, self.head_dim // 2, 1"},
                "the exponent is 2i / Hd.",
            ),
            Mistake(
                "with exponents that begin at 2 / Hd",
                {"torch.arange(0, self.head_dim, 2": "torch.arange(2, self.head_dim + 1, 2"},
                "i counts from 0: the first pair turns by one radian per position.",
            ),
            Mistake(
                "with 10000 whatever rope_theta says",
                {"self.rope_theta**": "10_000.0**"},
                "10000 is the usual theta, but the config decides.",
            ),
            Mistake(
                "with positions counted from 0 again",
                {
                    "position_ids[:, :, None].float()": "torch.arange(position_ids.shape[1], "
                    "device=x.device)[None, :, None].float().expand(len(position_ids), -1, -1)"
                },
                "a token after a cache is not at 0, and padding shifts the others: position_ids says where "
                "each one is.",
            ),
            Mistake(
                "with the positions of the first row for all",
                {"position_ids[:, :, None]": "position_ids[:1, :, None].expand(len(position_ids), -1, -1)"},
                "padding makes positions differ from row to row.",
            ),
            Mistake(
                "without the positions",
                {
                    "position_ids[:, :, None].float() * inv_freq": "torch.ones_like(position_ids)[:, :, "
                    "None].float() * inv_freq"
                },
                "the angle is the position times the frequency.",
            ),
            Mistake(
                "when divided by the frequencies",
                {".float() * inv_freq": ".float() / inv_freq"},
                "the angle is the position times theta^(-2i / Hd).",
            ),
            Mistake(
                "with exponents made on the wrong device",
                {", device=x.device": ""},
                "a new tensor has to be on the device of x.",
            ),
            Mistake(
                "with 1 / (theta * exponent) as frequencies",
                {"self.rope_theta**-exponents": "1 / (self.rope_theta * (exponents + 1))"},
                "it is a power: theta^(-2i / Hd).",
            ),
            Mistake(
                "when cos and sin come as one tensor",
                {
                    "return angles.cos().to(x.dtype), angles.sin().to(x.dtype)": "return "
                    "torch.stack([angles.cos(), angles.sin()]).to(x.dtype)"
                },
                "the result has to be two tensors.",
            ),
        ],
        right_ways=[
            RightWay(
                "one over a power, einsum",
                """
def forward(self, x, position_ids):
    exponents = torch.arange(self.head_dim // 2, device=position_ids.device, dtype=torch.float32)
    inv_freq = 1.0 / (self.rope_theta ** (2 * exponents / self.head_dim))
    angles = torch.einsum("bt,i->bti", position_ids.float(), inv_freq).repeat(1, 1, 2)
    return torch.cos(angles).type_as(x), torch.sin(angles).type_as(x)
""",
            ),
            RightWay(
                "exponential of a logarithm",
                """
def forward(self, x, position_ids):
    i = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device=x.device)
    log_theta = torch.log(torch.tensor(self.rope_theta, device=x.device))
    inv_freq = torch.exp(-log_theta * i / self.head_dim)
    angles = position_ids.unsqueeze(-1) * torch.cat([inv_freq, inv_freq])
    return angles.cos().to(x.dtype), angles.sin().to(x.dtype)
""",
            ),
            RightWay(
                "complex numbers",
                """
def forward(self, x, position_ids):
    freqs = torch.tensor([self.rope_theta ** (-2 * i / self.head_dim) for i in range(self.head_dim // 2)],
                         device=x.device)
    angles = position_ids[..., None].to(torch.float32) @ freqs[None]
    turn = torch.polar(torch.ones_like(angles), angles)
    turn = torch.cat([turn, turn], dim=2)
    return turn.real.to(x.dtype), turn.imag.to(x.dtype)
""",
            ),
        ],
        compare="the order of the casts: float32 for exponents, angles, cos and sin, x.dtype at the very "
        "end. And position 0, where cos is 1 and sin 0: nothing is rotated.",
    ),
    Exercise(
        name="rotate_half",
        file="decoder",
        minutes=5,
        difficulty="easy",
        why="A vector and its copy turned by a right angle are all that a rotation by any angle needs.",
        steps=[
            "Cut the last axis into its two halves, a and b.",
            "Flip the sign of b.",
            "Join them in the other order: -b first, then a.",
        ],
        hints=(
            "A quarter turn takes the point (a, b) to (-b, a). Here a and b are whole halves.",
            "chunk and slices both cut; torch.cat joins. Use the last axis, however many there are.",
            "first, second = x.chunk(2, dim=-1); return torch.cat([-second, first], dim=-1).",
        ),
        result="B H T Hd",
        sizes={"Hd": 10},
        cases=[
            Case("queries: B 2, H 12, T 7, Hd 10", lambda: {"x": randn(2, 12, 7, 10)}),
            Case("a single head of size 6", lambda: {"x": randn(6)}),
            Case("two axes", lambda: {"x": randn(5, 4)}),
            Case(
                "an input whose axes were swapped, as those of queries are",
                lambda: {"x": randn(2, 7, 4, 6).transpose(1, 2)},
            ),
            Case("bfloat16", lambda: {"x": randn(2, 3, 10, dtype=bf16)}, exact=1.0),
        ],
        mistakes=[
            Mistake(
                "without the minus",
                {"[-second, first]": "[second, first]"},
                "swapping the halves is a reflection; with -b it is a rotation.",
            ),
            Mistake(
                "with the minus on the other half",
                {"[-second, first]": "[second, -first]"},
                "[b, -a] rotates backwards.",
            ),
            Mistake(
                "with the halves left in their order",
                {"[-second, first]": "[-first, second]"},
                "the second half comes first.",
            ),
            Mistake(
                "with both signs flipped",
                {"[-second, first]": "[-second, -first]"},
                "only the second half gets a minus.",
            ),
            Mistake(
                "with neighboring pairs",
                {
                    "first, second = x.chunk(2, dim=-1)": "first, second = x[..., 0::2], x[..., 1::2]",
                    "torch.cat([-second, first], dim=-1)": "torch.stack([-second, first], "
                    "dim=-1).flatten(-2)",
                },
                "the paper pairs x[0] with x[1]; the checkpoint is ordered for halves, x[0] with x[Hd/2].",
            ),
            Mistake(
                "with even and odd numbers as the halves",
                {"x.chunk(2, dim=-1)": "(x[..., 0::2], x[..., 1::2])"},
                "a is the first half of the axis as it stands, b the second.",
            ),
            Mistake(
                "along the wrong axis",
                {"dim=-1": "dim=0"},
                "the halves are those of a head: the last axis.",
            ),
            Mistake(
                "with the halves on an axis of their own",
                {"torch.cat([-second, first], dim=-1)": "torch.stack([-second, first], dim=-1)"},
                "the result has the shape of x.",
            ),
            Mistake(
                "with the input changed in place",
                {
                    "return torch.cat([-second, first], dim=-1)": "half = x.shape[-1] // 2\n    copy = "
                    "first.clone()\n    x[..., :half] = -second\n    x[..., half:] = copy\n    return x"
                },
                "x is still needed: x * cos is added to this.",
            ),
            Mistake(
                "when the whole axis is reversed",
                {
                    "torch.cat([-second, first], dim=-1)": "torch.cat([-second.flip(-1), first.flip(-1)], "
                    "dim=-1)"
                },
                "each half keeps its order.",
            ),
        ],
        right_ways=[
            RightWay(
                "by slices",
                """
def rotate_half(x):
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)
""",
            ),
            RightWay(
                "into a new tensor",
                """
def rotate_half(x):
    half = x.shape[-1] // 2
    y = torch.empty_like(x)
    y[..., :half] = x[..., half:].neg()
    y[..., half:] = x[..., :half]
    return y
""",
            ),
            RightWay(
                "roll and signs",
                """
def rotate_half(x):
    half = x.shape[-1] // 2
    signs = torch.ones(x.shape[-1], dtype=x.dtype, device=x.device)
    signs[:half] = -1
    return x.roll(half, dims=-1) * signs
""",
            ),
            RightWay(
                "complex numbers",
                """
def rotate_half(x):
    a, b = x.float().unflatten(-1, (2, -1)).unbind(-2)
    turned = torch.complex(a, b) * 1j
    return torch.cat([turned.real, turned.imag], -1).to(x.dtype)
""",
            ),
        ],
        compare="that it is (a + ib) * i = -b + ia, for Hd/2 complex numbers whose parts lie half a head "
        "apart.",
    ),
    Exercise(
        name="apply_rotary_pos_emb",
        file="decoder",
        minutes=10,
        difficulty="medium",
        why="Once both are rotated by their positions, query . key shows how far apart they are.",
        builds_on=("GemmaRotaryEmbedding", "rotate_half"),
        steps=[
            "Give cos and sin an axis of length 1 for the heads, so that they fit every head.",
            "Rotate the queries: the vectors times cos, plus the vectors turned by a right angle times sin.",
            "Rotate the keys by the same angles.",
            "Return both, queries first.",
        ],
        hints=(
            "Write the shapes of query and cos below each other, from the right. Where do they not match?",
            "cos[:, None] is [B, 1, T, Hd]. The rotated vector is x * cos + rotate_half(x) * sin.",
            "cos, sin = cos[:, None], sin[:, None]; query = query * cos + rotate_half(query) * sin, and the "
            "same for key; return query, key.",
        ),
        result={"[0]": "B H T Hd", "[1]": "B K T Hd"},
        sizes=SIZES,
        cases=[
            Case("a batch of two, twelve heads and three key heads", to_turn()),
            Case("one key head, one token", to_turn(T=1, H=4, K=1)),
            Case("as many key heads as heads, a head of size 6", to_turn(T=5, H=3, K=3, Hd=6)),
            Case("as many heads as tokens", to_turn(T=4, H=4, K=2)),
            Case("bfloat16", to_turn(dtype=bf16), tolerance=4e-2),
        ],
        mistakes=[
            Mistake(
                "with a minus before the second part",
                {"query * cos + ": "query * cos - ", "key * cos + ": "key * cos - "},
                "that rotates backwards; the minus is already in rotate_half.",
            ),
            Mistake(
                "with cos and sin swapped",
                {"cos, sin = cos[:, None], sin[:, None]": "cos, sin = sin[:, None], cos[:, None]"},
                "the vector itself is multiplied by cos.",
            ),
            Mistake(
                "without rotate_half",
                {"rotate_half(query)": "query", "rotate_half(key)": "key"},
                "the second part is the vector turned by a right angle.",
            ),
            Mistake(
                "with the keys left as they were",
                {"key = key * cos + rotate_half(key) * sin": "pass"},
                "only if both are rotated does their product depend on the distance.",
            ),
            Mistake(
                "with the queries left as they were",
                {"query = query * cos + rotate_half(query) * sin": "pass"},
                "only if both are rotated does their product depend on the distance.",
            ),
            Mistake(
                "without the second part",
                {" + rotate_half(query) * sin": "", " + rotate_half(key) * sin": ""},
                "a rotation needs cos and sin.",
            ),
            Mistake(
                "with neighboring pairs",
                """
def apply_rotary_pos_emb(query, key, cos, sin):
    cos, sin = cos[:, None], sin[:, None]

    def turned(x):
        y = torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)
        return x * cos + y * sin

    return turned(query), turned(key)
""",
                "the checkpoint is ordered for halves: rotate_half pairs i with i + Hd/2.",
            ),
            Mistake(
                "without an axis for the heads",
                {"cos, sin = cos[:, None], sin[:, None]": "pass"},
                "[B, T, Hd] against [B, H, T, Hd] lines up the batch with the heads.",
            ),
            Mistake(
                "with the new axis behind the tokens",
                {"cos[:, None], sin[:, None]": "cos[:, :, None], sin[:, :, None]"},
                "[B, T, 1, Hd] lines up tokens with heads; the axis of heads comes before the tokens.",
            ),
            Mistake(
                "with the angles of the first row for all",
                {"cos[:, None], sin[:, None]": "cos[:1, None], sin[:1, None]"},
                "every row of the batch has positions of its own.",
            ),
            Mistake(
                "with keys rotated backwards",
                {"key * cos + rotate_half(key)": "key * cos - rotate_half(key)"},
                "then the product depends on the sum of the positions, not on the difference.",
            ),
            Mistake(
                "when the key is rotated from the query",
                {
                    "key = key * cos + rotate_half(key) * sin": "key = key * cos + rotate_half(query)[:, "
                    ":key.shape[1]] * sin"
                },
                "each is rotated from itself.",
            ),
            Mistake(
                "when rotated twice",
                {
                    "return query, key": "return query * cos + rotate_half(query) * sin, key * cos + "
                    "rotate_half(key) * sin"
                },
                "once: by the angle of the position.",
            ),
            Mistake(
                "with the input changed in place",
                {
                    "query = query * cos + rotate_half(query) * sin": "turned = rotate_half(query) * sin\n"
                    "    query *= cos\n    query += turned"
                },
                "`*=` writes into the caller's tensor.",
            ),
            Mistake(
                "with the keys returned first",
                {"return query, key": "return key, query"},
                "queries first.",
            ),
            Mistake(
                "in float32",
                {"cos[:, None], sin[:, None]": "cos[:, None].float(), sin[:, None].float()"},
                "queries and keys keep their dtype.",
            ),
        ],
        right_ways=[
            RightWay(
                "one after the other",
                """
def apply_rotary_pos_emb(query, key, cos, sin):
    turned = []
    for x in (query, key):
        y = x * cos.unsqueeze(1)
        y += rotate_half(x) * sin.unsqueeze(1)
        turned.append(y)
    return turned
""",
            ),
            RightWay(
                "complex numbers",
                """
def apply_rotary_pos_emb(query, key, cos, sin):
    half = cos.shape[-1] // 2
    turn = torch.complex(cos[..., :half].float(), sin[..., :half].float())[:, None]

    def turned(x):
        y = torch.complex(x[..., :half].float(), x[..., half:].float()) * turn
        return torch.cat([y.real, y.imag], dim=-1).to(x.dtype)

    return turned(query), turned(key)
""",
            ),
            RightWay(
                "all heads at once",
                """
def apply_rotary_pos_emb(query, key, cos, sin):
    both = torch.cat([query, key], dim=1)
    a, b = both.chunk(2, dim=-1)
    c, s = (t[:, None, :, :t.shape[-1] // 2] for t in (cos, sin))
    both = torch.cat([a * c - b * s, b * c + a * s], dim=-1)
    return both[:, :query.shape[1]], both[:, query.shape[1]:]
""",
            ),
        ],
        compare="it is the rotation (a cos - b sin, b cos + a sin), written for whole tensors. Values are "
        "not rotated: they carry what a token says, not where it is.",
    ),
    Exercise(
        name="repeat_kv",
        file="decoder",
        minutes=10,
        difficulty="easy",
        why="Gemma has eight query heads and one key/value head, which makes the cache eight times smaller.",
        steps=[
            "Insert an axis of length 1 after the axis of heads.",
            "Stretch that axis to num_repeats.",
            "Join it with the axis of heads, so that copies of a head lie next to each other.",
        ],
        hints=(
            "Query heads 0 to r - 1 share key head 0, the next r share key head 1. In which order must the "
            "copies come?",
            "[B, K, L, Hd] -> [B, K, 1, L, Hd] -> [B, K, r, L, Hd] -> [B, K * r, L, Hd]. One torch function "
            "does all of it; it is not tile, and not repeat.",
            "hidden_states[:, :, None].expand(B, K, num_repeats, L, Hd).reshape(B, K * num_repeats, L, Hd).",
        ),
        result="B H L Hd",
        sizes={"K": 3, "r": 4},
        cases=[
            Case(
                "three heads, each four times",
                lambda: {"hidden_states": randn(2, 3, 7, 10), "num_repeats": 4},
            ),
            Case("one head, five times", lambda: {"hidden_states": randn(2, 1, 6, 10), "num_repeats": 5}),
            Case("each head once", lambda: {"hidden_states": randn(2, 4, 6, 10), "num_repeats": 1}),
            Case(
                "bfloat16, one token",
                lambda: {"hidden_states": randn(3, 2, 1, 6, dtype=bf16), "num_repeats": 3},
                exact=1.0,
            ),
            Case(
                "in training, where gradients have to flow back",
                lambda: {"hidden_states": randn(2, 2, 5, 6).requires_grad_(), "num_repeats": 3},
            ),
        ],
        mistakes=[
            Mistake(
                "with the whole row of heads repeated",
                {
                    "hidden_states[:, :, None].expand(B, K, num_repeats, L, Hd)": "hidden_states.repeat(1, "
                    "num_repeats, 1, 1)"
                },
                "`repeat` gives 0 1 2 0 1 2; neighboring query heads share a head, so it is 0 0 1 1 2 2.",
            ),
            Mistake(
                "with tokens repeated instead of heads",
                """
def repeat_kv(hidden_states, num_repeats):
    return hidden_states.repeat_interleave(num_repeats, dim=2)
""",
                "the heads are axis 1.",
            ),
            Mistake(
                "with rows of the batch repeated",
                """
def repeat_kv(hidden_states, num_repeats):
    return hidden_states.repeat_interleave(num_repeats, dim=0)
""",
                "the heads are axis 1.",
            ),
            Mistake(
                "with the last axis repeated",
                """
def repeat_kv(hidden_states, num_repeats):
    return hidden_states.repeat_interleave(num_repeats, dim=-1)
""",
                "the heads are axis 1.",
            ),
            Mistake(
                "without joining the two axes",
                {"hidden_states.reshape(B, K * num_repeats, L, Hd)": "hidden_states"},
                "[B, K, r, L, Hd] has one axis too many for a matrix product with the queries.",
            ),
            Mistake(
                "with the copies behind the tokens",
                {
                    "hidden_states[:, :, None].expand(B, K, num_repeats, L, Hd)": "hidden_states[:, :, :, "
                    "None].expand(B, K, L, num_repeats, Hd)"
                },
                "reshape only joins axes that are next to each other: heads, then copies.",
            ),
            Mistake(
                "when nothing is repeated",
                {"return hidden_states.reshape(B, K * num_repeats, L, Hd)": "return hidden_states[:, :, 0]"},
                "there must be a key head for each query head.",
            ),
            Mistake(
                "with the first head for all",
                {"hidden_states[:, :, None].expand(": "hidden_states[:, :1, None].expand("},
                "with more than one key/value head, each serves its own group.",
            ),
            Mistake(
                "with one copy too many",
                {"num_repeats": "(num_repeats + 1)", "num_repeats, L, Hd)": "num_repeats, L, Hd)"}
                and """
def repeat_kv(hidden_states, num_repeats):
    copies = [hidden_states] + [hidden_states] * num_repeats
    return torch.stack(copies, dim=2).flatten(1, 2)
""",
                "num_repeats counts the original too.",
            ),
        ],
        right_ways=[
            RightWay(
                "repeat_interleave",
                """
def repeat_kv(hidden_states, num_repeats):
    return torch.repeat_interleave(hidden_states, num_repeats, dim=1)
""",
            ),
            RightWay(
                "stack and flatten",
                """
def repeat_kv(hidden_states, num_repeats):
    if num_repeats == 1:
        return hidden_states
    return torch.stack([hidden_states] * num_repeats, dim=2).flatten(1, 2)
""",
            ),
            RightWay(
                "by index",
                """
def repeat_kv(hidden_states, num_repeats):
    K = hidden_states.size(1)
    heads = [head // num_repeats for head in range(K * num_repeats)]
    return hidden_states[:, heads]
""",
            ),
            RightWay(
                "head by head",
                """
def repeat_kv(hidden_states, num_repeats):
    return torch.cat([head for head in hidden_states.split(1, dim=1) for _ in range(num_repeats)], dim=1)
""",
            ),
        ],
        compare="expand copies nothing, only reshape does. scaled_dot_product_attention can avoid that copy "
        "too (enable_gqa).",
    ),
    Exercise(
        name="prefix_lm_mask",
        file="decoder",
        minutes=30,
        difficulty="hard",
        why="The prompt may be read in both directions, but the answer must not see what comes next: one "
        "mask says both.",
        steps=[
            "Number the L keys. The T queries are the last T of these numbers.",
            "Which keys are not later than the query: [T, L]?",
            "Which keys belong to the prefix, [B, L]? For keys in the cache no type is given, and none is "
            "needed: they are earlier than every query.",
            "A query may see what either of the two allows, [B, T, L], but never padding.",
            "Give it an axis of length 1 for the heads: bool [B, 1, T, L].",
        ],
        hints=(
            "Draw the mask of the second example by hand. Each of the three rules is a question about the "
            "key (a column), or about key and query; then think about how to join them.",
            "Comparisons of [1, L] with [T, 1] give [T, L]; `|` is or, `&` is and, on bool tensors. F.pad "
            "extends a row on the left, for the cached keys.",
            "not_later = positions[None, :] <= positions[L - T:, None]; is_prefix = F.pad(token_type_ids "
            "== 0, (L - T, 0)); (not_later[None] | is_prefix[:, None, :]) & attention_mask[:, None, "
            ":].bool().",
        ),
        result="B 1 T L",
        sizes={"T": 6, "L": 6},
        cases=[
            Case(
                "no padding: three prefix tokens and two suffix tokens, then four and one",
                masks(["11111", "11111"], ["00011", "00001"]),
            ),
            Case("padding on the left", masks(["0111111", "0001111"], ["0000011", "0000001"])),
            Case("a prompt alone, padded", masks(["111111", "001111"], ["000000", "000000"])),
            Case("one new token after four", masks(["11111", "00111"], ["1", "1"])),
            Case("three new tokens after four", masks(["1111111", "0111111"], ["111", "111"])),
            Case("two new tokens that are prefix, after three", masks(["11111", "01111"], ["00", "01"])),
            Case("padding on the right, as in training", masks(["111111", "111100"], ["000111", "001100"])),
            Case("text without a prefix", masks(["1111", "0111", "1111"], ["1111", "1111", "0111"])),
            Case(
                "on another device",
                masks(["11111", "01111"], ["0011", "0001"]),
                other_device=True,
            ),
        ],
        mistakes=[
            Mistake(
                "with a causal prefix",
                {"not_later[None] | is_prefix[:, None, :]": "not_later[None].expand(len(is_prefix), -1, -1)"},
                "picture and prompt see each other in both directions.",
            ),
            Mistake(
                "with a suffix that sees what comes next",
                {
                    "not_later[None] | is_prefix[:, None, :]": "torch.ones_like(not_later[None] | "
                    "is_prefix[:, None, :])"
                },
                "a suffix token sees the prefix and its own past only.",
            ),
            Mistake(
                "with padding that is seen",
                {"allowed & attention_mask[:, None, :].bool()": "allowed"},
                "padding is not a token: nobody may look at it, though its type says prefix.",
            ),
            Mistake(
                "with True where a query must not look",
                {"return allowed[:, None]": "return ~allowed[:, None]"},
                "True means that the query may look.",
            ),
            Mistake(
                "with queries and keys swapped",
                {
                    "positions[None, :] <= positions[L - T:, "
                    "None]": "positions[None, :] >= positions[L - T:, None]"
                },
                "rows are queries, columns are keys: the key's number is not larger than the query's.",
            ),
            Mistake(
                "when a token does not see itself",
                {"<=": "<"},
                "not later than the query: the query itself is among them.",
            ),
            Mistake(
                "with queries that are counted from 0",
                {"positions[L - T:, None]": "positions[:T, None]"},
                "the queries are the last T of the L tokens: with a cache, the first of them is number L - "
                "T.",
            ),
            Mistake(
                "when the row is off by one with a cache",
                {"positions[L - T:, None]": "(positions[:T, None] + max(L - T - 1, 0))"},
                "the first of the T queries is number L - T.",
            ),
            Mistake(
                "when a query sees one token of the future",
                {
                    "positions[None, :] <= positions[L - T:, "
                    "None]": "positions[None, :] <= positions[L - T:, None] + 1"
                },
                "not later than the query.",
            ),
            Mistake(
                "when prefix queries see everything",
                {
                    "is_prefix = F.pad(token_type_ids == 0, (L - T, 0))": "is_prefix = token_type_ids == 0",
                    "is_prefix[:, None, :]": "is_prefix[:, :, None]",
                },
                "it is the key that has to be prefix: the prompt must not read the answer.",
            ),
            Mistake(
                "with the types the other way around",
                {"token_type_ids == 0": "token_type_ids == 1"},
                "0 is the prefix, 1 the suffix.",
            ),
            Mistake(
                "when tokens of the same type see each other",
                {
                    "is_prefix[:, None, :]": "(F.pad(token_type_ids, (L - T, 0), value=-1)[:, None, :] == "
                    "token_type_ids[:, :, None])"
                },
                "that holds for the prefix; in the suffix it would show what comes next.",
            ),
            Mistake(
                "when padding is hidden by row instead of by column",
                {"attention_mask[:, None, :].bool()": "attention_mask[:, L - T:, None].bool()"},
                "it is the key (a column) that must not be padding.",
            ),
            Mistake(
                "with the first row's padding for all",
                {"attention_mask[:, None, :].bool()": "attention_mask[:1, None, :].bool()"},
                "each row of the batch is padded in its own way.",
            ),
            Mistake(
                "with the first row's types for all",
                {"is_prefix[:, None, :]": "is_prefix[:1, None, :]"},
                "each row of the batch has its own prefix.",
            ),
            Mistake(
                "with the types moved to the wrong side",
                {"(L - T, 0)": "(0, L - T)"},
                "the types are those of the last T tokens, so the place of the cached ones is on the left.",
            ),
            Mistake(
                "without an axis for the heads",
                {"return allowed[:, None]": "return allowed"},
                "scores are [B, H, T, L].",
            ),
            Mistake(
                "with numbers instead of True and False",
                {"return allowed[:, None]": "return allowed[:, None].long()"},
                "attention takes it as bool: True where the query may look.",
            ),
            Mistake(
                "with 0 and -inf, to be added to the scores",
                {
                    "return allowed[:, None]": "return torch.zeros(allowed[:, None].shape, "
                    "device=allowed.device).masked_fill(~allowed[:, None], float('-inf'))"
                },
                "attention takes it as bool: True where the query may look.",
            ),
            Mistake(
                "with a mask for the new tokens alone",
                {"return allowed[:, None]": "return allowed[:, None, :, L - T:]"},
                "the cached keys can be looked at too: L columns.",
            ),
            Mistake(
                "when made on the wrong device",
                {", device=attention_mask.device": ""},
                "a new tensor has to be on the device of the input.",
            ),
        ],
        right_ways=[
            RightWay(
                "with a triangle",
                """
def prefix_lm_mask(attention_mask, token_type_ids):
    B, L = attention_mask.shape
    T = token_type_ids.shape[1]
    mask = torch.ones(T, L, dtype=torch.bool, device=attention_mask.device).tril(diagonal=L - T)
    mask = mask.repeat(B, 1, 1)
    mask[:, :, L - T:] |= (token_type_ids == 0)[:, None]
    return (mask & (attention_mask != 0)[:, None]).unsqueeze(1)
""",
            ),
            RightWay(
                "numbers of blocks, as big_vision does",
                """
def prefix_lm_mask(attention_mask, token_type_ids):
    T, L = token_type_ids.shape[1], attention_mask.shape[1]
    steps = token_type_ids.cumsum(dim=1)
    keys = torch.cat([torch.full_like(attention_mask[:, :L - T], -1), steps], dim=1)
    mask = keys[:, None, :] <= steps[:, :, None]
    return (mask * attention_mask[:, None, :]).bool()[:, None]
""",
            ),
            RightWay(
                "a loop",
                """
def prefix_lm_mask(attention_mask, token_type_ids):
    (B, T), L = token_type_ids.shape, attention_mask.shape[1]
    mask = torch.zeros(B, 1, T, L, dtype=torch.bool, device=attention_mask.device)
    for q in range(T):
        for k in range(L):
            seen = k <= q + L - T
            if k >= L - T:
                seen = (token_type_ids[:, k - (L - T)] == 0) | seen
            mask[:, 0, q, k] = attention_mask[:, k].bool() & seen
    return mask
""",
            ),
            RightWay(
                "what is forbidden, inverted",
                """
def prefix_lm_mask(attention_mask, token_type_ids):
    T, L = token_type_ids.shape[1], attention_mask.shape[1]
    device = attention_mask.device
    later = torch.arange(L, device=device)[None, :] > torch.arange(L - T, L, device=device)[:, None]
    suffix = torch.ones_like(attention_mask, dtype=torch.bool)
    suffix[:, L - T:] = token_type_ids != 0
    forbidden = (later[None] & suffix[:, None]) | (attention_mask == 0)[:, None]
    return ~forbidden[:, None]
""",
            ),
        ],
        compare="that it is one line of logic, (not later or prefix) and not padding, for a prompt, for "
        "training and for each decoding step.",
    ),
    Exercise(
        name="GemmaMLP",
        file="decoder",
        minutes=10,
        difficulty="easy",
        why="Most of what the model knows is kept here: 72 % of the decoder's weights.",
        steps={
            "__init__": [
                "Make gate_proj and up_proj, from hidden_size to intermediate_size, and down_proj, back "
                "again, all without bias.",
            ],
            "forward": [
                "Widen each token twice: by gate_proj and by up_proj.",
                "Apply GELU to the gate alone, by its tanh formula, and multiply the two.",
                "Narrow with down_proj.",
            ],
        },
        hints=(
            "Read the formula from the inside out. Only one of the two wide vectors goes through GELU.",
            "F.gelu takes an argument that chooses between the exact form and the tanh approximation; "
            "nn.Linear has one about the bias.",
            'down_proj(F.gelu(gate_proj(x), approximate="tanh") * up_proj(x)).',
        ),
        make=lambda m: m.GemmaMLP(SMALL),
        result="B T D",
        sizes=SIZES,
        cases=[
            Case("a batch of two", lambda: {"hidden_states": randn(2, 7, 28, scale=1.5)}),
            Case(
                "narrower inside than outside",
                lambda: {"hidden_states": randn(2, 5, 28)},
                make=lambda m: m.GemmaMLP(replace(SMALL, intermediate_size=11)),
            ),
            Case(
                "bfloat16", lambda: {"hidden_states": randn(2, 7, 28, dtype=bf16)}, dtype=bf16, tolerance=6e-2
            ),
        ],
        mistakes=[
            Mistake(
                "with the exact GELU",
                {', approximate="tanh"': ""},
                "Gemma was trained with the tanh formula; the two differ by up to 0.0005.",
            ),
            Mistake(
                "with SiLU",
                {
                    'F.gelu(self.gate_proj(hidden_states), approximate="tanh")': "F.silu(self.gate_proj("
                    "hidden_states))"
                },
                "that is LLaMA's SwiGLU; Gemma's is a GeGLU.",
            ),
            Mistake(
                "with ReLU",
                {
                    'F.gelu(self.gate_proj(hidden_states), approximate="tanh")': "F.relu(self.gate_proj("
                    "hidden_states))"
                },
                "it is GELU, by its tanh formula.",
            ),
            Mistake(
                "with a sigmoid",
                {
                    'F.gelu(self.gate_proj(hidden_states), approximate="tanh")': "torch.sigmoid("
                    "self.gate_proj(hidden_states))"
                },
                "that is the original GLU; Gemma's gate is a GELU.",
            ),
            Mistake(
                "with gate and up swapped",
                """
def forward(self, hidden_states):
    gate = F.gelu(self.up_proj(hidden_states), approximate="tanh")
    return self.down_proj(gate * self.gate_proj(hidden_states))
""",
                "GELU is applied to gate_proj.",
            ),
            Mistake(
                "without the gate",
                {"gate * self.up_proj(hidden_states)": "gate"},
                "gate_proj decides how much of up_proj passes: the two are multiplied.",
            ),
            Mistake(
                "with a sum instead of a product",
                {"gate * self": "gate + self"},
                "a gate multiplies.",
            ),
            Mistake(
                "with GELU over the product",
                """
def forward(self, hidden_states):
    product = self.gate_proj(hidden_states) * self.up_proj(hidden_states)
    return self.down_proj(F.gelu(product, approximate="tanh"))
""",
                "GELU is applied to the gate, before the product.",
            ),
            Mistake(
                "with GELU over both",
                {
                    "gate * self.up_proj(hidden_states)": "gate * F.gelu(self.up_proj(hidden_states), "
                    'approximate="tanh")'
                },
                "up_proj is left as it is.",
            ),
            Mistake(
                "without GELU",
                {
                    "F.gelu(self.gate_proj(hidden_states), "
                    'approximate="tanh")': "self.gate_proj(hidden_states)"
                },
                "the gate goes through GELU.",
            ),
            Mistake(
                "with biases",
                {", bias=False": ""},
                "the decoder has none: the checkpoint holds weights only.",
            ),
            Mistake(
                "with a residual",
                {"return self.down_proj(": "return hidden_states + self.down_proj("},
                "the residual belongs to the block around it, GemmaDecoderLayer.",
            ),
        ],
        right_ways=[
            RightWay(
                "GELU by its formula",
                """
def forward(self, hidden_states):
    g = self.gate_proj(hidden_states)
    g = 0.5 * g * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (g + 0.044715 * g ** 3)))
    return self.down_proj(self.up_proj(hidden_states).mul_(g))
""",
            ),
            RightWay(
                "another order of creation, nn.GELU",
                """
def __init__(self, config):
    super().__init__()
    D, M = config.hidden_size, config.intermediate_size
    self.act = nn.GELU(approximate="tanh")
    self.down_proj = nn.Linear(M, D, bias=False)
    self.up_proj, self.gate_proj = nn.Linear(D, M, bias=False), nn.Linear(D, M, False)

def forward(self, hidden_states):
    return self.down_proj(self.up_proj(hidden_states) * self.act(self.gate_proj(hidden_states)))
""",
            ),
            RightWay(
                "one product for both",
                """
def forward(self, hidden_states):
    weight = torch.cat([self.gate_proj.weight, self.up_proj.weight])
    gate, up = F.linear(hidden_states, weight).chunk(2, dim=-1)
    return F.linear(F.gelu(gate, approximate="tanh") * up, self.down_proj.weight)
""",
            ),
        ],
        compare="next to the vision tower's MLP: no biases, and a third matrix that decides what passes.",
    ),
    Exercise(
        name="GemmaAttention",
        file="decoder",
        minutes=40,
        difficulty="hard",
        why="The only place where a word meets the picture: answers are looked up here.",
        builds_on=("KVCache.update", "apply_rotary_pos_emb", "repeat_kv", "prefix_lm_mask"),
        steps={
            "__init__": [
                "Keep layer_idx and the sizes, and make q_proj, k_proj, v_proj and o_proj without bias: H "
                "heads for the queries, K for keys and values, each of head_dim, which need not be D / H.",
            ],
            "forward": [
                "Project to queries, keys and values, and put the axis of heads before the tokens: [B, H, "
                "T, Hd] and [B, K, T, Hd].",
                "Rotate queries and keys by their positions, and only then add keys and values to the "
                "cache, which returns those of all tokens: [B, K, L, Hd].",
                "Repeat each key/value head for the query heads that share it: [B, H, L, Hd].",
                "Score each query against each key, and divide by the root of the head's size; where the "
                "mask is False, put a number so low that softmax makes it 0 (but not -inf, see above).",
                "Turn the scores into weights over the keys; average the values with them, lay the heads "
                "side by side again and apply o_proj.",
            ],
        },
        hints=(
            "Begin with your Attention from the vision tower. What is new: positions, a cache, fewer key "
            "heads, a mask. Write the shape next to every line.",
            "The order is: project, split, rotate, cache, repeat_kv, score, mask, softmax, average, merge, "
            "o_proj. masked_fill puts a number where its bool argument is True; torch.finfo(dtype).min is "
            "the lowest there is.",
            "key, value = kv_cache.update(key, value, self.layer_idx); scores = query @ key.transpose(2, 3) "
            "* self.head_dim**-0.5; scores = scores.masked_fill(~attention_mask, "
            "torch.finfo(scores.dtype).min).",
        ),
        make=lambda m: m.GemmaAttention(SMALL, 0),
        result={"output": "B T D", "key_cache": "B K L Hd", "value_cache": "B K L Hd"},
        sizes=SIZES,
        cases=[
            Case(
                "one token, which can only look at itself",
                tokens(T=1, padding=(0, 0), suffix=(0, 0)),
                call=with_cache,
            ),
            Case(
                "a batch of two without padding, all prefix: every token sees every token",
                tokens(padding=(0, 0), suffix=(0, 0)),
                call=with_cache,
            ),
            Case("prefix and suffix, one row padded", tokens(), call=with_cache),
            Case(
                "three new tokens after five",
                tokens(T=3, cached=5, layers=1, suffix=(3, 3)),
                call=with_cache,
            ),
            Case(
                "one new token after five, in the second layer",
                tokens(T=1, cached=5, layers=2, suffix=(1, 1)),
                make=lambda m: m.GemmaAttention(SMALL, 1),
                call=with_cache,
            ),
            Case(
                "four heads of size 6 share one key/value head",
                tokens(K=1, Hd=6),
                make=lambda m: m.GemmaAttention(
                    replace(SMALL, num_attention_heads=4, num_key_value_heads=1, head_dim=6), 0
                ),
                call=with_cache,
            ),
            Case(
                "a key/value head for each of four heads",
                tokens(K=4, Hd=8, padding=(1, 0, 3), suffix=(2, 0, 1)),
                make=lambda m: m.GemmaAttention(
                    replace(SMALL, num_attention_heads=4, num_key_value_heads=4, head_dim=8), 0
                ),
                call=with_cache,
            ),
            Case(
                "padding that may look at nothing: any numbers, but no NaN",
                tokens(padding=(0, 3), suffix=(7, 7)),
                call=lambda made, hidden_states, *rest, **others: without_padding(
                    made(hidden_states, *rest, **others), (0, 3)
                ),
            ),
            Case("bfloat16", tokens(dtype=bf16), dtype=bf16, tolerance=0.1, call=with_cache),
        ],
        mistakes=[
            Mistake(
                "without dividing by sqrt(Hd)",
                {" * self.head_dim**-0.5": ""},
                "unscaled scores grow with the size of a head, and softmax then picks a single token.",
            ),
            Mistake(
                "when divided by sqrt(D) instead of sqrt(Hd)",
                {"self.head_dim**-0.5": "D**-0.5"},
                "a score is a sum over one head, so Hd numbers, not over the whole width.",
            ),
            Mistake(
                "when divided by sqrt(D / H) instead of sqrt(Hd)",
                {"self.head_dim**-0.5": "(D / self.num_heads)**-0.5"},
                "here a head is larger than D / H: head_dim says how large.",
            ),
            Mistake(
                "when divided by Hd instead of its root",
                {"self.head_dim**-0.5": "self.head_dim**-1"},
                "a sum of Hd random products is about sqrt(Hd) in size.",
            ),
            Mistake(
                "when multiplied by sqrt(Hd) instead of divided",
                {"self.head_dim**-0.5": "self.head_dim**0.5"},
                "the scale brings scores down to about 1.",
            ),
            Mistake(
                "without the mask",
                {"scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)": "pass"},
                "padding and the future have to be hidden.",
            ),
            Mistake(
                "with the mask the other way around",
                {"~attention_mask": "attention_mask"},
                "True means that the query may look; what is False is filled.",
            ),
            Mistake(
                "with the mask added as 0 and 1",
                {
                    "scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)": "scores + "
                    "attention_mask"
                },
                "a 0 hides nothing: what is False needs a very low score.",
            ),
            Mistake(
                "with a score of 0 under the mask",
                {
                    "scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)": "scores * "
                    "attention_mask"
                },
                "softmax still gives it a weight; what is False needs the lowest number there is.",
            ),
            Mistake(
                "with the mask applied after softmax",
                {
                    "scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)": "pass",
                    "dtype=torch.float32).to(query.dtype)": "dtype=torch.float32).to(query.dtype) * "
                    "attention_mask",
                },
                "then the weights that are left no longer add up to 1.",
            ),
            Mistake(
                "with a causal mask",
                {
                    "~attention_mask": "~(attention_mask & torch.ones_like(attention_mask).tril("
                    "attention_mask.shape[3] - T))"
                },
                "the prefix sees itself in both directions: the mask that is passed in says it all.",
            ),
            Mistake(
                "with -inf under the mask",
                {"torch.finfo(scores.dtype).min": "float('-inf')"},
                "a row with nothing to look at becomes NaN: softmax then divides 0 by 0.",
            ),
            Mistake(
                "with softmax over the queries",
                {"dim=-1": "dim=-2"},
                "each query's weights over the keys add up to 1: the last axis.",
            ),
            Mistake(
                "with softmax over the heads",
                {"dim=-1": "dim=1"},
                "each query's weights over the keys add up to 1: the last axis.",
            ),
            Mistake(
                "without softmax",
                {"F.softmax(scores, dim=-1, dtype=torch.float32)": "scores"},
                "scores have to become weights that add up to 1.",
            ),
            Mistake(
                "without rotating by positions",
                {"query, key = apply_rotary_pos_emb(query, key, cos, sin)": "pass"},
                "without it, attention does not see the order of the tokens.",
            ),
            Mistake(
                "with only the queries rotated",
                {"query, key = apply_rotary_pos_emb": "query, _ = apply_rotary_pos_emb"},
                "only if both are rotated does the score depend on the distance.",
            ),
            Mistake(
                "with cos and sin swapped",
                {"(query, key, cos, sin)": "(query, key, sin, cos)"},
                "position_embeddings holds cos first.",
            ),
            Mistake(
                "with the values rotated too",
                {
                    "key, value = kv_cache.update": "value, _ = apply_rotary_pos_emb(value, key, cos, sin)\n"
                    "        key, value = kv_cache.update"
                },
                "values carry what a token says, not where it is: only queries and keys are rotated.",
            ),
            Mistake(
                "with the values rotated instead of the keys",
                {
                    "query, key = apply_rotary_pos_emb(query, key, cos, sin)": "query, value = "
                    "apply_rotary_pos_emb(query, value, cos, sin)"
                },
                "queries and keys are rotated.",
            ),
            Mistake(
                "with keys that go to the cache before they are rotated",
                {
                    "query, key = apply_rotary_pos_emb(query, key, cos, sin)": "pass",
                    "key, value = kv_cache.update(key, value, self.layer_idx)": "key, value = "
                    "kv_cache.update(key, value, self.layer_idx)\n        query, key = "
                    "apply_rotary_pos_emb(query, key, cos, sin)",
                },
                "cos and sin are those of the new tokens: a key is rotated once, when it is new, and cached "
                "like that.",
            ),
            Mistake(
                "without the cache",
                {"key, value = kv_cache.update(key, value, self.layer_idx)": "pass"},
                "the new tokens look at the earlier ones too, and later ones will look at these.",
            ),
            Mistake(
                "when the cache is filled but not read",
                {"key, value = kv_cache.update": "kv_cache.update"},
                "what update returns are the keys and values of all tokens.",
            ),
            Mistake(
                "with the first layer's cache for all",
                {"(key, value, self.layer_idx)": "(key, value, 0)"},
                "every layer has keys and values of its own: layer_idx says whose these are.",
            ),
            Mistake(
                "with the copies of the heads in the cache",
                {
                    "key, value = kv_cache.update(key, value, self.layer_idx)": "pass",
                    "scores = query @": "key, value = kv_cache.update(key, value, self.layer_idx)\n        "
                    "scores = query @",
                },
                "the cache keeps K heads: sharing them is meant to keep it small.",
            ),
            Mistake(
                "with the key heads repeated in turns",
                {
                    "key = repeat_kv(key, self.num_heads // self.num_key_value_heads)": "key = key.repeat(1, "
                    "self.num_heads // self.num_key_value_heads, 1, 1)",
                    "value = repeat_kv(value, self.num_heads // self.num_key_value_heads)": "value = "
                    "value.repeat(1, self.num_heads // self.num_key_value_heads, 1, 1)",
                },
                "neighboring query heads share a key head: 0 0 1 1, not 0 1 0 1.",
            ),
            Mistake(
                "without repeating the heads",
                {
                    "key = repeat_kv(key, self.num_heads // self.num_key_value_heads)": "pass",
                    "value = repeat_kv(value, self.num_heads // self.num_key_value_heads)": "pass",
                },
                "there are H query heads and K key/value heads: repeat_kv makes their numbers equal.",
            ),
            Mistake(
                "without the output projection",
                {"self.o_proj(": "("},
                "o_proj mixes what the heads found, and goes back to the width D.",
            ),
            Mistake(
                "when the heads are merged without swapping the axes back",
                {"attended.transpose(1, 2).reshape": "attended.reshape"},
                "[B, H, T, Hd] cut into [B, T, H * Hd] puts numbers of different tokens into one; swap "
                "heads and tokens first.",
            ),
            Mistake(
                "when heads are cut by view alone",
                {
                    "view(B, T, self.num_heads, self.head_dim).transpose(1, 2)": "view(B, self.num_heads, T, "
                    "self.head_dim)",
                    "view(B, T, self.num_key_value_heads, self.head_dim).transpose(1, 2)": "view(B, "
                    "self.num_key_value_heads, T, self.head_dim)",
                },
                "view(B, H, T, Hd) cuts the same run of numbers differently and mixes tokens; view(B, T, H, "
                "Hd) first, then swap.",
            ),
            Mistake(
                "when the width is cut by head size first",
                {
                    "view(B, T, self.num_heads, self.head_dim).transpose(1, 2)": "view(B, T, self.head_dim, "
                    "self.num_heads).permute(0, 3, 1, 2)",
                },
                "head h holds the numbers h * Hd to (h + 1) * Hd - 1: heads first, then their numbers.",
            ),
            Mistake(
                "with values from the keys",
                {"value = self.v_proj": "value = self.k_proj"},
                "v_proj makes the values.",
            ),
            Mistake(
                "with queries and keys swapped",
                {"query @ key.transpose(2, 3)": "key @ query.transpose(2, 3)"},
                "rows are queries, columns are keys.",
            ),
            Mistake(
                "with float32 left over from softmax",
                {".to(query.dtype)": ""},
                "weights computed in float32 have to go back to the dtype of the values.",
            ),
            Mistake(
                "with biases",
                {"bias=False": "bias=True"},
                "the decoder has none: the checkpoint holds weights only.",
            ),
            Mistake(
                "with as many key heads as heads",
                {"self.num_key_value_heads * self.head_dim, bias": "self.num_heads * self.head_dim, bias"},
                "keys and values have K heads, fewer than the queries.",
            ),
            Mistake(
                "with D / H as the size of a head",
                {
                    "self.head_dim = config.head_dim": "self.head_dim = config.hidden_size // "
                    "config.num_attention_heads"
                },
                "H * Hd need not be D: config.head_dim says how large a head is.",
            ),
            Mistake(
                "with a residual",
                {"return self.o_proj(": "return hidden_states + self.o_proj("},
                "the residual belongs to the block around it, GemmaDecoderLayer.",
            ),
        ],
        right_ways=[
            RightWay(
                "scaled_dot_product_attention",
                """
def forward(self, hidden_states, attention_mask, position_embeddings, kv_cache):
    q, k, v = (p(hidden_states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
               for p in (self.q_proj, self.k_proj, self.v_proj))
    q, k = apply_rotary_pos_emb(q, k, *position_embeddings)
    k, v = kv_cache.update(k, v, self.layer_idx)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask, enable_gqa=True)
    return self.o_proj(out.transpose(1, 2).flatten(2))
""",
            ),
            RightWay(
                "scaled_dot_product_attention on repeated heads",
                """
def forward(self, hidden_states, attention_mask, position_embeddings, kv_cache):
    B, T, _ = hidden_states.shape
    q = self.q_proj(hidden_states).reshape(B, T, -1, self.head_dim).permute(0, 2, 1, 3)
    k = self.k_proj(hidden_states).reshape(B, T, -1, self.head_dim).permute(0, 2, 1, 3)
    v = self.v_proj(hidden_states).reshape(B, T, -1, self.head_dim).permute(0, 2, 1, 3)
    cos, sin = position_embeddings[0].unsqueeze(1), position_embeddings[1].unsqueeze(1)
    q = q * cos + rotate_half(q) * sin
    k = k * cos + rotate_half(k) * sin
    k, v = kv_cache.update(k, v, layer_idx=self.layer_idx)
    r = self.num_heads // self.num_key_value_heads
    k, v = k.repeat_interleave(r, 1), v.repeat_interleave(r, 1)
    out = F.scaled_dot_product_attention(q, k, v, attention_mask, scale=1 / self.head_dim**0.5)
    return self.o_proj(out.permute(0, 2, 1, 3).reshape(B, T, -1))
""",
            ),
            RightWay(
                "einsum in groups, without copies",
                """
def forward(self, hidden_states, attention_mask, position_embeddings, kv_cache):
    B, T, _ = hidden_states.shape
    K, Hd = self.num_key_value_heads, self.head_dim
    q = self.q_proj(hidden_states).view(B, T, -1, Hd).transpose(1, 2) * Hd**-0.5
    k = self.k_proj(hidden_states).view(B, T, K, Hd).transpose(1, 2)
    v = self.v_proj(hidden_states).view(B, T, K, Hd).transpose(1, 2)
    q, k = apply_rotary_pos_emb(q, k, *position_embeddings)
    k, v = kv_cache.update(k, v, self.layer_idx)
    q = q.unflatten(1, (K, -1))
    scores = torch.einsum("bkrqd,bkld->bkrql", q, k).float()
    scores = torch.where(attention_mask[:, :, None], scores, -1e30)
    weights = torch.softmax(scores, -1).type_as(v)
    out = torch.einsum("bkrql,bkld->bqkrd", weights, v)
    return self.o_proj(out.reshape(B, T, -1))
""",
            ),
            RightWay(
                "a mask that is added, other names",
                """
def __init__(self, config, layer_idx):
    super().__init__()
    D, Hd = config.hidden_size, config.head_dim
    self.o_proj = nn.Linear(config.num_attention_heads * Hd, D, bias=False)
    self.v_proj = nn.Linear(D, config.num_key_value_heads * Hd, bias=False)
    self.k_proj = nn.Linear(D, config.num_key_value_heads * Hd, bias=False)
    self.q_proj = nn.Linear(D, config.num_attention_heads * Hd, bias=False)
    self.config, self.idx = config, layer_idx

def split(self, x):
    return x.unflatten(2, (-1, self.config.head_dim)).transpose(1, 2)

def forward(self, hidden_states, attention_mask, position_embeddings, kv_cache):
    q, k, v = (self.split(f(hidden_states)) for f in (self.q_proj, self.k_proj, self.v_proj))
    q, k = apply_rotary_pos_emb(q, k, position_embeddings[0], position_embeddings[1])
    k, v = kv_cache.update(k, v, self.idx)
    k, v = repeat_kv(k, q.shape[1] // k.shape[1]), repeat_kv(v, q.shape[1] // v.shape[1])
    bias = torch.zeros(attention_mask.shape, dtype=q.dtype).masked_fill_(
        attention_mask.logical_not(), torch.finfo(q.dtype).min / 2)
    scores = (q @ k.mT).div(self.config.head_dim ** 0.5) + bias
    return self.o_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
""",
            ),
        ],
        compare="what is new next to the vision tower's Attention: four lines (rotate, cache, and repeat_kv "
        "twice) and the mask. Which of them could go, if nothing were cached?",
    ),
]
