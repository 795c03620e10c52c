"""The image encoder: a plain ViT with windowed and global attention (ViTDet; SAM section A.5)."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from sam_jax.models.features import ImageFeatures
from sam_jax.models.layers import (
    Dense,
    LayerNorm,
    MLPBlock,
    add_to_channels,
    drop_path,
    materialize,
)
from sam_jax.models.sam.config import HybridEncoderConfig, ImageEncoderConfig
from sam_jax.ops.attention import chosen_implementation, grid_attention, relative_positions
from sam_jax.ops.resample import resize_position_grid
from sam_jax.ops.windows import join_windows, partition_windows


def _share(whole: int, axis: str | None) -> int:
    """What one device has of something divided over an axis of the mesh; all without one."""
    return whole if axis is None else whole // jax.lax.axis_size(axis)


class PatchEmbed(nn.Module):
    """A convolution whose kernel is as large as its stride: one matrix product over patches.

    XLA lays out a strided convolution of a single image, and whatever follows it, in a way that
    costs a TPU half of the encoder's time.
    """

    features: int
    patch: int
    dtype: Any = jnp.float32
    kernel_init: Callable = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch grid_height grid_width {self.features}"]:
        """One token for every patch."""
        batch, height, width, colours = images.shape
        patch = self.patch
        shape = (patch, patch, colours, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        images, kernel = nn.dtypes.promote_dtype(images, kernel, dtype=self.dtype)
        # Color before row and column: the order in which a TPU makes patches cheaply.
        x = images.reshape(batch, height // patch, patch, width // patch, patch, colours)
        x = x.transpose(0, 1, 3, 5, 2, 4).reshape(*x.shape[:2], width // patch, -1)
        return add_to_channels(x @ kernel.transpose(2, 0, 1, 3).reshape(-1, self.features), bias)


class Attention(nn.Module):
    """Multi-head self-attention with decomposed relative positions, over the grid or in windows.

    Attributes:
      num_heads: they share the channels.
      table_size_hw: the grid that the two position tables are stored for.
      window: rows and columns of a window; 0 attends over the whole grid.
      dtype: compute type.
      implementation: see `ops.attention.grid_attention`.
      model_axis: the axis of a device mesh over which the heads are divided, see `Sam`.
    """

    num_heads: int
    table_size_hw: tuple[int, int]
    window: int = 0
    dtype: Any = jnp.float32
    implementation: str | None = None
    model_axis: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch height width channel"]:
        """Attends within each grid of the batch, or each of its windows."""
        size_hw, channel, window = (x.shape[1], x.shape[2]), x.shape[3], self.window
        head_dim = channel // self.num_heads
        heads = _share(self.num_heads, self.model_axis)
        grid_hw = (window, window) if window else size_hw
        tables = []
        for axis, table_size in zip("hw", self.table_size_hw, strict=True):
            shape = (2 * table_size - 1, head_dim)
            table = self.param(f"rel_pos_{axis}", nn.initializers.zeros, shape, jnp.float32)
            # NumPy parameters that a user's jit closes over cannot be indexed by its tracers.
            tables.append(jnp.asarray(table))
        project = Dense(3 * heads * head_dim, dtype=self.dtype, name="qkv")
        combine = Dense(channel, self.dtype, self.model_axis, name="proj")
        x = project(x)
        # Padding that is zeros before the projection is its bias behind it.
        fill = jnp.asarray(project.variables["params"]["bias"], self.dtype)
        implementation = self.implementation or chosen_implementation(*grid_hw, head_dim)
        if window and implementation == "tpu":
            from sam_jax.ops.attention_tpu import window_attention_tpu

            line_h, line_w = (table.astype(self.dtype) for table in tables)
            x = x.reshape(*x.shape[:3], 3, heads, head_dim)
            fill = fill.reshape(3, heads, head_dim)
            out = window_attention_tpu(x, fill, line_h, line_w, window)
            return combine(out.reshape(*out.shape[:3], heads * head_dim))
        if window:
            x = partition_windows(x, window, fill=fill)
        relative = (
            relative_positions(table, size).astype(self.dtype)
            for table, size in zip(tables, grid_hw, strict=True)
        )
        qkv = x.reshape(*x.shape[:3], 3, heads, head_dim)
        out = grid_attention(qkv, *relative, implementation=implementation)
        out = out.reshape(*out.shape[:3], heads * head_dim)
        return combine(join_windows(out, size_hw) if window else out)


class Block(nn.Module):
    """A pre-norm transformer block; `window_size` 0 attends over the whole grid."""

    config: ImageEncoderConfig | HybridEncoderConfig
    window_size: int
    dtype: Any = jnp.float32
    attention: str | None = None
    model_axis: str | None = None
    drop_path: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channel"],
        draws: Float[Array, "batch 2"] | None = None,
    ) -> Float[Array, "batch height width channel"]:
        """Attention and MLP, each with its residual; `draws` may leave them out (`drop_path`)."""
        window = self.window_size
        table_size_hw = (window, window) if window else self.config.table_size_hw
        attention = Attention(
            self.config.num_heads,
            table_size_hw,
            window,
            self.dtype,
            self.attention,
            self.model_axis,
            name="attn",
        )

        def drop(branch, i):
            return drop_path(branch, None if draws is None else draws[:, i], self.drop_path)

        x = materialize(x + drop(attention(LayerNorm(dtype=self.dtype, name="norm1")(x)), 0))
        hidden = _share(self.config.mlp_dim, self.model_axis)
        mlp = MLPBlock(hidden, dtype=self.dtype, model_axis=self.model_axis, name="mlp")
        return x + drop(mlp(LayerNorm(dtype=self.dtype, name="norm2")(x)), 1)


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


class TransformerEncoder(nn.Module):
    """What encoders with transformer blocks share: their options, positions and the blocks.

    Attributes:
      config: widths and depth.
      features: channels of the embedding.
      dtype: compute type; parameters stay float32.
      remat: recompute each block in the backward pass instead of keeping its activations.
      attention: its implementation, see `ops.attention.grid_attention`; None chooses by platform.
      model_axis: the axis of a device mesh over which heads and MLP are divided, see `Sam`.
      drop_path: how often the last block's branches are left out, where `draws` are given; it
        grows linearly from 0 in the first block (ViTDet).
    """

    config: Any
    features: int
    dtype: Any = jnp.float32
    remat: bool = False
    attention: str | None = None
    model_axis: str | None = None
    drop_path: float = 0.0

    def transform(
        self,
        x: Float[Array, "batch grid_height grid_width channel"],
        draws: Float[Array, "batch depth 2"] | None,
        windows: Sequence[int],
    ) -> Float[Array, "batch grid_height grid_width channel"]:
        """Adds positions and applies the blocks, inside a compact method.

        Args:
          x: patches.
          draws: see `ImageEncoder`.
          windows: of each block, the side of its windows; 0 for attention to everything.
        """
        table = self.param(
            "pos_embed",
            nn.initializers.truncated_normal(0.02),
            (*self.config.table_size_hw, self.config.embed_dim),
            jnp.float32,
        )
        positions = resize_position_grid(jnp.asarray(table), (x.shape[1], x.shape[2]))
        x = x + positions.astype(self.dtype)[None]
        block_class = nn.remat(Block) if self.remat else Block
        for i, window in enumerate(windows):
            drop_path = self.drop_path * i / max(len(windows) - 1, 1)
            options = (self.dtype, self.attention, self.model_axis, drop_path)
            block = block_class(self.config, window, *options, name=f"blocks_{i}")
            x = block(x, None if draws is None else draws[:, i])
        return x


class ImageEncoder(TransformerEncoder):
    """Normalized images to embeddings at 1/16 of their resolution; its `config` is a ViT's."""

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width 3"],
        draws: Float[Array, "batch {self.config.depth} 2"] | None = None,
    ) -> ImageFeatures:
        """Encodes images whose height and width are multiples of the patch size.

        Args:
          images: normalized.
          draws: uniform numbers that decide which branches are left out for which image, in
            training with `drop_path`; None leaves out none.

        Raises:
          ValueError: they are not.
        """
        config = self.config
        patch = config.patch_size
        if images.shape[1] % patch or images.shape[2] % patch:
            raise ValueError(
                f"height and width must be multiples of the patch size {config.patch_size}, "
                f"not {images.shape[1]}x{images.shape[2]}"
            )
        x = PatchEmbed(config.embed_dim, patch, self.dtype, name="patch_embed")(images)
        windows = [
            0 if i in config.global_attention_indexes else config.window_size
            for i in range(config.depth)
        ]
        x = self.transform(x, draws, windows)
        return ImageFeatures(Neck(self.features, self.dtype, name="neck")(x))
