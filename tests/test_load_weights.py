"""Every layout and dtype loads as the same model; whatever does not fit is named in one line."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

import decoder_1
import load_weights
from load_weights import CheckpointError, hub_name, import_set, load_hf_model, read_config
from program.command_line import to_paste
from program.questions import TINY_MODEL
from random_weights.small import (
    gemma_like_tokenizer,
    random_checkpoint,
    random_tensors,
    small_config,
    write_config,
    write_tensors,
)

EMBEDDING = "language_model.model.embed_tokens.weight"


@pytest.fixture
def folder(checkpoint, tmp_path):
    """A checkpoint of the test's own, to be spoilt."""
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))


@pytest.fixture(scope="module")
def tensors(checkpoint):
    return load_file(checkpoint / "model.safetensors")


def weights(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def assert_loaded(model, tensors):
    """The model's parameters are these, and no others."""
    loaded = weights(model)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor), name
    assert model.language_model.lm_head.weight is model.language_model.model.embed_tokens.weight


def refuse(folder, *words, **options):
    """Loading fails with one line that holds these words; returns the line."""
    with pytest.raises(CheckpointError) as caught:
        load_hf_model(folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


# ----------------------------------------------------------------- layouts and dtypes


def test_model_and_tokenizer(checkpoint, tensors):
    model, tokenizer = load_hf_model(str(checkpoint))
    assert_loaded(model, tensors)
    assert isinstance(model, decoder_1.PaliGemmaForConditionalGeneration)
    assert not any(module.training for module in model.modules())
    assert tokenizer.encode("a cat\n", add_special_tokens=False).tokens == ["a", "▁", "cat", "\n"]


def transformers_4(name):
    """A state dict of transformers since 4.52: one more `model.` in front and one less inside."""
    return "model." + name.replace("language_model.model.", "language_model.")


def transformers_5(name):
    return transformers_4(name).replace("vision_tower.vision_model.", "vision_tower.")


LAYOUTS = {
    "hub": lambda name: name,
    "state dict of transformers 4": transformers_4,
    "state dict of transformers 5": transformers_5,
    "file of transformers 5": lambda name: name.replace("vision_tower.vision_model.", "vision_tower."),
    "without model.": lambda name: transformers_5(name).removeprefix("model."),
}


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(folder, tensors, layout, shards):
    (folder / "model.safetensors").unlink()
    write_tensors(folder, {LAYOUTS[layout](name): tensor for name, tensor in tensors.items()}, shards)
    assert_loaded(load_hf_model(folder)[0], tensors)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_hub_name_keeps_the_hubs_names(tensors, layout):
    assert [hub_name(LAYOUTS[layout](name)) for name in tensors] == list(tensors)


@pytest.mark.parametrize("lm_head", ["lm_head.weight", "language_model.lm_head.weight"])
@pytest.mark.parametrize("with_embedding", [True, False])
def test_lm_head_present_or_alone(folder, tensors, lm_head, with_embedding):
    stored = tensors | {lm_head: tensors[EMBEDDING].clone()}
    if not with_embedding:
        del stored[EMBEDDING]
    write_tensors(folder, stored)
    assert_loaded(load_hf_model(folder)[0], tensors)


def test_lm_head_that_is_not_tied(folder, tensors):
    write_tensors(folder, tensors | {"lm_head.weight": tensors[EMBEDDING] + 1})
    refuse(folder, "lm_head", "embed_tokens")


def test_lm_head_of_another_dtype(folder, tensors):
    tied = tensors[EMBEDDING].bfloat16()
    write_tensors(folder, tensors | {EMBEDDING: tied.float(), "lm_head.weight": tied})
    assert_loaded(load_hf_model(folder)[0], tensors | {EMBEDDING: tied.float()})


def test_neither_lm_head_nor_embedding(folder, tensors):
    del (stored := dict(tensors))[EMBEDDING]
    write_tensors(folder, stored)
    refuse(folder, "1 missing", EMBEDDING)


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes(folder, tensors, stored, precision):
    write_tensors(folder, {name: tensor.to(stored) for name, tensor in tensors.items()})
    if precision == "auto":
        # CPUs are slow in float16.
        dtype = torch.bfloat16 if stored == torch.float16 else stored
    else:
        dtype = getattr(torch, precision)
    expected = {name: tensor.to(stored).to(dtype) for name, tensor in tensors.items()}
    assert_loaded(load_hf_model(folder, precision=precision)[0], expected)


def test_auto_goes_by_the_weights_and_not_by_what_config_says(folder, tensors):
    write_tensors(folder, {name: tensor.bfloat16() for name, tensor in tensors.items()})
    write_config(folder, small_config(torch_dtype="float32"))
    assert load_hf_model(folder)[0].vision_tower.vision_model.post_layernorm.weight.dtype == torch.bfloat16


def test_mixed_dtypes_become_that_of_the_most(folder, tensors):
    stored = {name: t.float() if "norm" in name else t.bfloat16() for name, t in tensors.items()}
    write_tensors(folder, stored)
    assert {p.dtype for p in load_hf_model(folder)[0].parameters()} == {torch.bfloat16}


def test_other_dtypes_are_refused(folder, tensors):
    write_tensors(folder, tensors | {EMBEDDING: tensors[EMBEDDING].to(torch.int8)})
    refuse(folder, "model.safetensors", EMBEDDING, "I8")


def test_loaded_or_filled_by_hand_it_answers_alike(folder, tensors):
    """A model that was loaded computes what the same weights compute without the loader."""
    model, _ = load_hf_model(folder)
    plain = decoder_1.PaliGemmaForConditionalGeneration(model.config)
    plain.load_state_dict(tensors, strict=False)
    input_ids = torch.tensor([[model.config.image_token_index] * 9 + [2, 265, 266, 260]])
    batch = {"input_ids": input_ids, "pixel_values": torch.rand(1, 3, 12, 12)}
    with torch.no_grad():
        torch.testing.assert_close(model(**batch)["logits"], plain(**batch)["logits"])


def test_training_a_loaded_model_leaves_its_file_alone(folder, tensors):
    model, _ = load_hf_model(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.requires_grad
            parameter.add_(1)
    assert torch.equal(load_file(folder / "model.safetensors")[EMBEDDING], tensors[EMBEDDING])


# ----------------------------------------------------------------- memory and time

MEASURE = """
import sys, load_weights
def memory(entry):
    status = dict(line.split(":") for line in open("/proc/self/status"))
    return int(status[entry].split()[0]) * 1024
load_weights.load_hf_model(sys.argv[3])                               # imports all that there is to import
before, own_before = memory("VmRSS"), memory("RssAnon")               # RssAnon: what is no file
model, _ = load_weights.load_hf_model(sys.argv[1], precision=sys.argv[2])
own_after = memory("RssAnon")
total = sum(parameter.sum().item() for parameter in model.parameters())    # touches every page
size = sum(parameter.numel() * parameter.itemsize for parameter in model.parameters())
print(own_after - own_before, memory("VmHWM") - before, size)
"""


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    """54 million parameters in many matrices, as in the 3B model."""
    config = small_config(
        text=dict(hidden_size=512, intermediate_size=2048, num_hidden_layers=16, head_dim=16)
    )
    folders = {}
    for dtype in (torch.float32, torch.bfloat16):
        folders[dtype] = random_checkpoint(tmp_path_factory.mktemp("larger"), config, dtype=dtype, shards=2)
    return folders


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's account of memory")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_peak_memory(larger, checkpoint, stored, precision):
    """At most 1.1 times the weights in the chosen dtype; what is mapped is not copied."""
    command = [sys.executable, "-c", MEASURE, larger[stored], precision, checkpoint]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    own, peak, size = map(int, result.stdout.split())
    assert size == sum(p.numel() for p in load_hf_model(larger[stored])[0].parameters()) * (
        4 if precision == "float32" else 2
    )
    assert peak < 1.1 * size + 8e6  # 8 MB: whatever Python does meanwhile
    if stored == getattr(torch, precision):
        assert own < 0.2 * size


def test_no_progress_bar_for_what_is_quick(checkpoint, capfd):
    load_hf_model(checkpoint, precision="bfloat16")
    assert capfd.readouterr().err == ""


def test_progress_bar_for_what_takes_longer(checkpoint, capfd, monkeypatch):
    bar = load_weights.bar
    impatient = {"delay": 1e-9, "mininterval": 0}
    monkeypatch.setattr(load_weights, "bar", lambda **options: bar(**options | impatient))
    load_hf_model(checkpoint, precision="bfloat16")
    assert "Loading:" in capfd.readouterr().err


def available(monkeypatch, size):
    class Memory:
        pass

    Memory.available = size
    monkeypatch.setattr(psutil, "virtual_memory", Memory)


def test_too_little_memory_says_what_would_fit(checkpoint, tensors, monkeypatch):
    numbers = sum(tensor.numel() for tensor in tensors.values())
    available(monkeypatch, numbers * 3)
    message = refuse(checkpoint, "float32", "--precision bfloat16")
    need, free, less = map(float, re.findall(r"([\d.]+) GB", message))
    assert (need, free, less) == tuple(round(numbers * x / 1e9, 2) for x in (4.4, 3, 2.2))
    load_hf_model(checkpoint, precision="bfloat16")

    available(monkeypatch, numbers)
    refuse(checkpoint, "bfloat16", "--precision int8 needs", "paligemma-tiny", precision="bfloat16")
    available(monkeypatch, numbers * 5)
    load_hf_model(checkpoint)


# ----------------------------------------------------------------- config.json


def test_defaults_of_the_3b_config():
    """What the hub's config.json leaves out."""
    entries = small_config()
    del entries["text_config"]["head_dim"], entries["vision_config"]["image_size"]
    del entries["text_config"]["num_image_tokens"], entries["vision_config"]["num_image_tokens"]
    config = read_config(entries, import_set(1))
    assert (config.text_config.head_dim, config.text_config.rms_norm_eps) == (256, 1e-6)
    assert config.text_config.rope_theta == 10_000
    assert (config.vision_config.image_size, config.vision_config.layer_norm_eps) == (224, 1e-6)
    assert (config.pad_token_id, config.ignore_index) == (0, -100)


def test_both_generations_of_config():
    old = small_config(text=dict(rope_theta=500.0, pad_token_id=0))
    rope = {"rope_theta": 500.0, "rope_type": "default"}
    new = small_config(text=dict(rope_parameters=rope, pad_token_id=0))
    new["image_token_id"] = new.pop("image_token_index")
    new["dtype"] = new.pop("torch_dtype")
    del new["pad_token_id"], new["projection_dim"]
    assert read_config(old, import_set(1)) == read_config(new, import_set(1))
    assert read_config(old, import_set(1)).text_config.rope_theta == 500


def test_null_is_absent():
    assert read_config(small_config(pad_token_id=None), import_set(1)).pad_token_id == 0


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (dict(model_type="llava"), ["'llava'", "paligemma"]),
        (dict(model_type=None), ["model_type", "paligemma"]),
        (dict(text={"model_type": "gemma2"}), ["PaliGemma 2", "gemma2", "supported"]),
        (dict(text={"model_type": "gemma3_text"}), ["'gemma3_text'", "supported"]),
        (dict(text_config=None), ["text_config"]),
        (dict(vision_config=[]), ["vision_config"]),
        (dict(text={"hidden_size": None}), ["text_config", "'hidden_size'", "missing"]),
        (dict(vision={"hidden_size": "24"}), ["vision_config", "hidden_size", "int", "'24'"]),
        (dict(vision={"num_hidden_layers": True}), ["num_hidden_layers", "int", "True"]),
        (dict(text={"num_hidden_layers": 2.0}), ["num_hidden_layers", "int"]),
        (dict(text={"rms_norm_eps": "1e-6"}), ["rms_norm_eps", "float"]),
        (dict(image_token_index=None), ["image_token_index", "missing"]),
        (dict(text={"num_key_value_heads": 0}), ["num_key_value_heads", "positive"]),
        (dict(text={"intermediate_size": -1}), ["intermediate_size", "positive"]),
        (dict(vision={"num_attention_heads": 0}), ["num_attention_heads", "positive"]),
        (dict(text={"rope_parameters": [1]}), ["rope_parameters", "object"]),
        (dict(text={"num_image_tokens": [9]}), ["num_image_tokens", "9"]),
        (dict(text={"num_key_value_heads": 3}), ["num_key_value_heads", "multiple"]),
        (dict(vision={"num_attention_heads": 5}), ["num_attention_heads", "multiple"]),
        (dict(text={"head_dim": 9}), ["head_dim", "even"]),
        (dict(text={"attention_bias": True}), ["attention_bias"]),
        (dict(text={"rope_parameters": {"rope_theta": 1e4, "rope_type": "linear"}}), ["rope_type"]),
        (dict(text={"rope_scaling": {"type": "linear", "factor": 2}}), ["rope_type"]),
        (dict(vision={"hidden_act": "quick_gelu"}), ["hidden_act"]),
        (dict(text={"num_image_tokens": 16}), ["num_image_tokens", "9"]),
        (dict(vision={"image_size": 16, "num_image_tokens": 9}), ["num_image_tokens", "16"]),
        (dict(projection_dim=24), ["projection_dim", "hidden_size"]),
        (dict(text={"num_hidden_layers": 10**9}), ["num_hidden_layers", "from 1 to 1000", "1000000000"]),
        (dict(text={"num_hidden_layers": 900}), ["num_hidden_layers is 900", "there are 3"]),
        (dict(vision={"num_hidden_layers": 3}), ["num_hidden_layers is 3", "there are 2"]),
        (dict(text={"intermediate_size": 2**70}), ["intermediate_size", "from 1 to"]),
        (dict(text={"rms_norm_eps": float("inf")}), ["rms_norm_eps", "inf"]),
        (dict(text={"rms_norm_eps": float("nan")}), ["rms_norm_eps", "nan"]),
        (dict(text={"rms_norm_eps": 10**400}), ["rms_norm_eps", "from 1e-20 to 0.1"]),
        (dict(vision={"layer_norm_eps": 5}), ["layer_norm_eps", "5"]),
        (dict(text={"rope_theta": 1e300}), ["rope_theta", "1e+300"]),
        (dict(vision={"image_size": 10**5}), ["image_size", "100000"]),
        (dict(vision={"image_size": 2**14, "patch_size": 1}), ["num_patches", str(2**28)]),
        (dict(text={"vocab_size": 2000}), ["vocab_size and hidden_size", "[2000, 32]", "[1502, 32]"]),
        (dict(vision={"image_size": 24}), ["[36, 24]", "position_embedding", "[9, 24]"]),
        (dict(image_token_index=-1), ["image_token_index", "-1"]),
        (dict(ignore_index=2**64), ["ignore_index", str(2**64)]),
        (dict(model_type="\ud800"), ["model_type", "ud800"]),
    ],
    ids=str,
)
def test_configs_that_are_refused(overrides, words, folder):
    write_config(folder, small_config(**overrides))
    refuse(folder, "config.json", *words)


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe{}", b"[" * 100_000])
def test_config_that_is_not_json(folder, content):
    (folder / "config.json").write_bytes(content)
    refuse(folder, "config.json", "JSON")


def test_folders_that_are_not_checkpoints(tmp_path):
    refuse(tmp_path / "none", "none", "does not exist")
    refuse(tmp_path, "is empty", "hf download")
    (tmp_path / "file").write_text("")
    refuse(tmp_path / "file", "is a file")
    refuse(tmp_path, "no config.json", "hf download")


@pytest.mark.parametrize(
    ("name", "checkpoint"),
    [
        ("paligemma-3b-mix-224", "paligemma-3b-mix-224"),
        ("paligemma-3b-pt-448", "paligemma-3b-pt-448"),
        ("paligemma-3b-ft-vqav2-448", "paligemma-3b-ft-vqav2-448"),
        ("paligemma-3b-pt-224-keras", "paligemma-3b-mix-224"),  # not in a format that is read here
        ("my weights", "paligemma-3b-mix-224"),
    ],
)
def test_what_to_download(name, checkpoint, tmp_path):
    """A folder says by its name which checkpoint belongs there; the line can be pasted as it is."""
    folder = tmp_path / name
    folder.mkdir()
    line = refuse(folder, "is empty").split("`")[1]
    assert line == f"hf download google/{checkpoint} --revision bfloat16 --local-dir {to_paste(folder)}"
    write_config(folder, small_config())
    (folder / "tokenizer.json").write_text(POINTER)
    refuse(folder, "git lfs pull", line)


def test_a_name_on_the_hub(tmp_path, monkeypatch):
    """As it is given to transformers; what is downloaded where it points to is then found."""
    monkeypatch.chdir(tmp_path)
    name = "google/paligemma-3b-mix-224"
    refuse(name, "does not exist", f"`hf download {name} --revision bfloat16 --local-dir {Path(name)}`")
    assert "hf download" not in refuse("google/paligemma2-3b-mix-224", "does not exist")


# ----------------------------------------------------------------- tokenizer.json


def spoilt_tokenizer(folder, change):
    """Writes tokenizer.json with its entries changed."""
    path = folder / "tokenizer.json"
    entries = json.loads(path.read_text(encoding="utf-8"))
    change(entries)
    path.write_text(json.dumps(entries), encoding="utf-8")


def rename(old, new):
    def change(entries):
        for token in entries["added_tokens"]:
            if token["content"] == old:
                token["content"] = new
        vocab = entries["model"]["vocab"]
        if old in vocab:
            vocab[new] = vocab.pop(old)

    return change


@pytest.mark.parametrize("token", ["<image>", "<bos>", "<eos>", "<pad>", "\n"])
def test_tokenizer_that_lacks_a_token(folder, token):
    spoilt_tokenizer(folder, rename(token, "<other>"))
    refuse(folder, "tokenizer.json", repr(token))


@pytest.mark.parametrize(
    ("entry", "token"),
    [
        ("image_token_index", "<image>"),
        ("pad_token_id", "<pad>"),
        ("bos_token_id", "<bos>"),
        ("eos_token_id", "<eos>"),
    ],
)
def test_tokenizer_whose_ids_do_not_fit(folder, entry, token):
    write_config(folder, small_config(**{entry: 77}))
    refuse(folder, "tokenizer.json", token, "77", str(gemma_like_tokenizer().token_to_id(token)))


def test_tokenizer_that_is_larger_than_the_vocabulary(folder):
    tokenizer = gemma_like_tokenizer()
    tokenizer.add_tokens([f"<more{i}>" for i in range(20)])
    tokenizer.save(str(folder / "tokenizer.json"))
    refuse(folder, "tokenizer.json", "vocab_size", str(tokenizer.get_vocab_size() - 1))


def test_padding_and_truncation_of_training_are_switched_off(folder, tmp_path):
    """transformers saves both in tokenizer.json, as they were last used."""
    saved = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="<pad>")
    saved(["a cat"], padding="max_length", truncation=True, max_length=6)
    saved.save_pretrained(tmp_path / "saved")
    entries = json.loads((tmp_path / "saved" / "tokenizer.json").read_text(encoding="utf-8"))
    assert entries["padding"] and entries["truncation"]  # else this would test nothing
    _, right = load_hf_model(folder)
    shutil.copy(tmp_path / "saved" / "tokenizer.json", folder)
    _, tokenizer = load_hf_model(folder)
    for prompt in ("a", "<image>" * 9 + "<bos>detect cat ; dog\n"):
        ids = tokenizer.encode(prompt, add_special_tokens=False).ids
        assert ids == right.encode(prompt, add_special_tokens=False).ids and 0 not in ids


