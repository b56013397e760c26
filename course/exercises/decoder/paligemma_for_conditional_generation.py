"""The exercise PaliGemmaForConditionalGeneration of decoder_0.py."""

from course.exercise import Case, Exercise, Mistake, RightWay
from course.exercises.decoder.inputs import PADDED, PADDED_MASK, SMALL_PALIGEMMA, batch, by_name
from decoder_1 import GemmaForCausalLM, PaliGemmaMultiModalProjector, VisionModel

# Other right ways.


class AnotherOrderOfCreation:
    def __init__(self, config):
        super().__init__()
        self.language_model = GemmaForCausalLM(config=config.text_config)
        self.multi_modal_projector = PaliGemmaMultiModalProjector(config=config)
        self.vision_tower = VisionModel(config=config.vision_config)
        self.config, self.pad_token_id = config, config.pad_token_id


EXERCISE = Exercise(
    name="PaliGemmaForConditionalGeneration",
    file="decoder",
    minutes=5,
    difficulty="easy",
    why="The parts come together under the names that the checkpoint gives them.",
    builds_on=("VisionModel", "GemmaForCausalLM", "PaliGemmaMultiModalProjector"),
    steps={
        "__init__": [
            "Keep the config: the methods below look up ids in it.",
            "Make vision_tower and language_model, each from its own part of the config.",
            "Make multi_modal_projector, which has to know both widths.",
        ],
    },
    hints=(
        "Three modules and the config. Which config does each of them take?",
        "VisionModel takes config.vision_config, GemmaForCausalLM config.text_config, and the "
        "projector the whole config.",
        "self.vision_tower = VisionModel(config.vision_config), and so on for the other two.",
    ),
    make=lambda m: m.PaliGemmaForConditionalGeneration(SMALL_PALIGEMMA),
    attributes=("config",),
    result={"logits": "B T V"},
    cases=[
        Case(
            "pictures and prompts",
            batch(PADDED, attention_mask=PADDED_MASK),
            call=by_name,
            tolerance=5e-5,
        ),
        Case("the config is kept", call=lambda made: made.config == SMALL_PALIGEMMA),
    ],
    mistakes=[
        Mistake(
            "without keeping the config",
            {"self.config = config": "pass"},
            "the methods below look up image_token_index and ignore_index in it.",
        ),
        Mistake(
            "when only the text's config is kept",
            {"self.config = config": "self.config = config.text_config"},
            "image_token_index is in the whole config.",
        ),
        Mistake(
            "with the bare tower",
            {"VisionModel(config.vision_config)": "VisionModel(config.vision_config).vision_model"},
            "the checkpoint's names begin with vision_tower.vision_model.",
        ),
        Mistake(
            "with GemmaModel as the language model",
            {"GemmaForCausalLM(config.text_config)": "GemmaModel(config.text_config)"},
            "it has to give scores, so it is the one with lm_head.",
        ),
        Mistake(
            "with another name for the projector",
            {"self.multi_modal_projector": "self.projector"},
            "the names of the weights come from the names of the attributes.",
        ),
        Mistake(
            "with another name for the tower",
            {"self.vision_tower": "self.vision_model"},
            "the names of the weights come from the names of the attributes.",
        ),
        Mistake(
            "with another name for the language model",
            {"self.language_model": "self.text_model"},
            "the names of the weights come from the names of the attributes.",
        ),
        Mistake(
            "with the whole config for the tower",
            {"VisionModel(config.vision_config)": "VisionModel(config)"},
            "each part takes its own config.",
        ),
        Mistake(
            "without the projector",
            {"self.multi_modal_projector = PaliGemmaMultiModalProjector(config)": "pass"},
            "the tower's features are not as wide as the decoder's.",
        ),
    ],
    right_ways=[
        RightWay("another order of creation", AnotherOrderOfCreation),
    ],
    compare="the three names in front of all 603 tensors of the checkpoint: vision_tower, "
    "multi_modal_projector, language_model.",
)
