"""The overlay shows what it is given, where it is, at any size of image."""

import numpy as np
import pytest
from PIL import Image

from sam_jax.formats.overlay import MAX_SIDE, MIN_SIDE, draw_overlay, mask_color, side_by_side

GREY = 128


def grey(height, width):
    return np.full((height, width, 3), GREY, np.uint8)


def disc(height, width, x, y, radius):
    rows, columns = np.mgrid[:height, :width]
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


def pixels(picture):
    return np.asarray(picture).astype(int)


def closeness(picture, color):
    """Largest difference of a channel to a color, at each pixel."""
    return np.abs(pixels(picture) - color).max(axis=-1)


def test_a_mask_is_filled_outlined_and_the_rest_darkened():
    mask = disc(400, 600, 200, 150, 80)
    picture = draw_overlay(grey(400, 600), [mask])
    assert picture.size == (600, 400) and picture.mode == "RGB"
    color = np.array(mask_color(0))
    filled = pixels(picture)[150, 200]
    np.testing.assert_allclose(filled, 0.55 * GREY + 0.45 * color, atol=2)
    assert closeness(picture, color)[150, 117:124].min() == 0  # the contour
    assert (pixels(picture)[350, 550] < GREY - 10).all()


def test_without_masks_the_image_is_as_it_was():
    image = np.random.default_rng(0).integers(0, 256, (300, 260, 3), dtype=np.uint8)
    np.testing.assert_array_equal(draw_overlay(image, []), image)
    np.testing.assert_array_equal(draw_overlay(image, [np.zeros((300, 260), bool)]), image)


def test_the_image_is_not_changed():
    image = grey(300, 300)
    points = np.array([[10.0, 20.0]])
    draw_overlay(image, [disc(300, 300, 99, 99, 50)], texts=["0.9"], points=points)
    assert (image == GREY).all() and points.tolist() == [[10.0, 20.0]]


def test_points_are_green_or_red_at_their_place():
    points = np.array([[100.0, 300.0], [500.0, 50.0]])
    picture = draw_overlay(grey(400, 600), [], points=points, labels=np.array([1, 0]))
    ring = pixels(picture)[[300, 50], [104, 504]]  # right of the plus's upright, in the disc
    near = [picture.crop((x - 8, y - 8, x + 8, y + 8)) for x, y in ((100, 300), (500, 50))]
    green, red = (pixels(crop).reshape(-1, 3) for crop in near)
    assert (green[:, 1] > green[:, 0] + 80).sum() > 20 and not (
        green[:, 0] > green[:, 1] + 80
    ).any()
    assert (red[:, 0] > red[:, 1] + 80).sum() > 20 and not (red[:, 1] > red[:, 0] + 80).any()
    assert (ring != GREY).any()
    away = pixels(picture)
    away[280:320, 80:120] = away[30:70, 480:520] = GREY
    assert (away == GREY).all()


def test_boxes_have_the_colours_of_their_masks():
    masks = [disc(400, 600, 120, 120, 40), disc(400, 600, 420, 220, 40)]
    boxes = np.array([[60.0, 60, 180, 180], [360, 160, 480, 280]])
    picture = draw_overlay(grey(400, 600), masks, boxes=boxes)
    for index, (x0, y0, _, y1) in enumerate(boxes.astype(int)):
        left_edge = closeness(picture, mask_color(index))[y0:y1, x0 - 2 : x0 + 4]
        assert (left_edge.min(axis=1) == 0).all()


def test_a_small_mask_inside_a_large_one_stays_visible_whatever_the_order():
    large, small = disc(400, 600, 300, 200, 150), disc(400, 600, 300, 200, 30)
    for masks, index in (([small, large], 0), ([large, small], 1)):
        picture = draw_overlay(grey(400, 600), masks)
        other = draw_overlay(grey(400, 600), [large])
        inside = pixels(picture)[200, 300]
        assert np.abs(inside - pixels(other)[200, 300]).max() > 20
        assert closeness(picture, mask_color(index))[200, 267:274].min() == 0  # its contour