@pytest.mark.parametrize(
    "change",
    [
        lambda entries: entries["model"]["vocab"].update({"new": 2**40}),
        lambda entries: entries.update(decoder={"type": "x" * 10_000}),
    ],
    ids=["an id of 41 bits", "a long name"],
)
def test_what_tokenizers_ends_in_is_one_line(change, folder, capfd):
    spoilt_tokenizer(folder, change)
    assert len(refuse(folder, "tokenizer.json cannot be read as a tokenizer")) < 400
    assert capfd.readouterr() == ("", "")


def test_a_panic_of_tokenizers_is_one_line(folder, capfd):
    """It is no Exception, and prints lines of its own."""
    tokenizer = gemma_like_tokenizer()
    tokenizer.enable_truncation(4, stride=2)
    entries = json.loads(tokenizer.to_str())
    entries["truncation"]["stride"] = 9
    tokenizer = Tokenizer.from_str(json.dumps(entries))
    with pytest.raises(CheckpointError, match=r"cannot be read as a tokenizer: .*stride"):  # noqa: SIM117
        with load_weights.tokenizer_errors(folder):
            tokenizer.encode("a cat and a dog")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "change",
    [
        lambda entries: entries["added_tokens"].pop(),                # <image>, which is then several tokens
        lambda entries: entries.update(decoder=None),
        lambda entries: entries.update(normalizer={"type": "Prepend", "prepend": "▁"}),
        lambda entries: entries.update(normalizer={"type": "Lowercase"}, decoder={"type": "Fuse"}),
    ],
    ids=["<image> is text", "no decoder", "a space more", "▁ stays"],
)  # fmt: skip
def test_tokenizer_that_reads_or_writes_otherwise(change, folder):
    tokenizer = gemma_like_tokenizer()
    load_weights.check_tokenizer(tokenizer, folder)
    image_id = tokenizer.token_to_id("<image>")
    spoilt_tokenizer(folder, lambda entries: entries["model"]["vocab"].update({"<image>": image_id}))
    spoilt_tokenizer(folder, change)
    with pytest.raises(CheckpointError, match=r"tokenizer.json makes .* of .*: it is not PaliGemma's"):
        load_weights.check_tokenizer(Tokenizer.from_file(str(folder / "tokenizer.json")), folder)


