"""Masks as PNG files."""

import io

import numpy as np
from jaxtyping import Bool
from PIL import Image

from sam_jax.errors import InputError


def mask_png(mask: Bool[np.ndarray, "height width"], *, bits: int = 8) -> bytes:
    """The content of a gray PNG file of a mask: white inside, black outside.

    Args:
      mask: of any size above 0x0.
      bits: 8, values 0 and 255, which every program reads; or 1, a smaller file.

    Raises:
      InputError: the mask has no pixels, or `bits` is neither.
    """
    if bits not in (1, 8):
        raise InputError(f"a mask PNG has 8 bits or 1, not {bits}")
    if not mask.size:
        raise InputError(f"a mask of shape {mask.shape} has no pixels to write")
    picture = Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0)))
    if bits == 1:
        picture = picture.convert("1", dither=Image.Dither.NONE)
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()
