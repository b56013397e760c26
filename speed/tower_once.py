"""Several questions about one picture: the vision tower reads it once.

Rows with the same pixels have the same features, whatever the prompt. So the tower is given only the rows
that differ from the one before, and their features are repeated. The row read last is remembered, because
the next batch may go on with its picture:

    row          cat  cat  cat  dog  |  dog  dog  bus      two batches
    is new        1    0    0    1   |   0    0    1
    the tower     cat            dog |            bus      reads three rows of seven
"""

import itertools

import torch
from torch import nn


class TowerOnce:
    """Takes the place of the `forward` of a tower, whose weights stay as they are from then on.

    Input and output: those of the tower, pixel_values [B, 3, S, S] -> [B, N, C].
    """

    def __init__(self, tower: nn.Module):
        self.read = tower.forward
        self.last: tuple[torch.Tensor, torch.Tensor] | None = None  # pixels and features of one row

    def __call__(self, *given, **given_by_name):
        pixel_values, *more = *given, *given_by_name.values()  # a learner's tower may name it otherwise
        if more:
            return self.read(*given, **given_by_name)
        pixels, features = self.last or (pixel_values[:1] * torch.nan, None)  # equal to nothing
        before = torch.cat([pixels, pixel_values[:-1]])
        is_new = (pixel_values != before).flatten(1).any(dim=1).tolist()
        if any(is_new):
            read = self.read(pixel_values[[row for row, new in enumerate(is_new) if new]])
            if not isinstance(read, torch.Tensor) or len(read) != sum(is_new):  # not a row for each picture
                return self.read(pixel_values)
            features = read if features is None else torch.cat([features, read])
        # Each row's place among the features: the first is the one remembered, if there is one.
        found = features[[number - (self.last is None) for number in itertools.accumulate(is_new)]]
        # A copy, because whoever is given the features may write into them.
        self.last = pixel_values[-1:].clone(), found[-1:].clone()
        return found


def read_each_picture_once(model: nn.Module):
    """Lets a model's tower read a picture once that is asked about several times in a row.

    For a model of any set and precision: the tower stays the module that it is, under its own names.
    """
    model.vision_tower.forward = TowerOnce(model.vision_tower)
