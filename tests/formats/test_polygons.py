"""Polygons and the masks they were made of: read back here, by pycocotools and by brute force."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco
from scipy import ndimage

from sam_jax.errors import InputError
from sam_jax.formats.polygons import mask_to_polygons, polygons_to_mask

QUICK = settings(deadline=None, max_examples=150)


def drawn(text):
    """A mask as its rows: # inside, anything else outside."""
    return np.array([[pixel == "#" for pixel in row] for row in text.split()])


@st.composite
def masks(draw, side=13):
    """Of single pixels or of blocks, so that holes, islands in holes and long edges come up."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=side))
    block = draw(st.sampled_from([1, 1, 2, 5]))
    coarse = draw(hnp.arrays(bool, [-(-length // block) for length in shape]))
    return np.kron(coarse, np.ones((block, block), bool))[: shape[0], : shape[1]]


def rings_in(shape):
    """Nested frames, one pixel wide."""
    distance = np.minimum.outer(*(np.minimum(np.arange(n), n - 1 - np.arange(n)) for n in shape))
    return distance % 2 == 0


def edges_of(polygon):
    points = np.array(polygon, float).reshape(-1, 2)
    return points, np.roll(points, -1, axis=0)


def windings(polygon, size_hw):
    """How often a polygon goes round each pixel's center: crossings of a ray to the right."""
    ys, xs = np.mgrid[: size_hw[0], : size_hw[1]] + 0.5
    total = np.zeros(size_hw, int)
    for (x0, y0), (x1, y1) in zip(*edges_of(polygon), strict=True):
        if y0 != y1:
            crosses = (y0 <= ys) != (y1 <= ys)
            right = x0 + (ys - y0) / (y1 - y0) * (x1 - x0) > xs
            total += np.where(crosses & right, 1 if y1 > y0 else -1, 0)
    return total


def distance_to(points_xy, begin_xy, end_xy):
    """From each point to the nearest of the segments."""
    away = points_xy[:, None] - begin_xy
    chord = end_xy - begin_xy
    length = (chord**2).sum(-1)
    along = np.clip((away * chord).sum(-1) / np.where(length, length, 1), 0, 1)
    return np.linalg.norm(away - along[..., None] * chord, axis=-1).min(axis=1)


def outline_edges(mask):
    """The edges of single pixels between inside and outside."""
    padded = np.pad(mask, 1)
    y, x = np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1])
    v, u = np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1])
    begin = np.concatenate([np.stack([x, y], 1), np.stack([u, v], 1)])
    return begin.astype(float), begin + np.repeat([[1.0, 0], [0, 1]], [len(x), len(u)], axis=0)


def centres(mask):
    return np.argwhere(np.ones_like(mask))[:, ::-1] + 0.5


def read_by_pycocotools(polygons, size_hw):
    if not polygons:
        return np.zeros(size_hw, bool)
    return coco.decode(coco.merge(coco.frPyObjects(polygons, *size_hw))) == 1


def assert_exact(mask):
    polygons = mask_to_polygons(mask)
    np.testing.assert_array_equal(polygons_to_mask(polygons, mask.shape), mask)
    np.testing.assert_array_equal(read_by_pycocotools(polygons, mask.shape), mask)
    return polygons


NAMED = {
    "one pixel": drawn("#"),
    "nothing": drawn("..."),
    "row": drawn("##.#.###"),
    "column": drawn("##.#.###").T,
    "full": drawn("### ###"),
    "diagonal": drawn("#. .#"),
    "other diagonal": drawn(".# #."),
    "hole": drawn("### #.# ###"),
    "diagonal holes": drawn("#### #.## ##.# ####"),
    "hole that touches the outside": drawn(".### #.## ####"),
    "ring closed by a diagonal": drawn("### #.# ##."),
    "two holes in one column": drawn("### #.# ### #.# ###"),
    "two holes below one edge": drawn("##### #.#.# #####"),
    "hole below the end of an edge": drawn("##.. #### #.## ####"),
    "checkers": np.indices((8, 9)).sum(0) % 2 == 0,
    "frames in frames": rings_in((21, 30)),
    "comb": drawn("######### #.#.#.#.# #.#.#.#.#"),
}


