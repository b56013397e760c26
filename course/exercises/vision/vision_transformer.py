"""The exercise VisionTransformer of vision_transformer_0.py."""

from dataclasses import replace

from torch import nn

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.vision.inputs import SIZES, SMALL_TOWER, bf16, pictures
from vision_transformer_1 import Encoder, VisionEmbeddings

# Other right ways.


class InOneLineAnotherOrderOfCreation:
    def __init__(self, config):
        super().__init__()
        self.post_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.encoder = Encoder(config)
        self.embeddings = VisionEmbeddings(config)

    def forward(self, pixel_values):
        return self.post_layernorm(self.encoder(self.embeddings(pixel_values)))


class TheNormByItsFormula:
    def forward(self, pixel_values):
        x = self.encoder(self.embeddings(pixel_values))
        x32 = x.float()
        centered = x32 - x32.mean(-1, keepdim=True)
        normed = centered / (centered.pow(2).mean(-1, keepdim=True) + self.post_layernorm.eps).sqrt()
        return (normed * self.post_layernorm.weight + self.post_layernorm.bias).to(x.dtype)


EXERCISE = Exercise(
    name="VisionTransformer",
    file="vision_transformer",
    minutes=10,
    difficulty="easy",
    why="The features that the language model will read: one vector per patch, at one scale.",
    builds_on=("VisionEmbeddings", "Encoder"),
    steps={
        "__init__": [
            "Make embeddings and encoder.",
            "Make post_layernorm, of hidden_size with the eps of the config.",
        ],
        "forward": [
            "Embed the pictures, and send the patches through the encoder.",
            "Normalize every patch that comes out, and return them all.",
        ],
    },
    hints=(
        "Three modules in a row. A pre-norm block does not normalize its result: what must follow at "
        "the end?",
        "embeddings, encoder, post_layernorm; its eps is not PyTorch's default.",
        "return self.post_layernorm(self.encoder(self.embeddings(pixel_values))).",
    ),
    make=lambda m: m.VisionTransformer(SMALL_TOWER),
    result="B N C",
    sizes=SIZES,
    cases=[
        Case("a batch of two pictures", pictures(), tolerance=3e-5, training=True),
        Case(
            "no layers, dark pictures, where eps counts",
            pictures(scale=0.2),
            tolerance=3e-5,
            make=lambda m: m.VisionTransformer(replace(SMALL_TOWER, num_hidden_layers=0, layer_norm_eps=5.0)),
        ),
        Case("weights in bfloat16, pictures in float32", pictures(), dtype=bf16, tolerance=8e-2),
    ],
    mistakes=[
        Mistake(
            "without post_layernorm",
            {"self.post_layernorm(hidden_states)": "hidden_states"},
            "the blocks are pre-norm, so nothing has normalized what the last one made.",
        ),
        Mistake(
            "with PyTorch's eps",
            {", eps=config.layer_norm_eps": ""},
            "LayerNorm's own default is 1e-5; the config says which one the tower was trained with.",
        ),
        Mistake(
            "with the norm before the encoder",
            {
                "hidden_states = self.encoder(hidden_states)": (
                    "hidden_states = self.encoder(self.post_layernorm(hidden_states))"
                ),
                "return self.post_layernorm(hidden_states)": "return hidden_states",
            },
            "post_layernorm comes last.",
        ),
        Mistake(
            "with the first patch alone",
            {
                "return self.post_layernorm(hidden_states)": (
                    "return self.post_layernorm(hidden_states)[:, 0]"
                ),
            },
            "there is no [CLS] token here; PaliGemma reads every patch.",
        ),
        Mistake(
            "with the patches averaged",
            {
                "return self.post_layernorm(hidden_states)": (
                    "return self.post_layernorm(hidden_states).mean(dim=1)"
                ),
            },
            "PaliGemma reads every patch, not one vector for the picture.",
        ),
        Mistake(
            "without the encoder",
            {"hidden_states = self.encoder(hidden_states)": "pass"},
            "the blocks do the work.",
        ),
        Mistake(
            "with the norm applied twice",
            {"self.encoder(hidden_states)": "self.post_layernorm(self.encoder(hidden_states))"},
            "once is enough, and twice gives something else, because the norm has a weight and a bias.",
        ),
    ],
    right_ways=[
        RightWay("in one line, another order of creation", InOneLineAnotherOrderOfCreation),
        RightWay("the norm by its formula", TheNormByItsFormula),
    ],
    compare="what is missing next to a classifier: no [CLS] token, no pooling, no head. The decoder "
    "reads every patch.",
)
