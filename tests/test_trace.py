"""inside/trace.py: what it says of each line is what the line made, for the reference and for other code."""

import importlib.util
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

import decoder_1
import text_image_token_processor_1
from decoder_1 import GemmaAttention, KVCache, apply_rotary_pos_emb, prefix_lm_mask, repeat_kv
from inside.source import colored, find_source
from inside.trace import RETURNED, Tracer, compare, differences, snapshot, summarize
from load_weights import load_hf_model
from random_weights.small import random_checkpoint, small_config


class Seen(TorchFunctionMode):
    """Inputs and outputs of some PyTorch functions, in order."""

    def __init__(self, *functions):
        super().__init__()
        self.functions, self.calls = functions, []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function in self.functions:
            self.calls.append((args, result))
        return result


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=str)
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("traced")
    return load_hf_model(random_checkpoint(folder, small_config(), dtype=request.param))[0]


def inputs_of(model, T=14):
    N = model.config.vision_config.num_patches
    ids = torch.full((1, T), model.config.image_token_index)
    ids[:, N:] = torch.arange(5, 5 + T - N)
    size = model.config.vision_config.image_size
    torch.manual_seed(3)
    return {"input_ids": ids, "pixel_values": torch.rand(1, 3, size, size) * 2 - 1}


@torch.inference_mode()
def test_every_traced_tensor_of_gemma_attention_is_what_hooks_see(model):
    """Must show: the value beside a line of GemmaAttention.forward is the model's own."""
    inputs = inputs_of(model)
    attention = model.language_model.model.layers[-1].self_attn
    hooked, hooks = {}, []
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        hooks.append(
            attention.get_submodule(name).register_forward_hook(
                lambda module, args, output, name=name: hooked.update({name: (args[0], output)})
            )
        )
    hooks.append(
        attention.register_forward_hook(lambda module, args, output: hooked.update({"": (args, output)}))
    )

    seen = Seen(F.softmax)
    with Tracer([GemmaAttention], snapshot) as tracer, seen:
        model(**inputs)
    for hook in hooks:
        hook.remove()
    (call,) = [call for call in tracer.calls if call.owner is attention and call.name.endswith("forward")]
    text = find_source(GemmaAttention)

    hidden_states, mask, (cos, sin), cache = hooked[""][0]
    config = model.config.text_config
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    query, key, value = (
        hooked[name][1].unflatten(-1, (heads.get(name, config.num_key_value_heads), -1)).transpose(1, 2)
        for name in ("q_proj", "k_proj", "v_proj")
    )
    turned_query, turned_key = apply_rotary_pos_emb(query, key, cos, sin)
    repeats = config.num_attention_heads // config.num_key_value_heads
    (masked,), weights = seen.calls[-1]  # the last softmax is this layer's
    expected = {
        "hidden_states": [hidden_states], "attention_mask": [mask], "position_embeddings": [[cos, sin]],
        "cos": [cos], "sin": [sin], "B": [1], "T": [14], "D": [config.hidden_size],
        "query": [query, turned_query],
        "key": [key, turned_key, cache.key_cache[-1], repeat_kv(cache.key_cache[-1], repeats)],
        "value": [value, cache.value_cache[-1], repeat_kv(cache.value_cache[-1], repeats)],
        "scores": [None, masked],
        "weights": [None], "attended": [None],
        RETURNED: [hooked[""][1]],
    }  # fmt: skip
    expected["scores"][0] = turned_query @ expected["key"][-1].transpose(2, 3) * config.head_dim**-0.5
    expected["weights"][0] = weights.to(query.dtype)
    attended = hooked["o_proj"][0].unflatten(-1, (config.num_attention_heads, -1)).transpose(1, 2)
    expected["attended"][0] = attended

    made = [one for one in call.made if one.name != "kv_cache"]
    assert {one.name for one in made} == expected.keys()
    for one in made:
        wanted = expected[one.name].pop(0)
        pairs = zip(one.value, wanted, strict=True) if isinstance(wanted, list) else [(one.value, wanted)]
        for value, right in pairs:
            if isinstance(right, torch.Tensor):
                assert value.dtype == right.dtype and torch.equal(value, right), one.name
            else:
                assert value == right
        # The line that is told is the one that says so.
        line = text.lines[one.line - text.first_line]
        assert (one.name in line) if one.name != RETURNED else line.strip().startswith("return")
    assert not any(expected.values())


def test_it_changes_nothing_and_leaves_nothing(model):
    inputs, before = inputs_of(model), sys.gettrace()
    with torch.inference_mode():
        expected = model(**inputs)["logits"]
        with Tracer(vars(decoder_1).values()) as tracer:
            found = model(**inputs)["logits"]
    assert torch.equal(found, expected) and sys.gettrace() is before
    names, num_layers = {call.name for call in tracer.calls}, model.config.text_config.num_hidden_layers
    assert {"KVCache.update", "rotate_half", "GemmaRMSNorm.forward", "GemmaModel.forward"} <= names
    (norm, *_) = [call for call in tracer.calls if call.name == "GemmaRMSNorm.forward"]
    assert norm.caller.name == "GemmaDecoderLayer.forward" and not norm.stopped
    assert len([call for call in tracer.calls if call.name == "KVCache.update"]) == num_layers