@pytest.mark.parametrize("mask", NAMED.values(), ids=NAMED.keys())
def test_named_shapes_come_back_exactly(mask):
    assert_exact(mask)


@given(masks())
@QUICK
def test_any_mask_comes_back_exactly_here_and_in_pycocotools(mask):
    polygons = assert_exact(mask)
    assert len(polygons) == ndimage.label(mask)[1]


@given(masks(side=9))
@QUICK
def test_each_polygon_goes_once_round_each_pixel_of_a_component(mask):
    polygons = mask_to_polygons(mask)
    labels, _ = ndimage.label(mask)
    for polygon in polygons:
        winding = windings(polygon, mask.shape)
        (label,) = set(labels[winding != 0])
        np.testing.assert_array_equal(winding, labels == label)


@given(masks())
@example(NAMED["two holes below one edge"])
@QUICK
def test_polygons_are_outlines_without_needless_corners_joined_by_vertical_bridges(mask):
    horizontal = 0
    for polygon in mask_to_polygons(mask):
        begin, end = edges_of(polygon)
        step = end - begin
        assert ((step == 0).sum(axis=1) == 1).all()  # along one axis, and somewhere
        horizontal += np.abs(step[:, 0]).sum()
        straight_on = (step * np.roll(step, 1, axis=0)).sum(axis=1) > 0
        # Only bridges leave a straight edge, or go on from a vertical one.
        corners, count = np.unique(begin, axis=0, return_counts=True)
        again = {tuple(xy) for xy in corners[count > 1]}
        assert all(tuple(xy) in again for xy in begin[straight_on])
    padded = np.pad(mask, 1)
    # Nothing horizontal is walked that is no outline, and nothing of it twice.
    assert horizontal == np.count_nonzero(padded[1:] != padded[:-1])


def test_a_rectangle_with_a_hole_is_what_one_would_draw_by_hand():
    assert mask_to_polygons(drawn(".... .###")) == [[1, 1, 4, 1, 4, 2, 1, 2]]
    (polygon,) = mask_to_polygons(drawn("##### ##.## #####"))
    hole = [3, 0, 3, 1, 2, 1, 2, 2, 3, 2, 3, 1, 3, 0]
    assert polygon == [0, 0, *hole, 5, 0, 5, 3, 0, 3]


def test_long_outlines_and_many_holes_come_back_exactly():
    rng = np.random.default_rng(0)
    cloud = ndimage.gaussian_filter(rng.standard_normal((700, 900)), 3)
    mask = ndimage.gaussian_filter(rng.standard_normal((700, 900)), 40) + 0.03 * cloud > 0
    mask |= cloud > 0.02
    assert len(outline_edges(mask)[0]) > 50_000
    assert_exact(mask)
    assert_exact(rng.random((90, 60)) < 0.62)


def test_holes_that_hang_on_each_other_do_not_nest_python():
    mask = np.ones((8001, 3), bool)
    mask[1::2, 1] = False
    (polygon,) = assert_exact(mask)
    assert len(polygon) == 2 * (4 + 4000 * 7 - 3999)  # all bridges but the first start at a corner
    assert_exact(rings_in((301, 299)))


@given(masks(side=20), st.sampled_from([0.3, 0.7, 1.0, 1.5, 2.9, 6.0, 40.0]))
@QUICK
def test_simplified_polygons_keep_every_pixel_that_is_further_from_the_outline(mask, tolerance):
    polygons = mask_to_polygons(mask, simplify=tolerance)
    begin, end = outline_edges(mask)
    if not len(begin):
        assert polygons == []
        return
    distance = distance_to(centres(mask), begin, end).reshape(mask.shape)
    far = distance > tolerance + 1e-9
    again = polygons_to_mask(polygons, mask.shape)
    np.testing.assert_array_equal(again[far], mask[far])
    # pycocotools rounds slanted edges to fifths of a pixel.
    far = distance > tolerance + 0.3
    again = read_by_pycocotools(polygons, mask.shape)
    np.testing.assert_array_equal(again[far], mask[far])


