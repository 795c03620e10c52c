"""The mask decoder: image embedding and embedded prompts to mask logits and predicted IoU."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from sam_jax.models.config import ModelConfig
from sam_jax.models.features import ImageFeatures, in_blocks
from sam_jax.models.layers import MLP, LayerNorm, StackedDense, Upscale, gelu
from sam_jax.models.two_way_transformer import TwoWayTransformer


class OutputUpscaling(nn.Module):
    """Image tokens to four times their resolution at an eighth of their channels, in blocks."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B P h w C"], finer: tuple[jax.Array, ...]
    ) -> Float[Array, "B P h w 2 2 2 2 {self.features//8}"]:
        """Two transposed convolutions; row and column in a block of the first, of the second.

        Args:
          x: image tokens.
          finer: features of the image to be added, see `ImageFeatures`; there may be none.
        """
        x = Upscale(self.features // 4, self.dtype, name="conv1")(x)
        if finer:
            x = x + in_blocks(finer[0], 1, self.dtype)
        x = gelu(LayerNorm(dtype=self.dtype, name="norm")(x))
        x = Upscale(self.features // 8, self.dtype, name="conv2")(x)
        if finer:
            x = x + in_blocks(finer[1], 2, self.dtype)
        return gelu(x)


class HypernetworkMLPs(nn.Module):
    """One MLP for each mask token, which turns it into that mask's weights over channels."""

    hidden_dim: int
    output_dim: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "B P masks C"]
    ) -> Float[Array, "B P masks {self.output_dim}"]:
        """Applies MLP i to mask token i."""
        widths = (self.hidden_dim, self.hidden_dim, self.output_dim)
        for i, width in enumerate(widths):
            tokens = StackedDense(width, self.dtype, name=f"layers_{i}")(tokens)
            tokens = nn.relu(tokens) if i < len(widths) - 1 else tokens
        return tokens


class MaskDecoder(nn.Module):
    """Predicts masks and their quality (SAM section A.5; original `MaskDecoder`)."""

    config: ModelConfig
    dtype: Any = jnp.float32
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        features: ImageFeatures,
        image_pe: Float[Array, "h w C"],
        sparse_prompt_embeddings: Float[Array, "B P N C"],
        sparse_mask: Bool[Array, "B P N"],
        dense_prompt_embeddings: Float[Array, "B shared_or_P h w C"],
        multimask: bool | None,
    ) -> tuple[Float[Array, "B P M four_h four_w"], Float[Array, "B P M"]]:
        """Decodes every prompt of every image.

        Args:
          features: from the image encoder, of B images.
          image_pe: positional encoding of its tokens.
          sparse_prompt_embeddings: tokens of points and boxes.
          sparse_mask: which of them are there.
          dense_prompt_embeddings: of mask prompts, or one for all prompts.
          multimask: the three masks of an ambiguous prompt (True), the single one (False), or all
            (None).

        Returns:
          Mask logits at four times the embedding's resolution and the predicted IoU of each, both
          float32; M is 3, 1 or 4.
        """
        config = self.config
        batch, prompts = sparse_prompt_embeddings.shape[:2]
        height, width, dim = image_pe.shape
        num_masks = config.num_multimask_outputs + 1
        normal = nn.initializers.normal(1.0)
        iou_token = self.param("iou_token", normal, (dim,), jnp.float32)
        mask_tokens = self.param("mask_tokens", normal, (num_masks, dim), jnp.float32)

        # Tokens are few: they stay float32, and only the image side has the compute type.
        output_tokens = jnp.concatenate([iou_token[None], mask_tokens])
        output_tokens = jnp.broadcast_to(output_tokens, (batch, prompts, num_masks + 1, dim))
        sparse = sparse_prompt_embeddings.astype(jnp.float32)
        tokens = jnp.concatenate([output_tokens, sparse], axis=2)
        output_mask = jnp.ones((batch, prompts, num_masks + 1), bool)
        token_mask = jnp.concatenate([output_mask, sparse_mask], axis=2)

        image = features.embedding[:, None].astype(self.dtype) + dense_prompt_embeddings
        image = image.reshape(batch, -1, height * width, dim)
        tokens, image = TwoWayTransformer(config, self.dtype, self.dropout, name="transformer")(
            image, image_pe.reshape(height * width, dim), tokens, token_mask
        )
        image = image.reshape(batch, prompts, height, width, dim)

        upscaled = OutputUpscaling(dim, self.dtype, name="output_upscaling")(image, features.finer)
        weights = HypernetworkMLPs(dim, dim // 8, name="output_hypernetworks_mlps")(
            tokens[:, :, 1 : num_masks + 1]
        )
        iou_head = MLP(
            config.iou_head_hidden_dim,
            num_masks,
            config.iou_head_depth,
            name="iou_prediction_head",
        )
        iou = iou_head(tokens[:, :, 0]).astype(jnp.float32)

        chosen = {True: slice(1, None), False: slice(0, 1), None: slice(None)}[multimask]
        # Masks have the fewest channels: blocks become rows and columns here, not before.
        logits = jnp.einsum(
            "bpmc,bphwijklc->bpmhikwjl",
            weights[:, :, chosen].astype(self.dtype),
            upscaled,
            preferred_element_type=jnp.float32,
        )
        logits = logits.reshape(*logits.shape[:3], 4 * height, 4 * width)
        return logits, iou[:, :, chosen]
