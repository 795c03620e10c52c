"""Memory attention: a frame's tokens look at memories of past frames (SAM 2 section C.1)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from sam_jax.models.layers import (
    TRANSFORMER_EPSILON,
    Dense,
    LayerNorm,
    Projection,
    add_to_channels,
)
from sam_jax.models.sam2.config import Sam2Config
from sam_jax.models.sam2.positions import grid_positions
from sam_jax.models.sam2.values import Memories
from sam_jax.ops.dense_attention import memory_attention, self_attention
from sam_jax.ops.platform import traced_platform
from sam_jax.ops.rotary import axial_angles, in_halves, rotate

# How much of its positions a frame's tokens get.
POSITION_WEIGHT = 0.1


class _Projections(nn.Module):
    """The linear layers of an attention with one head.

    Queries and keys come out as `rotate` wants them: their kernels are brought into that order.
    """

    features: int
    key_channels: int
    dtype: Any = jnp.float32

    def setup(self):
        self.q_proj = Projection(self.features, self.features)
        self.k_proj = Projection(self.key_channels, self.features)
        self.v_proj = Dense(self.features, self.dtype)
        self.out_proj = Dense(self.features, self.dtype)

    def to_queries(self, x: Float[Array, "tokens C"]) -> Float[Array, "tokens C"]:
        return _project(x, *self._halves(self.q_proj))

    def to_keys(self) -> Callable[[Array], Array]:
        """A function of arrays alone, which may be called within loops."""
        kernel, bias = self._halves(self.k_proj)
        return lambda x: _project(x, kernel, bias)

    def _halves(self, projection: Projection) -> tuple[Array, Array]:
        kernel, bias = projection()
        return in_halves(kernel).astype(self.dtype), in_halves(bias).astype(self.dtype)


def _project(x: Array, kernel: Array, bias: Array) -> Array:
    out = jnp.matmul(x, kernel, preferred_element_type=jnp.float32)
    return add_to_channels(out.astype(x.dtype), bias)


class SelfAttention(_Projections):
    """Attention of a frame's tokens to each other, with rotary positions."""

    def __call__(
        self, x: Float[Array, "tokens C"], angles: Float[np.ndarray, "tokens half"]
    ) -> Float[Array, "tokens C"]:
        """Attends within one frame."""
        query, key = rotate(self.to_queries(x), angles), rotate(self.to_keys()(x), angles)
        return self.out_proj(self_attention(query, key, self.v_proj(x)))


class CrossAttention(_Projections):
    """Attention of a frame's tokens to memories; pointers have no place in the grid."""

    differentiable: bool = False

    def __call__(
        self,
        x: Float[Array, "tokens C"],
        memories: Memories,
        positions: Float[np.ndarray, "tokens M"],
        angles: Float[np.ndarray, "tokens half"],
    ) -> Float[Array, "tokens C"]:
        """Attends to the memories of one object."""
        to_keys = self.to_keys()

        def key_and_value(frame):
            features, time = frame
            value = features.reshape(-1, features.shape[-1]).astype(self.dtype)
            where = add_to_channels(jnp.asarray(positions), time).astype(self.dtype)
            return rotate(to_keys(value + where), angles), value

        pointers = memories.pointers.astype(self.dtype)
        when = memories.pointer_times.astype(self.dtype)
        # Weights sum to one: memories may be averaged before they are projected, in a quarter of
        # the channels.
        out = memory_attention(
            rotate(self.to_queries(x), angles),
            (memories.features, memories.times),
            key_and_value,
            memories.present,
            to_keys(pointers + when),
            pointers,
            memories.pointer_present,
            differentiable=self.differentiable,
        )
        return self.out_proj(self.v_proj(out))


