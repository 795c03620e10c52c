"""What needs no model, on pictures where colors tell the objects."""

import sys

import numpy as np
import pytest

from sam_jax.errors import InputError
from sam_jax.evaluate.baselines import FloodFill, RandomWalker, fill_box, grabcut
from sam_jax.evaluate.interactive import click_scores, mask_iou, tight_box

pytest.importorskip("cv2")
pytest.importorskip("skimage.segmentation")

SIZE = (60, 110)


@pytest.fixture
def disc():
    """A noisy picture that is wider than high, of a red disc on green; and the disc."""
    y, x = np.indices(SIZE)
    mask = np.hypot(y - 25, x - 70) < 18
    image = np.where(mask[..., None], (200, 30, 40), (40, 160, 60))
    image += np.random.default_rng(0).integers(-4, 5, image.shape)
    return image.astype(np.uint8), mask


def only(method, points, labels):
    answers = method.answer([0], np.array([points], np.float32), np.array([labels], np.int32))
    (masks,) = answers
    return masks


def test_flood_fill_finds_what_has_one_colour_and_is_connected(disc):
    image, mask = disc
    image[2:6, 2:6] = (200, 30, 40)  # the color again, elsewhere
    for found in only(FloodFill(image), [(70, 25)], [1]):
        np.testing.assert_array_equal(found, mask)


def test_flood_fill_offers_three_tolerances_the_middle_one_first():
    image = np.zeros((1, 9, 3), np.uint8)
    image[0, :, 1] = [0, 10, 20, 40, 100, 40, 0, 0, 0]
    masks = only(FloodFill(image), [(0, 0)], [1])
    assert [mask.sum() for mask in masks] == [3, 2, 4]


@pytest.mark.parametrize("scale", [1, 5])
def test_the_random_walker_keeps_to_the_edge(disc, scale):
    image, mask = (np.repeat(np.repeat(each, scale, 0), scale, 1) for each in disc)
    (found,) = only(RandomWalker(image), [(70 * scale, 25 * scale)], [1])
    # Five times as large it works on half of the pixels of a side.
    assert mask_iou(found, mask) > (0.98 if scale == 1 else 0.95)


def test_the_random_walker_heeds_clicks_beside_the_object(disc):
    image, mask = disc
    half = mask.copy()
    half[:, 70:] = False
    walker = RandomWalker(image)
    (one,) = only(walker, [(60, 25)], [1])
    (two,) = only(walker, [(60, 25), (80, 25)], [1, 0])
    assert one[25, 80] and not two[25, 80] and two[25, 60]
    scores = click_scores(walker, [half], (1, 2))
    assert scores.iou[0, 1] > scores.iou[0, 0]


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 7), (3, 3), (2, 400)])
def test_tiny_pictures_break_nothing(size_hw):
    image = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    (walked,) = only(RandomWalker(image), [(0, 0)], [1])
    assert walked.shape == size_hw and walked[0, 0]
    one_pixel = np.zeros(size_hw, bool)
    one_pixel[0, 0] = True
    assert grabcut(image, tight_box(one_pixel)).shape == size_hw


def test_a_filled_box_is_its_pixels(disc):
    image, _ = disc
    mask = np.zeros(SIZE, bool)
    mask[3:20, 40:109] = True
    np.testing.assert_array_equal(fill_box(image, tight_box(mask)), mask)


def test_grabcut_finds_the_object_in_its_box(disc):
    image, mask = disc
    assert mask_iou(grabcut(image, tight_box(mask)), mask) > 0.98
    large, truth = (np.repeat(np.repeat(each, 6, 0), 6, 1) for each in disc)
    assert mask_iou(grabcut(large, tight_box(truth)), truth) > 0.95


def test_grabcut_with_nothing_outside_gives_the_box(disc):
    image, _ = disc
    whole = np.ones(SIZE, bool)
    assert grabcut(image, tight_box(whole)).all()


def test_a_missing_package_is_named(disc, monkeypatch):
    image, mask = disc
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(InputError, match="pip install opencv-python-headless"):
        grabcut(image, tight_box(mask))
    with pytest.raises(InputError, match="pip install scikit-image"):
        RandomWalker(image)
