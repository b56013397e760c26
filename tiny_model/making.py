"""What `paligemma-tiny` is made of: its vocabulary, its sizes, its first weights, its files.

Letters in shapes: N patches (= image tokens), C width of the tower, D width of the decoder.
"""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import nn

from decoder_1 import GemmaConfig, PaliGemmaConfig, PaliGemmaForConditionalGeneration
from program.files import replace_file
from tiny_model.questions import known_forms, prompt_forms
from tiny_model.words import COLORS, LANGUAGES, THINGS, plural
from vision_transformer_1 import VisionConfig

SIZES = {
    "tower": {"width": 192, "mlp": 768, "layers": 5, "heads": 6},
    "decoder": {"width": 192, "mlp": 576, "layers": 4, "heads": 4},
    "image": 160, "patch": 16,
}  # fmt: skip
SMALL_SIZES = {
    "tower": {"width": 96, "mlp": 384, "layers": 3, "heads": 3},
    "decoder": {"width": 96, "mlp": 288, "layers": 3, "heads": 2},
    "image": 160, "patch": 16,
}  # fmt: skip
SPECIALS = ("<pad>", "<eos>", "<bos>", "<unk>")
FOREIGN_LETTERS = "äöüßÄÖÜáéíóúñàâçèêëîïôùûœÁÉÍÓÚÑÀÂÇÈÊÎÔÙÛŒ¿¡"


# -- The vocabulary -------------------------------------------------------------------------------


def training_texts() -> list[str]:
    """Every phrase that the model reads or writes, but for what stands on signs."""
    texts = []
    for form in prompt_forms():
        names = [(thing, plural(thing)) for thing in THINGS] if "{" in form else [("", "")]
        texts += [form.replace("{thing}", one).replace("{things}", many) for one, many in names]
    texts += [text[0].upper() + text[1:] for text in texts[:]]
    texts += [f"answer en {question}" for question in ("How", "Is", "Where", "What")]
    texts += ["0", "1", "2", "3", "yes", "no", "nothing", "top left", "top right", "bottom left"]
    texts += ["bottom right", "left", "right", "top", "bottom", "middle", *COLORS]
    for language in LANGUAGES.values():
        texts.append(language.nothing)
        for thing in THINGS:
            counted = [language.counted(thing, number) for number in (1, 2, 3)]
            texts += [*counted, f"{language.listed([counted[0]] * 3)}, {counted[1]}, {counted[2]}"]
    return texts + [f"a ; {thing}" for thing in THINGS]


def build_tokenizer() -> Tokenizer:
    """In Gemma's manner spaces become ▁, and ids 0 to 3 are pad, eos, bos, unk.

    Each word that the model needs is one token, and all else is spelled letter by letter: no merges,
    so that what stands on a sign is read as it is printed, one letter after the other.
    """
    normalizer = normalizers.Replace(" ", "▁")
    pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split("▁", "merged_with_next"), pre_tokenizers.Split(Regex("[?,]"), "isolated"),
    ])  # fmt: skip
    letters = [chr(code) for code in range(33, 127)] + ["▁", *FOREIGN_LETTERS]
    words = [
        word
        for text in training_texts()
        for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text))
    ]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*SPECIALS, "\n", *letters, *words]))}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", ignore_merges=True))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    # A newline is text, though it must stay a token of its own; so are places and segments.
    plain = ["\n", *(f"<loc{i:04d}>" for i in range(1024)), *(f"<seg{i:03d}>" for i in range(128))]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in plain])
    tokenizer.add_special_tokens([AddedToken("<image>", special=True, normalized=False)])
    return tokenizer


# -- The model ------------------------------------------------------------------------------------


