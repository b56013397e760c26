"""The exercise KVCache.update of decoder_0.py."""

import torch

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.decoder.inputs import bf16, filling
from course.exercises.inputs import randn


def new_tokens(T: int, **options) -> dict:
    return {"key": randn(2, 3, T, 10, **options), "value": randn(2, 3, T, 10, seed=1, **options)}


def cached_tokens(T: int, **options) -> dict:
    return {
        "cached_key": randn(2, 3, T, 10, seed=2, **options),
        "cached_value": randn(2, 3, T, 10, seed=3, **options),
    }


# Known mistakes that take whole functions.


def when_nothing_is_kept(self, key, value, layer_idx):
    if layer_idx < len(self.key_cache):
        key = torch.cat([self.key_cache[layer_idx], key], dim=2)
        value = torch.cat([self.value_cache[layer_idx], value], dim=2)
    return key, value


def when_the_first_tokens_alone_are_kept(self, key, value, layer_idx):
    if layer_idx == len(self.key_cache):
        self.key_cache.append(key)
        self.value_cache.append(value)
        return key, value
    key = torch.cat([self.key_cache[layer_idx], key], dim=2)
    value = torch.cat([self.value_cache[layer_idx], value], dim=2)
    return key, value


def with_every_call_as_a_new_layer(self, key, value, layer_idx):
    self.key_cache.append(key)
    self.value_cache.append(value)
    return self.key_cache[layer_idx], self.value_cache[layer_idx]


def with_one_store_for_all_layers(self, key, value, layer_idx):
    if self.key_cache:
        key = torch.cat([self.key_cache[0], key], dim=2)
        value = torch.cat([self.value_cache[0], value], dim=2)
    self.key_cache[:1], self.value_cache[:1] = [key], [value]
    return key, value


def with_the_old_and_the_new_side_by_side_in_a_list(self, key, value, layer_idx):
    if layer_idx == len(self.key_cache):
        self.key_cache.append([])
        self.value_cache.append([])
    self.key_cache[layer_idx].append(key)
    self.value_cache[layer_idx].append(value)
    return self.key_cache[layer_idx], self.value_cache[layer_idx]


def written_into(self, key, value, layer_idx):
    if layer_idx == len(self.key_cache):
        self.key_cache.append(key)
        self.value_cache.append(value)
        return key, value
    for store, new in ((self.key_cache, key), (self.value_cache, value)):
        kept = store[layer_idx].clone()
        store[layer_idx].zero_()
        store[layer_idx] = torch.cat([kept, new], dim=2)
    return self.key_cache[layer_idx], self.value_cache[layer_idx]


# Other right ways.


def joined_with_nothing_at_first(self, key, value, layer_idx):
    while len(self.key_cache) <= layer_idx:
        self.key_cache.append(key[:, :, :0])
        self.value_cache.append(value[:, :, :0])
    self.key_cache[layer_idx] = torch.cat((self.key_cache[layer_idx], key), -2)
    self.value_cache[layer_idx] = torch.cat((self.value_cache[layer_idx], value), -2)
    return self.key_cache[layer_idx], self.value_cache[layer_idx]


def with_an_exception(self, key, value, layer_idx):
    try:
        key = torch.concat([self.key_cache[layer_idx], key], dim=2)
        value = torch.concat([self.value_cache[layer_idx], value], dim=2)
    except IndexError:
        self.key_cache += [key.clone()]
        self.value_cache += [value.clone()]
    self.key_cache[layer_idx], self.value_cache[layer_idx] = key, value
    return [key, value]


def one_loop_for_both_lists(self, key, value, layer_idx):
    for store, new in ((self.key_cache, key), (self.value_cache, value)):
        old = store[layer_idx : layer_idx + 1]
        store[layer_idx : layer_idx + 1] = [torch.cat([*old, new], dim=2)]
    return self.key_cache[layer_idx], self.value_cache[layer_idx]


EXERCISE = Exercise(
    name="KVCache.update",
    file="decoder",
    minutes=15,
    difficulty="medium",
    why="The picture's 256 tokens are read once; every later token finds their keys and values here.",
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
            lambda: new_tokens(7),
            call=lambda made, key, value: {
                "returned": (*made.update(key, value, 0), *made.update(key * 2, value * 2, 0))
            },
            training=True,
        ),
        Case(
            "bfloat16, the first tokens of the first layer",
            lambda: new_tokens(3, dtype=bf16),
            call=lambda made, key, value: {"returned": made.update(key, value, 0), "cache": made},
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
            "when a new layer is assigned to a place that the list does not have yet",
            {
                "self.key_cache.append(key)": "self.key_cache[layer_idx] = key",
                "self.value_cache.append(value)": "self.value_cache[layer_idx] = value",
            },
            "an index only reaches what is there already: append makes the place.",
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
            when_nothing_is_kept,
            "what is returned has to be in the cache too, for the next token.",
        ),
        Mistake(
            "when the first tokens alone are kept",
            when_the_first_tokens_alone_are_kept,
            "the joined tensors have to take the place of the old ones in the lists.",
        ),
        Mistake(
            "with every call as a new layer",
            with_every_call_as_a_new_layer,
            "a layer has one entry, which grows.",
        ),
        Mistake(
            "with one store for all layers",
            with_one_store_for_all_layers,
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
                "return self.key_cache[layer_idx], self.value_cache[layer_idx]": (
                    "return self.value_cache[layer_idx], self.key_cache[layer_idx]"
                ),
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
                "[self.value_cache[layer_idx], value]": ("[self.value_cache[layer_idx], value.detach()]"),
            },
            "training goes through the cache too, and would not reach k_proj and v_proj.",
        ),
        Mistake(
            "with the first tokens kept in float32",
            {
                "self.key_cache.append(key)": "self.key_cache.append(key.float())",
                "self.value_cache.append(value)": "self.value_cache.append(value.float())",
            },
            "keys and values are kept in their own dtype: float32 takes twice the memory.",
        ),
        Mistake(
            "with the cached tensors written into",
            written_into,
            "a tensor in the cache may be in use elsewhere: torch.cat makes a new one.",
        ),
        Mistake(
            "with the old and the new side by side in a list",
            with_the_old_and_the_new_side_by_side_in_a_list,
            "attention needs one tensor, [B, K, L, Hd].",
        ),
        Mistake(
            "without a return",
            {"return self.key_cache[layer_idx], self.value_cache[layer_idx]": "return None"},
            "attention needs what is returned.",
        ),
    ],
    right_ways=[
        RightWay("joined with nothing at first", joined_with_nothing_at_first),
        RightWay("with an exception", with_an_exception),
        RightWay("one loop for both lists", one_loop_for_both_lists),
    ],
    compare="torch.cat copies all earlier keys and values for every new token. Allocating the space "
    "beforehand avoids that, at the price of knowing how long the answer gets.",
)
