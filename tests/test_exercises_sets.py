"""The learner's code as a whole: sets that are solved, half solved, wrong or broken, at work.

Nothing here depends on what the learner has written: the `_0` files are made from the skeletons and
the reference. What runs the programs does so in a copy of the repository.
"""

import ast
import inspect
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from course import compare, learner_set, source
from course.checking import check
from course.exercises import EXERCISES, FILES, OWNERS, named, number_of
from course.judging import leaves
from course.learner_file import LearnerFile
from course.learner_set import LearnerSet, combine, make_set, set_named
from course.skeletons import skeleton
from course.source import ROOT, find, paste, reference_source
from course.variants import apply_change, replace_functions
from inference import open_picture
from load_weights import ModelSet, import_set, load_hf_model, load_mask_decoder

pytestmark = pytest.mark.long

PROMPT, PICTURE = "detect cat", ROOT / "images" / "cats.png"
SKELETONS = {file: skeleton(file) for file in FILES}
# In the order of ModelSet.modules.
MODULES = ("vision_transformer", "text_image_token_processor", "decoder")
MODULES += ("generation", "mask_decoder", "training")


def number(exercise):
    return f"exercise-{number_of(exercise)}"


def changed_text(text, exercise, change):
    """A change of a few words, or the text of a function in place of the exercise's."""
    if isinstance(change, dict):
        return apply_change(text, exercise, change)
    return replace_functions(text, exercise, {exercise.name.split(".")[-1]: change})


def texts_with(*names, changed=None):
    """The `_0` files with these exercises solved; changed: {name: change} makes some of them wrong."""
    texts = dict(SKELETONS)
    for name in [*names, *(changed or {})]:
        [exercise] = named(name)
        text = reference_source(exercise.file)
        if name in (changed or {}):
            text = changed_text(text, exercise, changed[name])
        texts[exercise.file] = paste(texts[exercise.file], exercise.parts, text)
    return texts


def files_of(texts):
    return {file: LearnerFile(file, text) for file, text in texts.items()}


ALL = [exercise.name for exercise in EXERCISES]
SOLVED = texts_with(*ALL)
WITHOUT_OFFSET = {"GemmaRMSNorm": {"(1 + self.weight.float())": "self.weight.float()"}}
TURNED = {"rotate_half": {"[-second, first]": "[second, -first]"}}


# ------------------------------------------------------------- mixed sets, in this process


@pytest.fixture(scope="session")
def model_folder(checkpoint):
    """The shipped checkpoint, or a random one where it is not."""
    shipped = ROOT / "paligemma-tiny"
    return shipped if any(shipped.glob("*.safetensors")) else checkpoint


def answer(folder, modules, precision="auto"):
    """The tokens of an answer, and the logits of the prompt's last one.

    A shape is drawn, too: it would be the answer's if the model were asked for one.
    """
    model, tokenizer = load_hf_model(folder, precision=precision, model_set=modules)
    config = model.config.vision_config
    processor = modules.processor.PaliGemmaProcessor(tokenizer, config.num_patches, config.image_size)
    batch = processor([PROMPT], [open_picture(PICTURE)])
    with torch.inference_mode():
        logits = model(**batch, logits_to_keep=1)["logits"]
    tokens = [row for step in modules.generation.generate(model, batch, 1, 6) for row in step]
    answer = modules.generation.Answer(tokenizer)
    text = "".join(answer.append(token) for token in tokens if token != 1)
    boxes = [(box["label"], *box["box"]) for box in modules.generation.parse_boxes(text, 300, 200)]
    return [tokens, text, boxes, shape_words(folder, modules)], logits


def shape_words(folder, modules):
    """A mask that is said in words and drawn again; None if the checkpoint has no mask decoder."""
    vqvae = load_mask_decoder(folder, modules.masks)
    if vqvae is None:
        return None
    y, x = torch.meshgrid(torch.arange(40), torch.arange(60), indexing="ij")
    mask, box = (x - 31) ** 2 / 3 + (y - 17) ** 2 < 200, (6.4, 3.4, 55.7, 31.5)
    words = modules.masks.tokens_from_mask(vqvae, mask, box)
    drawn = modules.masks.mask_from_tokens(vqvae, words, box, 40, 60)
    assert (drawn & mask).sum() > 0.8 * (drawn | mask).sum()
    return words.tolist(), drawn.tolist()


@pytest.fixture(scope="session")
def right_answer(model_folder):
    return answer(model_folder, import_set(1))


def set_of(texts, names) -> ModelSet:
    return combine(files_of(texts), [exercise for exercise in EXERCISES if exercise.name in names])


