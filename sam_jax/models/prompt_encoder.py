"""The prompt encoder: points, boxes and masks to sparse tokens and a dense embedding."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from sam_jax.models.config import ModelConfig
from sam_jax.models.layers import LayerNorm, gelu
from sam_jax.types import (
    LABEL_ABSENT,
    LABEL_BACKGROUND,
    LABEL_FOREGROUND,
    LABEL_NOT_A_POINT,
    Prompts,
    box_corners,
)


class MaskDownscaling(nn.Module):
    """Mask prompts to a dense embedding at a quarter of their resolution."""

    config: ModelConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, masks: Float[Array, "*batch height width"]
    ) -> Float[Array, "*batch grid_height grid_width channel"]:
        """Two stride-2 convolutions with norm and GELU, then a 1x1 convolution."""
        x = masks[..., None].astype(self.dtype)
        last = self.config.mask_in_channels
        for i, features in ((1, last // 4), (2, last)):
            x = nn.Conv(features, (2, 2), (2, 2), "VALID", dtype=self.dtype, name=f"conv{i}")(x)
            x = gelu(LayerNorm(dtype=self.dtype, name=f"norm{i}")(x))
        return nn.Conv(self.config.embed_dim, (1, 1), dtype=self.dtype, name="conv3")(x)


class PromptEncoder(nn.Module):
    """Embeds prompts of any mix (SAM section A.5; original `PromptEncoder`).

    The random Fourier matrix is no parameter: it lives in the collection "constants", where no
    optimizer reaches it.
    """

    config: ModelConfig
    dtype: Any = jnp.float32

    def setup(self):
        """Tables of learned tokens, the Fourier matrix, the mask's convolutions."""
        dim = self.config.embed_dim
        normal = nn.initializers.normal(1.0)
        self.point_embeddings = self.param("point_embeddings", normal, (4, dim), jnp.float32)
        self.not_a_point_embed = self.param("not_a_point_embed", normal, (dim,), jnp.float32)
        self.no_mask_embed = self.param("no_mask_embed", normal, (dim,), jnp.float32)
        self.gaussian_matrix = self.variable(
            "constants",
            "positional_encoding_gaussian_matrix",
            lambda: jax.random.normal(self.make_rng("params"), (2, dim // 2), jnp.float32),
        )
        self.mask_downscaling = MaskDownscaling(self.config, self.dtype)

    def __call__(
        self, prompts: Prompts, grid_hw: tuple[int, int]
    ) -> tuple[Float[Array, "B P N C"], Bool[Array, "B P N"], Float[Array, "B shared_or_P h w C"]]:
        """Embeds prompts for an image embedding of `grid_hw` tokens.

        Returns:
          Sparse tokens: the points, then either the box's two corners or, for a prompt of points
          without a box, the learned "not a point" token; which of the tokens are there; and the
          dense embedding, whose prompt axis has length 1 when no masks are given.
        """
        batch, count = _batch_and_prompts(prompts)
        coords, labels = _prompt_tokens(prompts, batch, count)
        sparse = self._embed_tokens(coords, labels, grid_hw)
        return sparse, labels != LABEL_ABSENT, self._embed_masks(prompts, grid_hw, batch)

    def dense_positions(self, grid_hw: tuple[int, int]) -> Float[Array, "h w C"]:
        """The positional encoding of every token of the image embedding."""
        y = (jnp.arange(grid_hw[0], dtype=jnp.float32) + 0.5) / grid_hw[0]
        x = (jnp.arange(grid_hw[1], dtype=jnp.float32) + 0.5) / grid_hw[1]
        xy = jnp.stack(jnp.broadcast_arrays(x[None, :], y[:, None]), axis=-1)
        return self._fourier_features(xy).astype(self.dtype)

    def _embed_tokens(self, coords, labels, grid_hw):
        patch = self.config.image_encoder.patch_size
        size_xy = jnp.array([grid_hw[1] * patch, grid_hw[0] * patch], jnp.float32)
        # A point names a pixel; its center lies half a pixel further.
        size_xy = jax.lax.broadcast_to_rank(size_xy, coords.ndim)
        position = self._fourier_features((coords + 0.5) / size_xy)
        # One lookup: row 0 stands for "not a point", which has no position of its own.
        table = jnp.concatenate([self.not_a_point_embed[None], self.point_embeddings])
        learned = table[jnp.clip(labels + 1, 0, 4)]
        is_point = (labels >= LABEL_BACKGROUND)[..., None]
        tokens = jnp.where(is_point, position, 0.0) + learned
        return jnp.where((labels == LABEL_ABSENT)[..., None], 0.0, tokens).astype(self.dtype)

    def _embed_masks(self, prompts, grid_hw, batch):
        if self.is_initializing():
            # Its parameters must come to be, whatever prompts the model is initialized with.
            self.mask_downscaling(jnp.zeros((4, 4), jnp.float32))
        no_mask = self.no_mask_embed.astype(self.dtype)
        if prompts.masks is None:
            return jnp.broadcast_to(no_mask, (batch, 1, *grid_hw, no_mask.shape[0]))
        dense = self.mask_downscaling(prompts.masks)
        if prompts.mask_present is None:
            return dense
        no_mask = jax.lax.broadcast_to_rank(no_mask, dense.ndim)
        return jnp.where(prompts.mask_present[..., None, None, None], dense, no_mask)

    def _fourier_features(self, coords: Float[Array, "*n 2"]) -> Float[Array, "*n C"]:
        # Always at full precision: a bfloat16 product, the TPU's default, is off by whole pixels.
        phase = jnp.matmul(
            2.0 * coords - 1.0, self.gaussian_matrix.value, precision=jax.lax.Precision.HIGHEST
        )
        phase = 2.0 * np.pi * phase
        return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], axis=-1)


def _batch_and_prompts(prompts: Prompts) -> tuple[int, int]:
    for given in (prompts.points, prompts.boxes, prompts.masks):
        if given is not None:
            return given.shape[0], given.shape[1]
    raise ValueError("prompts are empty: give points, boxes or masks")


def _prompt_tokens(
    prompts: Prompts, batch: int, count: int
) -> tuple[Float[Array, "B P N 2"], Int[Array, "B P N"]]:
    """Points, box corners and padding as one list of positions and labels."""
    coords = jnp.zeros((batch, count, 0, 2), jnp.float32)
    labels = jnp.zeros((batch, count, 0), jnp.int32)
    if prompts.points is not None:
        if prompts.labels is None:
            raise ValueError("points need labels")
        coords = jnp.asarray(prompts.points, jnp.float32)
        labels = jnp.asarray(prompts.labels, jnp.int32)
    if prompts.boxes is not None:
        corners, corner_labels = box_corners(jnp.asarray(prompts.boxes, jnp.float32))
        coords = jnp.concatenate([coords, corners], axis=2)
        labels = jnp.concatenate([labels, corner_labels.astype(labels.dtype)], axis=2)
    elif prompts.points is not None:
        # The original pads wherever there are points and no box; here it is decided per prompt, so
        # that prompts of both kinds can share a batch.
        boxed = jnp.any(labels > LABEL_FOREGROUND, axis=-1, keepdims=True)
        pointed = jnp.any(labels != LABEL_ABSENT, axis=-1, keepdims=True)
        pad = jnp.where(pointed & ~boxed, LABEL_NOT_A_POINT, LABEL_ABSENT).astype(labels.dtype)
        coords = jnp.concatenate([coords, jnp.zeros((batch, count, 1, 2), jnp.float32)], axis=2)
        labels = jnp.concatenate([labels, pad], axis=2)
    return coords, labels
