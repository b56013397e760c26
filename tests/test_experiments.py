"""The experiments: every claim of every explanation is held against what comes out."""

import ast
import contextlib
import importlib
import inspect
import itertools
import json
import re
import subprocess
import sys
from functools import reduce
from pathlib import Path

import pytest
import torch
from PIL import Image

import learn
from course import hints
from course.exercises import EXERCISES
from course.experiments import BY_NAME, EXPERIMENTS, run
from course.experiments.edits import Conflict, Edit, compiled
from course.experiments.experiment import QUESTIONS, Experiment, Said, broken_claims, is_true
from course.experiments.run import picture, reference, reference_answers, switched, table
from load_weights import load_hf_model

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parent.parent
EDITS = [(experiment, edit) for experiment in EXPERIMENTS for edit in experiment.edits]


@pytest.fixture(scope="module")
def answers():
    """What each experiment makes of the six questions, computed when it is first asked for."""
    known = {}

    def of(experiment: Experiment):
        if experiment.name not in known:
            known[experiment.name] = switched(reference(), [(experiment, {})]).answers()
        return known[experiment.name]

    return of


# --------------------------------------------------------------------------------- what is said


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda one: one.name)
def test_claims_hold(experiment, answers):
    """A claim that fails here is no longer true of paligemma-tiny: its words have to change."""
    rows = table(reference(), experiment) if experiment.parameters else {}
    broken = broken_claims(experiment, reference_answers(), answers(experiment), rows)
    assert not broken, "\n".join(["no longer true of the checkpoint:", *broken])


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda one: one.name)
def test_explanation(experiment, answers):
    """Three to six sentences, most of what they say about answers as claims, nothing of the notation left."""
    text = experiment.explanation(answers(experiment))
    assert 3 <= len(re.findall(r"[.!?:][\"”)]*(?: [A-Z\[<\"(`]|$)", text)) <= 9
    assert 3 <= len(re.findall(r"[.!?][\"”)]*(?= |$)", experiment.explanation(nonsense()))) <= 6
    assert experiment.claims
    assert "](" not in text and not re.search(r"\{(cats|night) ", text)
    assert experiment.question.strip().endswith("?")
    for name in re.findall(r"`([a-z]+-[a-z-]+)`", text + experiment.question):
        assert name in BY_NAME


def nonsense():
    return {place: Said("answer", True) for place in QUESTIONS}


def test_in_the_order_of_the_path():
    assert len(EXPERIMENTS) == len(BY_NAME) >= 30
    order = [exercise.name for exercise in EXERCISES] + ["sample_next_token", "generate", ""]
    numbers = [order.index(experiment.exercise) for experiment in EXPERIMENTS]
    assert numbers == sorted(numbers)
    for experiment in EXPERIMENTS:
        assert not experiment.lesson or (ROOT / "docs" / "lessons" / f"{experiment.lesson}.md").is_file()
        assert bool(experiment.lesson) == bool(experiment.exercise)


BEFORE = Said("<loc0100><loc0100><loc0500><loc0500> cat ; <loc0600><loc0600><loc0900><loc0900> cat", True)


@pytest.mark.parametrize(
    ("what", "text", "ended", "true"),
    [
        ("same", BEFORE.text, True, True),
        ("same", BEFORE.text + " ", True, False),
        ("changed", BEFORE.text, True, False),
        ("changed", "", True, True),
        ("nothing", "", True, True),
        ("nothing", " ", True, False),
        ("endless", "two", False, True),
        ("endless", "two", True, False),
        ("kept", BEFORE.text.replace("0500", "0510"), True, True),
        ("kept", BEFORE.text.replace("0500", "0900"), True, False),
        ("kept", BEFORE.text.replace("cat", "dog"), True, False),
        ("kept", BEFORE.text.split(" ;")[0], True, False),
        ("kept", BEFORE.text + " ; <loc0000><loc0000><loc0900><loc0900> cat", True, False),
        ("within 9", BEFORE.text.replace("0500", "0509"), True, True),
        ("within 9", BEFORE.text.replace("0500", "0510"), True, False),
        ("2 boxes", BEFORE.text, True, True),
        ("1 box", BEFORE.text, True, False),
        ("says cat", BEFORE.text, True, True),
        ("says dog", BEFORE.text, True, False),
        ('"top"', "top", True, True),
        ('"top"', "top left", True, False),
    ],
)  # fmt: skip
def test_a_false_claim_is_found(what, text, ended, true):
    assert is_true(what, BEFORE, Said(text, ended)) == true


