"""SAM 2's mask decoder: SAM's, with finer features, and a word on whether the object is there."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from sam_jax.models.features import in_blocks
from sam_jax.models.layers import MLP, LayerNorm, Upscale, gelu
from sam_jax.models.mask_decoder import HypernetworkMLPs
from sam_jax.models.sam2.config import Sam2Config
from sam_jax.models.sam2.values import Decoded
from sam_jax.models.two_way_transformer import TwoWayTransformer


class MaskDecoder(nn.Module):
    """Predicts masks, their quality and presence (SAM 2 section C.1; original `MaskDecoder`)."""

    config: Sam2Config
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        image_embedding: Float[Array, "B h w C"],
        finer: tuple[jax.Array, ...],
        image_pe: Float[Array, "h w C"],
        sparse_prompt_embeddings: Float[Array, "B P N C"],
        sparse_mask: Bool[Array, "B P N"],
        dense_prompt_embeddings: Float[Array, "B shared_or_P h w C"],
    ) -> Decoded:
        """Decodes every prompt of every image.

        Args:
          image_embedding: with memories, or with the learned vector for none.
          finer: of the image, see `ImageFeatures`; of one image for all, or of each.
          image_pe: positional encoding of the embedding's tokens.
          sparse_prompt_embeddings: tokens of points.
          sparse_mask: which of them are there.
          dense_prompt_embeddings: of mask prompts, or one for all prompts.
        """
        config = self.config
        batch, prompts = sparse_prompt_embeddings.shape[:2]
        height, width, dim = image_pe.shape
        num_masks = config.num_multimask_outputs + 1
        normal = nn.initializers.normal(1.0)
        score_token = self.param("obj_score_token", normal, (dim,), jnp.float32)
        iou_token = self.param("iou_token", normal, (dim,), jnp.float32)
        mask_tokens = self.param("mask_tokens", normal, (num_masks, dim), jnp.float32)

        # Tokens are few: they stay float32, and only the image side has the compute type.
        output_tokens = jnp.concatenate([score_token[None], iou_token[None], mask_tokens])
        output_tokens = jnp.broadcast_to(output_tokens, (batch, prompts, num_masks + 2, dim))
        sparse = sparse_prompt_embeddings.astype(jnp.float32)
        tokens = jnp.concatenate([output_tokens, sparse], axis=2)
        output_mask = jnp.ones((batch, prompts, num_masks + 2), bool)
        token_mask = jnp.concatenate([output_mask, sparse_mask], axis=2)

        image = image_embedding[:, None].astype(self.dtype) + dense_prompt_embeddings
        image = image.reshape(batch, -1, height * width, dim)
        tokens, image = TwoWayTransformer(config, self.dtype, name="transformer")(
            image, image_pe.reshape(height * width, dim), tokens, token_mask
        )
        image = image.reshape(batch, prompts, height, width, dim)

        # Rows and columns in blocks, as `Upscale` leaves them, become an image's at the end.
        x = Upscale(dim // 4, self.dtype, name="upscale1")(image)
        x = x + in_blocks(finer[0], 1, self.dtype)
        x = gelu(LayerNorm(dtype=self.dtype, name="upscale_norm")(x))
        x = Upscale(dim // 8, self.dtype, name="upscale2")(x)
        x = gelu(x + in_blocks(finer[1], 2, self.dtype))

        mask_tokens = tokens[:, :, 2 : num_masks + 2]
        hypernetworks = HypernetworkMLPs(dim, dim // 8, name="output_hypernetworks_mlps")
        logits = jnp.einsum(
            "bpmc,bphwijklc->bpmhikwjl",
            hypernetworks(mask_tokens).astype(self.dtype),
            x,
            preferred_element_type=jnp.float32,
        )
        iou = MLP(
            config.iou_head_hidden_dim, num_masks, config.iou_head_depth, name="iou_prediction_head"
        )(tokens[:, :, 1])
        score = MLP(dim, 1, 3, name="pred_obj_score_head")(tokens[:, :, 0])
        return Decoded(
            logits.reshape(batch, prompts, num_masks, 4 * height, 4 * width),
            jax.nn.sigmoid(iou.astype(jnp.float32)),
            mask_tokens,
            score[..., 0].astype(jnp.float32),
        )