@given(masks(side=20), st.sampled_from([0.3, 0.7, 1.0, 1.5, 2.9, 6.0, 40.0]))
@QUICK
def test_simplified_polygons_are_near_the_outline_and_keep_the_boxes(mask, tolerance):
    exact = mask_to_polygons(mask)
    polygons = mask_to_polygons(mask, simplify=tolerance)
    assert len(polygons) == len(exact)
    for polygon, before in zip(polygons, exact, strict=True):
        corners, corners_before = edges_of(polygon)[0], edges_of(before)[0]
        assert 4 <= len(corners) <= len(corners_before)
        assert set(map(tuple, corners)) <= set(map(tuple, corners_before))
        np.testing.assert_array_equal(corners.min(0), corners_before.min(0))
        np.testing.assert_array_equal(corners.max(0), corners_before.max(0))
        assert windings(polygon, mask.shape).any() or len(corners_before) > 4
    # Holes may be left out; of a mask without any, no corner is far from its own polygon.
    filled = ndimage.binary_fill_holes(mask, np.ones((3, 3)))
    pairs = zip(mask_to_polygons(filled), mask_to_polygons(filled, simplify=tolerance), strict=True)
    for before, polygon in pairs:
        away = distance_to(edges_of(before)[0], *edges_of(polygon))
        assert away.max() <= tolerance + 1e-9


def test_a_disc_needs_few_corners():
    ys, xs = np.mgrid[:200, :220]
    disc = (xs - 110.3) ** 2 + (ys - 99.1) ** 2 < 90**2
    (exact,), (simple,) = mask_to_polygons(disc), mask_to_polygons(disc, simplify=1.0)
    assert len(simple) < len(exact) / 6
    again = polygons_to_mask([simple], disc.shape)
    assert (again & disc).sum() / (again | disc).sum() > 0.98


def test_holes_go_when_they_shrink_to_a_line_unless_others_hang_on_them():
    mask = np.ones((40, 40), bool)
    mask[5, 5:25] = False
    mask[20:30, 27:37] = False
    (polygon,) = mask_to_polygons(mask, simplify=1.5)
    again = polygons_to_mask([polygon], mask.shape)
    assert again[:18].all() and not again[22:28, 29:35].any()
    # Below the slit, so the bridge ends in the middle of it.
    mask[20:30, 27:37], mask[20:30, 5:15] = True, False
    (polygon,) = mask_to_polygons(mask, simplify=1.5)
    again = polygons_to_mask([polygon], mask.shape)
    assert again[:4].all() and again[8:18].all() and not again[22:28, 7:13].any()
    np.testing.assert_array_equal(read_by_pycocotools([polygon], mask.shape)[8:], again[8:])


def test_a_comb_of_equal_teeth_is_simplified_without_a_step_for_each():
    mask = np.ones((60, 20_001), bool)
    mask[:30, 1::2] = False
    (polygon,) = mask_to_polygons(mask, simplify=0.4)
    np.testing.assert_array_equal(polygons_to_mask([polygon], mask.shape), mask)


coordinates = st.integers(-60, 160).map(lambda n: n / 7)


@given(
    st.lists(st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=9), max_size=3),
    st.tuples(st.integers(1, 15), st.integers(1, 15)),
)
@QUICK
def test_any_polygons_hold_the_centres_they_go_round_an_odd_number_of_times(polygons, size_hw):
    flat = [list(itertools.chain(*polygon)) for polygon in polygons]
    expected, on_edge = np.zeros(size_hw, bool), np.zeros(size_hw, bool)
    for polygon in flat:
        expected |= windings(polygon, size_hw) % 2 == 1
        near = distance_to(centres(expected), *edges_of(polygon)) < 1e-9
        on_edge |= near.reshape(size_hw)
    mask = polygons_to_mask(flat, size_hw)
    np.testing.assert_array_equal(mask[~on_edge], expected[~on_edge])


def test_a_polygon_that_crosses_itself_is_hollow_and_two_polygons_are_joined():
    star = [
        50 + 40 * f(2 * math.pi * 2 * k / 5) for k in range(5) for f in (math.cos, math.sin)
    ]  # fmt: skip
    mask = polygons_to_mask([star], (100, 100))
    assert not mask[50, 50] and mask[50, 75]
    square, other = [1, 1, 5, 1, 5, 5, 1, 5], [3, 3, 8, 3, 8, 8, 3, 8]
    mask = polygons_to_mask([square, other], (10, 10))
    assert mask[3, 3] and mask.sum() == 16 + 25 - 4


