"""Teaching PaliGemma something new: from examples to weights that answer as the examples do.

What to notice:
  - an example is a picture, a prefix (the prompt) and a suffix (the answer); only the suffix and
    the `<eos>` after it are learned: their labels are their own ids, all others are -100;
  - the attention mask is the decoder's: picture and prefix see each other in both directions, the
    suffix is causal, because a model that sees the next word would only learn to copy it;
  - all answers of a batch end at its last position, because it is padded on the left: the longest
    answer and the position before it are the only logits that are needed;
  - answers differ in length, so "the mean loss" is two different things (by token, by example);
  - with LoRA the weights stay as they are. The product of two small matrices is added to a large
    one. It begins at zero, so training begins at the model's old answers.

    <image> <image> ... <image> <bos> detect ▁cat \\n | <loc0123> ... ▁cat <eos>
    token_type_ids   0 ...                          0 | 1             ...       1
    labels        -100 ...                       -100 | the ids themselves

Letters in shapes: B batch, N patches (= image tokens), T tokens of the sequence, A tokens of the
longest answer, K positions that have logits (A + 1), V vocabulary; I inputs and O outputs of a
linear layer, R rank of LoRA.

Sources: "PaliGemma" (Beyer et al. 2024: section 3.1 and figure 2 for rows and mask, 5.2 for the
loss, 3.2.4 for the recipe), "LoRA" (Hu et al. 2021) for the small matrices.
"""

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import nn

from text_image_token_processor_1 import add_image_tokens_to_prompt

EOS_TOKEN = "<eos>"
IGNORE_INDEX = -100               # a label that the loss leaves out
Batch = dict[str, torch.Tensor]


# ------------------------------------------------------------------- from examples to batches


def training_row(tokenizer: Tokenizer, prefix: str, suffix: str, num_image_tokens: int) -> dict:
    """Turns the text of one example into a row: ids, their types, and what is to be learned.

    ids = tokens(<image> * N <bos> prefix \\n) + tokens(suffix <eos>)

    Prefix and suffix are encoded one by one, so that no token reaches over the border: in use, the
    model is given the prefix alone. `<eos>` is learned too: without it, an answer would never end.

    Input: PaliGemma's tokenizer, the prompt, the answer to be learned (which may be empty), and N.
    Returns a dict of three lists, T ints each: `input_ids`; `token_type_ids`, 0 in the prefix and
    1 in the suffix; `labels`, the id itself in the suffix and -100 in the prefix.
    Source: PaliGemma, section 3.1 and figure 2; section 5.2 for the labels.
    Exercise training_row. Lesson: docs/lessons/training.md. Builds on: add_image_tokens_to_prompt.
    """
    prompt = add_image_tokens_to_prompt(prefix, num_image_tokens)
    prefix_ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    suffix_ids = tokenizer.encode(suffix + EOS_TOKEN, add_special_tokens=False).ids
    return {
        "input_ids": prefix_ids + suffix_ids,
        "token_type_ids": [0] * len(prefix_ids) + [1] * len(suffix_ids),
        # The labels stand where the ids do: the loss moves them by one, here they are not moved.
        "labels": [IGNORE_INDEX] * len(prefix_ids) + suffix_ids,
    }


def collate(rows: list[dict], pad_token_id: int) -> Batch:
    """Puts rows of different lengths into one batch, padded on the left.

    row = <pad> ... <pad> ids, as long as the longest one; padding is of type 0 and never learned

    Input: B rows as training_row makes them, left as they were, and the id of `<pad>`.
    Returns a dict of int64 tensors [B, T]: `input_ids`, `attention_mask` (1 for a token, 0 for
    padding), `token_type_ids` and `labels`. What is still missing is `pixel_values`, a picture for
    each row: process_images makes them.
    Source: PaliGemma, section 3.1, which pads on the right; here, all answers end at one position.
    Exercise collate. Lesson: docs/lessons/training.md. Builds on: training_row.
    """
    T = max(len(row["input_ids"]) for row in rows)

    def padded(sequences: list[list[int]], value: int) -> torch.Tensor:
        return torch.tensor([[value] * (T - len(sequence)) + sequence for sequence in sequences])

    return {
        "input_ids": padded([row["input_ids"] for row in rows], pad_token_id),
        "attention_mask": padded([[1] * len(row["input_ids"]) for row in rows], 0),
        "token_type_ids": padded([row["token_type_ids"] for row in rows], 0),
        "labels": padded([row["labels"] for row in rows], IGNORE_INDEX),
    }


