"""Fixtures that several test files share."""

import pytest
import torch

from random_weights.small import random_checkpoint

# The models here are too small to gain from threads, and CI machines have few cores.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A small random checkpoint, float32, in one file. Not to be changed by a test."""
    return random_checkpoint(tmp_path_factory.mktemp("checkpoint"))
