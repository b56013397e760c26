"""The table of exercises: the only place that lists them, in the order of the learning path.

The entries stand in exercises_processor.py, exercises_vision.py, exercises_decoder.py and
exercises_paligemma.py, one `Exercise` (exercise_types.py) for each. From them come the skeletons
(skeletons.py), the learner's tests (test_exercises.py), the hints (hint.py), and the proof that all of
it works (test_exercises_proof.py). To add one: an entry here, its lines and docstring in the `_1` file,
and `python -m course.skeletons`, which writes the skeleton. The docstring ends in a line that begins
with `Exercise`; that script fills it in.

How to fill in an Exercise
  name        what is typed after -k: `rotate_half`, `GemmaRMSNorm`, or `KVCache.update` for a method.
              A class without its methods' exercises: all of its methods that `steps` lists.
              With inside="SomeClass", the name of a method may stand alone.
  steps       what is to be done, one sentence each, three to six in all: they say what, and not
              which call. A list, or for a class {"__init__": [...], "forward": [...]}: the functions
              named here are emptied in the skeleton, all others are given. (`super().__init__()` is
              given too.)
  hints       three: where to look; the way; nearly the code.
  make        make(m) builds what is called from m, the module under test: `lambda m: m.MLP(SMALL)`.
              Not needed for a function. The weights of an nn.Module are random, the same by name as
              the reference's, in every case.
  attributes  names that other parts read from the object, besides parameters and submodules.
  result      letters of the axes of what is returned, "B N C"; {"input_ids": "B T"} for parts.
  sizes       {"Hd": 6}: sizes whose product or root a learner may have forgotten.
  compare     after success: what is worth looking at in the reference.
  solved=True is for the first exercise alone, which ships with the reference's lines.
Lay the entry out with `ruff format tests/exercises_*.py`. Then run it:
  python -m course.skeletons && python -m pytest tests/test_exercises_proof.py

A Case is one look at it, with one plausible cause if it fails. They are tried in order, so begin with
the plainest. Every size differs from every other (a swapped axis is seen); eps and theta are not
the defaults; batches have two rows or more.
  about       what is special: "a picture that is not square"
  inputs      a function that returns a dict, new at every call: {"hidden_states": randn(2, 9, 28)}.
              Tensors, arrays, pictures and lists in it must come out unchanged.
  call        call(object, **inputs), if it is not object(*inputs.values()). May return a tuple or dict
              of several things to compare, a KVCache too. If the reference raises an error, the
              learner's code has to raise the same type.
  make        in place of the exercise's own, for other sizes.
  dtype       torch.bfloat16: the weights are cast; make the inputs in it too. exact=0.9: this share
              must be right to the last bit (where float32 inside matters).
  tolerance   relative; 1e-5, in bfloat16 2e-2. Above the noise of right ways, below the nearest
              mistake: the proof asks for a factor of 4 on both sides.
  other_device  the default device is another one during the call: catches a missing device=.

A Mistake is the reference with a change, and RightWay too:
  change={"(1 + weight)": "weight"}   old text, which has to be in the lines of the exercise (not its
                                      docstring), and new text; all places are changed
  change='''def forward(self, x): ...'''   whole functions, in place of those of the same name
The learner reads "This is what comes out {title}: {message}", so a title begins small, like "without
the `1 +`", and the message says in a sentence why it is wrong. Each must be told apart from all others
of the exercise by some case. Give the likeliest first.
"""

from course import exercises_decoder, exercises_paligemma, exercises_processor, exercises_vision
from course.exercise_types import Exercise

EXERCISES: list[Exercise] = [
    *exercises_processor.EXERCISES,
    *exercises_vision.EXERCISES,
    *exercises_decoder.EXERCISES,
    *exercises_paligemma.EXERCISES,
]
for number, exercise in enumerate(EXERCISES, start=1):
    exercise.number, exercise.count = number, len(EXERCISES)

# The exercise that each function or method belongs to.
OWNERS: dict[str, Exercise] = {part: exercise for exercise in EXERCISES for part in exercise.parts}


def named(name: str) -> list[Exercise]:
    """The exercises that a learner means: the one of that name, those of a class, or the method."""
    name = name.lower()
    return (
        [exercise for exercise in EXERCISES if exercise.name.lower() == name]
        or [exercise for exercise in EXERCISES if any(part.lower() == name for part in exercise.parts)]
        or [exercise for exercise in EXERCISES if exercise.owner.lower() == name]
        or one_of([exercise for exercise in EXERCISES if exercise.name.lower().endswith(f".{name}")])
        or [exercise for exercise in EXERCISES if name == str(exercise.number)]
    )


def one_of(found: list[Exercise]) -> list[Exercise]:
    return found if len(found) == 1 else []
