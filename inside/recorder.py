"""Watches a model answer: what goes into each module, what comes out, and what each softmax gave.

What to notice:
  - the model knows nothing of it. Forward hooks see the modules, and a TorchFunctionMode sees every
    call of a PyTorch function, softmax among them;
  - attention weights are the model's own. They are not computed a second time from its inputs,
    because a formula that is right here would draw a right map for code that is wrong;
  - only what the page needs is kept: all activations of a 3B model would be gigabytes.

Letters in shapes: B batch (1 here), N patches (= image tokens), T tokens given now, L tokens that
can be looked at, H heads, Hd size of a head.
"""

import functools
import inspect
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import nn
from torch.overrides import TorchFunctionMode

from inside.choosing import Choice, watch_choices
from load_weights import ModelSet

TOWER, DECODER = "vision_tower.vision_model.", "language_model.model."
KEPT = re.compile(
    r"vision_tower\.vision_model\.(embeddings|post_layernorm|encoder\.layers\.\d+)"
    r"|multi_modal_projector|language_model\.(lm_head|model\.(embed_tokens|layers\.\d+))"
    r"|language_model\.model(\.layers\.\d+\.self_attn\.[qk]_proj)?"
)
ATTENTION = re.compile(r"(vision_tower\.vision_model\.encoder|language_model\.model)\.layers\.\d+\.self_attn")
SOFTMAX = {F.softmax, torch.softmax, torch.Tensor.softmax, torch.special.softmax}


class Call(NamedTuple):
    """One call of a module; the tensors are kept only where the page needs them."""

    seconds: float  # modules inside it included
    input_shape: list[int] | None
    output_shape: list[int] | None
    output_bytes: int
    arguments: tuple
    output: torch.Tensor | None


