"""Masked autoencoder (MAE): an image encoder that learns by predicting the patches it is not shown.

He et al. 2021 (arXiv 2111.06377). The encoder is a plain ViT with a class token and sees a quarter
of an image's patches; a small decoder predicts the pixels of the others. SAM's image encoder starts
from the encoder's parameters, which have the same names here as there.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Shaped

from sam_jax.models.layers import Dense, LayerNorm, MLPBlock, check_images, materialize
from sam_jax.models.mae.config import MaeConfig
from sam_jax.models.sam.image_encoder import PatchEmbed
from sam_jax.ops.attention import prompt_attention

_KERNEL_INIT = nn.initializers.xavier_uniform()
# As of the linear layer over a patch's pixels that it is.
_PATCH_INIT = nn.initializers.xavier_uniform(in_axis=(0, 1, 2), out_axis=3)
_TOKEN_INIT = nn.initializers.normal(0.02)
_TEMPERATURE = 10_000.0


def sincos_positions(
    grid_hw: tuple[int, int], channel: int
) -> Float[np.ndarray, "{grid_hw[0]} {grid_hw[1]} {channel}"]:
    """The fixed positions of patches, float32.

    The first half of the channels is the column's, the second the row's; each is all its sines and
    then all its cosines, of frequencies that fall from 1 to nearly 1/10,000.

    Args:
      grid_hw: rows and columns.
      channel: a multiple of 4.
    """
    quarter = channel // 4
    frequencies = _TEMPERATURE ** (-np.arange(quarter) / quarter)

    def waves(size: int) -> np.ndarray:
        angles = np.outer(np.arange(size), frequencies)
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    height, width = grid_hw
    columns = np.broadcast_to(waves(width)[None], (height, width, 2 * quarter))
    rows = np.broadcast_to(waves(height)[:, None], (height, width, 2 * quarter))
    return np.concatenate([columns, rows], axis=2).astype(np.float32)


def patchify(
    images: Float[Array, "batch height width 3"], patch: int
) -> Float[Array, "batch patches {3*patch*patch}"]:
    """The pixels of each patch in the order in which the decoder predicts them.

    Patches by row and column of the grid; in a patch its rows, in a row its columns, in a pixel its
    colors, as in the original.

    Args:
      images: height and width are multiples of the patch.
      patch: its side in pixels.
    """
    batch, height, width, colours = images.shape
    grid_hw = height // patch, width // patch
    x = images.reshape(batch, grid_hw[0], patch, grid_hw[1], patch, colours)
    return x.swapaxes(2, 3).reshape(batch, grid_hw[0] * grid_hw[1], -1)


class Attention(nn.Module):
    """Multi-head self-attention over a list of tokens."""

    num_heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch token channel"]
    ) -> Float[Array, "batch token channel"]:
        """Every token attends to all of its image's."""
        batch, token, channel = x.shape
        qkv = Dense(3 * channel, self.dtype, kernel_init=_KERNEL_INIT, name="qkv")(x)
        qkv = qkv.reshape(batch, 1, token, 3, self.num_heads, channel // self.num_heads)
        out = prompt_attention(*jnp.moveaxis(qkv, 3, 0)).reshape(x.shape)
        return Dense(channel, self.dtype, kernel_init=_KERNEL_INIT, name="proj")(out)


class Block(nn.Module):
    """A pre-norm transformer block, its parameters named as those of SAM's image encoder."""

    num_heads: int
    mlp_dim: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch token channel"]
    ) -> Float[Array, "batch token channel"]:
        """Attention and MLP, each with its residual."""
        attention = Attention(self.num_heads, self.dtype, name="attn")
        x = materialize(x + attention(LayerNorm(dtype=self.dtype, name="norm1")(x)))
        mlp = MLPBlock(self.mlp_dim, dtype=self.dtype, kernel_init=_KERNEL_INIT, name="mlp")
        return x + mlp(LayerNorm(dtype=self.dtype, name="norm2")(x))


