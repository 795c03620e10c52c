"""Attention: over a token grid with decomposed relative positions, and between prompts and image.

Letters in einsums: b batch, p prompt, n head, h w query row and column, y x key row and column,
q query, k key, d channel of a head. Logits are accumulated and softmax is taken in float32.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sam_jax.ops.platform import traced_platform
from sam_jax.ops.resample import resize_position_line

# Queries that the chunked version handles at once: large enough for one matrix product to run at
# full speed, small enough that a block of logits over 4,096 keys stays at 4 MB.
QUERY_BLOCK = 256
# Below this many tokens the whole matrix of logits is small, and one batched product is faster.
CHUNKED_FROM_TOKENS = 1024

# The formula as it is; a block of queries at a time; a grid at a time; kernels for TPUs and GPUs.
IMPLEMENTATIONS = ("reference", "chunked", "mapped", "tpu", "gpu")


def chosen_implementation(height: int, width: int, channel: int) -> str:
    """The fastest implementation for a grid and a head's channels on `traced_platform`."""
    platform = traced_platform()
    if platform == "tpu":
        # Pallas takes half a second to import, for nothing on other platforms.
        from sam_jax.ops.attention_tpu import supports

        if supports(height, width, channel):
            return "tpu"
    if platform == "gpu":
        from sam_jax.ops import attention_gpu

        if attention_gpu.supports(height, width, channel) and attention_gpu.runs_here():
            return "gpu"
    if height * width >= CHUNKED_FROM_TOKENS:
        return "chunked"
    return "mapped" if platform == "cpu" else "reference"


def relative_positions(
    table: Float[Array, "length channel"], size: int
) -> Float[Array, "{size} {size} channel"]:
    """The row of a relative position table for every (query, key) along one axis.

    Args:
      table: one row per offset query - key, from -(size - 1) up; a table made for another size is
        resampled linearly first.
      size: tokens along the axis.
    """
    table = resize_position_line(table, 2 * size - 1)
    offset = jnp.arange(size)[:, None] - jnp.arange(size)[None, :] + size - 1
    return table[offset]


def grid_attention(
    qkv: Float[Array, "batch height width 3 head channel"],
    relative_h: Float[Array, "rows rows lanes"],
    relative_w: Float[Array, "columns columns lanes"],
    *,
    implementation: str | None = None,
) -> Float[Array, "batch height width head channel"]:
    """Self-attention over a grid with decomposed relative positions (MViTv2; SAM section A.5).

    The logit of a query and a key is their scaled dot product plus the unscaled query's dot product
    with one row of each table.

    Args:
      qkv: unscaled queries, keys and values, as one projection makes them; the scale is
        1 / sqrt(channel).
      relative_h: from `relative_positions`, for rows: [height, height, channel].
      relative_w: from `relative_positions`, for columns: [width, width, channel].
      implementation: one of `IMPLEMENTATIONS`; None is `chosen_implementation`. "tpu" and "gpu" run
        on these alone, and have gradients but no forward-mode derivatives (`jax.jvp`).

    Raises:
      ValueError: the implementation is unknown or does not take such a grid, or a table is of
        another size than the grid.
    """
    height, width, channel = qkv.shape[1], qkv.shape[2], qkv.shape[-1]
    for table, size in ((relative_h, height), (relative_w, width)):
        if table.shape != (size, size, channel):
            raise ValueError(
                f"relative positions of a {height}x{width} grid and {channel} channels have shape "
                f"{(size, size, channel)}, not {table.shape}"
            )
    if implementation is None:
        implementation = chosen_implementation(height, width, channel)
    if implementation == "reference":
        return _reference(qkv, relative_h, relative_w)
    if implementation == "chunked":
        return _chunked(qkv, relative_h, relative_w)
    if implementation == "mapped":
        return _mapped(qkv, relative_h, relative_w)
    if implementation == "tpu":
        from sam_jax.ops.attention_tpu import grid_attention_tpu

        return grid_attention_tpu(qkv, relative_h, relative_w)
    if implementation == "gpu":
        from sam_jax.ops.attention_gpu import grid_attention_gpu

        return grid_attention_gpu(qkv, relative_h, relative_w)
    raise ValueError(f"implementation {implementation!r} is none of {IMPLEMENTATIONS}")


