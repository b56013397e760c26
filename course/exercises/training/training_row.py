"""The exercise training_row of training_0.py."""

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.training.inputs import tokenizer


def example(prefix: str, suffix: str, num_image_tokens: int) -> dict:
    """A tokenizer of its own for each call: it has to be left as it was."""
    return {
        "tokenizer": tokenizer(),
        "prefix": prefix,
        "suffix": suffix,
        "num_image_tokens": num_image_tokens,
    }


# Known mistakes that take whole functions.


def when_prefix_and_suffix_are_encoded_together(tokenizer, prefix, suffix, num_image_tokens):
    prompt = add_image_tokens_to_prompt(prefix, num_image_tokens)  # noqa: F821
    n = len(tokenizer.encode(prompt, add_special_tokens=False).ids)
    ids = tokenizer.encode(prompt + suffix + EOS_TOKEN, add_special_tokens=False).ids  # noqa: F821
    return {
        "input_ids": ids,
        "token_type_ids": [0] * n + [1] * (len(ids) - n),
        "labels": [IGNORE_INDEX] * n + ids[n:],  # noqa: F821
    }


# Other right ways.


def token_by_token(tokenizer, prefix, suffix, num_image_tokens):
    row = {"input_ids": [], "token_type_ids": [], "labels": []}
    texts = (add_image_tokens_to_prompt(prefix, num_image_tokens), f"{suffix}<eos>")  # noqa: F821
    for kind, text in enumerate(texts):
        for token in tokenizer.encode(text, add_special_tokens=False).ids:
            row["input_ids"].append(token)
            row["token_type_ids"].append(kind)
            row["labels"].append(token if kind else -100)
    return row


def with_the_id_of_eos(tokenizer, prefix, suffix, num_image_tokens):
    prompt = add_image_tokens_to_prompt(prefix, num_image_tokens)  # noqa: F821
    before = list(tokenizer.encode(prompt, None, False, False).ids)
    after = [*tokenizer.encode(suffix, add_special_tokens=False).ids, tokenizer.token_to_id("<eos>")]
    types = [0 for _ in before] + [1 for _ in after]
    ids = before + after
    labels = [token if kind == 1 else -100 for token, kind in zip(ids, types, strict=True)]
    return dict(labels=labels, input_ids=ids, token_type_ids=types)


LABELS = "[IGNORE_INDEX] * len(prefix_ids) + suffix_ids"
TYPES = "[0] * len(prefix_ids) + [1] * len(suffix_ids)"
PROMPT = "tokenizer.encode(prompt, add_special_tokens=False)"

EXERCISE = Exercise(
    name="training_row",
    file="training",
    minutes=15,
    difficulty="easy",
    why="This is all that a training example is: ids, who may see whom, and which of them are learned.",
    builds_on=("add_image_tokens_to_prompt",),
    steps=[
        "Write the prompt with its image tokens, and encode it without letting the tokenizer add anything.",
        "Encode the suffix with `<eos>` behind it, by itself.",
        "Return the ids of both, one after the other.",
        "With them the types: 0 for each token of the prompt, 1 for each of the suffix.",
        "With them the labels, as long as the ids: only the suffix is learned.",
    ],
    hints=(
        "Which tokens may the model see before it has said anything, and which is it to say?",
        "Lists can be added and multiplied: [0] * 3 + [1] * 2. add_special_tokens=False keeps the tokenizer "
        "from putting a second <bos> in front.",
        "labels: [IGNORE_INDEX] * len(prefix_ids) + suffix_ids, with suffix_ids from "
        "tokenizer.encode(suffix + EOS_TOKEN, add_special_tokens=False).ids.",
    ),
    cases=[
        Case(
            "a box and its label",
            lambda: example("detect cat", "<loc0017><loc0256><loc0511><loc1023> cat", 5),
        ),
        Case("an answer of one word", lambda: example("caption en", " a", 3)),
        Case("an answer that begins with a newline", lambda: example("caption en", "\n cat", 2)),
        Case("an empty answer, and an empty prompt", lambda: example("", "", 4)),
    ],
    mistakes=[
        Mistake(
            "with labels over the prompt, too",
            {LABELS: "prefix_ids + suffix_ids"},
            "the user writes the prompt: the model is not to learn to write it, or the image tokens.",
        ),
        Mistake(
            "with labels over the prompt instead of the answer",
            {LABELS: "prefix_ids + [IGNORE_INDEX] * len(suffix_ids)"},
            "it is the other way around: the answer is learned.",
        ),
        Mistake(
            "with type 1 everywhere",
            {TYPES: "[1] * len(prefix_ids + suffix_ids)"},
            "then the prompt is causal as well, and the picture's first patch sees no other.",
        ),
        Mistake(
            "with type 0 everywhere",
            {TYPES: "[0] * len(prefix_ids + suffix_ids)"},
            "then the answer's tokens see each other in both directions: each sees what it should predict.",
        ),
        Mistake(
            "with the types swapped",
            {TYPES: "[1] * len(prefix_ids) + [0] * len(suffix_ids)"},
            "0 is the prompt, which is seen as a whole, and 1 the answer, which is causal.",
        ),
        Mistake(
            "without `<eos>`",
            {"suffix + EOS_TOKEN": "suffix"},
            "a model that never learns to end goes on until it is cut off.",
        ),
        Mistake(
            "when `<eos>` is not learned",
            {LABELS: "[IGNORE_INDEX] * len(prefix_ids) + suffix_ids[:-1] + [IGNORE_INDEX]"},
            "that the answer ends here is a part of the answer.",
        ),
        Mistake(
            "when prefix and suffix are encoded together",
            when_prefix_and_suffix_are_encoded_together,
            "a token may then reach over the border, and in use the model is given the prefix alone.",
        ),
        Mistake(
            "when the labels are moved by one",
            {LABELS: "([IGNORE_INDEX] * len(prefix_ids) + suffix_ids)[1:] + [IGNORE_INDEX]"},
            "the loss moves them; moved twice, the model learns to skip a token.",
        ),
        Mistake(
            "with 0 as the label of the prompt",
            {"[IGNORE_INDEX] * len(prefix_ids)": "[0] * len(prefix_ids)"},
            "0 is the id of a token, and would be learned: what is not learned is -100.",
        ),
        Mistake(
            "with a second `<bos>`",
            {PROMPT: "tokenizer.encode(prompt)"},
            "the prompt has one already; the tokenizer adds another one unless it is told not to.",
        ),
        Mistake(
            "with a `<bos>` in front of the answer",
            {"suffix + EOS_TOKEN, add_special_tokens=False": "suffix + EOS_TOKEN"},
            "there is one in the prompt, and none between prompt and answer.",
        ),
        Mistake(
            "without the image tokens",
            {PROMPT: "tokenizer.encode('<bos>' + prefix + '\\n', add_special_tokens=False)"},
            "the picture's vectors need places to be put into.",
        ),
        Mistake(
            "without the newline",
            {PROMPT: "tokenizer.encode(prompt[:-1], add_special_tokens=False)"},
            "the newline says where the prompt ends; the answer's first token is predicted there.",
        ),
    ],
    right_ways=[
        RightWay("token by token", token_by_token),
        RightWay("with the id of <eos>", with_the_id_of_eos),
    ],
    compare="that the picture is not here at all: rows are made of text and a number. What does that allow "
    "a program to check before it has opened a single picture?",
)