def sometimes(seed):
    return random.Random(seed).sample(ALL, len(ALL) // 2)


@pytest.mark.parametrize(
    "names",
    [ALL, ALL[: len(ALL) // 2], ALL[1::2], sometimes(1), sometimes(2), *([name] for name in ALL)],
    ids=["all", "first-half", "every-other", "some", "others", *map(number, EXERCISES)],
)
def test_half_solved_set_answers_as_the_reference(names, model_folder, right_answer):
    tokens, logits = answer(model_folder, set_of(texts_with(*names), names))
    assert tokens == right_answer[0] and torch.equal(logits, right_answer[1])


@pytest.mark.parametrize("exercise", EXERCISES, ids=number)
def test_mixed_set_calls_the_learners_code(exercise):
    """And the reference's everywhere else, which finds the learner's in its place."""
    made_of = combine(files_of(SOLVED), [exercise])
    modules = dict(zip(MODULES, made_of.modules, strict=True))
    assert set(MODULES) == set(FILES)
    for part in OWNERS:
        owner, _, method = part.partition(".")
        made = getattr(modules[OWNERS[part].file], owner)
        code = inspect.unwrap(vars(made)[method] if method else made).__code__
        mine = part in exercise.parts
        assert Path(code.co_filename).name == f"{OWNERS[part].file}_{0 if mine else 1}.py", part
    if exercise.file == "vision_transformer":
        assert modules["decoder"].VisionModel is modules["vision_transformer"].VisionModel


@pytest.mark.parametrize("i", range(max(len(exercise.right_ways) for exercise in EXERCISES)))
def test_other_right_ways_answer_as_the_reference(i, model_folder):
    """Also where a module keeps tensors of its own, which no checkpoint brings: constants, buffers."""
    texts = dict(SKELETONS)
    for file in FILES:
        texts[file] = reference_source(file)
        for exercise in EXERCISES:
            if exercise.file == file:
                change = exercise.right_ways[i % len(exercise.right_ways)].change
                texts[file] = apply_change(texts[file], exercise, change)
    modules = set_of(texts, ALL)
    right_tokens, right_logits = answer(model_folder, import_set(1), "float32")
    tokens, logits = answer(model_folder, modules, "float32")
    assert tokens == right_tokens
    torch.testing.assert_close(logits, right_logits, rtol=1e-3, atol=1e-3)

    # Nor does learn.py compare take their rounding for a difference.
    (reference, tokenizer), (theirs, _) = (
        load_hf_model(model_folder, precision="float32", model_set=which)
        for which in (import_set(1), modules)
    )
    batch = compare.prepare(import_set(1), reference, tokenizer, PROMPT, open_picture(PICTURE))
    recorder = compare.Watch(reference)
    likeliest = compare.answer(reference, batch, [], recorder)
    watch = compare.Watch(theirs, recorder.values)
    compare.answer(theirs, batch, likeliest, watch)
    assert watch.difference is None and len(set(watch.agreed)) > 50


def test_mixed_set_takes_what_is_solved():
    """By its test: a wrong one and one that is begun are the reference's, and the summary says so."""
    texts = texts_with("rescale", "MLP", changed=WITHOUT_OFFSET | {"resize": {"BICUBIC": "NEAREST"}})
    mixed = make_set(files_of(texts), wrong_ones_too=False)
    others = len(EXERCISES) - 3
    assert mixed.used == ["add_image_tokens_to_prompt", "rescale", "MLP"]
    assert mixed.summary == (
        "Yours: add_image_tokens_to_prompt, rescale, MLP. "
        f"Reference: the other {others}, among them 2 that you got wrong: resize, GemmaRMSNorm."
    )
    tried = make_set(files_of(texts), wrong_ones_too=True)
    assert tried.used == ["add_image_tokens_to_prompt", "resize", "rescale", "MLP", "GemmaRMSNorm"]
    assert tried.summary.endswith(f"(2 are wrong: resize, GemmaRMSNorm). Reference: the other {others - 2}.")


def test_summary_of_all_and_none():
    states = make_set(files_of(SKELETONS), wrong_ones_too=False).results
    assert LearnerSet((), states, ALL).summary == f"Yours: all {len(ALL)} exercises."
    assert LearnerSet((), states, []).summary == f"Yours: none. Reference: the other {len(ALL)}."
    assert LearnerSet((), states, ALL[:10]).summary.startswith(f"Yours: {', '.join(ALL[:8])} and 2 more.")


def test_learners_own_names_do_not_break_the_reference(model_folder, right_answer):
    """Constants and helpers are seen by the learner's definitions alone."""
    texts = texts_with(changed={"rotate_half": "def rotate_half(x):\n    return turned(*x.chunk(F, dim=-1))"})
    helper = "def turned(a, b):\n    return torch.cat([-b, a], dim=-1)\n"
    texts["decoder"] = texts["decoder"].replace("\n\n\n", f"\n\nF = 2\n\n\n{helper}\n\n", 1)
    assert answer(model_folder, set_of(texts, ["rotate_half"]))[0] == right_answer[0]


# ----------------------------------------------------------------------- broken files


def of_rescale(body, top=""):
    texts = texts_with(changed={"rescale": f"def rescale(image, scale=1 / 255):\n    {body}\n"})
    return texts | {"text_image_token_processor": top + texts["text_image_token_processor"]}


def broken(file, old, new):
    assert old in SOLVED[file]
    return SOLVED | {file: SOLVED[file].replace(old, new)}


def without(name):
    [exercise] = named(name)
    text = SKELETONS[exercise.file]
    node = find(ast.parse(text), name)
    lines = text.split("\n")
    del lines[node.lineno - 1 : node.end_lineno]
    return SKELETONS | {exercise.file: "\n".join(lines)}


RESCALED = "image.astype(np.float32) * np.float32(scale)"
BROKEN = {
    "infinite loop": (
        "rescale",
        of_rescale("while True:\n        image = image + 0\n    return image"),
        ["still running after 1 second:", "text_image_token_processor_0.py:", "in rescale:"],
    ),
    "an infinite loop that catches everything": (
        "rescale",
        of_rescale(
            "while True:\n        try:\n            image = image + 0\n        except Exception:\n"
            "            pass"
        ),
        ["still running after 1 second:"],
    ),
    "recursion": ("rescale", of_rescale("return rescale(image)"), ["RecursionError", "rescale(image)"]),
    "exit": ("rescale", of_rescale("exit()"), ["ends the program (exit or quit)"]),
    "nothing is returned": ("rescale", of_rescale(RESCALED), ["The result is None", "`return`"]),
    "the raise is still there": (
        "rescale",
        of_rescale("image = image + 0\n    " + f"raise NotImplementedError({named('rescale')[0].todo!r})"),
        ["`raise NotImplementedError` of the skeleton is still there"],
    ),
    "a bracket that is not closed": (
        "MLP",
        broken(
            "vision_transformer",
            "self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)",
            "self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size",
        ),
        ["Python cannot read this line", "vision_transformer_0.py:", "self.fc2 = nn.Linear("],
    ),
    "a quote that is not closed": (
        "rescale",
        broken("text_image_token_processor", f"return {RESCALED}", '"""never closed\n    return image'),
        ["Python cannot read this line"],
    ),
    "a line that is indented too far": (
        "rescale",
        broken("text_image_token_processor", f"return {RESCALED}", f"  x = 3\n    return {RESCALED}"),
        ["Look at the spaces at the beginning"],
    ),
    "a deleted class": ("MLP", without("MLP"), ["there is no class MLP", "Restore its name"]),
    "a renamed class": (
        "MLP",
        broken("vision_transformer", "class MLP(", "class Mlp("),
        ["there is no class MLP", "New names in the file: Mlp (line"],
    ),
    "a deleted function": ("rescale", without("rescale"), ["there is no function rescale"]),
    "a method out of its class": (
        "MLP",
        broken(
            "vision_transformer",
            "    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:\n        return self.fc2(",
            "def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:\n        return self.fc2(",
        ),
        ["class MLP has no forward anymore", "not indented into the class"],
    ),
    "an error": (
        "Attention",
        texts_with(changed={"Attention": {"key.transpose(2, 3)": "key"}}),
        ["stopped with RuntimeError", "vision_transformer_0.py:", "Shapes at that point", "query ["],
    ),
    "print": (
        "rescale",
        of_rescale(f"print('shape', image.shape)\n    return {RESCALED} * 2", top="print('from the top')\n"),
        ["Your code printed:", "shape (5, 4, 3)"],
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_file(kind):
    """A message that a beginner understands, and every other exercise stays what it was."""
    name, texts, words = BROKEN[kind]
    [exercise] = named(name)
    file = LearnerFile(exercise.file, texts[exercise.file])
    result = check(exercise, file, seconds=1 if "loop" in kind else None)
    assert result.state == "wrong"
    assert result.message.startswith(f"{name} ({exercise.path}:")
    for word in words:
        assert word in result.message
    assert "Traceback" not in result.message and "checking.py" not in result.message
    solved = "is not done yet" not in texts[exercise.file]
    for other in EXERCISES:
        if other.file == exercise.file and other is not exercise:
            expected = "solved" if solved or other.solved else "to do"
            assert check(other, file).state == expected, other.name


def test_renamed_file(monkeypatch, tmp_path):
    monkeypatch.setattr(source, "ROOT", tmp_path)
    file = LearnerFile("decoder")
    for exercise in EXERCISES:
        if exercise.file == "decoder":
            result = check(exercise, file)
            assert result.state == "wrong" and "There is no decoder_0.py (was it renamed" in result.message


def test_begun():
    """A class of which one part is written: neither wrong nor untouched."""
    text = SKELETONS["vision_transformer"]
    init = find(ast.parse(reference_source("vision_transformer")), "MLP.__init__")
    lines, skeleton_lines = reference_source("vision_transformer").split("\n"), text.split("\n")
    old = find(ast.parse(text), "MLP.__init__")
    skeleton_lines[old.lineno - 1 : old.end_lineno] = lines[init.lineno - 1 : init.end_lineno]
    [exercise] = named("MLP")
    result = check(exercise, LearnerFile("vision_transformer", "\n".join(skeleton_lines)))
    assert (result.state, result.left) == ("to do", ["MLP.forward"])


# ----------------------------------------------------------- the programs, in a copy of the repository

# Runs the programs one after the other in one process: most of the time is that of the imports.
DRIVER = """
import contextlib, importlib, io, json, linecache, pathlib, sys
sys.dont_write_bytecode = True
results = {}
for name, files, command in json.load(sys.stdin):
    for file, text in files.items():
        path = pathlib.Path(f"{file}_0.py")
        path.write_text(text, encoding="utf-8") if text is not None else path.unlink()
    for module in [module for module in sys.modules if module.endswith("_0")]:
        del sys.modules[module]
    if "course.learner_set" in sys.modules:
        sys.modules["course.learner_set"].mixed_set.cache_clear()
        sys.modules["course.learner_set"].tried_set.cache_clear()
    if name == "an infinite loop":
        sys.modules["course.worker"].SECONDS = 2
    linecache.clearcache()
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            importlib.import_module(command[0]).main(command[1:])
        except SystemExit as error:
            code = error.code or 0
    imported = sorted(set(sys.modules) & {"course.learner_set", "course.checking", "course.exercises"})
    results[name] = [code, out.getvalue(), err.getvalue(), imported]
json.dump(results, sys.stdout)
"""
# Besides the picture and the prompt of all scenarios.
BATCH = ("--image", "small.png", "picture.png", "--max-tokens", "12")
BATCH += ("--prompt", "caption en", "answer en how many cats are there?")
SEVERAL = ("--max-tokens", "12", "--prompt", "answer en is there a cat?", "detect cat", "caption en")
COUNTED = {"VisionModel": {"return self": "print('rows', len(pixel_values)); return self"}}
DRAWN = ("--temperature", "2.5", "--top-p", "0.95", "--seed", "3")
ONLY_GENERATION = SKELETONS | {"generation": SOLVED["generation"]}
NO_MASKS = {"mask_decoder": SKELETONS["mask_decoder"]}
SCENARIOS = [
    ("reference", SKELETONS, "inference", "1"),
    ("untouched", SKELETONS, "inference", "0"),
    ("untouched, mixed", SKELETONS, "inference", "mixed"),
    ("untouched, compared", SKELETONS, "learn compare", None),
    ("solved", SOLVED, "inference", "0"),
    ("solved, mixed", SOLVED, "inference", "mixed"),
    ("solved, compared", SOLVED, "learn compare", None),
    # Rows that end at different times, greedily and drawn.
    ("reference, batch", SKELETONS, "inference", "1", *BATCH),
    ("solved, batch", SOLVED, "inference", "0", *BATCH),
    ("only generation, batch", ONLY_GENERATION, "inference", "mixed", *BATCH),
    ("reference, drawn", SKELETONS, "inference", "1", *BATCH, *DRAWN),
    ("solved, drawn", SOLVED, "inference", "0", *BATCH, *DRAWN),
    ("only generation, drawn", ONLY_GENERATION, "inference", "mixed", *BATCH, *DRAWN),
    ("reference, several prompts", SKELETONS, "inference", "1", *SEVERAL),
    ("solved, several prompts", texts_with(*ALL, changed=COUNTED), "inference", "0", *SEVERAL),
    ("mixed, several prompts", texts_with("Attention", changed=COUNTED), "inference", "mixed", *SEVERAL),
    ("solved but for the masks", SOLVED | NO_MASKS, "inference", "0"),
    ("only GemmaRMSNorm, mixed", texts_with("GemmaRMSNorm"), "inference", "mixed"),
    ("wrong GemmaRMSNorm, mixed", texts_with(changed=WITHOUT_OFFSET), "inference", "mixed"),
    ("wrong GemmaRMSNorm, compared", texts_with(*ALL, changed=WITHOUT_OFFSET), "learn compare", None),
    ("wrong rotate_half, compared", texts_with(changed=TURNED), "learn compare", None),
    (
        "wrong rescale, compared",
        texts_with(changed={"rescale": {" * np.float32(scale)": ""}}),
        "learn compare",
        None,
    ),
    ("an error", texts_with(*ALL, changed={"Attention": {"key.transpose(2, 3)": "key"}}), "inference", "0"),
    ("an error, compared", BROKEN["an error"][1], "learn compare", None),
    (
        "exit",
        texts_with(*ALL, changed={"rescale": "def rescale(image, scale=1 / 255):\n    exit()"}),
        "inference",
        "0",
    ),
    ("a syntax error", BROKEN["a bracket that is not closed"][1], "inference", "0"),
    ("a syntax error, mixed", BROKEN["a bracket that is not closed"][1], "inference", "mixed"),
    (
        "a wrong name of a parameter",
        texts_with(*ALL, changed={"MLP": {"self.fc2": "self.second"}}),
        "inference",
        "0",
    ),
    (
        "a wrong name of a parameter, compared",
        texts_with(changed={"MLP": {"self.fc2": "self.second"}}),
        "learn compare",
        None,
    ),
    (
        "the end of the process",
        texts_with(*ALL, changed={"rescale": "def rescale(image):\n    __import__('os')._exit(0)"}),
        "inference",
        "mixed",
    ),
    (
        "the end of the process, set 0",
        texts_with(*ALL, changed={"rescale": "def rescale(image):\n    __import__('os')._exit(0)"}),
        "inference",
        "0",
    ),
    (
        "the end of the process at once",
        SOLVED | {"decoder": SOLVED["decoder"] + "\nfrom os import _exit\n_exit(0)\n"},
        "inference",
        "0",
    ),
    (
        "a typo in an annotation",
        broken("text_image_token_processor", "-> np.ndarray:", "-> np.ndaray:"),
        "inference",
        "0",
    ),
    (
        "a name that is not there",
        SOLVED | {"decoder": SOLVED["decoder"] + "\nSIZE = sise\n"},
        "inference",
        "0",
    ),
    (
        "a name that is not there, mixed",
        SOLVED | {"decoder": SOLVED["decoder"] + "\nSIZE = sise\n"},
        "inference",
        "mixed",
    ),
    (
        "nothing returned",
        texts_with(*ALL, changed={"VisionModel": {"return self": "self"}}),
        "inference",
        "0",
    ),
    (
        "an infinite loop",
        texts_with(*ALL, changed={"rescale": "def rescale(image):\n    while True: pass"}),
        "inference",
        "mixed",
    ),
    ("no file", SOLVED | {"vision_transformer": None}, "inference", "0"),
    ("no file, mixed", SOLVED | {"vision_transformer": ""}, "inference", "mixed"),
]


@pytest.fixture(scope="session")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy")
    for path in ROOT.glob("*.py"):
        shutil.copy(path, folder)
    for name in ("course", "docs", "finetuning", "inside", "program", "random_weights", "speed", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "pictures"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copy(PICTURE, folder / "picture.png")
    open_picture(PICTURE).crop((0, 0, 90, 70)).save(folder / "small.png")
    return folder


@pytest.fixture(scope="session")
def results(copy, model_folder):
    common = ["--model", str(model_folder), "--image", "picture.png", "--prompt", PROMPT]
    scenarios = [
        (
            name,
            texts,
            [*program.split(), *common, *(["--set", which, "--max-tokens", "6"] if which else []), *more],
        )
        for name, texts, program, which, *more in SCENARIOS
    ]
    return drive(copy, scenarios)


def drive(copy, scenarios):
    ran = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=copy,
        input=json.dumps(scenarios),
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


TRAININGS = [
    ("reference", SKELETONS, "1"),
    ("only LoRALinear, mixed", texts_with("LoRALinear"), "mixed"),
    ("solved", SOLVED, "0"),
    ("wrong LoRALinear, tried", texts_with(changed={"LoRALinear": {" * self.scaling": ""}}), "tried"),
    ("wrong LoRALinear, mixed", texts_with(changed={"LoRALinear": {" * self.scaling": ""}}), "mixed"),
    ("untouched", SKELETONS, "0"),
    (
        "the end of the process",
        texts_with(*ALL, changed={"LoRALinear": {"return ": "__import__('os')._exit(0); return "}}),
        "0",
    ),
]


@pytest.fixture(scope="session")
def trainings(copy, model_folder):
    """A few steps of finetune.py in each set: what it says, its losses, and what it has learned."""
    examples = [{"image": "picture.png", "prefix": "detect cat", "suffix": "two cats"}]
    examples += [{"image": "small.png", "prefix": "caption en", "suffix": "a cat and an umbrella"}] * 2
    (copy / "train.jsonl").write_text("".join(json.dumps(example) + "\n" for example in examples))
    unseen = {"image": "unseen.png", "prefix": "detect cat", "suffix": "a cat"}
    (copy / "unseen.jsonl").write_text(json.dumps(unseen))
    open_picture(PICTURE).crop((50, 20, 170, 120)).save(copy / "unseen.png")
    options = ["--data", "train.jsonl", "--eval", "unseen.jsonl", "--model", str(model_folder)]
    options += ["--epochs", "2", "--batch", "1", "--accumulate", "2", "--rank", "4", "--max-tokens", "24"]
    ran = drive(
        copy,
        [
            (name, texts, ["finetune", *options, "--set", which, "--out", f"trained-{i}"])
            for i, (name, texts, which) in enumerate(TRAININGS)
        ],
    )
    made = {}
    for i, (name, *_) in enumerate(TRAININGS):
        folder = copy / f"trained-{i}"
        is_there = (folder / "adapter_model.safetensors").exists()
        lines = (folder / "log.jsonl").read_text().splitlines() if is_there else []
        tensors = load_file(folder / "adapter_model.safetensors") if is_there else {}
        made[name] = (*ran[name], [json.loads(line)["loss"] for line in lines], tensors)
    return made


@pytest.mark.parametrize("name", ["only LoRALinear, mixed", "solved", "wrong LoRALinear, mixed"])
def test_a_learners_set_trains_as_the_reference(name, trainings):
    (*_, right, adapter), (code, _, err, _, losses, own) = trainings["reference"], trainings[name]
    assert code == 0, err
    assert losses == right and len(losses) == 4
    assert own.keys() == adapter.keys() and all(torch.equal(own[key], adapter[key]) for key in adapter)
    assert any(tensor.any() for key, tensor in adapter.items() if "lora_B" in key)


def test_whose_code_trains_is_said(trainings):
    assert f"Yours: {ALL[0]}, LoRALinear. Reference: the other" in trainings["only LoRALinear, mixed"][2]
    assert "among them 1 that you got wrong: LoRALinear" in trainings["wrong LoRALinear, mixed"][2]


def test_a_wrong_lora_linear_that_is_tried_trains_something_else(trainings):
    right, (code, _, err, _, losses, _) = trainings["reference"][4], trainings["wrong LoRALinear, tried"]
    assert code == 0, err
    assert losses[0] == right[0] and losses[1:] != right[1:], "B is zero at the start, and not anymore"


def test_what_is_not_done_yet_stops_the_training_with_a_line(trainings):
    code, _, err, *_ = trainings["untouched"]
    last = err.splitlines()[-1]
    assert code == 2 and "Traceback" not in err
    assert last.startswith("finetune.py: error: ") and "is not done yet" in last and "-k " in last


def test_the_end_of_the_process_is_told(trainings):
    code, _, err, *_ = trainings["the end of the process"]
    assert code == 1 and "Traceback" not in err
    assert "error: your code ends the program (exit, quit or os._exit)" in err and "training_0.py:" in err


def test_whole_set_solved_answers_as_the_reference(results):
    right = results["reference"]
    assert right[0] == 0 and len(right[1]) > 1
    assert results["solved"][:2] == right[:2]
    assert results["solved, mixed"][:2] == right[:2]
    assert f"Yours: all {len(ALL)} exercises.\n" in results["solved, mixed"][2]


@pytest.mark.parametrize("how", ["batch", "drawn"])
def test_the_learners_generation_writes_the_same_tokens_in_a_batch(how, results):
    right = results[f"reference, {how}"]
    assert right[0] == 0 and len(right[1].splitlines()) == 3
    assert results[f"solved, {how}"][:2] == results[f"only generation, {how}"][:2] == right[:2]
    assert results["reference, drawn"][1] != results["reference, batch"][1]


@pytest.mark.parametrize("name", ["solved", "mixed"])
def test_a_learners_tower_reads_a_picture_once(name, results):
    right, (code, out, err, _) = results["reference, several prompts"], results[f"{name}, several prompts"]
    assert right[0] == code == 0 and len(right[1].splitlines()) == 4
    assert out == f"rows 1\n{right[1]}", err


def test_masks_that_are_not_done_yet_are_no_hindrance(results):
    """As long as no answer holds a shape."""
    assert results["solved but for the masks"][:2] == results["reference"][:2]


def test_the_reference_is_run_without_the_exercises(results):
    """They would cost a second at every start."""
    assert results["reference"][3] == [] and results["untouched, mixed"][3] != []


def test_set_0_names_what_is_missing(results):
    code, out, err, _ = results["untouched"]
    last = err.splitlines()[-1]
    assert (code, out) == (2, "") and "Traceback" not in err
    assert last.startswith("inference.py: error: ") and "is not done yet (" in last and "_0.py:" in last
    assert "python -m pytest -k " in last and "--set mixed" in last


@pytest.mark.parametrize(
    ("name", "summary"),
    [
        ("untouched, mixed", f"Yours: {ALL[0]}. Reference: the other {len(ALL) - 1}."),
        ("only GemmaRMSNorm, mixed", f"Yours: {ALL[0]}, GemmaRMSNorm. Reference: the other {len(ALL) - 2}."),
        (
            "wrong GemmaRMSNorm, mixed",
            f"Yours: {ALL[0]}. Reference: the other {len(ALL) - 1}, "
            "among them 1 that you got wrong: GemmaRMSNorm.",
        ),
        ("a syntax error, mixed", "Reference: the other 1, among them 1 that you got wrong: MLP."),
        ("an infinite loop", "Reference: the other 1, among them 1 that you got wrong: rescale."),
        ("the end of the process", "Reference: the other 1, among them 1 that you got wrong: rescale."),
        ("no file, mixed", "that you got wrong: VisionEmbeddings, Attention, "),
    ],
)
def test_mixed_answers_as_the_reference(name, summary, results):
    assert results[name][:2] == results["reference"][:2]
    assert summary in results[name][2]


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        (
            "an error",
            1,
            [
                "stopped with RuntimeError",
                "vision_transformer_0.py:",
                "query @ key",
                "Shapes",
                "python -m pytest -k Attention",
            ],
        ),
        (
            "the end of the process, set 0",
            1,
            [
                "ends the program (exit, quit or os._exit)",
                "text_image_token_processor_0.py:",
                "__import__('os')._exit(0)",
                "python -m pytest -k rescale",
            ],
        ),
        (
            "the end of the process at once",
            1,
            ["ends the program (exit, quit or os._exit)", "decoder_0.py:", "in <module>", "_exit(0)"],
        ),
        ("exit", 1, ["ends the program", "text_image_token_processor_0.py:", "python -m pytest -k rescale"]),
        ("a syntax error", 2, ["vision_transformer_0.py:", "Python cannot read this line"]),
        ("a wrong name of a parameter", 2, ["your model and the checkpoint do not fit", "mlp.second.weight"]),
        ("nothing returned", 1, ["TypeError", "python -m pytest"]),
        ("no file", 2, ["set 0 needs vision_transformer_0"]),
    ],
)
def test_set_0_says_what_went_wrong(name, code, words, results):
    assert results[name][:2] == [code, ""]
    message = results[name][2]
    assert "Traceback" not in message and message.count("error: ") == 1
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("untouched, compared", 0, ["No difference"]),
        ("solved, compared", 0, [f"Yours: all {len(ALL)}", "No difference, from the picture to token 2"]),
        (
            "wrong GemmaRMSNorm, compared",
            1,
            [
                "What agrees: pixel_values, input_ids and attention_mask; then ",
                "First difference: decoder layer 0, input_layernorm\n",
                "language_model.model.layers.0.input_layernorm: GemmaRMSNorm (decoder_0.py:",
                "Its input agrees, its output does not.",
                "Largest difference: ",
                "Relative: ",
                "To look at: GemmaRMSNorm (wrong)",
            ],
        ),
        (
            "wrong rotate_half, compared",
            1,
            [
                "First difference: decoder layer 0, self_attn\n",
                "hands to o_proj",
                "To look at: rotate_half (wrong)",
            ],
        ),
        (
            "wrong rescale, compared",
            1,
            [
                "First difference: the processor, in pixel_values",
                "rescale (wrong)",
            ],
        ),
        (
            "an error, compared",
            1,
            [
                "the last of them vision tower layer 0, self_attn.v_proj",
                "stopped with RuntimeError",
                "vision tower layer 0, self_attn, your code",
                "query @ key",
            ],
        ),
        ("a wrong name of a parameter, compared", 1, ["do not fit", "mlp.second", "To look at: MLP (wrong)"]),
    ],
)
def test_comparison(name, code, words, results):
    assert results[name][0] == code, results[name]
    for word in words:
        assert word in results[name][1]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a typo in an annotation", ["text_image_token_processor_0.py:", "AttributeError", "np.ndaray"]),
        (
            "a name that is not there",
            ["decoder_0.py:", "NameError: name 'sise' is not defined", "`SIZE = sise`"],
        ),
    ],
)
def test_what_cannot_be_imported_is_said_in_a_line(name, words, results):
    code, out, err, _ = results[name]
    assert (code, out) == (2, "") and err.startswith("inference.py: error: ") and err.count("\n") == 1
    for word in words:
        assert word in err
    mixed = results["a name that is not there, mixed"]
    assert mixed[:2] == results["reference"][:2] and f"Yours: all {len(ALL)}" in mixed[2]


