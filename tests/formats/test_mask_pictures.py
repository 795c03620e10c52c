"""One mask out of a picture: alpha, two values, soft edges, or a label; never a guess."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

import sam_jax
from sam_jax.errors import InputError
from sam_jax.formats.mask_pictures import read_mask

SIZE = (120, 90)
LABELS = np.zeros((90, 120), np.uint8)
LABELS[5:30, 5:50] = 1
LABELS[45:80, 40:100] = 2
FIRST, SECOND = LABELS == 1, LABELS == 2


def large_disk():
    disk = Image.new("L", (4 * SIZE[0], 4 * SIZE[1]))
    ImageDraw.Draw(disk).ellipse((60, 40, 300, 320), fill=255)
    return disk


HARD = large_disk().resize(SIZE, Image.Resampling.NEAREST)
SOFT = large_disk().resize(SIZE, Image.Resampling.LANCZOS)
DISK = np.asarray(HARD) > 0
WHITE = Image.new("L", SIZE, 255)
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)).resize(
    SIZE
)


def palette_picture(labels, colors):
    picture = Image.fromarray(labels, "P")
    picture.putpalette([*colors, *[0] * (768 - len(colors))])
    return picture


YTVOS = palette_picture(LABELS, [0, 0, 0, 236, 95, 103, 101, 64, 32])
DAVIS = palette_picture(LABELS, [0, 0, 0, 128, 0, 0, 0, 128, 0])
COLORS = np.array([[0, 0, 0], [255, 0, 0], [0, 90, 0]], np.uint8)[LABELS]


def saved(tmp_path, picture, suffix="png", **options):
    path = tmp_path / f"mask.{suffix}"
    picture.save(path, **options)
    return path


def refused(source, label=None):
    with pytest.raises(InputError) as caught:
        read_mask(source, label)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 400
    return message


def assert_close(mask, expected):
    """Alike but for pixels on the edge."""
    assert mask.dtype == bool and mask.shape == expected.shape
    assert (mask != expected).mean() < 0.01


@pytest.mark.parametrize("suffix", ["png", "tif", "gif", "bmp", "pgm"])
@pytest.mark.parametrize("mode", ["1", "L"])
def test_black_and_white_is_read_exactly(tmp_path, suffix, mode):
    path = saved(tmp_path, HARD.convert(mode), suffix)
    np.testing.assert_array_equal(read_mask(path), DISK)
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_mask(image), DISK)
    assert sam_jax.read_mask is read_mask


@pytest.mark.parametrize("value", [1, 2, 100, 128, 255])
def test_of_two_values_the_one_that_is_not_zero_is_inside(tmp_path, value):
    np.testing.assert_array_equal(
        read_mask(saved(tmp_path, Image.fromarray(DISK * np.uint8(value)))), DISK
    )
    deep = Image.fromarray(DISK * np.uint16(257 * value))
    for suffix in ("png", "tif"):
        np.testing.assert_array_equal(read_mask(saved(tmp_path, deep, suffix)), DISK)


def test_two_grays_on_both_sides_of_half_are_cut_there(tmp_path):
    np.testing.assert_array_equal(
        read_mask(saved(tmp_path, Image.fromarray(np.where(DISK, 200, 30).astype(np.uint8)))), DISK
    )


@pytest.mark.parametrize("under", [WHITE.convert("RGB"), PHOTO, Image.new("RGB", SIZE)])
def test_alpha_that_varies_is_the_mask(tmp_path, under):
    for shape, expected in ((HARD, DISK), (SOFT, np.asarray(SOFT) > 127)):
        cut_out = Image.merge("RGBA", [*under.split(), shape])
        for suffix in ("png", "tif"):
            np.testing.assert_array_equal(read_mask(saved(tmp_path, cut_out, suffix)), expected)


def test_alpha_of_other_modes_is_the_mask_too(tmp_path):
    np.testing.assert_array_equal(
        read_mask(saved(tmp_path, Image.merge("LA", [WHITE, HARD]))), DISK
    )
    one = palette_picture(FIRST.astype(np.uint8), [0, 0, 0, 9, 9, 9])
    np.testing.assert_array_equal(read_mask(saved(tmp_path, one, transparency=0)), FIRST)
    quantized = Image.merge("RGBA", [*PHOTO.split(), HARD]).quantize(200)
    np.testing.assert_array_equal(read_mask(saved(tmp_path, quantized)), DISK)
    drawn = Image.new("RGBA", (4 * SIZE[0], 4 * SIZE[1]))
    ImageDraw.Draw(drawn).ellipse((60, 40, 300, 320), fill="white")
    assert_close(read_mask(saved(tmp_path, drawn.resize(SIZE, Image.Resampling.BICUBIC))), DISK)


def test_alpha_that_is_the_same_everywhere_says_nothing(tmp_path):
    for alpha in (0, 200, 255):
        picture = Image.merge("RGBA", [HARD, HARD, HARD, Image.new("L", SIZE, alpha)])
        np.testing.assert_array_equal(read_mask(saved(tmp_path, picture)), DISK)


@pytest.mark.parametrize("picture", [YTVOS, DAVIS, Image.fromarray(LABELS)], ids=["Y", "D", "L"])
def test_label_pictures_need_a_label(tmp_path, picture):
    path = saved(tmp_path, picture)
    message = refused(path)
    assert "the labels 0, 1, 2; choose one with label=N (--label N)" in message
    np.testing.assert_array_equal(read_mask(path, 1), FIRST)
    np.testing.assert_array_equal(read_mask(path, label=2), SECOND)
    assert "no label 7: it has the labels 0, 1, 2" in refused(path, 7)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_label_is_the_stored_value_whatever_the_depth(tmp_path, bits):
    path = saved(tmp_path, YTVOS, bits=bits)
    np.testing.assert_array_equal(read_mask(path, 2), SECOND)
    rows = b"".join(
        b"\0" + np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:]).tobytes()
        for row in LABELS
    )

    def chunk(kind, data):
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    head = struct.pack(">IIBBBBB", *SIZE, bits, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks))
    np.testing.assert_array_equal(read_mask(path, 2), SECOND)


@pytest.mark.parametrize("values", [(0, 100, 200), (0, 127, 254), (0, 5, 255), (30, 100, 220)])
def test_labels_of_any_gray_are_not_cut_at_half(tmp_path, values):
    path = saved(tmp_path, Image.fromarray(np.array(values, np.uint8)[LABELS]))
    assert "label" in refused(path)
    np.testing.assert_array_equal(read_mask(path, values[1]), FIRST)
    lossy = saved(tmp_path, Image.fromarray(np.array(values, np.uint8)[LABELS]), "jpg", quality=60)
    if values[1] in (100, 127):
        assert "no picture of a mask" in refused(lossy)


def test_16_bit_labels(tmp_path):
    for suffix in ("png", "tif"):
        path = saved(tmp_path, Image.fromarray(LABELS.astype(np.uint16) * 300), suffix)
        assert "0, 300, 600" in refused(path)
        np.testing.assert_array_equal(read_mask(path, 600), SECOND)


def test_a_palette_picture_of_one_object_needs_no_label(tmp_path):
    for colors in ([0, 0, 0, 128, 0, 0], [40, 0, 0, 0, 128, 0]):
        one = palette_picture(FIRST.astype(np.uint8), colors)
        np.testing.assert_array_equal(read_mask(saved(tmp_path, one)), FIRST)
    # Of black and white, the color says what is inside, not the index.
    swapped = palette_picture((~FIRST).astype(np.uint8), [255, 255, 255, 0, 0, 0])
    np.testing.assert_array_equal(read_mask(saved(tmp_path, swapped)), FIRST)


def test_colors_are_labels(tmp_path):
    path = saved(tmp_path, Image.fromarray(COLORS))
    assert "0,0,0 and 0,90,0 and 255,0,0; choose one with label=(R, G, B)" in refused(path)
    np.testing.assert_array_equal(read_mask(path, (0, 90, 0)), SECOND)
    assert "give the label as (R, G, B)" in refused(path, 1)
    np.testing.assert_array_equal(read_mask(saved(tmp_path, YTVOS), (101, 64, 32)), SECOND)
    one = saved(tmp_path, Image.fromarray(COLORS * FIRST[..., None].astype(np.uint8)))
    np.testing.assert_array_equal(read_mask(one), FIRST)
    white = np.where(FIRST[..., None], COLORS, np.uint8(255))
    assert "255,255,255" in refused(saved(tmp_path, Image.fromarray(white)))


def test_alpha_beside_flat_colors_is_not_guessed(tmp_path):
    alpha = np.where(LABELS > 0, 255, 0).astype(np.uint8)
    for path in (
        saved(tmp_path, Image.fromarray(np.dstack([COLORS, alpha]))),
        saved(tmp_path, YTVOS, "gif", transparency=0),
    ):
        assert "--label alpha" in refused(path)
        np.testing.assert_array_equal(read_mask(path, "alpha"), LABELS > 0)
    assert "no alpha" in refused(saved(tmp_path, YTVOS), "alpha")


@pytest.mark.parametrize("quality", [20, 50, 90])
def test_lossy_masks_are_cut_at_half(tmp_path, quality):
    for picture in (HARD, SOFT, SOFT.convert("RGB")):
        path = saved(tmp_path, picture, "jpg", quality=quality)
        assert_close(read_mask(path), DISK)
        with Image.open(path) as image:
            again = saved(tmp_path, image.convert("L"))
        assert_close(read_mask(again), DISK)
        assert_close(read_mask(saved(tmp_path, picture, "webp", quality=quality)), DISK)


@pytest.mark.parametrize("radius", [0, 1, 3, 6])
def test_soft_edges_are_cut_at_half(tmp_path, radius):
    blurred = SOFT.filter(ImageFilter.GaussianBlur(radius))
    np.testing.assert_array_equal(read_mask(saved(tmp_path, blurred)), np.asarray(blurred) > 127)


def test_pictures_that_are_no_masks_are_refused(tmp_path):
    for picture in (PHOTO, PHOTO.convert("L")):
        assert "no picture of a mask" in refused(saved(tmp_path, picture))
    for value in (0, 3, 200):
        assert "shows no object" in refused(saved(tmp_path, Image.new("L", SIZE, value)))
    assert read_mask(saved(tmp_path, Image.new("L", SIZE, 3)), 3).all()
    assert read_mask(saved(tmp_path, WHITE)).all()
    assert "cannot be opened" in refused(tmp_path / "nowhere.png")
    for low, high in ((30, 100), (1, 2), (200, 255)):
        two = Image.fromarray(np.where(DISK, high, low).astype(np.uint8))
        assert f"labels {low}, {high}" in refused(saved(tmp_path, two))


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_narrow_pictures_are_read(tmp_path, width):
    path = saved(tmp_path, Image.fromarray(np.ascontiguousarray(LABELS[:, 48 : 48 + width])))
    assert "0, 1, 2" in refused(path)
    np.testing.assert_array_equal(read_mask(path, 1), FIRST[:, 48 : 48 + width])


def test_orientation_and_pages_are_those_of_the_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path, HARD, exif=exif)
    np.testing.assert_array_equal(read_mask(path), sam_jax.read_image(path)[..., 0] > 0)
    pages = [Image.fromarray(m.astype(np.uint8) * 255) for m in (FIRST, SECOND)]
    path = saved(tmp_path, pages[0], "tif", save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(read_mask(path, page=1), SECOND)
    with pytest.warns(UserWarning, match="2 pages"):
        np.testing.assert_array_equal(read_mask(path), FIRST)
