"""Attention without relative positions: within windows and grids, and to memories of past frames.

Logits are accumulated and softmax is taken in float32.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Queries that are handled at once where all of them would make too many logits.
QUERY_BLOCK = 512
# Above this many logits of one head they are not made all at once.
MOST_LOGITS = 1 << 21
# What stands for minus infinity: differences of two of them are numbers.
_NEVER = -1e30


def dense_attention(
    query: Float[Array, "batch q head channel"],
    key: Float[Array, "batch k head channel"],
    value: Float[Array, "batch k head value"],
) -> Float[Array, "batch q head value"]:
    """Softmax attention of every query to every key; the scale is 1 / sqrt(channel)."""
    query = query * query.shape[-1] ** -0.5
    if query.shape[1] * key.shape[1] <= MOST_LOGITS:
        return _dense(query, key, value)

    def one_head(args):
        q, k, v = args
        return _in_blocks(lambda block: _dense_head(block, k, v), q)

    batch, count, head = query.shape[:3]
    q, k, v = (x.swapaxes(1, 2).reshape(-1, x.shape[1], x.shape[-1]) for x in (query, key, value))
    out = jax.lax.map(one_head, (q, k, v))
    return out.reshape(batch, head, count, -1).swapaxes(1, 2)


def self_attention(
    query: Float[Array, "q channel"],
    key: Float[Array, "k channel"],
    value: Float[Array, "k value"],
    present: Bool[Array, " k"] | None = None,
) -> Float[Array, "q value"]:
    """Attention with one head, whose memory is that of a block of queries, backward too.

    Args:
      query: the scale is 1 / sqrt(channel).
      key: all of them.
      value: likewise.
      present: which keys count; all where it is left out.
    """
    query = query * query.shape[-1] ** -0.5
    return _in_blocks(jax.checkpoint(lambda block: _dense_head(block, key, value, present)), query)


def memory_attention(
    query: Float[Array, "q channel"],
    frames: Any,
    key_and_value: Callable[[Any], tuple[Array, Array]],
    present: Bool[Array, " frame"],
    extra_key: Float[Array, "extra channel"],
    extra_value: Float[Array, "extra value"],
    extra_present: Bool[Array, " extra"],
    *,
    differentiable: bool = False,
) -> Float[Array, "q value"]:
    """Attention of a frame's tokens to those of past frames and to a few more, with one head.

    Unless it is to be differentiated, keys are made for one frame at a time, and time is that of
    the frames that are present.

    Args:
      query: of the frame; the scale is 1 / sqrt(channel).
      frames: what is known of past frames: a pytree with an axis of frames.
      key_and_value: makes [k, channel] and [k, value] of one frame's part of that.
      present: which frames count.
      extra_key: of tokens that belong to no frame's grid.
      extra_value: likewise.
      extra_present: which of these count.
      differentiable: whether gradients are wanted (in reverse; a loop whose length is not known
        when it is compiled has none).
    """
    if differentiable:
        key, value = jax.vmap(key_and_value)(frames)
        keys = jnp.concatenate([key.reshape(-1, key.shape[-1]), extra_key])
        values = jnp.concatenate([value.reshape(-1, value.shape[-1]), extra_value])
        counts = jnp.concatenate([jnp.repeat(present, value.shape[1]), extra_present])
        return self_attention(query, keys, values, counts)
    blocks = _blocks(query * query.shape[-1] ** -0.5)

    def look(state, key, value, present=None):
        return jax.lax.map(
            lambda block: _accumulate(block[0], key, value, present, block[1]), (blocks, state)
        )

    start = jax.lax.map(lambda block: _nothing(block, extra_value), blocks)
    start = look(start, extra_key, extra_value, extra_present)
    # Those that are there come first, in their order.
    order = jnp.argsort(~present, stable=True)

    def one_frame(i, state):
        return look(state, *key_and_value(jax.tree.map(lambda x: x[order[i]], frames)))

    _, total, out = jax.lax.fori_loop(0, present.sum(), one_frame, start)
    out = (out / total[..., None]).astype(extra_value.dtype)
    return out.reshape(-1, out.shape[-1])[: query.shape[0]]


def _dense(query, key, value):
    f32 = jnp.float32
    logits = jnp.einsum("bqnd,bknd->bnqk", query, key, preferred_element_type=f32)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    out = jnp.einsum("bnqk,bknd->bqnd", weights, value, preferred_element_type=f32)
    return out.astype(value.dtype)


def _dense_head(query, key, value, present=None):
    """Of one head: [q, channel], [k, channel], [k, value]."""
    logits = jnp.matmul(query, key.T, preferred_element_type=jnp.float32)
    if present is not None:
        logits = jnp.where(present, logits, _NEVER)
    weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True)))
    # Divided behind the product, which has fewer numbers than the weights.
    out = jnp.matmul(weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
    return (out / weights.sum(axis=-1, keepdims=True)).astype(value.dtype)


def _blocks(query):
    """[q, channel] as [blocks, block, channel], zeros after the last."""
    count = query.shape[0]
    block = min(QUERY_BLOCK, count)
    blocks = -(-count // block)
    padded = jnp.pad(query, ((0, blocks * block - count), (0, 0)))
    return padded.reshape(blocks, block, -1)


def _in_blocks(function, query):
    """Applies a function of [block, channel] to [q, channel], a block of rows at a time."""
    out = jax.lax.map(function, _blocks(query))
    return out.reshape(-1, out.shape[-1])[: query.shape[0]]


def _nothing(query, value):
    """The state of an attention that has seen no key: largest logit, sum of weights, output."""
    rows = query.shape[0]
    f32 = jnp.float32
    return (
        jnp.full((rows,), _NEVER, f32),
        jnp.zeros((rows,), f32),
        jnp.zeros((rows, value.shape[-1]), f32),
    )


def _accumulate(query, key, value, present, state):
    """The state after some more keys (online softmax)."""
    largest, total, out = state
    logits = jnp.matmul(query, key.T, preferred_element_type=jnp.float32)
    if present is not None:
        logits = jnp.where(present, logits, _NEVER)
    grown = jnp.maximum(largest, logits.max(axis=-1))
    weights = jnp.exp(logits - grown[:, None])
    if present is not None:
        weights = jnp.where(present, weights, 0.0)
    kept = jnp.exp(largest - grown)
    added = jnp.matmul(weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
    return grown, total * kept + weights.sum(axis=-1), out * kept[:, None] + added
