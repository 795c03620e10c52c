"""TIFF of every kind, pages, and which number is white: read right, or refused by name."""

import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from sam_jax.errors import InputError
from sam_jax.images import read_image

pytestmark = pytest.mark.filterwarnings("error")

HEIGHT, WIDTH = 37, 50
RAMP = np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
COLORS = np.dstack([RAMP, RAMP[::-1], RAMP[:, ::-1]])
# Tags: white or black is zero, and so on.
FORMATS = {"u": 1, "i": 2, "f": 3}


def lzw(data: bytes) -> bytes:
    """LZW whose codes never grow: the table is cleared before it does."""
    codes = []
    for start in range(0, len(data), 200):
        codes += [256, *data[start : start + 200]]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8)


COMPRESSIONS = {1: bytes, 5: lzw, 8: zlib.compress}


def pieces_of(pixels: np.ndarray, tile: int | None) -> list[np.ndarray]:
    """Strips of ten rows, or tiles, filled up with zeros."""
    if tile is None:
        return [pixels[top : top + 10] for top in range(0, len(pixels), 10)]
    rows, columns = -(-pixels.shape[0] // tile), -(-pixels.shape[1] // tile)
    full = np.zeros((rows * tile, columns * tile, *pixels.shape[2:]), pixels.dtype)
    full[: pixels.shape[0], : pixels.shape[1]] = pixels
    starts = [(y * tile, x * tile) for y in range(rows) for x in range(columns)]
    return [full[y : y + tile, x : x + tile] for y, x in starts]


def packed(piece: np.ndarray, bits: int) -> bytes:
    """Rows of numbers of so many bits, each row filled up to a byte."""
    rows = piece.reshape(len(piece), -1)
    ones = (rows[..., None].astype(np.uint32) >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(ones.reshape(len(piece), -1).astype(np.uint8), axis=1).tobytes()


def tiff(
    pixels: np.ndarray,
    *,
    order: str = "<",
    photometric: int = 1,
    compression: int = 1,
    tile: int | None = None,
    big: bool = False,
    bits: int | None = None,
    planes: bool = False,
    extra: tuple[int, ...] = (),
    subfile: int = 0,
    after: bytes = b"",
) -> bytes:
    """A TIFF file, written from the specification."""
    pixels = pixels.astype(pixels.dtype.newbyteorder(order))
    depth = bits or 8 * pixels.dtype.itemsize
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    layers = [pixels[..., i] for i in range(samples)] if planes else [pixels]
    pieces = [
        COMPRESSIONS[compression](packed(piece, bits) if bits else piece.tobytes())
        for layer in layers
        for piece in pieces_of(layer, tile)
    ]
    start = 16 if big else 8
    offsets = [start + sum(map(len, pieces[:i])) for i in range(len(pieces))]
    entries = {
        254: [subfile],
        256: [pixels.shape[1]],
        257: [pixels.shape[0]],
        258: [depth] * samples,
        259: [compression],
        262: [photometric],
        (324 if tile else 273): offsets,
        277: [samples],
        (325 if tile else 279): [len(piece) for piece in pieces],
        284: [2 if planes else 1],
        339: [FORMATS[pixels.dtype.kind]] * samples,
    }
    entries |= {322: [tile], 323: [tile]} if tile else {278: [10]}
    entries |= {338: list(extra)} if extra else {}
    body, place = b"".join(pieces), start + sum(map(len, pieces))
    directory, values = b"", b""
    count, offset = ("Q", "Q") if big else ("H", "I")
    size = struct.calcsize(order + count) + len(entries) * (20 if big else 12) + (8 if big else 4)
    for tag, numbers in sorted(entries.items()):
        data = struct.pack(f"{order}{len(numbers)}I", *numbers)
        directory += struct.pack(order + "HH" + ("Q" if big else "I"), tag, 4, len(numbers))
        if len(data) <= (8 if big else 4):
            directory += data.ljust(8 if big else 4, b"\0")
        else:
            directory += struct.pack(order + offset, place + size + len(values))
            values += data
    head = b"II" if order == "<" else b"MM"
    head += struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0) if big else (42,)), place)
    number = struct.pack(order + count, len(entries))
    return head + body + number + directory + struct.pack(order + offset, 0) + values + after


