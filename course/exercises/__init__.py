"""The table of exercises: the only place that lists them, in the order of the learning path.

Each exercise is a module of its own, in the folder of its pair of files (processor, vision, decoder,
generation, mask_decoder, training), with everything that belongs to it: steps, hints, cases, known
mistakes and other right ways. From the table come the skeletons (skeletons.py), the learner's tests
(tests/test_exercises.py), the hints (hints.py), the list in docs/exercises.md, and the proof that all of
it works (tests/test_exercises_proof.py).

To add one: its lines and docstring in the `_1` file (the docstring ends in a line that begins with
`Exercise`), a module here, its name in the list of its folder, and `python -m course.write`. A new pair
of files is a folder here and a line in FOLDERS below.

How to fill in an Exercise
  name        what is typed after -k: `rotate_half`, `GemmaRMSNorm`, or `KVCache.update` for a method.
              A class without its methods' exercises: all of its methods that `steps` lists.
              With inside="SomeClass", the name of a method may stand alone.
  steps       what is to be done, one sentence each, three to six in all: they say what, and not
              which call. A list, or for a class {"__init__": [...], "forward": [...]}: the functions
              named here are emptied in the skeleton, all others are given. (`super().__init__()` is
              given too.)
  hints       three: where to look; the way; nearly the code.
  make        make(m) builds what is called from m, the module under test: `lambda m: m.MLP(SMALL_TOWER)`.
              Not needed for a function. The weights of an nn.Module are random, the same by name as
              the reference's, in every case.
  attributes  names that other parts read from the object, besides parameters and submodules.
  result      letters of the axes of what is returned, "B N C"; {"input_ids": "B T"} for parts.
  sizes       {"Hd": 6}: sizes whose product or root a learner may have forgotten.
  compare     after success: what is worth looking at in the reference.
  solved=True is for the first exercise alone, which ships with the reference's lines.

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
  training    gradients have to reach the weights and inputs that they reach in the reference.
  What a case's call returns may hold claims, which have to be True: {"the weight is kept": made.w is w}.
  A key with a space in it is a claim, and is quoted to the learner when it does not hold.
  Cases with bfloat16 in them are the second step: what is wrong in float32 is said first, and what is
  wrong in them alone as "Right in float32. And now in bfloat16: ...".
  Configs, tokenizers and lists that a class is made from are handed out as copies, and these, inputs,
  what a cache held and weights have to be left as they were.

A Mistake is the reference with a change, and a RightWay too. The change is
  a dict      {"(1 + weight)": "weight"}: old text, which has to be in the lines of the exercise (not its
              docstring), and new text; all places are changed. For a change of a few words.
  a function  of the same module, in place of the function or method that the exercise asks for;
  a class     whose methods take the place of those of the same name; others that it has are added.
Functions and classes are read as text (inspect.getsource) and run among the names of the `_1` file.
The learner reads "This is what comes out {title}: {message}", so a title begins small, like "without
the `1 +`", and the message says in a sentence why it is wrong. Each must be told apart from all others
of the exercise by some case. Give the likeliest first. `also` lists other code that makes the same mistake
and comes to other values. A mistake is named only if it agrees with the learner's code in every case; so say
no more in a title than what comes out. What is on no list is looked for among small changes of
the learner's lines (course/repairs.py) and of the reference's (course/edits.py).
"""

import difflib

from course.exercise import Exercise
from course.exercises import decoder, generation, mask_decoder, processor, training, vision

# In the order of the path, in which a file imports only from those before it. By the name that a pair of
# files has in load_weights.ModelSet.
FOLDERS: dict[str, list[Exercise]] = {
    "processor": processor.EXERCISES,
    "vision": vision.EXERCISES,
    "decoder": decoder.EXERCISES,
    "generation": generation.EXERCISES,
    "masks": mask_decoder.EXERCISES,
    "training": training.EXERCISES,
}
EXERCISES: list[Exercise] = [exercise for exercises in FOLDERS.values() for exercise in exercises]
FILES = tuple(dict.fromkeys(exercise.file for exercise in EXERCISES))  # without _0 or _1

# The exercise that each function or method belongs to.
OWNERS: dict[str, Exercise] = {part: exercise for exercise in EXERCISES for part in exercise.parts}


def number_of(exercise: Exercise) -> int:
    """The place in the learning path, from 1."""
    return EXERCISES.index(exercise) + 1


def named(name: str) -> list[Exercise]:
    """The exercises that a name stands for: the one of that name or number, those of a class, or the
    method."""
    name = name.lower()
    methods = [exercise for exercise in EXERCISES if exercise.name.lower().endswith(f".{name}")]
    return (
        [exercise for exercise in EXERCISES if exercise.name.lower() == name]
        or [exercise for exercise in EXERCISES if any(part.lower() == name for part in exercise.parts)]
        or [exercise for exercise in EXERCISES if exercise.owner.lower() == name]
        or (methods if len(methods) == 1 else [])
        or [exercise for exercise in EXERCISES if name == str(number_of(exercise))]
    )


def matching(name: str) -> list[Exercise]:
    """The exercises of that name, or else those whose names it is a part of."""
    part = name.lower()
    return named(name) or [exercise for exercise in EXERCISES if part and part in exercise.name.lower()]


def nearest(name: str) -> list[str]:
    """The names that somebody may have meant who wrote this one: at most three."""
    lower = {
        key.lower(): exercise.name
        for exercise in EXERCISES
        for key in (exercise.name, exercise.name.split(".")[-1])
    }
    return list(dict.fromkeys(lower[key] for key in difflib.get_close_matches(name.lower(), lower, 3, 0.5)))
