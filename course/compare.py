"""Finds where your model leaves the reference: the first module whose output differs on a picture.

Both models read the same picture and prompt, and then the same first tokens of an answer. Hooks keep
what every module of the reference is given and returns, and compare yours with it as it computes. All
exercises that you tried take part, the wrong ones too; the reference stands in for those that are not
done yet.

Where the output of a module differs though its input agrees, the mistake is in it: in what it hands
to its parts, if already their input differs. Functions such as rotate_half are seen in this way,
through the module that uses them. Another way to the same output is no difference.
"""

import ast
import functools
import inspect
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import nn

from course.differences import distance, error_ratios, show, what_holds
from course.exercises import EXERCISES, FILES, OWNERS
from course.judging import leaves, to_array
from course.learner_set import LearnerSet, tried_set
from course.source import find, reference, reference_source
from course.tracebacks import LearnersError, explained
from load_weights import CheckpointError, ModelSet, import_set, load_hf_model
from program.command_line import InputError, write
from speed.threads import ONE_THREAD

NEW_TOKENS = 2  # read after the prompt, with the cache
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


@dataclass(eq=False)
class Difference(Exception):
    """The first thing that is not as in the reference; raised, it ends a run of which nothing more has to
    be known."""

    module: str  # its name in the model; "": the model
    what: str  # "its output", "`key` for q_proj"
    details: list[str]
    input_agrees: bool = True
    step: int = 0  # 0: the prompt, 1: the first new token
    seen_in: str = ""  # the first module with another output


def describe_difference(right, got, tolerance: float) -> list[str]:
    """How one value differs from the other, in words; nothing if it does not."""
    if not isinstance(got, torch.Tensor):
        return [f"It is {got if got is None else type(got).__name__} instead of a tensor."]
    if right.shape != got.shape:
        return [f"Its shape is {list(got.shape)} instead of {list(right.shape)}."]
    if right.dtype != got.dtype:
        names = [str(dtype).removeprefix("torch.") for dtype in (got.dtype, right.dtype)]
        return [f"It is {names[0]} instead of {names[1]}."]
    right, got = to_array(right), to_array(got)
    if distance(right, got, tolerance) <= 1:
        return []
    wrong = error_ratios(right, got, tolerance) > 1
    right64, got64 = right.astype(np.float64), got.astype(np.float64)
    sizes = np.abs(got64 - right64)
    at = np.unravel_index(np.argmax(np.where(np.isnan(sizes), np.inf, sizes)), sizes.shape)
    rms = float(np.sqrt(np.mean(right64**2)))
    relative = float(np.sqrt(np.mean(sizes**2))) / rms if rms else float("inf")
    return [
        f"Largest difference: {show(sizes[at])}, at {[int(i) for i in at]}: {show(got[at])} instead "
        f"of {show(right[at])}.",
        f"Relative: {relative:.2g} (root mean square of the differences over that of the values); "
        f"{1 - wrong.mean():.0%} of {right.size:,} values agree.",
        *what_holds(right, got, wrong, tolerance, [], {}),
    ]


@dataclass
class Watch:
    """Hooks on a model: they record, or, given what another recorded, compare."""

    model: nn.Module
    recorded: dict | None = None  # of the reference; None: record
    values: dict = field(default_factory=dict)
    counts: Counter = field(default_factory=Counter)
    calls: list[tuple[str, bool]] = field(default_factory=list)  # modules at work; does the input agree?
    agreed: list[str] = field(default_factory=list)  # modules whose output agreed
    suspect: Difference | None = None  # an input; its caller is not done yet
    difference: Difference | None = None
    step: int = 0

    def __post_init__(self):
        self.tolerance = TOLERANCE[next(self.model.parameters()).dtype]
        for name, module in self.model.named_modules():
            module.register_forward_pre_hook(functools.partial(self.before, name), with_kwargs=True)
            module.register_forward_hook(functools.partial(self.after, name), with_kwargs=True)

    def before(self, name: str, module: nn.Module, args: tuple, kwargs: dict):
        given = arguments(module, args, kwargs)
        given.pop("kv_cache", None)  # compared when the module is done
        values = flat(given)
        agrees = True
        for what, right in self.reference_values("input", name, values).items():
            if not isinstance(values.get(what), torch.Tensor):
                continue  # it may be called in another way
            if details := describe_difference(right, values[what], self.tolerance):
                agrees = False
                if self.suspect is None and self.calls:
                    caller = self.calls[-1][0]
                    what = f"`{what}`, which it hands to {name.removeprefix(caller + '.')},"
                    self.suspect = Difference(caller, what, details, False, self.step)
        self.calls.append((name, agrees))

    def after(self, name: str, module: nn.Module, args: tuple, kwargs: dict, output):
        _, input_agrees = self.calls.pop()
        cache = arguments(module, args, kwargs).get("kv_cache")
        values = flat({"its output": output}) | flat({"kv_cache": cache})
        first = None
        for what, right in self.reference_values("output", name, values).items():
            details = describe_difference(right, values.get(what), self.tolerance)
            first = first or (details and Difference(name, what, details, True, self.step, name))
        suspected = self.suspect is not None and self.suspect.module == name
        if not first:
            self.agreed.append(name)
            if suspected:  # another way to the same result
                self.suspect = None
        elif input_agrees:
            self.difference = self.suspect if suspected else first
            raise self.difference
        elif self.suspect and not self.suspect.seen_in and not is_torchs(module):
            self.suspect.seen_in = name

    def reference_values(self, kind: str, name: str, values: dict) -> dict:
        """What the reference had at this point; nothing while it is the reference that runs."""
        self.counts[self.step, kind, name] += 1
        key = (self.step, kind, name, self.counts[self.step, kind, name])
        if self.recorded is None:
            tensors = {what: value for what, value in values.items() if isinstance(value, torch.Tensor)}
            self.values[key] = tensors
            return {}
        return self.recorded.get(key, {})


