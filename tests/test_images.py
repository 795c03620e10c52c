"""What `read_image` accepts, what it makes of it, and what it says of everything else."""

import io
import os
import struct
import threading
import warnings
import zlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image, ImageFile, ImageOps, PngImagePlugin

from sam_jax import image_files, images
from sam_jax.errors import InputError
from sam_jax.image_files import MAX_WEBP_PIXELS
from sam_jax.images import MAX_PIXELS, list_images, read_image

LOSSLESS = {
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {"compression": "tiff_lzw"},
    "BMP": {},
    "PPM": {},
}


pytestmark = pytest.mark.filterwarnings("error")


def noise(height: int, width: int, *channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, *channels), np.uint8)


def smooth(height: int, width: int) -> Image.Image:
    small = Image.fromarray(noise(4, 5, 3))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format_name: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_name, **options)
    return stream.getvalue()


def refused(source: object) -> str:
    with pytest.raises(InputError) as caught:
        read_image(source)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 500
    return message


# Formats and modes


@pytest.mark.parametrize("format_name", LOSSLESS)
@pytest.mark.parametrize("size_hw", [(1, 1), (13, 7), (1, 3000), (3000, 1)])
def test_lossless_files_are_read_exactly(tmp_path, format_name, size_hw):
    pixels = noise(*size_hw, 3)
    path = tmp_path / "image"  # no suffix: the content decides
    path.write_bytes(encoded(Image.fromarray(pixels), format_name, **LOSSLESS[format_name]))
    for source in (path, str(path)):
        result = read_image(source)
        assert result.dtype == np.uint8
        np.testing.assert_array_equal(result, pixels)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}])
def test_jpeg_equals_pillow(tmp_path, options):
    path = tmp_path / "photo.png"  # a wrong suffix must not matter
    path.write_bytes(encoded(smooth(37, 50), "JPEG", **options))
    with Image.open(path) as image:
        expected = np.array(image)
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"]
)
def test_every_8_bit_mode_becomes_rgb_as_pillow_converts_it(mode):
    base = Image.fromarray(noise(9, 14, 3))
    image = base.convert("P").convert(mode) if mode in ("PA", "P") else base.convert("RGBA")
    if mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(base, *profiles, outputMode="LAB")
    elif mode not in ("PA", "P"):
        image = base.convert(mode)
    assert image.mode == mode
    np.testing.assert_array_equal(read_image(image), np.array(image.convert("RGB")))


@pytest.mark.parametrize("premultiplied, plain", [("La", "LA"), ("RGBa", "RGBA")])
def test_premultiplied_alpha_is_undone(premultiplied, plain):
    image = Image.fromarray(noise(6, 5, 4)).convert(plain).convert(premultiplied)
    expected = np.array(image.convert(plain).convert("RGB"))
    np.testing.assert_array_equal(read_image(image), expected)


def test_alpha_is_dropped_not_blended(tmp_path):
    pixels = noise(8, 9, 4)
    pixels[:4, :, 3] = 0
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    np.testing.assert_array_equal(read_image(path), pixels[..., :3])


@pytest.mark.parametrize("transparency", [0, bytes(range(0, 250, 10))])
def test_palette_with_transparency_gives_its_colours_without_a_warning(tmp_path, transparency):
    image = Image.fromarray(noise(10, 11, 3)).quantize(25)
    path = tmp_path / "p.png"
    image.save(path, transparency=transparency)
    np.testing.assert_array_equal(read_image(path), np.array(image.convert("RGB")))
    with Image.open(path) as opened:
        read_image(opened)
        assert opened.mode == "P" and "transparency" in opened.info


def test_cmyk_jpeg_is_converted(tmp_path):
    path = tmp_path / "print.jpg"
    smooth(20, 30).convert("CMYK").save(path, quality=95)
    np.testing.assert_allclose(read_image(path), np.array(smooth(20, 30)), atol=40)
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_image(path), np.array(image.convert("RGB")))


