"""explain.py: each number of the page that can be had another way, the escaping, and the page in Chromium."""

import base64
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from torch import nn

import decoder_1
import explain
import generation_1
import inference
import mask_decoder_1
import vision_transformer_1
from decoder_1 import prefix_lm_mask
from docs import make_pages
from docs.outputs import matches
from inside import description, pictures
from inside.code import definition
from inside.description import coverage, pool, principal_colors, token_boxes
from inside.page import build_page
from inside.source import find_source
from load_weights import import_set, load_hf_model, load_mask_decoder
from program.command_line import InputError
from program.questions import SAMPLES, TINY_MODEL
from random_weights.small import random_checkpoint, small_config
from text_image_token_processor_1 import PaliGemmaProcessor

PROGRAM = Path(explain.__file__)
TINY = TINY_MODEL
HAS_TINY = (TINY / "model.safetensors").is_file()
needs_tiny = pytest.mark.skipif(not HAS_TINY, reason="paligemma-tiny is not here")


def unpack(array: dict) -> np.ndarray:
    values = np.frombuffer(base64.b64decode(array["data"]), array["type"]).reshape(array["shape"])
    return values.astype(float) / 65_535 if array["type"] == "uint16" else values


def data_of(page: Path) -> dict:
    """What the page's script reads."""
    pattern = r'<script type="application/json" id="data">(.*?)</script>'
    (text,) = re.findall(pattern, page.read_text("utf-8"), re.S)
    return json.loads(text)


def draw_sample(path: Path, size=(90, 60)) -> Path:
    picture = Image.new("RGB", size, (40, 90, 200))
    ImageDraw.Draw(picture).ellipse((30, 14, 75, 48), fill=(250, 130, 10))
    picture.save(path)
    return path


class Made:
    """A page, what it was told, and the model it is about."""

    def __init__(self, page, model_folder, image, prompt):
        self.page, self.data = page, data_of(page)
        self.model, self.tokenizer = load_hf_model(model_folder)
        config = self.model.config.vision_config
        self.processor = PaliGemmaProcessor(self.tokenizer, config.num_patches, config.image_size)
        self.batch = self.processor([prompt], [inference.open_picture(image)])
        self.answer = [token["id"] for token in self.data["tokens"]["list"] if token["kind"] == "answer"]
        # bfloat16 keeps 8 bits, so that sums in another order differ.
        self.tolerance = 1e-4 if next(self.model.parameters()).dtype == torch.float32 else 3e-2

    def inputs(self) -> dict:
        """Prompt and answer at once, without a cache: another way to all logits."""
        prompt = self.batch["input_ids"]
        ids = torch.cat([prompt, torch.tensor([self.answer])], dim=1)
        types = torch.tensor([[0] * prompt.shape[1] + [1] * len(self.answer)])
        return {"input_ids": ids, "pixel_values": self.batch["pixel_values"], "token_type_ids": types}

    @torch.inference_mode()
    def watch(self, *names) -> dict:
        """The outputs of these modules for the whole sequence, and "logits"."""
        seen, hooks = {}, []
        for name in names:

            def keep(module, args, output, name=name):
                seen[name] = (args, output)

            hooks.append(self.model.get_submodule(name).register_forward_hook(keep))
        seen["logits"] = self.model(**self.inputs())["logits"][0]
        for hook in hooks:
            hook.remove()
        return seen


@pytest.fixture(scope="module", params=["small", pytest.param("tiny", marks=needs_tiny)])
def made(request, tmp_path_factory, checkpoint):
    folder = tmp_path_factory.mktemp(f"page of {request.param}")
    if request.param == "tiny":
        model, image = TINY, sorted(SAMPLES.glob("*.png"))[0]
    else:
        model, image = checkpoint, draw_sample(folder / "sample.png")
    page = folder / "explain.html"
    explain.main(["--model", str(model), "--image", str(image), "--out", str(page), "--max-tokens", "24"])
    return Made(page, model, str(image), "detect cat")


# --------------------------------------------------------------- the numbers, had another way


def test_pixels_are_what_the_model_is_given(made):
    part = made.data["picture"]
    pixels = unpack(part["pixels"])
    expected = made.batch["pixel_values"][0].permute(1, 2, 0).numpy()
    assert abs(pixels / 127.5 - 1 - expected).max() < 1e-6
    resized = pictures.open_uri(part["resized"])
    assert (np.asarray(resized) == pixels).all()
    assert part["grid"] ** 2 == made.model.config.vision_config.num_patches


def test_tokens_are_prompt_and_answer(made):
    tokens = made.data["tokens"]
    prompt = made.batch["input_ids"][0].tolist()
    N = tokens["numImage"]
    assert prompt[:N] == [tokens["imageId"]] * N
    assert [token["id"] for token in tokens["list"]] == prompt[N:] + made.answer
    assert [token["position"] for token in tokens["list"]] == list(range(N, len(prompt) + len(made.answer)))
    kinds = [token["kind"] for token in tokens["list"]]
    assert kinds[0] == "bos" and kinds[len(prompt) - N - 1] == "newline"
    assert set(kinds[1 : len(prompt) - N - 1]) == {"prompt"}
    eos = made.tokenizer.token_to_id("<eos>")
    (expected, *_) = zip(*generation_1.generate(made.model, made.batch, eos, 24), strict=True)
    assert made.answer == list(expected)


def test_mask_is_the_reference_s(made):
    types = made.inputs()["token_type_ids"]
    mask = prefix_lm_mask(torch.ones_like(types), types)[0, 0].int()
    N, rows = made.data["tokens"]["numImage"], made.data["tokens"]["mask"]
    assert (mask[:N] == mask[0]).all() and (mask[:, :N] == mask[:, :1]).all()
    assert rows == ["".join(map(str, row)) for row in mask[N - 1 :, N - 1 :].tolist()]


def test_tower_s_attention_is_that_which_the_module_used(made):
    """From the page's weights and the module's values follows what the module gave back."""
    config, part = made.model.config.vision_config, made.data["tower"]
    heads, means = unpack(part["byHead"]), unpack(part["means"])
    N, H = config.num_patches, config.num_attention_heads
    assert heads.shape == (config.num_hidden_layers, H, N, N) and part["headLayers"] == [*range(len(heads))]
    assert abs(heads.sum(axis=-1) - 1).max() < N / 65_535 and abs(means.sum(axis=-1) - 1).max() < N / 65_535
    assert abs(heads.mean(axis=1) - means).max() < 2e-5
    names = [f"vision_tower.vision_model.encoder.layers.{i}.self_attn" for i in range(len(heads))]
    seen = made.watch(*names)
    for name, weights in zip(names, heads, strict=True):
        (hidden_states,), output = seen[name]
        attention = made.model.get_submodule(name).float()
        with torch.inference_mode():
            value = attention.v_proj(hidden_states.float())[0].view(N, H, -1).transpose(0, 1)
            attended = torch.tensor(weights, dtype=torch.float32) @ value
            again = attention.out_proj(attended.transpose(0, 1).reshape(N, -1))
        assert_close(again, output[0], made.tolerance * 30)
        attention.to(output.dtype)


