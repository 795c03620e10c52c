"""Images as people have them, read into one form: RGB, 8 bits a channel, upright.

Nothing here changes Pillow's or Python's global state. Files are recognised by their first bytes
and handed to Pillow's reader of that format directly, because `PIL.Image.open` warns from 89
million pixels on: turning the warning off through `PIL.Image.MAX_IMAGE_PIXELS` or a warnings
filter would reach into the caller's program and into its other threads. `MAX_PIXELS` takes the
place of Pillow's limit and is checked on the header, before any pixel is decoded.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import UInt8
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from sam_jax.errors import InputError

# Room for a 150-megapixel camera; decoding takes about 7 bytes a pixel, so 1.1 GB at the limit.
MAX_PIXELS = 160_000_000
# Pillow decodes WebP at 16 bytes a pixel, and a flat picture of this size is a file of 4 kB.
MAX_WEBP_PIXELS = 100_000_000
# Huffman coding spends at least one bit on each block of 64 pixels: 512 pixels a byte. A JPEG that
# promises more has lost its data, and libjpeg would fill the picture up with grey.
_MAX_JPEG_PIXELS_PER_BYTE = 1024
# Pixels converted at a time, so that no second full-size copy in another mode is made.
_STRIP_PIXELS = 1 << 20
# Interpolation leaves floats this far outside [0, 1].
_FLOAT_SLACK = 1e-5

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .tif .tiff .bmp .gif .ppm .pgm .pbm .pnm".split()
)
_FORMAT_NAMES = "JPEG, PNG, WebP, TIFF, BMP, GIF or PPM"


def read_image(source: object) -> UInt8[np.ndarray, "height width 3"]:
    """Reads an image into a new uint8 RGB array that shares nothing with the source.

    Files and PIL images: EXIF orientation is applied; the first frame of an animation is taken;
    grey, palette, CMYK and 1-bit images become RGB. Alpha is dropped, not blended, as Pillow's
    `convert("RGB")` does: the model sees the colours that are stored under transparent pixels.
    Grey images of 16 bits are scaled from 0..65535 to 0..255 and rounded (16-bit colour is cut to
    its upper 8 bits by Pillow). 32-bit integers must lie in 0..65535 and count as 16 bits; floats
    must lie in [0, 1].

    Arrays: [height, width] or [height, width, channels] with 1, 3 or 4 channels, RGB order; uint8,
    uint16 (scaled from 0..65535), floats in [0, 1], or bool (black and white).

    Args:
      source: a path to a JPEG, PNG, WebP, TIFF, BMP, GIF or PPM file, a `PIL.Image.Image`, or
        anything `numpy.asarray` turns into an array (NumPy, JAX). It is not changed.

    Raises:
      InputError: it is missing, damaged, truncated, not an image, larger than `MAX_PIXELS`
        (WebP: `MAX_WEBP_PIXELS`), or an array of another shape, type or range.
    """
    if isinstance(source, Image.Image):
        try:
            return _convert(source, "the PIL image")
        except InputError:
            raise
        except Exception as error:  # a lazily opened file fails in as many ways as below
            raise InputError(f"the PIL image cannot be read: {_reason(error)}") from error
    if isinstance(source, str | os.PathLike):
        return _read_file(os.fsdecode(source))
    if hasattr(source, "__array__"):
        return _read_array(source)
    raise InputError(
        f"an image is a path, a PIL image or an array, not {type(source).__name__}; "
        "open other things with PIL.Image.open first"
    )


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
        raise InputError(f"cannot list images in {str(path)!r}: {_reason(error)}") from error
    if not found:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"no images in {str(path)!r}: looked for {suffixes}")
    return found


class _TiffImage(TiffImagePlugin.TiffImageFile):
    """Pillow's TIFF reader without the size warning that it repeats while loading."""

    def load_prepare(self) -> None:
        if self._im is None:
            self.im = Image.core.new(self.mode, self._tile_size)
        ImageFile.ImageFile.load_prepare(self)


