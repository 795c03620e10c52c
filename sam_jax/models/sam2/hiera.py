"""The image encoder's trunk: Hiera, a ViT in stages (Ryali et al. 2023, as released with SAM 2)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from sam_jax.models.layers import Dense, LayerNorm, MLPBlock
from sam_jax.models.sam2.config import HieraConfig
from sam_jax.ops.dense_attention import dense_attention
from sam_jax.ops.platform import traced_platform
from sam_jax.ops.resample import resize_position_grid
from sam_jax.ops.windows import join_windows, partition_windows

MLP_RATIO = 4
# How many tokens a CPU takes through a block at a time: their hidden channels fit its caches.
GROUP_TOKENS = 2048


def halve(x: Float[Array, "batch height width channel"]) -> Float[Array, "batch h w channel"]:
    """The largest of each 2x2 block."""
    batch, height, width, channel = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channel).max(axis=(2, 4))


def in_groups(
    function: Callable[[Array], Array], x: Float[Array, "grids height width channel"]
) -> Float[Array, "grids h w features"]:
    """Applies a function of grids, each by itself, to a few of them at a time.

    What they need then stays in a CPU's cache, however wide a block's hidden channels are.
    """
    count = len(x)
    most = max(1, GROUP_TOKENS // (x.shape[1] * x.shape[2]))
    group = max(size for size in range(1, min(count, most) + 1) if count % size == 0)
    if group == count:
        return function(x)
    out = jax.lax.map(function, x.reshape(count // group, group, *x.shape[1:]))
    return out.reshape(count, *out.shape[2:])


class MultiScaleAttention(nn.Module):
    """Self-attention of each grid; at the start of a stage, queries are pooled.

    Attributes:
      features: channels of the output.
      num_heads: they share them.
      pool: whether queries, and so the output, have half the resolution.
      dtype: compute type.
    """

    features: int
    num_heads: int
    pool: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "grids height width channel"]
    ) -> Float[Array, "grids h w {self.features}"]:
        """Attends within each grid."""
        qkv = Dense(3 * self.features, self.dtype, name="qkv")(x)
        q, k, v = jnp.split(qkv, 3, axis=-1)
        q = halve(q) if self.pool else q

        def heads(x):
            return x.reshape(x.shape[0], -1, self.num_heads, self.features // self.num_heads)

        out = dense_attention(heads(q), heads(k), heads(v)).reshape(q.shape)
        return Dense(self.features, self.dtype, name="proj")(out)


class MultiScaleBlock(nn.Module):
    """A pre-norm transformer block, which may start a stage: then it halves the resolution.

    Attributes:
      features: channels of the output.
      num_heads: they share them.
      window: tokens along a window before pooling; 0 attends over the whole grid.
      pool: see `MultiScaleAttention`.
      dtype: compute type.
    """

    features: int
    num_heads: int
    window: int
    pool: bool
    dtype: Any = jnp.float32

    def setup(self):
        """The block's parts."""
        self.norm1, self.norm2 = (LayerNorm(dtype=self.dtype) for _ in range(2))
        self.attn = MultiScaleAttention(self.features, self.num_heads, self.pool, self.dtype)
        if self.pool:
            self.proj = Dense(self.features, self.dtype)
        self.mlp = MLPBlock(MLP_RATIO * self.features, dtype=self.dtype)

    def __call__(
        self, x: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch h w {self.features}"]:
        """Attention and MLP, each with its residual."""
        height, width = x.shape[1:3]
        factor = 2 if self.pool else 1
        size_hw, window = (height // factor, width // factor), self.window
        in_turn = traced_platform() == "cpu" and not self.is_initializing()
        if in_turn and window and height % window == 0 and width % window == 0:
            # Nothing in the block sees beyond a window.
            return join_windows(in_groups(self._whole, partition_windows(x, window)), size_hw)
        normed = self.norm1(x)
        attend = partial(in_groups, self.attn) if in_turn else self.attn
        if window:
            # The padding takes part, as zeros before the projection.
            out = join_windows(attend(partition_windows(normed, window)), size_hw)
        else:
            out = self.attn(normed)
        x = self._shortcut(x, normed) + out
        if not in_turn:
            return self._refined(x)
        rows = x.reshape(-1, 1, *x.shape[2:])
        return in_groups(self._refined, rows).reshape(x.shape)

    def _shortcut(self, x: Array, normed: Array) -> Array:
        return halve(self.proj(normed)) if self.pool else x

    def _refined(self, x: Array) -> Array:
        return x + self.mlp(self.norm2(x))

    def _whole(self, x: Array) -> Array:
        normed = self.norm1(x)
        return self._refined(self._shortcut(x, normed) + self.attn(normed))


class Hiera(nn.Module):
    """Normalized images to the grids of four stages, at 1/4 to 1/32 of their resolution.

    Attributes:
      config: its stages.
      dtype: compute type; parameters stay float32.
      remat: recompute each block in the backward pass instead of keeping its activations.
    """

    config: HieraConfig
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width 3"]) -> tuple[Array, ...]:
        """Encodes images whose height and width are multiples of 32.

        Returns:
          For each stage, [batch, h, w, channel].
        """
        config = self.config
        dim, heads = config.embed_dim, config.num_heads
        embed = nn.Conv(dim, (7, 7), (4, 4), ((3, 3), (3, 3)), dtype=self.dtype, name="patch_embed")
        x = embed(images.astype(self.dtype))
        x = x + self._positions((x.shape[1], x.shape[2])).astype(self.dtype)[None]
        block_class = nn.remat(MultiScaleBlock) if self.remat else MultiScaleBlock
        stages, index = [], 0
        for stage, blocks in enumerate(config.stages):
            for i in range(blocks):
                starts = i == 0 and stage > 0
                # A stage's first block still has the windows of the stage before.
                window = config.window_sizes[stage - 1 if starts else stage]
                window = 0 if index in config.global_attention_indexes else window
                if starts:
                    dim, heads = 2 * dim, 2 * heads
                options = (dim, heads, window, starts, self.dtype)
                x = block_class(*options, name=f"blocks_{index}")(x)
                index += 1
            stages.append(x)
        return tuple(stages)

    def _positions(self, grid_hw: tuple[int, int]) -> Float[Array, "height width channel"]:
        """A grid resized to the image's, and a window's positions, tiled."""
        config = self.config
        init = nn.initializers.truncated_normal(0.02)
        side, window = config.background_size, config.window_sizes[0]
        background = self.param("pos_embed", init, (side, side, config.embed_dim), jnp.float32)
        tile = self.param("pos_embed_window", init, (window, window, config.embed_dim), jnp.float32)
        repeats = (grid_hw[0] // window, grid_hw[1] // window, 1)
        background = resize_position_grid(jnp.asarray(background), grid_hw)
        return background + jnp.tile(jnp.asarray(tile), repeats)