def test_false_claims_of_an_experiment_are_told_apart():
    """Each claim for itself, with the words that it stands behind."""
    why = "[Right](cats caption: same). [False](night: nothing; detect: kept). [Both](caption: alike)."
    experiment = Experiment("x", "", "", "", (), "", why)
    broken = broken_claims(experiment, reference_answers(), reference_answers(), {})
    assert [line.split(" (")[0] for line in broken] == ["x: 'False'"] * 3 + ["x: 'Both'"] * 2
    heads = Experiment("x", "", "", "", (), "", "[One head](lost: 0.1).")
    said = {(0, 0): {"detect": Said("", True)}, (0, 1): {"detect": reference_answers()["cats", "detect"]}}
    assert len(broken_claims(heads, reference_answers(), reference_answers(), said)) == 1
    with pytest.raises(ValueError, match="no such"):
        broken_claims(Experiment("x", "", "", "", (), "", "[A](nowhere: same)"), reference_answers(), {}, {})
    with pytest.raises(ValueError, match="no such"):
        is_true("improved", BEFORE, BEFORE)


# --------------------------------------------------------------------------------- what is changed


@pytest.mark.parametrize(
    ("experiment", "edit"), EDITS, ids=[f"{e.name}-{i}" for i, (e, _) in enumerate(EDITS)]
)
def test_the_real_line_is_in_the_file(experiment, edit):
    """As inspect reads it from the function that runs, and it is code, not part of a docstring."""
    module = importlib.import_module(edit.file)
    function = inspect.unwrap(reduce(getattr, edit.function.split("."), module))
    code = inspect.getsource(function).replace(function.__doc__ or "", "")
    assert edit.real in code
    filled = edit.with_values(experiment.values())
    real, changed = filled.lines()
    file = (ROOT / f"{edit.file}.py").read_text(encoding="utf-8").split("\n")
    assert [line.strip() for line in file[edit.line - 1 : edit.line - 1 + len(real)]] == [
        s.strip() for s in real
    ]
    assert real != changed
    ast.parse(filled.apply(inspect.getsource(module)))
    assert max(map(len, [*real, *changed])) <= 110


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda one: one.name)
def test_changed_code_runs(experiment, answers):
    """Where no answer differs, the numbers do: of the prompt, or of a new token.

    But for a mask that matters in training alone, and a copy of a table: those are claimed to change nothing.
    """
    if answers(experiment) != reference_answers():
        return
    if experiment.name in ("open-mask", "untied-copy"):
        assert [(claim.where, claim.what) for claim in experiment.claims] == [("all", "same")]
        return
    logits = []
    for kit in (reference(), switched(reference(), [(experiment, {})])):
        with torch.inference_mode():
            output = kit.model(**kit.processor(["caption en"], [picture("night")]))
            step = kit.model(torch.tensor([[7]]), kv_cache=output["kv_cache"])
        logits.append(torch.cat([output["logits"], step["logits"]], dim=1))
    assert not torch.equal(*logits)


def test_the_reference_stays_as_it_is():
    """After everything above: the same weights, code and answers, and no hooks."""
    kit = reference()
    weights = {name: tensor.clone() for name, tensor in kit.model.state_dict().items()}
    for experiment in EXPERIMENTS:
        other = switched(kit, [(experiment, {})])
        other.model.register_forward_hook(lambda *_: None)
        shared = {tensor.data_ptr() for tensor in kit.model.parameters()}
        if not experiment.bits and not experiment.name.startswith("untied"):
            assert {tensor.data_ptr() for tensor in other.model.parameters()} == shared
    table(kit, BY_NAME["decoder-head-off"])
    assert all(torch.equal(tensor, weights[name]) for name, tensor in kit.model.state_dict().items())
    for module in kit.model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
        assert type(module) in (
            getattr(importlib.import_module(type(module).__module__), type(module).__name__),
        )
    assert kit.model.language_model.lm_head.weight is kit.model.language_model.model.embed_tokens.weight
    assert kit.answers() == reference_answers()


def test_answers_of_a_batch_are_those_of_each_alone():
    """The six questions may be one batch."""
    kit = reference()
    for place, said in reference_answers().items():
        assert kit.ask([QUESTIONS[place]], [picture(place[0])]) == [said]


