"""What a learner is told is true: mistakes that were misnamed, passed, had no name, or were told badly.

Each is the reference with a change, as if it were the learner's. The proof (test_exercises_proof.py) shows
that known mistakes are named; here are the others.
"""

import ast
import copy
import itertools

import numpy as np
import pytest

from course import checking
from course.checking import check
from course.differences import describe_values
from course.edits import all_edits, edited_module, own_tree
from course.exercises import EXERCISES, FILES, named
from course.learner_file import LearnerFile
from course.outcome import Result
from course.path import count_line, path_line
from course.source import reference_source
from course.trying import expected_outcome, observe_like_reference
from course.variants import apply_change

pytestmark = pytest.mark.long


def result_of(name, change):
    """change: as a Mistake's, or a function from the file's text to another."""
    [exercise] = named(name)
    text = reference_source(exercise.file)
    text = change(text) if callable(change) else apply_change(text, exercise, change)
    return check(exercise, LearnerFile(exercise.file, text))


MERGE, FORWARD = "_merge_input_ids_with_image_features", "PaliGemmaForConditionalGeneration.forward"
SCORES = "F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)"
NORM = "torch.rsqrt(x32.pow(2).mean(dim=-1, keepdim=True) + self.eps)"

# Misnamed before: what they are, and what they may be called (a part of the title).
MISNAMED = {
    "scaled in every layer": (
        "GemmaModel",
        {
            "hidden_states = inputs_embeds * normalizer": "hidden_states = inputs_embeds",
            "= layer(hidden_states,": "= layer(hidden_states * normalizer,",
        },
        "before every layer",
    ),
    "prefix only among the new tokens": (
        "prefix_lm_mask",
        {"F.pad(token_type_ids == 0, (L - T, 0))": "F.pad((token_type_ids == 0) & (L == T), (L - T, 0))"},
        "once something is cached",
    ),
    "257152": (MERGE, {"self.config.image_token_index": "257_152"}, "257152"),
    "no up_proj": ("GemmaMLP", {"gate * self.up_proj(hidden_states)": "1 * gate"}, "without up_proj"),
    "no gate": ("GemmaMLP", {"gate * self": "self"}, "without the gate"),
    "eps as a lower bound": (
        "GemmaRMSNorm",
        {NORM: "x32.pow(2).mean(dim=-1, keepdim=True).clamp_min(self.eps).rsqrt()"},
        "the least that the mean square may be",
    ),
    "0 / 0": (
        "GemmaAttention",
        {
            SCORES: "torch.nan_to_num(scores.exp() * attention_mask / (scores.exp() * "
            "attention_mask).sum(-1, "
            "keepdim=True), nan=float('nan')).to(query.dtype)"
        },
        "may look at nothing",
    ),
    "keys[:T]": ("prefix_lm_mask", {"positions[L - T:, None]": "positions[:T, None]"}, "counted from 0"),
    "a count over the batch": (
        MERGE,
        {"(is_image.sum(dim=1) != N).any()": "int(is_image.sum()) != B * N"},
        "a check of the whole batch",
    ),
}


@pytest.mark.parametrize("kind", MISNAMED)
def test_named_for_what_it_is(kind):
    name, change, title = MISNAMED[kind]
    result = result_of(name, change)
    assert result.state == "wrong" and title in result.mistake, result.message


def test_parameters_in_another_order():
    result = result_of(
        "apply_rotary_pos_emb",
        lambda text: text.replace(
            "query: torch.Tensor, key: torch.Tensor, cos", "key: torch.Tensor, query: torch.Tensor, cos"
        ),
    )
    assert result.state == "wrong" and not result.mistake
    assert "The parameters of `apply_rotary_pos_emb` stand in another order" in result.message


