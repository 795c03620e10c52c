"""Grid attention with decomposed relative positions as one TPU kernel (Pallas).

Logits never leave the chip's vector memory, and the bias costs next to nothing. A TPU multiplies
tiles of 128 channels whether a head has 64 or 128 of them; the idle channels of a query carry its
bias for every key row and column, those of a key the one-hot of its row and column. The product
that gives q.k then adds the bias to it. Where only the rows fit, the columns' bias is added
to the logits: it repeats with every row of keys.

Heads stay where the projection leaves them, side by side along the channels, so nothing is
transposed. Two heads of up to 64 channels share a block of 128 lanes; what belongs to the other
one meets zeros, or is where the bias rides.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

LANES = 128
# One-hots of a row and of a column must fit one block of lanes.
MAX_SIDE = 64
# Tokens of keys whose logits are made at once, of queries in a step of larger grids, and of small
# grids (windows) taken together: logits of a step stay below 4 MB, and the schedule is full.
KEY_BLOCK = 1024
QUERY_BLOCK = 512
GROUP_TOKENS = 1280
# Added to the logits of keys that only fill a block: far below any logit, and twice it is finite.
MASKED = -1e30
VMEM_BYTES = 64 * 2**20


class _Layout(NamedTuple):
    """How a call is laid out; static.

    `slot` lanes belong to a head. `bias` says where the bias goes: "inline" both axes ride in the
    head's idle lanes; "split" rows ride, columns are added; "apart" both ride in lanes of their
    own. A step takes `group` grids, `query_rows` of each, and walks over `key_rows` at a time.
    """

    size_hw: tuple[int, int]
    padded_hw: tuple[int, int]
    channel: int
    slot: int
    bias: str
    group: int
    query_rows: int
    key_rows: int

    @property
    def heads(self) -> int:
        """Heads in a block of lanes."""
        return LANES // self.slot

    @property
    def tokens(self) -> int:
        """Tokens of a padded grid."""
        return self.padded_hw[0] * self.padded_hw[1]

    @property
    def one_tile(self) -> bool:
        """Whether both heads' biases by offset fit one block of lanes side by side."""
        return self.heads == 1 or (self.bias == "inline" and max(self.padded_hw) <= self.slot // 2)

    def bias_lanes(self, head: int) -> tuple[int, int]:
        """The first lanes of a head's row and column bias."""
        if self.bias == "apart":
            return 0, MAX_SIDE
        idle = self.channel if self.heads == 1 else self.slot * (1 - head)
        return idle, idle + self.padded_hw[0] if self.bias == "inline" else 0


def supports(height: int, width: int, channel: int) -> bool:
    """Whether the kernel takes a grid of this size with heads of this many channels."""
    return max(height, width) <= MAX_SIDE and channel <= LANES


def padded_hw(height: int, width: int) -> tuple[int, int]:
    """The size to which the kernel pads a grid at the bottom and right; masked out of attention.

    A caller that makes its tokens in this size saves a copy.
    """
    columns = next(size for size in (16, 32, 64) if size >= width)
    rows = KEY_BLOCK // columns
    return (height if height <= rows else -(-height // rows) * rows), columns


def head_lanes(channel: int) -> int:
    """The channels to which the kernel pads a head; a caller may make its heads that wide."""
    return LANES // 2 if channel <= LANES // 2 else LANES


def _layout(batch: int, height: int, width: int, channel: int) -> _Layout:
    rows, columns = padded_hw(height, width)
    tokens = rows * columns
    small = tokens <= KEY_BLOCK
    slot = head_lanes(channel)
    idle = slot if slot < LANES else LANES - channel
    bias = "inline" if rows + columns <= idle else "split" if slot < LANES else "apart"
    fitting = [n for n in range(2, batch + 1) if batch % n == 0 and n * tokens <= GROUP_TOKENS]
    return _Layout(
        size_hw=(height, width),
        padded_hw=(rows, columns),
        channel=channel,
        slot=slot,
        bias=bias,
        group=max(fitting, default=1),
        query_rows=rows if small else QUERY_BLOCK // columns,
        key_rows=rows if small else KEY_BLOCK // columns,
    )


def _offset_table(relative: Any, axis: int, layout: _Layout) -> Any:
    """The matrix from all channels of a block to each head's bias by offset, key minus query.

    Offset 0 stands where the head's bias starts, negative ones before it, round the corner: turned
    right by the query's own position, the lanes hold the bias by key position.
    """
    size, channel = relative.shape[1:]
    table = jnp.concatenate([relative[:0:-1, 0], relative[0]]).T
    tiles = []
    for head in range(layout.heads):
        first = head * layout.slot
        sides = (first, LANES - first - channel), (0, LANES - (2 * size - 1))
        tiles.append(
            jnp.roll(jnp.pad(table, sides), layout.bias_lanes(head)[axis] - (size - 1), axis=1)
        )
    return sum(tiles[1:], tiles[0]) if layout.one_tile else jnp.concatenate(tiles, axis=1)


def _one_hot(layout: _Layout) -> np.ndarray:
    """For every key, ones where queries carry the bias of its row and of its column."""
    token = np.arange(layout.tokens)
    out = np.zeros((layout.tokens, LANES), np.float32)
    for head in range(layout.heads):
        row, column = layout.bias_lanes(head)
        out[token, row + token // layout.padded_hw[1]] = 1
        if layout.bias != "split":
            out[token, column + token % layout.padded_hw[1]] = 1
    return out


def _biases(query, table_h, table_w, first_row, layout):
    """For each head, the row and the column bias of a step's queries, in their lanes; else 0."""
    f32 = jnp.float32
    rows, columns = layout.query_rows, layout.padded_hw[1]
    lane = jax.lax.broadcasted_iota(jnp.int32, (1, LANES), 1)

    def turned(by_offset, axis):
        by_offset = by_offset.reshape(layout.group, rows, columns, LANES)
        first = 0 if axis else first_row
        return pltpu.roll(by_offset, first, 3, stride=1, stride_axis=1 + axis).reshape(-1, LANES)

    by_head: list[Any] = [[], []]
    for axis, table in enumerate((table_h, table_w)):
        by_offset = jnp.dot(query, table, preferred_element_type=f32)
        tiles = [turned(by_offset[:, i : i + LANES], axis) for i in range(0, table.shape[1], LANES)]
        for head in range(layout.heads):
            position = lane - layout.bias_lanes(head)[axis]
            bias = jnp.where(position < layout.size_hw[axis], tiles[head % len(tiles)], MASKED)
            inside = (position >= 0) & (position < layout.padded_hw[axis])
            by_head[head].append(jnp.where(inside, bias, 0.0))
    return by_head[: layout.heads]


def _kernel(query_ref, key_ref, value_ref, hot_ref, table_h_ref, table_w_ref, out_ref, *, layout):
    dtype = query_ref.dtype
    columns = layout.padded_hw[1]
    block, chunk = layout.query_rows * columns, layout.key_rows * columns
    lane = jax.lax.broadcasted_iota(jnp.int32, (1, LANES), 1)
    query = query_ref[...].reshape(-1, LANES)
    first_row = pl.program_id(2) * layout.query_rows
    biases = _biases(query, table_h_ref[...], table_w_ref[...], first_row, layout)
    scaled = query.astype(jnp.float32) * layout.channel**-0.5

    def attend(grid, head):
        """One head of one grid: softmax over chunks of keys, rescaled as its maximum grows."""
        here = slice(grid * block, (grid + 1) * block)
        row_bias, column_bias = (bias[here] for bias in biases[head])
        mine = (lane >= head * layout.slot) & (lane < head * layout.slot + layout.channel)
        riding = row_bias if layout.bias == "split" else row_bias + column_bias
        if layout.bias == "apart":
            own = jnp.concatenate([scaled[here].astype(dtype), riding.astype(dtype)], axis=1)
        else:
            own = jnp.where(mine, scaled[here], riding).astype(dtype)
        if layout.bias == "split":
            for shift in (16, 32, 64):
                if shift >= columns:
                    column_bias = column_bias + pltpu.roll(column_bias, shift, 1)
            column_bias = jnp.concatenate([column_bias] * (chunk // LANES), axis=1)
        top: Any = None
        total: Any = None
        out: Any = None
        for start in range(0, layout.tokens, chunk):
            key, hot = key_ref[grid, start : start + chunk], hot_ref[start : start + chunk]
            apart = layout.bias == "apart"
            key = jnp.concatenate([key, hot], axis=1) if apart else jnp.where(mine, key, hot)
            contract = (((1,), (1,)), ((), ()))
            logits = jax.lax.dot_general(own, key, contract, preferred_element_type=jnp.float32)
            if layout.bias == "split":
                logits = logits + column_bias
            largest = jnp.max(logits, axis=1, keepdims=True)
            largest = largest if top is None else jnp.maximum(top, largest)
            weights = jnp.exp(logits - largest)
            added = jnp.sum(weights, axis=1, keepdims=True)
            values = value_ref[grid, start : start + chunk]
            part = jnp.dot(weights.astype(dtype), values, preferred_element_type=jnp.float32)
            if top is not None:
                shrink = jnp.exp(top - largest)
                added, part = added + total * shrink, part + out * shrink
            top, total, out = largest, added, part
        return out / total

    for grid in range(layout.group):
        outs = [attend(grid, head) for head in range(layout.heads)]
        out = outs[0] if layout.heads == 1 else jnp.where(lane < layout.slot, outs[0], outs[1])
        out_ref[grid] = out.astype(dtype)


def _attend_blocks(qkv, relative_h, relative_w, layout, interpret):
    """The kernel over [batch, tokens, 3 x blocks x LANES]: queries, keys, values of all heads."""
    batch, tokens = qkv.shape[:2]
    blocks = qkv.shape[2] // (3 * LANES)
    tables = [
        _offset_table(relative, axis, layout).astype(qkv.dtype)
        for axis, relative in enumerate((relative_h, relative_w))
    ]
    hot = jnp.asarray(_one_hot(layout), qkv.dtype)
    query_tokens = layout.query_rows * layout.padded_hw[1]

    def part(first, length):
        def index(b, n, i):
            return b, i if length == query_tokens else 0, first * blocks + n

        return pl.BlockSpec((layout.group, length, LANES), index)

    whole = [pl.BlockSpec(x.shape, lambda b, n, i: (0, 0)) for x in (hot, *tables)]
    # As the matrix unit does it: in full tiles, idle channels included.
    contracted = (2 if layout.bias == "apart" else 1) * LANES
    heads = batch * blocks * layout.heads
    flops = 2 * heads * tokens**2 * (contracted + LANES)
    flops += 2 * batch * blocks * tokens * LANES * sum(table.shape[1] for table in tables)
    return pl.pallas_call(
        functools.partial(_kernel, layout=layout),
        grid=(batch // layout.group, blocks, tokens // query_tokens),
        in_specs=[part(0, query_tokens), part(1, tokens), part(2, tokens), *whole],
        out_specs=part(0, query_tokens),
        out_shape=jax.ShapeDtypeStruct((batch, tokens, blocks * LANES), qkv.dtype),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"),
            vmem_limit_bytes=VMEM_BYTES,
        ),
        cost_estimate=pl.CostEstimate(
            flops=flops,
            transcendentals=heads * tokens**2,
            bytes_accessed=4 * batch * tokens * blocks * LANES * qkv.dtype.itemsize,
        ),
        interpret=interpret,
        name="grid_attention",
    )(qkv, qkv, qkv, hot, *tables)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attention(qkv, relative_h, relative_w, interpret):
    batch, rows, columns, _, heads, lanes = qkv.shape
    (height, channel), width = relative_h.shape[1:], relative_w.shape[1]
    layout = _layout(batch, height, width, channel)
    # Lanes without a head, rows and columns without a token.
    fill = [(0, layout.padded_hw[0] - rows), (0, layout.padded_hw[1] - columns)]
    fill += [(0, 0), (0, -heads % layout.heads), (0, layout.slot - lanes)]
    blocks = jnp.pad(qkv, [(0, 0), *fill]).reshape(batch, layout.tokens, -1)
    out = _attend_blocks(blocks, relative_h, relative_w, layout, interpret)
    out = out.reshape(batch, *layout.padded_hw, -1, layout.slot)
    return out[:, :rows, :columns, :heads, :lanes]


def _forward(qkv, relative_h, relative_w, interpret):
    return _attention(qkv, relative_h, relative_w, interpret), (qkv, relative_h, relative_w)


def _backward(interpret, saved, gradient):
    """Recomputes through the chunked version: nothing quadratic is kept there either."""
    # Imported here because that module chooses among the implementations, this one included.
    from sam_jax.ops.attention import grid_attention

    def again(qkv, relative_h, relative_w):
        (height, channel), width = relative_h.shape[1:], relative_w.shape[1]
        real = qkv[:, :height, :width, ..., :channel]
        out = grid_attention(real, relative_h, relative_w, implementation="chunked")
        fill = [
            (0, whole - some) for whole, some in zip(qkv.shape[1:], real.shape[1:], strict=True)
        ]
        return jnp.pad(out, [(0, 0), *fill[:2], *fill[3:]])

    return jax.vjp(again, *saved)[1](gradient)


_attention.defvjp(_forward, _backward)


def grid_attention_tpu(
    qkv: Float[Array, "batch rows columns 3 head lanes"],
    relative_h: Float[Array, "height height channel"],
    relative_w: Float[Array, "width width channel"],
    *,
    interpret: bool = False,
) -> Float[Array, "batch rows columns head lanes"]:
    """Self-attention over a grid, from the projection's output as it is and back in its order.

    Args:
      qkv: unscaled queries, keys and values. What lies beyond the tables' rows, columns and
        channels is padding: it must be finite, is masked, and is of no meaning in the result.
      relative_h: from `relative_positions`, for rows: a function of query minus key.
      relative_w: the same for columns.
      interpret: run the kernel's steps in plain JAX, on any platform.

    Raises:
      ValueError: the kernel does not take this size (`supports`), or the padding is not between
        none and that of `padded_hw` and `head_lanes`.
    """
    (height, channel), width = relative_h.shape[1:], relative_w.shape[1]
    if not supports(height, width, channel):
        raise ValueError(
            f"the TPU kernel takes grids up to {MAX_SIDE}x{MAX_SIDE} and heads up to {LANES} "
            f"channels, not {height}x{width} and {channel}"
        )
    given = qkv.shape[1], qkv.shape[2], qkv.shape[-1]
    least, most = (height, width, channel), (*padded_hw(height, width), head_lanes(channel))
    if not all(low <= size <= high for low, size, high in zip(least, given, most, strict=True)):
        raise ValueError(
            f"rows, columns and channels {least} come padded to at most {most}, not as {given}"
        )
    return _attention(qkv, relative_h, relative_w, interpret)
