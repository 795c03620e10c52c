"""Convolutions of each channel by itself."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sam_jax.ops.platform import traced_platform


def depthwise_convolution(
    x: Float[Array, "batch height width channel"], kernel: Float[Array, "size size 1 channel"]
) -> Float[Array, "batch height width channel"]:
    """A convolution with stride 1, one filter for each channel, and zeros beyond the edge.

    Args:
      x: the grid.
      kernel: of an odd size.
    """
    if traced_platform() != "cpu":
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=x.shape[-1],
        )
    # XLA's CPU compiler has no fast version of that; a sum of shifted grids is one loop.
    size = kernel.shape[0]
    height, width = x.shape[1:3]
    reach = size // 2
    padded = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    out = jnp.zeros_like(x)
    for row in range(size):
        for column in range(size):
            shifted = padded[:, row : row + height, column : column + width]
            out = out + shifted * kernel[row, column, 0][None, None, None]
    return out