def normalized(*firsts: dict):
    """A change of a tokenizer.json: these come before its own normalizer."""
    return lambda entries: entries.update(
        normalizer={"type": "Sequence", "normalizers": [*firsts, entries["normalizer"]]}
    )


@pytest.mark.parametrize(
    "right", [gemma_like_tokenizer, lambda: Tokenizer.from_file(str(TINY_MODEL / "tokenizer.json"))]
)
@pytest.mark.parametrize(
    "change",
    [
        normalized({"type": "Lowercase"}),
        normalized({"type": "Replace", "pattern": {"String": "detect"}, "content": ""}),
        lambda entries: entries["model"].update(dropout=0.5),
        lambda entries: entries["model"].update(end_of_word_suffix="x"),
    ],
    ids=["lowercase", "a word is lost", "dropout", "letters of another name"],
)
def test_tokenizer_that_reads_a_prompt_otherwise(change, right, tmp_path):
    entries = json.loads(right().to_str())
    change(entries)
    with pytest.raises(CheckpointError, match=r"tokenizer.json (makes|has a dropout)"):
        load_weights.check_tokenizer(Tokenizer.from_str(json.dumps(entries)), tmp_path, ["detect cat"])


def test_tokenizer_that_cuts_words_up(tmp_path):
    entries = json.loads(gemma_like_tokenizer().to_str())
    entries["pre_tokenizer"] = {"type": "FixedLength", "length": 3}
    with pytest.raises(CheckpointError, match="makes other tokens of 'detect cat'"):
        load_weights.check_tokenizer(Tokenizer.from_str(json.dumps(entries)), tmp_path, ["detect cat"])