def test_what_is_outside_the_image_is_cut_off():
    far = 1e8
    assert polygons_to_mask([[-far, -far, far, -far, far, far, -far, far]], (5, 7)).all()
    assert not polygons_to_mask([[8, 0, 9, 0, 9, 5], [0, -3, 7, -3, 7, -1]], (5, 7)).any()
    assert not polygons_to_mask([[0, 5, 7, 5, 7, 9], [-4, 0, 0, 0, 0, 5]], (5, 7)).any()
    left_half = polygons_to_mask([[-far, -far, 3, -far, 3, far, -far, far]], (5, 7))
    assert left_half[:, :3].all() and not left_half[:, 3:].any()


def test_any_sequence_of_numbers_is_a_polygon_and_no_polygons_are_no_pixels():
    square = [1, 1, 3, 1, 3, 3, 1, 3]
    expected = polygons_to_mask([square], (4, 4))
    assert expected.sum() == 4
    for polygon in (tuple(square), np.array(square), np.array(square, np.float32)):
        np.testing.assert_array_equal(polygons_to_mask((polygon,), (4, 4)), expected)
    np.testing.assert_array_equal(
        polygons_to_mask([[np.float32(n) for n in square]], (4, 4)), expected
    )
    assert polygons_to_mask([], (4, 5)).shape == (4, 5)
    assert polygons_to_mask([square], (0, 5)).shape == (0, 5)
    assert mask_to_polygons(np.zeros((0, 5), bool)) == []


def test_a_small_polygon_in_a_large_image_takes_little_memory():
    tracemalloc.start()
    try:
        mask = polygons_to_mask([[100, 100, 900, 150, 500, 800]], (12_000, 10_000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert mask.any() and peak < mask.nbytes + (24 << 20)


def test_edges_beyond_a_block_of_crossings_are_drawn_whole():
    width = 3_000_001
    mask = polygons_to_mask([[0, 0, width, 0, width, 1, 0, 1]], (2, width))
    assert mask[0].all() and not mask[1].any()


@pytest.mark.parametrize(
    "polygons, reason",
    [
        (None, "list of lists"),
        ({"size": [4, 4], "counts": "@"}, "list of lists"),
        ("abcdef", "list of lists"),
        ([1, 1, 3, 1, 3, 3], "polygon 0 is a int"),
        ([[1, 1, 3, 1, 3, 3], None], "polygon 1 is a NoneType"),
        ([[]], "0 coordinates"),
        ([[1, 1, 3, 1]], "4 coordinates"),
        ([[1, 1, 3, 1, 3, 3, 1]], "in pairs"),
        ([[1, 1, 3, 1, 3, "3"]], "holds a str"),
        ([[1, 1, 3, 1, 3, True]], "holds a bool"),
        ([[1, 1, 3, 1, 3, None]], "holds a NoneType"),
        ([[[1, 1], [3, 1], [3, 3], [1, 3], [0, 2], [0, 1]]], "holds a list"),
        ([np.ones((6, 2))], "holds a list"),
        ([[1, 1, 3, 1, 3, math.nan]], "NaN"),
        ([[1, 1, 3, 1, 3, -math.inf]], "NaN or a number beyond"),
        ([[1, 1, 3, 1, 3, 10**400]], "beyond"),
    ],
)
def test_what_are_no_polygons_is_refused_with_the_reason(polygons, reason):
    with pytest.raises(InputError, match=reason) as caught:
        polygons_to_mask(polygons, (4, 4))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size_hw", [(-1, 4), (1 << 15, 1 << 15)])
def test_no_mask_has_such_a_size(size_hw):
    with pytest.raises(InputError, match="pixels"):
        polygons_to_mask([], size_hw)


@pytest.mark.parametrize("simplify", [-1.0, math.nan, math.inf])
def test_a_tolerance_is_a_distance(simplify):
    with pytest.raises(InputError, match="simplify"):
        mask_to_polygons(drawn("#"), simplify=simplify)
