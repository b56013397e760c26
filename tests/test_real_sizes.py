"""The reference at the size of google/paligemma-3b-pt-224, on the meta device: shapes without numbers.

The real files are too large for tests, but whether they would fit can be known without them:
paligemma-3b-pt-224-config.json is what the hub's config.json says, and the names and shapes of its
tensors are written out by small_models.tensor_shapes, not read off the model.
"""

import json
from pathlib import Path

import pytest
import torch

from decoder_1 import PaliGemmaForConditionalGeneration
from load_weights import import_set, read_config
from random_weights.small import tensor_shapes


def hub_config(image_size=None):
    """The hub's config.json; those of the larger checkpoints differ by image_size and what follows."""
    file = Path(__file__).parent.parent / "random_weights" / "paligemma-3b-pt-224-config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    if image_size is not None:
        config["vision_config"]["image_size"] = image_size
        for part in ("text_config", "vision_config"):
            config[part]["num_image_tokens"] = (image_size // 14) ** 2
    return config


def model_of(config):
    with torch.device("meta"):
        return PaliGemmaForConditionalGeneration(read_config(config, import_set(1)))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def model():
    return model_of(hub_config())


def test_what_the_config_leaves_out(model):
    """The hub's config.json is short: our defaults must be what the weights were trained with."""
    text, vision = model.config.text_config, model.config.vision_config
    assert (text.head_dim, text.rms_norm_eps, text.rope_theta) == (256, 1e-6, 10_000)
    assert (vision.image_size, vision.num_channels, vision.layer_norm_eps) == (224, 3, 1e-6)
    assert (model.config.pad_token_id, model.config.ignore_index) == (0, -100)
    # And reaches the modules that need it.
    norms = [module for module in model.vision_tower.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert len(norms) == 2 * 27 + 1
    assert {norm.eps for norm in norms} == {1e-6}
    rms_norms = [module for name, module in model.language_model.named_modules() if name.endswith("norm")]
    assert len(rms_norms) == 2 * 18 + 1
    assert {norm.eps for norm in rms_norms} == {1e-6}


def test_number_of_tensors_and_parameters(model):
    """What the checkpoint holds, counted by part: a missing bias or a wrong head size shows here first."""
    assert len(list(model.parameters())) == 603
    assert count(model.vision_tower) == 412_442_352
    assert count(model.multi_modal_projector) == 2_361_344
    assert count(model.language_model) == 2_508_662_784
    assert count(model) == 2_923_466_480


def test_every_name_and_shape_of_the_hubs_files(model):
    """The files load without a table of renamings: our names are theirs."""
    ours = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert ours == tensor_shapes(hub_config(image_size=224))
    # A few of them literally, as a listing of the hub's files shows them.
    assert ours["vision_tower.vision_model.embeddings.patch_embedding.weight"] == (1152, 3, 14, 14)
    assert ours["vision_tower.vision_model.embeddings.position_embedding.weight"] == (256, 1152)
    assert ours["vision_tower.vision_model.encoder.layers.26.mlp.fc1.weight"] == (4304, 1152)
    assert ours["vision_tower.vision_model.encoder.layers.0.self_attn.out_proj.bias"] == (1152,)
    assert ours["vision_tower.vision_model.post_layernorm.bias"] == (1152,)
    assert ours["multi_modal_projector.linear.weight"] == (2048, 1152)
    assert ours["language_model.model.embed_tokens.weight"] == (257216, 2048)
    assert ours["language_model.model.layers.17.self_attn.q_proj.weight"] == (2048, 2048)
    assert ours["language_model.model.layers.0.self_attn.k_proj.weight"] == (256, 2048)
    assert ours["language_model.model.layers.0.mlp.down_proj.weight"] == (2048, 16384)
    assert ours["language_model.model.norm.weight"] == (2048,)


def test_nothing_but_lm_head_is_not_in_the_files(model):
    """lm_head is not stored, since it is embed_tokens; a buffer in the state dict would be missed as well."""
    stored = tensor_shapes(hub_config(image_size=224))
    assert set(model.state_dict()) - set(stored) == {"language_model.lm_head.weight"}
    assert model.language_model.lm_head.weight is model.language_model.model.embed_tokens.weight


@pytest.mark.parametrize("image_size, num_image_tokens", [(224, 256), (448, 1024), (896, 4096)])
def test_sizes_follow_from_the_config_alone(image_size, num_image_tokens):
    """The larger checkpoints see finer: more patches of the same size, and nothing else is different."""
    model = model_of(hub_config(image_size))
    assert model.config.vision_config.num_patches == num_image_tokens
    assert count(model) == 2_923_466_480 + (num_image_tokens - 256) * 1152
    prompt = torch.zeros(1, num_image_tokens + 6, dtype=torch.int64, device="meta")
    pixel_values = torch.zeros(1, 3, image_size, image_size, device="meta")
    features = model.multi_modal_projector(model.vision_tower(pixel_values))
    assert features.shape == (1, num_image_tokens, 2048)
    assert model(prompt, logits_to_keep=1)["logits"].shape == (1, 1, 257_216)