# Passed before: exercise, change, words of the message.
PASSED = {
    "tokens added to the tokenizer": (
        "PaliGemmaProcessor",
        {
            "self.tokenizer = tokenizer": "tokenizer.add_tokens(['<loc9999>'])\n        "
            "self.tokenizer = tokenizer"
        },
        "changes its input `tokenizer` in place",
    ),
    "padding of the tokenizer": (
        "PaliGemmaProcessor.__call__",
        {"rows = []": "self.tokenizer.enable_padding(length=1)\n        rows = []"},
        "changes its input `tokenizer` in place",
    ),
    "truncation of the tokenizer": (
        "PaliGemmaProcessor",
        {
            "self.tokenizer = tokenizer": "tokenizer.enable_truncation(512)\n        self.tokenizer "
            "= tokenizer"
        },
        "changes its input `tokenizer` in place",
    ),
    "a value in the config": (
        "GemmaModel",
        {
            "self.embed_tokens =": "config.hidden_act = 'gelu'\n        config.rope_theta *= 1.0\n"
            "        config.rms_norm_eps = float(config.rms_norm_eps) + 1e-12\n        self.embed_tokens ="
        },
        "changes its input `config` in place",
    ),
    "what the cache held": (
        "KVCache.update",
        {
            "self.key_cache[layer_idx] = torch": "self.key_cache[layer_idx], old = None, "
            "self.key_cache[layer_idx]\n"
            "            new_key = torch.cat([old, key], dim=2)\n            old.zero_()\n"
            "            self.key_cache[layer_idx] = new_key\n            torch",
            "torch.cat([self.key_cache[layer_idx], key], dim=2)": "None",
        },
        "in place",
    ),
    "the suffix for the labels": (
        FORWARD,
        {
            "labels[:, 1:].flatten()": "input_ids[:, 1:].where(token_type_ids[:, 1:] == 1, "
            "self.config.ignore_index).flatten()"
        },
        "over the whole suffix",
    ),
    "no_grad around the tower": (
        FORWARD,
        {
            "image_features = self.multi": "with torch.no_grad():\n                features = "
            "self.vision_tower("
            "pixel_values)\n            image_features = self.multi",
            "self.vision_tower(pixel_values))": "features)",
        },
        "gets no gradients",
    ),
    "a frozen tower": (
        "PaliGemmaForConditionalGeneration",
        {
            "self.multi_modal_projector =": "self.vision_tower.requires_grad_(False)\n        "
            "self.multi_modal_projector ="
        },
        "takes no gradients (requires_grad is False)",
    ),
    "no gradient for the queries": (
        "Attention",
        {"scores = query @": "scores = query.detach() @"},
        "no gradient reaches `q_proj.weight`",
    ),
    "no gradient for the embeddings": (
        FORWARD,
        {"embed_tokens(input_ids)": "embed_tokens(input_ids).detach()"},
        "not all of the gradient reaches `language_model.model.embed_tokens.weight`",
    ),
    "logits computed in float32": (
        "GemmaForCausalLM",
        {
            "self.lm_head(hidden_states[:, -logits_to_keep:]).float()": "hidden_states[:, "
            "-logits_to_keep:].float() "
            "@ self.lm_head.weight.float().T"
        },
        "with the product in float32",
    ),
    "the cache in float32": (
        "KVCache.update",
        {
            "self.key_cache.append(key)": "self.key_cache.append(key.to(torch.float32))",
            "self.value_cache.append(value)": "self.value_cache.append(value.to(torch.float32))",
        },
        "kept in float32",
    ),
    "a new lm_head": (
        "GemmaForCausalLM.tie_weights",
        {
            "self.lm_head.weight =": "V, D = self.model.embed_tokens.weight.shape\n"
            "        self.lm_head = nn.Linear(D, V, bias=False)\n        self.lm_head.weight ="
        },
        "with a new lm_head",
    ),
    "softmax of bfloat16 by hand": (
        "Attention",
        {
            SCORES: "(lambda e: e / e.sum(-1, keepdim=True))((scores - scores.max(-1, "
            "keepdim=True).values).exp())"
        },
        "And now in bfloat16: ",
    ),
    "softmax of bfloat16 by hand, in the decoder": (
        "GemmaAttention",
        {
            SCORES: "(lambda e: e / e.sum(-1, keepdim=True))((scores - scores.max(-1, "
            "keepdim=True).values).exp())"
        },
        "And now in bfloat16: ",
    ),
    "padding of the tokenizer, in training": (
        "training_row",
        {"prompt =": "tokenizer.enable_padding(length=64)\n    prompt ="},
        "without `tokenizer.enable_padding(length=64)`, all cases pass",
    ),
    "another codec": (
        "mask_from_tokens",
        {"mask = torch.zeros": "vqvae.decoder[-1].bias.zero_()\n    mask = torch.zeros"},
        "values of the result are wrong",
    ),
    "the positions on the CPU": (
        "VisionEmbeddings",
        {"self.position_embedding.weight ": "self.position_embedding(torch.arange(patch_embeds.shape[1])) "},
        "is made on another device",
    ),
    "the scale on the CPU": (
        "Attention",
        {" * self.head_dim**-0.5": " * torch.full((1,), self.head_dim**-0.5)"},
        "is made on another device",
    ),
    "the scale on the CPU, in the decoder": (
        "GemmaAttention",
        {" * self.head_dim**-0.5": " * torch.full((1,), self.head_dim**-0.5)"},
        "is made on another device",
    ),
    "sqrt(D) on the CPU": (
        MERGE,
        {"torch.tensor(D**0.5,": "torch.tensor([D**0.5],"},
        "is made on another device",
    ),
    "the mask on the CPU": (
        FORWARD,
        {"input_ids.new_ones(B, num_cached + T)": "torch.ones(B, num_cached + T, dtype=torch.int64)"},
        "is made on another device",
    ),
    "a merged layer on the CPU": (
        "LoRALinear.merged",
        {
            'device="meta")': "dtype=weight.dtype)",
            "linear.weight = nn.Parameter((weight.float() + update).detach().to(weight.dtype))": (
                "linear.weight.data.copy_((weight.float() + update).detach())"
            ),
        },
        "is not on the device of the input",
    ),
    "lower case": (
        "PaliGemmaProcessor.__call__",
        {
            "for prompt in text:\n            prompt =": "for prompt in [p.lower() for p in "
            "text]:\n            prompt ="
        },
        "in lower case",
    ),
}


