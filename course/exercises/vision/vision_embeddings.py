"""The exercise VisionEmbeddings of vision_transformer_0.py."""

from dataclasses import replace

import torch
from torch import nn

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.inputs import randn
from course.exercises.vision.inputs import SIZES, SMALL_TOWER, bf16, pictures

# Other right ways.


class ByHandCutThenOneMatrix:
    def forward(self, pixel_values):
        weight = self.patch_embedding.weight
        C, channels, P, _ = weight.shape
        x = pixel_values.to(weight.dtype)
        B, _, S, _ = x.shape
        n = S // P
        x = x[:, :, : n * P, : n * P].reshape(B, channels, n, P, n, P).permute(0, 2, 4, 1, 3, 5)
        x = x.reshape(B, n * n, channels * P * P) @ weight.reshape(C, -1).T + self.patch_embedding.bias
        return x.add_(self.position_embedding.weight)


class AnotherOrderOfCreation:
    def __init__(self, config):
        super().__init__()
        self.position_embedding = nn.Embedding(config.num_patches, config.hidden_size)
        self.patch_embedding = nn.Conv2d(
            config.num_channels, config.hidden_size, config.patch_size, config.patch_size, padding="valid"
        )
        self.register_buffer("position_ids", torch.arange(config.num_patches)[None], persistent=False)

    def forward(self, pixel_values):
        x = self.patch_embedding(pixel_values.to(dtype=self.patch_embedding.weight.dtype))
        x = x.permute(0, 2, 3, 1).flatten(1, 2)
        return x + self.position_embedding(self.position_ids)


EXERCISE = Exercise(
    name="VisionEmbeddings",
    file="vision_transformer",
    minutes=20,
    difficulty="medium",
    why="The tower is a transformer: it reads a list of vectors, so the picture must become one.",
    steps={
        "__init__": [
            "Make patch_embedding: a convolution from the channels of the picture to hidden_size, whose "
            "kernel is one patch and which moves by a whole patch, so that patches do not overlap.",
            "Make position_embedding: a table with one learned vector of hidden_size for each patch.",
        ],
        "forward": [
            "Cast the picture to the dtype of the convolution's weights (it comes in float32).",
            "Embed the patches: [B, C, S/P, S/P], still laid out like a picture.",
            "Lay the patches out in one row, left to right and top to bottom, with the width last: [B, "
            "N, C].",
            "Add to each patch the vector of its place.",
        ],
    },
    hints=(
        "Print the shape after each step. A convolution leaves the channels in front; attention wants "
        "them last, and the two sides of the picture as one.",
        "nn.Conv2d with stride equal to kernel_size cuts without overlap. Afterwards join the last two "
        "axes, and only then swap the joined one with the channels: joining keeps the order of rows.",
        "patch_embeds.flatten(2).transpose(1, 2) + self.position_embedding.weight, where the [N, C] "
        "table is added to every picture of the batch.",
    ),
    make=lambda m: m.VisionEmbeddings(SMALL_TOWER),
    result="B N C",
    sizes=SIZES,
    cases=[
        Case("a batch of two pictures", pictures(), training=True),
        Case(
            "one channel, and a side (17) that is not a multiple of the patch (4)",
            lambda: {"pixel_values": randn(2, 1, 17, 17)},
            make=lambda m: m.VisionEmbeddings(
                replace(SMALL_TOWER, num_channels=1, patch_size=4, image_size=17)
            ),
        ),
        Case("weights in bfloat16, pictures in float32", pictures(), dtype=bf16, tolerance=4e-2),
        Case("on another device", pictures(), other_device=True),
    ],
    mistakes=[
        Mistake(
            "without the positions",
            {" + self.position_embedding.weight": ""},
            "each patch needs the vector of its place, or attention cannot tell where it lies.",
        ),
        Mistake(
            "with the patches counted column by column",
            {"patch_embeds.flatten(2)": "patch_embeds.transpose(2, 3).flatten(2)"},
            "they are counted row by row, as one reads: height before width when the two are joined.",
        ),
        Mistake(
            "when the axes are reshaped instead of swapped",
            {
                "patch_embeds.flatten(2).transpose(1, 2)": (
                    "patch_embeds.reshape(len(patch_embeds), -1, patch_embeds.shape[1])"
                ),
            },
            "view and reshape only cut the same run of numbers into other sizes, which mixes different "
            "patches; transpose moves an axis.",
        ),
        Mistake(
            "without moving the channels to the end",
            {".flatten(2).transpose(1, 2)": ".flatten(2)"},
            "the convolution leaves [B, C, N]; the encoder reads [B, N, C].",
        ),
        Mistake(
            "without the stride",
            {"stride=config.patch_size,": ""},
            "the window then moves by one pixel at a time; patches lie side by side.",
        ),
        Mistake(
            "without casting the picture",
            {"pixel_values = pixel_values.to(self.patch_embedding.weight.dtype)": "pass"},
            "pictures come in float32, and a convolution wants inputs of its weights' dtype.",
        ),
        Mistake(
            "with the positions in reverse",
            {"self.position_embedding.weight  ": "self.position_embedding.weight.flip(0)  "},
            "row 0 of the table belongs to the top left patch.",
        ),
        Mistake(
            "with the result cast to float32",
            {
                "patch_embeds = patch_embeds.flatten(2)": ("patch_embeds = patch_embeds.float().flatten(2)"),
            },
            "the tower works in the dtype of its weights.",
        ),
        Mistake(
            "without the bias",
            {"stride=config.patch_size,": "stride=config.patch_size, bias=False,"},
            "the checkpoint holds patch_embedding.bias.",
        ),
    ],
    right_ways=[
        RightWay(
            "position ids and a lookup",
            {
                "patch_embeds + self.position_embedding.weight": (
                    "patch_embeds + self.position_embedding("
                    "torch.arange(patch_embeds.shape[1], device=patch_embeds.device))"
                ),
            },
        ),
        RightWay("by hand: cut, then one matrix", ByHandCutThenOneMatrix),
        RightWay("another order of creation", AnotherOrderOfCreation),
    ],
    compare="how the cut is done: a convolution whose stride is its kernel, or a reshape and a "
    "matrix, are the same map. The table is added whole, with no position ids: all patches are always "
    "there.",
)