def arguments(module: nn.Module, args: tuple, kwargs: dict) -> dict:
    """What a module is called with, by the names in its forward."""
    try:
        return dict(inspect.signature(module.forward).bind(*args, **kwargs).arguments)
    except TypeError:
        return kwargs


def flat(values: dict) -> dict:
    """Tuples, dicts and caches taken apart: {"position_embeddings[0]": cos, ...}."""
    return dict(leaf for name, value in values.items() for leaf in leaves(value, name))


@torch.inference_mode()
def answer(model: nn.Module, batch: dict, tokens: list[int], watch: Watch) -> list[int]:
    """Runs the prompt and then these tokens; returns the likeliest token after each."""
    likeliest = []
    attention_mask = batch["attention_mask"]
    output = model(**batch, logits_to_keep=1)
    for step in range(NEW_TOKENS):
        likeliest.append(int(output["logits"][0, -1].argmax()))
        token = torch.tensor([[tokens[step] if tokens else likeliest[-1]]])
        attention_mask = torch.cat([attention_mask, torch.ones_like(token)], dim=1)
        watch.step = step + 1
        output = model(token, attention_mask=attention_mask, kv_cache=output["kv_cache"], logits_to_keep=1)
    return likeliest


def in_words(name: str) -> str:
    """`language_model.model.layers.2.mlp` -> `decoder layer 2, mlp`."""
    parts = name.split(".")
    if "layers" in parts[:-1]:
        i = parts.index("layers")
        inner = ".".join(parts[i + 2 :])
        stack = "decoder" if parts[0] == "language_model" else "vision tower"
        return f"{stack} layer {parts[i + 1]}" + (f", {inner}" if inner else "")
    for beginning, words in (("vision_tower.vision_model.", "vision tower"), ("language_model.", "decoder")):
        if name.startswith(beginning):
            return f"{words}, {name.removeprefix(beginning).removeprefix('model.')}"
    return name or "the whole model"