@pytest.mark.parametrize("kind", PASSED)
def test_does_not_pass_anymore(kind):
    name, change, words = PASSED[kind]
    result = result_of(name, change)
    assert result.state == "wrong" and words in result.message, result.message


@pytest.mark.parametrize("file", FILES)
def test_file_without_its_imports(file):
    """What `--set 0` would stop at is not solved."""
    text = reference_source(file)
    imports = [node for node in ast.parse(text).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    lines = text.split("\n")
    for node in imports:
        lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    learner = LearnerFile(file, "\n".join(lines))
    results = [check(exercise, learner) for exercise in EXERCISES_OF[file]]
    needs = [result for result in results if result.exercise.name not in NEEDS_NO_IMPORT]
    assert needs and all(result.state == "wrong" for result in needs)
    assert all("has lost the line that made it" in result.message for result in needs)
    assert all("import" in result.message for result in needs)


EXERCISES_OF = {file: [exercise for exercise in EXERCISES if exercise.file == file] for file in FILES}
NEEDS_NO_IMPORT = {"add_image_tokens_to_prompt"}


# Nothing was said about them that a beginner understands: exercise, change of the file, words.
def changing(old, new):
    def change(text):
        assert old in text
        return text.replace(old, new)

    return change


UNCLEAR = {
    "a module that is missing": (
        "repeat_kv",
        lambda text: text.replace("import torch\n", "import torch\nfrom einopts import repeat\n", 1).replace(
            "    B, K, L, Hd = hidden_states.shape\n",
            "    return repeat(hidden_states)\n    B, K, L, Hd = hidden_states.shape\n",
        ),
        [
            "`from einopts import repeat` (decoder_0.py:",
            "there is no module 'einopts' here. Is its name spelled right?",
        ],
    ),
    "a parameter in place of a layer": (
        "LoRALinear",
        changing(
            "self.lora_A = nn.Linear(I, rank, bias=False, device=base_layer.weight.device)",
            "self.lora_A = nn.Parameter(torch.randn(rank, I))",
        ),
        ["`lora_A` is a parameter itself; it has to be an nn.Linear, which holds `weight`."],
    ),
    "a parameter that is no part of a checkpoint": (
        "LoRALinear",
        changing("self.scaling = alpha / rank", "self.scaling = nn.Parameter(torch.tensor(alpha / rank))"),
        ["has a parameter `scaling` of shape [], which is not in the reference."],
    ),
    "no self": (
        "MLP",
        lambda text: without_self(text, "MLP"),
        ["`forward` has no `self`"],
    ),
    "no super().__init__()": (
        "MLP",
        changing("        super().__init__()\n        self.fc1", "        self.fc1"),
        ["`super().__init__()` is missing", "put it back"],
    ),
    "a parameter too many": (
        "repeat_kv",
        changing(
            "def repeat_kv(hidden_states: torch.Tensor, num_repeats: int)",
            "def repeat_kv(hidden_states, num_repeats, dim)",
        ),
        ["The signature of `repeat_kv` was changed", "repeat_kv(hidden_states, num_repeats)."],
    ),
    "a return at column 0": (
        "rotate_half",
        changing(
            "    return torch.cat([-second, first], dim=-1)", "return torch.cat([-second, first], dim=-1)"
        ),
        ["this `return` is not indented", "return torch.cat"],
    ),
    "a return at column 0, in a class": (
        "MLP",
        changing("        return self.fc2(F.gelu(", "return self.fc2(F.gelu("),
        ["this line is not indented", "return self.fc2("],
    ),
    "a return at column 0, behind other lines of a class": (
        "EncoderLayer",
        changing(
            "self.layer_norm2(hidden_states))\n        return hidden",
            "self.layer_norm2(hidden_states))\nreturn hidden",
        ),
        ["this `return` is not indented", "return hidden_states"],
    ),
    "a return at column 0, in the middle of a class": (
        "KVCache.num_items",
        changing(
            "        return self.key_cache[0].shape[2]", "        pass\nreturn self.key_cache[0].shape[2]"
        ),
        ["this `return` is not indented", "return self.key_cache"],
    ),
    "curly quotes": (
        "MLP",
        changing('approximate="tanh"', "approximate=\u201ctanh\u201d"),
        ["there is a curly quote in this line, at column ", 'type " in its place'],
    ),
    "a no-break space": (
        "rotate_half",
        changing("    first, second = x", "    first,\u00a0second = x"),
        ["there is a no-break space in this line, at column 11"],
    ),
    "no-break spaces for indentation": (
        "rotate_half",
        changing("    first, second = x", "\u00a0\u00a0\u00a0\u00a0first, second = x"),
        ["there is a no-break space in this line"],
    ),
    "git's conflict marks": (
        "rotate_half",
        changing(
            "    first, second = x.chunk(2, dim=-1)\n",
            "<<<<<<< HEAD\n    first, second = x.chunk(2, dim=-1)\n=======\n    a, b = "
            "x.chunk(2)\n>>>>>>> mine\n",
        ),
        ["git's conflict marks stand in lines ", "Keep one of them"],
    ),
    "numbers that are not finite": (
        "GemmaAttention",
        changing("torch.finfo(scores.dtype).min", "float('-inf')"),
        ["This has to hold, and does not: every number is finite, at padding too."],
    ),
    "a cache without its list": (
        "KVCache.update",
        changing("            self.key_cache.append(key)", "            self.key_cache = key"),
        ["instead of a list with one tensor"],
    ),
    "a sum written into the input": (
        "EncoderLayer",
        changing("hidden_states = hidden_states + self", "hidden_states += self"),
        ["Your code changes its input `hidden_states` in place", "`x = x + y`, not `x += y`"],
    ),
    "a sum written into a copy of the input": (
        "EncoderLayer",
        changing(
            "hidden_states = hidden_states + self.self_attn(self.layer_norm1(hidden_states))\n        "
            "hidden_states = hidden_states + self",
            "hidden_states = hidden_states.clone()\n        "
            "hidden_states += self.self_attn(self.layer_norm1(hidden_states))\n        "
            "hidden_states += self",
        ),
        ["writes into a tensor that the gradient still needs", "`x = x + y`, not `x += y`"],
    ),
    "NaN that is not looked for": (
        "generate",
        changing("logits.isfinite().all()", "logits.isfinite().any()"),
        ["A FloatingPointError has to be raised here, but nothing was."],
    ),
}


@pytest.mark.parametrize("kind", UNCLEAR)
def test_message_is_clear(kind):
    name, change, words = UNCLEAR[kind]
    result = result_of(name, change)
    assert result.state == "wrong", kind
    for word in words:
        assert word in result.message, result.message
    for word in ("is not defined", "tuple of 1", "pip install", "anomaly detection"):
        assert word not in result.message


def without_self(text, owner):
    lines = text.split("\n")
    node = next(node for node in ast.parse(text).body if getattr(node, "name", "") == owner)
    line = next(child.lineno for child in node.body if getattr(child, "name", "") == "forward")
    lines[line - 1] = lines[line - 1].replace("self, ", "")
    return "\n".join(lines)


def test_warnings_of_numpy_do_not_leak(recwarn, capfd):
    result = result_of(
        "rescale", {"image.astype(np.float32) * np.float32(scale)": "np.log(image * -1.0).astype(np.uint8)"}
    )
    assert result.state == "wrong"
    assert not recwarn.list and capfd.readouterr().err == ""


def test_random_results_are_said_to_be_random():
    for module in ("F.dropout(weights, 0.1)", "torch.nn.Dropout(0.1)(weights)"):
        result = result_of("GemmaAttention", {"attended = weights @": f"attended = {module} @"})
        assert "The result changes from call to call" in result.message and not result.mistake
        assert "torch.empty that was not filled" in result.message


WRONG = "return hidden_states.reshape(B, K * num_repeats, L, Hd) ** 3"


@pytest.mark.parametrize(("busy", "again"), [(0.0, [0]), (0.25, [])], ids=["quick", "slow"])
def test_a_wrong_result_is_tried_again_if_there_is_time(busy, again, monkeypatch):
    """Or else a slow one would be taken for a loop that never ends."""
    tried = []

    def observed(exercise, index, *arguments, **by_name):
        tried.append(index)
        return observe_like_reference(exercise, index, *arguments, **by_name)

    monkeypatch.setattr(checking, "observe_like_reference", observed)
    [exercise] = named("repeat_kv")
    lines = f"import time\n    end = time.process_time() + {busy}\n    while time.process_time() < end:\n"
    change = {WRONG.removesuffix(" ** 3"): f"{lines}        pass\n    {WRONG}"}
    text = apply_change(reference_source("decoder"), exercise, change)
    result = check(exercise, LearnerFile("decoder", text), seconds=2)
    assert result.kind == "values", result.message
    assert tried == [*range(len(exercise.cases)), *again]


def test_a_second_try_that_takes_too_long_is_not_random():
    [exercise] = named("repeat_kv")
    change = {WRONG.removesuffix(" ** 3"): f"while torch.initial_seed() == 1:\n        pass\n    {WRONG}"}
    text = apply_change(reference_source("decoder"), exercise, change)
    result = check(exercise, LearnerFile("decoder", text), seconds=1)
    assert result.kind == "values" and "from call to call" not in result.message


def test_a_repair_that_cannot_be_looked_for_is_no_hindrance(monkeypatch):
    monkeypatch.setattr(checking, "found_repair", lambda *arguments: 1 / 0)
    result = result_of("KVCache.update", {"self.key_cache.append(key)": "self.key_cache[layer_idx] = key"})
    assert result.mistake.startswith("when a new layer is assigned to a place"), result.message


def test_bfloat16_is_the_second_step():
    in_float32 = result_of("GemmaRMSNorm", {"(1 + self.weight.float())": "self.weight"})
    assert not in_float32.float32 and "bfloat16" not in in_float32.message
    nearly = result_of("GemmaRMSNorm", {"(1 + self.weight.float())": "(self.weight + 1)"})
    assert nearly.float32 and nearly.state == "wrong"
    assert "  Right in float32. And now in bfloat16: the values of the result are wrong." in nearly.message
    assert "rounded to bfloat16" in nearly.mistake
    assert path_line(nearly).split()[1:3] == ["/", "nearly"]
    line = count_line([nearly, in_float32, Result(nearly.exercise, "solved")])
    assert line == "1 of 3 solved, 2 wrong (1 of them right in float32, not in bfloat16), 0 to do."


# Mistakes that are on no list are found among small edits of the reference.
@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (
            "normalize",
            {"(image - np.float32(mean))": "(np.float32(mean) - image)"},
            "np.float32(mean) - image",
        ),
        ("Attention", {"query = self.q_proj": "query = self.k_proj"}, "k_proj"),
        ("Encoder", {"in self.layers:": "in self.layers[::2]:"}, "[::2]"),
        ("MLP", {"self.fc1(hidden_states)": "2 * self.fc1(hidden_states)"}, "2 * "),
        ("GemmaMLP", {"gate * self": "gate / 2 * self"}, "/ 2"),
        ("GemmaRMSNorm", {".pow(2)": ".abs()"}, "abs()"),
        ("repeat_kv", {"return hidden_states": "return -hidden_states"}, "-"),
    ],
    ids=["minus", "keys for queries", "every other", "doubled", "halved", "absolute values", "sign"],
)
def test_small_edit_is_found(name, change, words):
    result = result_of(name, change)
    assert ", all cases pass." in result.message and words in result.mistake, result.message


