"""The Gemma decoder of PaliGemma: it reads picture and prompt at once, then writes the answer.

What to notice, coming from a GPT:
  - image features, projected to the decoder's width, take the place of the N `<image>` tokens;
  - prefix-LM attention: picture and prompt see each other in both directions, and only what
    comes after them (the answer) is causal;
  - every token embedding is multiplied by sqrt(D);
  - RMSNorm multiplies by (1 + weight): the weight is stored as an offset from one;
  - the MLP is a GeGLU: gelu(gate) * up, with the tanh GELU;
  - one key/value head serves all eight query heads (multi-query attention);
  - rotary positions pair the two halves of a head, not neighboring numbers;
  - the decoder has no biases, and its output layer is the embedding table itself (tied).

Letters in shapes: B batch, N patches (= image tokens), T tokens of this call, L tokens that can
be looked at (those in the cache, then those of this call), C width of the vision tower, D width of
the decoder, H heads, K key/value heads, Hd size of a head, M width of the MLP, V vocabulary.

Sources: "Gemma" (Gemma Team 2024, section 2) and "PaliGemma" (Beyer et al. 2024, section 3).
Parameter names are the tensor names of google/paligemma-3b-pt-224.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from vision_transformer_0 import VisionConfig, VisionModel


@dataclass
class GemmaConfig:
    """Sizes of the decoder; the comments give the values of the 3B model."""

    vocab_size: int               # V, 257_216
    hidden_size: int              # D, 2048
    intermediate_size: int        # M, 16_384
    num_hidden_layers: int        # 18
    num_attention_heads: int      # H, 8
    num_key_value_heads: int      # K, 1
    head_dim: int = 256           # Hd; H * Hd need not be D
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0


@dataclass
class PaliGemmaConfig:
    """The two models and what joins them; the comments give the values of the 3B model."""

    vision_config: VisionConfig
    text_config: GemmaConfig
    projection_dim: int           # D again, 2048: the width that image features are projected to
    image_token_index: int        # 257_152, the id of <image>
    pad_token_id: int = 0
    ignore_index: int = -100      # a label that the loss skips


class KVCache:
    """Keeps the keys and values of all earlier tokens, so that each is computed only once.

    Without it, each new token would run the whole sequence through the model again. Queries are
    not cached: each is used once, when its token is new.

    Attributes: `key_cache` and `value_cache`, lists with one tensor [B, K, L, Hd] per layer; a
    layer is added when it first stores its keys and values.
    Source: "Fast Transformer Decoding" (Shazeer 2019), section 2.4.
    """

    def __init__(self):
        self.key_cache: list[torch.Tensor] = []
        self.value_cache: list[torch.Tensor] = []

    def num_items(self) -> int:
        """How many tokens are in the cache, padding included: new tokens' columns begin there.

        L of the tensors [B, K, L, Hd], the same in every layer; 0 while there is no layer yet.

        Output: int.
        Source: as the class.
        Exercise KVCache.num_items. Lesson: docs/lessons/cache.md.
        """
        # TODO 1. While no layer has stored keys, there are 0 tokens.
        # TODO 2. Otherwise take the keys of any layer: all hold the same number of tokens.
        # TODO 3. Return the length of their axis of tokens.
        raise NotImplementedError("KVCache.num_items is not done yet: python -m pytest -k KVCache.num_items")

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer_idx: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends the new tokens' keys and values to those of the layer and returns them all.

        [B, K, L - T, Hd] and [B, K, T, Hd] -> [B, K, L, Hd]: the axis of the tokens grows.

        Input: key and value [B, K, T, Hd]; layer_idx, from 0. At the first call of a layer, its
        index is the number of layers so far, and nothing is cached for it yet.
        Output: keys and values [B, K, L, Hd], oldest token first, which the cache now holds too;
        the tensors that it held before are not changed. Gradients flow through, because training
        uses it too.
        Source: as the class.
        Exercise KVCache.update. Lesson: docs/lessons/cache.md.
        """
        # TODO 1. Find out whether the layer has stored anything yet.
        # TODO 2. If it has not, keep the new keys and values as its entries of the two lists.
        # TODO 3. If it has, join what is there and what is new along the axis of tokens, the new
        #         ones last, and keep the result.
        # TODO 4. Return all keys and all values of the layer.
        raise NotImplementedError("KVCache.update is not done yet: python -m pytest -k KVCache.update")