def test_weights_are_rounded_to_few_values_and_zeros_stay(checkpoint):
    model, _ = load_hf_model(checkpoint, "cpu", "float32")
    weight = model.multi_modal_projector.linear.weight.detach().clone()
    weight[0] = 0
    model.multi_modal_projector.linear.weight = torch.nn.Parameter(weight)
    rounded = run.rounded_weights(model, 3).multi_modal_projector.linear.weight.detach()
    assert (rounded[0] == 0).all()
    step = weight[1:].abs().amax(dim=-1, keepdim=True) / 3
    assert ((rounded[1:] / step).round().unique() == torch.arange(-3, 4)).all()
    assert ((rounded[1:] - weight[1:]).abs() <= step * 0.501).all()


def test_two_bits_are_too_few():
    """What the explanation of three-bits says of one bit less."""
    kit = switched(reference(), [])
    model = run.rounded_weights(kit.model, 2)
    matrices = [m.weight for m in model.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Embedding))]
    zeros = sum((weight == 0).sum().item() for weight in matrices)
    assert zeros / sum(map(torch.numel, matrices)) > 0.8
    answers = kit._replace(model=model).answers()
    assert all(answers[place].text != said.text for place, said in reference_answers().items())


# --------------------------------------------------------------------------------- several at once


def test_switches_combine():
    """What changes nothing changes nothing with another; others show both; on the same text they refuse."""
    calm = [(BY_NAME["open-mask"], {}), (BY_NAME["untied-copy"], {})]
    assert switched(reference(), calm).answers() == reference_answers()
    both = switched(reference(), [(BY_NAME["mirrored"], {}), (BY_NAME["pictures-exchanged"], {})]).answers()
    assert both["cats", "caption"].text == "a star and a rocket"
    with pytest.raises(Conflict):
        switched(reference(), [(BY_NAME["unscaled"], {}), (BY_NAME["one-look"], {})])


def test_all_heads_of_a_layer_off():
    """The same switch several times, with other values: then attention of that layer adds nothing."""
    off = [(BY_NAME["decoder-head-off"], {"layer": 2, "head": head}) for head in range(4)]
    model = switched(reference(), off).model
    batch = reference().processor(["caption en"], [picture("cats")])
    outputs = []
    for layer in model.language_model.model.layers:
        layer.self_attn.register_forward_hook(lambda module, args, output: outputs.append(output))
    with torch.inference_mode():
        model(**batch)
    assert [bool(output.any()) for output in outputs] == [True, True, False, True]


def test_two_changes_of_a_function_fit_or_conflict():
    """The live page has them as switches: whatever two are on, there is a model or a Conflict."""
    tried = 0
    for one, other in itertools.combinations(EXPERIMENTS, 2):
        pair = [*one.edits_with(), *other.edits_with()]
        if {(edit.file, edit.function) for edit in one.edits} & {
            (edit.file, edit.function) for edit in other.edits
        }:
            tried += 1
            with contextlib.suppress(Conflict):
                for edit in pair:
                    compiled(edit.file, tuple(each for each in pair if each.file == edit.file))
    assert tried > 20


def test_only_one_module_is_changed():
    kit = switched(reference(), [(BY_NAME["decoder-head-off"], {"layer": 2, "head": 1})])
    layers = kit.model.language_model.model.layers
    changed = [
        type(layer.self_attn) is not type(reference().model.language_model.model.layers[0].self_attn)
        for layer in layers
    ]
    assert changed == [False, False, True, False]
    with pytest.raises(ValueError, match="the model has no"):
        switched(reference(), [(BY_NAME["decoder-head-off"], {"layer": 7})])
    with pytest.raises(ValueError, match="no parameter"):
        switched(reference(), [(BY_NAME["decoder-head-off"], {"layers": 1})])


@pytest.mark.parametrize("name", ["tower-head-off", "decoder-head-off"])
def test_the_table_of_heads_is_what_the_switch_does(name):
    """All heads in one batch, through hooks, against the changed line, one head at a time."""
    rows = table(reference(), BY_NAME[name])
    place = "cats", "detect"
    for value in list(rows)[::5]:
        layer, head = value
        kit = switched(reference(), [(BY_NAME[name], {"layer": layer, "head": head})])
        assert kit.ask([QUESTIONS[place]], [picture("cats")]) == [rows[value]["detect"]]


def test_an_edit_that_fits_nowhere():
    with pytest.raises(ValueError, match="exactly once"):
        compiled("decoder_1", (Edit("decoder_1", "GemmaMLP.forward", "gate = nothing like it", "pass"),))


