"""speed/: the quick modules give what the plain ones give, and the int8 file can be trusted."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from torch import nn

import inference
import load_weights
from benchmarks import compare
from course.learner_set import mixed_set
from decoder_1 import GemmaAttention, GemmaMLP
from load_weights import CheckpointError, ModelSet
from program import questions
from random_weights.small import random_checkpoint, random_tensors, small_config, write_tensors
from speed import bf16_products, int8_file, int8_products, linear, loading, quickest, sharing, threads
from speed.attention import FusedAttention, FusedGemmaAttention, fuse_attention
from speed.int8_products import quantize, row_sums
from speed.linear import Bf16Linear, Int8Linear, Int8MLP
from speed.loading import load_model
from training_1 import LoRALinear
from vision_transformer_1 import Attention, VisionConfig

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error_of(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Root mean square of the difference, as a part of what is expected."""
    return float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())


# ----------------------------------------------------------------------------- products


@pytest.mark.parametrize("rows", [1, 2, 3, 16, 70])
@pytest.mark.parametrize("outputs", [8, 1024, 1500])
def test_bf16_ways_agree_with_float32(rows, outputs, monkeypatch):
    monkeypatch.setattr(bf16_products, "CONVERTED", 96 * 1000)
    weight, x = random(outputs, 96).bfloat16(), random(rows, 96, seed=1).bfloat16()
    expected = F.linear(x.float(), weight.float())
    ways = [bf16_products.float32_rows, bf16_products.bf16_rows]
    if rows == 1:
        ways += [bf16_products.bf16_row_twice, bf16_products.bf16_row, bf16_products.bf16_vector]
    for way in ways:
        found = way(x, weight)
        assert found.dtype == torch.bfloat16 and found.shape == expected.shape
        assert error_of(found, expected) < 0.003  # bfloat16 keeps 8 bits
        assert torch.backends.mkldnn.enabled, "bf16_row switches it off for others as well"


@pytest.mark.parametrize("rows", [1, 2, 3, 16, 70])
@pytest.mark.parametrize(("outputs", "inputs"), [(8, 128), (1024, 80), (1499, 48)])
def test_int8_ways_agree_with_the_weights_they_hold(rows, outputs, inputs):
    x = random(rows, inputs, seed=1)
    weight, scale = quantize(random(outputs, inputs))
    expected = F.linear(x, weight * scale.float()[:, None])
    both = weight, scale, int8_products.products_of_zeros(row_sums(weight))
    most = 0.015 * 127 / int8_products.middle()  # steps are twice as long with 7 bits
    assert error_of(int8_products.int8_weights(x, *both), expected) < 0.004
    assert error_of(int8_products.int8_both(x, *both), expected) < most
    if rows == 1:
        assert error_of(int8_products.int8_row(x, *both), expected) < most


def test_rounding_is_to_the_nearest_step():
    original = random(300, 200) * torch.logspace(-6, 6, 300)[:, None]
    weight, scale = quantize(original.bfloat16())
    assert weight.dtype == torch.int8 and scale.dtype == torch.bfloat16
    restored = weight * scale.float()[:, None]
    assert ((restored - original.bfloat16()).abs() <= 0.501 * scale.float()[:, None]).all()
    assert weight.abs().amax(dim=1).min() >= 126, "some steps are not used"


def test_rows_of_zeros():
    weight, scale = quantize(torch.zeros(4, 64).bfloat16())
    assert (weight == 0).all() and (scale > 0).all()
    x, zero = torch.zeros(3, 64), int8_products.products_of_zeros(row_sums(weight))
    for way in (int8_products.int8_weights, int8_products.int8_both):
        assert (way(x, weight, scale, zero) == 0).all()
    assert (int8_products.int8_row(x[:1], weight, scale, zero) == 0).all()


def test_outliers_do_not_blur_the_rest(monkeypatch):
    """Two columns a thousand times as large as the others, as large models have them."""
    x = random(50, 256, seed=1)
    x[:, [7, 100]] *= 1000
    original = random(64, 256)
    original[:, [7, 100]] = 0  # so that the rest can be seen
    weight, scale = quantize(original)
    expected, zero = F.linear(x, original), int8_products.products_of_zeros(row_sums(weight))
    most = 0.02 * 127 / int8_products.middle()
    assert sorted(int8_products.outlier_columns(x).tolist()) == [7, 100]
    assert error_of(int8_products.int8_both(x, weight, scale, zero), expected) < most
    assert error_of(int8_products.int8_row(x[:1], weight, scale, zero), expected[:1]) < most
    rounded = int8_products.round_rows(x)
    assert rounded.outliers.equal(x[:, rounded.columns]) and sorted(rounded.columns.tolist()) == [7, 100]
    monkeypatch.setattr(int8_products, "OUTLIER", 1e9)  # there are none
    rounded, steps, columns, _ = int8_products.round_rows(x)
    assert len(columns) == 0
    plain = F.linear((rounded.float() - int8_products.middle()) * steps, weight * scale.float()[:, None])
    assert error_of(plain, expected) > 0.2, "without it this test would show nothing"


LARGEST = """
import torch
from course.learner_set import mixed_set
from speed.int8_products import int8_both, int8_row, products_of_zeros, row_sums
weight, scale = torch.full((64, 128), 127, dtype=torch.int8), torch.ones(64)
x, zero = torch.ones(40, 128), products_of_zeros(row_sums(weight))
for found in (int8_row(x[:1], weight, scale, zero), int8_both(x, weight, scale, zero)):
    print(float((found / (128 * 127) - 1).abs().max()))
"""