@pytest.mark.parametrize(
    "right", [gemma_like_tokenizer, lambda: Tokenizer.from_file(str(TINY_MODEL / "tokenizer.json"))]
)
def test_any_prompt_may_be_asked(right, tmp_path):
    prompts = [
        "Detect Cat ; dog",
        "where is it standing?",
        " x ",
        "a  b",
        "%&$@~^|\\{}",
        "ünï 🐈 ▁ cafe\u0301",
        "",
    ]
    prompts += ["<bos> x\ny", "\t", "detect <loc0000>", "x" * 3000]
    load_weights.check_tokenizer(right(), tmp_path, prompts)
    adding = right()
    adding.add_tokens(["detect", "▁▁"])
    load_weights.check_tokenizer(adding, tmp_path, [*prompts, "detect cat"])


def test_a_tokenizer_that_fails_on_a_text(tmp_path, capfd):
    entries = json.loads(gemma_like_tokenizer().to_str())
    normalized({"type": "Replace", "pattern": {"Regex": "(x+x+)+y"}, "content": "q"})(entries)
    tokenizer = load_weights.GuardedTokenizer(Tokenizer.from_str(json.dumps(entries)), tmp_path)
    load_weights.check_tokenizer(tokenizer, tmp_path)
    with pytest.raises(CheckpointError, match=r"tokenizer.json cannot be read as a tokenizer: .*retry"):
        tokenizer.encode("detect " + "x" * 28)
    with pytest.raises(TypeError):  # a learner's mistake, not the file's
        tokenizer.encode(7)
    with pytest.raises(OverflowError):
        tokenizer.decode([-1])
    assert capfd.readouterr() == ("", "")


