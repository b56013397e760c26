"""The exercises of training_0.py, in the order of the learning path."""

from course.exercises.training import (
    add_lora,
    batch_loss,
    best_weights_update,
    choose_parameters,
    clip_gradients,
    collate,
    evaluate,
    learning_rate,
    lora_linear,
    lora_linear_merged,
    sum_by_example,
    token_losses,
    train_step,
    training_row,
)

EXERCISES = [
    module.EXERCISE
    for module in (
        training_row,
        collate,
        token_losses,
        sum_by_example,
        batch_loss,
        lora_linear,
        lora_linear_merged,
        add_lora,
        choose_parameters,
        learning_rate,
        clip_gradients,
        train_step,
        evaluate,
        best_weights_update,
    )
]
