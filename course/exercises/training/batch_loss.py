"""The exercise batch_loss of training_0.py."""

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.training.inputs import SmallModel, small_batch


def asked(batch_loss, batch, by_example=False):
    """What comes out, how the model was called, and the gradient of its first matrix."""
    model = SmallModel()
    total, number = batch_loss(model, batch, weighted if by_example else added)
    total.backward()
    return {
        "sum": total.detach(),
        "number": number,
        "calls": model.calls,
        "gradient": model.embed.weight.grad,
    }


def added(losses, labels):
    """Stands for sum_by_token; it is strict about what fits together."""
    assert losses.shape == labels[:, 1:].shape, (
        f"losses {list(losses.shape)} have to be one column fewer than labels {list(labels.shape)}"
    )
    return losses.sum(), int((labels[:, 1:] != -100).sum())


def weighted(losses, labels):
    """Another way to add up, which the learner does not know."""
    total, _ = added(losses, labels)
    return total + losses.square().sum(), len(labels)


# Other right ways.


def cut_before_the_call(model, batch, sum_loss):
    learned = batch["labels"] != -100
    K = int(learned.sum(dim=-1).amax()) + 1
    labels = batch["labels"][:, batch["labels"].shape[1] - K :]
    output = model(
        batch["input_ids"],
        batch["pixel_values"],
        batch["attention_mask"],
        batch["token_type_ids"],
        logits_to_keep=K,
    )
    return sum_loss(token_losses(output["logits"], labels), labels)  # noqa: F821


def from_the_first_column_that_is_learned(model, batch, sum_loss):
    rest = dict(batch)
    labels = rest.pop("labels")
    first = int((labels != IGNORE_INDEX).any(dim=0).int().argmax())  # noqa: F821
    labels = labels[:, first - 1 :]
    losses = token_losses(model(**rest, logits_to_keep=labels.shape[1])["logits"], labels)  # noqa: F821
    return sum_loss(losses, labels)


LONGEST = 'int((batch["labels"] != IGNORE_INDEX).sum(dim=1).max())'
LABELS = 'batch["labels"][:, -(A + 1):]'
WITHOUT_LABELS = '{name: tensor for name, tensor in batch.items() if name != "labels"}'

EXERCISE = Exercise(
    name="batch_loss",
    file="training",
    minutes=20,
    difficulty="medium",
    why="Only the answer is learned: logits for the 260 positions before it would take 0.27 GB an example.",
    builds_on=("collate", "token_losses", "sum_by_example"),
    steps=[
        "Find out how many tokens the longest answer of the batch has.",
        "Call the model with everything but the labels, and with logits for that many positions and one "
        "more.",
        "Cut the labels to the same positions.",
        "Compute the loss of each token, and let sum_loss add them up.",
    ],
    hints=(
        "At which position is the first token of an answer predicted? And where do all answers end?",
        "The number of labels in a row that are not -100 is the length of its answer. "
        "Everything but the labels: a dict comprehension over batch.items().",
        'A = int((batch["labels"] != IGNORE_INDEX).sum(dim=1).max()); logits_to_keep=A + 1; '
        'batch["labels"][:, -(A + 1):].',
    ),
    cases=[
        Case("two answers", lambda: {"batch": small_batch(3, 5)}, call=asked),
        Case("three, the first longest", lambda: {"batch": small_batch(6, 2, 4, seed=1)}, call=asked),
        Case("an answer that is only <eos>", lambda: {"batch": small_batch(1, prompt=5, seed=2)}, call=asked),
        Case(
            "another way to add up",
            lambda: {"batch": small_batch(2, 4, 3, seed=3), "by_example": True},
            call=asked,
        ),
    ],
    mistakes=[
        Mistake(
            "with one position too few",
            {"A + 1": "A"},
            "an answer's first token is predicted one position before it, at the newline: without that, it "
            "is never learned.",
        ),
        Mistake(
            "with logits for all positions",
            {", logits_to_keep=A + 1": "", LABELS: 'batch["labels"]'},
            "the loss is the same, but the logits of the image tokens and the prompt are computed in vain.",
        ),
        Mistake(
            "when the labels are not cut",
            {LABELS: 'batch["labels"]'},
            "logits and labels have to be of the same positions.",
        ),
        Mistake(
            "when the logits are not cut",
            {", logits_to_keep=A + 1": ""},
            "logits and labels have to be of the same positions.",
        ),
        Mistake(
            "with the first labels in place of the last",
            {LABELS: 'batch["labels"][:, :A + 1]'},
            "answers stand at the end, because batches are padded on the left.",
        ),
        Mistake(
            "with the length of the shortest answer",
            {".max())": ".min())"},
            "the longest answer decides: the beginnings of all longer ones would not be learned.",
        ),
        Mistake(
            "with the length of the first answer",
            {LONGEST: 'int((batch["labels"][0] != IGNORE_INDEX).sum())'},
            "the longest answer decides, whichever row it is in.",
        ),
        Mistake(
            "with the number of all learned tokens",
            {".sum(dim=1).max())": ".sum())"},
            "the answers stand below each other, not one after the other.",
        ),
        Mistake(
            "when the labels are passed on to the model",
            {WITHOUT_LABELS: "batch"},
            "the model would compute a loss of its own, with labels of all positions.",
        ),
        Mistake(
            "when the labels are taken out of the batch",
            {
                WITHOUT_LABELS: "batch",
                'A = int((batch["labels"]': 'labels = batch.pop("labels")\n    A = int((labels',
                LABELS: "labels[:, -(A + 1):]",
            },
            "pop and del change the caller's batch, which may be asked about again.",
        ),
        Mistake(
            "without the types",
            {'if name != "labels"}': 'if name not in ("labels", "token_type_ids")}'},
            "the model takes all for prefix then, and the answer's tokens see those that come after them.",
        ),
        Mistake(
            "without the attention mask",
            {'if name != "labels"}': 'if name not in ("labels", "attention_mask")}'},
            "padding would be seen.",
        ),
        Mistake(
            "without the pictures",
            {'if name != "labels"}': 'if name not in ("labels", "pixel_values")}'},
            "the answer is about a picture.",
        ),
        Mistake(
            "when it is always added up by token",
            {"return sum_loss(": "return sum_by_token("},
            "how the losses are added up is for the caller to say: sum_loss.",
        ),
    ],
    right_ways=[
        RightWay("cut before the call", cut_before_the_call),
        RightWay("from the first column that is learned", from_the_first_column_that_is_learned),
    ],
    compare="what is saved. How many bytes are the float32 logits of 270 positions with a vocabulary of "
    "257,216, and of the 6 positions that an answer of 5 tokens needs?",
)