def test_silenced_stderr_is_heard_again(capfd):
    with load_weights.silenced_stderr():
        os.write(2, b"a library's\n")
    os.write(2, b"ours\n")
    assert capfd.readouterr().err == "ours\n"


@pytest.mark.parametrize("content", [None, "", "{}", "not json"])
def test_tokenizer_missing_or_damaged(folder, content):
    (folder / "tokenizer.json").unlink()
    if content is not None:
        (folder / "tokenizer.json").write_text(content)
    refuse(folder, "tokenizer")


# ----------------------------------------------------------------- safetensors

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69\nsize 12345\n"


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_git_lfs_pointer(folder, file):
    (folder / file).write_text(POINTER)
    refuse(folder, file, "git lfs pull", "hf download")


def sharded(folder, tensors) -> dict:
    """Turns the checkpoint into two shards and returns the index."""
    (folder / "model.safetensors").unlink(missing_ok=True)
    write_tensors(folder, tensors, shards=2)
    return json.loads((folder / "model.safetensors.index.json").read_text())


def test_git_lfs_pointer_in_place_of_a_shard(folder, tensors):
    sharded(folder, tensors)
    (folder / "model-00002-of-00002.safetensors").write_text(POINTER)
    refuse(folder, "model-00002-of-00002.safetensors", "git lfs pull")


