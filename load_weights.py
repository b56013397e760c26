"""From a checkpoint folder in the hub's format to a model that is ready to answer.

    config.json        sizes       -> the dataclasses of decoder_1 and vision_transformer_1
    tokenizer.json     vocabulary  -> a tokenizers.Tokenizer
    *.safetensors      weights     -> the parameters of PaliGemmaForConditionalGeneration
    vae-oid.npz        masks       -> the parameters of MaskVQVAE (or mask_decoder.safetensors)

What to notice:
  - the model's weights are made on the meta device, where a tensor has a shape but no memory:
    nothing is initialized only to be overwritten;
  - weights that are stored as they are to be used are memory-mapped: the parameters are the file,
    and the operating system reads a page of it at the latest when it is first touched;
  - weights of another dtype are converted one at a time, the largest first, so that there is never
    a second copy of the whole;
  - names, shapes and sizes are compared before anything is read: a checkpoint of a similar
    model would otherwise load in part and answer with nonsense;
  - nothing is unpickled, no code of the checkpoint is run, nothing is fetched.
"""

import contextlib
import dataclasses
import importlib
import json
import math
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import psutil
import torch
from numpy.lib import format as npy_format
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from tokenizers.models import BPE
from torch.overrides import TorchFunctionMode

import generation_1
import mask_decoder_1
from program.bar import bar
from program.command_line import to_paste

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}  # safetensors' names
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LFS_POINTER = b"version https://git-lfs"  # how such a file begins
HUB_NAME = re.compile(r"paligemma-3b-(pt|mix|ft-.+)-(224|448|896)")  # besides google/
# What each size and number of a config may be. The largest checkpoints stay well below, and no product
# of sizes overflows.
RANGES = {
    "vocab_size": (1, 2**22), "hidden_size": (1, 2**16), "intermediate_size": (1, 2**18),
    "num_hidden_layers": (1, 1000), "num_attention_heads": (1, 1024), "num_key_value_heads": (1, 1024),
    "head_dim": (2, 2**16), "patch_size": (1, 1024), "image_size": (1, 2**14), "num_patches": (1, 2**16),
    "num_channels": (3, 3), "projection_dim": (1, 2**16),
    "rms_norm_eps": (1e-20, 0.1), "layer_norm_eps": (1e-20, 0.1), "rope_theta": (1, 1e12),
    "image_token_index": (0, 2**22), "pad_token_id": (0, 2**22), "ignore_index": (-(2**31), 2**31),
}  # fmt: skip
EMBEDDING, LM_HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"
NPZ_DTYPES = {"float64": torch.float64, "float32": torch.float32, "float16": torch.float16}
MASK_FILES = ("mask_decoder.safetensors", "vae-oid.npz")
MASK_NUMBERS = 20_000_000  # at most; vae-oid.npz has 2 million


class CheckpointError(Exception):
    """A checkpoint that cannot be used; the message is one line that says why and what helps."""


@dataclasses.dataclass(frozen=True)
class ModelSet:
    """The modules that a model is made of. Whoever wrote them, they have the same names inside."""

    vision: ModuleType
    processor: ModuleType
    decoder: ModuleType
    is_reference: bool
    generation: ModuleType = generation_1
    masks: ModuleType = mask_decoder_1
    training: ModuleType | None = None  # only who trains asks for it

    @property
    def modules(self) -> tuple[ModuleType, ...]:
        modules = (self.vision, self.processor, self.decoder, self.generation, self.masks, self.training)
        return tuple(module for module in modules if module is not None)


def import_set(number: int) -> ModelSet:
    """Set 1 is the reference, set 0 the one to be filled in."""
    files = ("vision_transformer", "text_image_token_processor", "decoder")
    files += ("generation", "mask_decoder", "training")
    try:
        vision, processor, decoder, *others = (importlib.import_module(f"{file}_{number}") for file in files)
    except ModuleNotFoundError as error:
        raise CheckpointError(f"set {number} needs {error.name}, which is not here") from error
    return ModelSet(vision, processor, decoder, number == 1, *others)


