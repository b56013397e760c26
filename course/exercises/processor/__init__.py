"""The exercises of text_image_token_processor_0.py, in the order of the learning path."""

from course.exercises.processor import (
    add_image_tokens_to_prompt,
    normalize,
    paligemma_processor,
    paligemma_processor_call,
    process_images,
    rescale,
    resize,
)

EXERCISES = [
    module.EXERCISE
    for module in (
        add_image_tokens_to_prompt,
        resize,
        rescale,
        normalize,
        process_images,
        paligemma_processor,
        paligemma_processor_call,
    )
]
