"""Experiments: one line of the reference changed, and what becomes of the answers.

edits.py compiles a changed line and gives a model of it; experiment.py says what an experiment is and
how its explanation is held to what happens; processor.py, tower.py, decoder.py, whole.py and writing.py
are the experiments themselves, in the order of the learning path; run.py runs them; command.py is
`python learn.py experiment`.

Any number of them are switched on at once, in any model of the reference's code, which stays as it is:

    kit = switched(reference(), [(BY_NAME["no-rope"], {}), (BY_NAME["decoder-head-off"], {"layer": 1})])
    [said] = kit.ask(["caption en"], [picture])
"""

from course.experiments import decoder, processor, tower, whole, writing
from course.experiments.experiment import Experiment

EXPERIMENTS: list[Experiment] = [
    *processor.EXPERIMENTS,
    *tower.EXPERIMENTS,
    *decoder.EXPERIMENTS,
    *whole.EXPERIMENTS,
    *writing.EXPERIMENTS,
]
BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}
