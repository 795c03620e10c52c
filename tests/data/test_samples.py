"""What can be wrong with one record, each told with its name and counted as what it is."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image
from small_datasets import rectangle

from sam_jax.data.samples import (
    BROKEN_ANNOTATIONS,
    BROKEN_IMAGE,
    CANNOT_READ,
    SIZES_DIFFER,
    RecordError,
    Sample,
    blaming,
    check_sizes,
    decoded_image,
    mask_counts,
)
from sam_jax.errors import InputError
from sam_jax.formats.polygons import polygons_to_mask
from sam_jax.formats.rle import decode_rle, encode_rle, mask_to_counts
from sam_jax.images import read_image

SIZE = (20, 30)
PIXELS = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def encoded(pixels, kind="PNG", **options):
    file = io.BytesIO()
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(content, size_hw=SIZE):
    return np.asarray(decoded_image(Sample("a", content, size_hw, [])))


@pytest.mark.parametrize(
    "mode, kind",
    [("RGB", "PNG"), ("L", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("1", "PNG"), ("RGB", "WEBP")]
    + [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("CMYK", "TIFF")],
)
def test_files_are_decoded_as_for_inference(mode, kind, tmp_path):
    content = encoded(Image.fromarray(PIXELS).convert(mode), kind)
    (tmp_path / "image").write_bytes(content)
    np.testing.assert_array_equal(decoded(content), read_image(tmp_path / "image"))


def test_arrays_are_taken_as_they_are():
    np.testing.assert_array_equal(decoded(PIXELS), PIXELS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_photo_on_its_side_is_turned_upright(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(PIXELS, kind, exif=exif)
    stored = decoded(encoded(PIXELS, kind))
    np.testing.assert_array_equal(decoded(content, (30, 20)), np.rot90(stored, -1))
    with pytest.raises(RecordError, match="20x30 pixels, its annotations say 30x20"):
        decoded_image(Sample("a", content, SIZE, []))


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", BROKEN_IMAGE),
        (b"no image", BROKEN_IMAGE),
        (encoded(PIXELS)[:-200], BROKEN_IMAGE),
        (encoded(PIXELS, "JPEG")[:-200], BROKEN_IMAGE),
        (encoded(PIXELS.swapaxes(0, 1)), SIZES_DIFFER),
        (PIXELS.swapaxes(0, 1), SIZES_DIFFER),
    ],
)
def test_damaged_images_and_those_of_another_size_are_refused(content, reason):
    with pytest.raises(RecordError, match="^sa_1.jpg: ") as caught:
        decoded_image(Sample("sa_1.jpg", content, SIZE, []))
    assert caught.value.reason == reason
    assert len(str(caught.value).splitlines()) == 1


def test_masks_of_any_form_become_the_same_runs():
    mask = rectangle(SIZE, 3, 5, 11, 20)
    runs = mask_to_counts(mask)
    polygon = [5, 3, 20, 3, 20, 11, 5, 11]
    forms = [encode_rle(mask), {"size": list(SIZE), "counts": runs.tolist()}, [polygon]]
    sample = Sample("a", PIXELS, SIZE, forms)
    check_sizes(sample)
    for index in range(3):
        np.testing.assert_array_equal(mask_counts(sample, index), runs)
    np.testing.assert_array_equal(polygons_to_mask([polygon], SIZE), decode_rle(forms[0]))


@pytest.mark.parametrize(
    "segmentation",
    [None, 3, "text", {}, {"size": [20, 30], "counts": "~"}, [[1, 2, 3]], [["a"] * 6]],
)
def test_what_is_no_mask_is_refused(segmentation):
    sample = Sample(
        "sa_1.jpg", PIXELS, SIZE, [encode_rle(rectangle(SIZE, 0, 0, 1, 1)), segmentation]
    )
    with pytest.raises(RecordError, match="^sa_1.jpg: object 1: ") as caught:
        mask_counts(sample, 1)
    assert caught.value.reason == BROKEN_ANNOTATIONS


@pytest.mark.parametrize("size", [(30, 20), (20, 31)])
def test_a_mask_of_another_size_is_refused(size):
    sample = Sample("sa_1.jpg", PIXELS, SIZE, [encode_rle(np.ones(size, bool))])
    with pytest.raises(RecordError, match="^sa_1.jpg: a mask") as caught:
        check_sizes(sample)
    assert caught.value.reason == SIZES_DIFFER


def test_an_error_passes_between_processes():
    error = pickle.loads(pickle.dumps(RecordError(BROKEN_IMAGE, "a: wrong")))
    assert (error.reason, str(error)) == (BROKEN_IMAGE, "a: wrong")


def test_the_first_to_blame_is_kept():
    with pytest.raises(RecordError) as caught, blaming(CANNOT_READ, "a"):
        with blaming(BROKEN_IMAGE, "b"):
            raise InputError("wrong")
    assert (caught.value.reason, str(caught.value)) == (BROKEN_IMAGE, "b: wrong")
    with pytest.raises(RecordError, match="a: No such file") as caught, blaming(BROKEN_IMAGE, "a"):
        open("/no/such/file")
    assert caught.value.reason == CANNOT_READ
    with (
        pytest.raises(TypeError),
        blaming(CANNOT_READ, "a"),
    ):  # a fault of ours is no skipped record
        raise TypeError