def shuffled_batches(num_examples: int, batch_size: int, epoch: int, seed: int) -> list[list[int]]:
    """Says which examples make up the batches of an epoch: all of them, in a new order.

    The order is the (epoch + 1)-th permutation that a generator with this seed draws. So it is
    known from seed and epoch alone, and an interrupted training can go on with the same numbers.

    Input: how many examples there are, how many a batch has, the epoch from 0, and the seed.
    Output: lists of indices; the last one may be shorter, because no example is left out.
    Example: (5, 2, 0, 0) -> [[2, 0], [4, 3], [1]], perhaps.
    Source: "Stochastic Gradient Descent Tricks" (Bottou 2012), section 4.1.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epoch + 1):
        order = torch.randperm(num_examples, generator=generator).tolist()
    return [order[start:start + batch_size] for start in range(0, num_examples, batch_size)]


# ------------------------------------------------------------------------------------ the loss


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss of every token that is to be learned, and zero for all others.

    loss[t] = -log softmax(logits[t])[labels[t + 1]]: the logits at a position are about the token
    after it. This is the one place where labels are moved.

    Input: logits float32 [B, K, V], labels int64 [B, K] of the same positions, -100 for what is
    not learned.
    Output: float32 [B, K - 1].
    Source: PaliGemma, section 5.2: the loss is on the suffix alone.
    Exercise token_losses. Lesson: docs/lessons/training.md.
    """
    losses = F.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    return losses.view(labels.shape[0], -1)                           # [B, K - 1]


def sum_by_token(losses: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Every token counts the same: a long answer counts more than a short one.

    sum of all losses, and the number of learned tokens; sum / number is what transformers computes

    The two are not divided here: over several batches, sums are added and numbers are added, and
    the mean of the whole is not the mean of their means.

    Input: losses float32 [B, K - 1] of token_losses, labels int64 [B, K].
    Output: the sum, a float32 scalar with its gradients, and the number.
    Source: the loss of transformers' PaliGemmaForConditionalGeneration.
    """
    return losses.sum(), int((labels[:, 1:] != IGNORE_INDEX).sum())


def sum_by_example(losses: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Every example counts the same, however long its answer is.

    sum over examples of (the mean over an example's learned tokens), and the number of examples

    Input: losses float32 [B, K - 1] of token_losses, labels int64 [B, K]; in each row at least
    one token is learned, `<eos>`.
    Output: the sum, a float32 scalar with its gradients, and B.
    Source: big_vision's trainer of PaliGemma, which takes the mean of each example's own mean.
    Exercise sum_by_example. Lesson: docs/lessons/training.md. Builds on: token_losses.
    """
    num_learned = (labels[:, 1:] != IGNORE_INDEX).sum(dim=1)           # [B]
    return (losses.sum(dim=1) / num_learned).sum(), len(labels)


SumLoss = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, int]]


def batch_loss(model: nn.Module, batch: Batch, sum_loss: SumLoss) -> tuple[torch.Tensor, int]:
    """Runs the model over a batch and compares what it says with what it should learn.

    Only the last A + 1 positions get logits: an answer's first token is predicted at the newline
    before it. With a vocabulary of 257,216, logits for 260 more would take 0.27 GB an example, and
    their gradient as much again.

    Input: a PaliGemmaForConditionalGeneration; a batch of collate with its `pixel_values`;
    sum_by_token or sum_by_example.
    Output: what sum_loss gives: a sum with gradients, and a number to divide it by.
    Source: PaliGemma, section 5.2 and figure 2.
    Exercise batch_loss. Lesson: docs/lessons/training.md. Builds on: collate, token_losses,
    sum_by_example.
    """
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    A = int((batch["labels"] != IGNORE_INDEX).sum(dim=1).max())
    logits = model(**inputs, logits_to_keep=A + 1)["logits"]          # [B, K, V]
    labels = batch["labels"][:, -(A + 1):]                            # [B, K]
    return sum_loss(token_losses(logits, labels), labels)


# ------------------------------------------------------------------------------------ what learns


