"""The exercise add_image_tokens_to_prompt of text_image_token_processor_0.py."""

from course.exercise import Case, Exercise, Mistake, RightWay
from text_image_token_processor_1 import BOS_TOKEN, IMAGE_TOKEN, NEWLINE

# Other right ways.


def adding_the_pieces(prompt, num_image_tokens):
    return num_image_tokens * "<image>" + "<bos>" + prompt + "\n"


def joining_a_list(prompt, num_image_tokens):
    return "".join([IMAGE_TOKEN for _ in range(num_image_tokens)] + [BOS_TOKEN, prompt, NEWLINE])


EXERCISE = Exercise(
    name="add_image_tokens_to_prompt",
    file="text_image_token_processor",
    minutes=5,
    difficulty="easy",
    solved=True,
    why="The decoder reads only tokens: the picture needs placeholders, and the prompt its marks.",
    steps=[
        "Write as many image tokens as there are patches.",
        "After them write the token that begins a text, then the prompt, then a newline, with nothing "
        "in between.",
    ],
    hints=(
        "Four pieces, one after another; the names of the special ones are at the top of the file.",
        "A text times a number repeats it.",
        'f"{IMAGE_TOKEN * num_image_tokens}{BOS_TOKEN}{prompt}{NEWLINE}".',
    ),
    cases=[
        Case("a prompt, and 3 image tokens", lambda: {"prompt": "detect cat", "num_image_tokens": 3}),
        Case("an empty prompt", lambda: {"prompt": "", "num_image_tokens": 2}),
        Case(
            "spaces around the prompt, which belong to it",
            lambda: {"prompt": "  a cat ; a dog ", "num_image_tokens": 1},
        ),
        Case("capital letters", lambda: {"prompt": "What is on the Sign?", "num_image_tokens": 2}),
    ],
    mistakes=[
        Mistake(
            "with `<bos>` at the very start",
            {
                "{IMAGE_TOKEN * num_image_tokens}{BOS_TOKEN}": (
                    "{BOS_TOKEN}{IMAGE_TOKEN * num_image_tokens}"
                ),
            },
            "PaliGemma was trained with `<bos>` between picture and prompt.",
        ),
        Mistake(
            "without the newline",
            {"{NEWLINE}": ""},
            "the newline is part of the prompt: it marks where the answer begins.",
        ),
        Mistake("without `<bos>`", {"{BOS_TOKEN}": ""}, "`<bos>` comes before the prompt."),
        Mistake(
            "with a space before the prompt",
            {"{BOS_TOKEN}{prompt}": "{BOS_TOKEN} {prompt}"},
            "there is nothing in between; a space is a token too.",
        ),
        Mistake(
            "with a single image token",
            {"{IMAGE_TOKEN * num_image_tokens}": "{IMAGE_TOKEN}"},
            "every patch needs its own place.",
        ),
        Mistake(
            "with the image tokens after the prompt",
            {
                "{IMAGE_TOKEN * num_image_tokens}{BOS": "{BOS",
                "{NEWLINE}": "{NEWLINE}{IMAGE_TOKEN * num_image_tokens}",
            },
            "the picture comes first.",
        ),
        Mistake(
            "with the spaces stripped", {"{prompt}": "{prompt.strip()}"}, "the prompt is taken as it is."
        ),
        Mistake("in lower case", {"{prompt}": "{prompt.lower()}"}, "`C` and `c` are different tokens."),
    ],
    right_ways=[
        RightWay("adding the pieces", adding_the_pieces),
        RightWay("joining a list", joining_a_list),
    ],
    compare="this exercise was solved for you, to show how it works: change something in it and run "
    "its test.",
)
