"""Non-overlapping windows of a token grid."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def partition_windows(
    x: Float[Array, "batch height width channel"],
    window: int,
    *,
    fill: Float[Array, " channel"] | None = None,
) -> Float[Array, "windows {window} {window} channel"]:
    """Cuts the grid into windows, row by row; the bottom and right are padded.

    The padding takes part in attention, as in the original.

    Args:
      x: the grid.
      window: rows and columns of a window.
      fill: what a token of the padding holds; zeros if left out.
    """
    batch, height, width, channel = x.shape
    rows, count = -(-height // window), -(-width // window)
    bottom, right = rows * window - height, count * window - width
    x = jnp.pad(x, ((0, 0), (0, bottom), (0, right), (0, 0)))
    if fill is not None and (bottom or right):
        inside = (jnp.arange(rows * window) < height)[None, :, None, None] & (
            jnp.arange(count * window) < width
        )[None, None, :, None]
        x = jnp.where(inside, x, fill[None, None, None])
    x = x.reshape(batch, rows, window, count, window, channel)
    return x.swapaxes(2, 3).reshape(batch * rows * count, window, window, channel)


def join_windows(
    windows: Float[Array, "windows window window channel"], size_hw: tuple[int, int]
) -> Float[Array, "batch height width channel"]:
    """Puts windows from `partition_windows` back into a grid of `size_hw`; drops the padding."""
    window, channel = windows.shape[1], windows.shape[3]
    rows, columns = -(-size_hw[0] // window), -(-size_hw[1] // window)
    x = windows.reshape(-1, rows, columns, window, window, channel).swapaxes(2, 3)
    x = x.reshape(-1, rows * window, columns * window, channel)
    return x[:, : size_hw[0], : size_hw[1]]
