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

from text_image_token_processor_0 import add_image_tokens_to_prompt

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
    # TODO 1. Write the prompt with its image tokens, and encode it without letting the tokenizer
    #         add anything.
    # TODO 2. Encode the suffix with `<eos>` behind it, by itself.
    # TODO 3. Return the ids of both, one after the other.
    # TODO 4. With them the types: 0 for each token of the prompt, 1 for each of the suffix.
    # TODO 5. With them the labels, as long as the ids: only the suffix is learned.
    raise NotImplementedError("training_row is not done yet: python -m pytest -k training_row")


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
    # TODO 1. Find the length of the longest row.
    # TODO 2. Bring each list of each row to this length, with something in front that stands for
    #         nothing: which value that is differs for ids, types and labels.
    # TODO 3. Make an attention mask: 1 where a row has a token, 0 where it was padded.
    # TODO 4. Return the four of them as int64 tensors, and leave the rows as they were.
    raise NotImplementedError("collate is not done yet: python -m pytest -k collate")


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
    # TODO 1. Take the logits that have a token after them, and the labels that have logits before
    #         them.
    # TODO 2. Compute the cross entropy of each pair by itself, zero where the label is -100.
    # TODO 3. Return it with a row for each example again.
    raise NotImplementedError("token_losses is not done yet: python -m pytest -k token_losses")


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
    # TODO 1. Count how many tokens of each row are learned, among those that have a loss.
    # TODO 2. Divide each row's sum of losses by its own count.
    # TODO 3. Add these means up, without dividing again.
    # TODO 4. Return the sum, and the number of examples.
    raise NotImplementedError("sum_by_example is not done yet: python -m pytest -k sum_by_example")


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
    # TODO 1. Find out how many tokens the longest answer of the batch has.
    # TODO 2. Call the model with everything but the labels, and with logits for that many positions
    #         and one more.
    # TODO 3. Cut the labels to the same positions.
    # TODO 4. Compute the loss of each token, and let sum_loss add them up.
    raise NotImplementedError("batch_loss is not done yet: python -m pytest -k batch_loss")


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
        # TODO 1. Keep the given layer as base_layer, with its parameters frozen.
        # TODO 2. Make lora_A from I to R and lora_B from R to O: float32, no bias, on the layer's
        #         device.
        # TODO 3. Set lora_B to zeros, and leave lora_A random.
        # TODO 4. Keep alpha / R as scaling.
        raise NotImplementedError("LoRALinear is not done yet: python -m pytest -k LoRALinear")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # TODO 5. Send the input through the frozen layer, and in float32 through the two small
        #         ones, scaled.
        # TODO 6. Return the sum in the dtype of the frozen layer's output.
        raise NotImplementedError("LoRALinear is not done yet: python -m pytest -k LoRALinear")

    def merged(self) -> nn.Linear:
        """One ordinary layer that computes the same: an answer costs no more than before.

        W' = W + (alpha / R) * B A, computed in float32 and rounded to the dtype of W once: each
        rounding in between would cost digits, and bfloat16 has only two or three.

        Output: a new nn.Linear with the weight W' [O, I] and the bias of base_layer, if it has one;
        this module stays as it is.
        Source: LoRA, section 4.1, "No Additional Inference Latency".
        Exercise LoRALinear.merged. Lesson: docs/lessons/lora.md. Builds on: LoRALinear.
        """
        # TODO 1. Multiply the two small matrices so that the product is [O, I], and scale it.
        # TODO 2. Add it to the frozen weight in float32, and round the sum to the dtype of the
        #         frozen weight.
        # TODO 3. Put the sum into a new nn.Linear.
        # TODO 4. Give it a copy of the bias, or none if there is none, and return it.
        raise NotImplementedError("LoRALinear.merged is not done yet: python -m pytest -k LoRALinear.merged")


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
    # TODO 1. Look at every module of the model by its name, in the model's order.
    # TODO 2. If the name is one of the targets, or ends in a dot and a target, put a LoRALinear
    #         around the module in its place, and note the name.
    # TODO 3. If a target fits no name at all, raise a ValueError that says which.
    # TODO 4. Return the names.
    raise NotImplementedError("add_lora is not done yet: python -m pytest -k add_lora")


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
    # TODO 1. Look at every parameter of the model by its name, each once.
    # TODO 2. Decide by mode and name whether it learns: the small matrices, the decoder's
    #         attention, or all.
    # TODO 3. Say so in the parameter itself, for those that do not learn as well.
    # TODO 4. Return a list of those that learn, in the model's order.
    raise NotImplementedError("choose_parameters is not done yet: python -m pytest -k choose_parameters")


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
    # TODO 1. Compute how many steps warm up: a twentieth of all, rounded down, and at least one.
    # TODO 2. During these, rise in equal steps to the peak: the last of them has it.
    # TODO 3. After them, fall along half a wave of a cosine, from the peak towards 0.
    raise NotImplementedError("learning_rate is not done yet: python -m pytest -k learning_rate")


