"""The exercises of decoder_0.py, in the order of the learning path."""

from course.exercises.decoder import (
    apply_rotary_pos_emb,
    gemma_attention,
    gemma_decoder_layer,
    gemma_for_causal_lm,
    gemma_for_causal_lm_tie_weights,
    gemma_mlp,
    gemma_model,
    gemma_rms_norm,
    gemma_rotary_embedding,
    kv_cache_num_items,
    kv_cache_update,
    merge_input_ids_with_image_features,
    paligemma_for_conditional_generation,
    paligemma_for_conditional_generation_forward,
    paligemma_multi_modal_projector,
    prefix_lm_mask,
    repeat_kv,
    rotate_half,
)

EXERCISES = [
    module.EXERCISE
    for module in (
        kv_cache_num_items,
        kv_cache_update,
        gemma_rms_norm,
        gemma_rotary_embedding,
        rotate_half,
        apply_rotary_pos_emb,
        repeat_kv,
        prefix_lm_mask,
        gemma_mlp,
        gemma_attention,
        gemma_decoder_layer,
        gemma_model,
        gemma_for_causal_lm_tie_weights,
        gemma_for_causal_lm,
        paligemma_multi_modal_projector,
        paligemma_for_conditional_generation,
        merge_input_ids_with_image_features,
        paligemma_for_conditional_generation_forward,
    )
]
