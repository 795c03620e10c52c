"""Attention inside a TPU kernel: how heads and their bias lie in blocks of 128 lanes.

A TPU multiplies tiles of 128 channels whether a head has 64 or 128 of them; the idle channels of a
query carry its bias for every key row and column, those of a key the one-hot of its row and column.
The product that gives q.k then adds the bias to it. Where only the rows fit, the columns' bias is
added to the logits: it repeats with every row of keys.

Heads stay where the projection leaves them, side by side along the channels, so nothing is
transposed. Two heads of up to 64 channels share a block of 128 lanes; what belongs to the other
one meets zeros, or is where the bias rides.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas import tpu as pltpu

LANES = 128
# Rows of a float32 register; its columns are lanes.
SUBLANES = 8
# One-hots of a row and of a column must fit one block of lanes.
MAX_SIDE = 64
# Tokens of keys whose logits are made at once, of queries in a step of larger grids.
KEY_BLOCK = 1024
QUERY_BLOCK = 512
# Added to the logits of keys that only fill a block: far below any logit, and twice it is finite.
MASKED = -1e30
CONTRACT_LAST = (((1,), (1,)), ((), ()))


class Layout(NamedTuple):
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

    def bias_lane(self, head: int, axis: int) -> int:
        """The first lane of a head's row or column bias."""
        if self.bias == "apart":
            return axis * MAX_SIDE
        idle = self.channel if self.heads == 1 else self.slot * (1 - head)
        return idle + (self.padded_hw[0] if axis and self.bias == "inline" else 0)

    def offset_lane(self, head: int, axis: int) -> int:
        """The first lane of a head's bias by offset, counted through as many blocks as it takes."""
        lengths = [2 * size - 1 for size in self.size_hw]
        # Across from the head's own lanes, like its bias: one turn then serves both heads.
        across = self.slot * (self.heads - 1 - head)
        if sum(lengths) <= self.slot:
            return across + (lengths[0] if axis else 0)
        if max(lengths) <= self.slot:
            return axis * LANES + across
        return (axis * self.heads + head) * LANES


