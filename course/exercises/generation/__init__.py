"""The exercises of generation_0.py, in the order of the learning path."""

from course.exercises.generation import (
    answer_append,
    generate,
    keep_top_p,
    parse_boxes,
    sample_next_token,
)

EXERCISES = [
    module.EXERCISE for module in (keep_top_p, sample_next_token, generate, answer_append, parse_boxes)
]
