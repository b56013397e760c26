"""The exercise train_step of training_0.py."""

import torch

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.training.inputs import PlainDescent, SmallModel, small_batch


def by_token(losses, labels):
    return losses.sum(), int((labels[:, 1:] != -100).sum())


def stepped(train_step, batches, steps=1, max_norm=1.0, rate=0.5):
    """Losses and weights after some steps of plain gradient descent, and how the model was called."""
    model = SmallModel()
    parameters = list(model.parameters())
    optimizer = PlainDescent(parameters, rate)
    losses = [train_step(model, batches, parameters, optimizer, by_token, max_norm) for _ in range(steps)]
    return {
        "losses": losses,
        "weights": {name: parameter.detach().clone() for name, parameter in model.named_parameters()},
        "calls": [call["in train mode"] for call in model.calls],
    }


# Known mistakes that take whole functions.


def with_a_step_in_each_part(model, batches, parameters, optimizer, sum_loss, max_norm=1.0):
    total, number = 0.0, 0
    for batch in batches:
        optimizer.zero_grad()
        batch_sum, batch_number = batch_loss(model, batch, sum_loss)  # noqa: F821
        batch_sum.backward()
        for parameter in parameters:
            parameter.grad /= batch_number
        clip_gradients(parameters, max_norm)  # noqa: F821
        optimizer.step()
        total, number = total + batch_sum.item(), number + batch_number
    return total / number


def with_the_mean_of_the_parts_means(model, batches, parameters, optimizer, sum_loss, max_norm=1.0):
    optimizer.zero_grad()
    total = 0.0
    for batch in batches:
        batch_sum, batch_number = batch_loss(model, batch, sum_loss)  # noqa: F821
        loss = batch_sum / batch_number / len(batches)
        loss.backward()
        total += loss.item()
    clip_gradients(parameters, max_norm)  # noqa: F821
    optimizer.step()
    return total


def with_the_mean_of_the_parts_gradients(model, batches, parameters, optimizer, sum_loss, max_norm=1.0):
    optimizer.zero_grad()
    total, number = 0.0, 0
    for batch in batches:
        batch_sum, batch_number = batch_loss(model, batch, sum_loss)  # noqa: F821
        (batch_sum / batch_number / len(batches)).backward()
        total, number = total + batch_sum.item(), number + batch_number
    clip_gradients(parameters, max_norm)  # noqa: F821
    optimizer.step()
    return total / number


def when_each_part_is_clipped(model, batches, parameters, optimizer, sum_loss, max_norm=1.0):
    optimizer.zero_grad()
    total, number = 0.0, 0
    for batch in batches:
        batch_sum, batch_number = batch_loss(model, batch, sum_loss)  # noqa: F821
        batch_sum.backward()
        clip_gradients(parameters, max_norm)  # noqa: F821
        total, number = total + batch_sum.item(), number + batch_number
    for parameter in parameters:
        parameter.grad /= number
    optimizer.step()
    return total / number


def when_the_model_runs_twice_over_each_part(model, batches, parameters, optimizer, sum_loss, max_norm=1.0):
    optimizer.zero_grad()
    number = sum(batch_loss(model, batch, sum_loss)[1] for batch in batches)  # noqa: F821
    total = 0.0
    for batch in batches:
        batch_sum = batch_loss(model, batch, sum_loss)[0] / number  # noqa: F821
        batch_sum.backward()
        total += batch_sum.item()
    clip_gradients(parameters, max_norm)  # noqa: F821
    optimizer.step()
    return total


# Other right ways.


def when_the_number_is_known_beforehand(model, batches, parameters, optimizer, sum_loss, max_norm=1.0):
    all_labels = [batch["labels"] for batch in batches]
    number = sum(sum_loss(torch.zeros(labels[:, 1:].shape), labels)[1] for labels in all_labels)
    for parameter in parameters:
        parameter.grad = None
    mean = 0.0
    for batch in batches:
        loss = batch_loss(model, batch, sum_loss)[0] / number  # noqa: F821
        loss.backward()
        mean += float(loss.detach())
    clip_gradients(parameters, max_norm)  # noqa: F821
    optimizer.step()
    return mean


def with_zeros_and_pytorchs_clipping(model, batches, parameters, optimizer, sum_loss, max_norm=1.0):
    optimizer.zero_grad(set_to_none=False)
    sums, numbers = [], []
    for part in batches:
        part_sum, part_number = batch_loss(model, part, sum_loss)  # noqa: F821
        part_sum.backward()
        sums.append(part_sum.item())
        numbers.append(part_number)
    with torch.no_grad():
        for parameter in parameters:
            parameter.grad.div_(sum(numbers))
    torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    optimizer.step()
    return sum(sums) / sum(numbers)


DIVIDE = "    for parameter in parameters:\n        parameter.grad /= number\n"
CLIP = "    clip_gradients(parameters, max_norm)\n"