def download_of(folder: Path) -> str:
    """What puts a checkpoint into a folder: the one that it is named after, else the one to ask."""
    name = folder.name if HUB_NAME.fullmatch(folder.name) else "paligemma-3b-mix-224"
    words = ("hf", "download", f"google/{name}", "--revision", "bfloat16", "--local-dir", folder)
    return f"`{to_paste(*words)}`"


# ------------------------------------------------------------------------------ config.json


def read_json(path: Path) -> dict:
    """A JSON file that holds an object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not {type(content).__name__}")
    return content


def read_entries(folder: Path) -> dict:
    """What config.json of a checkpoint folder holds."""
    if not folder.exists():
        how = f": get the model with {download_of(folder)}" if HUB_NAME.fullmatch(folder.name) else ""
        raise CheckpointError(f"model folder {folder} does not exist{how}")
    if not folder.is_dir():
        raise CheckpointError(f"model folder {folder} is a file, not a folder")
    if not (folder / "config.json").is_file():
        what = "has no config.json" if any(folder.iterdir()) else "is empty"
        raise CheckpointError(f"model folder {folder} {what}: get the model with {download_of(folder)}")
    return read_json(folder / "config.json")


def fill(config_class: type, entries: dict, where: str):
    """Makes a config from the entries that its fields name; others are of no use here.

    A field that is absent or null takes its default, if it has one.
    """
    values = {}
    for field in dataclasses.fields(config_class):
        value = entries.get(field.name)
        if value is None:
            if field.default is dataclasses.MISSING:
                raise CheckpointError(f"{where}: field {field.name!r} is missing")
            continue
        expected = (int, float) if field.type is float else field.type
        if isinstance(value, bool) or not isinstance(value, expected):
            raise CheckpointError(f"{where}: {field.name} must be {field.type.__name__}, not {short(value)}")
        values[field.name] = value
    return config_class(**values)


def check_ranges(numbers: dict):
    """Refuses what no checkpoint has, before anything is computed with it."""
    for name, (low, high) in RANGES.items():
        value = numbers.get(name, low)
        if low <= value <= high:  # never true of NaN
            continue
        if not value > 0 and low > 0:
            raise CheckpointError(f"config.json: {name} must be positive, not {short(value)}")
        must = str(low) if low == high else f"from {low} to {high}"
        raise CheckpointError(f"config.json: {name} must be {must}, not {short(value)}")


def short(value) -> str:
    """A value for a message; Python refuses to write out integers of thousands of digits."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"such a {type(value).__name__}"
    return text if len(text) <= 40 else text[:37] + "..."