class MaeEncoder(nn.Module):
    """Visible patches to tokens.

    Attributes:
      config: the architecture.
      dtype: compute type; parameters stay float32.
      remat: recompute each block in the backward pass instead of keeping its activations.
    """

    config: MaeConfig
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width 3"],
        visible: Int[Array, "batch kept"] | None = None,
    ) -> Float[Array, "batch tokens {self.config.embed_dim}"]:
        """The class token and then one token for each visible patch.

        Args:
          images: normalized; height and width are multiples of the patch size.
          visible: numbers of the patches to look at; None for all.
        """
        config = self.config
        embed = PatchEmbed(
            config.embed_dim, config.patch_size, self.dtype, _PATCH_INIT, name="patch_embed"
        )
        x = embed(images)
        positions = sincos_positions((x.shape[1], x.shape[2]), config.embed_dim)
        x = (x + positions.astype(self.dtype)).reshape(x.shape[0], -1, config.embed_dim)
        if visible is not None:
            x = jnp.take_along_axis(x, visible[..., None], axis=1)
        # Its position is zero.
        token = self.param("cls_token", _TOKEN_INIT, (1, config.embed_dim), jnp.float32)
        x = jnp.concatenate([_repeated(token, x), x], axis=1)
        block_class = nn.remat(Block) if self.remat else Block
        for i in range(config.depth):
            options = (config.num_heads, config.mlp_dim, self.dtype)
            x = block_class(*options, name=f"blocks_{i}")(x)
        return LayerNorm(dtype=self.dtype, name="norm")(x)


class MaeDecoder(nn.Module):
    """Tokens of visible patches to the pixels of all patches; attributes as for `MaeEncoder`."""

    config: MaeConfig
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "batch kept_and_class channel"],
        places: Int[Array, "batch patches"],
        grid_hw: tuple[int, int],
    ) -> Float[Array, "batch patches pixels"]:
        """Predicted pixels, float32, in the order of `patchify`.

        Args:
          tokens: from the encoder.
          places: for each patch, where its token is among those of visible patches; beyond them for
            the masked ones.
          grid_hw: rows and columns of patches.
        """
        config = self.config
        dense = {"dtype": self.dtype, "kernel_init": _KERNEL_INIT}
        dim = config.decoder_embed_dim
        x = Dense(dim, name="decoder_embed", **dense)(tokens)
        mask_token = self.param("mask_token", _TOKEN_INIT, (1, dim), jnp.float32)
        first, x = x[:, :1], x[:, 1:]
        # One mask token behind the others serves every masked patch.
        last = x.shape[1]
        x = jnp.concatenate([x, _repeated(mask_token, x)], axis=1)
        x = jnp.take_along_axis(x, jnp.minimum(places, last)[..., None], axis=1)
        x = x + sincos_positions(grid_hw, dim).reshape(-1, dim).astype(self.dtype)
        x = jnp.concatenate([first, x], axis=1)
        block_class = nn.remat(Block) if self.remat else Block
        for i in range(config.decoder_depth):
            options = (config.decoder_num_heads, config.decoder_mlp_dim, self.dtype)
            x = block_class(*options, name=f"decoder_blocks_{i}")(x)
        x = LayerNorm(dtype=self.dtype, name="decoder_norm")(x)
        x = Dense(3 * config.patch_size**2, name="decoder_pred", **dense)(x)
        return x[:, 1:].astype(jnp.float32)


class MaskedAutoencoder(nn.Module):
    """Encoder and decoder together.

    Attributes:
      config: the architecture.
      dtype: compute type, float32 or bfloat16. Parameters, LayerNorm statistics, softmax and the
        prediction are float32 either way.
      remat: recompute blocks in the backward pass to save memory.
    """

    config: MaeConfig
    dtype: Any = jnp.float32
    remat: bool = False

    def setup(self):
        """The encoder has the name that it has in `Sam`."""
        self.image_encoder = MaeEncoder(self.config, self.dtype, self.remat)
        self.decoder = MaeDecoder(self.config, self.dtype, self.remat)

    def __call__(
        self, images: Shaped[Array, "batch height width 3"], noise: Float[Array, "batch patches"]
    ) -> tuple[Float[Array, "batch patches pixels"], Bool[Array, "batch patches"]]:
        """Predicted pixels of all patches, and which of them the encoder was not shown.

        Args:
          images: RGB, normalized: (value - `config.pixel_mean`) / `config.pixel_std` of values from
            0 to 255; neither bytes nor floats from 0 to 1. Height and width are multiples of the
            patch size.
          noise: uniform; of each image, the patches with the lowest are visible.

        Raises:
          InputError: images are integers or booleans.
        """
        check_images(images)
        config = self.config
        patch = config.patch_size
        grid_hw = images.shape[1] // patch, images.shape[2] // patch
        visible = config.visible(noise.shape[1])
        order = jnp.argsort(noise, axis=1)
        places = jnp.argsort(order, axis=1)
        tokens = self.image_encoder(images, order[:, :visible])
        return self.decoder(tokens, places, grid_hw), places >= visible


def _repeated(
    token: Float[Array, "1 channel"], x: Float[Array, "batch token channel"]
) -> Float[Array, "batch 1 channel"]:
    """A learned token for every image of a batch, in its type."""
    return jnp.broadcast_to(jnp.asarray(token, x.dtype), (x.shape[0], 1, x.shape[2]))