class LoRALinear(nn.Module):
    """A linear layer that stays as it is, and two small matrices beside it that learn.

    y = base_layer(x) + (alpha / R) * B A x

    A full matrix of the 3B model has up to 34 million numbers, its A and B of rank 8 together
    147 thousand: gradients and the optimizer's memory shrink with them.

    Input: x [..., I]. Output: [..., O], in the dtype of base_layer's output; the product of the
    small matrices and the sum are float32.
    Attributes: `base_layer`, the layer given, weight [O, I], whose own parameters are frozen;
    `lora_A`, nn.Linear with weight [R, I], random as any new layer's; `lora_B`, nn.Linear with
    weight [O, R], zeros, so that at the start y is base_layer(x); both float32, without bias;
    `scaling`, alpha / R.
    Source: LoRA, section 4.1 and equation 3. Names as in PEFT, whose files hold the same tensors.
    Exercise LoRALinear. Lesson: docs/lessons/lora.md.
    """

    def __init__(self, base_layer: nn.Module, rank: int, alpha: float):
        super().__init__()
        O, I = base_layer.weight.shape                                # noqa: E741 (a letter of the legend)
        self.base_layer = base_layer.requires_grad_(False)
        self.lora_A = nn.Linear(I, rank, bias=False, device=base_layer.weight.device)
        self.lora_B = nn.Linear(rank, O, bias=False, device=base_layer.weight.device)
        nn.init.zeros_(self.lora_B.weight)
        self.scaling = alpha / rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.base_layer(x)
        update = self.lora_B(self.lora_A(x.float())) * self.scaling
        return (out + update).to(out.dtype)

    def merged(self) -> nn.Linear:
        """One ordinary layer that computes the same: an answer costs no more than before.

        W' = W + (alpha / R) * B A, computed in float32 and rounded to the dtype of W once: each
        rounding in between would cost digits, and bfloat16 has only two or three.

        Output: a new nn.Linear with the weight W' [O, I] and the bias of base_layer, if it has one;
        this module stays as it is.
        Source: LoRA, section 4.1, "No Additional Inference Latency".
        Exercise LoRALinear.merged. Lesson: docs/lessons/lora.md. Builds on: LoRALinear.
        """
        weight, bias = self.base_layer.weight, self.base_layer.bias
        # (O, I) = (O, R) @ (R, I)
        update = self.lora_B.weight @ self.lora_A.weight * self.scaling
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
        linear.weight = nn.Parameter((weight.float() + update).detach().to(weight.dtype))
        if bias is not None:
            linear.bias = nn.Parameter(bias.detach().clone())
        return linear


def add_lora(model: nn.Module, targets: list[str], rank: int, alpha: float) -> list[str]:
    """Puts LoRALinear in the place of every layer whose name is a target, or ends in `.` + target.

    add_lora(model.language_model, ["q_proj", "v_proj"], 8, 16) changes the queries and values of
    all the decoder's layers; given the whole model, it would change the vision tower's as well,
    because they have the same names.

    Input: a model, which is changed; targets, names or their ends; R and alpha.
    Output: the names of the layers that were replaced, in the model's order.
    Raises ValueError if a target fits no layer: nothing would learn, and nobody would notice.
    Source: LoRA, sections 4.2 and 7.1 (which matrices are worth it); names as PEFT compares them.
    Exercise add_lora. Lesson: docs/lessons/lora.md. Builds on: LoRALinear.
    """
    replaced, unused = [], set(targets)
    # A list first: a model is not changed while somebody walks through it.
    for name, module in list(model.named_modules()):
        fits = {target for target in targets if name == target or name.endswith("." + target)}
        if fits:
            model.set_submodule(name, LoRALinear(module, rank, alpha))
            replaced.append(name)
            unused -= fits
    if unused:
        raise ValueError(f"no layer's name ends in {', '.join(sorted(unused))}: nothing to add LoRA to")
    return replaced


def merge_lora(model: nn.Module) -> list[str]:
    """Puts one ordinary layer in the place of every LoRALinear: the model has its old shape again.

    model[name] = model[name].merged()

    Input: a model, which is changed. Output: the names of the layers that were merged.
    Source: LoRA, section 4.1.
    """
    names = [name for name, module in model.named_modules() if isinstance(module, LoRALinear)]
    for name in names:
        model.set_submodule(name, model.get_submodule(name).merged())
    return names


