"""The exercises of vision_transformer_0.py, in the order of the learning path."""

from course.exercises.vision import (
    attention,
    encoder,
    encoder_layer,
    mlp,
    vision_embeddings,
    vision_model,
    vision_transformer,
)

EXERCISES = [
    module.EXERCISE
    for module in (
        vision_embeddings,
        attention,
        mlp,
        encoder_layer,
        encoder,
        vision_transformer,
        vision_model,
    )
]
