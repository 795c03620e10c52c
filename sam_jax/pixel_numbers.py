"""Numbers of any type as 8 bits: which of them is white, and when that is doubtful."""

import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

from sam_jax.errors import InputError

# Interpolation leaves floats this far outside [0, 1].
FLOAT_SLACK = 1e-5
# What cameras and files store as white: 8, 10, 12, 14, 16, 31 and 32 bits.
_WHITES = (255, 1023, 4095, 16383, 65535, 2**31 - 1, 2**32 - 1)

Scale = int | float | Literal["auto"] | None


class Range(NamedTuple):
    """What a picture's numbers are, before any of them is converted.

    Attributes:
      low: the smallest.
      high: the largest.
      floats: whether they are floating-point numbers.
      white: which of them is white by their type alone.
    """

    low: int | float
    high: int | float
    floats: bool
    white: int | float


def check_scale(scale: Scale) -> None:
    """Refuses what is neither None, "auto" nor a number above 0.

    Raises:
      InputError: it is something else.
    """
    if scale is None or scale == "auto":
        return
    if isinstance(scale, bool | str) or not (math.isfinite(scale) and scale > 0):
        raise InputError(f"scale is 'auto' or the number that is white, above 0, not {scale!r}")


def white_of(found: Range, scale: Scale, name: str) -> tuple[int | float, str]:
    """The number that becomes white, and a line to warn with where the picture would be dark.

    Args:
      found: the picture's numbers.
      scale: what the caller says of it.
      name: of the picture, for messages.

    Raises:
      InputError: there are numbers that are no brightness.
    """
    low, high = found.low, found.high
    if not np.isfinite([low, high]).all():
        raise InputError(f"{name} holds NaN or infinite values")
    slack = FLOAT_SLACK if found.floats else 0
    if low < -slack:
        raise InputError(
            f"{name} holds the value {low:.6g}; values below 0 are no brightness, so shift them "
            "first"
        )
    if scale == "auto":
        whites = ((1,) if found.floats else ()) + _WHITES
        return next((white for white in whites if high <= white + slack), high), ""
    if scale is not None:
        return float(scale), ""
    if high > found.white + slack:
        limit = "in [0, 1]" if found.floats else f"in 0..{found.white:g}"
        raise InputError(
            f"{name} holds {'the float' if found.floats else 'values up to'} {high:.10g}; "
            f"{'floats' if found.floats else 'integers of more than 16 bits'} must lie {limit}, so "
            "rescale them, or give scale='auto' or the value that is white (--scale)"
        )
    # Below a quarter of the range are 14 bits or fewer in 16.
    if found.floats or not 0 < high <= found.white // 4:
        return found.white, ""
    bits = next(white for white in _WHITES if high <= white).bit_length()
    return found.white, (
        f"{name} holds values up to {high:.10g} where {found.white:g} is white, so it is nearly "
        f"black; if they are of {bits} bits, give scale='auto' (--scale auto)"
    )


def to_uint8(
    values: np.ndarray, white: int | float, inverted: bool = False
) -> UInt8[np.ndarray, "..."]:
    """Numbers from 0 to `white` as 0 to 255, rounded to the nearest; what is above is white.

    Args:
      values: of any real type.
      white: the number that becomes 255.
      inverted: 0 is white, and `white` black.
    """
    levels = np.rint(values.astype(np.float64) * (255 / white)).clip(0, 255).astype(np.uint8)
    return 255 - levels if inverted else levels
