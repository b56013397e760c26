"""The process of the live page that runs the model: requests come on stdin, answers go to stdout.

    python -m inside.live_model FOLDER SET        one line of JSON each way

It can be killed at any time, because it is the only one that runs a learner's code; inside/live.py
starts it again. A newer request of the same page ends the older one between two of its parts, or two
tokens of its answer.

    {"id", "page", "kind": "ask", "picture": FILE, "prompt", "choosing", "switches", "off",
     "only_answer", "code"}                                      code: whether its values are wanted, too
    {"id", "page", "kind": "numbers", as "ask", "wanted"}        of one value beside a line of code
    {"id", "page", "kind": "picture", "picture": FILE}           of one's own, to be decoded
    {"id", "page", "kind": "words", "picture": FILE}             a mask, to be said in 16 words
    {"id", "page", "kind": "shape", "words", "box", "size"}      16 words, to be drawn
    {"id", "page", "kind": "changed"}             a file of the learner's was saved
    {"id", "page", "kind": "left"}                nobody waits for the answer to this number anymore
"""

import ast
import contextlib
import dataclasses
import faulthandler
import functools
import importlib
import json
import linecache
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

FOLDER_OF_PAGE = Path("/")  # the page has no links to files
LONGEST_ANSWER, LONGEST_PROMPT = 70, 200  # in tokens; three things with their masks take 68
LONGEST_SIDE = 640  # of a picture of one's own on the stage, in pixels
KEPT_ANSWERS = 64
TELL_SECONDS = 1  # after which the page is told of each token
MOST_NUMBERS = 4096  # of one row of a value
TEST_SECONDS = 5  # for all the cases of one exercise
LEARNER_SECONDS, LARGE_SECONDS = 6, 600  # of computing, for one request, where a learner's code runs


class Requests:
    """What is still to be done. Of each page only the newest question counts."""

    def __init__(self, lines):
        self.lines, self.waiting, self.change = lines, [], threading.Condition()
        self.ended, self.left = False, set()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.lines:
            request = json.loads(line)
            with self.change:
                if request["kind"] == "left":
                    self.left.add(request["id"])
                    self.waiting = [one for one in self.waiting if one["id"] != request["id"]]
                    continue
                self.waiting = [one for one in self.waiting if not same_question(one, request)]
                self.waiting.append(request)
                self.change.notify()
        with self.change:
            self.ended = True
            self.change.notify()

    def next(self) -> dict | None:
        """The oldest; None when nobody will ask anymore."""
        with self.change:
            self.change.wait_for(lambda: self.waiting or self.ended)
            return self.waiting.pop(0) if self.waiting and not self.ended else None

    def is_superseded(self, request: dict) -> bool:
        with self.change:
            return request["id"] in self.left or any(same_question(request, one) for one in self.waiting)


def same_question(one: dict, other: dict) -> bool:
    """Of which only the newest counts. Whoever asks for a picture, for words or numbers waits for them."""
    return (one["page"], one["kind"]) == (other["page"], other["kind"]) and one["kind"] in ("ask", "changed")


