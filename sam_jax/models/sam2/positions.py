"""Sines and cosines as positions: of a grid's tokens and of moments (SAM 2's original code)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

TEMPERATURE = 10_000.0


def grid_positions(size_hw: tuple[int, int], channel: int) -> Float[np.ndarray, "h w channel"]:
    """Positions of a grid's tokens: half of the channels for the row, half for the column.

    Args:
      size_hw: of the grid; positions run to 2 pi on either axis.
      channel: a multiple of 4.
    """
    half = channel // 2
    exponent = np.arange(half, dtype=np.float32) // 2 * 2 / half
    frequencies = (TEMPERATURE**exponent).astype(np.float32)

    def along(size: int) -> np.ndarray:
        position = np.arange(1, size + 1, dtype=np.float32)
        position = position / (position[-1] + np.float32(1e-6)) * np.float32(2 * np.pi)
        phase = position[:, None] / frequencies
        waves = np.stack([np.sin(phase[:, 0::2]), np.cos(phase[:, 1::2])], axis=2)
        return waves.reshape(size, half)

    rows, columns = along(size_hw[0])[:, None], along(size_hw[1])[None]
    shape = (*size_hw, half)
    return np.concatenate([np.broadcast_to(rows, shape), np.broadcast_to(columns, shape)], axis=2)


def time_positions(times: Float[Array, "*batch"], channel: int) -> Float[Array, "*batch channel"]:
    """Positions of moments: sines of all frequencies, then cosines."""
    half = channel // 2
    exponent = np.arange(half, dtype=np.float32) // 2 * 2 / half
    frequencies = jnp.asarray(TEMPERATURE**exponent, jnp.float32)
    phase = times[..., None] / jax.lax.broadcast_to_rank(frequencies, times.ndim + 1)
    return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], axis=-1)