def test_decoder_s_attention_is_that_which_the_module_used(made):
    config, part = made.model.config.text_config, made.data["decoder"]
    weights = np.concatenate([unpack(part["picture"]), unpack(part["text"])], axis=-1)  # [A, layers, H, L]
    A, first = len(made.answer), made.batch["input_ids"].shape[1] - 1
    assert weights.shape == (A, config.num_hidden_layers, config.num_attention_heads, first + A)
    assert abs(weights.sum(axis=-1) - 1).max() < (first + A) / 65_535
    for i in range(A):
        assert (weights[i, ..., first + 1 + i :] == 0).all()  # nothing is seen before it is there
    names = [f"language_model.model.layers.{i}.self_attn" for i in range(config.num_hidden_layers)]
    seen = made.watch(*names)
    for layer, name in enumerate(names):
        args, output = seen[name]
        attention, cache = made.model.get_submodule(name).float(), args[3]
        value = cache.value_cache[layer][0, :, : first + A].float()
        value = value.repeat_interleave(config.num_attention_heads // config.num_key_value_heads, dim=0)
        # (A, H, 1, Hd) = (A, H, 1, L) @ (H, L, Hd)
        attended = torch.tensor(weights[:, layer, :, None], dtype=torch.float32) @ value
        with torch.inference_mode():
            again = attention.o_proj(attended.flatten(1))
        assert_close(again, output[0, first : first + A], made.tolerance * 30)
        attention.to(output.dtype)


def assert_close(found, expected, tolerance):
    """Relative to the largest number there."""
    difference = (found.float() - expected.float()).abs().max() / expected.abs().max()
    assert difference < tolerance, float(difference)


def as_likely(found: list[dict], tolerance: float) -> set[int]:
    """The ids of the tokens that are no less likely than the first, as far as rounding can tell."""
    return {one["id"] for one in found if one["p"] > found[0]["p"] - tolerance}


def test_next_tokens_are_those_of_a_pass_without_cache(made):
    first = made.batch["input_ids"].shape[1] - 1
    expected = made.watch()["logits"][first : first + len(made.answer)].softmax(dim=-1)
    for token, found, probabilities in zip(made.answer, made.data["decoder"]["next"], expected, strict=True):
        # The likeliest is the one that was said, or another as likely: bfloat16 has ties.
        assert token in as_likely(found, made.tolerance)
        assert [one["p"] for one in found] == sorted((one["p"] for one in found), reverse=True)
        for one in found:
            assert abs(one["p"] - float(probabilities[one["id"]])) < made.tolerance
            assert one["text"] == (made.tokenizer.id_to_token(one["id"]) or f"[{one['id']}]")


def test_logit_lens_ends_in_the_output_and_follows_the_layers(made):
    config, part = made.model.config.text_config, made.data["decoder"]
    names = [f"language_model.model.layers.{i}" for i in range(config.num_hidden_layers)]
    seen = made.watch(*names)
    first = made.batch["input_ids"].shape[1] - 1
    for i, (token, column, likely) in enumerate(zip(made.answer, part["lens"], part["next"], strict=True)):
        assert len(column) == config.num_hidden_layers + 1
        assert {token, column[-1]["id"]} <= as_likely(likely, made.tolerance)
        assert column[-1]["p"] == pytest.approx(column[-1]["own"], abs=made.tolerance)
        assert column[-1]["p"] == pytest.approx(likely[0]["p"], abs=made.tolerance / 3)
        for layer, name in enumerate(names):
            with torch.inference_mode():
                state = made.model.language_model.model.norm(seen[name][1][:, first + i])
                expected = made.model.language_model.lm_head(state).float().softmax(dim=-1)[0]
            found = column[layer + 1]
            assert found["p"] == pytest.approx(float(expected[found["id"]]), abs=made.tolerance)
            assert found["p"] == pytest.approx(float(expected.max()), abs=made.tolerance)
            assert found["own"] == pytest.approx(float(expected[token]), abs=made.tolerance)


def test_norms_before_and_after_scaling(made):
    raw, merged, scaled = (np.array(part) for part in made.data["merge"]["norms"])
    N, D = made.data["tokens"]["numImage"], made.model.config.text_config.hidden_size
    with torch.inference_mode():
        features = made.model.multi_modal_projector(made.model.vision_tower(made.batch["pixel_values"]))[0]
        embeddings = made.model.language_model.model.embed_tokens(made.batch["input_ids"])[0, N:]
    expected = torch.cat([features, embeddings]).float().norm(dim=-1).numpy()
    assert np.allclose(raw, expected, rtol=1e-2)
    assert np.allclose(merged[:N], raw[:N] / math.sqrt(D), rtol=1e-2) and np.allclose(merged[N:], raw[N:])
    assert np.allclose(scaled, merged * math.sqrt(D), rtol=1e-2)
    shapes = made.data["merge"]["shapes"]
    assert shapes["projector"] == [1, *features.shape] and shapes["merged"] == [1, N + len(embeddings), D]


def test_features_are_colored_by_their_components(made):
    features = made.data["tower"]["features"]
    assert [one["name"] for one in features][:: len(features) - 1] == ["embeddings", "post_layernorm"]
    with torch.inference_mode():
        last = made.model.vision_tower(made.batch["pixel_values"])[0].float().numpy()
    strengths = np.linalg.svd(last - last.mean(axis=0), compute_uv=False) ** 2
    assert features[-1]["seen"] == pytest.approx(strengths[:3].sum() / strengths.sum(), abs=made.tolerance)
    assert unpack(features[-1]["colors"]).shape == (len(last), 3)


def test_focus_is_the_share_of_attention_in_the_box(made):
    part, grid = made.data["decoder"], made.data["picture"]["grid"]
    names = [token["text"] for token in made.data["tokens"]["list"] if token["kind"] == "answer"]
    weights = unpack(part["picture"])
    for i, (box, focus) in enumerate(zip(token_boxes(names), part["focus"], strict=True)):
        if focus is None:
            continue
        assert focus["box"] == box
        y1, x1, y2, x2 = box
        assert focus["area"] == pytest.approx((y2 - y1) * (x2 - x1), rel=1e-4)
        fine = 4096 // grid  # point by point
        axis = (np.arange(grid * fine) + 0.5) / (grid * fine)
        rows, columns = (
            ((axis > low) & (axis < high)).reshape(grid, fine).mean(axis=1)
            for low, high in ((y1, y2), (x1, x2))
        )
        on_picture = weights[i].sum(axis=-1)
        inside = weights[i] @ np.outer(rows, columns).ravel() / np.maximum(on_picture, 1e-9)
        # Heads that hardly look at the picture have lost their digits in 65,535ths.
        known = on_picture > 0.05
        assert np.allclose(np.array(focus["inside"])[:, 1:][known], inside[known], atol=0.01)
        shares, (layer, head) = np.array(focus["inside"]), focus["bestHead"]
        assert focus["bestLayer"] == shares[:, 0].argmax()
        assert shares[layer, 1 + head] == shares[:, 1:].max()


def test_boxes_are_those_of_inference(made):
    answer, part = made.data["facts"]["answer"], made.data["picture"]
    assert made.data["boxes"] == generation_1.parse_boxes(answer, part["width"], part["height"])


def test_modules_are_a_map_of_the_code(made):
    rows = {row["name"]: row for row in made.data["modules"]}
    called = [name for name, module in made.model.named_modules() if type(module).__name__ != "ModuleList"]
    # position_embedding is read as a weight and not called.
    assert {"(the model)" if name == "" else name for name in called} - rows.keys() <= {
        "vision_tower.vision_model.embeddings.position_embedding"
    }
    for name, row in rows.items():
        module = made.model if name == "(the model)" else made.model.get_submodule(name)
        assert row["parameters"] == sum(parameter.numel() for parameter in module.parameters())
        assert row["weightBytes"] == sum(parameter.nbytes for parameter in module.parameters())
        assert row["promptSeconds"] > 0
        if row["source"] is None:
            assert row["class"] == f"nn.{type(module).__name__}"
            continue
        path, line = row["source"]["href"].split("#L")
        text = (made.page.parent / path).resolve().read_text("utf-8").splitlines()[int(line) - 1]
        assert re.match(rf"class {type(module).__name__}\b", text)
    assert rows["vision_tower"]["output"] == made.data["merge"]["shapes"]["tower"]
    assert rows["vision_tower"]["tokenSeconds"] is None  # it runs once
    assert (rows["(the model)"]["tokenSeconds"] is None) == (len(made.answer) == 1)
    whole = rows["(the model)"]["promptSeconds"]
    assert all(row["promptSeconds"] <= whole for row in rows.values())


def test_links_in_the_text_lead_to_their_definitions(made):
    page = made.page.read_text("utf-8")
    links = re.findall(r'<a class="source" href="([^"#]+)#L(\d+)"><code>(\w+)</code>', page)
    assert len(links) > 12
    for path, line, name in links:
        text = (made.page.parent / path).resolve().read_text("utf-8").splitlines()[int(line) - 1]
        assert re.match(rf"(class|def) {name}\b", text), text
    assert "{{" not in page.split('id="data"')[0]


@needs_tiny
def test_tiny_finds_the_cat_and_looks_at_it(made):
    """Must show 3 of the page: in the best layer, the position that predicts `cat` looks at the cat."""
    if made.model.config.vision_config.image_size != 160:
        pytest.skip("this is about paligemma-tiny")
    names = [token["text"] for token in made.data["tokens"]["list"] if token["kind"] == "answer"]
    (cat,) = [i for i, name in enumerate(names) if name == "▁cat"][:1]
    focus = made.data["decoder"]["focus"][cat]
    assert focus["inside"][focus["bestLayer"]][0] / focus["area"] > 1.5


@needs_tiny
def test_an_answer_with_masks_is_not_cut_off(tmp_path, capfd):
    """The longest that the tiny model gives: three things, each with its box, its mask, and its name."""
    image, page = SAMPLES / "cats.png", tmp_path / "p.html"
    explain.main(["--image", str(image), "--prompt", "segment cat ; umbrella", "--out", str(page)])
    facts = data_of(page)["facts"]
    assert "cut off" not in capfd.readouterr().err and facts["ended"]
    assert facts["answer"].count("<seg") == 3 * 16


@needs_tiny
def test_without_arguments(tmp_path):
    done = subprocess.run([sys.executable, PROGRAM], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = tmp_path / "explain.html"
    assert str(page.resolve()) in done.stdout and page.stat().st_size < 5_000_000


# ------------------------------------------------------------------------------ small functions


def test_pool_sums_over_keys_and_averages_over_queries():
    weights = torch.rand(16, 16).softmax(dim=-1)
    pooled = pool(weights, 2)
    assert pooled.shape == (4, 4) and torch.allclose(pooled.sum(dim=-1), torch.ones(4))
    top_left, bottom_right = [0, 1, 4, 5], [10, 11, 14, 15]
    assert float(pooled[3, 0]) == pytest.approx(float(weights[bottom_right][:, top_left].sum(dim=1).mean()))
    assert pool(weights, 1) is weights


@pytest.mark.parametrize(("grid", "cells"), [(3, 3), (10, 10), (16, 16), (32, 16), (64, 16), (27, 9), (1, 1)])
def test_attention_maps_stay_small(grid, cells):
    assert description.cells_of(grid) == cells


def test_token_boxes():
    box, other = [0.25, 0.125, 0.75, 0.625], [0.0, 0.5, 0.5, 1023 / 1024]
    first = ["<loc0256>", "<loc0128>", "<loc0768>", "<loc0640>"]
    assert token_boxes([*first, "▁big", "▁cat", "<eos>"]) == [box] * 6 + [None]
    second = ["<loc0000>", "<loc0512>", "<loc0512>", "<loc1023>"]
    assert token_boxes([*first, "▁cat", "▁;", "▁", *second, "▁dog"]) == [box] * 5 + [None] * 2 + [other] * 5
    assert token_boxes(["▁a", "<loc0001>", "▁b", "<loc0001>"]) == [None] * 4
    turned = ["<loc0768>", "<loc0640>", "<loc0256>", "<loc0128>"]
    assert token_boxes(turned) == [box] * 4
    assert token_boxes([]) == []


def test_words_in_pictures_are_in_letters_of_their_font():
    assert pictures.visible("▁Käse\n") == "_Kase\\n" and pictures.visible("Straße Я") == "Stra?e ?"


def test_coverage_of_patches_that_a_box_cuts():
    covered = coverage([0.25, 0.0, 1.0, 0.5], 2).view(2, 2)
    assert covered.tolist() == [[0.5, 0.0], [1.0, 0.0]]
    assert float(coverage([0.1, 0.2, 0.4, 0.9], 10).mean()) == pytest.approx(0.3 * 0.7, rel=1e-5)


def test_colors_go_on_from_layer_to_layer():
    torch.manual_seed(0)
    features = torch.randn(50, 8) * torch.tensor([9.0, 6, 4, 1, 1, 1, 1, 1])
    rotation = torch.linalg.qr(torch.randn(8, 8))[0]
    (first, seen), (second, _) = principal_colors([features, features @ rotation])
    assert abs(first.astype(int) - second).max() <= 1  # the same, but for the directions
    assert 0.8 < seen < 1
    (flat, nothing), _ = principal_colors([torch.ones(4, 8), torch.randn(4, 2)])
    assert nothing == 0 and (flat == flat[0]).all()


def test_large_towers_show_only_some_layers_head_by_head(checkpoint, tmp_path, monkeypatch):
    # The means and one layer of the tower, and one token of the decoder's 3 layers of 4 heads.
    monkeypatch.setattr(description, "MAP_BYTES", 2 * 81 * 2 + 3 * 81 * 2 + 3 * 4 * 9 * 2)
    image, page = draw_sample(tmp_path / "a.png"), tmp_path / "explain.html"
    arguments = ["--model", str(checkpoint), "--image", str(image), "--out", str(page)]
    explain.main([*arguments, "--max-tokens", "1"])
    tower = data_of(page)["tower"]
    assert tower["headLayers"] == [1] and tower["byHead"]["shape"][0] == 1 and tower["means"]["shape"][0] == 2


# --------------------------------------------------------------- attention that is the model's own


def scores_of(attention, hidden_states):
    """Queries, keys and values of a tower's attention module, and its scores without their scale."""
    B, N, C = hidden_states.shape
    query, key, value = (
        projection(hidden_states).view(B, N, attention.num_heads, attention.head_dim).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    return query, key, value, query @ key.transpose(2, 3)


def merged(attention, attended):
    return attention.out_proj(attended.transpose(1, 2).flatten(2))


def unscaled(self, hidden_states):
    """A learner's mistake: 1 / sqrt(Hd) is missing."""
    *_, value, scores = scores_of(self, hidden_states)
    return merged(self, scores.softmax(-1) @ value)


def head_by_head(self, hidden_states):
    *_, value, scores = scores_of(self, hidden_states)
    softmax = nn.Softmax(dim=-1)
    heads = [softmax(one * self.head_dim**-0.5) @ v for one, v in zip(scores[0], value[0], strict=True)]
    return merged(self, torch.stack(heads)[None])


def heads_in_the_batch(self, hidden_states):
    *_, value, scores = scores_of(self, hidden_states)
    weights = torch.softmax(scores.flatten(0, 1) * self.head_dim**-0.5, -1)
    return merged(self, torch.bmm(weights, value.flatten(0, 1))[None])


def one_function(self, hidden_states):
    query, key, value, _ = scores_of(self, hidden_states)
    return merged(self, F.scaled_dot_product_attention(query, key, value))


def by_hand(self, hidden_states):
    *_, value, scores = scores_of(self, hidden_states)
    powers = (scores * self.head_dim**-0.5).exp()
    return merged(self, powers / powers.sum(-1, keepdim=True) @ value)


def page_with(monkeypatch, checkpoint, folder, attention, **replaced) -> dict:
    for name, value in replaced.items():
        monkeypatch.setattr(attention, name, value)
    image, page = draw_sample(folder / "a.png"), folder / "p.html"
    explain.main(["--model", str(checkpoint), "--image", str(image), "--out", str(page), "--max-tokens", "2"])
    return data_of(page)


def softmaxes_of(checkpoint, folder, function):
    """What the first layer's softmax gives, computed outside of the model."""
    model, tokenizer = load_hf_model(checkpoint)
    config = model.config.vision_config
    processor = PaliGemmaProcessor(tokenizer, config.num_patches, config.image_size)
    batch = processor(["detect cat"], [inference.open_picture(str(draw_sample(folder / "b.png")))])
    layer = model.vision_tower.vision_model.encoder.layers[0]
    with torch.inference_mode():
        hidden_states = layer.layer_norm1(model.vision_tower.vision_model.embeddings(batch["pixel_values"]))
        return function(layer.self_attn, scores_of(layer.self_attn, hidden_states)[-1])[0]


@pytest.mark.parametrize("forward", [unscaled, head_by_head, heads_in_the_batch, one_function])
def test_the_map_shows_what_this_code_s_softmax_gave(checkpoint, tmp_path, monkeypatch, forward):
    scale = 1 if forward is unscaled else small_head_dim(checkpoint) ** -0.5
    expected = softmaxes_of(checkpoint, tmp_path, lambda _, scores: (scores * scale).softmax(dim=-1))
    data = page_with(monkeypatch, checkpoint, tmp_path, vision_transformer_1.Attention, forward=forward)
    part = data["tower"]
    assert abs(unpack(part["byHead"])[0] - expected.numpy()).max() < 1e-4
    assert set(part["seen"]) == {"arguments" if forward is one_function else "softmax"}


def small_head_dim(checkpoint) -> int:
    return load_hf_model(checkpoint)[0].vision_tower.vision_model.encoder.layers[0].self_attn.head_dim


def test_no_map_where_no_softmax_was_seen(checkpoint, tmp_path, monkeypatch):
    data = page_with(monkeypatch, checkpoint, tmp_path, vision_transformer_1.Attention, forward=by_hand)
    assert set(data["tower"]["seen"]) == {"unseen"} and not unpack(data["tower"]["byHead"]).any()
    assert set(data["decoder"]["seen"]) == {"softmax"}


def decoder_unscaled(self, hidden_states, attention_mask, position_embeddings, kv_cache):
    return decoder_attention(self, hidden_states, attention_mask, position_embeddings, kv_cache, 1.0)


def decoder_one_function(self, hidden_states, attention_mask, position_embeddings, kv_cache):
    return decoder_attention(self, hidden_states, attention_mask, position_embeddings, kv_cache, None)


def decoder_attention(self, hidden_states, attention_mask, position_embeddings, kv_cache, scale):
    query, key, value = (
        projection(hidden_states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        for projection in (self.q_proj, self.k_proj, self.v_proj)
    )
    query, key = decoder_1.apply_rotary_pos_emb(query, key, *position_embeddings)
    key, value = kv_cache.update(key, value, self.layer_idx)
    if scale is None:
        attended = F.scaled_dot_product_attention(query, key, value, attention_mask, enable_gqa=True)
    else:
        repeats = self.num_heads // self.num_key_value_heads
        key, value = (decoder_1.repeat_kv(one, repeats) for one in (key, value))
        scores = (query @ key.transpose(2, 3) * scale).masked_fill(~attention_mask, -1e9)
        attended = scores.softmax(dim=-1) @ value
    return self.o_proj(attended.transpose(1, 2).flatten(2))


def test_the_decoder_s_map_is_its_own_too(checkpoint, tmp_path, monkeypatch):
    right = page_with(monkeypatch, checkpoint, tmp_path, decoder_1.GemmaAttention)["decoder"]
    assert set(right["seen"]) == {"softmax"} and all(right["pairs"]["agrees"])
    one = page_with(monkeypatch, checkpoint, tmp_path, decoder_1.GemmaAttention, forward=decoder_one_function)
    assert set(one["decoder"]["seen"]) == {"arguments"}
    for name in ("picture", "text"):
        assert abs(unpack(one["decoder"][name]) - unpack(right[name])).max() < 1e-3
    wrong = page_with(monkeypatch, checkpoint, tmp_path, decoder_1.GemmaAttention, forward=decoder_unscaled)
    assert abs(unpack(wrong["decoder"]["text"]) - unpack(right["text"])).max() > 0.01
    assert not all(wrong["decoder"]["pairs"]["agrees"])  # so q . k does not explain it


# -------------------------------------------------------------------------------- text from outside

NASTY = "</script><script>alert(1)</script> \u2028 {{data}} {{title}} & \"quotes\" 'single' <!-- <b>"


@pytest.fixture(scope="module")
def nasty_page(tmp_path_factory, checkpoint):
    folder = tmp_path_factory.mktemp("nasty")
    name = "a 'single' & b.png" if os.name == "nt" else "a \"quoted\" 'single' <b>&amp; ü.png"
    image = draw_sample(folder / name)
    page = folder / "page #1.html"
    arguments = ["--model", str(checkpoint), "--image", str(image), "--out", str(page), "--max-tokens", "24"]
    explain.main([*arguments, "--prompt", NASTY])
    return page, image


def test_text_from_outside_is_text(nasty_page):
    page, image = nasty_page
    text = page.read_text("utf-8")
    assert "alert(1)</script>" not in text and "\u2028" not in text.split('id="data"')[1]
    assert text.count("<script") == 2 and text.count("</script>") == 2
    facts = data_of(page)["facts"]
    assert facts["prompt"] == NASTY and facts["image"] == image.name
    title = text[text.index("<title>") : text.index("</title>")]
    assert "&lt;/script&gt;" in title and "<b>" not in title


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are text")
def test_file_names_that_are_no_text(checkpoint, tmp_path):
    image = os.fsencode(tmp_path) + b"/caf\xe9.png"
    shutil.copy(draw_sample(tmp_path / "a.png"), image)
    done = subprocess.run(
        [sys.executable, PROGRAM, "--model", checkpoint, "--image", image, "--out", tmp_path / "p.html"],
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert data_of(tmp_path / "p.html")["facts"]["image"] == "caf?.png"


def test_page_needs_nothing_else(made):
    text = made.page.read_text("utf-8")
    assert re.findall(r"(?:https?:)?//[\w.]+\.\w+[\w./]*", text.split('id="data"')[0]) == []
    # The name of SVG's elements looks like an address.
    assert set(re.findall(r"https?://[\w./]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(?:link|script|img|iframe)[^>]*(?:src|href)=\"(?!data:)", text)


# ---------------------------------------------------------------------------------- the program


@pytest.fixture
def refused(checkpoint, tmp_path, capfd):
    """The program ends with exit code 2 and one line that holds these words."""

    def refused(*arguments, words, model=checkpoint):
        image = draw_sample(tmp_path / "given.png")
        with pytest.raises(SystemExit) as error:
            explain.main(["--model", str(model), "--image", str(image), *map(str, arguments)])
        out, err = capfd.readouterr()
        errors = [line for line in err.splitlines() if "error" in line]
        assert (error.value.code, out, len(errors)) == (2, "", 1), err
        assert errors[0].startswith("explain.py: error: ") and "Traceback" not in err
        for word in words:
            assert word in errors[0]

    return refused


def test_bad_arguments(refused, tmp_path):
    (tmp_path / "file").write_text("x")
    foreign = tmp_path / "mine.html"
    foreign.write_text("<!doctype html><title>Mine</title>")
    refused("--out", tmp_path / "page.png", words=["must end in one of .html .htm"])
    refused("--out", tmp_path / "given.png", words=["must end in one of .html .htm"])
    refused("--out", foreign, words=["not made by explain.py"])
    assert foreign.read_text() == "<!doctype html><title>Mine</title>"
    refused("--out", tmp_path / "no" / "page.html", words=["no folder"])
    refused("--image", tmp_path / "no.png", words=["no.png", "No such file"])
    refused("--prompt", "<image> cat", words=["<image>"])
    refused("--model", tmp_path / "nothing", words=["nothing", "does not exist"])
    refused("--max-tokens", "0", words=["--max-tokens"])
    refused("--prompt", "x " * 3000, words=["--prompt", "tokens", "at most 512"])
    refused("--png", tmp_path / "file", "--out", tmp_path / "p.html", words=["is a file"])
    refused("--png", tmp_path / "no" / "folder", "--out", tmp_path / "p.html", words=["no folder"])
    shutil.copy(tmp_path / "given.png", tmp_path / "explain-mask.png")
    words = ["explain-mask.png", "not made by explain.py"]
    refused("--png", tmp_path, "--out", tmp_path / "p.html", words=words)
    assert not (tmp_path / "p.html").exists()


def test_a_picture_of_too_long_a_text_is_not_ours(tmp_path):
    """Pillow refuses 2 MB of text with a ValueError."""
    text = PngInfo()
    text.add_text("Software", "x" * 2_000_000, zip=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "explain-mask.png", pnginfo=text)
    with pytest.raises(InputError, match=r"explain-mask.png was not made by explain.py"):
        pictures.check_folder(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFO here")
def test_pipes_and_circles_of_links_are_refused(refused, tmp_path):
    os.mkfifo(tmp_path / "pipe.html")
    refused("--out", tmp_path / "pipe.html", words=["pipe.html"])
    (tmp_path / "loop.html").symlink_to(tmp_path / "loop.html")
    refused("--out", tmp_path / "loop.html", words=["loop.html", "link"])
    (tmp_path / "lost.html").symlink_to(tmp_path / "no" / "page.html")
    refused("--out", tmp_path / "lost.html", words=["lost.html", "link"])
    (tmp_path / "png").mkdir()
    os.mkfifo(tmp_path / "png" / "explain-mask.png")
    refused("--png", tmp_path / "png", "--out", tmp_path / "p.html", words=["explain-mask.png"])
    assert not (tmp_path / "p.html").exists()


def test_a_full_disk_leaves_the_older_page(checkpoint, tmp_path, refused, monkeypatch, capfd):
    arguments = ["--model", str(checkpoint), "--image", str(draw_sample(tmp_path / "a.png"))]
    arguments += ["--out", str(tmp_path / "p.html"), "--max-tokens", "2"]
    explain.main(arguments)
    capfd.readouterr()
    before = (tmp_path / "p.html").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refused("--out", tmp_path / "p.html", "--max-tokens", "2", words=["No space left"])
    assert (tmp_path / "p.html").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "given.png", "p.html"]


@pytest.mark.skipif(os.name == "nt", reason="signals are others there")
@pytest.mark.parametrize("after", [None, "Device in use", "Running the model", "Collecting"])
def test_ctrl_c_ends_quietly_wherever_it_comes(checkpoint, tmp_path, after):
    """While PyTorch is being imported, and after each of these lines."""
    image = draw_sample(tmp_path / "a.png")
    command = [sys.executable, PROGRAM, "--model", checkpoint, "--image", image, "--out", tmp_path / "p.html"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if after is None:
        time.sleep(0.6)
    else:
        while not (line := process.stderr.readline()).startswith(after):
            assert line, "it ended before"
    was_over = process.poll() is not None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    # While Python ends it has no handler anymore: the signal itself ends it, as quietly.
    assert process.returncode in ([0] if was_over else [130, -signal.SIGINT]) and "Traceback" not in err, err
    assert not list(tmp_path.glob(".*"))  # nothing half-written is left


@needs_tiny
def test_int8(tmp_path):
    image, page = sorted(SAMPLES.glob("*.png"))[0], tmp_path / "p.html"
    explain.main(["--image", str(image), "--out", str(page), "--precision", "int8"])
    data = data_of(page)
    assert data["facts"]["dtype"] and data["boxes"] and set(data["decoder"]["seen"]) == {"softmax"}
    assert data["code"]["units"]["GemmaAttention"]["calls"]


def test_own_pages_and_pictures_are_written_again(checkpoint, tmp_path, capfd):
    arguments = ["--model", str(checkpoint), "--image", str(draw_sample(tmp_path / "a.png"))]
    arguments += ["--out", str(tmp_path / "p.html"), "--png", str(tmp_path / "png"), "--max-tokens", "3"]
    explain.main(arguments)
    explain.main(arguments)
    assert str((tmp_path / "p.html").resolve()) in capfd.readouterr().out
    for name in pictures.NAMES:
        with Image.open(tmp_path / "png" / name) as picture:
            assert picture.format == "PNG" and len(picture.convert("RGB").getcolors(1 << 20)) > 3
    assert len(data_of(tmp_path / "p.html")["decoder"]["next"]) <= 3


def test_bfloat16_and_larger_grids(tmp_path):
    """32 x 32 patches are shown in 16 x 16 cells; bfloat16 goes the same way."""
    config = small_config(vision={"image_size": 64, "patch_size": 2})
    folder = random_checkpoint(tmp_path / "model", config, dtype=torch.bfloat16)
    image, page = draw_sample(tmp_path / "a.png"), tmp_path / "p.html"
    arguments = ["--model", str(folder), "--image", str(image), "--out", str(page), "--max-tokens", "24"]
    explain.main([*arguments, "--png", str(tmp_path)])
    data = data_of(page)
    assert data["picture"]["cells"] == 16 and data["picture"]["grid"] == 32
    assert abs(unpack(data["tower"]["byHead"]).sum(axis=-1) - 1).max() < 256 / 65_535
    sums = unpack(data["decoder"]["picture"]).sum(axis=-1) + unpack(data["decoder"]["text"]).sum(axis=-1)
    assert abs(sums - 1).max() < 0.01
    assert data["facts"]["dtype"] == "bfloat16"


# ---------------------------------------------------------------------------------- in Chromium

OVERLAPS = """() => {
  const seen = element => element.getClientRects().length && element.offsetHeight !== 0;
  const found = [];
  // What stands side by side or below each other must not share room; what lies on a picture may.
  const parents = "body, main, section, figure, .pair, .pair > *, .controls, .field, .two, .bars, .tokens, " +
    ".kinds, .hero, .hero > *, .pictures, .minis, fieldset, .path, tr, thead, tbody, .legend, p";
  for (const parent of document.querySelectorAll(parents)) {
    const children = [...parent.children].filter(child => seen(child) &&
      !["absolute", "sticky"].includes(getComputedStyle(child).position) &&
      getComputedStyle(child).display !== "inline");
    const boxes = children.map(child => child.getBoundingClientRect());
    children.forEach((a, i) => children.slice(i + 1).forEach((b, j) => {
      const p = boxes[i], q = boxes[i + 1 + j];
      const wide = Math.min(p.right, q.right) - Math.max(p.left, q.left);
      const high = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
      if (wide > 1 && high > 1) found.push([a.outerHTML.slice(0, 90), b.outerHTML.slice(0, 90)]);
    }));
  }
  return found;
}"""
CUT_OFF = """() => {
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    if (element.closest(".skip, .picker, svg, script")) continue;
    const box = element.getBoundingClientRect(), area = element.closest(".scroll, .path");
    if (!box.width) continue;
    const html = element.outerHTML.slice(0, 120);
    if (!area && (box.right > innerWidth + 1 || box.left < -1)) found.push(["outside", html]);
    const style = getComputedStyle(element);
    const cuts = style.overflowX === "hidden" && style.textOverflow !== "ellipsis";
    if (cuts && element.scrollWidth > element.clientWidth + 1) found.push(["hidden", html]);
  }
  return found;
}"""


@pytest.fixture
def opened(browser):
    """Opens a page; at the end there must have been no message, dialog or request."""
    contexts, messages = [], []

    def opened(page: Path, width=1280, scheme="light"):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        contexts[-1].set_default_timeout(120_000)  # busy machines are slow
        tab = contexts[-1].new_page()
        tab.on("console", lambda message: messages.append(message.text))
        tab.on("pageerror", lambda error: messages.append(str(error)))
        tab.on("dialog", lambda dialog: (messages.append(dialog.message), dialog.dismiss()))
        tab.on(
            "request",
            lambda request: messages.extend(
                [] if request.url.startswith("data:") or request.url == page.as_uri() else [request.url]
            ),
        )
        tab.goto(page.as_uri())
        tab.wait_for_selector("html[data-ready]", state="attached")
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert messages == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_nothing_overlaps_or_is_cut_off(made, opened, width, scheme):
    tab = opened(made.page, width, scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate(CUT_OFF) == []
    assert tab.evaluate(OVERLAPS) == []
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 23, 25)"
    assert dark == (scheme == "dark")


def pixels_of(tab, selector: str) -> str:
    return tab.eval_on_selector(selector, "canvas => canvas.toDataURL()")


def test_a_patch_is_clicked_and_moved_by_keys(made, opened):
    tab, grid = opened(made.page), made.data["picture"]["grid"]
    patches = tab.locator("#looker button")
    assert patches.count() == grid**2
    pictures, sums = [], []
    patches.nth(0).click()
    for key in (None, "ArrowRight", "ArrowDown", "End", "Home"):
        if key:
            tab.keyboard.press(key)
        pictures.append(pixels_of(tab, "#looker canvas"))
        sums.append(float(tab.eval_on_selector("#looker canvas", "canvas => canvas.dataset.sum")))
    assert len(set(pictures)) == 4 and pictures[0] == pictures[4]
    assert all(abs(total - 1) < 0.01 for total in sums)
    # Only the chosen one is a stop of the Tab key.
    assert tab.locator("#looker button[tabindex='0']").count() == 1
    patches.nth(grid + 1).click()
    chosen = tab.locator("#looker button[aria-pressed=true]").get_attribute("aria-label")
    assert chosen.endswith("row 1, column 1")
    assert "row 1, column 1" in tab.locator("#patchWords").inner_text()


def test_numbers_of_a_patch_are_the_model_s(made, opened):
    tab, part = opened(made.page), made.data["picture"]
    P, row, column = part["patch"], 1, 2
    tab.locator("#cutter button").nth(row * part["grid"] + column).click()
    tab.get_by_role("radio", name="green").check()
    texts = tab.locator("#numbers td").all_inner_texts()
    shown = [float(text.replace("\N{MINUS SIGN}", "-")) for text in texts]
    expected = made.batch["pixel_values"][0, 1, row * P : (row + 1) * P, column * P : (column + 1) * P]
    assert abs(torch.tensor(shown).view(P, P) - expected).max() <= 0.0051


def test_layers_heads_and_tokens_are_chosen(made, opened):
    tab, part = opened(made.page), made.data["decoder"]
    before = pixels_of(tab, "#looker canvas")
    tab.locator("#towerLayer").fill("0")
    tab.locator("#towerHead").select_option("1")
    assert pixels_of(tab, "#looker canvas") != before
    chosen = tab.locator("#towerMinis button[aria-pressed=true]")
    assert chosen.get_attribute("aria-label") == "layer 0, head 1"

    # Every row of bars is one of a distribution: picture and text together are all the attention.
    picture, said = unpack(part["picture"]), made.data["tokens"]["list"][-len(made.answer) :]
    for token in range(min(4, len(made.answer))):
        tab.locator("#answerTokens button").nth(token).click()
        tab.locator("#layer").fill("1")
        tab.locator("#head").select_option("2")
        shown = float(tab.eval_on_selector("#reader canvas", "canvas => canvas.dataset.sum"))
        assert shown == pytest.approx(picture[token, 1, 2].sum(), abs=1e-4)
        shown_first = tab.locator("#next .token").first.get_attribute("title")
        likely = part["next"][token]
        assert shown_first == likely[0]["text"] and said[token]["id"] in as_likely(likely, made.tolerance)
        texts = tab.locator("#shares .n").all_inner_texts()
        total = sum(0 if "<" in text else float(text.rstrip(" %")) for text in texts)
        assert total == pytest.approx(100, abs=0.6 * len(texts))
    tab.locator("#answerTokens button").nth(0).focus()
    before = pixels_of(tab, "#reader canvas")
    tab.keyboard.press("ArrowRight")
    if len(made.answer) > 1:
        assert pixels_of(tab, "#reader canvas") != before
    tab.locator("#minis button").nth(0).click()
    assert tab.locator("#head").input_value() == "-1" and tab.locator("#layer").input_value() == "0"


def test_page_is_named_for_those_who_do_not_see_it(made, opened):
    tab = opened(made.page)
    assert tab.evaluate("[...document.querySelectorAll('img')].filter(image => !image.alt).length") == 0
    unnamed = """() => [...document.querySelectorAll("canvas, svg")].filter(picture =>
      !picture.ariaLabel && picture.ariaHidden !== "true" && !picture.closest("button[aria-label]")).length"""
    assert tab.evaluate(unnamed) == 0
    assert (
        tab.evaluate("""() => [...document.querySelectorAll("button")].filter(button =>
      !button.ariaLabel && !button.innerText.trim()).length""")
        == 0
    )
    assert (
        tab.evaluate("""() => [...document.querySelectorAll("input, select")].filter(field =>
      !field.labels.length).length""")
        == 0
    )
    rows = tab.locator("#modules tbody tr:visible").count()
    tab.locator("#all").check()
    assert tab.locator("#modules tbody tr:visible").count() == len(made.data["modules"]) > rows


@pytest.mark.parametrize("width", [1280, 390])
def test_text_from_outside_shows_as_text(nasty_page, opened, width):
    page, image = nasty_page
    tab = opened(page, width)
    assert tab.locator("#prompt").text_content() == NASTY
    assert image.name in tab.locator("#facts").text_content()
    assert NASTY.split(" ")[0] in tab.title()
    assert tab.evaluate("[...document.querySelectorAll('b')].every(bold => bold.closest('#focus'))")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate(CUT_OFF) == [] and tab.evaluate(OVERLAPS) == []


def test_a_token_opens_at_the_head_that_looks_most_into_its_box(made, opened):
    tab, focus = opened(made.page), made.data["decoder"]["focus"]
    boxed = [i for i, one in enumerate(focus) if one]
    if not boxed:
        pytest.skip("this model's answer has no box")
    for token in boxed:
        tab.locator("#answerTokens button").nth(token).click()
        layer, head = focus[token]["openAt"]
        assert tab.locator("#layer").input_value() == str(layer)
        assert tab.locator("#head").input_value() == str(head)
        chosen = tab.locator("#minis button[aria-pressed=true]").get_attribute("aria-label")
        assert chosen == f"layer {layer}, head {head}"
    # In each of them this is the largest sum of attention inside the box, of all layers and heads.
    part, grid = unpack(made.data["decoder"]["picture"]), made.data["picture"]["grid"]
    for token in boxed:
        inside = part[token] @ coverage(focus[token]["box"], grid).numpy()
        assert inside[tuple(focus[token]["openAt"])] == pytest.approx(inside.max(), abs=1e-3)


def test_the_mean_over_layers_is_apart_from_them(made, opened):
    tab = opened(made.page)
    tab.locator("#answerTokens button").nth(0).click()
    tab.locator("#head").select_option("-1")
    assert tab.locator("#layer").get_attribute("min") == "0"
    one = pixels_of(tab, "#reader canvas")
    tab.locator("#allLayers").check()
    shown = float(tab.eval_on_selector("#reader canvas", "canvas => canvas.dataset.sum"))
    expected = unpack(made.data["decoder"]["picture"])[0].mean(axis=(0, 1)).sum()
    assert shown == pytest.approx(expected, abs=1e-4) and pixels_of(tab, "#reader canvas") != one
    tab.locator("#allLayers").uncheck()
    assert pixels_of(tab, "#reader canvas") == one


def number_in(text: str) -> float:
    """Of "< 0.1 %" too, which says less than it could."""
    return float(text.replace("\N{MINUS SIGN}", "-").strip("< %\N{NO-BREAK SPACE}"))


def eventually(condition):
    """Waits until it is true; the page allows no code from strings, with which Playwright would wait."""
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it never came about")


def test_one_weight_in_numbers_is_the_model_s(made, opened):
    tab, part = opened(made.page), made.data["decoder"]
    N, text = made.data["tokens"]["numImage"], unpack(part["text"])
    token, layer, head = len(made.answer) - 1, 1, 2
    tab.locator("#answerTokens button").nth(token).click()
    tab.locator("#layer").fill(str(layer))
    tab.locator("#head").select_option(str(head))
    for key in (0, 2):
        tab.locator("#key").select_option(str(N + key))
        shown = [number_in(one) for one in tab.locator("#chain strong").all_inner_texts()]
        Hd = made.model.config.text_config.head_dim
        assert shown[1] == pytest.approx(shown[0] / math.sqrt(Hd), abs=0.02)
        assert shown[2] / 100 == pytest.approx(text[token, layer, head, key], abs=0.02)
    tab.locator("#reader button").nth(3).click()
    assert tab.locator("#key").input_value() == "patch"
    assert "column" in tab.locator("#clockWords").inner_text()
    clocks = tab.locator("#clocks svg").count()
    assert clocks == min(16, made.model.config.text_config.head_dim // 2)


def test_queries_and_keys_are_the_model_s(made):
    """Their scores, through softmax, are the weights that the model's own softmax gave."""
    part, config = made.data["decoder"]["pairs"], made.model.config.text_config
    assert all(part["agrees"]) and part["layers"] == list(range(config.num_hidden_layers))
    query, key = (floats(part[name]) for name in ("query", "key"))
    key = key.repeat(config.num_attention_heads // config.num_key_value_heads, axis=1)
    scores = np.einsum("alhd,lhkd->alhk", query, key) / math.sqrt(config.head_dim)
    decoder = made.data["decoder"]
    expected = np.concatenate([unpack(decoder["picture"]), unpack(decoder["text"])], axis=-1)
    first = made.batch["input_ids"].shape[1]
    for i, row in enumerate(scores):
        weights = torch.tensor(row[..., : first + i]).softmax(dim=-1).numpy()
        assert abs(weights - expected[i, ..., : first + i]).max() < 0.05
    assert part["positions"] == list(range(1, first + len(made.answer)))


def floats(array: dict) -> np.ndarray:
    if array["type"] != "bfloat16":
        return unpack(array)
    halves = np.frombuffer(base64.b64decode(array["data"]), np.uint16).astype(np.uint32) << 16
    return halves.view(np.float32).reshape(array["shape"])


def test_the_stream_and_the_cache(made):
    decoder, config = made.data["decoder"], made.model.config.text_config
    names = [f"language_model.model.layers.{i}" for i in range(config.num_hidden_layers)]
    seen, N = made.watch(*names), made.data["tokens"]["numImage"]
    prompt = made.batch["input_ids"].shape[1]
    stream = zip(decoder["stream"]["image"][1:], decoder["stream"]["text"][1:], strict=True)
    for name, (image, text) in zip(names, stream, strict=True):
        norms = seen[name][1][0, :prompt].float().norm(dim=-1).numpy()
        assert text == pytest.approx(norms[N:].tolist(), rel=0.05)
        norms = norms[:N]
        assert image == pytest.approx([float(norms.mean()), float(norms.min()), float(norms.max())], rel=0.05)
    assert decoder["cache"]["read"] == [prompt, *[1] * (len(made.answer) - 1)]
    K, Hd, layers = config.num_key_value_heads, config.head_dim, config.num_hidden_layers
    size = next(made.model.parameters()).element_size()
    assert decoder["cache"]["bytesPerToken"] == 2 * layers * K * Hd * size


@needs_tiny
def test_locations_are_the_probabilities_of_all_1024(tmp_path):
    image, page = sorted(SAMPLES.glob("*.png"))[0], tmp_path / "p.html"
    explain.main(["--image", str(image), "--out", str(page)])
    made = Made(page, TINY, str(image), "detect cat")
    part, first = made.data["decoder"]["locations"], made.batch["input_ids"].shape[1] - 1
    ids = [made.tokenizer.token_to_id(f"<loc{i:04}>") for i in range(1024)]
    probabilities = made.watch()["logits"][first:].softmax(dim=-1)[:, ids]
    shares = unpack(part["shares"]) * np.array(part["most"])[:, None]
    assert len(part["tokens"]) == 8
    for token, row in zip(part["tokens"], shares, strict=True):
        assert abs(row - probabilities[token].numpy()).max() < made.tolerance


# ------------------------------------------------------------------------ the code with its values


@needs_tiny
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_an_answer_with_words_is_explained(tmp_path, opened, monkeypatch, width, scheme):
    """The model's tokens are given here: a box and 16 words. Beside it an answer without any."""
    words = [*range(60, 76)]
    answer = "<loc0256><loc0513><loc0768><loc1023>" + "".join(f"<seg{word:03}>" for word in words) + " cat"
    _, tokenizer = load_hf_model(TINY)
    eos_token_id, steps = tokenizer.token_to_id("<eos>"), []
    tokens = [*tokenizer.encode(answer, add_special_tokens=False).ids, eos_token_id]
    generate = generation_1.generate

    def from_the_first(*args, **kwargs):
        steps.clear()
        yield from generate(*args, **kwargs)

    def given(*_):
        steps.append(tokens[len(steps)])
        return steps[-1]

    page = tmp_path / "p.html"
    image = draw_sample(tmp_path / "a.png", size=(64, 48))
    with monkeypatch.context() as patched:
        patched.setattr(generation_1, "generate", from_the_first)
        patched.setattr(generation_1, "sample_next_token", given)
        explain.main(["--image", str(image), "--prompt", "segment cat", "--out", str(page)])
    data = data_of(page)
    assert data["facts"]["answer"] == answer and "example" not in data["masks"]
    (mask,) = data["masks"]["found"]
    assert mask["words"] == words and mask["box"] == [32.1, 12.0, 63.9, 36.0]
    vqvae = load_mask_decoder(TINY)
    with torch.inference_mode():
        shape = vqvae.decode(torch.tensor([words]))[0]
        drawn = mask_decoder_1.mask_from_tokens(vqvae, torch.tensor(words), mask["box"], 48, 64)
    expected = ((shape.clamp(-1, 1) + 1) * 127.5).round().numpy()
    assert abs(unpack(mask["shape"]) - expected).max() <= 1
    with Image.open(io.BytesIO(base64.b64decode(mask["overlay"].partition(",")[2]))) as overlay:
        assert ((np.asarray(overlay.getchannel("A")) > 0) == drawn.numpy()).all()
    tab = opened(page, width, scheme)
    cells = tab.locator("#masks .words > *").all_inner_texts()
    assert [int(cell) for cell in cells] == words
    assert tab.locator("#hero image").count() == tab.locator("#result image").count() == 1
    # In a picture as small as this one, a tenth of a pixel is more than a location.
    locations = tab.locator("#boxes code").all_inner_texts()
    assert locations == ["<loc0256>", "<loc0513>", "<loc0768>", "<loc1023>"]
    tab.evaluate("openCode('mask_from_tokens')")
    unit = tab.locator("#code-mask_from_tokens")
    assert unit.locator(".thumb").count() > 2
    unit.locator(".thumb").first.click()
    assert unit.locator(".inspect .cells tbody td").first.inner_text()
    assert tab.evaluate(CUT_OFF) == [] and tab.evaluate(OVERLAPS) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_the_sample_beside_a_line_is_of_its_value(made, opened):
    """What the page shows of what an attention gave back, against the module's own output."""
    seen = {}
    name = "language_model.model.layers.0.self_attn"
    hook = made.model.get_submodule(name).register_forward_hook(
        lambda module, args, output: seen.update(output=output)
    )
    with torch.inference_mode():
        made.model(**made.batch)
    hook.remove()
    tab = opened(made.page)
    tab.evaluate("openCode('GemmaAttention')")
    tab.locator("#code-GemmaAttention .thumb").last.click()
    table = tab.locator("#code-GemmaAttention .inspect .cells")
    columns = [int(text) for text in table.locator("thead th").all_inner_texts()]
    rows = [int(text) for text in table.locator("tbody th").all_inner_texts()]
    T, D = seen["output"].shape[1:]
    assert rows[-1] == T - 1 and columns[-1] == D - 1
    minus = "\N{MINUS SIGN}"
    texts = table.locator("tbody td").all_inner_texts()
    values = torch.tensor([float(text.replace(minus, "-")) for text in texts]).view(len(rows), len(columns))
    expected = seen["output"][0].float()[rows][:, columns]
    assert torch.allclose(values, expected, atol=0.01 * float(expected.abs().max()))


def test_every_class_of_the_path_is_there_with_its_values(made):
    code = made.data["code"]
    shown = {name for names in code["parts"].values() for name in names}
    assert shown == code["units"].keys() and len(shown) > 20
    for name, unit in code["units"].items():
        text = ["".join(one if isinstance(one, str) else one[1] for one in line) for line in unit["lines"]]
        file = (PROGRAM.parent / unit["file"]).read_text("utf-8").splitlines()
        assert text == file[unit["line"] - 1 : unit["line"] - 1 + len(text)]
        if name in ("Answer", "parse_boxes") and not made.data["boxes"]:
            continue
        if name == "keep_top_p":  # nothing is drawn
            continue
        if unit["file"] == "mask_decoder_1.py" and not made.data["masks"]["codewords"]:
            continue
        assert any(call["made"] for call in unit["calls"]), name
        for call in unit["calls"]:
            for line, value, *_ in call["made"]:
                assert value.split("[")[0] in text[line] or "return" in text[line], (name, value, text[line])
    layers = {call["layer"] for call in code["units"]["GemmaAttention"]["calls"]}
    assert layers == set(range(made.model.config.text_config.num_hidden_layers))
    assert {call["step"] for call in code["units"]["GemmaAttention"]["calls"]} == {0, 1}


def test_values_beside_the_code_are_the_model_s(made):
    config = made.model.config.text_config
    with torch.inference_mode():
        names = [f"language_model.model.layers.{i}.self_attn" for i in range(config.num_hidden_layers)]
        seen, hooks = {}, []
        for name in names:
            hooks.append(
                made.model.get_submodule(name).register_forward_hook(
                    lambda module, args, output, name=name: seen.update({name: output})
                )
            )
        made.model(**made.batch)
        for hook in hooks:
            hook.remove()
    calls = [call for call in made.data["code"]["units"]["GemmaAttention"]["calls"] if call["step"] == 0]
    for call, name in zip(calls, names, strict=True):
        assert call["module"] == name
        (returned,) = [row for row in call["made"] if row[1] == "returned"]
        _, _, shape, dtype, low, mean, high, *_ = returned
        output = seen[name]
        assert shape == str(list(output.shape)) and dtype == str(output.dtype).removeprefix("torch.")
        expected = [float(output.min()), float(output.double().mean()), float(output.max())]
        assert [low, mean, high] == pytest.approx(expected, rel=2e-3, abs=1e-6)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_code_opens_where_it_is_named(made, opened, width, scheme):
    tab = opened(made.page, width, scheme)
    link = tab.locator("#part5 a.source", has_text="GemmaAttention").first
    link.focus()
    tab.keyboard.press("Enter")
    unit = tab.locator("#code-GemmaAttention")
    assert unit.get_attribute("open") is not None and tab.url.endswith("#code-GemmaAttention")
    assert tab.evaluate("document.activeElement.parentElement.id") == "code-GemmaAttention"
    assert unit.locator("tbody tr:visible").count() > 30
    before = unit.locator(".made").all_inner_texts()
    assert sum(bool(text) for text in before) > 12
    unit.locator("select").first.select_option("1")
    after = unit.locator(".made").all_inner_texts()
    assert any("[1, 1, " in text for text in after) and after != before
    folded = unit.locator("tbody tr:visible").count()
    unit.locator("button.fold").first.click()
    assert unit.locator("tbody tr:visible").count() > folded
    # All of the code open: still nothing overlaps or is cut off.
    tab.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    eventually(lambda: tab.evaluate("document.querySelectorAll('.unit:not([data-drawn])').length") == 0)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate(CUT_OFF) == [] and tab.evaluate(OVERLAPS) == []


def test_the_contents_stay_in_sight_and_say_where_one_is(made, opened):
    tab, current = opened(made.page), "document.querySelector('#path a[aria-current]')?.hash"
    for part in (3, 7, 1):
        tab.locator(f"#path a[href='#part{part}']").click()
        eventually(lambda hash=f"#part{part}": tab.evaluate(current) == hash)
        box = tab.locator("#path").bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 900
    assert tab.locator("#path a[aria-current]").count() == 1


def test_unseen_maps_are_told(checkpoint, tmp_path, monkeypatch, opened):
    page_with(monkeypatch, checkpoint, tmp_path, vision_transformer_1.Attention, forward=by_hand)
    tab = opened(tmp_path / "p.html")
    assert "no map" in tab.locator("#towerSeen").inner_text() and not tab.locator("#decoderSeen").is_visible()
    assert tab.locator("#towerWords").inner_text() == "The weights of this layer could not be seen."
    page_with(monkeypatch, checkpoint, tmp_path, decoder_1.GemmaAttention, forward=decoder_unscaled)
    tab = opened(tmp_path / "p.html")
    tab.locator("#layer").fill("0")
    assert tab.locator("#pairSeen").is_visible() and not tab.locator("#pairNumbers").is_visible()


# ------------------------------------------------------------------------------- docs/


DOCS = PROGRAM.parent / "docs"
REMAKE = "run python -m docs.make_pages"


@needs_tiny
@pytest.mark.parametrize("name", make_pages.SAMPLES)
def test_pages_in_docs_are_up_to_date(name):
    """What is cheap to tell: words, drawing code, links, the code that is shown, and the answer."""
    page, model_set = DOCS / "pages" / f"{name}.html", import_set(1)
    told = data_of(page)
    assert page.stat().st_size <= 1_700_000
    assert build_page(told, model_set, page.parent) == page.read_text("utf-8"), REMAKE
    for thing, unit in told["code"]["units"].items():
        source = find_source(definition(thing, model_set))
        text = ["".join(one if isinstance(one, str) else one[1] for one in line) for line in unit["lines"]]
        assert (source.first_line, source.lines) == (unit["line"], text), REMAKE
    made = Made(page, TINY, str(SAMPLES / f"{name}.png"), make_pages.SAMPLES[name])
    (expected, *_) = zip(*generation_1.generate(made.model, made.batch, 1, 24), strict=True)
    # On another kind of CPU an edge of a box may be the <loc> of a bin nearby.
    shown, said = (" ".join(map(made.tokenizer.id_to_token, tokens)) for tokens in (made.answer, expected))
    assert matches(shown, said), REMAKE


def test_the_index_in_docs_leads_to_them(opened):
    told = {name: data_of(DOCS / "pages" / f"{name}.html") for name in make_pages.SAMPLES}
    assert make_pages.build_index(told) == (DOCS / "index.html").read_text("utf-8"), REMAKE
    for name in make_pages.SAMPLES:
        tab = opened(DOCS / "pages" / f"{name}.html", 390)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert tab.locator("#modules thead th").count() == 7  # none for the times of a machine
        assert not tab.locator("#timedWords").is_visible()


def test_pictures_in_docs_are_those_of_the_first_page():
    first = data_of(DOCS / "pages" / f"{next(iter(make_pages.SAMPLES))}.html")
    for name, png in pictures.draw_all(first).items():
        found, expected = (
            np.asarray(Image.open(file).convert("RGB"), dtype=int)
            for file in (DOCS / "pictures" / name, io.BytesIO(png))
        )
        # Pillow's own font may be drawn a little differently by another version.
        assert found.shape == expected.shape and abs(found - expected).mean() < 1, REMAKE


def test_a_long_prompt_and_the_end_of_a_cut_answer_can_be_read(checkpoint, tmp_path, opened, capfd):
    arguments = ["--model", str(checkpoint), "--image", str(draw_sample(tmp_path / "a.png"))]
    arguments += ["--prompt", "x " * 60, "--out", str(tmp_path / "p.html"), "--png", str(tmp_path / "png")]
    explain.main([*arguments, "--max-tokens", "3"])
    explain.main([*arguments, "--max-tokens", "3"])  # its own pictures are known again
    assert capfd.readouterr().err.count(": (cut off at --max-tokens 3)\n") == 2
    with Image.open(tmp_path / "png" / "explain-mask.png") as picture:
        assert max(picture.size) < 2000
    tab, told = opened(tmp_path / "p.html"), data_of(tmp_path / "p.html")["tokens"]
    assert len(told["list"]) > 60
    rows = tab.locator("#mask tbody tr").count()
    for place in ("#facts", "#cutWords"):
        assert "cut off at 3 tokens" in tab.locator(place).inner_text()
    assert (
        rows < 30
        and f"{len(told['list']) + 1 - rows} tokens in the middle" in tab.locator("#maskWords").inner_text()
    )
    assert tab.evaluate(CUT_OFF) == [] and tab.evaluate(OVERLAPS) == []
