"""The exercise generate of generation_0.py."""

import math

import torch

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.generation.inputs import EOS, VOCABULARY, SmallModel, batch


def answered(generate, ends, batch, max_tokens, broken_at=-1, broken=(), **options):
    """The tokens of each step, and how the model was called."""
    model = SmallModel(ends, broken_at, broken)
    steps = [list(tokens) for tokens in generate(model, batch, EOS, max_tokens, **options)]
    return {"steps": steps, "calls of the model": model.calls}


def begun(generate, ends, batch, max_tokens):
    """How far the model is when the first tokens are there."""
    model = SmallModel(ends)
    first = next(iter(generate(model, batch, EOS, max_tokens)))
    return {"first tokens": list(first), "calls of the model": len(model.calls)}


ONE, OTHER, SHORT = [5, 5, 2, 9, 3], [5, 5, 2, 8, 3], [5, 5, 2]


# Known mistakes that take whole functions.


@torch.inference_mode()
def when_all_is_read_again_at_each_step(
    model, batch, eos_token_id, max_tokens, temperature=0.0, top_p=1.0, seed=0
):
    batch = dict(batch)
    B = len(batch["input_ids"])
    generators = [torch.Generator().manual_seed(seed) for _ in range(B)]
    finished = [False] * B
    for _ in range(max_tokens):
        logits = model(**batch, logits_to_keep=1)["logits"][:, -1]
        if not logits.isfinite().all():
            raise FloatingPointError("the model's logits are not finite")
        tokens = [
            sample_next_token(logits[row], temperature, top_p, generators[row])  # noqa: F821
            for row in range(B)
        ]
        yield [None if finished[row] else tokens[row] for row in range(B)]
        finished = [finished[row] or tokens[row] == eos_token_id for row in range(B)]
        if all(finished):
            return
        new = torch.tensor(tokens, device=logits.device)[:, None]
        for name, more in (("input_ids", new), ("attention_mask", torch.ones_like(new))):
            batch[name] = torch.cat([batch[name], more], dim=1)


@torch.inference_mode()
def with_one_call_of_the_model_too_many(
    model, batch, eos_token_id, max_tokens, temperature=0.0, top_p=1.0, seed=0
):
    B = len(batch["input_ids"])
    generators = [torch.Generator().manual_seed(seed) for _ in range(B)]
    attention_mask = batch["attention_mask"]
    finished = [False] * B
    output = model(**batch, logits_to_keep=1)
    for _ in range(max_tokens):
        logits = output["logits"][:, -1]
        if not logits.isfinite().all():
            raise FloatingPointError("the model's logits are not finite")
        tokens = [
            sample_next_token(logits[row], temperature, top_p, generators[row])  # noqa: F821
            for row in range(B)
        ]
        yield [None if finished[row] else tokens[row] for row in range(B)]
        finished = [finished[row] or tokens[row] == eos_token_id for row in range(B)]
        new = torch.tensor(tokens, device=logits.device)[:, None]
        attention_mask = torch.cat([attention_mask, torch.ones_like(new)], dim=1)
        cache = output["kv_cache"]
        output = model(new, attention_mask=attention_mask, kv_cache=cache, logits_to_keep=1)
        if all(finished):
            return


def when_nothing_comes_before_the_end(
    model, batch, eos_token_id, max_tokens, temperature=0.0, top_p=1.0, seed=0
):
    B = len(batch["input_ids"])
    generators = [torch.Generator().manual_seed(seed) for _ in range(B)]
    attention_mask, finished, steps = batch["attention_mask"], [False] * B, []
    output = model(**batch, logits_to_keep=1)
    while True:
        logits = output["logits"][:, -1]
        if not logits.isfinite().all():
            raise FloatingPointError("the model's logits are not finite")
        tokens = [
            sample_next_token(logits[row], temperature, top_p, generators[row])  # noqa: F821
            for row in range(B)
        ]
        steps.append([None if finished[row] else tokens[row] for row in range(B)])
        finished = [finished[row] or tokens[row] == eos_token_id for row in range(B)]
        if all(finished) or len(steps) == max_tokens:
            return steps
        new = torch.tensor(tokens, device=logits.device)[:, None]
        attention_mask = torch.cat([attention_mask, torch.ones_like(new)], dim=1)
        cache = output["kv_cache"]
        output = model(new, attention_mask=attention_mask, kv_cache=cache, logits_to_keep=1)


# Other right ways.


@torch.inference_mode()
def with_eos_for_rows_that_have_ended(
    model, batch, eos_token_id, max_tokens, temperature=0.0, top_p=1.0, seed=0
):
    rows = range(batch["input_ids"].shape[0])
    generators, running, steps = {row: torch.Generator() for row in rows}, set(rows), 0
    for generator in generators.values():
        generator.manual_seed(seed)
    inputs, mask, cache = dict(batch), batch["attention_mask"], None
    while running and steps < max_tokens:
        output = model(**inputs, kv_cache=cache, logits_to_keep=1)
        cache, steps = output["kv_cache"], steps + 1
        tokens = []
        for row in rows:
            scores = output["logits"][row, -1]
            if not bool(torch.isfinite(scores).all()):
                raise FloatingPointError(f"row {row} has logits that are not finite")
            token = None
            if row in running:
                token = sample_next_token(scores, temperature, top_p, generators[row])  # noqa: F821
            tokens.append(token)
        yield tokens
        running -= {row for row in rows if tokens[row] == eos_token_id}
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)
        read = mask.new_tensor([[eos_token_id if token is None else token] for token in tokens])
        inputs = {"input_ids": read, "attention_mask": mask}