def _reference(qkv, relative_h, relative_w):
    f32 = jnp.float32
    query, key, value = jnp.moveaxis(qkv, (3, 4), (0, 2))
    scale = query.shape[-1] ** -0.5
    logits = jnp.einsum("bnhwd,bnyxd->bnhwyx", query * scale, key, preferred_element_type=f32)
    bias_h = jnp.einsum("bnhwd,hyd->bnhwy", query, relative_h, preferred_element_type=f32)
    bias_w = jnp.einsum("bnhwd,wxd->bnhwx", query, relative_w, preferred_element_type=f32)
    logits = logits + bias_h[..., :, None] + bias_w[..., None, :]
    weights = jax.nn.softmax(logits, axis=(-2, -1)).astype(value.dtype)
    out = jnp.einsum("bnhwyx,bnyxd->bhwnd", weights, value, preferred_element_type=f32)
    return out.astype(value.dtype)


def _mapped(qkv, relative_h, relative_w):
    """The reference on one grid at a time: its logits stay in a CPU's cache."""
    return jax.lax.map(lambda one: _reference(one[None], relative_h, relative_w)[0], qkv)


def _chunked(qkv, relative_h, relative_w):
    """The same, one head and one block of queries at a time: memory is linear in the tokens."""
    f32 = jnp.float32
    query, key, value = jnp.moveaxis(qkv, (3, 4), (0, 2))
    batch, head, height, width, channel = query.shape
    tokens = height * width
    bias_h = jnp.einsum("bnhwd,hyd->bnhwy", query, relative_h, preferred_element_type=f32)
    bias_w = jnp.einsum("bnhwd,wxd->bnhwx", query, relative_w, preferred_element_type=f32)
    block = min(QUERY_BLOCK, tokens)
    blocks = -(-tokens // block)

    def in_blocks(x):
        x = x.reshape(batch * head, tokens, x.shape[-1])
        x = jnp.pad(x, ((0, 0), (0, blocks * block - tokens), (0, 0)))
        return x.reshape(batch * head, blocks, block, x.shape[-1])

    # Recomputed in the backward pass: keeping every block's weights would bring back the square.
    @jax.checkpoint
    def one_block(k, v, q, h, w):
        logits = jnp.matmul(q, k.T, preferred_element_type=f32)
        logits = logits.reshape(block, height, width) + h[:, :, None] + w[:, None, :]
        logits = logits.reshape(block, tokens)
        weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True)))
        # Divided behind the product, which has fewer numbers than the weights.
        out = jnp.matmul(weights.astype(v.dtype), v, preferred_element_type=f32)
        return (out / weights.sum(axis=-1, keepdims=True)).astype(v.dtype)

    def one_head(args):
        k, v, queries = args
        return jax.lax.map(lambda block_args: one_block(k, v, *block_args), queries)

    queries = tuple(in_blocks(x) for x in (query * channel**-0.5, bias_h, bias_w))
    flat = (batch * head, tokens, channel)
    out = jax.lax.map(one_head, (key.reshape(flat), value.reshape(flat), queries))
    out = out.reshape(batch * head, blocks * block, channel)[:, :tokens]
    return jnp.moveaxis(out.reshape(query.shape), 1, 3)


def prompt_attention(
    query: Float[Array, "batch query_prompts q head channel"],
    key: Float[Array, "batch key_prompts k head channel"],
    value: Float[Array, "batch key_prompts k head channel"],
    key_mask: Bool[Array, "batch key_prompts k"] | None = None,
) -> Float[Array, "batch prompts q head channel"]:
    """Attention within each prompt, where either side may be shared by all prompts of an image.

    A side that is shared has a prompt axis of length 1 and is never copied: queries of all prompts
    over shared keys are one longer list of queries, and shared queries are read by every prompt.

    Args:
      query: queries.
      key: keys.
      value: values.
      key_mask: False for keys that must not be seen; every prompt must keep at least one.
    """
    prompts = max(query.shape[1], key.shape[1])
    length = query.shape[2]
    if key.shape[1] == 1 and prompts > 1:
        query = query.reshape(query.shape[0], 1, prompts * length, *query.shape[3:])
    query = query * query.shape[-1] ** -0.5
    f32 = jnp.float32
    if query.shape[1] == 1 and key.shape[1] > 1:
        logits = jnp.einsum("bqnd,bpknd->bpnqk", query[:, 0], key, preferred_element_type=f32)
    else:
        logits = jnp.einsum("bpqnd,bpknd->bpnqk", query, key, preferred_element_type=f32)
    if key_mask is not None:
        logits = jnp.where(key_mask[:, :, None, None, :], logits, -jnp.inf)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    out = jnp.einsum("bpnqk,bpknd->bpqnd", weights, value, preferred_element_type=f32)
    out = out.astype(value.dtype)
    return out.reshape(out.shape[0], prompts, length, *out.shape[3:])
