"""Muon for the matrices, AdamW for all else.

Muon (Jordan et al. 2024) makes each update of a matrix orthogonal, so that no direction is neglected.
torch.optim.Muon does the same matrix by matrix; here those of one shape are done at once, which takes a
third of the time where matrices are as small as these.
"""

import itertools
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import nn

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan's coefficients
STEPS = 5


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """float32 [n, rows, columns] -> bfloat16, each made (nearly) orthogonal by Newton and Schulz."""
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16()
    is_tall = x.shape[1] > x.shape[2]
    if is_tall:
        x = x.transpose(1, 2)
    x = x / x.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]
    for _ in range(STEPS):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if is_tall else x


class Muon:
    """Steps all matrices of one shape together. The updates have the size of AdamW's."""

    def __init__(self, matrices: list[tuple[nn.Parameter, float]], weight_decay: float):
        """`matrices`: each with its learning rate."""
        by_shape = defaultdict(list)
        for parameter, rate in matrices:
            by_shape[tuple(parameter.shape)].append((parameter, rate))
        self.groups = list(by_shape.values())
        self.weight_decay = weight_decay
        self.momenta = [torch.zeros(len(group), *group[0][0].shape) for group in self.groups]

    @torch.no_grad()
    def step(self, share: float):
        """`share`: of the learning rates."""
        for group, momentum in zip(self.groups, self.momenta, strict=True):
            gradients = torch.stack([parameter.grad for parameter, _ in group])
            momentum.lerp_(gradients, 1 - MOMENTUM)
            updates = orthogonal(gradients.lerp_(momentum, MOMENTUM)).float()
            size = 0.2 * max(momentum.shape[1:]) ** 0.5
            for (parameter, rate), update in zip(group, updates, strict=True):
                parameter.mul_(1 - share * rate * self.weight_decay).add_(update, alpha=-share * rate * size)

    def state_dict(self) -> list[torch.Tensor]:
        return self.momenta

    def load_state_dict(self, momenta: list[torch.Tensor]):
        for own, value in zip(self.momenta, momenta, strict=True):
            own.copy_(value)


class Optimizer:
    """Both, on one schedule; gradients are clipped to a norm of 1 together."""

    def __init__(self, modules: list[tuple[nn.Module, float]], total: int, restarts: Sequence[int] = ()):
        """`modules`: each with its learning rate; `total`: how many steps there will be; `restarts`: the
        numbers of those at which the schedule of the rates begins again."""
        matrices, others = [], []
        for module, rate in modules:
            for name, parameter in module.named_parameters():
                is_matrix = "layers." in name and parameter.ndim == 2
                (matrices if is_matrix else others).append((parameter, rate))
        self.parameters = [parameter for parameter, _ in matrices + others]
        self.rates = [rate for _, rate in others]
        self.muon = Muon(matrices, weight_decay=0.03)
        groups = [{"params": [parameter], "lr": rate} for parameter, rate in others]
        self.adamw = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01)
        self.rounds = rounds_of(total, restarts)

    def step(self, loss: torch.Tensor, done: int):
        """One step on the loss, as the step number `done`, counted from 0."""
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        start, end = next((start, end) for start, end in self.rounds if done < end)
        share = share_of_rate(done - start, end - start)
        for group, rate in zip(self.adamw.param_groups, self.rates, strict=True):
            group["lr"] = rate * share
        self.muon.step(share)
        self.adamw.step()
        for parameter in self.parameters:
            parameter.grad = None

    def ends_round(self, done: int) -> bool:
        """Whether the rates have come down to nothing after so many steps."""
        return any(done == end for _, end in self.rounds)

    def state_dict(self) -> dict:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict):
        self.muon.load_state_dict(state["muon"])
        self.adamw.load_state_dict(state["adamw"])


def rounds_of(total: int, restarts: Sequence[int]) -> list[tuple[int, int]]:
    """Where each round of the schedule starts and ends, in steps done."""
    return list(itertools.pairwise([0, *restarts, total]))


def share_of_rate(done: int, total: int) -> float:
    """Warmed up over 2 % of the steps, constant to 40 %, then down to nothing in a straight line."""
    warm_up = (done + 1) / max(1, total // 50)
    return min(warm_up, 1.0, (total - done) / (0.6 * total))
