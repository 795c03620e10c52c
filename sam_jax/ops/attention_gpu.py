"""Grid attention with decomposed relative positions as one GPU kernel (Pallas, lowered to Triton).

Flash attention: a block of queries walks over the keys, with a running maximum and sum, so that
logits stay in registers. Blocks of keys are whole rows of the grid, padded to a power of two.
The bias then needs no matrix: what a query has for every key column is the same in each block, and
is what the product q.k starts from; what it has for a key row is one number, or a few.

Why not cuDNN's attention: it takes no float32, and the bias as a matrix (0.5 GB for one image's 16
heads of ViT-H), or in channels beside the head's own: 192 of them over a 64x64 grid, which it has
from Hopper on and multiplies in full.

JAX has deprecated Triton as a target of Pallas since 0.11, without a replacement for GPUs before
Hopper. Where JAX has it no more, `supports` says no and the other implementations take over.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

try:
    from jax.experimental.pallas import triton as pltriton
except ImportError:
    pltriton = None  # type: ignore[assignment]

# Triton multiplies tiles of at least 16x16.
MIN_TILE = 16
# Keys of a step, and so the widest grid.
KEY_BLOCK = 64
MAX_CHANNELS = 128
# Bytes of a key up to which the next step's keys and values are fetched during this one. Beyond,
# both would not fit the 99 KB of shared memory of a GeForce; an A100 has 163 KB, an H100 227 KB.
STAGED_BYTES = 320
# Below this many tokens a block of 32 queries and 4 warps: few are idle where a window of 196 ends,
# and several blocks share a multiprocessor. Above, 128 queries (64 in float32) and 8 warps: each
# key that is fetched meets more queries, and accumulators still fit the registers.
SMALL_GRID = 1024
# The logit of keys that only fill a block: far below any other, and twice it is finite.
MASKED = -1e30
LOG2_E = math.log2(math.e)


class _Layout(NamedTuple):
    """How a call is laid out; static.

    A step multiplies `query_block` queries with `key_rows` rows of `key_columns` keys. Channels are
    taken in `pieces`, (first, length) with lengths that are powers of two: 80 as 64 and 16.
    """

    size_hw: tuple[int, int]
    channel: int
    key_rows: int
    key_columns: int
    query_block: int
    pieces: tuple[tuple[int, int], ...]
    warps: int
    stages: int

    @property
    def tokens(self) -> int:
        return self.size_hw[0] * self.size_hw[1]

    @property
    def keys(self) -> int:
        """Keys in a block, with those that only fill it."""
        return self.key_rows * self.key_columns


def supports(height: int, width: int, channel: int) -> bool:
    """Whether the kernel takes a grid of this size with heads of this many channels."""
    return pltriton is not None and width <= KEY_BLOCK and channel <= MAX_CHANNELS


def runs_here() -> bool:
    """Whether the default device is one that the kernel is meant for: NVIDIA's, since Ampere.

    Pallas lowers to AMD's devices too, where nobody has tried the kernel yet: force it there.
    """
    capability = getattr(jax.local_devices()[0], "compute_capability", "")
    major = str(capability).split(".")[0]
    return major.isdecimal() and int(major) >= 8


def _pieces(channel: int) -> tuple[tuple[int, int], ...]:
    """The powers of two whose sum is the number of channels, rounded up to a tile."""
    left, first, pieces = -(-channel // MIN_TILE) * MIN_TILE, 0, []
    while left:
        length = 1 << (left.bit_length() - 1)
        pieces.append((first, length))
        first, left = first + length, left - length
    return tuple(pieces)


def _layout(height: int, width: int, channel: int, dtype: Any) -> _Layout:
    columns = max(MIN_TILE, 1 << (width - 1).bit_length())
    pieces = _pieces(channel)
    bytes_a_key = sum(length for _, length in pieces) * jnp.dtype(dtype).itemsize
    small = height * width < SMALL_GRID
    return _Layout(
        size_hw=(height, width),
        channel=channel,
        key_rows=KEY_BLOCK // columns,
        key_columns=columns,
        query_block=32 if small else 64 if jnp.dtype(dtype).itemsize > 2 else 128,
        pieces=pieces,
        warps=4 if small else 8,
        stages=2 if bytes_a_key <= STAGED_BYTES else 1,
    )


def _tile(ref, tokens, piece, layout, inside):
    """A view of `ref` [tokens, channel], and where it is inside the grid and the channels."""
    first, length = piece
    shape = tokens.shape[0], length
    channels = first + jnp.arange(length, dtype=jnp.int32)
    mask = jnp.broadcast_to(inside[:, None], shape)
    if first + length > layout.channel:
        mask &= (channels < layout.channel)[None, :]
    indices = jnp.broadcast_to(tokens[:, None], shape), jnp.broadcast_to(channels[None, :], shape)
    return ref.at[indices], mask


def _load(*args):
    view, mask = _tile(*args)
    return pltriton.load(view, mask=mask, other=0.0)


def _kernel(query_ref, key_ref, value_ref, row_ref, column_ref, out_ref, *, layout):
    f32 = jnp.float32
    height, width = layout.size_hw
    dtype = query_ref.dtype
    queries = pl.program_id(0) * layout.query_block
    queries += jnp.arange(layout.query_block, dtype=jnp.int32)
    asked = queries < layout.tokens
    query = [_load(query_ref, queries, piece, layout, asked) for piece in layout.pieces]
    # The softmax is taken in powers of two, for which the hardware has an instruction.
    scale = layout.channel**-0.5 * LOG2_E
    query = [(part.astype(f32) * scale).astype(dtype) for part in query]

    key = jnp.arange(layout.keys, dtype=jnp.int32)
    row_in_block, column = key // layout.key_columns, key % layout.key_columns
    tile = (layout.query_block, layout.keys)

    def bias_tile(ref, positions, size):
        """Each query's bias for each key's position along an axis; what lies beyond it masked."""
        inside = jnp.broadcast_to((positions < size)[None, :], tile)
        indices = (
            jnp.broadcast_to(positions[None, :], tile),
            jnp.broadcast_to(queries[:, None], tile),
        )
        bias = pltriton.load(ref.at[indices], mask=inside & asked[:, None], other=0.0)
        return jnp.where(inside, bias * LOG2_E, MASKED)

    column_bias = bias_tile(column_ref, column, width)

    def step(i, carry):
        top, total, out = carry
        rows = i * layout.key_rows + row_in_block
        tokens = rows * width + column
        there = (rows < height) & (column < width)
        lift: Any = 0.0
        logits = column_bias
        if layout.key_rows > 1:
            logits += bias_tile(row_ref, rows, height)
        else:
            # One number for all of a query's logits is cheaper added to their maximum.
            at_row = row_ref.at[jnp.full_like(queries, i), queries]
            lift = pltriton.load(at_row, mask=asked, other=0.0) * LOG2_E
        for part, piece in zip(query, layout.pieces, strict=True):
            keys = _load(key_ref, tokens, piece, layout, there)
            logits = jnp.dot(part, keys.T, preferred_element_type=f32) + logits
        largest = jnp.maximum(top, jnp.max(logits, axis=1) + lift)
        weights = jnp.exp2(logits - (largest - lift)[:, None])
        shrink = jnp.exp2(top - largest)
        total = total * shrink + jnp.sum(weights, axis=1)
        weights = weights.astype(dtype)
        values = [_load(value_ref, tokens, piece, layout, there) for piece in layout.pieces]
        out = [
            jnp.dot(weights, value, preferred_element_type=f32) + part * shrink[:, None]
            for part, value in zip(out, values, strict=True)
        ]
        return largest, total, out

    start = (
        jnp.full(layout.query_block, -jnp.inf, f32),
        jnp.zeros(layout.query_block, f32),
        [jnp.zeros((layout.query_block, length), f32) for _, length in layout.pieces],
    )
    steps = -(-height // layout.key_rows)
    _, total, out = jax.lax.fori_loop(0, steps, step, start)
    for part, piece in zip(out, layout.pieces, strict=True):
        view, mask = _tile(out_ref, queries, piece, layout, asked)
        pltriton.store(view, (part / total[:, None]).astype(dtype), mask=mask)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attention(qkv, relative_h, relative_w, interpret):
    batch, height, width, _, heads, channel = qkv.shape
    layout = _layout(height, width, channel, qkv.dtype)
    query = qkv[..., 0, :, :]
    # By key position first: neighbors in memory are queries, as they are neighbors in a warp.
    # Tables on the left: on the right, XLA finds no tiling for the product in some encoders.
    f32 = jnp.float32
    row_bias = jnp.einsum("hyd,bhwnd->bnyhw", relative_h, query, preferred_element_type=f32)
    column_bias = jnp.einsum("wxd,bhwnd->bnxhw", relative_w, query, preferred_element_type=f32)
    biases = [bias.reshape(*bias.shape[:3], layout.tokens) for bias in (row_bias, column_bias)]
    grids = qkv.reshape(batch, layout.tokens, 3 * heads, channel)

    def part(index):
        return pl.BlockSpec(
            (None, layout.tokens, None, channel), lambda i, n, b: (b, 0, index * heads + n, 0)
        )

    def bias_spec(size):
        return pl.BlockSpec((None, None, size, layout.tokens), lambda i, n, b: (b, n, 0, 0))

    out = pl.pallas_call(
        functools.partial(_kernel, layout=layout),
        grid=(-(-layout.tokens // layout.query_block), heads, batch),
        in_specs=[part(0), part(1), part(2), bias_spec(height), bias_spec(width)],
        out_specs=part(0),
        out_shape=jax.ShapeDtypeStruct((batch, layout.tokens, heads, channel), qkv.dtype),
        compiler_params=pltriton.CompilerParams(num_warps=layout.warps, num_stages=layout.stages),
        interpret=interpret,
        name="grid_attention",
    )(grids, grids, grids, *biases)
    return out.reshape(batch, height, width, heads, channel)


def _forward(qkv, relative_h, relative_w, interpret):
    return _attention(qkv, relative_h, relative_w, interpret), (qkv, relative_h, relative_w)


def _backward(interpret, saved, gradient):
    """Recomputes through the chunked version: nothing quadratic is kept there either."""
    # Imported here because that module chooses among the implementations, this one included.
    from sam_jax.ops.attention import grid_attention

    chunked = functools.partial(grid_attention, implementation="chunked")
    return jax.vjp(chunked, *saved)[1](gradient)


_attention.defvjp(_forward, _backward)


def grid_attention_gpu(
    qkv: Float[Array, "batch height width 3 head channel"],
    relative_h: Float[Array, "height height channel"],
    relative_w: Float[Array, "width width channel"],
    *,
    interpret: bool = False,
) -> Float[Array, "batch height width head channel"]:
    """Self-attention over a grid, from the projection's output as it is and back in its order.

    Args:
      qkv: unscaled queries, keys and values.
      relative_h: from `ops.attention.relative_positions`, for rows.
      relative_w: the same for columns.
      interpret: run the kernel's steps in plain JAX, on any platform.

    Raises:
      ValueError: the kernel does not take this size, or JAX has no Triton (`supports`).
    """
    height, width, channel = qkv.shape[1], qkv.shape[2], qkv.shape[-1]
    if pltriton is None:
        raise ValueError("the GPU kernel needs a JAX whose Pallas lowers to Triton")
    if not supports(height, width, channel):
        raise ValueError(
            f"the GPU kernel takes grids up to {KEY_BLOCK} wide and heads up to {MAX_CHANNELS} "
            f"channels, not {height}x{width} and {channel}"
        )
    if not qkv.size:
        return qkv[..., 0, :, :]
    return _attention(qkv, relative_h, relative_w, interpret)
