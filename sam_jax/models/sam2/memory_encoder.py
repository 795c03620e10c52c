"""The memory encoder: a frame and an object's mask in it become a memory (SAM 2 section C.1)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from sam_jax.models.layers import Dense, LayerNorm, add_to_channels, gelu
from sam_jax.models.sam2.config import Sam2Config
from sam_jax.ops.depthwise import depthwise_convolution

# What a mask of 0 to 1 is stretched to.
MASK_SCALE = 20.0
MASK_BIAS = -10.0
# Of the layer scales, before training.
LAYER_SCALE = 1e-6


class MaskDownsampler(nn.Module):
    """Masks to a grid of tokens: each convolution halves them and has four times the channels."""

    config: Sam2Config
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, masks: Float[Array, "B H W"]) -> Float[Array, "B h w C"]:
        """At 1/16 of the masks' resolution."""
        x = masks[..., None].astype(self.dtype)
        halvings = self.config.image_encoder.patch_size.bit_length() - 1
        edge = ((1, 1), (1, 1))
        for i in range(halvings):
            features = 4 ** (i + 1)
            x = nn.Conv(features, (3, 3), (2, 2), edge, dtype=self.dtype, name=f"conv{i}")(x)
            x = gelu(LayerNorm(dtype=self.dtype, name=f"norm{i}")(x))
        return Dense(self.config.embed_dim, self.dtype, name="out_conv")(x)


class FuserBlock(nn.Module):
    """A ConvNeXt block (Liu et al. 2022)."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """Depthwise convolution, norm, MLP, scaled residual."""
        dim = x.shape[-1]
        init = nn.initializers.lecun_normal(in_axis=(0, 1), out_axis=3)
        kernel = self.param("dwconv_kernel", init, (7, 7, 1, dim), jnp.float32)
        bias = self.param("dwconv_bias", nn.initializers.zeros, (dim,), jnp.float32)
        out = depthwise_convolution(x, jnp.asarray(kernel, self.dtype))
        out = LayerNorm(dtype=self.dtype, name="norm")(add_to_channels(out, bias))
        out = Dense(dim, self.dtype, name="pwconv2")(
            gelu(Dense(4 * dim, self.dtype, name="pwconv1")(out))
        )
        scale = nn.initializers.constant(LAYER_SCALE)
        gamma = jnp.asarray(self.param("gamma", scale, (dim,), jnp.float32), self.dtype)
        return x + jax.lax.broadcast_to_rank(gamma, out.ndim) * out


class MemoryEncoder(nn.Module):
    """Fuses an image embedding, without its memories, with a mask."""

    config: Sam2Config
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, embedding: Float[Array, "shared_or_B h w C"], masks: Float[Array, "B H W"]
    ) -> Float[Array, "B h w M"]:
        """Memories, before anything is said of the object's presence.

        Args:
          embedding: of one frame for all masks, or one for each.
          masks: probabilities from 0 to 1, or 0 and 1, at the resolution of the input.
        """
        dim = self.config.embed_dim
        masks = MaskDownsampler(self.config, self.dtype, name="mask_downsampler")(
            masks * MASK_SCALE + MASK_BIAS
        )
        x = Dense(dim, self.dtype, name="pix_feat_proj")(embedding.astype(self.dtype)) + masks
        for i in range(2):
            x = FuserBlock(self.dtype, name=f"fuser_{i}")(x)
        return Dense(self.config.memory_dim, self.dtype, name="out_proj")(x)