def tensors_in(value) -> list[torch.Tensor]:
    """The tensors that a module was given or gave back, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, (tuple, list)):
        value = [value]
    return [one for one in value if isinstance(one, torch.Tensor)]


@functools.lru_cache(maxsize=256)
def signature_of(forward: Callable) -> inspect.Signature:
    """(The live page asks again and again.)"""
    return inspect.signature(forward)


def arguments_of(module: nn.Module, args: tuple, kwargs: dict) -> tuple:
    """What a module was given, by position, however the caller has named it."""
    forward = module.forward
    function = getattr(forward, "__func__", None)
    if function is None:  # not a method: put into this one module
        return inspect.signature(forward).bind(*args, **kwargs).args
    return signature_of(function).bind(module, *args, **kwargs).args[1:]


class Attended(NamedTuple):
    """The attention weights of one call of an attention module, as far as they could be seen."""

    weights: torch.Tensor | None  # None: no softmax, or of another shape
    how: str  # "softmax", "arguments" or "unseen"


class SoftmaxWatcher(TorchFunctionMode):
    """Tells `found(weights, how)` of each softmax that is taken while it is on.

    F.scaled_dot_product_attention keeps its weights to itself: there they are computed from its
    arguments, head by head, and `how` is "arguments" instead of "softmax".
    """

    def __init__(self, found: Callable[[torch.Tensor, str], None]):
        super().__init__()
        self.found = found

    def __torch_function__(self, function, types, args=(), kwargs=None):
        # While this method runs the mode is off, so that F.softmax is not seen a second time inside.
        result = function(*args, **(kwargs or {}))
        if function in SOFTMAX:
            self.found(result, "softmax")
        elif function is F.scaled_dot_product_attention:
            for weights in weights_of_arguments(*args, **(kwargs or {})):
                self.found(weights, "arguments")
        return result


def weights_of_arguments(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """The weights that F.scaled_dot_product_attention uses, [T, L] for each head.

    softmax(Q K^T * scale + mask), as its documentation defines it. Input: [B, H, T, Hd] and
    [B, H or K, L, Hd].
    """
    T, L = query.shape[-2], key.shape[-2]
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
    if is_causal:
        attn_mask = torch.ones(T, L, dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None:
        attn_mask = attn_mask.expand(*query.shape[:-1], L).reshape(-1, T, L)
    heads = zip(query.reshape(-1, T, query.shape[-1]), key.reshape(-1, L, key.shape[-1]), strict=True)
    for head, (q, k) in enumerate(heads):
        # (T, L) = (T, Hd) @ (Hd, L)
        scores = q.float() @ k.float().T * (q.shape[-1] ** -0.5 if scale is None else scale)
        if attn_mask is not None:
            mask = attn_mask[head]
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        yield scores.softmax(dim=-1)


class Recorder:
    """Watches the modules of a model while it runs.

    with Recorder(model, keep, reduce) as recorder: run the model; recorder.calls[name] is then a
    list of Call, the first of which read the prompt and each further one a token of the answer;
    recorder.attended[name], for the attention modules, a list of Attended of the same length.

    keep(name): whether the tensors of this module are to be kept.
    reduce(name, weights [heads, T, L]): what is to be kept of these weights. 4096 patches have
    67 MB of them in each head.
    """

    def __init__(self, model: nn.Module, keep: Callable, reduce: Callable):
        self.model, self.keep, self.reduce = model, keep, reduce
        self.calls: dict[str, list[Call]] = {}
        self.attended: dict[str, list[Attended]] = {}
        self.running: list[str] = []  # attention modules, outermost first
        self.found: list[tuple[torch.Tensor, str]] = []  # in the innermost of them
        self.watcher = SoftmaxWatcher(self.found_softmax)

    def __enter__(self) -> "Recorder":
        self.hooks = []
        for name, module in self.model.named_modules():
            self.hooks += self.watch(name, module)
        return self

    def __exit__(self, *error):
        if self.running:  # it was stopped inside an attention module
            self.watcher.__exit__(*error)
        for hook in self.hooks:
            hook.remove()

    def watch(self, name: str, module: nn.Module) -> list:
        started, is_attention = [], ATTENTION.fullmatch(name) is not None

        def before(module, args, kwargs):
            if is_attention:
                # Only there: the mode is asked at each call of PyTorch, and that takes time.
                if not self.running:
                    self.watcher.__enter__()
                self.running.append(name)
                self.found.clear()
            started.append(time.perf_counter())

        def after(module, args, kwargs, output):
            seconds = time.perf_counter() - started.pop()
            kept, result = (), None
            if self.keep(name):
                kept, result = arguments_of(module, args, kwargs), output
            given, made = tensors_in([*args, *kwargs.values()]), tensors_in(output)
            self.calls.setdefault(name, []).append(Call(
                seconds,
                list(given[0].shape) if given else None,
                list(made[0].shape) if made else None,
                sum(tensor.nbytes for tensor in made),
                kept,
                result,
            ))  # fmt: skip
            if is_attention:
                self.running.pop()
                if not self.running:
                    self.watcher.__exit__(None, None, None)
                self.attended.setdefault(name, []).append(attended(self.found))
                self.found.clear()

        return [
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after, with_kwargs=True),
        ]

    def found_softmax(self, weights: torch.Tensor, how: str):
        if self.running and weights.dim() >= 2:
            # Heads may stand in one dimension with the batch, or be taken one at a time.
            weights = weights.detach().reshape(-1, *weights.shape[-2:])
            self.found.append((self.reduce(self.running[-1], weights), how))


def attended(found: list[tuple[torch.Tensor, str]]) -> Attended:
    """Of all softmaxes inside one call: their heads in a row, if they are of one shape."""
    if not found or len({weights.shape[1:] for weights, _ in found}) > 1:
        return Attended(None, "unseen")
    return Attended(torch.cat([weights for weights, _ in found]).float().cpu(), found[0][1])


@dataclass(frozen=True)
class Recording:
    """One answer, and all that was seen while it was made."""

    model: nn.Module
    tokenizer: Tokenizer
    batch: dict[str, torch.Tensor]  # what the processor made
    tokens: list[int]  # of the answer, <eos> included
    text: str  # of the answer, without <eos>
    calls: dict[str, list[Call]]
    attended: dict[str, list[Attended]]
    model_set: ModelSet
    choices: list[Choice]  # of the answer's tokens, as far as they could be seen
    ended: bool  # by <eos>, and not for want of steps

    @property
    def input_ids(self) -> list[int]:
        """Of the whole sequence: picture, prompt, answer."""
        return self.batch["input_ids"][0].tolist() + self.tokens

    @property
    def answer_tokens(self) -> list[int]:
        """Of the answer, without <eos>."""
        eos_token_id = self.tokenizer.token_to_id("<eos>")
        return [token for token in self.tokens if token != eos_token_id]

    @property
    def grid(self) -> int:
        """Patches along a side of the picture."""
        return self.model.config.vision_config.image_size // self.model.config.vision_config.patch_size

    def token_name(self, token: int) -> str:
        return self.tokenizer.id_to_token(token) or f"[{token}]"  # ids beyond the tokenizer's exist


def record_answer(
    model: nn.Module,
    tokenizer: Tokenizer,
    batch: dict[str, torch.Tensor],
    max_tokens: int,
    model_set: ModelSet,
    reduce: Callable,
    goes_on: Callable = lambda count: None,
    **choosing,
) -> Recording:
    """Lets the model answer and keeps what the page is to show.

    goes_on: as for watch_choices. choosing: temperature, top_p and seed, as generate takes them; without
    them it is greedy.
    """
    eos_token_id = tokenizer.token_to_id("<eos>")
    generation = model_set.generation
    answer, tokens = generation.Answer(tokenizer), []
    with Recorder(model, KEPT.fullmatch, reduce) as recorder, watch_choices(generation, goes_on) as choices:
        for (token,) in generation.generate(model, batch, eos_token_id, max_tokens, **choosing):
            tokens.append(token)
            if token != eos_token_id:
                answer.append(token)
    return Recording(
        model, tokenizer, batch, tokens, answer.text, recorder.calls, recorder.attended, model_set, choices,
        ended=tokens[-1:] == [eos_token_id],
    )  # fmt: skip
