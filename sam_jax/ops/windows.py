"""Non-overlapping windows of a token grid."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def partition_windows(
    x: Float[Array, "batch height width channel"], window: int
) -> Float[Array, "windows {window} {window} channel"]:
    """Cuts the grid into windows, row by row; the bottom and right are padded with zeros.

    The padding takes part in attention, as in the original.
    """
    batch, height, width, channel = x.shape
    rows, columns = -(-height // window), -(-width // window)
    padding = ((0, 0), (0, rows * window - height), (0, columns * window - width), (0, 0))
    x = jnp.pad(x, padding).reshape(batch, rows, window, columns, window, channel)
    return x.swapaxes(2, 3).reshape(batch * rows * columns, window, window, channel)


def join_windows(
    windows: Float[Array, "windows window window channel"], size_hw: tuple[int, int]
) -> Float[Array, "batch height width channel"]:
    """Puts windows from `partition_windows` back into a grid of `size_hw`; drops the padding."""
    window, channel = windows.shape[1], windows.shape[3]
    rows, columns = -(-size_hw[0] // window), -(-size_hw[1] // window)
    x = windows.reshape(-1, rows, columns, window, window, channel).swapaxes(2, 3)
    x = x.reshape(-1, rows * window, columns * window, channel)
    return x[:, : size_hw[0], : size_hw[1]]