def choose_parameters(model: nn.Module, mode: str) -> list[nn.Parameter]:
    """Says which parameters learn, and freezes the rest, so that they need no gradients.

    lora       the small matrices alone: the least memory, and the old answers change least
    attention  q, k, v and o of the decoder: what big_vision trains where memory is short
    all        everything, the vision tower as well: what PaliGemma's makers do

    Input: a PaliGemmaForConditionalGeneration, with LoRALinear in it for `lora`; the mode.
    Output: the parameters that learn, each once (the embedding table is tied to the output layer);
    requires_grad is True for these and False for all others.
    Source: LoRA, section 4.1; PaliGemma, section 3.2.4 (all); big_vision's notebook (attention).
    Exercise choose_parameters. Lesson: docs/lessons/lora.md. Builds on: add_lora.
    """
    chosen = []
    for name, parameter in model.named_parameters():
        learns = {
            "lora": ".lora_A." in name or ".lora_B." in name,
            "attention": name.startswith("language_model.") and ".self_attn." in name,
            "all": True,
        }[mode]
        parameter.requires_grad_(learns)
        if learns:
            chosen.append(parameter)
    return chosen


# ------------------------------------------------------------------------------------ one step


def learning_rate(step: int, num_steps: int, peak: float) -> float:
    """How large a step is: small at first, soon at its largest, then smaller and smaller.

    w = max(1, 5 % of num_steps, rounded down)
    peak * (step + 1) / w                                      while step < w
    peak * (1 + cos(pi * (step - w) / (num_steps - w))) / 2    after that

    The optimizer's averages know little at first: large first steps would go astray.

    Input: the step, from 0; how many there will be; the highest rate. Output: the rate.
    Source: PaliGemma, section 3.2.4; for the cosine, "SGDR" (Loshchilov and Hutter 2016),
    equation 5.
    Exercise learning_rate. Lesson: docs/lessons/training.md.
    """
    warmup = max(1, num_steps * 5 // 100)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / (num_steps - warmup))) / 2


def clip_gradients(parameters: list[nn.Parameter], max_norm: float) -> float:
    """Shortens the gradient where it is too long: one odd example must not undo many good steps.

    norm = root of the sum of squares over ALL parameters; grad * max_norm / norm if norm > max_norm

    The direction stays: all are multiplied by the same number. As torch.nn.utils.clip_grad_norm_.

    Input: parameters that have a gradient, which is changed; max_norm, the largest norm allowed.
    Output: the norm as it was before.
    Source: "On the difficulty of training RNNs" (Pascanu et al. 2013), algorithm 1.
    Exercise clip_gradients. Lesson: docs/lessons/training.md.
    """
    norm = torch.stack([parameter.grad.float().norm() for parameter in parameters]).norm().item()
    if norm > max_norm:
        for parameter in parameters:
            parameter.grad.mul_(max_norm / norm)
    return norm


def train_step(
    model: nn.Module,
    batches: list[Batch],
    parameters: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    sum_loss: SumLoss,
    max_norm: float = 1.0,
) -> float:
    """One step of the optimizer, on a batch that may come in parts (accumulation).

    gradient of the whole = (sum of the parts' gradients) / (sum of the parts' numbers)

    One after the other, the parts need the memory of one alone. PyTorch adds the gradients up by
    itself, which is why those of the step before have to be cleared first.

    Input: a model, the parts of the batch, what learns and its optimizer, sum_by_token or
    sum_by_example, and the length to which the gradient of the whole is clipped.
    Output: the mean loss of the whole batch, before the step.
    Source: PaliGemma, section 3.2.4; big_vision clips at 1.
    Exercise train_step. Lesson: docs/lessons/training.md. Builds on: batch_loss, clip_gradients.
    """
    optimizer.zero_grad()
    total, number = 0.0, 0
    for batch in batches:
        batch_sum, batch_number = batch_loss(model, batch, sum_loss)
        batch_sum.backward()
        total, number = total + batch_sum.item(), number + batch_number
    for parameter in parameters:
        parameter.grad /= number
    clip_gradients(parameters, max_norm)
    optimizer.step()
    return total / number


# ------------------------------------------------------------------------------------ the loop


def evaluate(model: nn.Module, batches: list[Batch], sum_loss: SumLoss) -> float:
    """The mean loss on examples that are not learned: what tells knowing from remembering.

    (sum of all batches' sums) / (sum of their numbers), in eval mode and without gradients

    Input: a model, which is left in the mode (train or eval) that it was in; batches of any size;
    sum_by_token or sum_by_example. Output: the mean loss.
    Source: "Deep Learning" (Goodfellow et al. 2016), section 5.3.
    Exercise evaluate. Lesson: docs/lessons/training.md. Builds on: batch_loss, train_step.
    """
    was_training = model.training
    model.eval()
    total, number = 0.0, 0
    with torch.no_grad():
        for batch in batches:
            batch_sum, batch_number = batch_loss(model, batch, sum_loss)
            total, number = total + batch_sum.item(), number + batch_number
    model.train(was_training)
    return total / number


class BestWeights:
    """Remembers the weights that did best on unseen examples, which need not be the last.

    update(score) copies the weights if score is higher than any before; restore() copies them back

    Attributes: `parameters`, those that learn; `score`, the highest so far, -inf at the start;
    `weights`, copies of the parameters as they were then, which later steps do not change.
    Source: "Deep Learning" (Goodfellow et al. 2016), section 7.8, early stopping.
    """

    def __init__(self, parameters: list[nn.Parameter]):
        self.parameters = parameters
        self.score = -math.inf
        self.weights: list[torch.Tensor] = []

    def update(self, score: float) -> bool:
        """Keeps the current weights if they are better; says whether they are.

        score > the highest so far: copy the weights, remember the score

        Input: the score of the weights as they are now, higher is better.
        Output: True if they were kept.
        Source: "Deep Learning" (Goodfellow et al. 2016), algorithm 7.1.
        Exercise BestWeights.update. Lesson: docs/lessons/training.md.
        """
        is_better = score > self.score
        if is_better:
            self.score = score
            self.weights = [parameter.detach().clone() for parameter in self.parameters]
        return is_better

    def restore(self):
        """Gives the parameters their best values back."""
        with torch.no_grad():
            for parameter, weight in zip(self.parameters, self.weights, strict=True):
                parameter.copy_(weight)


def train(
    model: nn.Module,
    parameters: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    make_batch: Callable[[list[int]], Batch],
    num_examples: int,
    score: Callable[[], float],
    best: BestWeights,
    *,
    epochs: int,
    batch_size: int,
    accumulate: int,
    peak_rate: float,
    sum_loss: SumLoss,
    seed: int,
    done: int = 0,
) -> Iterator[dict]:
    """Trains for some epochs, one step at a time, and looks at unseen examples after each epoch.

    for every epoch, for every batch_size * accumulate of its examples: set the rate, one step on
    `accumulate` parts; at the end of the epoch best.update(score())

    A generator: between two steps the caller may draw a bar, save, or stop. It is the same
    training whether it runs through or goes on after `done` steps with the weights and optimizer
    that it had then.

    Input: make_batch, which makes the batch of the examples with these indices; score, which asks
    the model about unseen examples (higher is better); best, which remembers; what the
    functions above take; done, how many steps were done earlier.
    Yields after each step a dict: `step` (how many are done), `epoch` (from 0), `loss` before the
    step, `rate`, and `score`, None except at the end of an epoch.
    Source: PaliGemma, section 3.2.4.
    """
    steps_per_epoch = math.ceil(num_examples / (batch_size * accumulate))
    num_steps = epochs * steps_per_epoch
    for step in range(done, num_steps):
        epoch, place = divmod(step, steps_per_epoch)
        indices = shuffled_batches(num_examples, batch_size * accumulate, epoch, seed)[place]
        parts = [indices[start:start + batch_size] for start in range(0, len(indices), batch_size)]

        rate = learning_rate(step, num_steps, peak_rate)
        for group in optimizer.param_groups:
            group["lr"] = rate
        model.train()
        loss = train_step(model, [make_batch(part) for part in parts], parameters, optimizer, sum_loss)

        is_end = place == steps_per_epoch - 1
        report = {"step": step + 1, "epoch": epoch, "loss": loss, "rate": rate, "score": None}
        if is_end:
            model.eval()
            report["score"] = score()
            best.update(report["score"])
        yield report