def test_shard_missing(folder, tensors):
    sharded(folder, tensors)
    (folder / "model-00002-of-00002.safetensors").unlink()
    refuse(folder, "model-00002-of-00002.safetensors", "missing")


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "..", "", ".", "..\\x", "a/b", 7])
def test_index_that_points_elsewhere(folder, tensors, name):
    index = sharded(folder, tensors)
    shutil.copy(folder / "model-00001-of-00002.safetensors", folder.parent / "model.safetensors")
    index["weight_map"][EMBEDDING] = name
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refuse(folder, "model.safetensors.index.json", repr(str(name)))


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"weight_map": {}}', '{"weight_map": ["x"]}'])
def test_index_that_is_none(folder, tensors, content):
    sharded(folder, tensors)
    (folder / "model.safetensors.index.json").write_text(content)
    refuse(folder, "model.safetensors.index.json")


def test_shards_may_be_links(folder, tensors, tmp_path):
    """As in the hub's cache."""
    (folder / "model.safetensors").rename(tmp_path / "blob")
    try:
        (folder / "model.safetensors").symlink_to(tmp_path / "blob")
    except OSError:
        pytest.skip("no links here")
    assert_loaded(load_hf_model(folder)[0], tensors)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: content[:4],
        lambda content: content[:1000],
        lambda content: content[:-1],
        lambda content: content + b"more",
        lambda content: content[:20] + b"@@@@" + content[24:],
        lambda content: b"\xff" * 8 + content[8:],
    ],
    ids=["empty", "length cut", "head cut", "data cut", "too long", "head damaged", "length damaged"],
)
def test_truncated_or_corrupt_file(folder, spoil):
    path = folder / "model.safetensors"
    path.write_bytes(spoil(path.read_bytes()))
    refuse(folder, "model.safetensors", "damaged")


