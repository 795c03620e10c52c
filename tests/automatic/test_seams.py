"""Masks cut by tiles, and made whole again."""

import numpy as np
import pytest
from mask_candidates import candidates_of

from sam_jax.automatic.candidates import concatenated
from sam_jax.automatic.grids import image_crops
from sam_jax.automatic.options import generate_options
from sam_jax.automatic.seams import joined_over_seams

SIZE_HW = (200, 300)


@pytest.fixture
def tiles():
    return image_crops(SIZE_HW, generate_options(tile_size=128, tile_overlap=0.25))


def seen_in(tiles, objects):
    """What tiles would find of objects: each one's part in every tile that it reaches into."""
    masks, crops = [], []
    for tile in tiles:
        x0, y0, x1, y1 = tile.box
        for whole in objects:
            part = np.zeros(SIZE_HW, bool)
            part[y0:y1, x0:x1] = whole[y0:y1, x0:x1]
            if part.any():
                masks.append(part)
                crops.append(tile.box)
    return candidates_of(masks, crops=crops)


def disc(centre_xy, radius):
    y, x = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    return np.hypot(x - centre_xy[0], y - centre_xy[1]) <= radius


def test_an_object_over_all_tiles_becomes_whole(tiles):
    whole = disc((150, 100), 90)
    assert len(tiles) == 6
    joined, cut = joined_over_seams(seen_in(tiles, [whole]), tiles, SIZE_HW, 0.7)
    assert (len(joined), cut) == (1, 0)
    np.testing.assert_array_equal(joined.runs[0].mask(), whole)
    assert joined.boxes[0].tolist() == [60, 10, 240, 190]
    assert joined.crops[0].tolist() == [0, 0, 300, 200]
    assert joined.points[0].shape == (6, 2)


def test_objects_that_only_meet_stay_apart(tiles):
    sky, ground = np.zeros(SIZE_HW, bool), np.zeros(SIZE_HW, bool)
    sky[:95], ground[95:] = True, True
    joined, cut = joined_over_seams(seen_in(tiles, [sky, ground]), tiles, SIZE_HW, 0.7)
    masks = sorted((runs.mask() for runs in joined.runs), key=lambda mask: not mask[0, 0])
    assert (len(masks), cut) == (2, 0)
    np.testing.assert_array_equal(masks[0], sky)
    np.testing.assert_array_equal(masks[1], ground)


def test_what_no_seam_cuts_is_left_to_suppression(tiles):
    # Whole in the overlap of two tiles: found twice, cut by neither.
    small = disc((107, 40), 8)
    found = seen_in(tiles[:2], [small])
    assert len(found) == 2
    joined, cut = joined_over_seams(found, tiles, SIZE_HW, 0.7)
    assert (len(joined), cut) == (2, 0)


def test_an_object_and_a_part_of_it_are_joined_each_with_its_own(tiles):
    whole, part = np.zeros(SIZE_HW, bool), np.zeros(SIZE_HW, bool)
    whole[20:60, 20:280] = True
    part[25:55, 20:280] = True
    joined, cut = joined_over_seams(seen_in(tiles, [whole, part]), tiles, SIZE_HW, 0.5)
    areas = sorted(runs.area for runs in joined.runs)
    assert (areas, cut) == ([part.sum(), whole.sum()], 0)


def test_masks_that_one_tile_tells_apart_are_never_joined(tiles):
    # Two bars in the first tile; the tile right of it sees both as one object, almost to its end.
    upper, lower = np.zeros(SIZE_HW, bool), np.zeros(SIZE_HW, bool)
    upper[20:60, 20:190] = True
    lower[70:110, 20:190] = True
    both = upper | lower
    both[70:110, :95] = False
    first, second = (
        seen_in([tile], objects)
        for tile, objects in ((tiles[0], [upper, lower]), (tiles[1], [both]))
    )
    joined, cut = joined_over_seams(concatenated([first, second]), tiles, SIZE_HW, 0.35)
    # The one that agrees best is joined; the other stays cut.
    (mask,) = (runs.mask() for runs in joined.runs)
    assert cut == 1
    np.testing.assert_array_equal(mask, upper | both)


def test_what_no_neighbour_goes_on_with_is_left_out(tiles):
    # The tile right of the first has not found the object, or only something else there.
    whole = disc((110, 50), 40)
    alone = seen_in(tiles[:1], [whole])
    joined, cut = joined_over_seams(alone, tiles, SIZE_HW, 0.7)
    assert (len(joined), cut) == (0, 1)
    other = seen_in(tiles[1:2], [disc((110, 50), 12)])
    joined, cut = joined_over_seams(concatenated([alone, other]), tiles, SIZE_HW, 0.7)
    assert cut == 1
    np.testing.assert_array_equal(joined.runs[0].mask(), disc((110, 50), 12))


@pytest.mark.parametrize("missing", range(6))
def test_an_object_of_which_a_tile_is_missing_is_left_out(tiles, missing):
    found = seen_in([tile for i, tile in enumerate(tiles) if i != missing], [disc((150, 100), 90)])
    joined, cut = joined_over_seams(found, tiles, SIZE_HW, 0.7)
    assert (len(joined), cut) == (0, 5)


def test_a_corner_that_no_other_tile_saw_costs_no_object(tiles):
    # The object's end reaches three pixels into a fourth tile, which did not find it.
    whole = np.zeros(SIZE_HW, bool)
    whole[20:60, 20:180] = True
    whole[20:131, 60:100] = True
    found = seen_in([tiles[0], tiles[1], tiles[3]], [whole])
    joined, cut = joined_over_seams(found, tiles, SIZE_HW, 0.7)
    assert (len(joined), cut) == (1, 0)


def test_scores_are_means_by_area(tiles):
    found = seen_in(tiles, [disc((150, 40), 60)])
    joined, cut = joined_over_seams(found, tiles, SIZE_HW, 0.7)
    areas = [runs.area for runs in found.runs]
    expected = np.average(found.predicted_iou, weights=areas)
    assert (len(joined), cut) == (1, 0)
    np.testing.assert_allclose(joined.predicted_iou, expected, rtol=1e-6)


def test_nothing_found_is_nothing_joined(tiles):
    none = candidates_of(np.zeros((0, *SIZE_HW)))
    joined, cut = joined_over_seams(none, tiles, SIZE_HW, 0.7)
    assert (len(joined), cut) == (0, 0)
