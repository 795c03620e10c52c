"""Many masks in one gray PNG: each pixel's value says which mask it belongs to."""

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8, UInt16
from PIL import Image, PngImagePlugin
from scipy import ndimage

from sam_jax.errors import InputError
from sam_jax.files import written_aside
from sam_jax.formats.rle import MAX_PIXELS, mask_area, mask_box

MAX_MASKS = 65_535

Labels = UInt8[np.ndarray, "height width"] | UInt16[np.ndarray, "height width"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# By whether palettes are taken: color types and bits, and how Pillow names them. Of gray PNGs of 2
# and 4 bits Pillow changes the values.
_GREY = {(0, 8), (0, 16)}
_KINDS = {False: _GREY, True: _GREY | {(0, 1), (3, 1), (3, 2), (3, 4), (3, 8)}}
_MODES = {False: ("L", "I;16", "I"), True: ("L", "I;16", "I", "1", "P")}


def label_map(
    masks: Iterable[Bool[np.ndarray, "height width"]], size_hw: tuple[int, int]
) -> Labels:
    """Many masks in one array, whose values are 0 for background and 1, 2, ... for the masks.

    A mask's value is its index + 1, also where another mask is empty or hidden. Where masks overlap
    the one with the smaller area is on top, of equals the first.

    Args:
      masks: all of the size `size_hw`; taken one at a time, so they may be made as they are drawn.
      size_hw: height and width of the image.

    Returns:
      uint8 for up to 255 masks, else uint16.

    Raises:
      InputError: a mask is no boolean array of that size, there are more than `MAX_MASKS`, or the
        size has no pixels or more than `rle.MAX_PIXELS`.
    """
    height, width = size_hw
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise InputError(f"a label map cannot have {width}x{height} pixels")
    labels = np.zeros((height, width), np.uint16)
    areas = np.empty(MAX_MASKS + 1, np.int64)
    areas[0] = height * width + 1
    count = 0
    for mask in masks:
        _check_mask(mask, (height, width), count)
        count += 1
        if count > MAX_MASKS:
            raise InputError(f"a label map holds {MAX_MASKS} masks at most; leave some out")
        x, y, box_width, box_height = mask_box(mask).tolist()
        box = np.s_[y : y + box_height, x : x + box_width]
        inside = mask[box]
        areas[count] = mask_area(inside)
        below = labels[box][inside]
        labels[box][inside] = np.where(areas[below] > areas[count], np.uint16(count), below)
    return labels if count > 255 else labels.astype(np.uint8)


def label_png(masks: Iterable[Bool[np.ndarray, "height width"]], size_hw: tuple[int, int]) -> bytes:
    """The content of a PNG file of a `label_map`: 8 bits for up to 255 masks, else 16.

    Args:
      masks: as for `label_map`.
      size_hw: height and width of the image.

    Raises:
      InputError: as `label_map`.
    """
    file = io.BytesIO()
    Image.fromarray(label_map(masks, size_hw)).save(file, format="PNG")
    return file.getvalue()


def write_label_png(
    path: str | os.PathLike,
    masks: Iterable[Bool[np.ndarray, "height width"]],
    size_hw: tuple[int, int],
) -> None:
    """Writes a `label_png`; the file appears whole or not at all.

    Raises:
      InputError: as `label_map`.
      OSError: the file cannot be written; what was there before is left.
    """
    content = label_png(masks, size_hw)
    with written_aside(path) as file:
        file.write(content)


def read_label_png(path: str | os.PathLike, *, palette: bool = False) -> Labels:
    """The values of a label PNG: 0 background, 1, 2, ... masks.

    Args:
      path: of the file.
      palette: take also PNGs with a palette, where the value is the color's index and not the
        color, and black and white ones of 1 bit, whose white is 1: as masks of videos come.

    Returns:
      uint16 where the file has 16 bits, else uint8.

    Raises:
      InputError: the file cannot be read, is damaged, is no gray PNG of 8 or 16 bits (colors are
        no labels), or has more than `rle.MAX_PIXELS` pixels.
    """
    name = f"label PNG {os.fspath(path)!r}"
    if not Path(path).is_file():  # opening a pipe would wait for ever
        raise InputError(f"{name} does not exist, or is no regular file")
    try:
        with open(path, "rb") as file:
            # Signature, the first chunk's length and type, then width, height, bits, color type.
            header = file.read(26)
            _check_header(header, name, palette)
            file.seek(0)
            # Pillow's own reader of the format: `Image.open` warns of large images.
            picture = PngImagePlugin.PngImageFile(file)
            if picture.mode not in _MODES[palette] or picture.size != _size(header):
                raise InputError(f"{name} is damaged: it has two headers")
            picture.load()
    except InputError:
        raise
    except OSError as error:
        reason = error.strerror or "it is damaged or cut short"
        raise InputError(f"{name} cannot be read: {reason}") from error
    # On damaged files Pillow raises SyntaxError, ValueError, struct.error, zlib.error and more.
    except Exception as error:
        raise InputError(f"{name} cannot be read: it is damaged") from error
    return np.asarray(picture).astype(np.uint16 if header[24] == 16 else np.uint8)


def masks_of_labels(
    labels: Labels,
) -> Iterator[tuple[int, Bool[np.ndarray, "height width"]]]:
    """Each value that occurs in a label image, from the lowest on, with the mask of its pixels.

    The background, 0, is left out. Masks are made one at a time; they do not overlap, so what was
    hidden under another mask is not there.
    """
    # `find_objects` takes signed integers.
    for label, box in enumerate(ndimage.find_objects(labels.astype(np.int32)), 1):
        if box is not None:
            mask = np.zeros(labels.shape, bool)
            mask[box] = labels[box] == label
            yield label, mask


def _check_mask(mask: Any, size_hw: tuple[int, int], index: int) -> None:
    if not isinstance(mask, np.ndarray) or mask.dtype != bool:
        raise InputError(f"mask {index} is no boolean array")
    if mask.shape != size_hw:
        raise InputError(f"mask {index} has shape {mask.shape}, but the image is {size_hw}")


def _check_header(header: bytes, name: str, palette: bool) -> None:
    if not header.startswith(_SIGNATURE):
        raise InputError(f"{name} is no PNG file")
    if len(header) < 26 or header[12:16] != b"IHDR":
        raise InputError(f"{name} is damaged or cut short")
    width, height = _size(header)
    if width * height > MAX_PIXELS:
        raise InputError(f"{name} has {width}x{height} pixels, more than any image that is read")
    bits, colour_type = header[24:26]
    if (colour_type, bits) not in _KINDS[palette]:
        kind = "grey or have a palette" if palette else "grey, with 8 or 16 bits a pixel"
        raise InputError(f"{name} is no label PNG: those are {kind}")


def _size(header: bytes) -> tuple[int, int]:
    """Width and height."""
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")
