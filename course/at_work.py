"""Your mistake at work: what the small model answers with one exercise's code of yours in it.

All else is the reference's. The six questions are those of the experiments: two pictures, and three
prompts for each. What is wrong in an exercise shows in them or does not, and either is worth knowing.
"""

import warnings
from dataclasses import dataclass, field

from course.exercise import Exercise
from course.learner_file import LearnerFile
from course.outcome import SECONDS, Flaw, Outcome
from course.time_limit import with_time_limit

# The answers to look at first, where several differ: words are easier to compare than boxes.
FIRST = [
    ("cats", "caption"),
    ("cats", "where"),
    ("night", "caption"),
    ("night", "where"),
    ("cats", "detect"),
    ("night", "detect"),
]

# What none of the six answers runs, by file or by exercise, and where it is used.
ELSEWHERE = {
    "keep_top_p": "where tokens are drawn at random (`--temperature`)",
    "parse_boxes": "where boxes are read from an answer (`--draw`)",
    "mask_decoder": "for masks (`segment`)",
    "training": "in training (finetune.py)",
}


@dataclass
class Effect:
    """The answers of the reference and with the learner's code, by picture and kind of prompt.

    stopped: why there are none with the learner's code; the first line says it, the others say where.
    elsewhere: where code is used that none of the answers runs, so that nothing was asked.
    """

    before: dict = field(default_factory=dict)
    after: dict = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)
    elsewhere: str = ""

    @property
    def changed(self) -> list[tuple[str, str]]:
        return [place for place in FIRST if self.after and self.after[place].text != self.before[place].text]


def effect_of(model_set) -> Effect:
    """Asks a model of these modules. Whatever stops it is told, and not raised.

    Raises a Flaw if the reference cannot answer either, because the small model or a picture is gone.
    """
    from course.experiments.run import ROOT, Kit, reference_answers
    from course.tracebacks import LearnersError, explained
    from load_weights import CheckpointError, load_hf_model
    from program.command_line import InputError

    try:
        effect = Effect(reference_answers())
    except (OSError, InputError) as error:
        raise Flaw("missing", f"the small model or a picture cannot be read: {error}") from None
    try:
        with explained(CheckpointError, FloatingPointError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, tokenizer = load_hf_model(ROOT / "paligemma-tiny", "cpu", "float32", model_set)
            vision = model.config.vision_config
            made = model_set.processor.PaliGemmaProcessor(tokenizer, vision.num_patches, vision.image_size)
            effect.after = Kit(model, made, model_set.generation).answers()
    except LearnersError as error:
        cause = error.__cause__
        said = str(cause).strip().split("\n")[0]
        first = f"it stops with {type(cause).__name__}" + (f": {said}" if said else "")
        effect.stopped = [first, *str(error).splitlines()]
    except (CheckpointError, FloatingPointError) as error:
        effect.stopped = [str(error)]
    return effect


def at_work(exercise: Exercise, file: LearnerFile, seconds: float = SECONDS) -> Effect:
    """The effect of one exercise's code. Raises a Flaw if it does not end in time."""
    from course.learner_set import combine, learner_files

    if elsewhere := ELSEWHERE.get(exercise.name) or ELSEWHERE.get(exercise.file):
        return Effect(elsewhere=elsewhere)

    def work() -> Effect:
        return effect_of(combine(learner_files() | {exercise.file: file}, [exercise]))

    result = with_time_limit(work, seconds, str(file.path), file.lines)
    if isinstance(result, Outcome):
        raise Flaw("time", f"your code was still running after {seconds:g} seconds", result.stopped_at)
    return result


def sentence(effect: Effect) -> str:
    """The effect in a sentence: the answer that shows it best, or that none does."""
    from course.experiments.experiment import QUESTIONS, one_line

    if effect.elsewhere:
        return f"None of the small model's six answers runs this: it is used {effect.elsewhere}."
    if effect.stopped:
        return f"With this, the model does not answer: {effect.stopped[0]}"
    if not effect.changed:
        return (
            "With this, the small model answers as before: its six answers about images/cats.png and "
            "images/night.png do not show it."
        )
    place = effect.changed[0]
    before, after = effect.before[place], effect.after[place]
    where = f'("{QUESTIONS[place]}", images/{place[0]}.png)'
    if place[1] == "detect" and after.text:
        right, given = (f"{len(said.boxes)} box{'es' * (len(said.boxes) != 1)}" for said in (before, after))
        what = "moves its boxes" if given == right else f"gives {given} instead of {right.split()[0]}"
        return f"With this, the model {what} {where}; captions and places stay."
    answer = f"`{one_line(after, 60 if after.ended else 24)}`" if after.text else "nothing"
    return f"With this, the model answers {answer} instead of `{one_line(before, 60)}` {where}."


def side_by_side(exercise: Exercise, effect: Effect) -> list[str]:
    """All six answers, the reference's and the learner's."""
    from course.experiments.command import side_by_side

    if effect.elsewhere:
        return ["", sentence(effect)]
    if effect.stopped:
        first, *more = effect.stopped
        return ["", f"With your {exercise.name}, the model does not answer: {first}", *more[1:]]
    lines = side_by_side(effect.before, effect.after, f"with your {exercise.name}")
    count = len(effect.changed)
    said = f"{count} of 6 answers differ{'s' * (count == 1)}." if count else "All six answers are the same."
    return [*lines, "", said]
