"""The exercise token_losses of training_0.py."""

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.training.inputs import scored

# Other right ways.


def with_log_softmax_and_gather(logits, labels):
    targets = labels[:, 1:]
    chances = logits[:, :-1].log_softmax(dim=-1)
    picked = chances.gather(2, targets.clamp(min=0)[..., None])[..., 0]
    return -picked * (targets != -100)


def with_the_vocabulary_as_the_second_axis(logits, labels):
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none")  # noqa: F821


def by_logsumexp(logits, labels):
    before, target = logits[:, :-1], labels[:, 1:]
    right = before.gather(-1, target.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    return (before.logsumexp(-1) - right).masked_fill(target == IGNORE_INDEX, 0.0)  # noqa: F821


# Known mistakes that take whole functions.


def with_the_loss_of_what_is_not_learned(logits, labels):
    losses = F.cross_entropy(  # noqa: F821
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten().clamp(min=0), reduction="none"
    )
    return losses.view(labels.shape[0], -1)


def with_the_learned_tokens_alone(logits, labels):
    learned = labels[:, 1:] != IGNORE_INDEX  # noqa: F821
    return F.cross_entropy(logits[:, :-1][learned], labels[:, 1:][learned], reduction="none")  # noqa: F821


def with_probabilities(logits, labels):
    targets = labels[:, 1:]
    chances = logits[:, :-1].softmax(dim=-1)
    picked = chances.gather(2, targets.clamp(min=0)[..., None])[..., 0]
    return (1 - picked) * (targets != IGNORE_INDEX)  # noqa: F821


def with_the_sign_flipped(logits, labels):
    losses = F.cross_entropy(  # noqa: F821
        logits[:, :-1].flatten(0, 1),
        labels[:, 1:].flatten(),
        ignore_index=-100,
        reduction="none",
    )
    return -losses.view(labels.shape[0], -1)


EXERCISE = Exercise(
    name="token_losses",
    file="training",
    minutes=15,
    difficulty="medium",
    why="How surprised was the model by each token of the true answer? Training makes that smaller.",
    steps=[
        "Take the logits that have a token after them, and the labels that have logits before them.",
        "Compute the cross entropy of each pair by itself, zero where the label is -100.",
        "Return it with a row for each example again.",
    ],
    hints=(
        "At which position does the model say what it thinks of token t? There is one pair fewer than "
        "positions.",
        "F.cross_entropy takes a list of logits and a list of labels: flatten joins rows and positions, and "
        "view makes rows again. Its reduction is the mean unless you say otherwise.",
        "F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE_INDEX, "
        'reduction="none").view(len(labels), -1).',
    ),
    result="B K-1",
    cases=[
        Case("two answers of different lengths", lambda: scored(2, 7, (6, 3))),
        Case("three short answers", lambda: scored(3, 5, (1, 4, 2), seed=1)),
        Case(
            "for gradients to flow back",
            lambda: {
                name: x.requires_grad_() if name == "logits" else x
                for name, x in scored(2, 6, (5, 2)).items()
            },
            training=True,
        ),
    ],
    mistakes=[
        Mistake(
            "when the labels are not moved",
            {"logits[:, :-1]": "logits[:, 1:]"},
            "the logits at a position are about the token after it, which has not been read yet; so each "
            "token would learn to say itself.",
            also=({"logits[:, :-1]": "logits", "labels[:, 1:]": "labels"},),
        ),
        Mistake(
            "when the labels are moved twice",
            {"logits[:, :-1]": "logits[:, :-2]", "labels[:, 1:]": "labels[:, 2:]"},
            "one position: with two, the model learns to skip a token.",
        ),
        Mistake(
            "when the labels are moved the wrong way",
            {"logits[:, :-1]": "logits[:, 1:]", "labels[:, 1:]": "labels[:, :-1]"},
            "the label of a position stands one further right, not left.",
        ),
        Mistake(
            "with the loss of what is not learned",
            with_the_loss_of_what_is_not_learned,
            "where the label is -100 there is nothing to learn, and the loss is 0.",
        ),
        Mistake(
            "with the mean returned",
            {'reduction="none"': 'reduction="mean"', "losses.view(labels.shape[0], -1)": "losses"},
            "each token's loss is asked for; how a mean is taken is decided later.",
        ),
        Mistake(
            "with the sum returned",
            {'reduction="none"': 'reduction="sum"', "losses.view(labels.shape[0], -1)": "losses"},
            "each token's loss is asked for; how they are added up is decided later.",
        ),
        Mistake(
            "with the learned tokens alone",
            with_the_learned_tokens_alone,
            "whoever takes the mean of each example has to know which tokens are whose: [B, K - 1].",
        ),
        Mistake(
            "without the rows",
            {"losses.view(labels.shape[0], -1)": "losses"},
            "the result has the shape [B, K - 1].",
        ),
        Mistake(
            "with rows and positions swapped",
            {"losses.view(labels.shape[0], -1)": "losses.view(-1, labels.shape[0])"},
            "rows come first: [B, K - 1].",
        ),
        Mistake(
            "with 1 - p in place of -log p",
            with_probabilities,
            "the loss is the negative logarithm of the probability: it grows without limit as p goes to 0.",
        ),
        Mistake(
            "with the sign flipped",
            with_the_sign_flipped,
            "the logarithm of a probability is negative, and a loss is what should become small.",
        ),
        Mistake(
            "with the gradients cut off",
            {"losses.view(": "losses.detach().view("},
            "this is where all gradients begin.",
        ),
    ],
    right_ways=[
        RightWay("with log_softmax and gather", with_log_softmax_and_gather),
        RightWay("with the vocabulary as the second axis", with_the_vocabulary_as_the_second_axis),
        RightWay("by logsumexp", by_logsumexp),
    ],
    compare="the one pair that is missing. Which label of a row is never compared with anything, and why is "
    "nothing lost by that in a row of training_row?",
)