class Bench:
    """The reference, and beside it what is asked: the same, changed by switches, or a learner's.

    goes_on: called between two tokens of an answer with how many there are; raises Superseded if nobody
    waits for it anymore.
    """

    def __init__(self, folder: str, which: str, goes_on=lambda count: None):
        import torch

        from course.experiments.edits import modules_of
        from course.experiments.run import Kit
        from load_weights import import_set, load_hf_model, weight_files

        size = sum(path.stat().st_size for path in weight_files(Path(folder)))
        # As experiments: in float32 an answer does not hang on how a machine adds up. Not where it is large.
        self.precision = "float32" if size < 200_000_000 else "auto"
        if size < 200_000_000:
            torch.set_num_threads(1)  # threads that wait for each other cost more than they save
        self.folder, self.which, self.goes_on = folder, which, goes_on
        self.seconds = LEARNER_SECONDS if size < 200_000_000 and which != "1" else LARGE_SECONDS
        self.reference = import_set(1)
        model, tokenizer = load_hf_model(folder, "cpu", self.precision)
        self.kit = Kit(model, self.processor_of(self.reference, tokenizer, model.config),
                       modules_of([])["generation_1"])  # fmt: skip
        self.tokenizer = tokenizer
        self.own = self.own_model = self.own_processor = None
        # Why there is no model of the learner's. (After a process that their code has ended there is none.)
        self.problem = "" if which == "1" else "Until you save it again, this page shows the reference."
        self.texts: dict[str, tuple] = {}  # of the exercises, by their names
        self.results: dict = {}  # of their tests
        self.changed: set[str] = set()  # whose text is another than before the last save
        self.wanted: set[str] = set()  # to be tested
        self.testing = threading.RLock()
        self.before: dict[tuple, dict] = {}  # the reference's answers
        self.found: tuple = (None, None)  # which value's numbers were asked for last, and the value
        self.decoders: dict[int, object] = {}  # for masks, by their modules

    @staticmethod
    def processor_of(model_set, tokenizer, config):
        vision = config.vision_config
        return model_set.processor.PaliGemmaProcessor(tokenizer, vision.num_patches, vision.image_size)

    # ---------------------------------------------------------------- the learner's code

    def read_files(self):
        """The learner's files; what is known of exercises whose text has changed is forgotten."""
        from course.exercises import EXERCISES, OWNERS
        from course.learner_set import learner_files
        from course.source import find

        first = not self.texts
        self.files, self.changed = learner_files(), set()
        owners = {part.split(".")[0] for part in OWNERS}
        for exercise in EXERCISES:
            file = self.files[exercise.file]
            node = find(file.tree, exercise.owner)
            rest = [ast.dump(one) for one in file.added() if getattr(one, "name", None) not in owners]
            text = (node and (node.lineno, ast.unparse(node)), rest, sorted(file.broken), file.missing)
            if self.texts.get(exercise.name) != text:
                self.texts[exercise.name] = text
                self.results.pop(exercise.name, None)
                if not first:
                    self.changed.add(exercise.name)

    def all_results(self) -> list:
        """Of the tests, in the order of the path. What was changed last is tested first.

        Of all exercises, if the set depends on them; else of those that were saved since the start.
        """
        from course.exercises import EXERCISES
        from course.worker import check_apart

        self.wanted |= self.changed if self.which == "0" else {exercise.name for exercise in EXERCISES}

        with self.testing:  # one at a time: they are tried in a process of their own
            for exercise in sorted(EXERCISES, key=lambda one: one.name not in self.changed):
                if exercise.name in self.wanted and exercise.name not in self.results:
                    # The text first: if a save comes in between, it is another afterwards.
                    text, file = self.texts[exercise.name], self.files[exercise.file]
                    result = check_apart(exercise, file, TEST_SECONDS)
                    if self.texts[exercise.name] is text:  # else it was saved again meanwhile
                        self.results[exercise.name] = result
                    else:
                        return self.all_results()
            results = dict(self.results)  # a save may take one out meanwhile
            return [results[one.name] for one in EXERCISES if one.name in results]

    def take_learners(self):
        """Reads the learner's files again, and makes a model of them."""
        from course.learner_set import set_of_results
        from course.tracebacks import explained
        from load_weights import CheckpointError, import_set, load_hf_model

        linecache.checkcache()
        self.read_files()
        self.own, self.own_model, self.own_processor, self.problem = None, None, None, ""
        self.found, self.decoders = (None, None), {}  # of the code as it was
        try:
            with explained(CheckpointError):
                if self.which == "0":
                    forget_learners_modules()
                    self.own = import_set(0)
                else:
                    self.own = set_of_results(self.files, self.all_results(), self.which == "tried").modules
                self.own_model, tokenizer = load_hf_model(self.folder, "cpu", self.precision, self.own)
                self.own_processor = self.processor_of(self.own, tokenizer, self.own_model.config)
        except Exception as error:  # told on the page, which goes on with the reference
            self.problem = str(error)

    def tests(self) -> list[dict]:
        """What the tests say of all that was tried."""
        return [
            {"name": result.exercise.name, "owner": result.exercise.owner, "file": result.exercise.path,
             "line": result.line, "state": result.state, "message": result.message}
            for result in self.all_results() if result.state != "to do" and not result.exercise.solved
        ]  # fmt: skip

    # -------------------------------------------------------------------- what is asked

    def answer_of(self, kit, model_set, prompt: str, picture, choosing: dict) -> dict:
        """An answer as fast as can be: its text, its boxes and masks, and how its tokens were chosen."""
        from inside.choosing import describe_choices, watch_choices

        with watch_choices(kit.generation, self.goes_on) as choices:
            [said] = kit.ask([prompt], [picture], LONGEST_ANSWER, **choosing)
        boxes = kit.generation.parse_boxes(said.text, *picture.size)
        return {
            "text": said.text,
            "ended": said.ended,
            "boxes": boxes,
            "masks": self.masks_of(model_set, said.text, boxes, picture.size)["found"],
            "choices": describe_choices(choices, self.name_of),
        }

    def name_of(self, token: int) -> str:
        return self.tokenizer.id_to_token(token) or f"[{token}]"

    def reference_answer(self, request: dict, prompt: str, picture, choosing: dict) -> dict:
        key = (request["digest"], prompt, *choosing.values())
        if key not in self.before:
            self.keep(key, self.answer_of(self.kit, self.reference, prompt, picture, choosing))
        return self.before[key]

    def keep(self, key: tuple, answer: dict):
        if len(self.before) >= KEPT_ANSWERS:
            self.before.pop(next(iter(self.before)))
        self.before[key] = answer

    def decoder_of(self, model_set):
        """The mask decoder, made of this set's classes; None if the checkpoint has none."""
        from load_weights import load_mask_decoder

        key = id(model_set.masks)
        if key not in self.decoders:
            self.decoders = {key: load_mask_decoder(self.folder, model_set.masks)}
        return self.decoders[key]

    def masks_of(self, model_set, text: str, boxes: list[dict], size) -> dict:
        """For the page: the masks of an answer, or why there are none."""
        from inside.masks import describe_masks

        try:
            vqvae = self.decoder_of(model_set) if "<seg" in text or model_set.is_reference else None
            return describe_masks(text, boxes, vqvae, size, model_set.masks, example=False)
        except Exception as error:  # of a learner's mask decoder, or a damaged file
            return {"found": [], "notes": [" ".join(str(error).split())[:300]], "codewords": 0}

    def kit_of(self, request: dict):
        """The model that is asked: (its kit, its set, whether it is the reference as it is).

        In the set stand the changed classes. One that is for one layer alone takes the place of all
        others there: it is the one that is looked at.
        """
        from course.experiments import BY_NAME
        from course.experiments.edits import FILES, Conflict
        from course.experiments.run import Kit, switched

        kit, model_set = self.kit, self.reference
        if self.own_model is not None:
            kit, model_set = Kit(self.own_model, self.own_processor, self.own.generation), self.own
        elif request["switches"]:
            chosen = [(BY_NAME[name], checked(BY_NAME[name], values, self.kit.model.config))
                      for name, values in request["switches"]]  # fmt: skip
            try:
                kit = switched(self.kit, chosen)
            except Conflict as error:
                raise Refused(f"These switches do not go together: {error}.") from None
            edits = [edit for experiment, values in chosen for edit in experiment.edits_with(**values)]
            modules = switched_modules([edit for edit in edits if edit.file in FILES])
            model_set = dataclasses.replace(
                self.reference, processor=modules[FILES[0]], vision=modules[FILES[1]],
                decoder=modules[FILES[2]], generation=kit.generation,
            )  # fmt: skip
        if request["off"]:
            kit = kit._replace(model=without(kit.model, request["off"]))
        return kit, model_set, kit is self.kit

    def ask(self, request: dict) -> Iterator[dict]:
        """The answer first, then all that the page shows of it, then the code with its values."""
        from inside.choosing import describe_choices
        from inside.description import describe
        from program.pictures import open_picture

        picture, prompt, choosing = open_picture(request["picture"]), request["prompt"], request["choosing"]
        if len(self.tokenizer.encode(prompt, add_special_tokens=False).ids) > LONGEST_PROMPT:
            raise Refused(f"The prompt has more than {LONGEST_PROMPT} tokens.")
        kit, model_set, is_reference = self.kit_of(request)
        stopped, recording = self.problem, None
        try:
            with self.explained():
                if request["only_answer"]:
                    after = self.answer_of(kit, model_set, prompt, picture, choosing)
                else:
                    recording, boxes = self.record(kit, model_set, prompt, picture, choosing)
        except Exception as error:
            if is_reference:
                raise
            stopped, kit, model_set = str(error), self.kit, self.reference
            if request["only_answer"]:
                after = self.reference_answer(request, prompt, picture, choosing)
            else:
                recording, boxes = self.record(kit, model_set, prompt, picture, choosing)
        if recording is not None:
            masks = self.masks_of(model_set, recording.text, boxes, picture.size)
            choices = describe_choices(recording.choices, recording.token_name)
            after = {"text": recording.text, "ended": recording.ended, "boxes": boxes,
                     "masks": masks["found"], "choices": choices}  # fmt: skip
        if kit is self.kit:
            self.keep((request["digest"], prompt, *choosing.values()), after)
        before, compared = None, ""
        if not is_reference or stopped:
            before, compared = self.reference_answer(request, prompt, picture, choosing), "the reference"
        elif choosing:
            before, compared = self.reference_answer(request, prompt, picture, {}), "always the likeliest"
        yield {"kind": "answer", **after, "before": before, "compared": compared, "stopped": stopped}
        if recording is None:
            return
        facts = {"model": Path(self.folder).resolve().name, "image": "the stage", "prompt": prompt,
                 "set": "1" if stopped else self.which}  # fmt: skip
        yield None
        told = [
            lambda: {"kind": "page", "told": describe(recording, picture, facts, FOLDER_OF_PAGE)
                     | {"masks": masks}},
            lambda: {"kind": "code", **self.code(request, kit, recording, prompt, picture, masks)},
        ][: 1 + request["code"]]  # fmt: skip
        # Whoever writes code waits for the marks at its lines.
        for part in told if self.own is None else reversed(told):
            yield part()

    def record(self, kit, model_set, prompt: str, picture, choosing: dict):
        """The answer, with all that the page shows of how it was made; and the boxes in it."""
        from inside.description import keep_weights
        from inside.recorder import record_answer

        reduce = functools.partial(keep_weights, kit.model.config)
        batch = kit.processor([prompt], [picture])
        recording = record_answer(
            kit.model, self.tokenizer, batch, LONGEST_ANSWER, model_set, reduce, self.goes_on, **choosing
        )
        # A learner's loop may not look, and the page cannot read what is no number.
        if not all(call.output.isfinite().all() for call in recording.calls["language_model.lm_head"]):
            raise FloatingPointError("the model's logits are not finite")
        return recording, kit.generation.parse_boxes(recording.text, *picture.size)

    def explained(self):
        from course.tracebacks import explained

        return contextlib.nullcontext() if self.own_model is None else explained()

    def traced(self, request: dict, kit):
        """What runs where code is shown with its values: (model, processor, set, what is switched in it)."""
        model, processor, model_set, whose = kit.model, kit.processor, self.reference, ""
        if self.own_model is not None:
            model_set = self.own
            if kit.model is self.kit.model:  # it stopped
                model, processor = self.own_model, self.own_processor
        elif self.own is not None:
            model_set = self.own
        elif request["switches"]:
            model_set = self.kit_of(request)[1]
        changes = len(request["switches"]) + len(request["off"])
        if changes and kit.model is not self.kit.model:
            parts = [name for name, _ in request["switches"]]
            parts += [f"{part} layer {layer}{'' if head is None else f' head {head}'} off"
                      for part, layer, head in request["off"]]  # fmt: skip
            whose = ", ".join(parts)
        return model, processor, model_set, whose

    def code(self, request: dict, kit, recording, prompt: str, picture, masks: dict) -> dict:
        """Of the learner's where there is such, with its marks; else of the reference, as it is switched."""
        from inside.code import describe_code, trace_answer, trace_model
        from inside.marks import find_marks

        model, processor, model_set, whose = self.traced(request, kit)
        steps = [[], []]
        # What was traced before a learner's code stopped is not shown: the marks say where it did.
        with contextlib.suppress(Exception):
            steps = trace_model(model, processor, prompt, picture, model_set, **request["choosing"])
            vqvae = self.decoder_of(model_set) if masks["found"] else None
            steps[0] += trace_answer(recording, picture.size, masks, vqvae)
        told = {"code": describe_code(model, model_set, steps) | {"whose": whose}, "marks": {}}
        if self.own is not None:
            with contextlib.suppress(Exception):
                told["marks"] = find_marks(self.kit.model, self.kit.processor, prompt, picture,
                                           self.reference, self.own_model, self.own)  # fmt: skip
        return told

    def numbers(self, request: dict) -> dict:
        """One row of a value that a line of code made, from a run of its own."""
        from inside.code import Finder, definitions, find_call, trace_model
        from inside.description import packed
        from program.pictures import open_picture

        wanted = request["wanted"]
        key = json.dumps([
            {key: one for key, one in wanted.items() if key != "at"},
            *(request[one] for one in ("digest", "prompt", "choosing", "switches", "off")),
        ])  # fmt: skip
        if self.found[0] != key:
            model, processor, model_set, _ = self.traced(request, self.kit_of(request)[0])
            found = definitions(model_set)
            if wanted["unit"] not in found:
                raise Refused("There is no such code.")
            finder = Finder(found.values(), found[wanted["unit"]], wanted)
            steps = trace_model(
                model, processor, request["prompt"], open_picture(request["picture"]), model_set, finder,
                **request["choosing"],
            )  # fmt: skip
            self.found = key, find_call(model, found[wanted["unit"]], steps, wanted)
        value = self.found[1]
        if value is None:
            raise Refused("This line made no tensor in this run.")
        at = [min(i, count - 1) for i, count in zip(wanted["at"], value.shape[:-1], strict=False)]
        at += [0] * (value.dim() - 1 - len(at))
        row = value[tuple(at)].reshape(-1)[:MOST_NUMBERS]
        is_float = row.is_floating_point()
        numbers = packed(row.float().numpy()) if is_float else {"list": row.int().tolist()}
        return {"kind": "numbers", "shape": list(value.shape), "at": at, "row": numbers}

    def words(self, request: dict) -> dict:
        """A mask, drawn by the page: white on black."""
        import numpy as np
        import torch

        from inside.masks import describe_mask
        from program.pictures import open_picture

        mask = torch.from_numpy(np.asarray(open_picture(request["picture"]).convert("L")) > 127)
        vqvae = self.decoder_of(self.reference)
        if vqvae is None:
            raise Refused("This checkpoint has no mask decoder.")
        if not mask.any():
            raise Refused("The mask is empty.")
        return {"kind": "words", **describe_mask(vqvae, mask, "", self.reference.masks)}

    def shape(self, request: dict) -> dict:
        """What 16 words stand for."""
        from inside.masks import describe_words
        from program.pictures import COLORS

        vqvae = self.decoder_of(self.reference)
        if vqvae is None or max(request["words"]) >= len(vqvae._vq_vae._embedding):
            raise Refused("There is no such codeword.")
        box, size = tuple(request["box"]), tuple(request["size"])
        told = describe_words(vqvae, request["words"], box, size, COLORS[0], self.reference.masks)
        return {"kind": "shape", **told}


