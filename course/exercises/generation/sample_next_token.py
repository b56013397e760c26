"""The exercise sample_next_token of generation_0.py."""

import torch

from course.exercise import Case, Exercise, Mistake, RightWay

# Drawing has many right ways, which do not draw the same tokens. So the cases look at what is true of
# all of them: which tokens can come at all, and what the generator decides.


def once(sample_next_token, logits, temperature, top_p=1.0):
    return many(sample_next_token, logits, temperature, top_p, times=1)[0]


def many(sample_next_token, logits, temperature, top_p=1.0, seed=3, times=60):
    """Tokens that are drawn one after the other; PyTorch's own generator begins alike each time."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return [sample_next_token(logits, temperature, top_p, generator) for _ in range(times)]


def which(sample_next_token, logits, temperature, top_p):
    """Those that come in sixty draws, in order. (Each has a chance of a fifth or more.)"""
    drawn = many(sample_next_token, logits, temperature, top_p)
    return sorted({int(token) if isinstance(token, torch.Tensor) else token for token in drawn})


def how_often(sample_next_token, logits, temperature):
    """Of a thousand draws, each token's share is within four standard deviations of what it should be."""
    tokens = many(sample_next_token, logits, temperature, times=1000)
    shares = torch.bincount(torch.tensor([int(token) for token in tokens]), minlength=len(logits)) / 1000
    expected = (logits.double() / temperature).softmax(dim=0)
    spread = (expected * (1 - expected) / 1000).sqrt()
    return {
        "a token comes as often as softmax(logits / temperature) says": bool(
            ((shares - expected).abs() < 4 * spread).all()
        )
    }