def read_config(entries: dict, model_set: ModelSet):
    """Turns config.json's entries into the PaliGemmaConfig of a set.

    Both generations of the file are read: `image_token_index` or `image_token_id`, `rope_theta`
    or `rope_parameters.rope_theta`. Its dtype is not, since the weights say theirs. What the
    reference does not implement is refused.
    """
    supported = "only PaliGemma (model_type paligemma with a gemma decoder) is supported"
    if (model_type := entries.get("model_type")) != "paligemma":
        raise CheckpointError(f"config.json: model_type is {short(model_type)}; {supported}")
    text, vision = entries.get("text_config"), entries.get("vision_config")
    rope = text.get("rope_parameters") or {} if isinstance(text, dict) else {}
    for name, part in (("text_config", text), ("vision_config", vision), ("rope_parameters", rope)):
        if not isinstance(part, dict):
            raise CheckpointError(f"config.json: {name} must be an object, not {short(part)}")
    if (model_type := text.get("model_type", "gemma")) == "gemma2":
        raise CheckpointError(f"config.json: this is PaliGemma 2, whose decoder is gemma2; {supported}")
    elif model_type != "gemma":
        raise CheckpointError(f"config.json: the decoder is {short(model_type)}; {supported}")

    text = {"rope_theta": rope.get("rope_theta"), "vocab_size": entries.get("vocab_size")} | text
    text_config = fill(model_set.decoder.GemmaConfig, text, "config.json: text_config")
    vision_config = fill(model_set.vision.VisionConfig, vision, "config.json: vision_config")
    entries = {
        "image_token_index": entries.get("image_token_id"),
        "projection_dim": text_config.hidden_size,
        "pad_token_id": text.get("pad_token_id"),
    } | entries
    entries |= {"text_config": text_config, "vision_config": vision_config}
    config = fill(model_set.decoder.PaliGemmaConfig, entries, "config.json")

    for part in (vision_config, text_config, config):
        check_ranges(vars(part))
    gelu = (None, "gelu", "gelu_fast", "gelu_new", "gelu_pytorch_tanh")  # tanh GELU is meant by all
    num_patches = (vision_config.image_size // vision_config.patch_size) ** 2
    check_ranges({"num_patches": num_patches})
    stated = (text.get("num_image_tokens"), vision.get("num_image_tokens"))
    scaled_rope = text.get("rope_scaling") or rope.get("rope_type", "default") != "default"
    refused = {
        "attention_bias must be false": text.get("attention_bias"),
        "rope_type must be default": scaled_rope,
        "hidden_act must be gelu": vision.get("hidden_act") not in gelu or text.get("hidden_act") not in gelu,
        "projection_dim must be text_config's hidden_size": config.projection_dim != text_config.hidden_size,
        "vision_config's hidden_size must be a multiple of num_attention_heads": vision_config.hidden_size
        % vision_config.num_attention_heads,
        "num_attention_heads must be a multiple of num_key_value_heads": text_config.num_attention_heads
        % text_config.num_key_value_heads,
        "head_dim must be even": text_config.head_dim % 2,
        f"num_image_tokens must be (image_size / patch_size)^2 = {num_patches}": any(
            number not in (None, num_patches) for number in stated
        ),
    }
    for message, is_refused in refused.items():
        if is_refused:
            raise CheckpointError(f"config.json: {message}; other values are not supported")
    return config


# --------------------------------------------------------------------------- tokenizer.json


def read_tokenizer(folder: Path, entries: dict, config) -> Tokenizer:
    """Reads tokenizer.json and checks that it is the one the weights were trained with."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no tokenizer.json")
    refuse_lfs_pointer(path)
    with tokenizer_errors(path):
        tokenizer = Tokenizer.from_file(str(path))
        # A file that transformers has saved may hold both, from training. Applied here, padding would come
        # out on the wrong side and after the newline, and a long prompt would lose its end without a word.
        tokenizer.no_padding()
        tokenizer.no_truncation()

    expected = {
        "<image>": config.image_token_index,
        "<pad>": config.pad_token_id,
        "<bos>": entries.get("bos_token_id"),
        "<eos>": entries.get("eos_token_id"),
        "\n": None,
    }
    for token, token_id in expected.items():
        found = tokenizer.token_to_id(token)
        if found is None:
            raise CheckpointError(f"{path} has no {token!r} token: it is not PaliGemma's")
        if token_id is not None and found != token_id:
            raise CheckpointError(f"{path}: {token} has the id {found}, but config.json says {token_id}")
    largest, vocab_size = max(tokenizer.get_vocab().values()), config.text_config.vocab_size
    if largest >= vocab_size:
        raise CheckpointError(f"{path} has ids up to {largest}, but config.json's vocab_size is {vocab_size}")
    return tokenizer


def check_tokenizer(tokenizer: Tokenizer, folder, prompts: Iterable[str] = ()):
    """Refuses a tokenizer that reads or writes text in another way than PaliGemma's.

    The text of a prompt must come out as it went in, its special tokens as one id each: else the model
    is asked something else, or its answer is garbled, without a word.
    """
    path, probe = Path(folder) / "tokenizer.json", "<image><bos>a cat\n"
    if getattr(tokenizer.model, "dropout", None):
        raise CheckpointError(f"{path} has a dropout, which is for training: set it to null")
    special = [tokenizer.token_to_id(token) for token in ("<image>", "<bos>", "\n")]
    for given in (probe, " Cat 7", *prompts):
        with tokenizer_errors(path):
            ids = tokenizer.encode(given, add_special_tokens=False).ids
            text = tokenizer.decode(ids, skip_special_tokens=False)
            merged = None if given is probe else merged_ids(tokenizer, given)
        if given is probe:
            is_right = text == probe and [*ids[:2], ids[-1]] == special
        else:
            is_right = merged is None or (text == given and merged in ([], ids))
        if not is_right:
            made = short(text) if text != given else "other tokens"
            raise CheckpointError(f"{path} makes {made} of {short(given)}: it is not PaliGemma's")


def merged_ids(tokenizer: Tokenizer, text: str) -> list[int] | None:
    """The tokens of a text by the merges of the vocabulary alone, as PaliGemma's tokenizer has them.

    None where these need not be its tokens: with letters that are not of ASCII, or unknown, or with one
    of the added tokens in it. [] where the vocabulary has no merges to go by.
    """
    spaced, model = text.replace(" ", "▁"), tokenizer.model
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    is_known = text.isascii() and all(tokenizer.token_to_id(letter) is not None for letter in spaced)
    if not is_known or any(token in text or token in spaced for token in added):
        return None
    has_merges = isinstance(model, BPE) and not model.ignore_merges
    return [token.id for token in model.tokenize(spaced)] if has_merges else []


class GuardedTokenizer:
    """A tokenizer that ends in a CheckpointError where it fails on a prompt or an answer.

    A learner who gives it something else than text or numbers gets tokenizers' own error.
    """

    NOT_ITS_OWN = (TypeError, OverflowError)

    def __init__(self, tokenizer: Tokenizer, folder):
        self.tokenizer, self.path = tokenizer, Path(folder) / "tokenizer.json"

    def encode(self, *args, **kwargs):
        with tokenizer_errors(self.path, self.NOT_ITS_OWN):
            return self.tokenizer.encode(*args, **kwargs)

    def decode(self, *args, **kwargs) -> str:
        with tokenizer_errors(self.path, self.NOT_ITS_OWN):
            return self.tokenizer.decode(*args, **kwargs)

    def __getattr__(self, name: str):
        return getattr(self.tokenizer, name)


@contextlib.contextmanager
def tokenizer_errors(path: Path, passes: tuple[type[Exception], ...] = ()):
    """Turns whatever tokenizers ends in into a CheckpointError, its panics too, but for what `passes`.

    They are no Exception, and print lines of their own to stderr.
    """
    try:
        with silenced_stderr():
            yield
    except passes:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} cannot be read as a tokenizer: {reason:.200}") from error


@contextlib.contextmanager
def silenced_stderr():
    """Lets nothing through that a library writes to stderr by itself, past Python."""
    try:
        kept = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


# ------------------------------------------------------------------------------ safetensors


class StoredTensor(NamedTuple):
    """Where a tensor lies and what it is, known from the head of its file."""

    file: Path
    key: str  # its name in the file
    shape: tuple[int, ...]
    dtype: torch.dtype


def hub_name(key: str) -> str:
    """The hub's name of a tensor, which is also that of the parameter here.

    Layouts seen, next to the hub's own:
      model.language_model.layers.…, model.vision_tower.…   state dicts of transformers since 4.52
      language_model.layers.…                               without `model.`, like these
      vision_tower.encoder.…                                files of transformers 5: no `vision_model.`
      lm_head.weight                                        at the top in both
    """
    name = "language_model." + key if key == "lm_head.weight" else key.removeprefix("model.")
    for part, inner in (("vision_tower.", "vision_model."), ("language_model.", "model.")):
        rest = name.removeprefix(part)
        if rest != name and not rest.startswith((inner, "lm_head.")):
            name = part + inner + rest
    return name


def refuse_lfs_pointer(path: Path):
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            how = f"run `git lfs pull` in {path.parent}, or {download_of(path.parent)}"
            if path.name in MASK_FILES:  # which that download does not hold
                how = "see paligemma-3b-pt-224/GET_THE_WEIGHTS.md, Masks"
            raise CheckpointError(f"{path} is a git-lfs pointer, not the file itself: {how}")


def weight_files(folder: Path) -> list[Path]:
    """model.safetensors, or else the shards that model.safetensors.index.json names."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        hint = f"get them with {download_of(folder)}"
        if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
            hint = "only safetensors files are read, since a pickled .bin or .pt could run any code"
        raise CheckpointError(f"{folder} has no weights (model.safetensors or {index.name}): {hint}")

    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: weight_map is missing or empty")
    files = []
    for name in sorted(set(map(str, weight_map.values()))):
        # Told from the name alone: in the hub's cache the files are links to elsewhere.
        if name != Path(name).name or "\\" in name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{index} names {name!r}, which is not a safetensors file of this folder")
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name} is missing, but {index.name} names it")
        files.append(folder / name)
    return files