def is_torchs(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.")


def describe_class(module: nn.Module) -> str:
    """`GemmaRMSNorm (decoder_0.py:112)`."""
    if is_torchs(module):
        return f"torch's {module}"
    code = type(module).forward.__code__
    path = code.co_filename.replace("\\", "/").rsplit("/", 1)[-1]
    return f"{type(module).__name__} ({path}:{code.co_firstlineno})"


def suspects(owner: str, learners: LearnerSet) -> list[str]:
    """The learner's exercises that a class is made of, and the functions it uses: wrong ones, if any."""
    file = next((file for file in FILES if hasattr(reference(file), owner)), None)
    if file is None:  # a class of the learner's own
        return []
    tree, module = ast.parse(reference_source(file)), reference(file)
    owners = {part: exercise.owner for part, exercise in OWNERS.items() if exercise.file == file}
    methods = {part.split(".")[1]: own for part, own in owners.items() if "." in part and "__" not in part}
    methods.pop("forward", None)
    reached, left = set(), [owner]
    while left:
        name = left.pop()
        reached.add(name)
        for node in ast.walk(find(tree, name)):
            used = node.id if isinstance(node, ast.Name) else methods.get(getattr(node, "attr", None))
            made = getattr(module, used or "", None)
            is_module = isinstance(made, type) and issubclass(made, nn.Module)
            if used in owners.values() and used not in reached and not is_module:
                left.append(used)
    states = {result.exercise.name: result.state for result in learners.results}
    names = [exercise.name for exercise in EXERCISES if exercise.owner in reached and exercise.file == file]
    wrong = [name for name in names if states[name] == "wrong"]
    return wrong or [name for name in names if name in learners.used]


def report(difference: Difference, yours: nn.Module, reference_model: nn.Module, learners: LearnerSet):
    """Prints where the difference is, how large, and what to look at."""
    module = yours.get_submodule(difference.module)
    write(f"\nFirst difference: {in_words(difference.module)}")
    in_the_model = f"{difference.module}: " if difference.module else ""
    write(f"    {in_the_model}{describe_class(module)}")
    if difference.step:
        write(
            f"    The prompt was read as by the reference; this is where token {difference.step} of the "
            "answer is read."
        )
    if difference.input_agrees:
        write(f"    Its input agrees, {difference.what} does not.")
    else:
        write(f"    Its input agrees, but {difference.what} does not.")
    for line in difference.details:
        write(f"    {line}")
    owner = type(module).__name__
    if is_torchs(module):  # the mistake is where it was made
        right = reference_model.get_submodule(difference.module)
        if str(right) != str(module):
            write(f"    The reference has {right} there.")
        owner = type(yours.get_submodule(difference.module.rpartition(".")[0])).__name__
    if difference.seen_in not in ("", difference.module):
        write(f"    The first output that differs for it: {in_words(difference.seen_in)}")
    look_at(owner, learners)


def look_at(owner: str, learners: LearnerSet):
    print_exercises("To look at", suspects(owner, learners), learners)


def print_exercises(what: str, names: list[str], learners: LearnerSet):
    states = {result.exercise.name: result.state for result in learners.results}
    if names:
        write(f"\n{what}: " + ", ".join(f"{name} ({states[name]})" for name in names))
        write(f"Its test says more: python -m pytest -k {names[0]}")


def load_both(path: str, learners: LearnerSet) -> tuple[nn.Module, nn.Module | CheckpointError, object]:
    """The reference and the learner's model, in float32 if they fit: it shows small differences."""
    for precision in ("float32", "auto"):
        try:
            model, tokenizer = load_hf_model(path, precision=precision)
        except CheckpointError as error:
            if precision == "float32" and "not enough memory" in str(error):
                continue
            raise
        try:
            return model, load_hf_model(path, precision=precision, model_set=learners.modules)[0], tokenizer
        except CheckpointError as error:
            if precision == "auto" or "not enough memory" not in str(error):
                return model, error, tokenizer
    raise AssertionError("one of the two returns")


def prepare(model_set: ModelSet, model: nn.Module, tokenizer, prompt: str, picture) -> dict:
    config = model.config.vision_config
    processor = model_set.processor.PaliGemmaProcessor(tokenizer, config.num_patches, config.image_size)
    return processor([prompt], [picture])


def compare_batches(right: dict, got, learners: LearnerSet) -> bool:
    """Prints what differs in what the processors made, and tells whether something does."""
    for name in ("pixel_values", "input_ids", "attention_mask"):
        value = got.get(name) if isinstance(got, dict) else None
        details = describe_difference(right[name], value, 1e-5)
        if details:
            write(f"\nFirst difference: the processor, in {name}")
            for line in details:
                write(f"    {line}")
            look_at("PaliGemmaProcessor", learners)
            return True
    return False


def compare_models(model_path: str, prompt: str, picture: Image.Image) -> int:
    """Prints what agrees and what does not. Returns 0 if all agrees, or else 1."""
    learners = tried_set()
    write(learners.summary)
    model, yours, tokenizer = load_both(model_path, learners)
    if sum(parameter.numel() for parameter in model.parameters()) < ONE_THREAD:
        torch.set_num_threads(1)
    batch = prepare(import_set(1), model, tokenizer, prompt, picture)
    agreed, at = "nothing before it", ""
    try:
        with explained(InputError, CheckpointError):
            got = prepare(learners.modules, model, tokenizer, prompt, picture)
            if compare_batches(batch, got, learners):
                return 1
            agreed = "pixel_values, input_ids and attention_mask"
            if isinstance(yours, CheckpointError):
                raise yours
            recorder = Watch(model)
            tokens = answer(model, batch, [], recorder)
            watch = Watch(yours, recorder.values)
            try:
                answer(yours, batch, tokens, watch)
            except Difference:
                pass  # the watch keeps it
            finally:
                if watch.agreed:
                    count, last = len(set(watch.agreed)), in_words(watch.agreed[-1])
                    agreed += f"; then {count} modules, the last of them {last}"
                at = f"{in_words(watch.calls[-1][0])}, " if watch.calls else ""
    except (LearnersError, CheckpointError) as error:
        write(f"What agrees: {agreed}.\n\nFirst difference: {at}{error}")
        wrong = [result.exercise.name for result in learners.results if result.state == "wrong"]
        if isinstance(error, CheckpointError):
            print_exercises("To look at", wrong, learners)
        return 1
    write(f"What agrees: {agreed}.")
    if watch.difference:
        report(watch.difference, yours, model, learners)
        return 1
    return report_no_difference(learners)


def report_no_difference(learners: LearnerSet) -> int:
    write(f"\nNo difference, from the picture to token {NEW_TOKENS} of the answer.")
    wrong = [result.exercise for result in learners.results if result.state == "wrong"]
    left_out = [exercise for exercise in wrong if exercise.name not in learners.used]
    for exercise in wrong:
        what = "is wrong by its test all the same"
        if exercise in left_out:
            what = "could not be run, so the reference took its place"
        write(f"{exercise.name} {what}: {exercise.command}")
    return 1 if left_out else 0