@torch.no_grad()
def with_the_loop_behind_the_first_token(
    model, batch, eos_token_id, max_tokens, temperature=0.0, top_p=1.0, seed=0
):
    generators = [torch.Generator().manual_seed(seed) for _ in batch["input_ids"]]

    def choose(logits):
        if not torch.isfinite(logits).all():
            raise FloatingPointError
        pairs = zip(logits.squeeze(1), generators, strict=True)
        return [sample_next_token(row, temperature, top_p, one) for row, one in pairs]  # noqa: F821

    out = model(logits_to_keep=1, **batch)
    tokens, mask = choose(out["logits"]), batch["attention_mask"].clone()
    ended = [token == eos_token_id for token in tokens]
    yield tokens
    for _ in range(max_tokens - 1):
        if all(ended):
            break
        new = torch.tensor(tokens, device=mask.device).unsqueeze(1)
        mask = torch.hstack([mask, mask.new_ones(len(mask), 1)])
        out = model(input_ids=new, attention_mask=mask, kv_cache=out["kv_cache"], logits_to_keep=1)
        tokens = choose(out["logits"])
        yield [None if end else token for end, token in zip(ended, tokens, strict=True)]
        ended = [end or token == eos_token_id for end, token in zip(ended, tokens, strict=True)]


EXERCISE = Exercise(
    name="generate",
    file="generation",
    minutes=40,
    difficulty="hard",
    why="The model says what may come next, once; an answer is this loop around it.",
    builds_on=("sample_next_token",),
    steps=[
        "Make a generator for each row, all with the seed, and let the model read the whole batch.",
        "At each step, look at the scores behind the last token; raise FloatingPointError if they are not "
        "finite.",
        "Choose a token for each row, and yield them, with None for a row that had ended before.",
        "Note which rows have written `<eos>`; stop when all have, or after max_tokens steps.",
        "Otherwise append a column of ones to the mask, and let the model read the chosen tokens alone, "
        "with the cache that it returned.",
    ],
    hints=(
        "What does the model need in the second call that it did not have in the first, and what is in "
        "the cache already? Count the calls for an answer of three tokens: there are three.",
        "Five things live from step to step: the mask, the model's last output, the generators, which "
        "rows have ended, and the tokens. A row's `<eos>` is yielded; only what comes after it is None.",
        'output = model(**batch, logits_to_keep=1); in the loop logits = output["logits"][:, -1]; after '
        "the yield and the check, input_ids = torch.tensor(tokens, device=logits.device)[:, None] and "
        'model(input_ids, attention_mask=..., kv_cache=output["kv_cache"], logits_to_keep=1).',
    ),
    cases=[
        Case(
            "one row, which ends at its fourth token",
            lambda: {"ends": (4,), "batch": batch(ONE), "max_tokens": 9},
            call=answered,
        ),
        Case(
            "one row, which is stopped after three tokens",
            lambda: {"ends": (None,), "batch": batch(ONE), "max_tokens": 3},
            call=answered,
        ),
        Case(
            "three rows, which end at different times",
            lambda: {"ends": (5, 2, 4), "batch": batch(ONE, OTHER, SHORT), "max_tokens": 9},
            call=answered,
        ),
        Case(
            "two rows, of which one never ends",
            lambda: {"ends": (2, None), "batch": batch(SHORT, ONE), "max_tokens": 6},
            call=answered,
        ),
        Case(
            "a single token",
            lambda: {"ends": (None, 1), "batch": batch(ONE, OTHER), "max_tokens": 1},
            call=answered,
        ),
        Case(
            "the first tokens, before the others are asked for",
            lambda: {"ends": (None, None), "batch": batch(ONE, OTHER), "max_tokens": 5},
            call=begun,
        ),
        Case(
            "drawn, two rows alike but for the picture, and a seed",
            lambda: {
                "ends": (None, None),
                "batch": batch(ONE, ONE),
                "max_tokens": 8,
                "temperature": 1.5,
                "top_p": 0.9,
                "seed": 11,
            },
            call=answered,
        ),
        Case(
            "a logit that is NaN at the third step",
            lambda: {
                "ends": (None,),
                "batch": batch(ONE),
                "max_tokens": 6,
                "broken_at": 2,
                "broken": (math.nan,),
            },
            call=answered,
        ),
        Case(
            "a logit that is minus infinity at the third step",
            lambda: {
                "ends": (None,),
                "batch": batch(ONE),
                "max_tokens": 6,
                "broken_at": 2,
                "broken": (-math.inf,),
            },
            call=answered,
        ),
        Case(
            "logits that are all NaN at the second step",
            lambda: {
                "ends": (None,),
                "batch": batch(ONE),
                "max_tokens": 6,
                "broken_at": 1,
                "broken": (math.nan,) * VOCABULARY,
            },
            call=answered,
        ),
    ],
    mistakes=[
        Mistake(
            "when all is read again at each step",
            when_all_is_read_again_at_each_step,
            "the picture and the prompt are in the cache: only the new tokens have to be read.",
        ),
        Mistake(
            "when the attention mask does not grow",
            {"attention_mask = torch.cat([attention_mask, torch.ones_like(input_ids)], dim=1)": "pass"},
            "it has a column for each token, those in the cache and the new one.",
        ),
        Mistake(
            "when the mask hides the new tokens",
            {"torch.ones_like": "torch.zeros_like"},
            "0 stands for padding; what the model wrote is read like the prompt.",
        ),
        Mistake(
            "without the cache",
            {'kv_cache=output["kv_cache"], ': ""},
            "the model keeps nothing by itself: the cache that it returned has to be given back.",
        ),
        Mistake(
            "when `<eos>` is not given out",
            {
                "[None if finished[row] else tokens[row] for row in range(B)]": (
                    "[None if finished[row] or tokens[row] == eos_token_id else tokens[row] "
                    "for row in range(B)]"
                )
            },
            "a row's `<eos>` is its last token; None comes after it.",
        ),
        Mistake(
            "when all stop with the first row that ends",
            {"if all(finished) or": "if any(finished) or"},
            "the others have more to say.",
        ),
        Mistake(
            "when a row goes on after its `<eos>`",
            {"None if finished[row] else tokens[row]": "tokens[row]"},
            "what a row writes after `<eos>` means nothing: None is given out for it.",
        ),
        Mistake(
            "when only the last token says whether a row has ended",
            {"finished[row] or tokens[row] == eos_token_id": "tokens[row] == eos_token_id"},
            "a row that has ended stays so, whatever is computed for it afterwards.",
        ),
        Mistake(
            "when it goes on to max_tokens",
            {"if all(finished) or step == max_tokens:": "if step == max_tokens:"},
            "nothing is left to do when all rows have ended.",
        ),
        Mistake(
            "with one generator for all rows",
            {
                "[torch.Generator().manual_seed(seed) for _ in range(B)]": (
                    "[torch.Generator().manual_seed(seed)] * B"
                )
            },
            "what a row draws would depend on its neighbors.",
        ),
        Mistake(
            "without the seed",
            {"torch.Generator().manual_seed(seed)": "torch.Generator()"},
            "a generator without one begins with a number of PyTorch's.",
        ),
        Mistake(
            "with another seed for each row",
            {"manual_seed(seed) for _ in": "manual_seed(seed + _) for _ in"},
            "the answer of a row is the same in any batch, at any place in it.",
        ),
        Mistake(
            "with one step too few",
            {"step == max_tokens": "step >= max_tokens - 1"},
            "max_tokens steps are given out, not one less.",
        ),
        Mistake(
            "with one step too many",
            {"range(1, max_tokens + 1)": "range(max_tokens + 1)"},
            "there are max_tokens steps, counted from 1.",
        ),
        Mistake(
            "with one call of the model too many",
            with_one_call_of_the_model_too_many,
            "whether it is over is known before the tokens are read.",
        ),
        Mistake(
            "with every position scored",
            {"model(**batch, logits_to_keep=1)": "model(**batch)"},
            "what follows the tokens of the prompt is known: only the last position is scored.",
        ),
        Mistake(
            "with the scores of the first position",
            {"model(**batch, logits_to_keep=1)": "model(**batch)", '["logits"][:, -1]': '["logits"][:, 0]'},
            "those say what follows the first token, an image token.",
        ),
        Mistake(
            "when the temperature is left out",
            {"temperature, top_p, generators[row]": "0, 1.0, generators[row]"},
            "how the token is chosen is up to the caller.",
        ),
        Mistake(
            "without a look at whether the logits are finite",
            {"if not logits.isfinite().all():": "if False:"},
            "NaN has no largest number, so argmax would return some token, and nobody would notice.",
        ),
        Mistake(
            "when a single finite logit is enough",
            {"logits.isfinite().all()": "logits.isfinite().any()"},
            "one that is NaN is enough to spoil argmax and softmax.",
        ),
        Mistake(
            "when infinity is let through",
            {"not logits.isfinite().all()": "logits.isnan().any()"},
            "a number that has overflowed is infinite, and means as little as NaN.",
        ),
        Mistake(
            "when nothing is given out before the end",
            when_nothing_comes_before_the_end,
            "yield gives each step out as it comes: an answer of the 3B takes seconds, and is read "
            "meanwhile.",
        ),
    ],
    right_ways=[
        RightWay("with `<eos>` for rows that have ended", with_eos_for_rows_that_have_ended),
        RightWay("with the loop behind the first token", with_the_loop_behind_the_first_token),
    ],
    compare="where the loop ends: between the yield and the next call of the model. How many calls are made "
    "for an answer of n tokens, `<eos>` included? And who pays for the rows that have ended?",
)