class GemmaRMSNorm(nn.Module):
    """Scales each vector to a root mean square of one, then each number by a learned gain.

    x / sqrt(mean(x^2) + eps) * (1 + weight)

    Computed in float32 whatever the dtype of x, and rounded once, at the end: bfloat16 has two
    to three digits, so every step taken in it would be off by up to 0.4 %.

    Input and output: [..., D], in the dtype of x.
    Attributes: `weight` [D], zeros at the start: the gain is stored as an offset from one, hence
    the `1 +`.
    Source: "Root Mean Square Layer Normalization" (Zhang and Sennrich 2019), section 4,
    equation 4; eps and the offset are Gemma's.
    Exercise GemmaRMSNorm. Lesson: docs/lessons/residual.md.
    """

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        # TODO 1. Keep eps, and make the parameter weight: dim zeros.
        raise NotImplementedError("GemmaRMSNorm is not done yet: python -m pytest -k GemmaRMSNorm")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # TODO 2. Cast x to float32, whatever its dtype.
        # TODO 3. Divide each vector by the root of the mean of its squares, with eps added under
        #         the root.
        # TODO 4. Multiply by one plus the weight, still in float32.
        # TODO 5. Cast the result back to the dtype of x.
        raise NotImplementedError("GemmaRMSNorm is not done yet: python -m pytest -k GemmaRMSNorm")