def seeds(sample_next_token, logits, temperature):
    """What a seed decides, and what it does not."""
    before = torch.random.get_rng_state()
    first, again, other = (
        many(sample_next_token, logits, temperature, seed=seed, times=20) for seed in (3, 3, 4)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        state = torch.random.get_rng_state()
        sample_next_token(logits, temperature, 1.0, torch.Generator().manual_seed(3))
        untouched = torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(before, torch.random.get_rng_state())
    return {
        "the same seed, the same tokens": first == again,
        "another seed, other tokens": first != other,
        "one token after another, not always the same": len(set(first)) > 1,
        "PyTorch's own generator as it was": untouched,
    }


def logits(*values: float, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype)


# Known mistakes that take whole functions.


def with_top_p_before_the_temperature(logits, temperature, top_p, generator):
    if temperature == 0:
        return int(logits.argmax())
    kept = keep_top_p(logits.cpu().double().softmax(dim=-1), top_p)  # noqa: F821
    logits = kept.log()
    probabilities = ((logits - logits.max()) / temperature).softmax(dim=-1)
    return int(torch.multinomial(probabilities, 1, generator=generator))


def with_the_rank_in_place_of_the_token(logits, temperature, top_p, generator):
    if temperature == 0:
        return int(logits.argmax())
    logits = logits.cpu().double()
    in_order = ((logits - logits.max()) / temperature).softmax(dim=-1).sort(descending=True).values
    return int(torch.multinomial(keep_top_p(in_order, top_p), 1, generator=generator))  # noqa: F821


# Other right ways.


def by_where_a_random_number_falls(logits, temperature, top_p, generator):
    if not temperature:
        return logits.argmax().item()
    scaled = (logits.to("cpu", torch.float64) - logits.max().item()) / temperature
    sums = keep_top_p(torch.softmax(scaled, 0), top_p).cumsum(0)  # noqa: F821
    at = torch.rand((), generator=generator, dtype=torch.float64) * sums[-1]
    return int((sums <= at).sum())


def with_gumbel_noise(logits, temperature, top_p, generator):
    if temperature == 0:
        return max(range(len(logits)), key=lambda token: float(logits[token]))
    logits = logits.detach().cpu().to(torch.float64)
    weights = keep_top_p(((logits - logits.amax()) / temperature).softmax(-1), top_p)  # noqa: F821
    uniform = torch.rand(len(logits), generator=generator, dtype=torch.float64)
    return (weights.log() - (-uniform.log()).log()).argmax().item()


def greedy_last(logits, temperature, top_p, generator):
    if temperature > 0:
        logits = logits.cpu().double()
        logits = (logits - logits.max()).div(temperature)
        probabilities = logits.exp() / logits.exp().sum()
        weights = keep_top_p(probabilities, top_p)  # noqa: F821
        return torch.multinomial(weights, num_samples=1, generator=generator).item()
    return logits.argmax(dim=-1).item()


EXERCISE = Exercise(
    name="sample_next_token",
    file="generation",
    minutes=15,
    difficulty="medium",
    why="Boxes and counts have one right answer, so they are asked greedily; a caption may be drawn.",
    builds_on=("keep_top_p",),
    steps=[
        "At temperature 0, return the id of the largest logit.",
        "Otherwise take the logits to the CPU and to float64.",
        "Take the largest off, divide by the temperature, and make probabilities of them.",
        "Cut off the tail, and draw one token with the generator.",
        "Return its id as an int.",
    ],
    hints=(
        "Which comes first, the temperature or the tail? The formula of the docstring says so, from the "
        "inside out.",
        "softmax does not change if the same number is taken off all logits, and then the largest is 0, "
        "which no temperature can make infinite. torch.multinomial draws, and takes a generator.",
        "probabilities = ((logits - logits.max()) / temperature).softmax(dim=-1); "
        "int(torch.multinomial(keep_top_p(probabilities, top_p), 1, generator=generator)).",
    ),
    cases=[
        Case(
            "temperature 0",
            lambda: {"logits": logits(0.5, -1.0, 2.5, 2.0, 1.0), "temperature": 0.0},
            call=once,
        ),
        Case(
            "temperature 0, where all are below 0 and the last is the likeliest",
            lambda: {"logits": logits(-3.0, -1.0, -2.0, -0.5), "temperature": 0.0},
            call=once,
        ),
        Case(
            "a very low temperature, where the likeliest is certain",
            lambda: {"logits": logits(0.5, -1.0, 2.0, 2.5, 1.0, 0.0), "temperature": 0.01},
            call=once,
        ),
        Case(
            "sixty tokens at a high temperature, where all four have their chance",
            lambda: {"logits": logits(3.0, 9.0, 0.0, 6.0), "temperature": 90.0, "top_p": 1.0},
            call=which,
        ),
        Case(
            "the tail cut off, at a temperature that evens out",
            lambda: {"logits": logits(0.0, 3.0, 6.0, 9.0), "temperature": 60.0, "top_p": 0.5},
            call=which,
        ),
        Case(
            "the tail cut off, at a temperature that sharpens",
            lambda: {"logits": logits(0.0, 0.1, 0.3, 0.2, -0.1), "temperature": 0.01, "top_p": 0.95},
            call=which,
        ),
        Case(
            "a thousand tokens at temperature 2.5",
            lambda: {"logits": logits(0.0, 5.0, 2.0), "temperature": 2.5},
            call=how_often,
        ),
        Case(
            "the same seed twice, and another one",
            lambda: {"logits": logits(0.5, 1.0, 0.0, 0.7, 0.2, 0.1, 0.3), "temperature": 1.0},
            call=seeds,
        ),
        Case(
            "a temperature of 1e-38",
            lambda: {"logits": logits(1.0, 20.0, 30.0), "temperature": 1e-38},
            call=once,
        ),
        Case(
            "a temperature of 1e-305",
            lambda: {"logits": logits(1.0, 30.0, 20.0), "temperature": 1e-305},
            call=once,
        ),
        Case(
            "a temperature of 1e-310",
            lambda: {"logits": logits(20.0, 1.0, 30.0), "temperature": 1e-310},
            call=once,
        ),
        Case(
            "logits in bfloat16",
            lambda: {
                "logits": logits(0.0, 3.0, 6.0, 9.0, dtype=torch.bfloat16),
                "temperature": 60.0,
                "top_p": 0.5,
            },
            call=which,
        ),
    ],
    mistakes=[
        Mistake(
            "without the greedy way at temperature 0",
            {"if temperature == 0:": "if False:"},
            "nothing can be divided by 0; what it stands for is the likeliest token.",
        ),
        Mistake(
            "when the likeliest token is always taken",
            {"if temperature == 0:": "if True:"},
            "above temperature 0 one of those that are left is drawn, by its probability.",
        ),
        Mistake(
            "when the logits are multiplied by the temperature",
            {"/ temperature": "* temperature"},
            "they are divided: a low temperature makes the differences larger.",
        ),
        Mistake(
            "without the temperature",
            {" / temperature": ""},
            "it divides the logits before the softmax.",
        ),
        Mistake(
            "without top_p",
            {"keep_top_p(probabilities, top_p)": "probabilities"},
            "the tail is cut off before the token is drawn.",
        ),
        Mistake(
            "with the tail cut off before the temperature",
            with_top_p_before_the_temperature,
            "which tokens reach top_p depends on the temperature, so that comes first.",
        ),
        Mistake(
            "without the generator",
            {", generator=generator": ""},
            "PyTorch's own generator draws then, and --seed has no effect.",
        ),
        Mistake(
            "with a new generator for each token",
            {"generator=generator": "generator=torch.Generator().manual_seed(0)"},
            "the one that is given goes on from token to token; a new one draws the same again and again.",
            also=({"generator=generator": "generator=torch.Generator()"},),
        ),
        Mistake(
            "with the place in order of likelihood in place of the token",
            with_the_rank_in_place_of_the_token,
            "what is drawn has to be the token's id.",
        ),
        Mistake(
            "in float32, and with the largest logit left in",
            {"logits.cpu().double()": "logits.cpu().float()", "(logits - logits.max())": "logits"},
            "30 / 1e-38 is infinite in float32, and infinity less infinity is NaN.",
        ),
        Mistake(
            "with the largest logit left in",
            {"(logits - logits.max())": "logits"},
            "divided by a very small temperature it is infinite, in float64 as well.",
        ),
        Mistake(
            "in float32",
            {"logits.cpu().double()": "logits.cpu().float()"},
            "1e-305 is 0 in float32, and 0 / 0 is NaN.",
        ),
        Mistake(
            "when a tensor is returned",
            {
                "int(logits.argmax())": "logits.argmax()",
                "int(torch.multinomial(keep_top_p(probabilities, top_p), 1, generator=generator))": (
                    "torch.multinomial(keep_top_p(probabilities, top_p), 1, generator=generator)"
                ),
            },
            "the id is a plain int: it is compared with `<eos>` and put into lists.",
        ),
    ],
    right_ways=[
        RightWay("by where a random number falls", by_where_a_random_number_falls),
        RightWay("with Gumbel noise", with_gumbel_noise),
        RightWay("greedy last", greedy_last),
    ],
    compare="what is drawn from: probabilities in the order of the vocabulary. If they were sorted first, "
    "what could the last bit of a logit do to the token that a seed draws?",
)