EXERCISE = Exercise(
    name="train_step",
    file="training",
    minutes=25,
    difficulty="hard",
    why="A batch of 8 fits a laptop only one by one, and still has to teach what the whole would.",
    builds_on=("batch_loss", "clip_gradients"),
    steps=[
        "Clear the gradients of the step before.",
        "For each part: compute its sum of losses, let its gradients be added to those that are there, and "
        "keep both sum and number as plain numbers.",
        "Divide the gradients by the number of the whole.",
        "Clip them, and let the optimizer take its step.",
        "Return the mean loss of the whole.",
    ],
    hints=(
        "A part with 2 tokens and one with 10: what is the mean of all 12, and what the mean of two means?",
        "backward adds to parameter.grad; optimizer.zero_grad() clears it. item() makes a number that holds "
        "no graph in memory. The order at the end: divide, clip, step.",
        "for batch in batches: batch_sum, batch_number = batch_loss(model, batch, sum_loss); "
        "batch_sum.backward(); then parameter.grad /= number; clip_gradients; optimizer.step().",
    ),
    cases=[
        Case("a whole batch", lambda: {"batches": [small_batch(3, 5)]}, call=stepped),
        Case(
            "two parts of different sizes",
            lambda: {"batches": [small_batch(2), small_batch(6, 4, seed=1)], "max_norm": 1e9, "rate": 0.3},
            call=stepped,
        ),
        Case(
            "two parts, clipped",
            lambda: {"batches": [small_batch(1, 7, seed=2), small_batch(3, seed=3)], "max_norm": 0.7},
            call=stepped,
        ),
        Case(
            "three steps of two parts",
            lambda: {
                "batches": [small_batch(4, seed=4), small_batch(1, 5, seed=5)],
                "steps": 3,
                "max_norm": 0.9,
            },
            call=stepped,
        ),
    ],
    mistakes=[
        Mistake(
            "without zero_grad",
            {"    optimizer.zero_grad()\n": ""},
            "backward adds: the gradients of all steps before would be in this one.",
        ),
        Mistake(
            "with zero_grad before each part",
            {
                "    optimizer.zero_grad()\n": "",
                "        batch_sum.backward()": "        optimizer.zero_grad()\n        batch_sum.backward()",
            },
            "only the last part would be learned from: clear once, before the first.",
        ),
        Mistake(
            "with a step in each part",
            with_a_step_in_each_part,
            "the parts are one batch, and one step is taken for all of it.",
        ),
        Mistake(
            "with the mean of the parts' means",
            with_the_mean_of_the_parts_means,
            "a part with few tokens would count as much as one with many: add sums and numbers, divide once.",
            also=(with_the_mean_of_the_parts_gradients,),
        ),
        Mistake(
            "when each part is clipped",
            when_each_part_is_clipped,
            "the gradient of the whole is what may be too long.",
        ),
        Mistake(
            "when it is clipped before it is divided",
            {DIVIDE + CLIP: CLIP + DIVIDE},
            "a sum is long because it is a sum: almost every step would be clipped, then divided as well.",
        ),
        Mistake(
            "without clipping",
            {CLIP: ""},
            "one odd example would undo many good steps.",
        ),
        Mistake(
            "with a length of 1 in place of max_norm",
            {"clip_gradients(parameters, max_norm)": "clip_gradients(parameters, 1.0)"},
            "the caller says how long a gradient may be.",
        ),
        Mistake(
            "when nothing is divided",
            {DIVIDE: ""},
            "the gradients are those of the sum, and a larger batch would take larger steps.",
        ),
        Mistake(
            "when it is divided by the number of parts",
            {"parameter.grad /= number": "parameter.grad /= len(batches)"},
            "sum_loss returns sums: the number of tokens (or examples) makes a mean of them.",
        ),
        Mistake(
            "when it is divided by the last part's number",
            {"parameter.grad /= number": "parameter.grad /= batch_number"},
            "the gradients of all parts are in there: divide by the number of all.",
        ),
        Mistake(
            "when the model runs twice over each part",
            when_the_model_runs_twice_over_each_part,
            "running is what costs: add up sums and numbers in one go, and divide the gradients at the end.",
        ),
        Mistake(
            "without the optimizer's step",
            {"    optimizer.step()\n": ""},
            "nothing changes without it.",
        ),
        Mistake(
            "with the sum returned",
            {"return total / number": "return total"},
            "the mean loss is asked for, which does not depend on how large a batch is.",
        ),
        Mistake(
            "with the last part's loss returned",
            {"return total / number": "return batch_sum.item() / batch_number"},
            "the mean of the whole batch is asked for.",
        ),
        Mistake(
            "when a tensor is returned",
            {"return total / number": "return torch.tensor(total / number)"},
            "a plain number is asked for: item() makes one.",
        ),
    ],
    right_ways=[
        RightWay("when the number is known beforehand", when_the_number_is_known_beforehand),
        RightWay("with zeros and PyTorch's clipping", with_zeros_and_pytorchs_clipping),
    ],
    compare="when the loss is measured: before the step. What would a loss that is measured after it say "
    "about the same batch, and why is neither the loss of unseen examples?",
)