def test_edit_of_the_reference_is_found_for_another_way_of_writing():
    """No line of this is the reference's, and no single place of it could be mended."""
    result = result_of(
        "EncoderLayer",
        {
            "hidden_states = hidden_states + self.mlp(self.layer_norm2(hidden_states))\n        return "
            "hidden_states": "x = self.mlp(hidden_states)\n        x = self.layer_norm2(x)\n"
            "        return hidden_states + x"
        },
    )
    assert "The reference comes to the same if its " in result.message, result.message
    assert "self.layer_norm2(self.mlp(hidden_states))" in result.mistake, result.message


@pytest.mark.parametrize("name", ["GemmaRMSNorm", "prefix_lm_mask"])
def test_edits_leave_the_reference_as_it_was(name):
    [exercise] = named(name)
    before = ast.dump(copy.deepcopy(own_tree(exercise)))
    for edit in itertools.chain(*all_edits(exercise)):
        edited_module(exercise, edit), edit.title
    assert ast.dump(own_tree(exercise)) == before
    assert expected_outcome(exercise, 0).error is None


# Mistakes on no list that are undone in the learner's own lines: exercise, change, words of the message.
REPAIRED = {
    "a name": (
        "resize",
        {"(image_size, image_size)": "(image.width, image_size)"},
        ["`image_size` in place"],
    ),
    "a number": (
        "rescale",
        {"np.float32(scale)": "np.float32(1 / 256)"},
        ["`scale` in place of `1 / 256`"],
    ),
    "a line that is missing": (
        "make_encoder",
        {"        layers.append(nn.ReLU())\n": ""},
        ["A line is missing before mask_decoder_0.py:", "with `layers.append(nn.ReLU())` there"],
    ),
    "a line too much": (
        "VisionTransformer",
        {
            "        return self.post": "        hidden_states = hidden_states.flip(1)\n"
            "        return self.post"
        },
        ["without `hidden_states = hidden_states.flip(1)`, all cases pass"],
    ),
    "where it stops": (
        "add_lora",
        {"LoRALinear(module, rank, alpha)": "LoRALinear(module, alpha, rank)"},
        ["with `LoRALinear(module, rank, alpha)` in place of"],
    ),
    "in another way of writing": (
        "MLP",
        {
            'return self.fc2(F.gelu(self.fc1(hidden_states), approximate="tanh"))': "x = self.fc1("
            "hidden_states)\n"
            "        x = 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.0044715 * x ** 3)))\n"
            "        return self.fc2(x)"
        },
        ["`0.044715 * x ** 3` in place of `0.0044715 * x ** 3`"],
    ),
    "among other names": (
        "GemmaMLP",
        {
            "gate = F": "g = F",
            "self.down_proj(gate * self": "self.down_proj(g * 0.5 * self",
        },
        ["`g` in place of `g * 0.5`"],
    ),
}