@pytest.mark.parametrize("format_name", ["GIF", "WEBP", "TIFF", "PNG"])
def test_the_first_frame_of_several_is_read(tmp_path, format_name):
    frames = [Image.new("RGB", (12, 8), colour) for colour in ("red", "blue", "lime")]
    path = tmp_path / "frames"
    path.write_bytes(
        encoded(frames[0], format_name, save_all=True, append_images=frames[1:], lossless=True)
    )
    with pytest.warns(UserWarning, match="frames' has 3 pages or frames.*--page N.*0 to 2"):
        assert (read_image(path) == (255, 0, 0)).all()


# Orientation

UPRIGHT = noise(7, 12, 3, seed=4)
TURNED = {  # what a camera stores, for each orientation that it may note
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.transpose(1, 0, 2),
    6: UPRIGHT.transpose(1, 0, 2)[::-1],
    7: UPRIGHT.transpose(1, 0, 2)[::-1, ::-1],
    8: UPRIGHT.transpose(1, 0, 2)[:, ::-1],
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("format_name", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("strip_pixels", [1 << 20, 20])
def test_exif_orientation_is_applied(tmp_path, monkeypatch, orientation, format_name, strip_pixels):
    monkeypatch.setattr(images, "_STRIP_PIXELS", strip_pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(TURNED[orientation]))
    path = tmp_path / "turned"
    path.write_bytes(encoded(stored, format_name, exif=exif, **LOSSLESS[format_name]))
    np.testing.assert_array_equal(read_image(path), UPRIGHT)
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_image(image), UPRIGHT)


def test_exif_orientation_of_a_jpeg_equals_pillows(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "phone.jpg"
    smooth(20, 33).save(path, exif=exif)
    with Image.open(path) as image:
        expected = np.array(ImageOps.exif_transpose(image))
    assert expected.shape == (33, 20, 3)
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0junk", b"Exif\0\0"])
def test_a_damaged_exif_block_does_not_spoil_the_pixels(tmp_path, exif):
    path = tmp_path / "odd.jpg"
    smooth(20, 33).save(path, exif=exif)
    content = path.read_bytes()
    assert exif in content
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow may warn of it
        result = read_image(path)
        with Image.open(path) as image:
            np.testing.assert_array_equal(result, np.array(image))


def test_exif_that_pillow_cannot_parse_is_ignored(tmp_path):
    metadata = PngImagePlugin.PngInfo()
    metadata.add_text("Raw profile type exif", "\nexif\n  8\nnot hexadecimal")
    path = tmp_path / "odd.png"
    Image.fromarray(UPRIGHT).save(path, pnginfo=metadata)
    with Image.open(path) as image, pytest.raises(ValueError):
        image.getexif()
    np.testing.assert_array_equal(read_image(path), UPRIGHT)


# Depth


@pytest.mark.parametrize(
    "format_name, mode", [("PNG", "I;16"), ("TIFF", "I;16"), ("TIFF", "I;16B")]
)
def test_16_bit_grey_files_are_scaled_and_rounded(tmp_path, format_name, mode):
    values = np.random.default_rng(1).integers(0, 65536, (11, 13), np.uint16)
    stored = values.astype(">u2") if mode == "I;16B" else values
    image = Image.frombytes(mode, (13, 11), stored.tobytes())
    path = tmp_path / "deep"
    path.write_bytes(encoded(image, format_name))
    expected = np.repeat(np.rint(values / 257)[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_image(path), expected)
    np.testing.assert_array_equal(read_image(image), expected)


def test_16_bit_colour_is_scaled_not_clipped(tmp_path):
    values = np.random.default_rng(2).integers(0, 65536, (6, 5, 3), np.uint16)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    path = tmp_path / "deep.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 6, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    np.testing.assert_allclose(read_image(path), values / 257, atol=1)


def test_every_uint16_value_is_rounded_to_the_nearest():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(read_image(values)[..., 1], np.rint(values / 257))
    np.testing.assert_array_equal(read_image(values.astype(">u2"))[..., 1], np.rint(values / 257))


def test_32_bit_integers_count_as_16_bits_or_are_refused(tmp_path):
    values = np.array([[0, 257, 65535]], np.int32)
    path = tmp_path / "i.tif"
    Image.fromarray(values).save(path)
    np.testing.assert_array_equal(read_image(path)[..., 0], [[0, 1, 255]])
    for bad in (-1, 65536):
        Image.fromarray(np.array([[5, bad]], np.int32)).save(path)
        assert str(bad) in refused(path)


def test_float_files_follow_the_rule_for_float_arrays(tmp_path):
    path = tmp_path / "f.tif"
    Image.fromarray(np.array([[0, 0.5, 1]], np.float32)).save(path)
    np.testing.assert_array_equal(read_image(path)[..., 2], [[0, 128, 255]])
    Image.fromarray(np.array([[0, 200.5]], np.float32)).save(path)
    assert "200.5" in refused(path)
    Image.fromarray(np.array([[0, np.nan]], np.float32)).save(path)
    assert "NaN" in refused(path)


# Arrays


@given(
    npst.arrays(
        np.uint8, npst.array_shapes(min_dims=2, max_dims=2, max_side=9).map(lambda s: (*s, 4))
    ),
    st.sampled_from([None, 1, 3, 4]),
)
def test_uint8_arrays_keep_their_values(array, channels):
    given_array = array[..., 0] if channels is None else array[..., :channels]
    grey = channels in (None, 1)
    expected = np.repeat(array[..., :1], 3, axis=2) if grey else array[..., :3]
    result = read_image(given_array)
    np.testing.assert_array_equal(result, expected)
    assert result.flags.c_contiguous and result.flags.owndata
    assert not np.shares_memory(result, array)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_in_0_to_1_come_back_as_the_uint8_they_were_made_from(dtype):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(read_image((levels / 255).astype(dtype))[..., 0], levels)


def test_floats_round_to_the_nearest_level_and_forgive_rounding_noise():
    values = np.array([[0.4 / 255, 0.6 / 255, 1 + 1e-6, -1e-6]])
    np.testing.assert_array_equal(read_image(values)[0, :, 0], [0, 1, 255, 0])


def test_booleans_are_black_and_white():
    np.testing.assert_array_equal(read_image(np.array([[True, False]]))[0, :, 0], [255, 0])


def test_jax_arrays_are_read():
    pixels = noise(5, 6, 3)
    np.testing.assert_array_equal(read_image(jnp.asarray(pixels)), pixels)
    half = read_image(jnp.full((2, 3), 0.5, jnp.bfloat16))
    np.testing.assert_array_equal(half, np.full((2, 3, 3), 128))


@pytest.mark.parametrize("strip_pixels", [1, 10, 1 << 20])
def test_arrays_longer_than_a_strip_are_read_whole(monkeypatch, strip_pixels):
    monkeypatch.setattr(images, "_STRIP_PIXELS", strip_pixels)
    pixels = noise(23, 7, 3)[::-1, ::2]
    np.testing.assert_array_equal(read_image(pixels), pixels)
    np.testing.assert_array_equal(read_image(Image.fromarray(pixels)), pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, bool])
def test_the_callers_array_is_not_changed_and_may_be_read_only(dtype):
    array = (noise(4, 5, 3) % 2).astype(dtype)
    array *= dtype(65535 if dtype is np.uint16 else 1)
    before = array.copy()
    array.flags.writeable = False
    result = read_image(array)
    result[:] = 7
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize(
    "array, reason",
    [
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.zeros((4, 4, 3), np.int8), "int8"),
        (np.zeros((4, 4), np.uint32), "uint32"),
        (np.zeros((4, 4), complex), "complex"),
        (np.array([["a", "b"]]), "<U1"),
        (np.array([[None, 1]]), "object"),
        (np.zeros((2, 2), "datetime64[s]"), "datetime64"),
        (np.full((4, 4, 3), 255.0), "255"),
        (np.full((4, 4), -0.5), "-0.5"),
        (np.array([[0.1, np.nan]]), "NaN"),
        (np.array([[0.1, -np.inf]]), "infinite"),
        (np.zeros((3, 40, 50), np.uint8), "transpose"),
        (np.zeros((1, 40, 50), np.uint8), "transpose"),
        (np.zeros((40, 50, 2), np.uint8), r"(40, 50, 2)"),
        (np.zeros((40, 50, 5), np.uint8), r"(40, 50, 5)"),
        (np.zeros((2, 40, 50, 3), np.uint8), "one by one"),
        (np.zeros(7, np.uint8), "(7,)"),
        (np.uint8(3), "()"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (np.zeros((5, 0), np.uint8), "no pixels"),
        (np.zeros((40, 50, 0), np.uint8), "(40, 50, 0)"),
    ],
)
def test_other_arrays_are_refused_with_the_reason(array, reason):
    assert reason in refused(array)


@pytest.mark.parametrize("source", [None, 5, b"bytes", [[1, 2], [3, 4]], io.BytesIO(b""), {}, int])
def test_other_things_are_refused_by_type(source):
    assert type(source).__name__ in refused(source)


def test_an_array_that_cannot_be_had_is_refused():
    class Elsewhere:
        def __array__(self, dtype=None, copy=None):
            raise TypeError("the tensor lives\non a GPU")

    assert "the tensor lives on a GPU" in refused(Elsewhere())


def test_arrays_above_the_limit_are_refused_at_once():
    huge = np.broadcast_to(np.uint8(0), (20_000, 20_000, 3))
    assert "20000 x 20000" in refused(huge)


# Files that are not images


def test_files_that_cannot_be_opened_are_named(tmp_path, monkeypatch):
    missing = tmp_path / "a\nb.png"
    assert "No such file" in refused(missing) and "a\\nb.png" in refused(missing)
    assert "directory" in refused(tmp_path)
    empty = tmp_path / "empty.jpg"
    empty.touch()
    assert "empty" in refused(str(empty))
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    assert "loop.png" in refused(loop)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "not a regular file" in refused(pipe)
    assert "null" in refused("a\0b.png")
    assert "image ''" in refused("")
    assert "File name too long" in refused("x" * 300)
    refused("\ud800.png")

    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    empty.write_bytes(b"x")
    monkeypatch.setattr("builtins.open", denied)
    assert "Permission denied" in refused(empty)


@pytest.mark.parametrize(
    "content",
    [b"\0", b"hello, world", b"P", b"P6", b"%!PS-Adobe", b"BM", b"\xff\xd8\xff", b"RIFF" * 9],
)
def test_files_that_are_no_images_are_refused(tmp_path, content):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    assert repr(str(path)) in refused(path)


@pytest.mark.parametrize("format_name", [*LOSSLESS, "JPEG", "GIF", "raw TIFF"])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.97])
def test_truncated_files_are_refused(tmp_path, format_name, kept):
    options = LOSSLESS.get(format_name, {})
    content = encoded(Image.fromarray(noise(60, 80, 3)), format_name.split()[-1], **options)
    path = tmp_path / "cut"
    path.write_bytes(content[: int(kept * len(content))])
    message = refused(path)
    assert "truncated" in message or "not a JPEG" in message


