"""Sizes and inputs that several exercises of vision_transformer_0.py share."""

import torch

from course.exercises.inputs import randn
from vision_transformer_1 import VisionConfig

# B 2, N 9 (3 x 3 patches), C 28, H 4, Hd 7, M 45; eps is far from any default.
SMALL_TOWER = VisionConfig(
    hidden_size=28,
    intermediate_size=45,
    num_hidden_layers=3,
    num_attention_heads=4,
    patch_size=5,
    image_size=15,
    num_channels=3,
    layer_norm_eps=0.3,
)

SIZES = {"Hd": 7, "C": 28, "H": 4, "M": 45, "N": 9, "P": 5}

bf16 = torch.bfloat16


def features(**options):
    """Inputs of everything between the embeddings and the last norm: one batch of features."""
    return lambda: {"hidden_states": randn(2, 9, 28, **options)}


def pictures(**options):
    return lambda: {"pixel_values": randn(2, 3, 15, 15, **options)}
