"""Images as people have them, read into one form: RGB, 8 bits a channel, upright."""

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Num, UInt8
from PIL import Image

from sam_jax.errors import InputError
from sam_jax.image_files import (
    MAX_PIXELS,
    as_stored_in_file,
    check_size,
    is_deep_color,
    opened_image,
    orientation,
    read_lower_bytes,
    reason,
    stored_form,
)
from sam_jax.pixel_numbers import Range, Scale, check_scale, to_uint8, white_of
from sam_jax.tiff import Stored, as_stored

__all__ = ["IMAGE_SUFFIXES", "MAX_PIXELS", "list_images", "read_image"]

# Pixels converted at a time, so that no second full-size copy in another mode is made.
_STRIP_PIXELS = 1 << 20

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .tif .tiff .bmp .gif .ppm .pgm .pbm .pnm".split()
)
# Some of a picture's rows, as numbers.
_Rows = Callable[[slice], Num[np.ndarray, "rows width *channels"]]


def read_image(
    source: object, *, page: int | None = None, scale: Scale = None
) -> UInt8[np.ndarray, "height width 3"]:
    """Reads an image into a new uint8 RGB array that shares nothing with the source.

    Files and PIL images: EXIF orientation is applied; gray, palette, CMYK, LAB and 1-bit images
    become RGB. Alpha is dropped, not blended, as Pillow's `convert("RGB")` does: the model sees the
    colors that are stored under transparent pixels. Of several pages (TIFF) or frames (GIF, WebP,
    PNG) the first is read, with a warning, unless `page` says which.

    Deeper than 8 bits: the largest number of the type is white. That is 65535 for 16 bits (16-bit
    color is cut to its upper 8 bits), 4095 for 12-bit TIFF, 32767 for signed 16 bits, 1 for floats,
    and 65535 for 32-bit integers; in WhiteIsZero TIFF it is black. Numbers above it are refused.
    A camera's 10, 12 or 14 bits in a type of 16 come out nearly black: a warning says so, and
    `scale` helps.

    Arrays: [height, width] or [height, width, channels] with 1, 3 or 4 channels, RGB order; uint8,
    uint16 (scaled from 0..65535), floats in [0, 1], or bool (black and white).

    Args:
      source: a path to a JPEG, PNG, WebP, TIFF, BMP, GIF or PPM file, a `PIL.Image.Image`, or
        anything `numpy.asarray` turns into an array (NumPy, JAX). It is not changed.
      page: of a file, which of its pages or frames, from 0. Reduced copies and masks that a TIFF
        holds beside its pictures do not count.
      scale: the number that is white in images deeper than 8 bits, above which everything is white;
        or "auto" for the smallest of 1 (floats), 255, 1023, 4095, 16383 and 65535 that no number
        exceeds. 8-bit images stay as they are.

    Raises:
      InputError: it is missing, damaged, truncated, not an image, of a kind that is not supported
        (which the message names), larger than `MAX_PIXELS` (WebP: 100 million), has no such page,
        or is an array of another shape, type or range.
    """
    check_scale(scale)
    if page is not None and not isinstance(source, str | os.PathLike):
        raise InputError("page chooses a page of a file; of a PIL image, seek the page first")
    if isinstance(source, str | os.PathLike):
        pixels, notes = _read_file(os.fsdecode(source), page, scale)
    elif isinstance(source, Image.Image):
        try:
            pixels, notes = _read_pil(source, "the PIL image", scale)
        except InputError:
            raise
        except Exception as error:  # a lazily opened file fails in as many ways as others
            raise InputError(f"the PIL image cannot be read: {reason(error)}") from error
    elif hasattr(source, "__array__"):
        pixels, notes = _read_array(source, scale)
    else:
        raise InputError(
            f"an image is a path, a PIL image or an array, not {type(source).__name__}; "
            "open other things with PIL.Image.open first"
        )
    for note in notes:
        # From here, whoever calls: the command line shows what this package warns of.
        warnings.warn(note, UserWarning, stacklevel=1)
    return pixels


def list_images(directory: str | os.PathLike[str]) -> list[Path]:
    """Lists the image files directly inside a directory, sorted by name.

    Files count by their suffix (`IMAGE_SUFFIXES`, any case). Hidden files and subdirectories are
    left out: results named after the images then cannot collide.

    Raises:
      InputError: the directory is missing, unreadable, or holds no image.
    """
    path = Path(directory)
    try:
        found = sorted(
            entry
            for entry in path.iterdir()
            if entry.suffix.lower() in IMAGE_SUFFIXES
            and not entry.name.startswith(".")
            and entry.is_file()
        )
    except (OSError, ValueError) as error:
        raise InputError(f"cannot list images in {str(path)!r}: {reason(error)}") from error
    if not found:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"no images in {str(path)!r}: looked for {suffixes}")
    return found


def _read_file(
    path: str, page: int | None, scale: Scale
) -> tuple[UInt8[np.ndarray, "height width 3"], list[str]]:
    name = f"image {path!r}"
    with opened_image(path, page) as (image, pages):
        notes = []
        if pages > 1 and page is None:
            notes = [
                f"{name} has {pages} pages or frames, of which page 0 is read; page=N (--page N) "
                f"chooses another, 0 to {pages - 1}"
            ]
        lower = None
        if scale is not None and ";16" in stored_form(image) and image.mode[0] not in "IF":
            with opened_image(path, page or 0) as (lower, _):
                read_lower_bytes(lower, name)
                lower.load()
        pixels, dark = _read_pil(image, name, scale, lower)
    return pixels, notes + dark