class Superseded(BaseException):
    """Nobody waits for this answer anymore. (No Exception: a learner's code is not to catch it.)"""


class Refused(Exception):
    """A request that cannot be answered; the message is for the page."""


def forget_learners_modules():
    """So that the next import reads the files again."""
    from course.exercises import FILES

    importlib.invalidate_caches()
    for file in FILES:
        sys.modules.pop(f"{file}_0", None)


def switched_modules(edits: list) -> dict:
    """Each `_1` file as it is switched: also with the classes that are changed for one module alone."""
    from types import ModuleType

    from course.experiments.edits import modules_of

    modules = modules_of(edits)
    for edit in edits:
        if edit.only:
            name, special = edit.function.partition(".")[0], modules_of(edits, edit.only)[edit.file]
            both = ModuleType(edit.file)
            both.__dict__.update(vars(modules[edit.file]) | {name: getattr(special, name)})
            modules[edit.file] = both
    return modules


def checked(experiment, values: dict, config) -> dict[str, int]:
    """A switch's values, within their bounds."""
    found = {}
    for parameter in experiment.parameters:
        value = values.get(parameter.name, parameter.default)
        if type(value) is not int or not 0 <= value < parameter.count(config):
            raise Refused(f"{experiment.name} has no {parameter.name} {value!r}.")
        found[parameter.name] = value
    return found


