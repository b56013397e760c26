"""The exercise evaluate of training_0.py."""

import torch

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.training.inputs import SmallModel, small_batch
from course.exercises.training.train_step import by_token


def by_half_tokens(losses, labels):
    """Another way to add up, which the learner does not know."""
    return losses.sum() * 3, 2 * len(labels)


def evaluated(evaluate, batches, training, other_sum=False):
    """The loss, how the model was called, and the mode that it is in afterwards."""
    model = SmallModel().train(training)
    loss = evaluate(model, batches, by_half_tokens if other_sum else by_token)
    kept_afterwards = torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    return {
        "loss": loss,
        "in train mode": [call["in train mode"] for call in model.calls],
        "gradients kept": [call["gradients kept"] for call in model.calls],
        "in train mode afterwards": model.training,
        "gradients kept afterwards": kept_afterwards,
    }


# Known mistakes that take whole functions.


def with_the_mean_of_the_batches_means(model, batches, sum_loss):
    was_training = model.training
    model.eval()
    means = []
    with torch.no_grad():
        for batch in batches:
            batch_sum, batch_number = batch_loss(model, batch, sum_loss)  # noqa: F821
            means.append(batch_sum.item() / batch_number)
    model.train(was_training)
    return sum(means) / len(means)


# Other right ways.


@torch.inference_mode()
def in_inference_mode(model, batches, sum_loss):
    mode = model.training
    model.train(False)
    sums, numbers = zip(*[batch_loss(model, batch, sum_loss) for batch in batches], strict=True)  # noqa: F821
    if mode:
        model.train()
    return float(sum(sums)) / sum(numbers)


def with_try_and_finally(model, batches, sum_loss):
    mode = model.training
    try:
        model.eval()
        with torch.set_grad_enabled(False):
            found = [[float(v) for v in batch_loss(model, b, sum_loss)] for b in batches]  # noqa: F821
    finally:
        model.train(mode)
    total, number = torch.tensor(found, dtype=torch.float64).sum(dim=0).tolist()
    return total / number


EXERCISE = Exercise(
    name="evaluate",
    file="training",
    minutes=15,
    difficulty="easy",
    why="The loss on what is learned always falls. Only unseen examples tell whether it was worth it.",
    builds_on=("batch_loss", "train_step"),
    steps=[
        "Note the mode of the model, and set it to eval mode.",
        "Without gradients, add up the sums and the numbers of all batches.",
        "Set the model back to the mode that it was in.",
        "Return the sum divided by the number.",
    ],
    hints=(
        "What does train mode do to a model that has dropout? And keeping gradients to memory?",
        "model.training is the mode, model.eval() and model.train(True or False) set it. torch.no_grad() is "
        "a context: with torch.no_grad(): ...",
        "was_training = model.training; model.eval(); the loop; model.train(was_training); total / number.",
    ),
    cases=[
        Case(
            "two batches of different sizes",
            lambda: {"batches": [small_batch(2), small_batch(6, 4, 5, seed=1)], "training": False},
            call=evaluated,
        ),
        Case(
            "a model in train mode",
            lambda: {"batches": [small_batch(3, 1, seed=2), small_batch(7, seed=3)], "training": True},
            call=evaluated,
        ),
        Case(
            "another way to add up",
            lambda: {
                "batches": [small_batch(2, 4, seed=4), small_batch(1, 5, 3, seed=5)],
                "training": True,
                "other_sum": True,
            },
            call=evaluated,
        ),
    ],
    mistakes=[
        Mistake(
            "without eval mode",
            {"    model.eval()\n": ""},
            "in train mode, a model with dropout answers worse than it can, and differently each time.",
        ),
        Mistake(
            "when the model stays in eval mode",
            {"    model.train(was_training)\n": ""},
            "the training goes on afterwards, and would go on without dropout.",
        ),
        Mistake(
            "when the model is always left in train mode",
            {"model.train(was_training)": "model.train()"},
            "it may have been in eval mode before: whoever called it relies on that.",
        ),
        Mistake(
            "when gradients are kept",
            {"with torch.no_grad():": "if True:"},
            "nothing is learned here, and what backward would need costs memory.",
        ),
        Mistake(
            "with the mean of the batches' means",
            with_the_mean_of_the_batches_means,
            "the last batch may be small, and its mean would count as much: add sums and numbers.",
        ),
        Mistake(
            "when it is divided by the number of batches",
            {"return total / number": "return total / len(batches)"},
            "what sum_loss returns with a sum is the number to divide by.",
        ),
        Mistake(
            "with the sum returned",
            {"return total / number": "return total"},
            "the mean is asked for: it can be compared with that of other sets.",
        ),
        Mistake(
            "with the last batch alone",
            {"total + batch_sum.item(), number + batch_number": "batch_sum.item(), batch_number"},
            "all batches belong to the mean.",
        ),
        Mistake(
            "when gradients stay switched off",
            {"with torch.no_grad():": "torch.set_grad_enabled(False)\n    if True:"},
            "the next training step would find nothing to go back through.",
        ),
    ],
    right_ways=[
        RightWay("in inference mode", in_inference_mode),
        RightWay("with try and finally", with_try_and_finally),
    ],
    compare="that PaliGemma's reference has no dropout at all, so the mode changes nothing. Why keep the two "
    "lines?",
)
