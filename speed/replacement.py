"""What all modules have in common that take the place of one of the reference's."""

from torch import nn


class Replacement(nn.Module):
    """The layers and numbers of a module, with another forward. Name it before the module's own class.

    class FusedAttention(Replacement, Attention): ...
    """

    def __init__(self, module: nn.Module):
        nn.Module.__init__(self)  # not the module's own, which would make new layers
        self.__dict__.update(module.__dict__)