def test_pytest_with_broken_files(copy):
    """One run, and everything that is not broken has its result."""
    texts = texts_with("MLP", changed=WITHOUT_OFFSET)
    texts["text_image_token_processor"] = of_rescale("exit()", top="print('from the top')\n")[
        "text_image_token_processor"
    ]
    texts["vision_transformer"] = without("Encoder")["vision_transformer"].replace(
        "class MLP(nn.Module):", "class MLP(nn.Module:"
    )
    for file, text in texts.items():
        (copy / f"{file}_0.py").write_text(text, encoding="utf-8")
    ran = run_pytest(copy)
    assert ran.returncode == 1 and "Traceback" not in ran.stdout
    assert f"1 of {len(ALL)} solved, 4 wrong, {len(ALL) - 5} to do." in ran.stdout
    for words in (
        "ends the program",
        "there is no class Encoder",
        "Python cannot read this line",
        "without the `1 +`",
    ):
        assert words in ran.stdout


def run_pytest(copy, *arguments, **options):
    shutil.copy(ROOT / "conftest.py", copy)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "tests/test_exercises.py", "-p", "no:cacheprovider", *arguments],
        cwd=copy,
        capture_output=True,
        text=True,
        encoding="utf-8",
        **options,
    )


def test_pytest_with_a_name_that_is_not_there(copy):
    ran = run_pytest(copy, "-k", "Atention")
    assert ran.returncode == pytest.ExitCode.USAGE_ERROR
    assert "no tests ran" in ran.stdout.splitlines()[-1]
    assert "there is no exercise 'Atention': did you mean Attention or GemmaAttention?" in ran.stderr
    assert run_pytest(copy, "-k", "xyzzyx").returncode == pytest.ExitCode.NO_TESTS_COLLECTED


