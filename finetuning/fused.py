"""What stands between a step's products, in fewer operations: each of them passes over all of its memory.

Of LoRALinear and GemmaRMSNorm, whose own code PyTorch takes apart into a dozen operations there and two
dozen back, these are the same formulas with their derivatives written by hand.

Letters in shapes: D width of the decoder; I inputs and O outputs of a linear layer, R rank of LoRA.
"""

import torch
import torch.nn.functional as F
from torch import nn

from decoder_1 import GemmaRMSNorm
from speed.replacement import Replacement
from training_1 import LoRALinear


class FrozenNorm(torch.autograd.Function):
    """x / sqrt(mean(x^2) + eps) * gain whose gradient is asked for x alone. x [..., D], gain float32 [D]."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, gain: torch.Tensor, eps: float) -> torch.Tensor:
        normed = x.float()
        mean = torch.linalg.vecdot(normed, normed)[..., None] / x.shape[-1]
        ctx.gain, scale = gain, torch.rsqrt(mean + eps)
        ctx.save_for_backward(x, scale)
        return (normed * scale).mul_(gain).to(x.dtype)

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        x, scale = ctx.saved_tensors
        normed, grad = x * scale, grad * ctx.gain  # float32, as scale and gain are
        along = torch.linalg.vecdot(grad, normed)[..., None] / x.shape[-1]
        return grad.sub_(normed.mul_(along)).mul_(scale).to(x.dtype), None, None


class FrozenRMSNorm(Replacement, GemmaRMSNorm):
    """GemmaRMSNorm that does not learn."""

    def __init__(self, norm: GemmaRMSNorm):
        super().__init__(norm)
        self.gain = 1 + norm.weight.detach().float()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return FrozenNorm.apply(x, self.gain, self.eps)


class LoRASum(torch.autograd.Function):
    """out + scaling B A x.

    out [..., O] and x [..., I] of any dtype; a [R, I] and b [O, R] float32, and so is the sum, before it is
    rounded to the dtype of out.
    """

    @staticmethod
    def forward(ctx, out: torch.Tensor, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scaling: float):
        rows = x.flatten(0, -2)
        inner = F.linear(rows.float(), a)
        ctx.shape, ctx.scaling = x.shape, scaling
        ctx.save_for_backward(rows, inner, a, b)
        total = torch.addmm(out.flatten(0, -2).float(), inner, b.t(), alpha=scaling)
        return total.to(out.dtype).view(out.shape)

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        rows, inner, a, b = ctx.saved_tensors
        grad_rows = grad.flatten(0, -2).float()
        back = grad_rows @ b * ctx.scaling
        grad_x = (back @ a).to(rows.dtype).view(ctx.shape) if ctx.needs_input_grad[1] else None
        return grad, grad_x, back.t() @ rows.float(), grad_rows.t() @ (inner * ctx.scaling), None


class FusedLoRALinear(Replacement, LoRALinear):
    """LoRALinear: the same layer and matrices."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return LoRASum.apply(self.base_layer(x), x, self.lora_A.weight, self.lora_B.weight, self.scaling)


def fuse(model: nn.Module):
    """Puts them in, once it is chosen what learns; a learner's own layers stay."""
    for name, module in list(model.named_modules()):
        if type(module) is LoRALinear:
            model.set_submodule(name, FusedLoRALinear(module))
        elif type(module) is GemmaRMSNorm and not module.weight.requires_grad:
            model.set_submodule(name, FrozenRMSNorm(module))