# ------------------------------------------------------------------------------- small code

CODE = """
import torch

def loops(x, *rest, scale=2):
    total = 0
    for i, one in enumerate(x):
        if one > 1:
            total += (
                one
                * scale
            )
    squares = [one * one for one in x]
    return total, squares

def in_place(x):
    y = x.clone()
    y[0] = 9
    y += 1
    y.mul_(
        2
    )
    (a, b), *c = (1, 2), 3
    with torch.no_grad() as nothing:
        z = y - 1
    while (half := z.sum()) > 10:
        z = z / 2
    return z

def fails(x):
    y = x + 1
    raise ValueError(y)

@torch.no_grad()
def decorated(x):
    x = [one + 1 for one in x]
    while len(x) < 6: x = x + x
    return x

def recursive(n):
    below = recursive(n - 1) if n else 0
    return below + n
"""


@pytest.fixture
def module(tmp_path):
    return load(tmp_path / "written.py", CODE)


def load(path, text):
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made_by(function, *args):
    with Tracer([function], snapshot) as tracer:
        function(*args)
    lines = CODE.splitlines()
    return [(lines[one.line - 1].strip(), one.name, one.value) for one in tracer.calls[0].made]


def test_loops_and_statements_of_several_lines(module):
    made = made_by(module.loops, [1, 2, 3])
    head, loop = "def loops(x, *rest, scale=2):", "for i, one in enumerate(x):"
    assert made == [
        (head, "x", [1, 2, 3]), (head, "rest", []), (head, "scale", 2), ("total = 0", "total", 0),
        (loop, "i", 0), (loop, "one", 1),
        (loop, "i", 1), (loop, "one", 2), ("total += (", "total", 4),
        (loop, "i", 2), (loop, "one", 3), ("total += (", "total", 10),
        ("squares = [one * one for one in x]", "squares", [1, 4, 9]),
        ("return total, squares", RETURNED, [10, [1, 4, 9]]),
    ]  # fmt: skip


def test_changes_in_place_are_seen(module):
    made = made_by(module.in_place, torch.tensor([1.0, 2.0]))
    values = {(line, name): value.tolist() for line, name, value in made if isinstance(value, torch.Tensor)}
    assert values["y[0] = 9", "y"] == [9, 2] and values["y += 1", "y"] == [10, 3]
    assert values["y.mul_(", "y"] == [20, 6] and values["z = y - 1", "z"] == [19, 5]
    assert [line for line, name, _ in made if name == "half"] == ["while (half := z.sum()) > 10:"] * 3
    assert ("(a, b), *c = (1, 2), 3", "c", [3]) in made


def test_decorated_functions_comprehensions_and_loops_in_one_line(module):
    lists = [(name, len(value)) for _, name, value in made_by(module.decorated, [1, 2])]
    assert lists == [("x", 2), ("x", 2), ("x", 4), ("x", 8), (RETURNED, 8)]


def test_errors_and_recursion(module):
    with Tracer([module.fails], snapshot) as tracer, pytest.raises(ValueError):
        module.fails(1)
    (call,) = tracer.calls
    assert call.stopped and [(one.name, one.value) for one in call.made] == [("x", 1), ("y", 2)]
    with Tracer([module.recursive], snapshot) as tracer:
        module.recursive(3)
    returned = [call.made[-1].value for call in tracer.calls]
    assert returned == [6, 3, 1, 0] and [call.caller for call in tracer.calls][1] is tracer.calls[0]


# -------------------------------------------------------------------- a learner's code beside it


def traced(function, *args):
    with Tracer([function], snapshot) as tracer:
        function(*args)
    return tracer.calls[0]


WRONG = """
import torch

def prefix_lm_mask(attention_mask, token_type_ids):
    T, L = token_type_ids.shape[1], attention_mask.shape[1]
    positions = torch.arange(L)
    not_later = positions[None, :] < positions[L - T:, None]
    is_prefix = torch.nn.functional.pad(token_type_ids == 0, (L - T, 0))
    mine = is_prefix
    allowed = not_later[None] | is_prefix[:, None, :]
    return allowed[:, None]
"""


def test_a_wrong_line_is_found_by_its_values(tmp_path):
    arguments = torch.ones(1, 5, dtype=torch.int64), torch.tensor([[0, 0, 0, 1, 1]])
    reference = traced(prefix_lm_mask, *arguments)
    assert differences(traced(prefix_lm_mask, *arguments), reference) == []
    found = differences(traced(load(tmp_path / "wrong.py", WRONG).prefix_lm_mask, *arguments), reference)
    lines = WRONG.splitlines()
    assert [(lines[one.line - 1].split(" = ")[0].strip(), one.name) for one in found] == [
        ("not_later", "not_later"), ("allowed", "allowed"), ("return allowed[:, None]", RETURNED)
    ]  # fmt: skip
    assert found[0].what == "apart by 1"


