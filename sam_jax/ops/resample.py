"""Resampling as one small matrix per axis, equal to PyTorch's `interpolate`.

`jax.image.resize` antialiases and uses another cubic kernel, so it cannot stand in for either.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# PyTorch's cubic coefficient; Pillow and JAX use -0.5.
CUBIC_COEFFICIENT = -0.75


def linear_matrix(size_in: int, size_out: int) -> Float[np.ndarray, "{size_out} {size_in}"]:
    """The matrix of linear resampling with half-pixel centers and no antialiasing.

    Args:
      size_in: length of the axis before.
      size_out: length of the axis after.

    Returns:
      float64; multiplying an axis of length `size_in` by it equals PyTorch's
      `interpolate(mode="linear", align_corners=False)` along that axis.
    """
    source = np.maximum((np.arange(size_out) + 0.5) * (size_in / size_out) - 0.5, 0.0)
    low = np.minimum(np.floor(source).astype(int), size_in - 1)
    high = np.minimum(low + 1, size_in - 1)
    fraction = source - low
    matrix = np.zeros((size_out, size_in))
    rows = np.arange(size_out)
    np.add.at(matrix, (rows, low), 1.0 - fraction)
    np.add.at(matrix, (rows, high), fraction)
    return matrix


def antialiased_matrix(size_in: int, size_out: int) -> Float[np.ndarray, "{size_out} {size_in}"]:
    """The matrix of linear resampling that, to a smaller size, averages over what it skips.

    As PyTorch's `interpolate(mode="bilinear", antialias=True)` and Pillow's bilinear filter, along
    one axis, but for the latter's rounding to eight bits. float64.
    """
    scale = size_in / size_out
    reach = max(scale, 1.0)
    centres = (np.arange(size_out) + 0.5) * scale
    distance = np.abs(np.arange(size_in) + 0.5 - centres[:, None]) / reach
    weights = np.maximum(1.0 - distance, 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def cubic_matrix(size_in: int, size_out: int) -> Float[np.ndarray, "{size_out} {size_in}"]:
    """The matrix of bicubic resampling along one axis, as PyTorch does it (a = -0.75).

    Taps that fall outside repeat the edge. No antialiasing. float64.
    """
    source = (np.arange(size_out) + 0.5) * (size_in / size_out) - 0.5
    base = np.floor(source).astype(int)
    fraction = source - base
    matrix = np.zeros((size_out, size_in))
    rows = np.arange(size_out)
    for tap in (-1, 0, 1, 2):
        weight = _cubic_weight(np.abs(fraction - tap))
        np.add.at(matrix, (rows, np.clip(base + tap, 0, size_in - 1)), weight)
    return matrix


def _cubic_weight(distance: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    a = CUBIC_COEFFICIENT
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, far)


def resize_position_grid(
    table: Float[Array, "table_height table_width channel"], size_hw: tuple[int, int]
) -> Float[Array, "height width channel"]:
    """An absolute position table resampled bicubically to another token grid (ViTDet's way)."""
    if table.shape[:2] == size_hw:
        return table
    rows = jnp.asarray(cubic_matrix(table.shape[0], size_hw[0]), table.dtype)
    columns = jnp.asarray(cubic_matrix(table.shape[1], size_hw[1]), table.dtype)
    highest = jax.lax.Precision.HIGHEST
    return jnp.einsum("hy,wx,yxc->hwc", rows, columns, table, precision=highest)


def resize_position_line(
    table: Float[Array, "table_length channel"], length: int
) -> Float[Array, "{length} channel"]:
    """A relative position table resampled linearly to another length, as the original does."""
    if table.shape[0] == length:
        return table
    matrix = jnp.asarray(linear_matrix(table.shape[0], length), table.dtype)
    return jnp.matmul(matrix, table, precision=jax.lax.Precision.HIGHEST)