class MemoryAttentionLayer(nn.Module):
    """Self-attention, attention to memories, MLP; pre-norm."""

    config: Sam2Config
    dtype: Any = jnp.float32
    differentiable: bool = False

    def setup(self):
        """The layer's parts."""
        config = self.config
        options = {"epsilon": TRANSFORMER_EPSILON, "dtype": self.dtype}
        dim, memory_dim = config.embed_dim, config.memory_dim
        self.self_attn = SelfAttention(dim, dim, self.dtype)
        self.cross_attn_image = CrossAttention(dim, memory_dim, self.dtype, self.differentiable)
        self.linear1 = Dense(config.memory_mlp_dim, self.dtype)
        self.linear2 = Dense(config.embed_dim, self.dtype)
        self.norm1, self.norm2, self.norm3 = (LayerNorm(**options) for _ in range(3))

    def among_themselves(
        self, x: Float[Array, "tokens C"], angles: Float[np.ndarray, "tokens half"]
    ) -> Float[Array, "tokens C"]:
        """The first part, which sees no memory."""
        return x + self.self_attn(self.norm1(x), angles)

    def to_memories(
        self,
        x: Float[Array, "tokens C"],
        memories: Memories,
        positions: Float[np.ndarray, "tokens M"],
        angles: Float[np.ndarray, "tokens half"],
    ) -> Float[Array, "tokens C"]:
        """The other two."""
        x = x + self.cross_attn_image(self.norm2(x), memories, positions, angles)
        return x + self.linear2(nn.relu(self.linear1(self.norm3(x))))


class MemoryAttention(nn.Module):
    """Image embeddings conditioned on the memories of objects.

    Attributes:
      config: of the model.
      dtype: compute type.
      differentiable: whether gradients are wanted, see `ops.dense_attention.memory_attention`.
    """

    config: Sam2Config
    dtype: Any = jnp.float32
    differentiable: bool = False

    def setup(self):
        """The layers."""
        self.layers = [
            MemoryAttentionLayer(self.config, self.dtype, self.differentiable)
            for _ in range(self.config.memory_attention_depth)
        ]
        self.norm = LayerNorm(epsilon=TRANSFORMER_EPSILON, dtype=self.dtype)

    def shared(self, embedding: Float[Array, "h w C"]) -> Float[Array, "tokens C"]:
        """What all objects of a frame have in common: all before the first look at a memory."""
        height, width, dim = embedding.shape
        positions = jnp.asarray(grid_positions((height, width), dim))
        x = embedding.astype(self.dtype) + (POSITION_WEIGHT * positions).astype(self.dtype)
        angles = axial_angles((height, width), dim)
        return self.layers[0].among_themselves(x.reshape(-1, dim), angles)

    def of_object(
        self, shared: Float[Array, "tokens C"], memories: Memories
    ) -> Float[Array, "h w C"]:
        """The embedding for one object, whose memories have no batch axis.

        Args:
          shared: from `shared`.
          memories: of the object; at least one frame or pointer is present.
        """
        height, width, channel = memories.features.shape[1:]
        positions = grid_positions((height, width), channel).reshape(-1, channel)
        angles = axial_angles((height, width), self.config.embed_dim)
        x = shared
        for i, layer in enumerate(self.layers):
            x = layer.among_themselves(x, angles) if i else x
            x = layer.to_memories(x, memories, positions, angles)
        return self.norm(x).reshape(height, width, -1)

    def __call__(
        self, embedding: Float[Array, "h w C"], memories: Memories
    ) -> Float[Array, "objects h w C"]:
        """Conditions one frame on the memories of each object.

        Args:
          embedding: of the frame.
          memories: with an axis of objects.
        """
        shared = self.shared(embedding)

        def one(memories):
            return self.of_object(shared, memories)

        if self.is_initializing():
            return one(jax.tree.map(lambda x: x[0], memories))[None]
        # A CPU keeps what one object needs in its cache.
        if traced_platform() == "cpu" and not self.differentiable:
            return jax.lax.map(one, memories)
        return jax.vmap(one)(memories)