def test_only_pickled_weights(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refuse(folder, "only safetensors")


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    refuse(folder, "no weights", "hf download")


def test_tensors_missing_unexpected_and_of_the_wrong_shape(folder, tensors):
    names = sorted(tensors)
    stored = dict(tensors)
    for name in names[:5]:
        del stored[name]
    stored |= {f"vision_tower.vision_model.head.{i}": torch.zeros(1) for i in range(4)}
    stored[names[10]] = torch.zeros(7, 5)
    write_tensors(folder, stored)
    shape = list(tensors[names[10]].shape)
    message = refuse(
        folder,
        f"5 missing ({', '.join(names[:3])}, ...)",
        "4 unexpected (vision_tower.vision_model.head.0, ",
        f"1 of the wrong shape ({names[10]} [7, 5] instead of {shape})",
    )
    assert names[3] not in message and "head.3" not in message


def test_tensor_stored_under_two_names(folder, tensors):
    write_tensors(folder, tensors | {"model.language_model.norm.weight": torch.zeros(32)})
    refuse(folder, "model.language_model.norm.weight", "twice")


def test_weights_of_another_size_than_config_says(folder):
    write_config(folder, small_config(text={"num_hidden_layers": 2}))
    refuse(folder, "9 unexpected", "layers.2.")


# ----------------------------------------------------------------- sets


def test_sets_are_never_mixed(checkpoint, tmp_path):
    """Set 0 is made of the `_0` files alone, set 1 of the `_1` files."""
    root = Path(load_weights.__file__).parent
    files = ("vision_transformer", "text_image_token_processor", "decoder")
    files += ("generation", "mask_decoder", "training")
    for name in files:
        text = (root / f"{name}_1.py").read_text(encoding="utf-8")
        for imported in files[:2]:
            text = text.replace(f"from {imported}_1", f"from {imported}_0")
        (tmp_path / f"{name}_0.py").write_text(text, encoding="utf-8")
    program = (
        "import sys, load_weights\n"
        "model_set = load_weights.import_set(int(sys.argv[2]))\n"
        "model, _ = load_weights.load_hf_model(sys.argv[1], model_set=model_set)\n"
        "endings = ('former_0', 'former_1', 'processor_0', 'processor_1', 'decoder_0', 'decoder_1')\n"
        "print(sorted(name for name in sys.modules if name.endswith(endings) and name[:4] != 'mask'),"
        " *(module.__name__ for module in model_set.modules))"
    )
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
    for number in (0, 1):
        command = [sys.executable, "-c", program, checkpoint, str(number)]
        result = subprocess.run(command, capture_output=True, text=True, check=True, env=env, cwd=tmp_path)
        imported = [f"{x}_{number}" for x in ("decoder", "text_image_token_processor", "vision_transformer")]
        assert result.stdout.split("] ") == [
            str(imported)[:-1], " ".join(f"{file}_{number}" for file in files) + "\n"
        ]  # fmt: skip


def test_set_that_is_not_there():
    with pytest.raises(CheckpointError, match="set 7 needs vision_transformer_7, which is not here"):
        import_set(7)


def test_nothing_is_initialized(checkpoint):
    """Building the model costs no random numbers: the state of the generator is as before."""
    state = torch.get_rng_state()
    load_hf_model(checkpoint)
    assert torch.equal(state, torch.get_rng_state())


def test_random_weights_of_another_seed_are_told_apart(folder, tensors):
    """The comparisons above could not pass with any weights."""
    save_file(random_tensors(small_config(), seed=1), folder / "model.safetensors")
    with pytest.raises(AssertionError):
        assert_loaded(load_hf_model(folder)[0], tensors)
