"""Small random PaliGemmas in the hub's format, for the tests.

All sizes differ from each other, so that a transposed matrix or a mixed-up dimension cannot pass
unseen, and norm weights and biases are random, so that leaving one out changes the answer.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>"]  # ids 0 to 3, as Gemma's
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]  # for characters not in the vocabulary
CHARACTERS = list("▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?'\"()-/")
MERGES = [("c", "a"), ("ca", "t"), ("▁", "ca"), ("▁ca", "t"), ("▁", "d"), ("t", "e")]
LOCATIONS = [f"<loc{i:04d}>" for i in range(1024)]
SEGMENTS = [f"<seg{i:03d}>" for i in range(128)]


def gemma_like_tokenizer() -> Tokenizer:
    """A BPE in Gemma's manner: spaces become `▁`, unknown characters bytes, `\\n` is a token, and
    `<loc…>`, `<seg…>` and `<image>` come last."""
    words = SPECIAL + BYTES + ["\n"] + CHARACTERS + [first + second for first, second in MERGES]
    vocab = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=MERGES, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in ["\n", *LOCATIONS, *SEGMENTS]])
    tokenizer.add_special_tokens(["<image>"])
    return tokenizer


def small_config(text=None, vision=None, **overrides) -> dict:
    """What a small checkpoint's config.json holds, with the keys of google/paligemma-3b-pt-224.

    `text` and `vision` override entries of text_config and vision_config, the rest the top level.
    """
    image_token = gemma_like_tokenizer().token_to_id("<image>")
    vocab_size = image_token + 8  # larger than needed, as the 3B model's
    text_config = {
        "model_type": "gemma",
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 56,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 10,
    } | (text or {})
    vision_config = {
        "model_type": "siglip_vision_model",
        "hidden_size": 24,
        "intermediate_size": 44,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "patch_size": 4,
        "image_size": 12,  # 9 patches
        "projection_dim": text_config["hidden_size"],
        "vision_use_head": False,
    } | (vision or {})
    num_image_tokens = (vision_config["image_size"] // vision_config["patch_size"]) ** 2
    text_config.setdefault("num_image_tokens", num_image_tokens)
    vision_config.setdefault("num_image_tokens", num_image_tokens)
    return {
        "architectures": ["PaliGemmaForConditionalGeneration"],
        "model_type": "paligemma",
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
        "ignore_index": -100,
        "image_token_index": image_token,
        "hidden_size": text_config["hidden_size"],
        "projection_dim": text_config["hidden_size"],
        "vocab_size": text_config["vocab_size"],
        "torch_dtype": "float32",
        "text_config": text_config,
        "vision_config": vision_config,
    } | overrides


def tensor_shapes(config: dict) -> dict[str, tuple[int, ...]]:
    """Every tensor of a checkpoint in the hub's layout. Written out, not read off the model."""
    text, vision = config["text_config"], config["vision_config"]
    C, M, P = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
    N = (vision.get("image_size", 224) // P) ** 2
    tower = "vision_tower.vision_model."
    shapes = {
        tower + "embeddings.patch_embedding.weight": (C, 3, P, P),
        tower + "embeddings.patch_embedding.bias": (C,),
        tower + "embeddings.position_embedding.weight": (N, C),
        tower + "post_layernorm.weight": (C,),
        tower + "post_layernorm.bias": (C,),
    }
    for i in range(vision["num_hidden_layers"]):
        layer = f"{tower}encoder.layers.{i}."
        linears = {f"self_attn.{x}_proj": (C, C) for x in ("q", "k", "v", "out")}
        linears |= {"mlp.fc1": (M, C), "mlp.fc2": (C, M), "layer_norm1": (C,), "layer_norm2": (C,)}
        for name, shape in linears.items():
            shapes[f"{layer}{name}.weight"] = shape
            shapes[f"{layer}{name}.bias"] = shape[:1]

    D, M, V = text["hidden_size"], text["intermediate_size"], text["vocab_size"]
    Hd = text.get("head_dim", 256)
    queries, keys = text["num_attention_heads"] * Hd, text["num_key_value_heads"] * Hd
    shapes["multi_modal_projector.linear.weight"] = (D, C)
    shapes["multi_modal_projector.linear.bias"] = (D,)
    shapes["language_model.model.embed_tokens.weight"] = (V, D)
    shapes["language_model.model.norm.weight"] = (D,)
    for i in range(text["num_hidden_layers"]):
        layer = f"language_model.model.layers.{i}."
        linears = {
            "self_attn.q_proj": (queries, D),
            "self_attn.k_proj": (keys, D),
            "self_attn.v_proj": (keys, D),
            "self_attn.o_proj": (D, queries),
            "mlp.gate_proj": (M, D),
            "mlp.up_proj": (M, D),
            "mlp.down_proj": (D, M),
            "input_layernorm": (D,),
            "post_attention_layernorm": (D,),
        }
        shapes |= {f"{layer}{name}.weight": shape for name, shape in linears.items()}
    return shapes


def random_tensors(config: dict, seed: int = 0, dtype=torch.float32) -> dict[str, torch.Tensor]:
    """Random weights in the hub's layout, large enough that the answers of a model vary."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        fan_in = torch.Size(shape[1:]).numel() if len(shape) > 1 else 4
        scale = 1.0 if "embed" in name else 2.0
        tensors[name] = (torch.randn(shape, generator=generator) * scale * fan_in**-0.5).to(dtype)
    return tensors


def write_config(folder: Path, config: dict):
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def write_tensors(folder: Path, tensors: dict[str, torch.Tensor], shards: int = 1):
    """One model.safetensors, or that many shards with model.safetensors.index.json."""
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names, weight_map = sorted(tensors), {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        mine = names[i::shards]
        save_file({name: tensors[name] for name in mine}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(mine, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def random_checkpoint(
    folder, config: dict | None = None, seed: int = 0, dtype: torch.dtype = torch.float32, shards: int = 1
) -> Path:
    """Writes a whole checkpoint folder, in the hub's layout, and returns it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = small_config() if config is None else config
    write_config(folder, config)
    gemma_like_tokenizer().save(str(folder / "tokenizer.json"))
    write_tensors(folder, random_tensors(config, seed, dtype), shards)
    return folder