def make_layout(height: int, width: int, channel: int) -> Layout:
    """The layout of single grids; see `Layout`."""
    columns = next(size for size in (16, 32, 64) if size >= width)
    block_rows = KEY_BLOCK // columns
    small = height <= block_rows
    rows = height if small else -(-height // block_rows) * block_rows
    slot = LANES // 2 if channel <= LANES // 2 else LANES
    idle = slot if slot < LANES else LANES - channel
    return Layout(
        size_hw=(height, width),
        padded_hw=(rows, columns),
        channel=channel,
        slot=slot,
        bias="inline" if rows + columns <= idle else "split" if slot < LANES else "apart",
        group=1,
        query_rows=rows if small else QUERY_BLOCK // columns,
        key_rows=rows if small else block_rows,
    )


def offset_table(lines: tuple[Any, Any], layout: Layout) -> Any:
    """The matrix from all channels of a block to its heads' bias by offset; channels last.

    Args:
      lines: for rows and for columns, [2 x size - 1, channel]: key minus query, from the least up.
      layout: the layout.
    """
    places = [(head, axis) for head in range(layout.heads) for axis in (0, 1)]
    blocks = 1 + max(layout.offset_lane(*place) for place in places) // LANES
    parts = []
    for head, axis in places:
        above, left = layout.offset_lane(head, axis), head * layout.slot
        below = blocks * LANES - above - lines[axis].shape[0]
        sides = (above, below), (left, LANES - left - layout.channel)
        parts.append(jnp.pad(lines[axis], sides))
    return sum(parts[1:], parts[0])


def key_one_hot(layout: Layout) -> np.ndarray:
    """For every key, ones where queries carry the bias of its row and of its column."""
    token = np.arange(layout.tokens)
    out = np.zeros((layout.tokens, LANES), np.float32)
    for head in range(layout.heads):
        out[token, layout.bias_lane(head, 0) + token // layout.padded_hw[1]] = 1
        if layout.bias != "split":
            out[token, layout.bias_lane(head, 1) + token % layout.padded_hw[1]] = 1
    return out


def products(layout: Layout, table: Any) -> tuple[int, int]:
    """Operations and exponentials of one grid's attention in one block of lanes.

    As the matrix unit does it: in full tiles, idle channels included.
    """
    contracted = (2 if layout.bias == "apart" else 1) * LANES
    pairs = layout.heads * layout.tokens**2
    return 2 * pairs * (contracted + LANES) + 2 * layout.tokens * LANES * table.shape[0], pairs


def _biases(query: Any, table: Any, first_row: Any, layout: Layout) -> list[list[Any]]:
    """For each head, the row and the column bias of a step's queries, in their lanes; else 0."""
    lane = jax.lax.broadcasted_iota(jnp.int32, (1, LANES), 1)
    by_offset = jax.lax.dot_general(query, table, CONTRACT_LAST, preferred_element_type=jnp.float32)
    turned: dict[tuple[int, int, int], Any] = {}

    def bias(head, axis):
        block, start = divmod(layout.offset_lane(head, axis), LANES)
        # Offset 0 goes to where the bias starts, and right by the query's own position: the lanes
        # then hold the bias by key position.
        turn = (layout.bias_lane(head, axis) - start - layout.size_hw[axis] + 1) % LANES
        if (block, axis, turn) not in turned:
            x = by_offset[:, block * LANES : (block + 1) * LANES]
            x = x.reshape(layout.group, layout.query_rows, layout.padded_hw[1], LANES)
            shift = turn if axis else turn + first_row
            if axis and turn % SUBLANES and turn + layout.padded_hw[1] > LANES:
                # Mosaic has no strided turn that goes round between the rows of a register.
                x, shift = pltpu.roll(x, turn, 3), 0
            x = pltpu.roll(x, shift, 3, stride=1, stride_axis=1 + axis)
            turned[block, axis, turn] = x.reshape(-1, LANES)
        position = lane - layout.bias_lane(head, axis)
        real = jnp.where(position < layout.size_hw[axis], turned[block, axis, turn], MASKED)
        return jnp.where((position >= 0) & (position < layout.padded_hw[axis]), real, 0.0)

    return [[bias(head, axis) for axis in (0, 1)] for head in range(layout.heads)]


def attend_grids(
    query: Any,
    key_at: Callable[[int, slice], Any],
    value_at: Callable[[int, slice], Any],
    hot_ref: Any,
    table_ref: Any,
    first_row: Any,
    layout: Layout,
) -> Iterator[Any]:
    """Inside a kernel: the attention of a step's queries, one grid after the other, in float32.

    Args:
      query: [group x query_rows x padded columns, LANES], unscaled.
      key_at: keys of a grid, those of a slice of its tokens.
      value_at: the same for values.
      hot_ref: `key_one_hot`.
      table_ref: `offset_table`.
      first_row: the row of the grid that the queries start at.
      layout: the layout.
    """
    dtype = query.dtype
    columns = layout.padded_hw[1]
    block, chunk = layout.query_rows * columns, layout.key_rows * columns
    lane = jax.lax.broadcasted_iota(jnp.int32, (1, LANES), 1)
    biases = _biases(query, table_ref[...], first_row, layout)
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
            # A small grid's chunk may end within a block of lanes.
            column_bias = jnp.concatenate([column_bias] * -(-chunk // LANES), axis=1)[:, :chunk]
        top: Any = None
        total: Any = None
        out: Any = None
        for start in range(0, layout.tokens, chunk):
            keys = slice(start, start + chunk)
            key, hot = key_at(grid, keys), hot_ref[keys]
            apart = layout.bias == "apart"
            key = jnp.concatenate([key, hot], axis=1) if apart else jnp.where(mine, key, hot)
            logits = jax.lax.dot_general(
                own, key, CONTRACT_LAST, preferred_element_type=jnp.float32
            )
            if layout.bias == "split":
                logits = logits + column_bias
            largest = jnp.max(logits, axis=1, keepdims=True)
            largest = largest if top is None else jnp.maximum(top, largest)
            weights = jnp.exp(logits - largest)
            added = jnp.sum(weights, axis=1, keepdims=True)
            part = jnp.dot(
                weights.astype(dtype), value_at(grid, keys), preferred_element_type=jnp.float32
            )
            if top is not None:
                shrink = jnp.exp(top - largest)
                added, part = added + total * shrink, part + out * shrink
            top, total, out = largest, added, part
        return out / total

    for grid in range(layout.group):
        outs = [attend(grid, head) for head in range(layout.heads)]
        yield outs[0] if layout.heads == 1 else jnp.where(lane < layout.slot, outs[0], outs[1])
