"""The image encoder: a plain ViT with windowed and global attention (ViTDet; SAM section A.5)."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from sam_jax.configs import ImageEncoderConfig
from sam_jax.models.layers import LayerNorm, MLPBlock
from sam_jax.ops.attention import grid_attention, relative_positions
from sam_jax.ops.resample import resize_position_grid
from sam_jax.ops.windows import join_windows, partition_windows


class Attention(nn.Module):
    """Multi-head self-attention over a grid with decomposed relative positions.

    `table_size_hw` is the grid its two position tables are stored for.
    """

    num_heads: int
    table_size_hw: tuple[int, int]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch height width channel"]:
        """Attends within each grid of the batch."""
        batch, height, width, channel = x.shape
        head_dim = channel // self.num_heads
        qkv = nn.Dense(3 * channel, dtype=self.dtype, name="qkv")(x)
        qkv = qkv.reshape(batch, height, width, 3, self.num_heads, head_dim)
        query, key, value = jnp.moveaxis(qkv, (3, 4), (0, 2))
        tables = []
        for axis, size, table_size in zip("hw", (height, width), self.table_size_hw, strict=True):
            shape = (2 * table_size - 1, head_dim)
            table = self.param(f"rel_pos_{axis}", nn.initializers.zeros, shape, jnp.float32)
            # NumPy parameters that a user's jit closes over cannot be indexed by its tracers.
            tables.append(relative_positions(jnp.asarray(table), size).astype(self.dtype))
        out = grid_attention(query, key, value, *tables)
        out = jnp.moveaxis(out, 1, 3).reshape(batch, height, width, channel)
        return nn.Dense(channel, dtype=self.dtype, name="proj")(out)


class Block(nn.Module):
    """A pre-norm transformer block; `window_size` 0 attends over the whole grid."""

    config: ImageEncoderConfig
    window_size: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch height width channel"]:
        """Attention and MLP, each with its residual."""
        window = self.window_size
        table_size_hw = (window, window) if window else self.config.table_size_hw
        attention = Attention(self.config.num_heads, table_size_hw, self.dtype, name="attn")
        shortcut = x
        x = LayerNorm(dtype=self.dtype, name="norm1")(x)
        if window:
            x = join_windows(attention(partition_windows(x, window)), (x.shape[1], x.shape[2]))
        else:
            x = attention(x)
        x = shortcut + x
        mlp = MLPBlock(self.config.mlp_dim, dtype=self.dtype, name="mlp")
        return x + mlp(LayerNorm(dtype=self.dtype, name="norm2")(x))


class Neck(nn.Module):
    """Two convolutions with LayerNorm that bring the encoder's width to the embedding's."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch height width {self.features}"]:
        """1x1 convolution, norm, 3x3 convolution, norm."""
        for i, size in ((1, 1), (2, 3)):
            x = nn.Conv(
                self.features, (size, size), use_bias=False, dtype=self.dtype, name=f"conv{i}"
            )(x)
            x = LayerNorm(dtype=self.dtype, name=f"norm{i}")(x)
        return x


class ImageEncoder(nn.Module):
    """Normalised images to embeddings at 1/16 of their resolution.

    Attributes:
      config: the ViT.
      features: channels of the embedding.
      dtype: compute type; parameters stay float32.
      remat: recompute each block in the backward pass instead of keeping its activations.
    """

    config: ImageEncoderConfig
    features: int
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch grid_height grid_width {self.features}"]:
        """Encodes images whose height and width are multiples of the patch size.

        Raises:
          ValueError: they are not.
        """
        config = self.config
        patch = (config.patch_size, config.patch_size)
        if images.shape[1] % patch[0] or images.shape[2] % patch[1]:
            raise ValueError(
                f"height and width must be multiples of the patch size {config.patch_size}, "
                f"not {images.shape[1]}x{images.shape[2]}"
            )
        x = nn.Conv(config.embed_dim, patch, patch, "VALID", dtype=self.dtype, name="patch_embed")(
            images
        )
        table = self.param(
            "pos_embed",
            nn.initializers.truncated_normal(0.02),
            (*config.table_size_hw, config.embed_dim),
            jnp.float32,
        )
        x = x + resize_position_grid(jnp.asarray(table), (x.shape[1], x.shape[2])).astype(
            self.dtype
        )
        block_class = nn.remat(Block) if self.remat else Block
        for i in range(config.depth):
            window = 0 if i in config.global_attention_indexes else config.window_size
            x = block_class(config, window, self.dtype, name=f"blocks_{i}")(x)
        return Neck(self.features, self.dtype, name="neck")(x)