def find_tensors(files: list[Path]) -> dict[str, StoredTensor]:
    """What the files hold, by the hub's names; only their heads are read."""
    tensors = {}
    for file in files:
        refuse_lfs_pointer(file)
        try:
            with safe_open(file, framework="pt") as stored:
                for key in stored.keys():  # noqa: SIM118 (not a dict)
                    head = stored.get_slice(key)
                    if head.get_dtype() not in DTYPES:
                        raise CheckpointError(f"{file}: {key} is {head.get_dtype()}, not one of {[*DTYPES]}")
                    if hub_name(key) in tensors:
                        raise CheckpointError(f"{file}: {key} is there twice, also under another name")
                    tensors[hub_name(key)] = StoredTensor(
                        file, key, tuple(head.get_shape()), DTYPES[head.get_dtype()]
                    )
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} is damaged or not complete, get it again: {error}") from error
    return tensors


def read_tensor(tensor: StoredTensor) -> torch.Tensor:
    """Maps one tensor; its pages leave memory with the last reference to it."""
    with safe_open(tensor.file, framework="pt") as stored:
        return stored.get_tensor(tensor.key)


def untie(tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Leaves only the embedding table of the two tied tensors, whichever of them is stored."""
    tensors = dict(tensors)
    lm_head = tensors.pop(LM_HEAD, None)
    if lm_head is None:
        return tensors
    embedding = tensors.setdefault(EMBEDDING, lm_head)
    if not torch.equal(read_tensor(embedding).to(lm_head.dtype), read_tensor(lm_head)):
        raise CheckpointError("lm_head and embed_tokens differ, but in PaliGemma they are one (tied)")
    return tensors


def compare_sizes(config, tensors: dict[str, StoredTensor]):
    """Holds config.json's sizes against the weights, before a model of these sizes is made.

    Here only what would make a model far too large is found; compare names every difference.
    """
    text, vision = config.text_config, config.vision_config
    tower = "vision_tower.vision_model."
    patch, place = f"{tower}embeddings.patch_embedding.weight", f"{tower}embeddings.position_embedding.weight"
    stated = {
        "text_config's vocab_size and hidden_size": (EMBEDDING, (text.vocab_size, text.hidden_size)),
        "vision_config's hidden_size, num_channels and patch_size": (
            patch,
            (vision.hidden_size, vision.num_channels, vision.patch_size, vision.patch_size),
        ),
        "(image_size / patch_size)^2 and vision_config's hidden_size": (
            place,
            (vision.num_patches, vision.hidden_size),
        ),
    }
    for what, (name, shape) in stated.items():
        if name in tensors and tensors[name].shape != shape:
            raise CheckpointError(
                f"config.json does not fit the weights: {what} are {list(shape)}, "
                f"but {name} is {list(tensors[name].shape)}"
            )
    for part, count in (("language_model.model.", text.num_hidden_layers),
                        (f"{tower}encoder.", vision.num_hidden_layers)):  # fmt: skip
        stored = re.compile(re.escape(part) + r"layers\.(\d{1,6})\.")
        layers = {match[1] for match in map(stored.match, tensors) if match}
        if count > len(layers):
            raise CheckpointError(
                f"config.json does not fit the weights: num_hidden_layers is {count}, "
                f"but there are {len(layers)} {part}layers"
            )


def compare(tensors: dict[str, StoredTensor], parameters: dict[str, torch.Tensor], learners: bool = False):
    """Refuses a checkpoint whose tensors are not exactly the model's.

    learners: the model is a learner's, and it is more likely wrong than the checkpoint.
    """
    words = ("missing", "unexpected", "of the wrong shape")
    if learners:
        words = ("that only your model has", "that only the checkpoint has", "of another shape there")
    wrong = {
        words[0]: sorted(parameters.keys() - tensors.keys()),
        words[1]: sorted(tensors.keys() - parameters.keys()),
        words[2]: [
            f"{name} {list(tensors[name].shape)} instead of {list(parameter.shape)}"
            for name, parameter in parameters.items()
            if name in tensors and tensors[name].shape != parameter.shape
        ],
    }
    most = 3
    if learners:  # who knows what is in a layer
        most = 2
        wrong = {what: [re.sub(r"^.*?(?=layers\.)", "", name) for name in wrong[what]] for what in words}
    reports = []
    for what, names in wrong.items():
        if names:
            more = ", ..." if len(names) > most else ""
            reports.append(f"{len(names)} {what} ({', '.join(names[:most])}{more})")
    if reports:
        reports = "; ".join(reports)
        raise CheckpointError(
            f"your model and the checkpoint do not fit; parameters {reports}: `python -m pytest` says more"
            if learners
            else f"the weights do not fit config.json; tensors {reports}"
        )


# ---------------------------------------------------------------------------- the whole model


def choose_dtype(
    precision: str, device: torch.device, tensors: dict[str, StoredTensor]
) -> torch.dtype | None:
    """What the weights are to be held in; None for `stored`, each in its own.

    `auto`: on a GPU bfloat16, or float16 where that is unknown; on a CPU what is stored, so
    that it can be mapped. Except float16: CPUs lack the instructions (a prompt took seven times as
    long as in bfloat16 where this was measured) and bfloat16 is as small.
    """
    if precision != "auto":
        return None if precision == "stored" else PRECISIONS[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "mps":
        return torch.bfloat16 if torch.backends.mps.is_macos_or_newer(14, 0) else torch.float16
    sizes = Counter()
    for tensor in tensors.values():
        sizes[tensor.dtype] += math.prod(tensor.shape)
    stored = sizes.most_common(1)[0][0]
    return torch.bfloat16 if stored == torch.float16 else stored


def free_memory(device: torch.device) -> int:
    """Bytes that a program may still take on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def refuse_too_large(tensors: dict[str, StoredTensor], dtype: torch.dtype, device: torch.device):
    """Stops before the machine runs out of memory, and says what would fit."""
    # A tenth more than the weights, for the tensors in between.
    need = 1.1e-9 * sum(math.prod(tensor.shape) for tensor in tensors.values())  # GB a byte
    is_cuda = device.type == "cuda"
    free = free_memory(device)
    if need * dtype.itemsize <= free / 1e9:
        return
    if dtype.itemsize > 2:
        hint = f"--precision bfloat16 needs {need * 2:.2f} GB"
    elif is_cuda:
        hint = "--device cpu needs none of it"
    elif dtype.itemsize == 2 and device.type == "cpu":
        hint = f"--precision int8 needs {need:.2f} GB, --model paligemma-tiny less"
    else:
        hint = "--model paligemma-tiny needs less"
    name = str(dtype).removeprefix("torch.")
    raise CheckpointError(
        f"not enough memory: in {name} the model needs {need * dtype.itemsize:.2f} GB, "
        f"and {free / 1e9:.2f} GB of {device.type} memory are free; {hint}"
    )


def load_tensors(
    tensors: dict[str, StoredTensor], dtype: torch.dtype | None, device: torch.device
) -> dict[str, torch.Tensor]:
    """The tensors themselves: mapped where nothing is to be changed, else converted one by one.

    The largest come first: while it is converted a tensor is there twice, and then there is still
    room for it.
    """
    mapped = {tensor.file: safe_open(tensor.file, framework="pt") for tensor in tensors.values()}
    loaded = {}
    largest_first = sorted(tensors, key=lambda name: -math.prod(tensors[name].shape))
    total = sum(math.prod(tensor.shape) * tensor.dtype.itemsize for tensor in tensors.values())
    with bar(total=total, desc="Loading", unit="B", unit_scale=True, delay=1, leave=False) as progress:
        for name in largest_first:
            tensor = tensors[name]
            if dtype in (None, tensor.dtype) and device.type == "cpu":
                loaded[name] = mapped[tensor.file].get_tensor(tensor.key)
            else:
                loaded[name] = read_tensor(tensor).to(device, dtype)
            progress.update(math.prod(tensor.shape) * tensor.dtype.itemsize)
    return loaded


class WithoutWeights(TorchFunctionMode):
    """Puts the weights of a new model on the meta device, and leaves out nn.init.normal_.

    torch.nn makes its weights with torch.empty, since random numbers come in later. Whatever is
    made with its numbers (a table of angles, say) must stay, because no checkpoint brings it back.
    The table of nn.Embedding is filled by normal_: on the meta device there is nothing to fill,
    but PyTorch would import half of itself and sympy to find that out, a second of the start.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.nn.init.normal_:
            return kwargs["tensor"]
        if function is torch.empty:
            kwargs = kwargs | {"device": "meta"}
        return function(*args, **kwargs)


def load_hf_model(model_path, device="cpu", precision: str = "auto", model_set: ModelSet | None = None):
    """Loads a checkpoint folder of the hub's format.

    device: what torch.device takes. precision: auto, float32, bfloat16, float16, or stored: each
    tensor in its own dtype, which on a CPU takes no memory before it is read.
    model_set: whose modules, the reference's unless given.
    Returns the model of the set, in eval mode, and its tokenizers.Tokenizer.
    Raises CheckpointError, with a message of one line, for anything that cannot be used, and
    OSError for what cannot be opened.
    """
    folder, device = Path(model_path), torch.device(device)
    entries = read_entries(folder)
    model_set = model_set or import_set(1)
    config = read_config(entries, model_set)
    tokenizer = read_tokenizer(folder, entries, config)

    files = weight_files(folder)
    tensors = untie(find_tensors(files))
    compare_sizes(config, tensors)
    with WithoutWeights():
        model = model_set.decoder.PaliGemmaForConditionalGeneration(config)
    parameters = {name: tensor for name, tensor in model.state_dict().items() if name != LM_HEAD}
    compare(tensors, parameters, learners=not model_set.is_reference)
    dtype = choose_dtype(precision, device, tensors)
    if dtype is not None:
        refuse_too_large(tensors, dtype, device)
    # strict=False for lm_head, which is tied below; all names were compared.
    model.load_state_dict(load_tensors(tensors, dtype, device), strict=False, assign=True)
    model.language_model.tie_weights()
    # The weights are there already; a learner's module may hold other tensors.
    return model.to(device).eval(), tokenizer


# --------------------------------------------------------------------------- the mask decoder


@contextlib.contextmanager
def damage_told(path: Path):
    """What goes wrong while a file is read becomes a CheckpointError: damage raises almost anything."""
    try:
        yield
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:
        why = " ".join(str(error).split())
        raise CheckpointError(f"{path} is damaged or not complete, get it again: {why}") from error


def npz_heads(path: Path) -> dict[str, StoredTensor]:
    """What the arrays of an .npz file are; only their heads are read."""
    # Version 3 differs from 2 in the names of fields alone, which numbers do not have.
    read_head = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
    read_head[3, 0] = read_head[2, 0]
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        # Even a head may unpack to gigabytes. Nobody reads more of an entry than the size that it states.
        if (size := sum(entry.file_size for entry in archive.infolist())) > 8 * MASK_NUMBERS:
            raise CheckpointError(f"{path} unpacks to {size / 1e9:.2f} GB, far more than a mask decoder has")
        for entry in archive.namelist():
            if not entry.endswith(".npy"):
                continue
            with archive.open(entry) as file:
                version = npy_format.read_magic(file)
                if version not in read_head:
                    raise ValueError(f"{entry} has the npy format's version {version[0]}.{version[1]}")
                shape, _, dtype = read_head[version](file)
            name = entry.removesuffix(".npy")
            # A pickled array (of Python objects) is of no dtype of PyTorch's, and so is refused by it.
            arrays[name] = StoredTensor(path, name, shape, NPZ_DTYPES.get(dtype.name, dtype))
    return arrays


def read_npz(path: Path, names: list[str]) -> dict[str, torch.Tensor]:
    # What is too large for float32 becomes infinity, which is refused like other values that are no numbers.
    with np.load(path, allow_pickle=False) as arrays, np.errstate(over="ignore"):
        # With .npy, because a zip may also have a file of that name without it, which NumPy prefers.
        # astype, because a file may also be in the byte order of other machines.
        return {name: torch.from_numpy(arrays[f"{name}.npy"].astype(np.float32)) for name in names}


def make_vqvae(path: Path, tensors: dict[str, StoredTensor], module: ModuleType):
    """The VQ-VAE of the sizes that the tensors have, without weights.

    Refuses a file that lacks one of its tensors, or has it in another shape or dtype. What a file
    holds besides (vae-oid.npz may have averages left from training) is of no use here. Of a file that
    the reference accepts, a learner's module is refused, not the file.
    """
    sizes = {"_vq_vae._embedding": (1, "embedding_dim", 2), "decoder.12.weight": (1, "hidden_dim", 4)}
    entries = {}
    for name, (axis, size, num_axes) in sizes.items():
        if name not in tensors:
            raise CheckpointError(f"{path} has no {name}: it is not the file of a mask decoder")
        if len(tensors[name].shape) != num_axes or not 0 < tensors[name].shape[axis] < MASK_NUMBERS / 128:
            raise CheckpointError(f"{path}: {name} has the shape {list(tensors[name].shape)}")
        entries[size] = tensors[name].shape[axis]
    with WithoutWeights():
        vqvae = mask_decoder_1.MaskVQVAE(mask_decoder_1.MaskConfig(**entries))
    for name, parameter in vqvae.state_dict().items():
        if name not in tensors:
            raise CheckpointError(f"{path} has no {name}")
        shape, dtype = tensors[name].shape, tensors[name].dtype
        if shape != parameter.shape:
            raise CheckpointError(f"{path}: {name} is {list(shape)} instead of {list(parameter.shape)}")
        if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise CheckpointError(f"{path}: {name} holds {dtype}, not floating-point numbers")
    if (size := sum(parameter.numel() for parameter in vqvae.state_dict().values())) > MASK_NUMBERS:
        raise CheckpointError(f"{path} has {size:,} numbers, but a mask decoder has about two million")
    if module is not mask_decoder_1:
        needed = {name: tensors[name] for name in vqvae.state_dict()}
        with WithoutWeights():
            vqvae = module.MaskVQVAE(module.MaskConfig(**entries))
        compare(needed, vqvae.state_dict(), learners=True)
    return vqvae


def load_mask_decoder(folder, module: ModuleType = mask_decoder_1):
    """Loads the VQ-VAE whose words the `<seg>` tokens are, if the checkpoint folder has one, else None.

    It is in mask_decoder.safetensors, or in vae-oid.npz as PaliGemma's authors publish it; the names
    in both are those of MaskVQVAE, and its sizes are read off their shapes.
    Returns module's MaskVQVAE, in float32, on the CPU, in eval mode. Raises CheckpointError, with a
    message of one line, for a file that cannot be used.
    """
    path = next((Path(folder) / name for name in MASK_FILES if (Path(folder) / name).is_file()), None)
    if path is None:
        return None
    refuse_lfs_pointer(path)
    is_npz = path.suffix == ".npz"
    with damage_told(path):
        tensors = npz_heads(path) if is_npz else find_tensors([path])
    vqvae = make_vqvae(path, tensors, module)
    names = list(vqvae.state_dict())
    with damage_told(path):
        if is_npz:
            weights = read_npz(path, names)
        else:
            weights = {name: read_tensor(tensors[name]).float() for name in names}
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"{path}: {name} holds values that are no numbers (NaN or infinity)")
    vqvae.load_state_dict(weights, assign=True)
    return vqvae.requires_grad_(False).eval()
