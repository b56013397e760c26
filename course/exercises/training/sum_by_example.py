"""The exercise sum_by_example of training_0.py."""

import torch

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.inputs import randn

# Other right ways.


def row_by_row(losses, labels):
    total = losses.new_zeros(())
    for row, label in zip(losses, labels[:, 1:], strict=True):
        total = total + row[label != -100].mean()
    return total, len(losses)


def with_weights(losses, labels):
    learned = (labels[:, 1:] >= 0).to(losses.dtype)
    return torch.sum(losses * learned / learned.sum(1, keepdim=True)), losses.shape[0]


# Known mistakes that take whole functions.


def by_token(losses, labels):
    return losses.sum(), int((labels[:, 1:] != IGNORE_INDEX).sum())  # noqa: F821


def with_the_mean_of_all_tokens(losses, labels):
    learned = labels[:, 1:] != IGNORE_INDEX  # noqa: F821
    return losses.sum() / learned.sum() * len(labels), len(labels)


def case(K: int, answers: tuple[int, ...], seed: int = 0, grad: bool = False) -> dict:
    learned = torch.arange(K) >= K - torch.tensor(answers)[:, None]
    labels = torch.full(learned.shape, 5).masked_fill(~learned, -100)
    losses = randn(len(answers), K - 1, seed=seed).abs() * learned[:, 1:]
    return {"losses": losses.requires_grad_(grad), "labels": labels}


RETURNED = "(losses.sum(dim=1) / num_learned).sum(), len(labels)"

EXERCISE = Exercise(
    name="sum_by_example",
    file="training",
    minutes=10,
    difficulty="easy",
    why="PaliGemma's makers count each example once, so that a box of 5 tokens weighs as much as a caption.",
    builds_on=("token_losses",),
    steps=[
        "Count how many tokens of each row are learned, among those that have a loss.",
        "Divide each row's sum of losses by its own count.",
        "Add these means up, without dividing again.",
        "Return the sum, and the number of examples.",
    ],
    hints=(
        "What is 0 in losses: a token that was predicted perfectly, or one that is not learned? The labels "
        "know.",
        "labels has one column more than losses: which one has no loss? sum(dim=1) keeps the rows apart.",
        "num_learned = (labels[:, 1:] != IGNORE_INDEX).sum(dim=1); (losses.sum(dim=1) / num_learned).sum(), "
        "len(labels).",
    ),
    cases=[
        Case("two answers, of one token and of four", lambda: case(6, (1, 4))),
        Case("three answers, one as long as the row", lambda: case(5, (4, 2, 3), seed=1)),
        Case("a label at the first position, of which there is no loss", lambda: case(5, (5, 2), seed=3)),
        Case("for gradients to flow back", lambda: case(7, (2, 6), seed=2, grad=True)),
    ],
    mistakes=[
        Mistake("by token", by_token, "here each example counts the same, however long its answer is."),
        Mistake(
            "with the mean of all tokens, times the number of examples",
            with_the_mean_of_all_tokens,
            "the mean has to be taken in each example first; long answers weigh more otherwise.",
        ),
        Mistake(
            "when padding is counted",
            {"(losses.sum(dim=1) / num_learned)": "losses.mean(dim=1)"},
            "the zeros of what is not learned are no tokens: short answers would weigh less.",
        ),
        Mistake(
            "when it is divided by the number of examples already",
            {"/ num_learned).sum()": "/ num_learned).mean()"},
            "sums are added over the parts of a batch, and divided once, in train_step.",
        ),
        Mistake(
            "when nothing is divided",
            {RETURNED: "losses.sum(), len(labels)"},
            "the mean of each example is what is added up.",
        ),
        Mistake(
            "with the number of tokens returned",
            {"len(labels)": "int(num_learned.sum())"},
            "what is added up are examples, so the number is that of examples.",
        ),
        Mistake(
            "with the means of the columns",
            {"losses.sum(dim=1) / num_learned": "losses.sum(dim=0) / len(labels)"},
            "a row is an example, and axis 1 goes along it.",
        ),
        Mistake(
            "when the examples stay apart",
            {"(losses.sum(dim=1) / num_learned).sum()": "losses.sum(dim=1) / num_learned"},
            "one number is asked for: their sum.",
        ),
        Mistake(
            "with the gradients cut off",
            {"/ num_learned).sum()": "/ num_learned).sum().detach()"},
            "the sum is what backward begins with: item() and detach() end it here.",
        ),
    ],
    right_ways=[RightWay("row by row", row_by_row), RightWay("with weights", with_weights)],
    compare="sum_by_token, a line above it. For a set with boxes and long captions, which of the two "
    "would you take if the boxes matter most to you?",
)