# Every way the supported formats may begin. No format that runs another program (EPS), and none
# without a signature of its own.
_READERS: tuple[tuple[bytes, type[ImageFile.ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"RIFF", WebPImagePlugin.WebPImageFile),
    (b"GIF87a", GifImagePlugin.GifImageFile),
    (b"GIF89a", GifImagePlugin.GifImageFile),
    *((start, _TiffImage) for start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    (b"BM", BmpImagePlugin.BmpImageFile),
    *((b"P" + kind, PpmImagePlugin.PpmImageFile) for kind in (b"1", b"2", b"3", b"4", b"5", b"6")),
    (b"Pf", PpmImagePlugin.PpmImageFile),
)


def _read_file(path: str) -> UInt8[np.ndarray, "height width 3"]:
    name = f"image {path!r}"
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{name} is a directory; give one image file")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise InputError(f"{name} is not a regular file")
        if status.st_size == 0:
            raise InputError(f"{name} is empty (0 bytes)")
        file = open(path, "rb")
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise InputError(f"{name} cannot be opened: {_reason(error)}") from error
    with file:
        try:
            return _convert(_identify(file, status.st_size, name), name)
        except InputError:
            raise
        # On damaged files Pillow's readers raise OSError, SyntaxError, ValueError, EOFError,
        # struct.error, zlib.error, KeyError, TypeError, MemoryError and more.
        except Exception as error:
            raise InputError(f"{name} is damaged or truncated: {_reason(error)}") from error


def _identify(file: IO[bytes], file_bytes: int, name: str) -> ImageFile.ImageFile:
    """Opens the image's header, without decoding pixels, and holds it against the limits."""
    prefix = file.read(16)
    file.seek(0)
    for start, reader in _READERS:
        if prefix.startswith(start) and (start != b"RIFF" or prefix[8:12] == b"WEBP"):
            image = reader(file)
            break
    else:
        raise InputError(f"{name} is not a {_FORMAT_NAMES} file; convert it to PNG first")
    width, height = image.size
    _check_size(width, height, name, MAX_WEBP_PIXELS if image.format == "WEBP" else MAX_PIXELS)
    if image.format == "JPEG" and width * height > _MAX_JPEG_PIXELS_PER_BYTE * file_bytes:
        raise InputError(
            f"{name} is damaged or truncated: {file_bytes} bytes cannot hold {width} x {height}"
        )
    return image


def _check_size(width: int, height: int, name: str, limit: int = MAX_PIXELS) -> None:
    if width < 1 or height < 1:
        raise InputError(f"{name} has no pixels (width {width}, height {height})")
    if width * height > limit:
        raise InputError(
            f"{name} is {width} x {height} pixels, above the limit of "
            f"{limit // 1_000_000} million; scale it down or cut it into tiles first"
        )


def _convert(image: Image.Image, name: str) -> UInt8[np.ndarray, "height width 3"]:
    _check_size(*image.size, name)
    image.load()
    orientation = _orientation(image)  # after loading: Pillow turns TIFF images there
    width, height = image.size
    upright = np.empty((width, height, 3) if orientation >= 5 else (height, width, 3), np.uint8)
    stored = _as_stored(upright, orientation)
    for rows in _strips(height, width):
        strip = image.crop((0, rows.start, width, rows.stop))
        stored[rows] = _strip_to_rgb(strip, name)
    return upright


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; a damaged EXIF block does not make the pixels unusable."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _as_stored(
    upright: UInt8[np.ndarray, "height width 3"], orientation: int
) -> UInt8[np.ndarray, "stored_height stored_width 3"]:
    """A view of the upright picture in the row and column order of the file."""
    match orientation:
        case 2:
            return upright[:, ::-1]
        case 3:
            return upright[::-1, ::-1]
        case 4:
            return upright[::-1]
        case 5:
            return upright.swapaxes(0, 1)
        case 6:
            return np.rot90(upright, 1)
        case 7:
            return upright[::-1, ::-1].swapaxes(0, 1)
        case 8:
            return np.rot90(upright, -1)
    return upright


def _strips(height: int, width: int) -> Iterator[slice]:
    step = max(1, _STRIP_PIXELS // width)
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def _strip_to_rgb(strip: Image.Image, name: str) -> UInt8[np.ndarray, "rows width channels"]:
    if strip.mode == "I":
        values = np.asarray(strip)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(
                f"{name} holds 32-bit values from {values.min()} to {values.max()}; "
                "scale them to 0..65535 (16 bits) first"
            )
        return _to_uint8(values.astype(np.uint16), name)[..., None]
    if strip.mode == "F" or strip.mode.startswith("I;16"):
        return _to_uint8(np.asarray(strip), name)[..., None]
    # A transparent colour would make Pillow warn that RGB cannot express it.
    strip.info.pop("transparency", None)
    if strip.mode in ("La", "RGBa"):  # premultiplied, which converts to plain alpha only
        strip = strip.convert(strip.mode.upper())
    return np.asarray(strip.convert("RGB"))


def _read_array(source: object) -> UInt8[np.ndarray, "height width 3"]:
    name = "the image array"
    try:
        array = np.asarray(source)
    except Exception as error:  # whatever a foreign __array__ raises
        raise InputError(f"the image cannot be made a NumPy array: {_reason(error)}") from error
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4):
        hint = "give [height, width] or [height, width, channels] with 1, 3 or 4 channels"
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = "channels come last: give array.transpose(1, 2, 0)"
        elif array.ndim == 4:
            hint = "give the images of a batch one by one"
        raise InputError(f"{name} has shape {array.shape}; {hint}")
    height, width = array.shape[:2]
    _check_size(width, height, name)
    rgb = np.empty((height, width, 3), np.uint8)
    pixels = array.reshape(height, width, channels)[..., :3]
    for rows in _strips(height, width):
        rgb[rows] = _to_uint8(pixels[rows], name)
    return rgb


def _to_uint8(values: np.ndarray, name: str) -> UInt8[np.ndarray, "..."]:
    kind, bits = values.dtype.kind, 8 * values.dtype.itemsize
    if kind == "u" and bits == 8:
        return values
    if kind == "u" and bits == 16:  # 65535 = 257 * 255
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if kind != "f" and values.dtype.name != "bfloat16":
        raise InputError(
            f"{name} has dtype {values.dtype}; give uint8, uint16, or floats in [0, 1]"
        )
    values = values.astype(np.float64)
    low, high = values.min(), values.max()
    if not np.isfinite([low, high]).all():
        raise InputError(f"{name} holds NaN or infinite values")
    if low < -_FLOAT_SLACK or high > 1 + _FLOAT_SLACK:
        outside = low if low < -_FLOAT_SLACK else high
        raise InputError(
            f"{name} holds the float {outside:g}; floats must lie in [0, 1], "
            "so rescale them or give uint8"
        )
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def _reason(error: BaseException) -> str:
    """One printable line for an error from Python or Pillow."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    line = " ".join(text.split())[:200]
    if not line or not line.isprintable():
        return type(error).__name__
    # Of the others, many say only "320".
    told = isinstance(error, OSError | ValueError | SyntaxError | EOFError)
    return line if told else f"{type(error).__name__}: {line}"


def in_order(paths: list[Path]) -> list[Path]:
    """Pictures by name, in which numbers count as numbers: 9 comes before 10."""
    return sorted(paths, key=_by_number)


def _by_number(path: Path) -> tuple[list[str | int], str]:
    # Text and numbers take turns, text first.
    parts = re.split(r"(\d+)", path.stem)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name