def without(model, off: list):
    """The model without some heads and layers: ["tower" or "decoder", layer, head, or null for all of it].

    A head's part of what goes into the output projection becomes 0; a layer gives back what it was given.
    """
    from course.experiments.edits import changed_model
    from inside.recorder import DECODER, TOWER

    model = changed_model(model, [])  # hooks of its own, the same weights
    for where, number, head in off:
        layers = model.get_submodule(TOWER + "encoder.layers" if where == "tower" else DECODER + "layers")
        if not 0 <= number < len(layers):
            raise Refused(f"There is no layer {number}.")
        layer = layers[number]
        if head is None:
            layer.register_forward_hook(lambda _, args, output: args[0])
            continue
        attention = layer.self_attn
        Hd = attention.head_dim

        def switch_off(_, args, first=head * Hd, Hd=Hd):
            attended = args[0].clone()
            attended[..., first : first + Hd] = 0
            return (attended,)

        projection = attention.out_proj if hasattr(attention, "out_proj") else attention.o_proj
        projection.register_forward_pre_hook(switch_off)
    return model


def own_picture(path: str) -> dict:
    """A picture that was dropped in, decoded here, small enough for the stage."""
    from inside.description import data_uri
    from program.pictures import open_picture

    picture = open_picture(path)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return {"kind": "picture", "uri": data_uri(picture), "width": picture.width, "height": picture.height}


