"""The model that the lessons take their numbers from: paligemma-tiny, in front of images/cats.png.

    from docs.lessons.tiny import batch, model, tokenizer

Everything is in float32, so that numbers are the same on every machine to the digits that are shown. The
prompt is `detect cat`. Its greedy answer is two boxes.
"""

import functools
from pathlib import Path

import torch
from PIL import Image

from decoder_1 import KVCache, prefix_lm_mask
from load_weights import load_hf_model
from text_image_token_processor_1 import PaliGemmaProcessor

ROOT = Path(__file__).resolve().parent.parent.parent

picture = Image.open(ROOT / "images" / "cats.png").convert("RGB")
model, tokenizer = load_hf_model(ROOT / "paligemma-tiny", "cpu", "float32")
model.requires_grad_(False)  # nothing is trained here
processor = PaliGemmaProcessor(
    tokenizer, model.config.vision_config.num_patches, model.config.vision_config.image_size
)
batch = processor(["detect cat"], [picture])


@functools.cache
def tower_states() -> list[torch.Tensor]:
    """The residual stream of the tower, [1, N, C]: before each layer, and after the last one."""
    tower = model.vision_tower.vision_model
    states = [tower.embeddings(batch["pixel_values"])]
    for layer in tower.encoder.layers:
        states.append(layer(states[-1]))
    return states


def decoder_inputs() -> torch.Tensor:
    """Picture and prompt as the decoder's first layer reads them: [1, T, D], multiplied by sqrt(D)."""
    input_ids = batch["input_ids"]
    image_features = model.multi_modal_projector(model.vision_tower(batch["pixel_values"]))
    embeds = model.language_model.model.embed_tokens(input_ids)
    embeds = model._merge_input_ids_with_image_features(image_features, embeds, input_ids)
    return embeds * embeds.shape[-1] ** 0.5


def decoder_states() -> tuple[list[torch.Tensor], torch.Tensor, tuple, KVCache]:
    """The residual stream of the decoder, [1, T, D], before each layer and after the last one.

    Also the mask, the cos and sin of the positions, and the cache, as the model makes them.
    """
    decoder = model.language_model.model
    states, kv_cache = [decoder_inputs()], KVCache()
    T = states[0].shape[1]
    mask = prefix_lm_mask(batch["attention_mask"], torch.zeros(1, T, dtype=torch.int64))
    position_embeddings = decoder.rotary_emb(states[0], torch.arange(1, T + 1)[None])
    for layer in decoder.layers:
        states.append(layer(states[-1], mask, position_embeddings, kv_cache))
    return states, mask, position_embeddings, kv_cache


def answer(prompt: str = "detect cat", causal: bool = False) -> tuple[list[str], list[float]]:
    """The tokens of the greedy answer, and the probability that the model gave to each.

    causal: read the prompt with a causal mask, as the model was not trained to.
    """
    inputs = processor([prompt], [picture])
    output = model(**inputs, token_type_ids=torch.full_like(inputs["input_ids"], int(causal)))
    tokens, probabilities = [], []
    while "<eos>" not in tokens and len(tokens) < 40:
        probability, token = output["logits"][0, -1].softmax(dim=-1).max(dim=-1)
        tokens.append(tokenizer.id_to_token(int(token)))
        probabilities.append(float(probability))
        output = model(token[None, None], kv_cache=output["kv_cache"])
    return tokens, probabilities