def test_shapes_and_kinds_that_differ_are_told(tmp_path):
    right = "def f(x):\n    y = x + 1\n    z = 3\n    return y\n"
    wrong = "def f(x):\n    y = (x + 1).sum()\n    z = 4\n    return None\n"
    reference = traced(load(tmp_path / "right.py", right).f, torch.ones(2))
    found = differences(traced(load(tmp_path / "wrong.py", wrong).f, torch.ones(2)), reference)
    assert [one.what for one in found] == ["shape [], not [2]", "4, not 3", "NoneType, not a tensor"]


ATTENTION = """
import torch
from decoder_1 import GemmaAttention, apply_rotary_pos_emb, repeat_kv

class Mine(GemmaAttention):
    def forward(self, hidden_states, attention_mask, position_embeddings, kv_cache):
        B, T, D = hidden_states.shape
        query = self.q_proj(hidden_states).view(B, T, self.num_heads, -1).transpose(1, 2)
        key = self.k_proj(hidden_states).view(B, T, self.num_key_value_heads, -1).transpose(1, 2)
        value = self.v_proj(hidden_states).view(B, T, self.num_key_value_heads, -1).transpose(1, 2)
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        key, value = kv_cache.update(key, value, self.layer_idx)
        key, value = (repeat_kv(one, self.num_heads // self.num_key_value_heads) for one in (key, value))
        scores = query @ key.transpose(2, 3)
        weights = scores.softmax(dim=-1)
        attended = weights @ value
        return self.o_proj(attended.transpose(1, 2).flatten(2))
"""


@torch.inference_mode()
def test_modules_are_compared_on_the_same_input(tmp_path):
    config = decoder_1.GemmaConfig(50, 32, 48, 1, 4, 1, head_dim=8)
    reference = GemmaAttention(config, 0)
    hidden_states, mask = torch.randn(1, 5, 32), torch.ones(1, 1, 5, 5, dtype=torch.bool)
    angles = decoder_1.GemmaRotaryEmbedding(8, 10_000.0)(hidden_states, torch.arange(5)[None])
    cache = KVCache()
    assert compare(reference, reference, hidden_states, mask, angles, cache) == [] and cache.num_items() == 0

    own = load(tmp_path / "attention.py", ATTENTION).Mine(config, 0)
    own.load_state_dict(reference.state_dict())
    found = compare(own, reference, hidden_states, mask, angles, cache)
    lines = ATTENTION.splitlines()
    assert lines[found[0].line - 1].strip() == "scores = query @ key.transpose(2, 3)"
    assert [one.name for one in found] == ["scores", "weights", "attended", RETURNED]

    stops = ATTENTION.replace("scores.softmax(dim=-1)", "scores.softmax(dim=9)")
    own = load(tmp_path / "stops.py", stops).Mine(config, 0)
    own.load_state_dict(reference.state_dict())
    found = compare(own, reference, hidden_states, mask, angles, cache)
    assert lines[found[-1].line - 1].strip().startswith("weights = ") and "IndexError" in found[-1].what


# -------------------------------------------------------------------------------- what is shown


def test_summaries():
    x = torch.tensor([[1.0, -3.0], [2.0, 4.0]])
    assert summarize(x) == ("[2, 2]", "float32", -3, 1, 4)
    assert summarize(np.array([1, 2], dtype=np.uint8)) == ("[2]", "uint8", 1, 1.5, 2)
    assert summarize(torch.tensor([True, False]))[1:] == ("bool", 0, 0.5, 1)
    assert [one.kind for one in summarize((x, x[0]))] == ["[2, 2]", "[2]"]
    assert summarize(torch.zeros(0)) == ("[0]", "float32", None, None, None)
    assert summarize("a" * 100).kind == "'" + "a" * 29 + " ... " + "a" * 14 + "'"
    assert summarize(KVCache()).kind == "KVCache"


@pytest.mark.parametrize("thing", [GemmaAttention, prefix_lm_mask, text_image_token_processor_1.resize])
def test_colored_lines_are_the_source(thing):
    source = find_source(thing)
    lines = colored(source.lines)
    assert ["".join(text for _, text in line) for line in lines] == source.lines
    kinds = {kind for line in lines for kind, _ in line}
    assert {"keyword", "string", "name", "text"} <= kinds
    first = {kind: text for kind, text in lines[0]}
    assert first["name"] == thing.__name__ and first["keyword"] in ("def", "class")


def test_colors_of_what_cannot_be_read():
    lines = ["def f(:", '    """never ends']
    assert ["".join(text for _, text in line) for line in colored(lines)] == lines
