"""Image files, opened by their first bytes: header, limits, and which page is meant.

Nothing here changes Pillow's or Python's global state. Files are recognized by their first bytes
and handed to Pillow's reader of that format directly, because `PIL.Image.open` warns from 89
million pixels on: turning the warning off through `PIL.Image.MAX_IMAGE_PIXELS` or a warnings
filter would reach into the caller's program and into its other threads. `MAX_PIXELS` takes the
place of Pillow's limit and is checked on the header, before any pixel is decoded.
"""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from jaxtyping import Shaped
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    WebPImagePlugin,
)

from sam_jax.errors import InputError
from sam_jax.tiff import TiffImage, picture_pages

# Room for a 150-megapixel camera; decoding takes about 7 bytes a pixel, so 1.1 GB at the limit.
MAX_PIXELS = 160_000_000
# Pillow decodes WebP at 16 bytes a pixel, and a flat picture of this size is a file of 4 kB.
MAX_WEBP_PIXELS = 100_000_000
# Huffman coding spends at least one bit on each block of 64 pixels: 512 pixels a byte. A JPEG that
# promises more has lost its data, and libjpeg would fill the picture up with gray.
_MAX_JPEG_PIXELS_PER_BYTE = 1024

_FORMAT_NAMES = "JPEG, PNG, WebP, TIFF, BMP, GIF or PPM"
_BIG_ENDIAN_BIGTIFF = b"MM\0+"

# Every way the supported formats may begin. No format that runs another program (EPS), and none
# without a signature of its own.
_READERS: tuple[tuple[bytes, type[ImageFile.ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"RIFF", WebPImagePlugin.WebPImageFile),
    (b"GIF87a", GifImagePlugin.GifImageFile),
    (b"GIF89a", GifImagePlugin.GifImageFile),
    *((start, TiffImage) for start in (b"II*\0", b"MM\0*", b"II+\0")),
    (b"BM", BmpImagePlugin.BmpImageFile),
    *((b"P" + kind, PpmImagePlugin.PpmImageFile) for kind in (b"1", b"2", b"3", b"4", b"5", b"6")),
    (b"Pf", PpmImagePlugin.PpmImageFile),
)


@contextmanager
def opened_image(path: str, page: int | None) -> Iterator[tuple[ImageFile.ImageFile, int]]:
    """An image file's header: the image, not decoded yet, and of how many pages it is one.

    What goes wrong inside the block, in decoding say, is told as damage of the file.

    Args:
      path: of the file.
      page: which of its pages, from 0; None for the first.

    Raises:
      InputError: it is missing, damaged, no image, too large, of a kind that is not read, or has no
        such page.
    """
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
        raise InputError(f"{name} cannot be opened: {reason(error)}") from error
    with file:
        try:
            yield _identified(file, status.st_size, page, name)
        except InputError:
            raise
        # On damaged files Pillow's readers raise OSError, SyntaxError, ValueError, EOFError,
        # struct.error, zlib.error, KeyError, TypeError, MemoryError and more.
        except Exception as error:
            raise InputError(f"{name} is damaged or truncated: {reason(error)}") from error


def _identified(
    file: IO[bytes], file_bytes: int, page: int | None, name: str
) -> tuple[ImageFile.ImageFile, int]:
    prefix = file.read(16)
    if prefix.startswith(_BIG_ENDIAN_BIGTIFF):
        raise InputError(_unsupported(name, "a big-endian BigTIFF"))
    file.seek(0)
    readers = (
        reader
        for start, reader in _READERS
        if prefix.startswith(start) and (start != b"RIFF" or prefix[8:12] == b"WEBP")
    )
    reader = next(readers, None)
    if reader is None:
        raise InputError(f"{name} is not a {_FORMAT_NAMES} file; convert it to PNG first")
    of_tiff = picture_pages(file) if reader is TiffImage else []
    image = reader(file)
    places = of_tiff or range(getattr(image, "n_frames", 1))
    if page is not None and not 0 <= page < len(places):
        raise InputError(
            f"{name} has no page {page}: it has {len(places)}, and the first is page 0"
        )
    # Before a frame is sought: that composes those before it.
    _check_file(image, file_bytes, name)
    place = places[page or 0]
    if place:
        image.seek(place)
        _check_file(image, file_bytes, name)
    if isinstance(image, TiffImage) and image.unsupported:
        raise InputError(_unsupported(name, image.unsupported))
    return image, len(places)


def _unsupported(name: str, kind: str) -> str:
    return f"{name} is {kind}, which is not supported; convert it to gray or RGB of 8 or 16 bits"


def _check_file(image: ImageFile.ImageFile, file_bytes: int, name: str) -> None:
    width, height = image.size
    check_size(width, height, name, MAX_WEBP_PIXELS if image.format == "WEBP" else MAX_PIXELS)
    if image.format == "JPEG" and width * height > _MAX_JPEG_PIXELS_PER_BYTE * file_bytes:
        raise InputError(
            f"{name} is damaged or truncated: {file_bytes} bytes cannot hold {width} x {height}"
        )


def check_size(width: int, height: int, name: str, limit: int = MAX_PIXELS) -> None:
    """Refuses an image without pixels, or with too many.

    Raises:
      InputError: it is.
    """
    if width < 1 or height < 1:
        raise InputError(f"{name} has no pixels (width {width}, height {height})")
    if width * height > limit:
        raise InputError(
            f"{name} is {width} x {height} pixels, above the limit of "
            f"{limit // 1_000_000} million; scale it down or cut it into tiles first"
        )


def stored_form(image: Image.Image) -> str:
    """Pillow's name of how the pixels lie in the file, such as "RGB;16B"; empty if not known."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""
    args = tiles[0][3]
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def is_deep_color(image: Image.Image) -> bool:
    """Whether the file, not decoded yet, has 16 bits a color, of which Pillow gives the upper 8.

    Also of 16-bit gray with alpha, which Pillow reads as color. `read_lower_bytes` gives the rest.
    """
    form, _, number = stored_form(image).partition(";")
    return form in ("RGB", "RGBX", "RGBA", "R", "LA") and number in ("16B", "16L", "16N")


def read_lower_bytes(image: Any, name: str) -> None:
    """Makes an image of 16 bits a color, before it is decoded, give the lower 8 of them.

    Raises:
      InputError: Pillow does not give them for this kind of file.
    """
    planes = isinstance(image, TiffImage) and image.tag_v2.get(284, 1) == 2
    if not is_deep_color(image) or (planes and image.use_load_libtiff):
        raise InputError(
            f"{name} is of a kind of 16-bit color that scale (--scale) is not for; save it as "
            "16-bit RGB PNG, or scale its values first"
        )
    form, _, number = stored_form(image).partition(";")
    native = "B" if sys.byteorder == "big" else "L"
    order = native if number == "16N" else number[-1]
    other = "L" if order == "B" else "B"
    tiles = []
    for tile in image.tile:
        args = tile[3]
        own = args[0] if isinstance(args, tuple) else args
        # Of gray with alpha, the four bytes of a pixel as they are.
        name = "RGBA" if form == "LA" else f"{own.partition(';')[0]};16{other}"
        tiles.append(tile._replace(args=(name, *args[1:]) if isinstance(args, tuple) else name))
    image.tile = tiles


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; a damaged EXIF block does not make the pixels unusable."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def as_stored_in_file(
    upright: Shaped[np.ndarray, "height width *channel"], turned: int
) -> Shaped[np.ndarray, "stored_height stored_width *channel"]:
    """A view of the upright picture in the row and column order of a file of this orientation."""
    match turned:
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


def reason(error: BaseException) -> str:
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