@pytest.mark.parametrize("size", [(200, 300), (2667, 4000), (300, 90)])
def test_texts_markers_and_lines_grow_with_the_picture(size):
    height, width = size
    image, mask = grey(height, width), disc(height, width, width / 2, height * 0.6, width / 5)
    plain = draw_overlay(image, [mask])
    written = draw_overlay(image, [mask], texts=["0.93"])
    rows, columns = np.nonzero((pixels(plain) != pixels(written)).any(axis=-1))
    text_height = rows.max() - rows.min() + 1
    side = np.sqrt(plain.width * plain.height)
    assert max(12, side / 60) <= text_height <= max(24, side / 20)
    assert columns.min() >= 0 and columns.max() < plain.width


def test_a_text_stands_near_its_mask_and_not_over_a_point():
    mask = disc(600, 900, 200, 300, 40)
    point = np.array([[200.0, 300.0]])
    without = draw_overlay(grey(600, 900), [mask], points=point)
    picture = draw_overlay(grey(600, 900), [mask], texts=["0.93"], points=point)
    rows, columns = np.nonzero((pixels(picture) != pixels(without)).any(axis=-1))
    assert abs(columns.mean() - 200) < 60 and 200 < rows.mean() < 400
    assert not ((abs(rows - 300) < 8) & (abs(columns - 200) < 8)).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (7, 5), (20, 5000)])
def test_any_size_of_image_is_drawn_on(size):
    height, width = size
    mask = np.ones(size, bool)
    box = np.array([[0.0, 0.0, width, height]])
    point = np.array([[0.0, height]])
    picture = draw_overlay(grey(height, width), [mask], texts=["0.50"], points=point, boxes=box)
    assert MIN_SIDE <= max(picture.size) <= MAX_SIDE
    assert (pixels(picture) != GREY).any()


def test_large_images_are_scaled_down_and_the_prompts_with_them():
    mask = disc(3000, 4500, 3000, 1500, 600)
    point = np.array([[3000.0, 1500.0]])
    picture = draw_overlay(grey(3000, 4500), [mask], points=point, max_side=900)
    assert picture.size == (900, 600)
    close = closeness(picture, np.round(0.55 * GREY + 0.45 * np.array(mask_color(0))))
    assert close[300, 650] <= 2 and close[300, 800] > 2
    middle = pixels(picture.crop((596, 296, 604, 304)))
    assert (middle.min(axis=-1) > 240).any()  # the marker's white plus


def test_thin_objects_are_seen():
    mask = np.zeros((1200, 1800), bool)
    mask[600, 100:1700] = True
    seen = closeness(draw_overlay(grey(1200, 1800), [mask]), mask_color(0))
    assert (seen[595:606, 200:1600].min(axis=0) < 120).all()


def test_hundreds_of_masks_have_colours_of_their_own():
    colors = [mask_color(index) for index in range(300)]
    assert len(set(colors)) == 300
    assert all(0 <= channel <= 255 for color in colors for channel in color)
    rng = np.random.default_rng(0)
    masks = (disc(300, 400, *rng.uniform(0, 300, 2), 9) for _ in range(300))
    picture = draw_overlay(grey(300, 400), masks, texts=["0.5"] * 300)
    assert picture.size == (400, 300)


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (900, 100)])
def test_candidates_stand_side_by_side(size):
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    strip = side_by_side([Image.new("RGB", size, color) for color in colors])
    found = pixels(strip)
    places = [np.argwhere((found == color).all(axis=-1)) for color in colors]
    assert [len(place) for place in places] == [size[0] * size[1]] * 3
    along = 0 if size[0] > 2.5 * size[1] else 1
    for before, after in zip(places, places[1:], strict=False):
        assert before[:, along].max() < after[:, along].min()


def test_a_strip_has_bounds():
    strip = side_by_side([Image.new("RGB", (3000, 2000))] * 3, max_side=1500)
    assert 1400 <= strip.width <= 1520