class GemmaRotaryEmbedding(nn.Module):
    """Gives the angles by which queries and keys are rotated, so that attention sees distances.

    angle(t, i) = t * theta^(-2i / Hd) for i = 0 .. Hd/2 - 1. They are like clock hands: fast ones
    resolve nearby tokens, slow ones distant ones. Once query and key are rotated by the angles of
    their positions, query . key depends only on the difference of the two positions.

    Input: x, only for its dtype and device; position_ids int64 [B, T], which need not begin at
    0 or be the same in every row.
    Output: cos and sin, [B, T, Hd] each, the Hd/2 angles twice in a row (once for each half of
    a head). Angles, cos and sin are computed in float32 (in bfloat16, position 257 is 256), and
    only the results are cast to the dtype of x.
    Source: "RoFormer" (Su et al. 2021), section 3.2.2.
    Exercise GemmaRotaryEmbedding. Lesson: docs/lessons/positions.md.
    """

    def __init__(self, head_dim: int, rope_theta: float):
        super().__init__()
        self.head_dim = head_dim
        self.rope_theta = rope_theta

    def forward(
        self, x: torch.Tensor, position_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # TODO 1. Make the Hd/2 exponents 2i / Hd in float32, on the device of x.
        # TODO 2. Raise theta to minus these: how far each pair of numbers turns per position.
        # TODO 3. Multiply every position by every one of them, in float32: [B, T, Hd/2].
        # TODO 4. Repeat the whole row of angles once after itself: [B, T, Hd].
        # TODO 5. Take cos and sin, and only then cast to the dtype of x.
        raise NotImplementedError(
            "GemmaRotaryEmbedding is not done yet: "
            "python -m pytest -k GemmaRotaryEmbedding"
        )


def rotate_half(x: torch.Tensor) -> torch.Tensor:
    """Rotates every pair (x[i], x[i + Hd/2]) by a right angle.

    [a, b] -> [-b, a], where a and b are the two halves of the last dimension. The paper pairs
    neighbors instead; the checkpoint's weights are ordered for halves.

    Input and output: [..., Hd], in the dtype of x; Hd is even.
    Source: RoFormer, section 3.4.2, equation 34, with its pairs in another order.
    Exercise rotate_half. Lesson: docs/lessons/positions.md.
    """
    # TODO 1. Cut the last axis into its two halves, a and b.
    # TODO 2. Flip the sign of b.
    # TODO 3. Join them in the other order: -b first, then a.
    raise NotImplementedError("rotate_half is not done yet: python -m pytest -k rotate_half")


def apply_rotary_pos_emb(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotates queries and keys by the angles of their positions.

    x * cos + rotate_half(x) * sin: the rotation of a plane, for Hd/2 planes at once.

    Input: query [B, H, T, Hd], key [B, K, T, Hd], cos and sin [B, T, Hd]: the same angles for
    all heads.
    Output: query and key, rotated, in their shapes and dtype.
    Source: RoFormer, section 3.4.2.
    Exercise apply_rotary_pos_emb. Lesson: docs/lessons/positions.md. Builds on:
    GemmaRotaryEmbedding, rotate_half.
    """
    # TODO 1. Give cos and sin an axis of length 1 for the heads, so that they fit every head.
    # TODO 2. Rotate the queries: the vectors times cos, plus the vectors turned by a right angle
    #         times sin.
    # TODO 3. Rotate the keys by the same angles.
    # TODO 4. Return both, queries first.
    raise NotImplementedError(
        "apply_rotary_pos_emb is not done yet: "
        "python -m pytest -k apply_rotary_pos_emb"
    )


def repeat_kv(hidden_states: torch.Tensor, num_repeats: int) -> torch.Tensor:
    """Repeats each key/value head for the H / K query heads that share it.

    Copies of a head lie next to each other, because neighboring query heads share it: for
    num_repeats = 2, heads 0 and 1 become 0 0 1 1, not 0 1 0 1.

    Input: [B, K, L, Hd]. Output: [B, K * num_repeats, L, Hd], in the same dtype.
    Source: "GQA" (Ainslie et al. 2023), section 2.2.
    Exercise repeat_kv. Lesson: docs/lessons/sharing.md.
    """
    # TODO 1. Insert an axis of length 1 after the axis of heads.
    # TODO 2. Stretch that axis to num_repeats.
    # TODO 3. Join it with the axis of heads, so that copies of a head lie next to each other.
    raise NotImplementedError("repeat_kv is not done yet: python -m pytest -k repeat_kv")


def prefix_lm_mask(attention_mask: torch.Tensor, token_type_ids: torch.Tensor) -> torch.Tensor:
    """Says which token may look at which: the whole prefix, and the past of the suffix.

    A query sees a key if the key is not padding, and either is not later than the query or
    belongs to the prefix (picture and prompt).

    Input: attention_mask int64 [B, L], 0 for padding, 1 for a token; token_type_ids int64
    [B, T] of the last T of these tokens, 0 for prefix, 1 for suffix. The L - T before them are
    in the cache.
    Output: bool [B, 1, T, L], True where the query (row) may look at the key (column); the 1 is
    for the heads. Padding has a row like any query, but nobody reads what comes out there.

    Examples, rows are queries:
      types [0 0 0 1 1] -> 11100   types [0 0 1], padding first -> 010   one new token after
      mask  [1 1 1 1 1]    11100   mask  [0 1 1]                   010   four cached ones:
                           11100                                   011   types [1]
                           11110                                         mask [1 1 1 1 1]
                           11111                                         -> 11111
    Source: PaliGemma, section 3.1 and figure 2.
    Exercise prefix_lm_mask. Lesson: docs/lessons/mask.md.
    """
    # TODO 1. Number the L keys. The T queries are the last T of these numbers.
    # TODO 2. Which keys are not later than the query: [T, L]?
    # TODO 3. Which keys belong to the prefix, [B, L]? For keys in the cache no type is given, and
    #         none is needed: they are earlier than every query.
    # TODO 4. A query may see what either of the two allows, [B, T, L], but never padding.
    # TODO 5. Give it an axis of length 1 for the heads: bool [B, 1, T, L].
    raise NotImplementedError("prefix_lm_mask is not done yet: python -m pytest -k prefix_lm_mask")


class GemmaMLP(nn.Module):
    """Works on each token by itself; 72 % of the decoder's weights are here.

    down_proj(gelu(gate_proj(x)) * up_proj(x)): one projection decides how much of the other
    passes (GeGLU).

    Input and output: [B, T, D], in the dtype of the weights.
    Attributes: `gate_proj` and `up_proj`, weight [M, D] each; `down_proj`, weight [D, M]. No
    biases.
    Source: "GLU Variants Improve Transformer" (Shazeer 2020), section 2; GELU by its tanh formula:
    Gemma, section 2.
    Exercise GemmaMLP. Lesson: docs/lessons/gates.md.
    """

    def __init__(self, config: GemmaConfig):
        super().__init__()
        # TODO 1. Make gate_proj and up_proj, from hidden_size to intermediate_size, and down_proj,
        #         back again, all without bias.
        raise NotImplementedError("GemmaMLP is not done yet: python -m pytest -k GemmaMLP")

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        # TODO 2. Widen each token twice: by gate_proj and by up_proj.
        # TODO 3. Apply GELU to the gate alone, by its tanh formula, and multiply the two.
        # TODO 4. Narrow with down_proj.
        raise NotImplementedError("GemmaMLP is not done yet: python -m pytest -k GemmaMLP")


class GemmaAttention(nn.Module):
    """Lets each token gather information from the tokens it may look at.

    softmax(Q K^T / sqrt(Hd), masked) V, with queries and keys rotated by their positions, few
    key/value heads shared by many query heads, and earlier keys and values from the cache.

    Input: hidden_states [B, T, D]; attention_mask bool [B, 1, T, L], True where a query may
    look; position_embeddings, the cos and sin of GemmaRotaryEmbedding, [B, T, Hd] each;
    kv_cache, whose layer layer_idx gains the T new tokens, with keys already rotated.
    Output: [B, T, D], in the dtype of the weights. A query that may look at nothing (padding
    can be one) gets finite numbers, no matter which: a NaN would spread, because 0 * NaN is NaN.
    Attributes: `q_proj`, weight [H * Hd, D]; `k_proj` and `v_proj`, weight [K * Hd, D] each;
    `o_proj`, weight [D, H * Hd]. No biases.
    Source: Gemma, section 2; "Fast Transformer Decoding" (Shazeer 2019), section 3, for
    multi-query attention.
    Exercise GemmaAttention. Lesson: docs/lessons/sharing.md. Builds on: KVCache.update,
    apply_rotary_pos_emb, repeat_kv, prefix_lm_mask.
    """

    def __init__(self, config: GemmaConfig, layer_idx: int):
        super().__init__()
        # TODO 1. Keep layer_idx and the sizes, and make q_proj, k_proj, v_proj and o_proj without
        #         bias: H heads for the queries, K for keys and values, each of head_dim, which need
        #         not be D / H.
        raise NotImplementedError("GemmaAttention is not done yet: python -m pytest -k GemmaAttention")

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        kv_cache: KVCache,
    ) -> torch.Tensor:
        # TODO 2. Project to queries, keys and values, and put the axis of heads before the tokens:
        #         [B, H, T, Hd] and [B, K, T, Hd].
        # TODO 3. Rotate queries and keys by their positions, and only then add keys and values to
        #         the cache, which returns those of all tokens: [B, K, L, Hd].
        # TODO 4. Repeat each key/value head for the query heads that share it: [B, H, L, Hd].
        # TODO 5. Score each query against each key, and divide by the root of the head's size;
        #         where the mask is False, put a number so low that softmax makes it 0 (but not
        #         -inf, see above).
        # TODO 6. Turn the scores into weights over the keys; average the values with them, lay the
        #         heads side by side again and apply o_proj.
        raise NotImplementedError("GemmaAttention is not done yet: python -m pytest -k GemmaAttention")


class GemmaDecoderLayer(nn.Module):
    """One block of the decoder: tokens look at each other, then each is worked on alone.

    x = x + self_attn(input_layernorm(x));  x = x + mlp(post_attention_layernorm(x))

    Input: as GemmaAttention; hidden_states is left as it was. Output: [B, T, D].
    Attributes: `input_layernorm`, `self_attn`, `post_attention_layernorm` (the one before the
    MLP, whatever its name says) and `mlp`; the norms take their eps from config.rms_norm_eps.
    Source: Gemma, section 2 (pre-norm, as the vision tower's EncoderLayer).
    Exercise GemmaDecoderLayer. Lesson: docs/lessons/residual.md. Builds on: GemmaRMSNorm, GemmaMLP,
    GemmaAttention.
    """

    def __init__(self, config: GemmaConfig, layer_idx: int):
        super().__init__()
        # TODO 1. Make input_layernorm and post_attention_layernorm, of hidden_size with the eps of
        #         the config, self_attn, which has to know its layer_idx, and mlp.
        raise NotImplementedError("GemmaDecoderLayer is not done yet: python -m pytest -k GemmaDecoderLayer")

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        kv_cache: KVCache,
    ) -> torch.Tensor:
        # TODO 2. Normalize the input, send it through attention with everything that attention
        #         needs, and add the input itself.
        # TODO 3. Normalize that sum, send it through the MLP, and add the sum itself.
        # TODO 4. Leave the tensor that came in as it was.
        raise NotImplementedError("GemmaDecoderLayer is not done yet: python -m pytest -k GemmaDecoderLayer")


class GemmaModel(nn.Module):
    """The stack of decoder blocks, from embeddings to the features that predict the next token.

    norm(layers(inputs_embeds * sqrt(D))); sqrt(D) is rounded to the dtype first (45.25 in
    bfloat16 for D = 2048), as in the makers' code.

    Input: inputs_embeds [B, T, D], not yet scaled; attention_mask bool [B, 1, T, L];
    position_ids int64 [B, T]; kv_cache, which every layer extends. Output: [B, T, D].
    Attributes: `embed_tokens`, weight [V, D], which is kept here but used by the caller;
    `layers`, a list of num_hidden_layers blocks; `norm`. `rotary_emb` has no weights.
    Source: Gemma, section 2; "Attention Is All You Need" (Vaswani et al. 2017), section 3.4, for
    the factor sqrt(D).
    Exercise GemmaModel. Lesson: docs/lessons/joining.md. Builds on: GemmaRMSNorm,
    GemmaRotaryEmbedding, GemmaDecoderLayer.
    """

    def __init__(self, config: GemmaConfig):
        super().__init__()
        # TODO 1. Make embed_tokens, a table with a vector of hidden_size for each token, and
        #         rotary_emb.
        # TODO 2. Make layers: num_hidden_layers blocks, each with its own number, in a container
        #         whose modules torch sees; and norm, with the eps of the config.
        raise NotImplementedError("GemmaModel is not done yet: python -m pytest -k GemmaModel")

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        kv_cache: KVCache,
    ) -> torch.Tensor:
        # TODO 3. Round sqrt(D) to the dtype of the embeddings, and multiply them by it.
        # TODO 4. Make cos and sin once, for all layers.
        # TODO 5. Send the tokens through the blocks, one after another, all with the same mask,
        #         angles and cache.
        # TODO 6. Normalize what comes out.
        raise NotImplementedError("GemmaModel is not done yet: python -m pytest -k GemmaModel")


class GemmaForCausalLM(nn.Module):
    """The decoder with its output layer: for each token, a score for every possible next one.

    logits = lm_head(model(...)). The weight of lm_head is that of embed_tokens (tied): the
    checkpoint stores it once, and 0.5 billion parameters serve twice.

    Input: as GemmaModel; logits_to_keep, how many of the last positions to score (0: all).
    Output: float32 logits [B, T or logits_to_keep, V]; the product itself is in the dtype of
    the weights.
    Attributes: `model`; `lm_head`, weight [V, D], tied from the start. No bias.
    Source: Gemma, section 2; "Using the Output Embedding" (Press and Wolf 2017) for the tying.
    Exercise GemmaForCausalLM. Lesson: docs/lessons/logits.md. Builds on: GemmaModel,
    GemmaForCausalLM.tie_weights.
    """

    def __init__(self, config: GemmaConfig):
        super().__init__()
        # TODO 1. Make model, and lm_head from hidden_size to vocab_size without bias, and tie them.
        raise NotImplementedError("GemmaForCausalLM is not done yet: python -m pytest -k GemmaForCausalLM")

    def tie_weights(self):
        """Ties lm_head to embed_tokens: one vector both embeds a token and scores it.

        lm_head.weight is model.embed_tokens.weight: one parameter, which gets the gradients of
        both uses. The checkpoint holds embed_tokens, so that is the one to keep. Call it again
        whenever one of the two was replaced, as loading may do.

        Output: None.
        Source: "Using the Output Embedding" (Press and Wolf 2017).
        Exercise GemmaForCausalLM.tie_weights. Lesson: docs/lessons/logits.md. Builds on:
        GemmaModel.
        """
        # TODO 1. Find the parameter that has to stay: the one that the checkpoint holds.
        # TODO 2. Put that very object, not a copy, in place of the other.
        # TODO 3. Leave the modules themselves as they are: one looks up, the other multiplies.
        raise NotImplementedError(
            "GemmaForCausalLM.tie_weights is not done yet: "
            "python -m pytest -k GemmaForCausalLM.tie_weights"
        )

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        kv_cache: KVCache,
        logits_to_keep: int = 0,
    ) -> torch.Tensor:
        # TODO 2. Send everything through the model.
        # TODO 3. Keep the last logits_to_keep positions, or all of them if it is 0, before the
        #         scores are computed: scoring all of them costs a lot.
        # TODO 4. Score them, and return the scores in float32.
        raise NotImplementedError("GemmaForCausalLM is not done yet: python -m pytest -k GemmaForCausalLM")


class PaliGemmaMultiModalProjector(nn.Module):
    """Translates image features for the decoder: C numbers become D.

    linear(image_features): one layer, which the paper found to do as well as an MLP.

    Input: [B, N, C]. Output: [B, N, D], in the dtype of the weights.
    Attributes: `linear`, weight [D, C] and bias; D is config.projection_dim.
    Source: PaliGemma, sections 3.1 and 5.5.
    Exercise PaliGemmaMultiModalProjector. Lesson: docs/lessons/joining.md.
    """

    def __init__(self, config: PaliGemmaConfig):
        super().__init__()
        # TODO 1. Make linear: from the width of the vision tower to projection_dim, with bias.
        raise NotImplementedError(
            "PaliGemmaMultiModalProjector is not done yet: "
            "python -m pytest -k PaliGemmaMultiModalProjector"
        )

    def forward(self, image_features: torch.Tensor) -> torch.Tensor:
        # TODO 2. Project the features of all patches.
        # TODO 3. Return them as they are: no activation, no scaling.
        raise NotImplementedError(
            "PaliGemmaMultiModalProjector is not done yet: "
            "python -m pytest -k PaliGemmaMultiModalProjector"
        )


class PaliGemmaForConditionalGeneration(nn.Module):
    """The whole model: picture and token ids in, logits for the next token out.

    tower -> projector -> merge with the token embeddings -> decoder

    Input and output: those of forward.
    Attributes: `config`; `vision_tower`, a VisionModel; `multi_modal_projector`;
    `language_model`, a GemmaForCausalLM.
    Source: PaliGemma, section 3.1 and figure 1.
    Exercise PaliGemmaForConditionalGeneration. Lesson: docs/lessons/joining.md. Builds on:
    VisionModel, GemmaForCausalLM, PaliGemmaMultiModalProjector.
    """

    def __init__(self, config: PaliGemmaConfig):
        super().__init__()
        # TODO 1. Keep the config: the methods below look up ids in it.
        # TODO 2. Make vision_tower and language_model, each from its own part of the config.
        # TODO 3. Make multi_modal_projector, which has to know both widths.
        raise NotImplementedError(
            "PaliGemmaForConditionalGeneration is not done yet: "
            "python -m pytest -k PaliGemmaForConditionalGeneration"
        )

    def _merge_input_ids_with_image_features(
        self, image_features: torch.Tensor, inputs_embeds: torch.Tensor, input_ids: torch.Tensor
    ) -> torch.Tensor:
        """Puts the features of the picture where the prompt holds `<image>`.

        Where input_ids is image_token_index: image_features / sqrt(D), in order; elsewhere
        inputs_embeds. GemmaModel multiplies everything by sqrt(D), but image features must not be
        scaled. So they are divided first, by sqrt(D) rounded to the same dtype, and come out as
        they were, up to rounding.

        Input: image_features [B, N, D], perhaps in another dtype; inputs_embeds [B, T, D];
        input_ids int64 [B, T], where the image tokens may be anywhere in a row.
        Output: [B, T, D], a new tensor in the dtype of inputs_embeds.
        Raises ValueError if a row does not have N image tokens: no feature may be left over, or
        slip into another picture's row.
        Source: PaliGemma, section 3.1.
        Exercise _merge_input_ids_with_image_features. Lesson: docs/lessons/joining.md. Builds on:
        GemmaModel, PaliGemmaMultiModalProjector, PaliGemmaForConditionalGeneration.
        """
        # TODO 1. Find the image tokens: [B, T].
        # TODO 2. Refuse, with a ValueError, a row that does not hold N of them.
        # TODO 3. Cast the features to the dtype of the embeddings, and divide them by sqrt(D),
        #         rounded to that dtype too.
        # TODO 4. In a new tensor, put the features of each row, in order, where its image tokens
        #         are; everywhere else the embeddings stay.
        raise NotImplementedError(
            "_merge_input_ids_with_image_features is not done yet: "
            "python -m pytest -k _merge_input_ids_with_image_features"
        )

    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        kv_cache: KVCache | None = None,
        token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int = 0,
    ) -> dict:
        """Runs the model on a picture and its prompt, on new tokens, or on a training example.

        logits = language_model(merged embeddings, prefix_lm_mask, positions, kv_cache)
        position of a token = number of tokens up to it in attention_mask, itself included, so
        that padding does not count and a cache does. That the first token is at 1 is transformers'
        convention; the makers' code counts from 0. Rotary attention sees only differences.
        loss = mean over labeled t of -log softmax(logits[t - 1])[labels[t]]

        Input:
          input_ids       int64 [B, T]
          pixel_values    float32 [B, 3, S, S], with the prompt; None in a decoding step
          attention_mask  int64 [B, L], 0 for padding, 1 for a token, over the cached tokens
                          too; None: no padding, whatever the ids are
          kv_cache        the one returned before, which is extended; None for a new one
          token_type_ids  int64 [B, T], 0 prefix, 1 suffix; None: a prompt is all prefix, and
                          what follows a cache is all suffix
          labels          int64 [B, T], for training: the ids themselves where they are to be
                          learned, config.ignore_index elsewhere
          logits_to_keep  how many of the last positions to score; 0: all
        Output: a dict with `logits` float32 [B, T or logits_to_keep, V], `kv_cache` and, only if
        labels are given, `loss`, a float32 scalar.
        Raises ValueError for labels without token_type_ids, because a prefix that sees the answer
        would learn to copy it, and for a row with a picture that does not have N image tokens.
        Source: PaliGemma, section 3.1; section 5.2 for the loss, which is on the answer alone.
        Exercise PaliGemmaForConditionalGeneration.forward. Lesson: docs/lessons/words.md. Builds
        on: KVCache.num_items, prefix_lm_mask, GemmaForCausalLM,
        _merge_input_ids_with_image_features.
        """
        # TODO 1. Refuse, with a ValueError, labels without token_type_ids.
        # TODO 2. Fill in what was not given: an empty cache, a mask without padding over cached and
        #         new tokens, token types as the docstring says.
        # TODO 3. Look up the embeddings of the ids and, if there are pictures, send them through
        #         tower and projector and merge their features in.
        # TODO 4. Number the tokens: each by how many tokens there are up to it in the attention
        #         mask, without padding; those of the cache come before the new ones.
        # TODO 5. Run the language model with the prefix-LM mask, and return logits and cache in a
        #         dict.
        # TODO 6. With labels, add the loss: the mean cross entropy of the labels, each under the
        #         logits one position before it, without those that are ignore_index.
        raise NotImplementedError(
            "PaliGemmaForConditionalGeneration.forward is not done yet: "
            "python -m pytest -k PaliGemmaForConditionalGeneration.forward"
        )