# --------------------------------------------------------------------------------- the program


@pytest.fixture
def program(monkeypatch, tmp_path, capsys):
    """learn.py with a memory of its own: gives exit code and output."""
    monkeypatch.setattr(hints, "HINTS_GIVEN", tmp_path / "hints.json")
    monkeypatch.setenv("COLUMNS", "110")

    def run(*argv: str):
        code = 0
        try:
            learn.main(["experiment", *argv])
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run


def test_list_marks_what_was_tried(program, tmp_path):
    code, out, _ = program()
    assert code == 0
    assert all(f" {experiment.name} " in out and experiment.title in out for experiment in EXPERIMENTS)
    assert f"0 of {len(EXPERIMENTS)} tried" in out and "  + " not in out
    assert program("No-Rope", "--no-wait")[0] == 0
    code, out, _ = program()
    assert "  + no-rope" in out and f"1 of {len(EXPERIMENTS)} tried" in out
    # It stands beside the hints, and neither disturbs the other.
    hints.write_given(hints.read_given() | {"rescale": 2})
    hints.forget(None)
    assert json.loads((tmp_path / "hints.json").read_text()) == {"experiment no-rope": 1}


def test_shows_everything_in_order(program):
    code, out, err = program("picture-undivided", "--no-wait")
    assert (code, err) == (0, "")
    parts = [
        "picture-undivided: the picture's features are not divided by √D",
        "._merge_input_ids_with_image_features\n  real     image_features = image_features.to(",
        "  changed  image_features = image_features.to(inputs_embeds.dtype)\n",
        "Does it drown the question?",
        "images/cats.png",
        "a cat and two cats",
        "images/night.png",
        "the same",
        "Why\n  Not the question itself, but much of the answer",
        "The exercise:  _merge_input_ids_with_image_features",
        "The lesson:    docs/lessons/joining.md",
    ]
    places = [out.index(part) for part in parts]
    assert places == sorted(places)


def test_parameters_on_the_command_line(program):
    code, out, _ = program("decoder-head-off", "--layer", "0", "--head", "2", "--no-wait")
    assert code == 0 and "attended[:, 2] = 0" in out and "layers.0.self_attn" in out
    assert "layer 1  2           2           1           2" in out
    code, out, _ = program("tower-cut", "--layers", "2", "--no-wait")
    assert (
        code == 0
        and "self.layers[:2]" in out
        and re.search(r"caption en +two cats and an umbrella +three bells", out)
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["norope"], "there is no experiment 'norope': did you mean no-rope"),
        (["xyzzy"], "`python learn.py experiment` lists them"),
        (["head"], "did you mean"),
        (["no-rope", "--layer", "1"], "no-rope has no --layer"),
        (["tower-cut", "--layers", "5"], "takes 0 to 4"),
        (["tower-cut", "--layers", "-1"], "takes 0 to 4"),
        (["no-rope", "--draw", "nowhere/out.png"], "--draw nowhere/out.png"),
        (["no-rope", "--draw", "out.txt"], "--draw out.txt"),
        (["no-rope", "--draw", str(ROOT / "images" / "street.png")], "or add --overwrite"),
        (["no-rope", "--draw", str(ROOT / "images" / "cats.png")], "never overwritten"),
    ],
)
def test_bad_input_is_one_line(program, argv, message):
    code, out, err = program(*argv)
    assert code == 2 and not out
    assert message in err and err.count("\n") == 1


def test_without_the_small_model_it_is_one_line(program, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "reference", reference.__wrapped__)  # which was loaded before, perhaps
    code, _, err = program("no-rope", "--no-wait")
    assert code == 2 and "paligemma-tiny" in err and err.count("\n") == 1


def test_draw(program, tmp_path):
    """Two pictures, twice each; what the changed model does not find has no box on the right."""
    out = tmp_path / "boxes.png"
    code, printed, _ = program("fast-clocks", "--no-wait", "--draw", str(out))
    assert code == 0 and str(out) in printed
    with Image.open(out) as sheet, Image.open(ROOT / "images" / "cats.png") as cats:
        width, height = cats.size
        right = sheet.crop((width + 10, 0, 2 * width + 10, height))
        assert right.tobytes() == cats.convert("RGB").tobytes()
        assert sheet.crop((0, 0, width, height)).tobytes() != right.tobytes()


def test_the_list_needs_no_model():
    """It comes at once: PyTorch is not imported for the experiments themselves."""
    code = "import sys, course.experiments.command; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