def test_no_product_is_cut():
    """The largest numbers, as on a CPU for which oneDNN adds two products in 16 bits."""
    code, older = [sys.executable, "-c", LARGEST], os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    result = subprocess.run(code, cwd=ROOT, env=older, check=True, stdout=subprocess.PIPE, text=True)
    assert max(map(float, result.stdout.split())) < 1e-5


def test_inputs_of_seven_bits(monkeypatch):
    """What is done on CPUs that would cut products of eight."""
    monkeypatch.setattr(int8_products, "middle", lambda: 63)
    x, original = random(20, 256, seed=1), random(64, 256)
    weight, scale = quantize(original)
    zero = int8_products.products_of_zeros(row_sums(weight))
    rounded = int8_products.round_rows(x).numbers
    assert rounded.amin() >= 0 and rounded.amax() <= 126
    expected = F.linear(x, weight * scale.float()[:, None])
    assert error_of(int8_products.int8_both(x, weight, scale, zero), expected) < 0.03
    assert error_of(int8_products.int8_row(x[:1], weight, scale, zero), expected[:1]) < 0.03


def test_no_outliers_in_even_numbers():
    assert len(int8_products.outlier_columns(random(50, 256))) == 0


@pytest.mark.parametrize("shape", [(96,), (1, 96), (2, 5, 96), (1, 1, 90), (3, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_modules_take_the_place_of_linear(shape, bias):
    linear = nn.Linear(shape[-1], 40, bias=bias).bfloat16()
    x = random(*shape, seed=1)
    expected = F.linear(x, linear.weight.float(), linear.bias.float() if bias else None)
    weight, scale = quantize(linear.weight)
    int8 = Int8Linear(weight, scale, row_sums(weight), linear.bias)
    for module, dtype in ((Bf16Linear(linear), torch.bfloat16), (int8, torch.float32)):
        with torch.inference_mode():
            found = module(x)
        assert found.dtype == dtype and found.shape == expected.shape
        assert error_of(found, expected.detach()) < 0.02 * 127 / int8_products.middle()


def test_an_input_is_rounded_once_unless_it_changes(monkeypatch):
    """As for queries, keys and values; also if a model changes it in place between two of them."""
    calls, original = [], int8_products.round_rows
    monkeypatch.setattr(linear, "round_rows", lambda x: calls.append(1) or original(x))
    always("int8_both", monkeypatch)
    monkeypatch.setattr(linear, "LAST", [])
    weight, scale = quantize(random(40, 96))
    layer = Int8Linear(weight, scale, row_sums(weight), None, is_shared=True)
    x = random(1, 9, 96, seed=1)
    with torch.inference_mode():
        first = layer(x)
        assert torch.equal(layer(x), first) and len(calls) == 1
        x[0, 3, 5] += 1e-3
        layer(x)
        assert len(calls) == 2
        x.mul_(2)
        assert error_of(layer(x), 2 * first) < 0.01 and len(calls) == 3
        assert error_of(layer(x[:, :4]), 2 * first[:, :4]) < 0.01 and len(calls) == 4


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("length", [1, 63, 64, 257, 1024, 1152, 1499, 4304, 16384])
def test_slices_are_even_and_leave_nothing_out(length, threads):
    torch.set_num_threads(threads)
    parts = sharing.slices(length, 512, multiple=64)
    sizes = [part.stop - part.start for part in parts]
    assert [row for part in parts for row in range(length)[part]] == list(range(length))
    assert max(sizes) <= 512 and len(set(sizes[:-1])) <= 1 and all(size % 64 == 0 for size in sizes[:-1])
    assert len(parts) >= min(threads, -(-length // 64)) / 2


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_each_part_is_worked_on_once(threads):
    torch.set_num_threads(threads)
    done, seen = [], []

    def work(part):
        seen.append((torch.get_num_threads(), torch.is_inference_mode_enabled()))
        done.append(part)

    sharing.share(work, list(range(200)))
    assert sorted(done) == list(range(200)) and set(seen) == {(1, True)}
    assert torch.get_num_threads() == threads


def test_a_helper_that_has_no_core_is_not_waited_for(monkeypatch):
    torch.set_num_threads(3)
    is_over = threading.Event()
    with ThreadPoolExecutor(1) as helpers:
        monkeypatch.setattr(sharing, "HELPERS", helpers)
        helpers.submit(is_over.wait, 60)
        done = []
        sharing.share(done.append, [1, 2, 3])
        is_over.set()
    assert sorted(done) == [1, 2, 3]


@pytest.mark.parametrize("where", ["here", "in a helper"])
def test_an_error_ends_all_threads(where):
    torch.set_num_threads(2)
    here, done, has_begun = threading.get_ident(), [], threading.Event()

    def work(part):
        is_here = threading.get_ident() == here
        if is_here == (where == "here"):
            has_begun.set()
            raise ValueError("an error")
        has_begun.wait(60)
        done.append(part)

    with pytest.raises(ValueError, match="an error"):
        sharing.share(work, list(range(1000)))
    assert torch.get_num_threads() == 2 and len(done) < (2 if where == "here" else 1000)


def mlp_of(hidden: int, inside: int) -> tuple[GemmaMLP, Int8MLP]:
    config = SimpleNamespace(hidden_size=hidden, intermediate_size=inside)
    plain = GemmaMLP(config)
    for name, layer in [*plain.named_children()]:
        weight, scale = quantize(random(*layer.weight.shape, seed=len(name)) / 8)
        setattr(plain, name, Int8Linear(weight, scale, row_sums(weight), None))
    return plain, Int8MLP(plain)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("way", ["int8_both", "int8_weights"])
@pytest.mark.parametrize("shape", [(1, 1, 96), (2, 1, 96), (1, 9, 96), (2, 5, 96), (70, 96)])
def test_the_mlp_slice_by_slice_is_the_same(shape, way, threads, monkeypatch):
    always(way, monkeypatch)
    torch.set_num_threads(threads)
    plain, quick = mlp_of(96, 1500)
    x = random(*shape, seed=1)
    x[..., 7] *= 50  # an outlier
    with torch.inference_mode():
        found, expected = quick(x), plain(x)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected)


def test_what_hooks_watch_is_recorded(monkeypatch):
    always("int8_both", monkeypatch)
    _, quick = mlp_of(96, 160)
    seen = []
    x = random(1, 9, 96, seed=1)
    with torch.inference_mode():
        expected = quick(x)
        quick.up_proj.register_forward_hook(lambda _, __, output: seen.append(output))
        torch.testing.assert_close(quick(x), expected)
    assert seen[0].shape == (1, 9, 160)


@pytest.mark.parametrize("name", ["gate_proj", "up_proj", "down_proj"])
def test_an_adapter_may_be_beside_a_layer(name, monkeypatch):
    always("int8_both", monkeypatch)
    _, quick = mlp_of(96, 160)
    x = random(1, 9, 96, seed=1)
    with torch.inference_mode():
        expected = quick(x)
    setattr(quick, name, LoRALinear(quick.get_submodule(name), 2, 4))  # whose B is zero: it adds nothing
    with torch.inference_mode():
        torch.testing.assert_close(quick(x), expected)


def test_the_quicker_way_is_taken(monkeypatch):
    monkeypatch.setattr(quickest, "CHOSEN", {})

    def exact(x, weight):
        until = time.thread_time() + 0.003
        while time.thread_time() < until:
            pass

    def quick(x, weight):
        pass

    x, weight = torch.ones(70, 4), torch.ones(3, 4)
    assert quickest.quickest((exact, quick), x, weight) is quick
    assert quickest.quickest((quick, exact), x, weight) is quick
    calls = []
    assert quickest.quickest((lambda *_: calls.append(1), exact), x, weight) is not exact
    assert len(quickest.CHOSEN) == 3
    assert quickest.quickest((exact, exact, quick), x, weight) is quick
    before = len(calls)
    quickest.quickest((exact, quick), x, weight)
    assert len(calls) == before, "timed again"


@pytest.mark.parametrize("rows", [1, 2, 8, 15])
def test_few_rows_are_tried_with_weights_that_come_from_memory(rows, monkeypatch):
    monkeypatch.setattr(quickest, "CHOSEN", {})
    monkeypatch.setattr(quickest, "FETCHED", 6400)
    seen = {}

    def way(name):
        return lambda x, weight, scale: seen.setdefault(name, []).append((weight.data_ptr(), len(scale)))

    ways, x, weight = (way("first"), way("second")), torch.ones(rows, 4), torch.ones(1000, 4)
    quickest.quickest(ways, x, weight, torch.ones(1000))
    # After one that makes ready and is the same for both, each call has a part of its own.
    assert seen["first"][0] == seen["second"][0]
    counted = seen["first"][1:] + seen["second"][1:]
    assert len({start for start, _ in counted} | {seen["first"][0][0]}) == 1 + 2 * quickest.TRIALS
    assert {size for _, size in counted} == {1000 // 7}

    seen.clear()
    small = torch.ones(399, 4)  # 6,384 bytes
    assert quickest.quickest(ways, torch.ones(rows, 4), small, torch.ones(399)) in ways
    assert not seen, "it was decided already"
    quickest.CHOSEN.clear()
    assert quickest.quickest(ways, x, small, torch.ones(399)) is ways[0]
    assert not seen and not quickest.CHOSEN


@pytest.mark.parametrize("rows", [1, 70])
def test_the_first_way_is_kept_unless_another_saves_a_quarter(rows, monkeypatch):
    times = {"first": 1.0, "a little quicker": 0.9, "quicker": 0.5}
    monkeypatch.setattr(quickest, "CHOSEN", {})
    monkeypatch.setattr(quickest, "seconds", lambda way, *_: times[way])
    x, weight = torch.ones(rows, 4), torch.empty(quickest.FETCHED // 16, 4)
    assert quickest.quickest(("first", "a little quicker"), x, weight) == "first"
    assert quickest.quickest(("first", "a little quicker", "quicker"), x, weight) == "quicker"


def test_a_way_that_fails_leaves_the_threads(monkeypatch):
    torch.set_num_threads(2)

    def fail():
        raise ValueError

    with pytest.raises(ValueError):
        quickest.seconds(fail, ())
    assert torch.get_num_threads() == 2


# ------------------------------------------------------------------------- whole models


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A bfloat16 model small enough for a test, its widths multiples of 32, as int8 products need."""
    text = {"hidden_size": 64, "intermediate_size": 192, "head_dim": 32, "num_attention_heads": 2}
    vision = {"hidden_size": 96, "intermediate_size": 160, "num_attention_heads": 3}
    config = small_config(text=text, vision=vision, torch_dtype="bfloat16")
    tensors = random_tensors(config, dtype=torch.bfloat16)
    for name, tensor in tensors.items():
        if name.endswith("k_proj.weight"):
            tensor *= 0.25  # attention that is not all or nothing
    folder = random_checkpoint(tmp_path_factory.mktemp("quantize") / "model", config)
    write_tensors(folder, tensors)
    return folder


@pytest.fixture
def folder(checkpoint, tmp_path):
    """A copy of the checkpoint, with nothing kept in it yet."""
    for file in checkpoint.iterdir():
        if not file.name.startswith(int8_file.NAME):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.fixture
def no_size_is_small(monkeypatch):
    """Nor is anything in int8 left to the clock."""
    monkeypatch.setattr(loading, "LARGE", 0)
    monkeypatch.setattr(loading, "is_quicker_in_bf16", lambda *_: False)


def batch_of(model, prompts: int = 1) -> dict[str, torch.Tensor]:
    config = model.config
    N, size = config.vision_config.num_patches, config.vision_config.image_size
    ids = torch.tensor([[config.image_token_index] * N + [2, 270, 280, 290, 260]] * prompts)
    pixels = random(prompts, 3, size, size, seed=3).clamp(-1, 1)
    return {"input_ids": ids, "pixel_values": pixels, "attention_mask": torch.ones_like(ids)}


@torch.inference_mode()
def logits_of(model, prompts: int = 1) -> list[torch.Tensor]:
    """For the prompt and two more tokens."""
    batch = batch_of(model, prompts)
    output = model(**batch, logits_to_keep=1)
    found, mask = [output["logits"]], batch["attention_mask"]
    for token in (265, 300):
        ids = torch.full((prompts, 1), token)
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
        output = model(ids, attention_mask=mask, kv_cache=output["kv_cache"], logits_to_keep=1)
        found.append(output["logits"])
    return found


@pytest.fixture(scope="module")
def exact(checkpoint):
    return load_model(checkpoint, precision="float32")[0]


@pytest.fixture(scope="module")
def rounded(checkpoint):
    """The plain model, with the weights that int8 has: what is left is what the quick products do."""
    model, _ = load_model(checkpoint, precision="float32")
    for name, parameter in model.named_parameters():
        if loading.is_matrix(name, parameter.shape):
            weight, scale = quantize(parameter.data)
            parameter.data = weight * scale.float()[:, None]
    return model


def always(way: str, monkeypatch):
    """Leaves nothing to the clock, so that a test gives the same each time."""
    monkeypatch.setattr(linear, "quickest", lambda ways, *_: {w.__name__: w for w in ways}.get(way, ways[1]))


@pytest.mark.parametrize("prompts", [1, 2])
@pytest.mark.parametrize(
    ("precision", "way", "most"),
    [
        ("auto", "float32_rows", 0.03),
        ("auto", "bf16_rows", 0.03),
        ("int8", "int8_weights", 0.04),
        ("int8", "int8_both", 0.1),
    ],
)
def test_models_answer_alike(
    folder, exact, rounded, precision, way, most, prompts, no_size_is_small, monkeypatch
):
    always(way, monkeypatch)
    load_model(folder, precision=precision)
    model, _ = load_model(folder, precision=precision)  # the second time: from the file kept
    kinds = {type(module) for module in model.modules()}
    assert nn.Linear not in kinds and ({"auto": Bf16Linear, "int8": Int8Linear}[precision] in kinds)
    plain = exact if precision == "auto" else rounded
    if way == "int8_both":
        most *= 127 / int8_products.middle()
    for found, expected in zip(logits_of(model, prompts), logits_of(plain, prompts), strict=True):
        assert found.shape == expected.shape
        assert error_of(found, expected) < most


def test_the_tower_stays_bfloat16_where_that_is_quicker(folder, exact, no_size_is_small, monkeypatch):
    always("int8_both", monkeypatch)
    errors = []
    for is_quicker in (False, True):
        monkeypatch.setattr(loading, "is_quicker_in_bf16", lambda *_, answer=is_quicker: answer)
        model, _ = load_model(folder, precision="int8")
        kinds = {
            name.split(".")[0]: {type(module) for module in part.modules()} & {Bf16Linear, Int8Linear}
            for name, part in model.named_children()
        }
        of_pictures = {Bf16Linear if is_quicker else Int8Linear}
        assert kinds["vision_tower"] == kinds["multi_modal_projector"] == of_pictures
        assert kinds["language_model"] == {Int8Linear}
        dtypes = {
            parameter.dtype for name, parameter in model.named_parameters() if name.endswith("norm.weight")
        }
        assert dtypes == {torch.float32}
        errors.append(error_of(logits_of(model, 16)[0], logits_of(exact, 16)[0]))
    assert errors[1] < errors[0]


def test_only_bfloat16_weights_stay_as_they_are(folder, no_size_is_small, monkeypatch):
    """Weights may each have a dtype of their own; a single bias is enough."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors = random_tensors(config, dtype=torch.bfloat16)
    name = "vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias"
    write_tensors(folder, tensors | {name: tensors[name].float()})
    monkeypatch.setattr(loading, "is_quicker_in_bf16", lambda *_: True)
    model, _ = load_model(folder, precision="int8")
    assert not any(isinstance(module, Bf16Linear) for module in model.modules())
    assert all(logits.isfinite().all() for logits in logits_of(model))


@pytest.mark.parametrize("way", ["float32_rows", "bf16_rows"])
def test_auto_loses_nothing_against_bfloat16(folder, exact, way, no_size_is_small, monkeypatch):
    """Nothing is lost against the dtype that is stored."""
    always(way, monkeypatch)
    prompts = 64
    expected = logits_of(exact, prompts)[0]
    errors = {
        precision: error_of(logits_of(load_model(folder, precision=precision)[0], prompts)[0], expected)
        for precision in ("auto", "bfloat16")
    }
    assert errors["auto"] < 1.1 * errors["bfloat16"]  # chance, where both are alike


def test_fused_attention_is_the_references(folder, exact):
    """With a padded row, whose first tokens may look at nothing, and with tokens after the prompt."""
    model, _ = load_model(folder, precision="float32")
    fuse_attention(model)
    kinds = {type(module) for module in model.modules()}
    assert {FusedAttention, FusedGemmaAttention} < kinds and not {Attention, GemmaAttention} & kinds
    names = [name for name, _ in exact.named_parameters()]
    assert [name for name, _ in model.named_parameters()] == names
    batch = batch_of(model, 2)
    batch["input_ids"] = F.pad(batch["input_ids"], (3, 0), value=270)
    batch["attention_mask"] = F.pad(batch["attention_mask"], (3, 0), value=1)
    batch["attention_mask"][1, :3] = 0
    with torch.inference_mode():
        found, expected = model(**batch), exact(**batch)
        torch.testing.assert_close(found["logits"][0], expected["logits"][0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found["logits"][1, 3:], expected["logits"][1, 3:], rtol=1e-4, atol=1e-4)
    assert found["logits"].isfinite().all()
    for one, other in zip(logits_of(model, 2), logits_of(exact, 2), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", ["auto", "int8"])
def test_large_models_have_it(folder, precision, no_size_is_small):
    kinds = {type(module) for module in load_model(folder, precision=precision)[0].modules()}
    assert {FusedAttention, FusedGemmaAttention} < kinds


def test_a_learners_attention_stays():
    class OwnAttention(Attention):
        pass

    model = nn.Sequential(OwnAttention(VisionConfig(64, 96, 1, 2, 14)))
    fuse_attention(model)
    assert type(model[0]) is OwnAttention


def test_output_layer_and_table_stay_tied(folder, no_size_is_small):
    for precision in ("auto", "int8"):
        model = load_model(folder, precision=precision)[0].language_model
        assert model.lm_head.weight is model.model.embed_tokens.weight


def test_auto_copies_no_weight(folder, no_size_is_small):
    plain = load_model(folder, precision="bfloat16")[0].state_dict()
    quick = load_model(folder)[0].state_dict()
    assert plain.keys() == quick.keys()
    for name, tensor in quick.items():
        if tensor.dim() == 2 and "position" not in name:
            assert tensor.dtype == torch.bfloat16
            assert torch.equal(tensor, plain[name])


def test_small_models_stay_as_they_are(folder):
    model, _ = load_model(folder)
    assert {type(module) for module in model.modules()}.isdisjoint({Bf16Linear, Int8Linear})
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert not (folder / int8_file.NAME).exists()


def test_other_precisions_stay_as_they_are(folder, no_size_is_small):
    for precision in ("float32", "bfloat16", "float16"):
        model, _ = load_model(folder, precision=precision)
        assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, precision)}


def test_last_mlp_works_on_what_is_read(folder, exact, no_size_is_small):
    model, _ = load_model(folder, precision="float32")
    loading.skip_unread(model)
    rows = []
    for layer in model.language_model.model.layers:
        layer.mlp.register_forward_hook(lambda _, args, __: rows.append(args[0].shape[1]))
    batch = batch_of(model)
    T = batch["input_ids"].shape[1]
    with torch.inference_mode():
        last = model(**batch, logits_to_keep=1)["logits"]
        assert rows == [T, T, 1]
        expected = exact(**batch)["logits"]
        torch.testing.assert_close(last, expected[:, -1:], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model(**batch)["logits"], expected, rtol=1e-4, atol=1e-4)
        assert rows[3:] == [T, T, T], "all positions were asked for"
        two = model(**batch, logits_to_keep=2)["logits"]
        torch.testing.assert_close(two, expected[:, -2:], rtol=1e-4, atol=1e-4)
        assert rows[6:] == [T, T, 2]
        more = model(**batch, logits_to_keep=T + 1)["logits"]
        torch.testing.assert_close(more, expected, rtol=1e-4, atol=1e-4)


def test_a_layer_may_name_the_mlps_argument(folder, exact, no_size_is_small, monkeypatch):
    """A learner's `self.mlp(hidden_states=x)` is right: then the last MLP works on all positions."""
    model, _ = load_model(folder, precision="float32")
    loading.skip_unread(model)
    last = model.language_model.model.layers[-1]
    batch = batch_of(model)
    with torch.inference_mode():
        model(**batch, logits_to_keep=1)  # cuts
        mlp = last.mlp
        named = nn.Module()
        named.forward = lambda x: mlp(hidden_states=x)
        last.mlp = named
        found = model(**batch, logits_to_keep=1)["logits"]
        torch.testing.assert_close(found, exact(**batch)["logits"][:, -1:], rtol=1e-4, atol=1e-4)


def test_a_learners_set_is_as_quick(folder, exact, rounded, no_size_is_small, monkeypatch):
    """The set "mixed" of a learner who has solved nothing yet, and one with a linear layer of his own."""
    import decoder_1
    import text_image_token_processor_1
    import vision_transformer_1

    class OwnLinear(nn.Linear):
        pass

    class OwnMLP(decoder_1.GemmaMLP):
        def __init__(self, config):
            super().__init__(config)
            self.down_proj = OwnLinear(config.intermediate_size, config.hidden_size, bias=False)

    decoder = type(decoder_1)("decoder_own")
    vars(decoder).update(vars(decoder_1))

    class OwnLayer(decoder_1.GemmaDecoderLayer):
        def __init__(self, config, layer_idx):
            super().__init__(config, layer_idx)
            self.mlp = OwnMLP(config)

    class OwnModel(decoder_1.PaliGemmaForConditionalGeneration):
        def __init__(self, config):
            super().__init__(config)
            layers = self.language_model.model.layers
            for index in range(len(layers)):
                layers[index] = OwnLayer(config.text_config, index)

    decoder.PaliGemmaForConditionalGeneration = OwnModel
    own = ModelSet(vision_transformer_1, text_image_token_processor_1, decoder, is_reference=False)
    for model_set in (mixed_set().modules, own):
        for precision, way, plain, most in (
            ("auto", "float32_rows", exact, 0.03),
            ("int8", "int8_weights", rounded, 0.04),
        ):
            always(way, monkeypatch)
            model, _ = load_model(folder, precision=precision, model_set=model_set)
            kind = OwnLinear if model_set == own else type(model.language_model.model.layers[0].mlp.up_proj)
            assert type(model.language_model.model.layers[0].mlp.down_proj) is kind
            assert error_of(logits_of(model)[0], logits_of(plain)[0]) < most


def test_int8_is_for_cpus(folder):
    for device in ("cuda", "mps"):
        with pytest.raises(CheckpointError, match=rf"int8 is for CPUs, not for {device}.*--device cpu"):
            load_model(folder, device, "int8")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device here")
@pytest.mark.parametrize("precision", ["auto", "bfloat16", "float16"])
def test_cuda(folder, exact, precision, no_size_is_small):
    model, _ = load_model(folder, "cuda", precision)
    batch = {name: tensor.cuda() for name, tensor in batch_of(model).items()}
    with torch.inference_mode():
        found = model(**batch, logits_to_keep=1)["logits"].cpu()
    assert error_of(found, logits_of(exact)[0]) < 0.1


# ------------------------------------------------------------------------- the int8 file


def made(folder, monkeypatch) -> int:
    """How many weights are rounded when the folder is loaded."""
    rounded, original = [], quantize
    with monkeypatch.context() as patch:
        patch.setattr(int8_file, "quantize", lambda weight: rounded.append(1) or original(weight))
        load_model(folder, precision="int8")
    return len(rounded)


def test_second_start_rounds_nothing(folder, monkeypatch):
    first = load_model(folder, precision="int8")[0].state_dict()
    assert made(folder, monkeypatch) == 0
    second = load_model(folder, precision="int8")[0].state_dict()
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "tokenizer.json", "model.safetensors", int8_file.NAME}
    with safe_open(folder / int8_file.NAME, framework="pt") as stored:
        assert len(stored.keys()) == 3 * (3 * 7 + 2 * 6 + 2)


def damage_end(path):
    path.write_bytes(path.read_bytes()[:-100])


def damage_head(path):
    content = bytearray(path.read_bytes())
    content[20:60] = bytes(40)
    path.write_bytes(content)


def damage_weights(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 4 :] = bytes(len(content) - len(content) // 4)
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def change_version(path):
    path.write_bytes(path.read_bytes().replace(b'"version": "2"', b'"version": "1"'))


@pytest.mark.parametrize("damage", [damage_end, damage_head, damage_weights, empty, change_version])
def test_damaged_file_is_made_again(folder, damage, monkeypatch):
    number = made(folder, monkeypatch)
    whole = (folder / int8_file.NAME).read_bytes()
    damage(folder / int8_file.NAME)
    assert made(folder, monkeypatch) == number > 0
    assert (folder / int8_file.NAME).read_bytes() == whole


def test_file_of_other_weights_is_made_again(folder, monkeypatch):
    number = made(folder, monkeypatch)
    source = folder / "model.safetensors"
    os.utime(source, ns=(0, source.stat().st_mtime_ns + 1))
    assert made(folder, monkeypatch) == number
    assert made(folder, monkeypatch) == 0


def test_other_weights_of_the_same_size_and_time_are_noticed(folder, monkeypatch):
    number = made(folder, monkeypatch)
    source = folder / "model.safetensors"
    before, content = source.stat(), bytearray(source.read_bytes())
    with safe_open(source, framework="pt") as stored:
        last = stored.get_tensor("language_model.model.norm.weight").nbytes
    content[-last * 8 :] = bytes(last * 8)
    source.write_bytes(content)
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert source.stat().st_size == before.st_size
    assert made(folder, monkeypatch) == number


@pytest.fixture(scope="module")
def kept(checkpoint):
    """A whole file, and where its tensors begin and end."""
    load_model(checkpoint, precision="int8")
    content = (checkpoint / int8_file.NAME).read_bytes()
    size = 8 + int.from_bytes(content[:8], "little")
    entries = [entry for name, entry in json.loads(content[8:size]).items() if name != "__metadata__"]
    return content, size, size + max(entry["data_offsets"][1] for entry in entries)


def is_accepted(folder, content) -> bool:
    """Whether a file of this content would be used for the checkpoint."""
    path = folder / int8_file.NAME
    path.write_bytes(content)
    with safe_open(folder / "model.safetensors", framework="pt") as stored:
        shapes = {
            name.removesuffix(".weight"): tuple(stored.get_slice(name).get_shape())
            for name in stored.keys()  # noqa: SIM118
            if loading.is_matrix(name, tuple(stored.get_slice(name).get_shape()))
        }
    return int8_file.read_file(path, shapes, int8_file.source_of([folder / "model.safetensors"])) is not None


def test_every_flipped_bit_is_noticed(checkpoint, kept):
    """In weights, sums and scales; and 512 zeroed bytes, and two pages in each other's place."""
    content, start, end = kept
    assert end == len(content)
    assert is_accepted(checkpoint, content)
    for place in torch.randint(start, end, (60,), generator=torch.Generator().manual_seed(0)).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        assert not is_accepted(checkpoint, damaged), place
        damaged = bytearray(content)
        damaged[place : place + 512] = bytes(len(damaged[place : place + 512]))
        assert not is_accepted(checkpoint, damaged), place
    first, second = content[start : start + 4096], content[start + 4096 : start + 8192]
    damaged = content[:start] + second + first + content[start + 8192 :]
    assert len(damaged) == len(content) and not is_accepted(checkpoint, damaged)
    (checkpoint / int8_file.NAME).write_bytes(content)


def test_another_programs_file_of_that_name_stays(folder, rounded, monkeypatch, capsys):
    (folder / int8_file.NAME).write_bytes(b"a user's own")
    always("int8_weights", monkeypatch)
    model, _ = load_model(folder, precision="int8")
    assert error_of(logits_of(model)[0], logits_of(rounded)[0]) < 0.04
    assert (folder / int8_file.NAME).read_bytes() == b"a user's own"
    message = capsys.readouterr().err
    assert "another program's file" in message and message.count("\n") == 1


@pytest.mark.parametrize(
    "where",
    [
        "open",
        "replace",
        pytest.param(
            "write",
            marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here"),
        ),
    ],
)
def test_file_that_cannot_be_written(folder, rounded, where, monkeypatch, capsys):
    """A read-only folder or a full disk: said in a line, and the answer comes all the same."""

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    original = Path.open

    def open_file(path, *args, **kwargs):
        if path.suffix != ".part":
            return original(path, *args, **kwargs)
        return fail() if where == "open" else original(Path("/dev/full"), "wb")

    if where == "replace":
        monkeypatch.setattr(int8_file.os, "replace", fail)
    else:
        monkeypatch.setattr(Path, "open", open_file)
    always("int8_weights", monkeypatch)
    model, _ = load_model(folder, precision="int8")
    assert error_of(logits_of(model)[0], logits_of(rounded)[0]) < 0.04
    message = capsys.readouterr().err
    assert int8_file.NAME in message and "No space left" in message and "Traceback" not in message
    assert not list(folder.glob(f"{int8_file.NAME}*"))


@pytest.mark.skipif(
    os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="to root and on Windows no folder is read-only",
)
def test_read_only_folder(folder, capsys):
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        load_model(folder, precision="int8")
    finally:
        folder.chmod(stat.S_IRWXU)
    assert "ermission denied" in capsys.readouterr().err


def test_error_on_the_way_leaves_nothing(folder, monkeypatch):
    def stop(weight):
        raise KeyboardInterrupt

    monkeypatch.setattr(int8_file, "quantize", stop)
    with pytest.raises(KeyboardInterrupt):
        load_model(folder, precision="int8")
    assert not list(folder.glob(f"{int8_file.NAME}*"))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no such signals to one process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_leaves_nothing(folder, number):
    """With the handler of inference.py, which ends the program at once."""
    program = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *_: os._exit(130))\n"
        "from speed import int8_file, loading\n"
        "def slow(weight):\n"
        "    print('begun', flush=True)\n"
        "    time.sleep(60)\n"
        "int8_file.quantize = slow\n"
        "loading.load_model(sys.argv[1], precision='int8')\n"
    )
    command = [sys.executable, "-c", program, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout.readline().strip() == b"begun"
    assert len(list(folder.glob(f"{int8_file.NAME}.*.part"))) == 1
    process.send_signal(number)
    assert process.wait(timeout=30) in (130, 143)
    assert not list(folder.glob(f"{int8_file.NAME}*"))


def test_what_a_kill_left_is_removed(folder):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = folder / f"{int8_file.NAME}.{ended.pid}.part"
    of_another = folder / f"{int8_file.NAME}.{os.getppid()}.part"
    not_ours = folder / f"{int8_file.NAME}.1{ended.pid}.part"
    for path in (left, of_another):
        path.write_bytes(b"begun: " + int8_file.MARK.encode())
    not_ours.write_bytes(b"begun")
    own = folder / f"{int8_file.NAME}.{os.getpid()}.part"
    own.write_bytes(b"another program's, by chance of this name")
    load_model(folder, precision="int8")
    assert not left.exists() and of_another.exists() and not_ours.exists()
    assert own.read_bytes().startswith(b"another program's") and not (folder / int8_file.NAME).exists()
    own.unlink()
    load_model(folder, precision="int8")
    assert (folder / int8_file.NAME).exists()
    left.write_bytes(b"begun: " + int8_file.MARK.encode())  # by another start, which was killed
    load_model(folder, precision="int8")
    assert not left.exists()


# -------------------------------------------------------------------------- the programs


POLICY = """
import os
from speed import threads
threads.sleep_while_waiting()
print({name: os.environ.get(name) for name in threads.POLICY})
import sys
assert "torch" not in sys.modules, "it would come too late"
"""


@pytest.mark.parametrize(
    "own", [{}, {"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}, {"KMP_BLOCKTIME": "9"}]
)
def test_threads_sleep_unless_the_user_says_otherwise(own):
    policy = threads.POLICY
    environment = {name: value for name, value in os.environ.items() if name not in policy} | own
    command = [sys.executable, "-c", POLICY]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(dict.fromkeys(policy) | own if own else policy)


@pytest.mark.parametrize(
    "program", [("inference", "--help"), ("explain", "--help"), ("finetune", "--help"), ("learn", "compare")]
)
def test_programs_say_it_before_torch_is_imported(program, tmp_path):
    """What the environment holds when torch is imported: a torch.py in its place tells."""
    (tmp_path / "torch.py").write_text("import os, sys; print(os.environ['OMP_WAIT_POLICY']); sys.exit(0)")
    environment = {name: value for name, value in os.environ.items() if name not in threads.POLICY}
    environment |= {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", *program]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.stdout.strip() == "passive"


def test_the_loader_knows_nothing_of_this(folder, no_size_is_small):
    code = "import sys, load_weights; print([name for name in sys.modules if name.split('.')[0] == 'speed'])"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
    for precision in ("auto", "bfloat16", "stored"):
        model, _ = load_weights.load_hf_model(folder, precision=precision)
        homes = {type(module).__module__.split(".")[0] for module in model.modules()}
        assert homes == {"torch", "decoder_1", "vision_transformer_1"}
        assert not any(module._forward_pre_hooks for module in model.modules())


def test_only_what_was_measured_is_skipped(folder, no_size_is_small):
    for precision, is_skipped in (("auto", True), ("int8", True), ("float32", False), ("bfloat16", False)):
        model, _ = load_model(folder, precision=precision)
        assert any(module._forward_pre_hooks for module in model.modules()) is is_skipped


def test_threads_are_chosen_before_the_first_product(folder, monkeypatch):
    torch.set_num_threads(2)
    seen = []
    noted = lambda weight: seen.append(torch.get_num_threads()) or quantize(weight)  # noqa: E731
    monkeypatch.setattr(int8_file, "quantize", noted)
    load_model(folder, precision="int8")
    assert set(seen) == {1}


def test_a_left_over_int8_file_is_not_a_model(tmp_path, monkeypatch, capsys):
    for name in (int8_file.NAME, f"{int8_file.NAME}.123.part", "model.int8.safetensors"):
        (tmp_path / name).write_bytes(b"left over")
    monkeypatch.setattr(questions, "FULL_MODEL", tmp_path)
    inference.main(["--max-tokens", "1"])
    assert "holds no weights yet" in capsys.readouterr().err


def test_inference_says_what_int8_costs(folder, tmp_path, capsys):
    picture = tmp_path / "picture.png"
    Image.new("RGB", (20, 20), "red").save(picture)
    command = ["--model", str(folder), "--image", str(picture), "--precision", "int8", "--max-tokens", "3"]
    inference.main([*command, "--prompt", "a cat"])
    output = capsys.readouterr()
    assert "int8" in output.err and "README" in output.err
    assert (folder / int8_file.NAME).exists()


def test_too_little_memory_points_to_int8(folder, monkeypatch):
    class Memory:
        available = 1000

    monkeypatch.setattr(load_weights.psutil, "virtual_memory", lambda: Memory)
    with pytest.raises(CheckpointError, match="--precision int8 needs"):
        load_model(folder)
    Memory.available = 0
    with pytest.raises(CheckpointError, match=r"in int8 .* paligemma-tiny") as refused:
        load_model(folder, precision="int8")
    assert "--precision" not in str(refused.value)


@pytest.mark.long
def test_compare_runs(tmp_path):
    """benchmarks/compare.py, with a model that is made and measured in seconds."""
    command = [sys.executable, "-m", "benchmarks.compare", "--size", "small", "--rounds", "1"]
    command += ["--tokens", "3", "--busy", "1"]
    command += ["--folder", str(tmp_path / "model"), "--json", str(tmp_path / "found.json")]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert result.returncode == 0, result.stderr
    expected = ["first token", "each further token", "peak memory", "load", "int8", "GB/s", "torch"]
    for words in [*expected, "beside 1 busy program", "busy / quiet"]:
        assert words in result.stdout
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert {"ours auto", "ours int8", "transformers float32", "transformers bfloat16"} <= found["runs"].keys()
    assert {"ours auto, busy", "ours int8, busy", "transformers bfloat16, busy"} <= found["runs"].keys()


def test_the_kept_figures_are_those_in_the_readme():
    text = compare.README.read_text(encoding="utf-8")
    assert f"{compare.BEGIN}\n{compare.kept_tables()}\n{compare.END}" in text