@pytest.mark.parametrize("kind", REPAIRED)
def test_line_of_the_mistake_is_named(kind):
    name, change, words = REPAIRED[kind]
    result = result_of(name, change)
    assert result.state == "wrong" and result.mistake, result.message
    for word in words:
        assert word in result.message, result.message


def test_half_of_the_solution_is_not_handed_out():
    for name, change in (
        (
            "MLP",
            {'return self.fc2(F.gelu(self.fc1(hidden_states), approximate="tanh"))': "return hidden_states"},
        ),
        ("rotate_half", {"torch.cat([-second, first], dim=-1)": "x"}),
    ):
        result = result_of(name, change)
        assert result.state == "wrong" and "F.gelu" not in result.message, result.message
        assert "torch.cat" not in result.message, result.message


def test_an_error_alone_is_not_misnamed():
    """Both stop at a label that is no class, for different reasons."""
    result = result_of(
        FORWARD, {"ignore_index=self.config.ignore_index": "ignore_index=self.config.pad_token_id"}
    )
    assert "-100" not in result.mistake and "pad_token_id" in result.mistake, result.message


def test_what_still_holds_is_said():
    right = np.random.default_rng(0).normal(size=(3, 5, 4))
    for got, words in (
        (np.roll(right, 1, axis=1), "1 place too late"),
        (
            right * np.arange(1, 6)[:, None],
            "right up to a factor that depends on the place along axis 1 (N) alone",
        ),
        (
            right + np.arange(1, 6)[:, None],
            "right up to a constant that depends on the place along axis 1 (N) alone",
        ),
        (
            right * np.arange(1, 16).reshape(3, 5, 1),
            "up to a factor that is the same along axis 2 (C), and another one in each row",
        ),
        (right[:, :1].repeat(5, axis=1), "Along axis 1 (N), all are alike"),
    ):
        lines = describe_values(right, got, 1e-5, "B N C", {})
        assert any(words in line for line in lines), lines


