"""The exercise learning_rate of training_0.py."""

from course.exercise import Case, Exercise, Mistake, RightWay


def rates(learning_rate, num_steps, peak):
    return [learning_rate(step, num_steps, peak) for step in range(num_steps)]


# Other right ways.


def by_the_smaller_of_two(step, num_steps, peak):
    w = max(int(0.05 * num_steps + 1e-9), 1)
    part = max(0.0, (step - w) / max(1, num_steps - w))
    return min((step + 1) / w, 1.0) * peak * math.cos(math.pi * part / 2) ** 2  # noqa: F821


def with_if_and_else(step, num_steps, peak):
    warmup = num_steps // 20 or 1
    if step >= warmup:
        angle = (step - warmup) / (num_steps - warmup) * math.pi  # noqa: F821
        return 0.5 * peak + 0.5 * peak * math.cos(angle)  # noqa: F821
    else:
        return (1 + step) * (peak / warmup)


COSINE = "(1 + math.cos(math.pi * (step - warmup) / (num_steps - warmup))) / 2"

EXERCISE = Exercise(
    name="learning_rate",
    file="training",
    minutes=10,
    difficulty="easy",
    why="The first steps know little, and the last ones should settle: one rate fits neither.",
    steps=[
        "Compute how many steps warm up: a twentieth of all, rounded down, and at least one.",
        "During these, rise in equal steps to the peak: the last of them has it.",
        "After them, fall along half a wave of a cosine, from the peak towards 0.",
    ],
    hints=(
        "What is the rate at step 0? If it were 0, the first batch would be read for nothing.",
        "The part of the way that is done after warm-up goes from 0 to 1: (step - w) / (num_steps - w). "
        "cos(pi * part) goes from 1 to -1, and a rate from 1 to 0.",
        "peak * (step + 1) / w before w; peak * (1 + math.cos(math.pi * part)) / 2 after.",
    ),
    cases=[
        Case("all of 40 steps", lambda: {"num_steps": 40, "peak": 3.0}, call=rates),
        Case("all of 7 steps", lambda: {"num_steps": 7, "peak": 5.0}, call=rates),
        Case("all of 115 steps", lambda: {"num_steps": 115, "peak": 2.0}, call=rates),
        Case("all of 45 steps", lambda: {"num_steps": 45, "peak": 1.0}, call=rates),
        Case("all of 190 steps", lambda: {"num_steps": 190, "peak": 1.5}, call=rates),
        Case("a single step", lambda: {"num_steps": 1, "peak": 4.0}, call=rates),
    ],
    mistakes=[
        Mistake(
            "when it begins at 0",
            {"(step + 1) / warmup": "step / warmup"},
            "the first step would change nothing.",
        ),
        Mistake(
            "without the warm-up",
            {"if step < warmup:": "if False:", "(step - warmup) / (num_steps - warmup)": "step / num_steps"},
            "the optimizer's averages know little at first, so it begins with small steps.",
        ),
        Mistake(
            "when warm-up does not reach the peak",
            {"(step + 1) / warmup": "(step + 1) / (warmup + 1)"},
            "the last step of the warm-up has the peak.",
        ),
        Mistake(
            "when the cosine begins before the warm-up",
            {"(step - warmup) / (num_steps - warmup)": "step / num_steps"},
            "its way begins where the warm-up ends; otherwise the rate jumps there.",
        ),
        Mistake(
            "when the cosine is as long as all steps",
            {"(step - warmup) / (num_steps - warmup)": "(step - warmup) / num_steps"},
            "it ends with the last step: num_steps - w steps are left for it.",
        ),
        Mistake(
            "when it falls in a straight line",
            {COSINE: "(1 - (step - warmup) / (num_steps - warmup))"},
            "a cosine stays high for a while and falls gently at the end.",
        ),
        Mistake(
            "with the cosine alone",
            {COSINE: "math.cos(math.pi * (step - warmup) / (num_steps - warmup))"},
            "it goes down to -1, and a negative rate would unlearn: (1 + cos) / 2 goes from 1 to 0.",
        ),
        Mistake(
            "with a quarter of a wave",
            {COSINE: "math.cos(math.pi / 2 * (step - warmup) / (num_steps - warmup))"},
            "that falls steepest at the end; (1 + cos(pi * part)) / 2 settles gently.",
        ),
        Mistake(
            "when it rises",
            {"(1 + math.cos(": "(1 - math.cos("},
            "it falls after warm-up: 1 + cos, which is 2 at first and 0 at the end.",
        ),
        Mistake(
            "without the 1 / 2",
            {COSINE: COSINE.removesuffix(" / 2")},
            "1 + cos begins at 2, and the rate at twice the peak.",
        ),
        Mistake(
            "with a tenth of the steps as warm-up",
            {"num_steps * 5 // 100": "num_steps // 10"},
            "it is a twentieth, 5 %.",
        ),
        Mistake(
            "with the warm-up rounded up",
            {"num_steps * 5 // 100": "math.ceil(num_steps * 5 / 100)"},
            "it is rounded down.",
        ),
        Mistake(
            "with the warm-up rounded to the nearest",
            {"num_steps * 5 // 100": "round(num_steps * 5 / 100)"},
            "it is rounded down.",
        ),
        Mistake(
            "when the last step is at 0",
            {"(num_steps - warmup)": "max(1, num_steps - warmup - 1)"},
            "a step at 0 changes nothing; 0 would come after the last one.",
        ),
        Mistake(
            "without the peak",
            {"return peak * ": "return "},
            "these are parts of the peak, which is multiplied by them.",
        ),
    ],
    right_ways=[
        RightWay("by the smaller of two", by_the_smaller_of_two),
        RightWay("with if and else", with_if_and_else),
    ],
    compare="that the rate follows from the step alone. Why does that matter to a training that was "
    "interrupted and goes on?",
)