def _read_pil(
    image: Image.Image, name: str, scale: Scale, lower: Image.Image | None = None
) -> tuple[UInt8[np.ndarray, "height width 3"], list[str]]:
    """An image as RGB, and what to warn of.

    Args:
      image: decoded or not.
      name: of the image, for messages.
      scale: as of `read_image`.
      lower: the same image with the lower 8 of 16 bits a color.
    """
    check_size(*image.size, name)
    deep_color, with_alpha = is_deep_color(image), stored_form(image).startswith("LA;16")
    image.load()
    turned = orientation(image)  # after loading: Pillow turns TIFF images there
    width, height = image.size
    upright = np.empty((width, height, 3) if turned >= 5 else (height, width, 3), np.uint8)
    stored = as_stored_in_file(upright, turned)

    def strip(rows: slice) -> Image.Image:
        return image.crop((0, rows.start, width, rows.stop))

    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        kind: Stored | None = getattr(image, "stored", None)
        white = kind.white if kind else 1 if image.mode == "F" else 65535
        inverted = kind is not None and kind.inverted

        def numbers(rows: slice) -> np.ndarray:
            return as_stored(np.asarray(strip(rows)), kind)[..., None]

        return upright, _convert(numbers, stored, white, scale, name, inverted)
    if lower is not None:

        def both_bytes(rows: slice) -> np.ndarray:
            low = np.asarray(lower.crop((0, rows.start, width, rows.stop))).astype(np.uint16)
            if with_alpha:  # gray, its lower byte, alpha, its lower byte
                return (low[..., :1] << 8) + low[..., 1:2]
            return (np.asarray(strip(rows))[..., :3].astype(np.uint16) << 8) + low[..., :3]

        return upright, _convert(both_bytes, stored, 65535, scale, name)
    highest = 0
    for rows in _strips(height, width):
        stored[rows] = _strip_to_rgb(strip(rows))
        highest = max(highest, int(stored[rows].max())) if deep_color else 255
    dark = []
    if 0 < highest < 64:
        found = Range(0, 256 * highest + 255, False, 65535)
        dark = [white_of(found, None, name)[1]]
    return upright, dark


def _convert(
    numbers: _Rows,
    pixels: UInt8[np.ndarray, "height width 3"],
    white: int | float,
    scale: Scale,
    name: str,
    inverted: bool = False,
) -> list[str]:
    """Fills `pixels` with the numbers as 8 bits; what to warn of."""
    height, width = pixels.shape[:2]
    lows, highs, floats = [], [], False
    for rows in _strips(height, width):
        values = numbers(rows)
        floats = values.dtype.kind == "f" or values.dtype.name == "bfloat16"
        lows.append(float(values.min()))
        highs.append(float(values.max()))
    # NumPy's, so that NaN is not lost.
    found = Range(np.min(lows), np.max(highs), floats, white)
    white, note = white_of(found, scale, name)
    for rows in _strips(height, width):
        pixels[rows] = to_uint8(numbers(rows), white, inverted)
    return [note] if note else []


def _strips(height: int, width: int) -> Iterator[slice]:
    step = max(1, _STRIP_PIXELS // width)
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def _strip_to_rgb(strip: Image.Image) -> UInt8[np.ndarray, "rows width channels"]:
    # A transparent color would make Pillow warn that RGB cannot express it.
    strip.info.pop("transparency", None)
    if strip.mode in ("La", "RGBa"):  # premultiplied, which converts to plain alpha only
        strip = strip.convert(strip.mode.upper())
    return np.asarray(strip.convert("RGB"))


def _read_array(
    source: object, scale: Scale
) -> tuple[UInt8[np.ndarray, "height width 3"], list[str]]:
    name = "the image array"
    try:
        array = np.asarray(source)
    except Exception as error:  # whatever a foreign __array__ raises
        raise InputError(f"the image cannot be made a NumPy array: {reason(error)}") from error
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4):
        hint = "give [height, width] or [height, width, channels] with 1, 3 or 4 channels"
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = "channels come last: give array.transpose(1, 2, 0)"
        elif array.ndim == 4:
            hint = "give the images of a batch one by one"
        raise InputError(f"{name} has shape {array.shape}; {hint}")
    height, width = array.shape[:2]
    check_size(width, height, name)
    rgb = np.empty((height, width, 3), np.uint8)
    pixels = array.reshape(height, width, channels)[..., :3]
    kind, floats = array.dtype.kind, array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    if kind == "b" or array.dtype == np.uint8:
        for rows in _strips(height, width):
            rgb[rows] = pixels[rows].astype(np.uint8) * np.uint8(255 if kind == "b" else 1)
        return rgb, []
    if not floats and not (kind == "u" and array.dtype.itemsize == 2):
        raise InputError(f"{name} has dtype {array.dtype}; give uint8, uint16, or floats in [0, 1]")
    return rgb, _convert(lambda rows: pixels[rows], rgb, 1 if floats else 65535, scale, name)
