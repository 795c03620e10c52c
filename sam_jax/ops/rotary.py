"""Rotary positions over two axes, with real numbers (RoPE; Su et al. 2021, as in SAM 2)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

THETA = 10_000.0


def axial_angles(size_hw: tuple[int, int], channel: int) -> Float[np.ndarray, "tokens half"]:
    """The angle by which each pair of channels is turned at each token, row by row.

    The first half of the pairs turns with the column, the second with the row.

    Args:
      size_hw: of the grid.
      channel: of queries and keys, a multiple of 4.

    Returns:
      float32, for the `channel / 2` pairs.
    """
    quarter = np.arange(0, channel, 4, dtype=np.float32)[: channel // 4]
    frequencies = (1.0 / THETA ** (quarter / channel)).astype(np.float32)
    y, x = np.divmod(np.arange(size_hw[0] * size_hw[1], dtype=np.float32), size_hw[1])
    return np.concatenate([np.outer(x, frequencies), np.outer(y, frequencies)], axis=1)


def in_halves(x: Float[Array, "*batch channel"]) -> Float[Array, "*batch channel"]:
    """The first of all pairs of channels before the second of all pairs.

    Done to the kernel and bias of a projection, it costs nothing: a dot product of two tokens that
    were both projected so does not see it.
    """
    return jnp.concatenate([x[..., 0::2], x[..., 1::2]], axis=-1)


def rotate(
    x: Float[Array, "*batch tokens channel"], angles: Float[np.ndarray, "tokens half"]
) -> Float[Array, "*batch tokens channel"]:
    """Turns pairs of channels, which stand as `in_halves` leaves them, by the tokens' angles."""
    cos, sin = jnp.asarray(np.cos(angles), x.dtype), jnp.asarray(np.sin(angles), x.dtype)
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)
