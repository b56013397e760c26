"""The exercise KVCache.num_items of decoder_0.py."""

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.decoder.inputs import cache, filling
from course.exercises.inputs import randn

# Other right ways.


def from_the_values_of_the_last_layer(self):
    if len(self.value_cache) == 0:
        return 0
    return self.value_cache[-1].size(-2)


def the_largest_of_all(self):
    return max([key.shape[2] for key in self.key_cache], default=0)


EXERCISE = Exercise(
    name="KVCache.num_items",
    file="decoder",
    minutes=5,
    difficulty="easy",
    why="In the mask, a new token's column comes after those of all tokens in the cache: how many are they?",
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
                "self.key_cache[0].shape[2] if self.key_cache else 0": (
                    "sum(key.shape[2] for key in self.key_cache)"
                ),
            },
            "each layer keeps the same tokens, so one of them is enough.",
        ),
        Mistake(
            "with None for an empty cache",
            {" if self.key_cache else 0": " if self.key_cache else None"},
            "the new tokens' columns begin at this number, so it has to be 0.",
        ),
        Mistake(
            "with the shape instead of the number",
            {".shape[2]": ".shape"},
            "one axis of it counts the tokens.",
        ),
    ],
    right_ways=[
        RightWay("from the values of the last layer", from_the_values_of_the_last_layer),
        RightWay("the largest of all", the_largest_of_all),
    ],
    compare="nothing is counted: the length is read off the tensors, so it cannot go out of step with them.",
)
