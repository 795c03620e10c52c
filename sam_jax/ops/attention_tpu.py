"""Attention with decomposed relative positions as TPU kernels (Pallas): over a grid, in windows.

Logits never leave the chip's vector memory, and the bias costs next to nothing: `attention_lanes`
says how. Windows are cut from the grid, and put back, inside their kernel; outside it they would be
copies, and every layer from one to the other would have their padding.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from sam_jax.ops.attention_lanes import (
    LANES,
    MAX_SIDE,
    Layout,
    attend_grids,
    key_one_hot,
    make_layout,
    offset_table,
    products,
)
from sam_jax.ops.windows import join_windows, partition_windows

# Tokens of small grids taken together: logits of a step stay below 4 MB, and the schedule is full.
GROUP_TOKENS = 1280
VMEM_BYTES = 64 * 2**20


def supports(height: int, width: int, channel: int) -> bool:
    """Whether the kernels take a grid or window of this size with heads of this many channels."""
    return max(height, width) <= MAX_SIDE and channel <= LANES


def _require_support(height: int, width: int, channel: int) -> None:
    if not supports(height, width, channel):
        raise ValueError(
            f"the TPU kernel takes grids up to {MAX_SIDE}x{MAX_SIDE} and heads up to {LANES} "
            f"channels, not {height}x{width} and {channel}"
        )


def _in_blocks(x: Any, layout: Layout) -> Any:
    """[..., head, channel] with the last axes as whole blocks of lanes, heads in their slots."""
    fill = [(0, 0)] * (x.ndim - 2)
    fill += [(0, -x.shape[-2] % layout.heads), (0, layout.slot - layout.channel)]
    x = jnp.pad(x, fill)
    return x.reshape(*x.shape[:-2], -1)


def _out_of_blocks(x: Any, heads: int, layout: Layout) -> Any:
    """Undoes `_in_blocks`."""
    return x.reshape(*x.shape[:-1], -1, layout.slot)[..., :heads, : layout.channel]


def _cost(layout: Layout, table: Any, grids: int, moved: list[Any]) -> pl.CostEstimate:
    """What a call is declared to take: its products, and each of its arrays once."""
    flops, exponentials = products(layout, table)
    return pl.CostEstimate(
        flops=grids * flops,
        transcendentals=grids * exponentials,
        bytes_accessed=sum(x.size * x.dtype.itemsize for x in moved),
    )


def _grid_kernel(query_ref, key_ref, value_ref, hot_ref, table_ref, out_ref, *, layout):
    outs = attend_grids(
        query_ref[...].reshape(-1, LANES),
        lambda grid, tokens: key_ref[grid, tokens],
        lambda grid, tokens: value_ref[grid, tokens],
        hot_ref,
        table_ref,
        pl.program_id(2) * layout.query_rows,
        layout,
    )
    for grid, out in enumerate(outs):
        out_ref[grid] = out.astype(out_ref.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attention(qkv, relative_h, relative_w, interpret):
    batch, height, width, _, heads, channel = qkv.shape
    layout = make_layout(height, width, channel)
    tokens, query_tokens = layout.tokens, layout.query_rows * layout.padded_hw[1]
    fitting = [n for n in range(2, batch + 1) if batch % n == 0 and n * tokens <= GROUP_TOKENS]
    layout = layout._replace(group=max(fitting, default=1))
    fill = [(0, layout.padded_hw[0] - height), (0, layout.padded_hw[1] - width)]
    qkv = jnp.pad(_in_blocks(qkv, layout), [(0, 0), *fill, (0, 0), (0, 0)])
    qkv = qkv.reshape(batch, tokens, -1)
    blocks = qkv.shape[2] // (3 * LANES)

    def line(relative):
        return jnp.concatenate([relative[:0:-1, 0], relative[0]])

    table = offset_table((line(relative_h), line(relative_w)), layout).astype(qkv.dtype)
    hot = jnp.asarray(key_one_hot(layout), qkv.dtype)
    result = jax.ShapeDtypeStruct((batch, tokens, blocks * LANES), qkv.dtype)

    def part(first, length):
        def index(b, n, i):
            return b, i if length == query_tokens else 0, first * blocks + n

        return pl.BlockSpec((layout.group, length, LANES), index)

    out = pl.pallas_call(
        functools.partial(_grid_kernel, layout=layout),
        grid=(batch // layout.group, blocks, tokens // query_tokens),
        in_specs=[part(0, query_tokens), part(1, tokens), part(2, tokens)]
        + [pl.BlockSpec(x.shape, lambda b, n, i: (0, 0)) for x in (hot, table)],
        out_specs=part(0, query_tokens),
        out_shape=result,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"),
            vmem_limit_bytes=VMEM_BYTES,
        ),
        cost_estimate=_cost(layout, table, batch * blocks, [qkv, hot, table, result]),
        interpret=interpret,
        name="grid_attention",
    )(qkv, qkv, qkv, hot, table)
    out = out.reshape(batch, *layout.padded_hw, -1)[:, :height, :width]
    return _out_of_blocks(out, heads, layout)


def _forward(qkv, relative_h, relative_w, interpret):
    return _attention(qkv, relative_h, relative_w, interpret), (qkv, relative_h, relative_w)


def _backward(interpret, saved, gradient):
    """Recomputes through the chunked version: nothing quadratic is kept there either."""
    # Imported here because that module chooses among the implementations, this one included.
    from sam_jax.ops.attention import grid_attention

    again = functools.partial(grid_attention, implementation="chunked")
    return jax.vjp(again, *saved)[1](gradient)


_attention.defvjp(_forward, _backward)


def grid_attention_tpu(
    qkv: Float[Array, "batch height width 3 head channel"],
    relative_h: Float[Array, "height height channel"],
    relative_w: Float[Array, "width width channel"],
    *,
    interpret: bool = False,
) -> Float[Array, "batch height width head channel"]:
    """Self-attention over a grid, from the projection's output as it is and back in its order.

    Args:
      qkv: unscaled queries, keys and values.
      relative_h: from `relative_positions`, for rows: a function of query minus key.
      relative_w: the same for columns.
      interpret: run the kernel's steps in plain JAX, on any platform.

    Raises:
      ValueError: the kernel does not take this size (`supports`).
    """
    _require_support(qkv.shape[1], qkv.shape[2], qkv.shape[-1])
    if not qkv.size:
        return qkv[..., 0, :, :]
    return _attention(qkv, relative_h, relative_w, interpret)


def _window_kernel(
    query_ref, key_ref, value_ref, fill_ref, hot_ref, table_ref, out_ref, *cut_refs, height, layout
):
    """One row of windows in one block of lanes.

    `cut_refs` hold it in float32, which alone can be read and written from any column on.
    """
    window, columns = layout.size_hw[0], layout.padded_hw[1]
    width = query_ref.shape[2]
    inside = jax.lax.broadcasted_iota(jnp.int32, (window, 1, 1), 0)
    inside = inside < height - pl.program_id(1) * window
    for i, (ref, cut) in enumerate(zip((query_ref, key_ref, value_ref), cut_refs, strict=False)):
        fill = fill_ref[i : i + 1].astype(jnp.float32)
        # What a block reads below the grid is undefined.
        cut[:window, :width] = jnp.where(inside, ref[0].astype(jnp.float32), fill)
        cut[:window, width:] = jnp.broadcast_to(fill, (window, cut.shape[1] - width, LANES))
        if layout.padded_hw[0] > window:
            cut[window:] = jnp.zeros((layout.padded_hw[0] - window, *cut.shape[1:]), jnp.float32)

    def windows_of(cut):
        starts = range(0, layout.group * window, window)
        return [
            cut[:, start : start + columns].reshape(-1, LANES).astype(query_ref.dtype)
            for start in starts
        ]

    query, key, value = map(windows_of, cut_refs[:3])
    outs = attend_grids(
        jnp.concatenate(query),
        lambda grid, tokens: key[grid][tokens],
        lambda grid, tokens: value[grid][tokens],
        hot_ref,
        table_ref,
        0,
        layout,
    )
    joined = cut_refs[3]
    for grid, out in enumerate(outs):
        out = out.reshape(-1, columns, LANES)[:window]
        # From left to right: what a window has too many columns, the next one overwrites.
        joined[:, grid * window : grid * window + columns] = out
    out_ref[0] = joined[:, :width].astype(out_ref.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _windows(qkv, fill, line_h, line_w, window, interpret):
    batch, height, width, _, heads, channel = qkv.shape
    layout = make_layout(window, window, channel)
    rows, count = -(-height // window), -(-width // window)
    layout = layout._replace(group=count, query_rows=layout.padded_hw[0])
    qkv = _in_blocks(qkv, layout)
    blocks = qkv.shape[-1] // LANES
    qkv = qkv.reshape(batch, height, width, -1)
    fill = _in_blocks(fill, layout)
    table = offset_table((line_h[::-1], line_w[::-1]), layout).astype(qkv.dtype)
    hot = jnp.asarray(key_one_hot(layout), qkv.dtype)
    result = jax.ShapeDtypeStruct((batch, height, width, blocks * LANES), qkv.dtype)

    def part(first):
        return pl.BlockSpec(
            (1, window, width, LANES), lambda b, r, n: (b, r, 0, first * blocks + n)
        )

    # Loads and stores take whole groups of eight columns.
    span = -(-max(width + 1, (count - 1) * window + layout.padded_hw[1]) // 8) * 8
    cut = pltpu.VMEM((layout.padded_hw[0], span, LANES), jnp.float32)
    out = pl.pallas_call(
        functools.partial(_window_kernel, height=height, layout=layout),
        grid=(batch, rows, blocks),
        in_specs=[part(0), part(1), part(2), pl.BlockSpec((3, LANES), lambda b, r, n: (0, n))]
        + [pl.BlockSpec(x.shape, lambda b, r, n: (0, 0)) for x in (hot, table)],
        out_specs=part(0),
        out_shape=result,
        scratch_shapes=[cut] * 3 + [pltpu.VMEM((window, span, LANES), jnp.float32)],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel",) * 3,
            vmem_limit_bytes=VMEM_BYTES,
        ),
        cost_estimate=_cost(
            layout, table, batch * rows * count * blocks, [qkv, fill, hot, table, result]
        ),
        interpret=interpret,
        name="window_attention",
    )(qkv, qkv, qkv, fill, hot, table)
    return _out_of_blocks(out, heads, layout)


def _windows_forward(qkv, fill, line_h, line_w, window, interpret):
    return _windows(qkv, fill, line_h, line_w, window, interpret), (qkv, fill, line_h, line_w)


def _windows_backward(window, interpret, saved, gradient):
    """Recomputes through the reference version; a window's logits are few."""
    from sam_jax.ops.attention import grid_attention, relative_positions

    def again(qkv, fill, line_h, line_w):
        size_hw, head_channel = qkv.shape[1:3], qkv.shape[3:]
        x = qkv.reshape(*qkv.shape[:3], -1)
        x = partition_windows(x, window, fill=fill.reshape(-1))
        tables = (relative_positions(line, window) for line in (line_h, line_w))
        out = grid_attention(
            x.reshape(*x.shape[:3], *head_channel), *tables, implementation="reference"
        )
        out = join_windows(out.reshape(*out.shape[:3], -1), size_hw)
        return out.reshape(*qkv.shape[:3], *head_channel[1:])

    return jax.vjp(again, *saved)[1](gradient)


_windows.defvjp(_windows_forward, _windows_backward)


def window_attention_tpu(
    qkv: Float[Array, "batch height width 3 head channel"],
    fill: Float[Array, "3 head channel"],
    line_h: Float[Array, "offsets channel"],
    line_w: Float[Array, "offsets channel"],
    window: int,
    *,
    interpret: bool = False,
) -> Float[Array, "batch height width head channel"]:
    """Self-attention within windows of a grid, which are cut and joined inside the kernel.

    Equals `grid_attention` between `partition_windows` and `join_windows`.

    Args:
      qkv: unscaled queries, keys and values of the whole grid.
      fill: what a token of the padding at the bottom and right holds.
      line_h: for rows, one row for every offset query - key within a window, from the least up.
      line_w: the same for columns.
      window: rows and columns of a window.
      interpret: run the kernel's steps in plain JAX, on any platform.

    Raises:
      ValueError: the kernel does not take such windows (`supports`).
    """
    _require_support(window, window, qkv.shape[-1])
    if not qkv.size:
        return qkv[..., 0, :, :]
    return _windows(qkv, fill, line_h, line_w, window, interpret)
