"""The exercise normalize of text_image_token_processor_0.py."""

import numpy as np

from course.exercise import Case, Exercise, Mistake, RightWay


def floats_image() -> np.ndarray:
    return np.random.default_rng(1).random((5, 4, 3), dtype=np.float32)


# Known mistakes that take whole functions.


def with_the_input_changed_in_place(image, mean=0.5, std=0.5):
    image -= np.float32(mean)
    image /= np.float32(std)
    return image


# Other right ways.


def in_place_on_a_copy(image, mean=0.5, std=0.5):
    result = image.copy()
    result -= mean
    result /= std
    return result


EXERCISE = Exercise(
    name="normalize",
    file="text_image_token_processor",
    minutes=5,
    difficulty="easy",
    why="The tower was trained on values from -1 to 1; from 0 to 1, every picture would look pale to it.",
    builds_on=("rescale",),
    steps=[
        "Subtract mean from every value.",
        "Divide by std.",
        "Stay in float32, and return a new array.",
    ],
    hints=(
        "The docstring's formula is the code; mind the type and the parentheses.",
        "mean and std are given, not measured. Python numbers keep float32, numpy float64 ones do not.",
        "(image - np.float32(mean)) / np.float32(std).",
    ),
    cases=[
        Case("mean and std as they are", lambda: {"image": floats_image()}),
        Case("mean 0.3, std 0.2", lambda: {"image": floats_image(), "mean": 0.3, "std": 0.2}),
        Case(
            "mean and std that are numpy float64",
            lambda: {"image": floats_image(), "mean": np.float64(0.1), "std": np.float64(0.7)},
        ),
    ],
    mistakes=[
        Mistake("when multiplied by std", {"/ np.float32(std)": "* np.float32(std)"}, "std divides."),
        Mistake(
            "when mean is added",
            {"image - np.float32(mean)": "image + np.float32(mean)"},
            "mean is subtracted, so that the values lie around zero.",
        ),
        Mistake("without dividing", {" / np.float32(std)": ""}, "dividing by std gives -1 to 1."),
        Mistake(
            "without the mean",
            {"(image - np.float32(mean))": "image"},
            "subtracting mean brings the middle to zero.",
        ),
        Mistake(
            "when divided before the mean is subtracted",
            {
                "(image - np.float32(mean)) / np.float32(std)": (
                    "image / np.float32(std) - np.float32(mean)"
                ),
            },
            "the subtraction comes first.",
        ),
        Mistake(
            "with mean / std subtracted",
            {"(image - np.float32(mean)) / np.float32(std)": "image - np.float32(mean) / np.float32(std)"},
            "division comes before subtraction unless there are parentheses: (image - mean) / std.",
        ),
        Mistake(
            "with mean and std swapped",
            {"np.float32(mean)": "np.float32(std)", "/ np.float32(std)": "/ np.float32(mean)"},
            "mean is subtracted, std divides.",
        ),
        Mistake(
            "with 0.5 whatever mean and std say",
            {"np.float32(mean)": "np.float32(0.5)", "np.float32(std)": "np.float32(0.5)"},
            "the arguments say which to use.",
        ),
        Mistake(
            "with the picture's own mean and std",
            {"np.float32(mean)": "image.mean()", "np.float32(std)": "image.std()"},
            "they are the same for all pictures, or a dark one would look like a bright one.",
        ),
        Mistake("in float64", {"np.float32(mean)": "np.float64(mean)"}, "the model wants float32."),
        Mistake(
            "with the input changed in place",
            with_the_input_changed_in_place,
            "`-=` writes into the caller's array.",
        ),
    ],
    right_ways=[
        RightWay(
            "a factor and a shift",
            {
                "(image - np.float32(mean)) / np.float32(std)": (
                    "image * np.float32(1 / std) - np.float32(mean / std)"
                ),
            },
        ),
        RightWay("in place on a copy", in_place_on_a_copy),
        RightWay(
            "computed in float64, then cast",
            {
                "(image - np.float32(mean)) / np.float32(std)": (
                    "((image.astype(np.float64) - mean) / std).astype(np.float32)"
                ),
            },
        ),
    ],
    compare="one mean and one std for all three colors; CLIP's towers have one for each.",
)
