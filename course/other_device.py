"""A machine with a GPU, where there is none: catches tensors that are made without saying on which device."""

import torch
from torch.overrides import TorchFunctionMode

from course.judging import leaves

# They make a tensor out of no other: on the CPU, unless it is said where.
MAKERS = (
    torch.arange, torch.as_tensor, torch.empty, torch.eye, torch.from_numpy, torch.full, torch.linspace,
    torch.ones, torch.rand, torch.randint, torch.randn, torch.randperm, torch.tensor, torch.tril_indices,
    torch.triu_indices, torch.zeros,
)  # fmt: skip
# They may be given tensors of two devices: the first one stays where it is.
WRITERS = (torch.Tensor.copy_, torch.Tensor.data.__set__, torch.Tensor.__setitem__)


def holds_tensor(value) -> bool:
    return any(isinstance(part, torch.Tensor) for _, part in leaves(value))


class OtherDevice(TorchFunctionMode):
    """The inputs and the weights are on a GPU, as it were; what is made without a device is left on the CPU.

    It has to be moved before it meets the others, but for a single number: torch takes that from any device.
    In truth all are on the CPU, and what was left there is known by its memory, as a Parameter or a view of
    it, too. It says of itself that it is on "meta".
    """

    def __init__(self):
        super().__init__()
        self.left: dict[int, torch.UntypedStorage] = {}  # kept, so that nothing else comes to lie there

    def is_left(self, value) -> bool:
        return isinstance(value, torch.Tensor) and value.untyped_storage().data_ptr() in self.left

    def leave(self, value):
        for _, part in leaves(value):
            if isinstance(part, torch.Tensor) and (address := part.untyped_storage().data_ptr()):
                self.left[address] = part.untyped_storage()

    def mark(self, value):
        """Lets what is left in a result be told from the rest, after the call."""
        for _, part in leaves(value):
            if self.is_left(part):
                part.is_left = True

    def __torch_function__(self, function, types, arguments=(), by_name=None):
        by_name = by_name or {}
        tensors = [part for _, part in leaves([arguments, by_name]) if isinstance(part, torch.Tensor)]
        left = [tensor for tensor in tensors if self.is_left(tensor)]
        if left and function == torch.Tensor.device.__get__:
            return torch.device("meta")
        if self.says_where(function, arguments, by_name):
            result = function(*arguments, **by_name)
            return result.clone() if left else result  # to where it is already, nothing would be moved
        all_left = len(left) == len(tensors)
        # An index may be on the CPU, wherever what it is used on is.
        index = function is torch.Tensor.__getitem__ and not self.is_left(arguments[0])
        takes_two = index or function in WRITERS
        result = function(*arguments, **by_name)
        if any(tensor.dim() for tensor in left) and not all_left and not takes_two and holds_tensor(result):
            raise RuntimeError("Expected all tensors to be on the same device, but found meta and cpu")
        if (left and all_left) or (not tensors and function in MAKERS):
            self.leave(result)
        return result

    def says_where(self, function, arguments: tuple, by_name: dict) -> bool:
        """Is there a device among the arguments, or a tensor whose device is meant?"""
        if by_name.get("device") is not None:
            return True
        if function not in (torch.Tensor.to, torch.Tensor.type_as):
            return False
        other = by_name.get("other", arguments[1] if len(arguments) > 1 else None)
        return isinstance(other, (str, torch.device)) or (
            isinstance(other, torch.Tensor) and not self.is_left(other)
        )
