"""Damaged, hostile and enormous image files: an image or one clear error, in bounded memory.

The files are read in a process of their own, so that a crash or a hang inside a decoder fails the
test instead of ending the run, and so that memory is measured from a fresh start.
"""

import functools
import io
import multiprocessing
import random
import resource
import signal
import struct
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam_jax.errors import InputError
from sam_jax.images import MAX_PIXELS, read_image

pytestmark = pytest.mark.slow

MUTATIONS_PER_SEED = 40
SECONDS_PER_FILE = 20
PEAK_BYTES = 600e6


def picture(mode: str) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (5, 6, 4), np.uint8)
    image = Image.fromarray(noise).resize((30, 23), Image.Resampling.BICUBIC)
    if mode.startswith("I"):
        values = np.asarray(image.convert("L")).astype(np.uint16) * 257
        return Image.fromarray(values if mode == "I;16" else values.astype(np.int32))
    if mode == "F":
        return Image.fromarray(np.asarray(image.convert("L"), np.float32) / 255)
    return image.convert("RGB").convert(mode) if mode == "P" else image.convert(mode)


@functools.cache
def seeds() -> list[bytes]:
    """Small valid files of many formats and modes."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "camera"
    frames = {"save_all": True, "append_images": [Image.new("RGB", (30, 23), "red")] * 2}
    recipes = [
        *(("JPEG", mode, {}) for mode in ("RGB", "L", "CMYK")),
        ("JPEG", "RGB", {"progressive": True, "exif": exif}),
        *(("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        ("PNG", "P", {"transparency": bytes(range(256)), "icc_profile": b"profile" * 99}),
        ("PNG", "RGB", {**frames, "exif": exif}),
        ("WEBP", "RGB", {"exif": exif}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("WEBP", "RGB", frames),
        *(("TIFF", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F")),
        *(("TIFF", "RGB", {"compression": c}) for c in ("tiff_lzw", "packbits", "jpeg")),
        ("TIFF", "RGB", {"compression": "tiff_adobe_deflate", "exif": exif}),
        ("TIFF", "1", {"compression": "group4"}),
        ("GIF", "P", {}),
        ("GIF", "RGB", frames),
        *(("BMP", mode, {}) for mode in ("1", "P", "RGB", "RGBA")),
        *(("PPM", mode, {}) for mode in ("1", "L", "RGB", "I")),
    ]
    files = []
    for format_name, mode, options in recipes:
        stream = io.BytesIO()
        picture(mode).save(stream, format_name, **options)
        files.append(stream.getvalue())
    return files


def mutate(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        position = rng.randrange(max(1, len(data)))
        match rng.randrange(7):
            case 0 | 1:  # bits flip, more often in the header
                for _ in range(rng.randrange(1, 9)):
                    at = rng.randrange(min(len(data), rng.choice((64, 1 << 20))) or 1)
                    data[at : at + 1] = bytes([data[at] ^ (1 << rng.randrange(8))] if data else [])
            case 2:  # the end is missing
                del data[position:]
            case 3:  # a piece is lost
                del data[position : position + rng.choice((1, 4, 12, 100))]
            case 4:  # a piece of another file, or of this one, gets in
                other = rng.choice([content, *seeds()])
                start = rng.randrange(len(other))
                data[position:position] = other[start : start + rng.choice((4, 40, 400))]
            case 5:  # an extreme number in the header
                value = rng.choice((0, 1, 0x7FFF, 0xFFFF, 20_000, 0x7FFFFFFF, 0xFFFFFFFF))
                order = rng.choice("<>") + ("H" if value <= 0xFFFF and rng.random() < 0.5 else "I")
                at = rng.randrange(64)
                data[at : at + struct.calcsize(order)] = struct.pack(order, value)
            case 6:  # noise
                data[position : position + 8] = rng.randbytes(8)
    if data.startswith(b"\x89PNG") and rng.random() < 0.7:  # or the checksums stop most of them
        return with_checksums(bytes(data))
    return bytes(data)


def with_checksums(content: bytes) -> bytes:
    """A PNG file with every chunk's checksum made right."""
    data, at = bytearray(content), 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            break
        struct.pack_into(">I", data, end, zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(data)


def png(width: int, height: int, bits: int, colour: int, pixels: bytes, *extra: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [b"IHDR" + header, *extra, b"IDAT" + pixels, b"IEND"]
    body = b"".join(struct.pack(">I", len(c) - 4) + c + b"\0\0\0\0" for c in chunks)
    return with_checksums(b"\x89PNG\r\n\x1a\n" + body)


def unpacking() -> Iterator[bytes]:
    """Small files that unpack into more than their header says."""
    zeros = zlib.compress(bytes(200_000_000))
    yield png(10, 10, 8, 2, zeros)
    yield png(10, 10, 8, 2, zlib.compress(bytes(310)), b"iCCPname\0\0" + zeros)
    yield png(10, 10, 8, 2, zlib.compress(bytes(310)), *[b"zTXtkey\0\0" + zeros] * 20)


def promising(width: int, height: int) -> Iterator[bytes]:
    """Small files with another size in their headers, or with tags that claim gigabytes."""
    yield png(width, height, 8, 2, zlib.compress(bytes(100)))
    for content in seeds():
        data = bytearray(content)
        if content.startswith(b"GIF"):
            data[6:10] = struct.pack("<HH", width, height)
        elif content.startswith(b"BM"):
            data[18:26] = struct.pack("<ii", width, height)
        elif content.startswith(b"\xff\xd8"):
            at = content.index(b"\xff\xc2" if b"\xff\xc2" in content else b"\xff\xc0")
            data[at + 5 : at + 9] = struct.pack(">HH", height, width)
        elif content[12:16] == b"VP8X":
            data[24:30] = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
        elif content.startswith(b"II*\0"):
            (directory,) = struct.unpack_from("<I", content, 4)
            for at in range(directory + 2, len(content) - 12, 12):
                (tag,) = struct.unpack_from("<H", content, at)
                if tag in (256, 257, 278):  # width, height, rows in a strip
                    struct.pack_into("<HII", data, at + 2, 4, 1, width if tag == 256 else height)
                elif tag == 282:
                    struct.pack_into("<I", data, at + 4, 1 << 28)
        elif content[:2] in (b"P4", b"P5", b"P6"):
            data[2:] = f" {width} {height} 255\n".encode()
        else:
            continue
        yield bytes(data)


def mutated() -> Iterator[bytes]:
    for index, content in enumerate(seeds()):
        rng = random.Random(index)
        for _ in range(MUTATIONS_PER_SEED):
            yield mutate(content, rng)


def outcome(path: Path) -> str:
    """Reads a file; "read" or the error's message. Anything but InputError escapes."""
    # The default action of an alarm ends the process, even inside a decoder written in C.
    signal.alarm(SECONDS_PER_FILE)
    try:
        image = read_image(path)
    except InputError as error:
        assert str(error).isprintable() and len(str(error)) < 500, error
        return str(error)
    finally:
        signal.alarm(0)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    assert 0 < image.size <= 3 * MAX_PIXELS
    return "read"


def peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def read_all(make: Callable[..., Iterator[bytes]], path: Path, *size: int) -> tuple[list[str], int]:
    """The outcome of each file, and how far the process's memory grew. The last one stays there."""
    contents = list(make(*size))
    for content in seeds():
        path.write_bytes(content)
        assert outcome(path) == "read"
    before = peak_bytes()
    outcomes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of damaged metadata
        for content in contents:
            path.write_bytes(content)
            outcomes.append(outcome(path))
    return outcomes, peak_bytes() - before


def read_flat(path: Path) -> tuple[tuple[int, ...], int]:
    """The shape of a large file of one color, and how far the process's memory grew."""
    before = peak_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(path)
    assert (image[::997] == image[0, 0]).all()
    return image.shape, peak_bytes() - before


@pytest.fixture
def elsewhere():
    """Calls a function in a fresh process; its death is a BrokenProcessPool error here."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        yield lambda function, *args: pool.submit(function, *args).result()


def test_mutated_files_are_read_or_refused(elsewhere, tmp_path):
    outcomes, grown = elsewhere(read_all, mutated, tmp_path / "mutated")
    assert len(outcomes) >= 1400
    assert outcomes.count("read") > 200 and len(outcomes) - outcomes.count("read") > 600
    assert grown < PEAK_BYTES


def test_what_a_small_file_unpacks_into_is_bounded(elsewhere, tmp_path):
    outcomes, grown = elsewhere(read_all, unpacking, tmp_path / "unpacking")
    assert "too large" in outcomes[-1]
    assert grown < 150e6


@pytest.mark.parametrize("size", [(20_000, 20_000), (65_535, 65_535), (65_535, 2_500)])
def test_a_header_above_the_limit_allocates_nothing(elsewhere, tmp_path, size):
    outcomes, grown = elsewhere(read_all, promising, tmp_path / "promising", *size)
    assert len(outcomes) > 30 and "read" not in outcomes
    assert grown < 30e6


def test_a_header_within_the_limit_allocates_no_more_than_such_an_image(elsewhere, tmp_path):
    outcomes, grown = elsewhere(read_all, promising, tmp_path / "promising", 9_000, 9_000)
    assert len(outcomes) > 30 and sum(outcome != "read" for outcome in outcomes) > 25
    assert grown < 16 * 9_000 * 9_000


@pytest.mark.parametrize(
    "format_name, mode", [("PNG", "1"), ("TIFF", "L"), ("GIF", "L"), ("JPEG", "L")]
)
def test_100_megapixels_are_read_without_a_warning(elsewhere, tmp_path, format_name, mode):
    path = tmp_path / "large"
    options = {"compression": "tiff_lzw"} if format_name == "TIFF" else {}
    Image.new(mode, (10_000, 10_000), 1).save(path, format_name, **options)
    shape, grown = elsewhere(read_flat, path)
    assert shape == (10_000, 10_000, 3)
    assert grown < PEAK_BYTES