def clip_gradients(parameters: list[nn.Parameter], max_norm: float) -> float:
    """Shortens the gradient where it is too long: one odd example must not undo many good steps.

    norm = root of the sum of squares over ALL parameters; grad * max_norm / norm if norm > max_norm

    The direction stays: all are multiplied by the same number. As torch.nn.utils.clip_grad_norm_.

    Input: parameters that have a gradient, which is changed; max_norm, the largest norm allowed.
    Output: the norm as it was before.
    Source: "On the difficulty of training RNNs" (Pascanu et al. 2013), algorithm 1.
    Exercise clip_gradients. Lesson: docs/lessons/training.md.
    """
    # TODO 1. Compute the length of the gradient of all parameters, as if they were one long vector.
    # TODO 2. If it is longer than allowed, multiply every gradient by the one number that makes it
    #         just as long.
    # TODO 3. Return the length that it had.
    raise NotImplementedError("clip_gradients is not done yet: python -m pytest -k clip_gradients")


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
    # TODO 1. Clear the gradients of the step before.
    # TODO 2. For each part: compute its sum of losses, let its gradients be added to those that are
    #         there, and keep both sum and number as plain numbers.
    # TODO 3. Divide the gradients by the number of the whole.
    # TODO 4. Clip them, and let the optimizer take its step.
    # TODO 5. Return the mean loss of the whole.
    raise NotImplementedError("train_step is not done yet: python -m pytest -k train_step")


# ------------------------------------------------------------------------------------ the loop


def evaluate(model: nn.Module, batches: list[Batch], sum_loss: SumLoss) -> float:
    """The mean loss on examples that are not learned: what tells knowing from remembering.

    (sum of all batches' sums) / (sum of their numbers), in eval mode and without gradients

    Input: a model, which is left in the mode (train or eval) that it was in; batches of any size;
    sum_by_token or sum_by_example. Output: the mean loss.
    Source: "Deep Learning" (Goodfellow et al. 2016), section 5.3.
    Exercise evaluate. Lesson: docs/lessons/training.md. Builds on: batch_loss, train_step.
    """
    # TODO 1. Note the mode of the model, and set it to eval mode.
    # TODO 2. Without gradients, add up the sums and the numbers of all batches.
    # TODO 3. Set the model back to the mode that it was in.
    # TODO 4. Return the sum divided by the number.
    raise NotImplementedError("evaluate is not done yet: python -m pytest -k evaluate")


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
        # TODO 1. Compare the score with the highest so far.
        # TODO 2. If it is higher, remember it.
        # TODO 3. Keep copies of the parameters with it, in place of the older ones.
        # TODO 4. Return whether that was so.
        raise NotImplementedError(
            "BestWeights.update is not done yet: "
            "python -m pytest -k BestWeights.update"
        )

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
