"""The exercise VisionModel of vision_transformer_0.py."""

from torch import nn

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.vision.inputs import SIZES, SMALL_TOWER, bf16, pictures
from vision_transformer_1 import Encoder, VisionEmbeddings

# Known mistakes that take whole functions.


class WithoutTheLevelInBetween:
    def __init__(self, config):
        super().__init__()
        self.embeddings = VisionEmbeddings(config)
        self.encoder = Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, pixel_values):
        return self.post_layernorm(self.encoder(self.embeddings(pixel_values)))


class WithoutTheLastNorm:
    def forward(self, pixel_values):
        hidden_states = self.vision_model.embeddings(pixel_values)
        return self.vision_model.encoder(hidden_states)


# Other right ways.


class WithANameForTheFeatures:
    def forward(self, pixel_values):
        image_features = self.vision_model.forward(pixel_values=pixel_values)
        return image_features


EXERCISE = Exercise(
    name="VisionModel",
    file="vision_transformer",
    minutes=5,
    difficulty="easy",
    why="The checkpoint's names begin with `vision_tower.vision_model.`: a level that only holds a name.",
    builds_on=("VisionTransformer",),
    steps={
        "__init__": [
            "Make the tower, under the name that the tensors in the checkpoint have.",
        ],
        "forward": [
            "Send the pictures through it.",
            "Return its features as they are.",
        ],
    },
    hints=(
        "Which attribute name do the tensor names require? The docstring says.",
        "self.vision_model, a VisionTransformer.",
        "return self.vision_model(pixel_values).",
    ),
    make=lambda m: m.VisionModel(SMALL_TOWER),
    result="B N C",
    sizes=SIZES,
    cases=[
        Case("a batch of two pictures", pictures(), tolerance=3e-5, training=True),
        Case("weights in bfloat16, pictures in float32", pictures(), dtype=bf16, tolerance=8e-2),
    ],
    mistakes=[
        Mistake(
            "with another attribute name",
            {"self.vision_model": "self.model"},
            "the names of the weights come from the names of the attributes.",
        ),
        Mistake(
            "without the level in between",
            WithoutTheLevelInBetween,
            "the checkpoint's tensors are called vision_model.embeddings..., so one module must hold "
            "that name.",
        ),
        Mistake(
            "with the patches averaged",
            {"self.vision_model(pixel_values)": "self.vision_model(pixel_values).mean(dim=1)"},
            "PaliGemma reads every patch.",
        ),
        Mistake(
            "with a tuple around the result",
            {"return self.vision_model(pixel_values)": "return (self.vision_model(pixel_values),)"},
            "the projector wants the tensor itself.",
        ),
        Mistake(
            "without the last norm",
            WithoutTheLastNorm,
            "call the tower as a whole: its post_layernorm belongs to it.",
        ),
    ],
    right_ways=[
        RightWay("with a name for the features", WithANameForTheFeatures),
    ],
    compare="nothing much: it is one of the places where a file format shapes the code.",
)