def switches(config) -> list[dict]:
    """The experiments, for the page."""
    from course.experiments import EXPERIMENTS

    found = []
    for one in EXPERIMENTS:
        if one.exercise == "" and not one.bits and not one.edits:
            continue
        lines = []
        for edit in one.edits_with():
            real, changed = edit.lines()
            lines.append({"where": f"{edit.file}.py:{edit.line}", "real": real, "changed": changed})
        found.append({
            "name": one.name, "title": one.title, "question": one.question, "lines": lines,
            "parameters": [[p.name, p.count(config), p.default] for p in one.parameters],
        })  # fmt: skip
    return found


def main(folder: str, which: str):
    # The pipes are ours alone: what the learner's code reads or prints does not get into them.
    asked, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0), os.dup2(nothing, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that asks ends it
    sys.dont_write_bytecode = True  # a file that is saved twice in a second would be taken for the first
    faulthandler.enable()
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1)

    from load_weights import CheckpointError
    from program.command_line import InputError

    sending = threading.Lock()

    def send(message: dict):
        with sending:
            answers.write(json.dumps(message, ensure_ascii=False, separators=(",", ":")) + "\n")
            answers.flush()

    requests = Requests(asked)
    request, start = None, 0.0

    def goes_on(count: int):
        if requests.is_superseded(request):
            raise Superseded
        if count and time.perf_counter() - start > TELL_SECONDS:
            send({"id": request["id"], "kind": "step", "tokens": count})

    try:
        bench = Bench(folder, which, goes_on)
    except (CheckpointError, InputError) as error:
        send({"id": 0, "kind": "failed", "text": str(error)})
        return
    told = switches(bench.kit.model.config) if which == "1" else []
    send({"id": 0, "kind": "ready", "switches": told, "seconds": bench.seconds})
    while (request := requests.next()) is not None:
        start, end = time.perf_counter(), {"id": request["id"], "kind": "end"}
        send({"id": request["id"], "kind": "begun", "task": request["kind"]})
        try:
            for message in parts(bench, send, request):
                if requests.is_superseded(request):
                    end["superseded"] = True
                    break
                if message is not None:
                    milliseconds = round(1000 * (time.perf_counter() - start))
                    send({"id": request["id"], "milliseconds": milliseconds, **message})
        except Superseded:
            end["superseded"] = True
        except Exception as error:
            end["refused"] = " ".join(str(error).split())[:300]
            if not is_told(error):
                import traceback

                traceback.print_exc()
        send(end)


def is_told(error: Exception) -> bool:
    from program.command_line import InputError

    return isinstance(error, (Refused, InputError, FloatingPointError))


def tell_tests(bench: Bench, send):
    send({"id": -1, "kind": "tests", "tests": bench.tests()})


def parts(bench: Bench, send, request: dict) -> Iterator[dict]:
    if request["kind"] == "picture":
        yield own_picture(request["picture"])
    elif request["kind"] in ("words", "shape", "numbers"):
        yield getattr(bench, request["kind"])(request)
    elif request["kind"] == "changed":
        bench.take_learners()
        yield {"kind": "changed"}
        tell = functools.partial(tell_tests, bench, send)
        threading.Thread(target=tell, daemon=True).start()  # whoever looks at the page does not wait for it
    else:
        yield from bench.ask(request)


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # threads that were abandoned would keep it