def test_a_truncated_file_opened_by_the_caller_is_refused(tmp_path):
    path = tmp_path / "cut.jpg"
    content = encoded(smooth(200, 300), "JPEG")
    path.write_bytes(content[: len(content) // 2])
    with Image.open(path) as image:
        assert "truncated" in refused(image)
    assert "PIL image" in refused(image)  # closed by now
    assert "no pixels" in refused(Image.new("RGB", (0, 5)))


def test_a_jpeg_whose_header_promises_more_than_its_bytes_hold_is_refused(tmp_path):
    content = bytearray(encoded(smooth(20, 30), "JPEG"))
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", 12_000, 12_000)
    path = tmp_path / "more.jpg"
    path.write_bytes(content)
    assert "cannot hold 12000 x 12000" in refused(path)


# Size limits and Pillow's global state


def with_size(content: bytes, format_name: str, width: int, height: int) -> bytes:
    """The file with another size written into its header."""
    data = bytearray(content)
    if format_name == "PNG":
        data[16:24] = struct.pack(">II", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif format_name == "BMP":
        data[18:26] = struct.pack("<ii", width, height)
    elif format_name == "GIF":
        data[6:10] = struct.pack("<HH", width, height)
    elif format_name == "JPEG":
        frame = data.index(b"\xff\xc0")
        data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    elif format_name == "TIFF":
        entries = struct.unpack_from("<I", data, 4)[0] + 2
        for entry in range(entries, len(data) - 12, 12):
            tag = struct.unpack_from("<H", data, entry)[0]
            if tag in (256, 257):
                struct.pack_into("<HII", data, entry + 2, 4, 1, width if tag == 256 else height)
    elif format_name == "PPM":
        data = bytearray(f"P6 {width} {height} 255\n".encode())
    return bytes(data)


@pytest.mark.parametrize("format_name", ["PNG", "BMP", "GIF", "JPEG", "TIFF", "PPM"])
def test_sizes_above_the_limit_are_refused_before_decoding(tmp_path, monkeypatch, format_name):
    path = tmp_path / "huge"
    content = encoded(smooth(20, 30), format_name)
    path.write_bytes(content)
    assert read_image(path).shape == (20, 30, 3)

    def load(self):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    path.write_bytes(with_size(content, format_name, 13_000, 12_400))
    message = refused(path)
    assert "13000 x 12400" in message and "160 million" in message


def test_webp_has_a_lower_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "MAX_WEBP_PIXELS", 1_000_000)
    path = tmp_path / "big.webp"
    Image.new("RGB", (1001, 1000)).save(path, lossless=True)
    assert "1 million" in refused(path)
    assert MAX_WEBP_PIXELS == 10_000 * 10_000 < MAX_PIXELS


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "WEBP", "TIFF", "raw TIFF", "BMP", "GIF"])
def test_pillows_limit_and_warning_play_no_part(tmp_path, monkeypatch, format_name):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_100_000)
    options = LOSSLESS.get(format_name, {})
    path = tmp_path / "large"
    path.write_bytes(encoded(Image.new("RGB", (1300, 1000)), format_name.split()[-1], **options))
    with pytest.raises(Image.DecompressionBombWarning), Image.open(path):
        pass
    assert read_image(path).shape == (1000, 1300, 3)
    assert Image.MAX_IMAGE_PIXELS == 1_100_000
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_many_threads_read_the_same_files(tmp_path):
    expected = {}
    for index, format_name in enumerate(LOSSLESS):
        path = tmp_path / str(index)
        pixels = noise(40, 50 + index, 3, seed=index)
        path.write_bytes(encoded(Image.fromarray(pixels), format_name, **LOSSLESS[format_name]))
        expected[path] = pixels
    good = []

    def work():
        for _ in range(5):
            for path, pixels in expected.items():
                good.append(np.array_equal(read_image(path), pixels))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(good) == 4 * 5 * len(LOSSLESS) and all(good)


@settings(max_examples=60)
@given(st.data())
def test_a_png_with_one_changed_byte_is_read_or_refused(tmp_path_factory, data):
    content = bytearray(encoded(smooth(9, 8), "PNG"))
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "mutated.png"
    path.write_bytes(content)
    try:
        result = read_image(path)
    except InputError as error:
        assert str(error).isprintable()
    else:
        assert result.dtype == np.uint8 and result.ndim == 3


# Directories


def test_images_of_a_directory_are_listed_by_name(tmp_path):
    for name in ["b.JPG", "a.png", "c.webp", "notes.txt", ".hidden.png", "._b.jpg", "noext"]:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.png" / "inner.png").write_bytes(b"x")
    assert list_images(tmp_path) == [tmp_path / "a.png", tmp_path / "b.JPG", tmp_path / "c.webp"]
    assert list_images(str(tmp_path / "folder.png")) == [tmp_path / "folder.png" / "inner.png"]


@pytest.mark.parametrize("name", ["missing", "empty", "file.png", "nul\0l"])
def test_directories_without_images_are_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.png").write_bytes(b"x")
    with pytest.raises(InputError, match=name.replace("\0", r"\\x00")):
        list_images(Path(tmp_path) / name)