def build_config(tokenizer: Tokenizer, sizes: dict = SIZES) -> dict:
    """config.json in the hub's form: the same fields as google/paligemma-3b-pt-224."""
    vocab_size = tokenizer.get_vocab_size()
    tower, decoder = sizes["tower"], sizes["decoder"]
    num_image_tokens = (sizes["image"] // sizes["patch"]) ** 2
    vision = {
        "hidden_size": tower["width"], "image_size": sizes["image"], "intermediate_size": tower["mlp"],
        "model_type": "siglip_vision_model", "num_attention_heads": tower["heads"],
        "num_hidden_layers": tower["layers"], "num_image_tokens": num_image_tokens,
        "patch_size": sizes["patch"], "projection_dim": decoder["width"], "vision_use_head": False,
    }  # fmt: skip
    text = {
        "head_dim": 32, "hidden_size": decoder["width"], "intermediate_size": decoder["mlp"],
        "model_type": "gemma", "num_attention_heads": decoder["heads"],
        "num_hidden_layers": decoder["layers"], "num_image_tokens": num_image_tokens,
        "num_key_value_heads": 1, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "torch_dtype": "bfloat16", "vocab_size": vocab_size,
    }  # fmt: skip
    return {
        "architectures": ["PaliGemmaForConditionalGeneration"],
        "bos_token_id": tokenizer.token_to_id("<bos>"),
        "eos_token_id": tokenizer.token_to_id("<eos>"),
        "hidden_size": decoder["width"],
        "ignore_index": -100,
        "image_token_index": tokenizer.token_to_id("<image>"),
        "model_type": "paligemma",
        "pad_token_id": tokenizer.token_to_id("<pad>"),
        "projection_dim": decoder["width"],
        "text_config": text,
        "torch_dtype": "bfloat16",
        "vision_config": vision,
        "vocab_size": vocab_size,
    }


def build_model(config: dict) -> PaliGemmaForConditionalGeneration:
    """The reference model with these sizes, in float32, with PyTorch's own initial weights."""

    def fields(of: dict, cls) -> dict:
        return {name: of[name] for name in cls.__dataclass_fields__ if name in of}

    vision = VisionConfig(**fields(config["vision_config"], VisionConfig))
    text = GemmaConfig(**fields(config["text_config"], GemmaConfig))
    joined = {**config, "vision_config": vision, "text_config": text}
    return PaliGemmaForConditionalGeneration(PaliGemmaConfig(**fields(joined, PaliGemmaConfig)))


@torch.no_grad()
def initialise(model: PaliGemmaForConditionalGeneration, tokenizer: Tokenizer, codewords: torch.Tensor):
    """Gives the weights a start that knows about places and shapes, so that less has to be learned.

    `codewords` float [128, E]: those of the mask codec.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        # What writes into the residual stream starts small, so that all layers can be heard.
        if name.endswith(("out_proj", "fc2", "o_proj", "down_proj")):
            module.weight.mul_(0.3)

    # Sine and cosine of row and column: neighbors start out alike.
    positions = model.vision_tower.vision_model.embeddings.position_embedding.weight
    side, C = math.isqrt(len(positions)), positions.shape[1]
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    frequencies = math.pi / 2 ** torch.linspace(0, 4, C // 4)
    angles = [(axis.flatten()[:, None] + 0.5) * frequencies for axis in (y, x)]
    positions.copy_(torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1))
    # Queries equal to keys: a patch first looks at what is like it, and so at its neighbors.
    for layer in model.vision_tower.vision_model.encoder.layers:
        layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)

    # Rows of length one; <loc> embeddings that vary smoothly with the coordinate, <seg> embeddings
    # that are as far apart as the codewords.
    table = model.language_model.model.embed_tokens.weight
    D = table.shape[1]
    table.copy_(torch.randn_like(table) / D**0.5)
    first = tokenizer.token_to_id("<loc0000>")
    cycles = 32 ** torch.linspace(-0.2, 1, D // 2)
    angles = 2 * math.pi * torch.arange(1024)[:, None] / 1024 * cycles
    table[first : first + 1024] = torch.cat([angles.sin(), angles.cos()], dim=1) / (D / 2) ** 0.5
    first = tokenizer.token_to_id("<seg000>")
    apart = codewords - codewords.mean(dim=0)
    turned = apart @ torch.linalg.qr(torch.randn(max(D, apart.shape[1]), apart.shape[1]))[0].T[:, :D]
    table[first : first + 128] = turned / turned.norm(dim=1).mean()


# -- The files ------------------------------------------------------------------------------------


def known_prompts(things: list[str], kinds: tuple[str, ...]) -> dict:
    """What the prompts.json says of a model that has learned these kinds of questions about these things."""
    words = {"thing": things, "things": [plural(thing) for thing in things]}
    return {"name": "paligemma-tiny", "forms": known_forms(kinds), "words": words, "capitals": True}


def write_checkpoint(
    folder: Path, model, tokenizer: Tokenizer, config: dict, codec: Path | None, known: dict, card: str
):
    """The hub's format: config.json, tokenizer.json, model.safetensors (lm_head is tied, so absent).

    `known`: what prompts.json says. README.md comes last: a folder without it is not whole.
    """
    folder.mkdir(exist_ok=True)
    # What is tied is named once.
    tensors = {name: tensor.detach().bfloat16() for name, tensor in model.named_parameters()}
    replace_file(folder / "model.safetensors", save(tensors, metadata={"format": "pt"}))
    replace_file(folder / "config.json", json.dumps(config, indent=2) + "\n")
    replace_file(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
    replace_file(folder / "prompts.json", json.dumps(known, indent=1, ensure_ascii=False) + "\n")
    if codec is not None:
        replace_file(folder / "mask_decoder.safetensors", codec.read_bytes())
    replace_file(folder / "README.md", card)