def stored(share: np.ndarray, dtype: str, bits: int | None = None) -> np.ndarray:
    """Shares of white as numbers of a type."""
    if dtype.startswith("f"):
        return share.astype(dtype)
    white = 2**bits - 1 if bits else 65535 if dtype[1] == "4" else np.iinfo(dtype).max
    return np.rint(share * white).astype(dtype)


def written(tmp_path, content: bytes):
    path = tmp_path / "image.tif"
    path.write_bytes(content)
    return path


def refused(source, **options) -> str:
    with pytest.raises(InputError) as caught:
        read_image(source, **options)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 400
    return message


KINDS = [("u1", 1), ("u1", 2), ("u1", 4), ("u1", None), ("u2", 12), ("u2", None), ("u4", None)]
KINDS += [("i2", None), ("i4", None), ("f2", None), ("f4", None), ("f8", None)]


@pytest.mark.parametrize("dtype, bits", KINDS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("tile", [None, 16])
def test_gray_of_every_depth_is_read_the_right_way_round(tmp_path, dtype, bits, compression, tile):
    pixels = stored(RAMP, dtype, bits)
    for order in "<>":
        for photometric, expected in ((0, 1 - RAMP), (1, RAMP)):
            content = tiff(
                pixels,
                order=order,
                photometric=photometric,
                compression=compression,
                tile=tile,
                bits=bits,
            )
            found = read_image(written(tmp_path, content))
            # Half a step of 8 bits, and half of the stored depth.
            limit = 0.5 + 128 / (2**bits - 1 if bits else 255)
            assert found.shape == (HEIGHT, WIDTH, 3)
            assert np.abs(found - 255 * expected[..., None]).max() <= limit + 0.13


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_color_of_8_and_16_bits(tmp_path, compression, planes, dtype):
    for order in "<>":
        for tile in (None, 16):
            content = tiff(
                stored(COLORS, dtype),
                order=order,
                photometric=2,
                compression=compression,
                tile=tile,
                planes=planes,
            )
            found = read_image(written(tmp_path, content))
            np.testing.assert_allclose(found, 255 * COLORS, atol=1.01)


def test_big_tiff(tmp_path):
    for photometric, expected in ((0, 1 - RAMP), (1, RAMP)):
        content = tiff(stored(RAMP, "u2"), big=True, photometric=photometric)
        found = read_image(written(tmp_path, content))
        np.testing.assert_allclose(found[..., 0], 255 * expected, atol=0.51)
    content = tiff(stored(RAMP, "u2"), big=True, order=">")
    assert "is a big-endian BigTIFF, which is not supported" in refused(written(tmp_path, content))


@pytest.mark.parametrize(
    "pixels, options, kind",
    [
        (COLORS.astype("f4"), {"photometric": 2}, "32-bit float RGB"),
        (COLORS.astype("f8"), {"photometric": 2}, "64-bit float RGB"),
        (stored(COLORS, "u4"), {"photometric": 2, "planes": True}, "32-bit unsigned RGB"),
        (stored(RAMP, "i1"), {}, "8-bit signed gray"),
        (np.zeros((9, 8, 5), "u1"), {"photometric": 2, "extra": (0, 0)}, "5 bands"),
        (np.zeros((9, 8, 5), "u1"), {"photometric": 2, "extra": (2, 0)}, "5 bands"),
        (np.zeros((9, 8, 6), "u2"), {"photometric": 2, "extra": (0,) * 3, "planes": True}, "6 "),
        (np.zeros((9, 8, 3), "u1"), {"extra": (0, 0)}, "8-bit unsigned gray with 3 bands"),
        (np.zeros((9, 8, 2), "u1"), {"extra": (0,)}, "2 bands"),
        (np.zeros((9, 8, 2), "f4"), {"extra": (0,)}, "32-bit float gray with 2 bands"),
        (np.zeros((9, 8, 3), "u1"), {"photometric": 6}, "subsampled YCbCr"),
    ],
)
def test_kinds_that_are_not_supported_are_named(tmp_path, pixels, options, kind):
    for compression in (1, 8) if "YCbCr" not in kind else (1,):
        message = refused(written(tmp_path, tiff(pixels, compression=compression, **options)))
        assert kind in message and "not supported" in message and "damaged" not in message


def test_alpha_and_one_more_band_are_left_out(tmp_path):
    gray = np.dstack([stored(RAMP, "u1"), stored(RAMP.T.reshape(HEIGHT, WIDTH), "u1")])
    found = read_image(written(tmp_path, tiff(gray, extra=(2,))))
    np.testing.assert_array_equal(found[..., 0], gray[..., 0])
    four = np.dstack([stored(COLORS, "u1"), gray[..., 0]])
    found = read_image(written(tmp_path, tiff(four, photometric=2, extra=(0,))))
    np.testing.assert_array_equal(found, four[..., :3])


# Which number is white


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_few_bits_in_16_are_told_and_can_be_scaled(tmp_path, bits):
    white = 2**bits - 1
    values = np.rint(RAMP * white).astype(np.uint16)
    png, tif = tmp_path / "deep.png", written(tmp_path, tiff(values))
    cv2.imwrite(str(png), values)
    for source in (png, tif, values):
        match = f"values up to {white} where 65535 is white.*of {bits} bits, give scale='auto'"
        with pytest.warns(UserWarning, match=match):
            dark = read_image(source)
        np.testing.assert_array_equal(dark[..., 0], np.rint(values / 257))
        for scale in ("auto", white, float(white)):
            found = read_image(source, scale=scale)
            np.testing.assert_array_equal(found[..., 0], np.rint(values * (255 / white)))


def test_the_whole_range_is_read_without_a_word():
    for dtype in ("u1", "u2", "f4"):
        found = read_image(stored(RAMP, dtype))
        np.testing.assert_array_equal(read_image(stored(RAMP, dtype), scale="auto"), found)
    assert not read_image(np.zeros((4, 5), np.uint16)).any()


def test_white_is_zero_of_12_bits_in_16(tmp_path):
    values = np.rint(RAMP * 4095).astype(np.uint16)
    path = written(tmp_path, tiff(values, photometric=0))
    with pytest.warns(UserWarning, match="values up to 4095"):
        read_image(path)
    np.testing.assert_allclose(read_image(path, scale=4095)[..., 0], 255 * (1 - RAMP), atol=0.6)


@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("channels", [3, 4])
def test_deep_color_is_scaled_by_all_its_bits(tmp_path, planes, channels):
    values = np.rint(COLORS * 4095).astype(np.uint16)
    wanted = np.rint(values * (255 / 4095))
    alpha = np.full((HEIGHT, WIDTH, channels - 3), 65535, np.uint16)
    whole = np.concatenate([values, alpha], axis=2)
    png = tmp_path / "deep.png"
    cv2.imwrite(str(png), whole[..., [2, 1, 0, 3][:channels]])
    extra = (2,) if channels == 4 else ()
    sources = [png]
    for order in "<>" if not (planes and channels == 4) else "":
        for compression in (1, 5) if not planes else (1,):
            sources.append(tmp_path / f"{ord(order)}{compression}.tif")
            content = tiff(
                whole,
                order=order,
                photometric=2,
                compression=compression,
                planes=planes,
                extra=extra,
            )
            sources[-1].write_bytes(content)
    for source in sources:
        with pytest.warns(UserWarning, match="nearly black"):
            read_image(source)
        for scale in ("auto", 4095):
            np.testing.assert_array_equal(read_image(source, scale=scale), wanted)


def test_deep_color_that_cannot_be_scaled_is_refused(tmp_path):
    content = tiff(stored(COLORS, "u2"), photometric=2, planes=True, compression=8)
    assert "16-bit color that scale (--scale) is not for" in refused(
        written(tmp_path, content), scale="auto"
    )


def test_scales_above_and_below(tmp_path):
    values = np.array([[0, 500, 1000, 65535]], np.uint16)
    np.testing.assert_array_equal(read_image(values, scale=1000)[0, :, 0], [0, 128, 255, 255])
    floats = np.array([[0, 100, 200.0]])
    assert "200" in refused(floats) and "--scale" in refused(floats)
    np.testing.assert_array_equal(read_image(floats, scale="auto")[0, :, 0], [0, 100, 200])
    path = written(tmp_path, tiff(np.array([[0, 2**31, 2**32 - 1]], "u4")))
    assert "4294967295" in refused(path)
    np.testing.assert_array_equal(read_image(path, scale="auto")[0, :, 0], [0, 128, 255])
    path = written(tmp_path, tiff(np.array([[-5, 9]], "i2")))
    assert "holds the value -5" in refused(path) and "-5" in refused(path, scale="auto")
    # 8-bit images stay as they are, in a folder of both.
    np.testing.assert_array_equal(read_image(np.full((2, 2), 9, np.uint8), scale=15), 9)
    for scale in (0, -1, float("nan"), float("inf"), True):
        assert "scale is 'auto' or the number" in refused(floats, scale=scale)


# Pages


def pages(tmp_path, format_name, count=3):
    frames = [Image.new("RGB", (12, 8), color) for color in ("red", "lime", "blue")[:count]]
    path = tmp_path / f"pages.{format_name}"
    options = {"save_all": True, "append_images": frames[1:], "lossless": True}
    frames[0].save(path, format_name, **options)
    return path


@pytest.mark.parametrize("format_name", ["GIF", "WEBP", "TIFF", "PNG"])
def test_a_page_is_chosen_without_a_warning(tmp_path, format_name):
    path = pages(tmp_path, format_name)
    for page, color in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        assert (read_image(path, page=page) == color).all()
    for page in (3, -1, 99):
        assert f"no page {page}: it has 3, and the first is page 0" in refused(path, page=page)


@pytest.mark.parametrize("format_name", ["GIF", "WEBP", "TIFF", "PNG", "JPEG", "BMP", "PPM"])
def test_one_page_is_nothing_to_warn_of(tmp_path, format_name):
    path = tmp_path / "one"
    Image.new("RGB", (12, 8), "red").save(path, format_name)
    assert read_image(path).shape == read_image(path, page=0).shape == (8, 12, 3)
    assert "no page 1: it has 1" in refused(path, page=1)


def test_page_is_for_files():
    for source in (np.zeros((4, 5), np.uint8), Image.new("L", (5, 4))):
        assert "page chooses a page of a file" in refused(source, page=0)


def test_reduced_copies_and_masks_are_no_pages(tmp_path):
    def saved(kinds):
        images = [Image.new("L", (8, 8), 10 * (i + 1)) for i in range(len(kinds))]
        path = tmp_path / "pyramid.tif"
        from PIL.TiffImagePlugin import AppendingTiffWriter

        with AppendingTiffWriter(str(path), True) as file:
            for image, kind in zip(images, kinds, strict=True):
                image.save(file, "TIFF", tiffinfo={254: kind})
                file.newFrame()
        return path

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(saved([0, 1, 1, 4]))[0, 0, 0] == 10
        assert read_image(saved([1, 0]))[0, 0, 0] == 20  # the thumbnail comes first
    path = saved([1, 0, 1, 2])
    assert [read_image(path, page=i)[0, 0, 0] for i in range(2)] == [20, 40]
    assert "it has 2" in refused(path, page=2)
    assert read_image(saved([1, 1]), page=1)[0, 0, 0] == 20


def test_a_page_of_a_kind_that_is_not_supported_spoils_no_other(tmp_path):
    first = tiff(stored(RAMP, "u1"))
    place = struct.unpack_from("<I", first, 4)[0]
    entries = struct.unpack_from("<H", first, place)[0]
    other = bytearray(tiff(COLORS.astype("f4"), photometric=2))
    # The second file's directory behind the first, every place in it moved.
    joined = bytearray(first)
    struct.pack_into("<I", joined, place + 2 + 12 * entries, len(first) + 0)
    start = struct.unpack_from("<I", other, 4)[0]
    count = struct.unpack_from("<H", other, start)[0]
    directory = other[start : start + 2 + 12 * count + 4]
    moved = len(first) + len(directory) - 0
    for i in range(count):
        tag, _, number, value = struct.unpack_from("<HHII", directory, 2 + 12 * i)
        if number > 1:
            struct.pack_into("<I", directory, 2 + 12 * i + 8, value + moved)
    path = written(tmp_path, bytes(joined + directory + other))
    np.testing.assert_array_equal(read_image(path, page=0)[..., 0], stored(RAMP, "u1"))
    assert "32-bit float RGB" in refused(path, page=1)


def test_a_jpeg_with_a_second_picture_in_it_is_one_image(tmp_path):
    path = tmp_path / "phone.jpg"
    Image.new("RGB", (12, 8), "red").save(
        path, "MPO", save_all=True, append_images=[Image.new("RGB", (6, 4))]
    )
    assert read_image(path).shape == (8, 12, 3)