def test_print_and_breakpoint_with_s(copy):
    body = f"print('here', scale)\n    breakpoint()\n    return {RESCALED}"
    for file, text in of_rescale(body).items():
        (copy / f"{file}_0.py").write_text(text, encoding="utf-8")
    ran = run_pytest(copy, "-k", "rescale", "-s", input="p image.shape\n" + "continue\n" * 5)
    assert ran.returncode == 0 and "1 passed" in ran.stdout
    assert f"here {1 / 255}" in ran.stdout and "(Pdb) (5, 4, 3)" in ran.stdout


def test_set_by_name(monkeypatch):
    texts = texts_with("rescale", changed=WITHOUT_OFFSET)
    monkeypatch.setattr(LearnerFile, "_read", lambda self: texts[self.file])
    monkeypatch.setattr(learner_set, "check_apart", check)
    for make in (learner_set.mixed_set, learner_set.tried_set):
        make.cache_clear()
    assert set_named("1") == (import_set(1), "") and set_named("0") == (import_set(0), "")
    mixed, summary = set_named("mixed")
    assert summary.startswith(f"Yours: {ALL[0]}, rescale. Reference: the other {len(ALL) - 2}")
    assert Path(mixed.processor.rescale.__code__.co_filename).name == "text_image_token_processor_0.py"
    tried, summary = set_named("tried")
    assert summary.startswith(f"Yours: {ALL[0]}, rescale, GemmaRMSNorm (1 is wrong: GemmaRMSNorm).")
    assert Path(tried.decoder.GemmaRMSNorm.forward.__code__.co_filename).name == "decoder_0.py"
    for make in (learner_set.mixed_set, learner_set.tried_set):
        make.cache_clear()


def test_leaves_take_a_cache_apart():
    """What learn.py compare sees of a model's output."""

    class Cache:
        key_cache, value_cache = [1, 2], [3]

    assert leaves({"a": (4, None), "b": Cache()}) == [
        ("['a'][0]", 4),
        ("['a'][1]", None),
        ("['b'].key_cache[0]", 1),
        ("['b'].key_cache[1]", 2),
        ("['b'].value_cache[0]", 3),
    ]
