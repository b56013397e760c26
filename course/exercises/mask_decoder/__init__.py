"""The exercises of mask_decoder_0.py, in the order of the learning path."""

from course.exercises.mask_decoder import (
    make_decoder,
    make_encoder,
    mask_from_tokens,
    mask_vqvae_decode,
    mask_vqvae_encode,
    residual_block,
    resize_shapes,
    tokens_from_mask,
    vector_quantizer_look_up,
    vector_quantizer_nearest,
)

EXERCISES = [
    module.EXERCISE
    for module in (
        residual_block,
        make_decoder,
        make_encoder,
        vector_quantizer_look_up,
        vector_quantizer_nearest,
        mask_vqvae_decode,
        mask_vqvae_encode,
        resize_shapes,
        mask_from_tokens,
        tokens_from_mask,
    )
]
