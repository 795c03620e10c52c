"""Label PNGs: the values that Pillow and OpenCV read, which mask is on top, damaged files."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from sam_jax.errors import InputError
from sam_jax.formats import label_png as module
from sam_jax.formats.label_png import MAX_MASKS, label_png, masks_of_labels, read_label_png


def one_pixel_masks(count, size_hw):
    for index in range(count):
        mask = np.zeros(size_hw, bool)
        mask.reshape(-1)[index] = True
        yield mask


def painted(masks, size_hw):
    """Largest first, so that the smaller ones cover it; of equals the first last."""
    labels = np.zeros(size_hw, int)
    for index in sorted(range(len(masks)), key=lambda i: (-masks[i].sum(), -i)):
        labels[masks[index]] = index + 1
    return labels


@st.composite
def stacks(draw):
    size_hw = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    return draw(hnp.arrays(bool, (draw(st.integers(0, 7)), *size_hw)))


@given(stacks())
@settings(deadline=None, max_examples=60)
def test_any_masks_are_painted_with_the_smaller_on_top(tmp_path_factory, masks):
    size_hw = masks.shape[1:]
    content = label_png(iter(masks), size_hw)
    path = tmp_path_factory.getbasetemp() / "labels.png"
    path.write_bytes(content)
    labels = read_label_png(path)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, painted(masks, size_hw))
    np.testing.assert_array_equal(np.asarray(Image.open(path)), labels)
    np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), labels)


@given(hnp.arrays(np.uint16, (5, 7), elements=st.integers(0, 400)))
@settings(deadline=None, max_examples=20)
def test_masks_that_do_not_overlap_come_back_under_their_numbers(tmp_path_factory, labels):
    masks = [labels == label for label in range(1, 401)]
    path = tmp_path_factory.getbasetemp() / "apart.png"
    path.write_bytes(label_png(masks, labels.shape))
    again = read_label_png(path)
    np.testing.assert_array_equal(again, labels)
    found = list(masks_of_labels(again))
    assert [label for label, _ in found] == sorted(set(labels.ravel().tolist()) - {0})
    for label, mask in found:
        np.testing.assert_array_equal(mask, labels == label)


@pytest.mark.parametrize(
    "count, dtype", [(254, np.uint8), (255, np.uint8), (256, np.uint16), (3000, np.uint16)]
)
def test_more_than_255_masks_take_16_bits(tmp_path, count, dtype):
    size_hw = (41, 75)
    path = tmp_path / "labels.png"
    path.write_bytes(label_png(one_pixel_masks(count, size_hw), size_hw))
    expected = np.arange(1, 41 * 75 + 1).reshape(size_hw)
    expected[expected > count] = 0
    readings = read_label_png(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    for labels in (*readings, np.asarray(Image.open(path))):
        np.testing.assert_array_equal(labels, expected)
    assert readings[0].dtype == readings[1].dtype == dtype


def test_the_highest_label_is_the_highest_of_16_bits():
    assert MAX_MASKS == np.iinfo(np.uint16).max
    labels = np.array([[0, 1], [MAX_MASKS, 256]], np.uint16)
    assert [label for label, _ in masks_of_labels(labels)] == [1, 256, MAX_MASKS]


def test_no_more_masks_than_there_are_labels(monkeypatch):
    monkeypatch.setattr(module, "MAX_MASKS", 300)
    assert label_png(one_pixel_masks(300, (20, 20)), (20, 20))
    with pytest.raises(InputError, match="300 masks at most"):
        label_png(one_pixel_masks(301, (20, 20)), (20, 20))


def test_masks_are_taken_one_at_a_time():
    made = []

    def masks():
        for index in range(5):
            mask = np.zeros((4, 4), bool)
            mask[index // 4, index % 4] = True
            made.append(mask)
            yield mask
            mask[:] = False  # whoever looked at it later would see nothing

    labels = np.asarray(Image.open(io.BytesIO(label_png(masks(), (4, 4)))))
    assert labels.ravel().tolist()[:6] == [1, 2, 3, 4, 5, 0] and len(made) == 5


def test_empty_and_hidden_masks_keep_their_number():
    mask = np.ones((2, 3), bool)
    masks = [np.zeros((2, 3), bool), mask, mask]
    labels = np.asarray(Image.open(io.BytesIO(label_png(masks, (2, 3)))))
    assert (labels == 2).all()


@pytest.mark.parametrize(
    "masks, size_hw, reason",
    [
        ([np.ones((2, 3), bool), np.ones((3, 2), bool)], (2, 3), r"mask 1 has shape \(3, 2\)"),
        ([np.ones((2, 3, 1), bool)], (2, 3), "mask 0 has shape"),
        ([np.ones((2, 3), np.uint8)], (2, 3), "mask 0 is no boolean array"),
        ([None], (2, 3), "mask 0 is no boolean array"),
        ([], (0, 3), "cannot have 3x0 pixels"),
        ([], (1 << 15, 1 << 15), "cannot have"),
    ],
)
def test_what_is_no_stack_of_masks_is_refused(masks, size_hw, reason):
    with pytest.raises(InputError, match=reason):
        label_png(iter(masks), size_hw)


def png(*chunks):
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in chunks:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        parts.append(struct.pack(">I", len(data)) + kind + data + crc)
    return b"".join(parts)


def header(width, height, bits=8, colour_type=0):
    return b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)


ROWS = b"IDAT", zlib.compress(b"\0\1\2" * 2)


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_a_file_of_another_program_is_read(tmp_path):
    path = tmp_path / "labels.png"
    path.write_bytes(png(header(2, 2), ROWS, (b"IEND", b"")))
    assert read_label_png(path).tolist() == [[1, 2], [1, 2]]
    values = np.array([[0, 258], [65535, 3]], np.uint16)
    cv2.imwrite(str(path), values)
    np.testing.assert_array_equal(read_label_png(path), values)


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "no PNG"),
        (saved(Image.new("L", (9, 9)), "JPEG"), "no PNG"),
        (saved(Image.new("RGB", (9, 9))), "no label PNG"),
        (saved(Image.new("LA", (9, 9))), "no label PNG"),
        (saved(Image.new("P", (9, 9))), "no label PNG"),
        (saved(Image.new("1", (9, 9))), "no label PNG"),
        (png(header(2, 2, bits=4), ROWS, (b"IEND", b"")), "no label PNG"),
        (png(header(60_000, 60_000), ROWS, (b"IEND", b"")), "more than any image"),
        (png(header(20_000, 10_000), (b"IDAT", zlib.compress(b"\0"))), "cannot be read"),
        (png(header(2, 2), header(40_000, 40_000), ROWS, (b"IEND", b"")), "two headers"),
        (png(header(2, 2), header(2, 2, colour_type=2), ROWS, (b"IEND", b"")), "two headers"),
        (png((b"tEXt", b"Title\0labels"), header(2, 2), ROWS), "damaged"),
        (png(header(2, 2), (b"IEND", b"")), "cannot be read"),
        (png(header(2, 2), ROWS).replace(b"IHDR", b"IHDS"), "damaged"),
    ],
)
def test_what_is_no_label_png_is_refused_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "labels.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        read_label_png(path)
    assert "labels.png" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_cut_anywhere_is_refused_or_whole(tmp_path):
    labels = np.random.default_rng(0).integers(0, 300, (9, 11)).astype(np.uint16)
    content = label_png([labels == label for label in range(1, 300)], labels.shape)
    path = tmp_path / "labels.png"
    refused = 0
    for length in range(len(content)):
        path.write_bytes(content[:length])
        try:
            np.testing.assert_array_equal(read_label_png(path), labels)
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > len(content) - 25  # what comes after the last pixel is not missed


@given(st.integers(0, 10_000), st.integers(1, 255))
@settings(deadline=None, max_examples=150)
def test_a_changed_byte_gives_labels_of_some_kind_or_one_error(tmp_path_factory, place, change):
    content = bytearray(label_png(one_pixel_masks(3, (6, 7)), (6, 7)))
    content[place % len(content)] ^= change
    path = tmp_path_factory.getbasetemp() / "changed.png"
    path.write_bytes(content)
    try:
        labels = read_label_png(path)
    except InputError as error:
        assert "\n" not in str(error)
        return
    assert labels.ndim == 2


@pytest.mark.parametrize("name", ["missing.png", ".", "nothing\0.png"])
def test_what_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="does not exist"):
        read_label_png(tmp_path / name)
