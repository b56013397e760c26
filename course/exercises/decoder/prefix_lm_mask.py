"""The exercise prefix_lm_mask of decoder_0.py."""

import torch

from course.exercise import Case, Exercise, Mistake, RightWay


def masks(attention_mask, token_type_ids):
    """Inputs of prefix_lm_mask, from rows that are drawn as "00111"."""
    return lambda: {
        "attention_mask": torch.tensor([[int(x) for x in row] for row in attention_mask]),
        "token_type_ids": torch.tensor([[int(x) for x in row] for row in token_type_ids]),
    }


# Other right ways.


def with_a_triangle(attention_mask, token_type_ids):
    B, L = attention_mask.shape
    T = token_type_ids.shape[1]
    mask = torch.ones(T, L, dtype=torch.bool, device=attention_mask.device).tril(diagonal=L - T)
    mask = mask.repeat(B, 1, 1)
    mask[:, :, L - T :] |= (token_type_ids == 0)[:, None]
    return (mask & (attention_mask != 0)[:, None]).unsqueeze(1)


def numbers_of_blocks_as_big_vision_does(attention_mask, token_type_ids):
    T, L = token_type_ids.shape[1], attention_mask.shape[1]
    steps = token_type_ids.cumsum(dim=1)
    keys = torch.cat([torch.full_like(attention_mask[:, : L - T], -1), steps], dim=1)
    mask = keys[:, None, :] <= steps[:, :, None]
    return (mask * attention_mask[:, None, :]).bool()[:, None]


def a_loop(attention_mask, token_type_ids):
    (B, T), L = token_type_ids.shape, attention_mask.shape[1]
    mask = torch.zeros(B, 1, T, L, dtype=torch.bool, device=attention_mask.device)
    for q in range(T):
        for k in range(L):
            seen = k <= q + L - T
            if k >= L - T:
                seen = (token_type_ids[:, k - (L - T)] == 0) | seen
            mask[:, 0, q, k] = attention_mask[:, k].bool() & seen
    return mask


def what_is_forbidden_inverted(attention_mask, token_type_ids):
    T, L = token_type_ids.shape[1], attention_mask.shape[1]
    device = attention_mask.device
    later = torch.arange(L, device=device)[None, :] > torch.arange(L - T, L, device=device)[:, None]
    suffix = torch.ones_like(attention_mask, dtype=torch.bool)
    suffix[:, L - T :] = token_type_ids != 0
    forbidden = (later[None] & suffix[:, None]) | (attention_mask == 0)[:, None]
    return ~forbidden[:, None]


EXERCISE = Exercise(
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
        Case("padding on the right, as the makers train", masks(["111111", "111100"], ["000111", "001100"])),
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
            {
                "not_later[None] | is_prefix[:, None, :]": ("not_later[None].expand(len(is_prefix), -1, -1)"),
            },
            "picture and prompt see each other in both directions.",
        ),
        Mistake(
            "with a causal prefix once something is cached",
            {"F.pad(token_type_ids == 0, (L - T, 0))": "F.pad((token_type_ids == 0) & (L == T), (L - T, 0))"},
            "new tokens can be prefix, too, after others that are cached.",
        ),
        Mistake(
            "with a suffix that sees what comes next",
            {
                "not_later[None] | is_prefix[:, None, :]": (
                    "torch.ones_like(not_later[None] | is_prefix[:, None, :])"
                ),
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
                "positions[None, :] <= positions[L - T:, None]": (
                    "positions[None, :] >= positions[L - T:, None]"
                ),
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
            "the queries are the last T of the L tokens: with a cache, the first of them is number L - T.",
        ),
        Mistake(
            "when the row is off by one with a cache",
            {"positions[L - T:, None]": "(positions[:T, None] + max(L - T - 1, 0))"},
            "the first of the T queries is number L - T.",
        ),
        Mistake(
            "when a query sees one token of the future",
            {
                "positions[None, :] <= positions[L - T:, None]": (
                    "positions[None, :] <= positions[L - T:, None] + 1"
                ),
            },
            "not later than the query.",
        ),
        Mistake(
            "when prefix queries see everything",
            {
                "is_prefix = F.pad(token_type_ids == 0, (L - T, 0))": ("is_prefix = token_type_ids == 0"),
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
                "is_prefix[:, None, :]": (
                    "(F.pad(token_type_ids, (L - T, 0), value=-1)[:, None, :] == token_type_ids[:, :, None])"
                ),
            },
            "that holds for the prefix; in the suffix it would show what comes next.",
        ),
        Mistake(
            "when padding is hidden by row instead of by column",
            {"attention_mask[:, None, :].bool()": "attention_mask[:, L - T:, None].bool()"},
            "it is the key (a column) that must not be padding.",
        ),
        Mistake(
            "with padding that sees nothing",
            {
                "attention_mask[:, None, :].bool()": (
                    "attention_mask[:, None, :].bool() & attention_mask[:, L - T:, None].bool()"
                )
            },
            "a row of padding is like any other: nobody reads what comes out there, and a query without any "
            "key would have no weights to add up.",
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
            also=(
                {"return allowed[:, None]": "return allowed[:, None].float()"},
                {"return allowed[:, None]": "return allowed[:, None].int()"},
            ),
        ),
        Mistake(
            "with 0 and a very low number, to be added to the scores",
            {
                "return allowed[:, None]": (
                    "return torch.zeros(allowed[:, None].shape, device=allowed.device).masked_fill("
                    "~allowed[:, None], float('-inf'))"
                ),
            },
            "attention takes it as bool: True where the query may look.",
            also=(
                *(
                    {
                        "return allowed[:, None]": (
                            "return torch.zeros(allowed[:, None].shape, device=allowed.device).masked_fill("
                            f"~allowed[:, None], {lowest})"
                        )
                    }
                    for lowest in ("-1e9", "-1e4", "-1e10", "torch.finfo(torch.float32).min")
                ),
            ),
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
        RightWay("with a triangle", with_a_triangle),
        RightWay("numbers of blocks, as big_vision does", numbers_of_blocks_as_big_vision_does),
        RightWay("a loop", a_loop),
        RightWay("what is forbidden, inverted", what_is_forbidden_inverted),
    ],
    compare="that it is one line of logic, (not later or prefix) and not padding, for a prompt, for "
    "training and for each decoding step.",
)