def test_a_single_number_is_made_on_any_device():
    """torch computes with a number of no axes on every device."""
    result = result_of(
        "GemmaRotaryEmbedding",
        {"self.rope_theta**-exponents": "torch.exp(-exponents * torch.log(torch.tensor(self.rope_theta)))"},
    )
    assert result.state == "solved", result.message


MOVED = {
    "exponents": (
        "GemmaRotaryEmbedding",
        {"arange(0, self.head_dim, 2, device=x.device)": "arange(0, self.head_dim, 2).to(x.device)"},
    ),
    "positions": (
        "prefix_lm_mask",
        {"arange(L, device=attention_mask.device)": "arange(L).to(attention_mask)"},
    ),
    "an index": (
        "VisionEmbeddings",
        {"return patch_embeds +": "return patch_embeds[:, torch.arange(patch_embeds.shape[1])] +"},
    ),
    "a layer": (
        "LoRALinear",
        {
            "bias=False, device=base_layer.weight.device)\n        nn.init": (
                "bias=False).to(base_layer.weight.device)\n        nn.init"
            )
        },
    ),
    "what a layer holds": (
        "LoRALinear.merged",
        {', device="meta")': ")", "linear.weight = nn.Parameter(": "linear.weight.data = ("},
    ),
}


@pytest.mark.parametrize("kind", MOVED)
def test_what_is_moved_to_the_device_passes(kind):
    """There are more ways than device= that work on a GPU."""
    result = result_of(*MOVED[kind])
    assert result.state == "solved", result.message
