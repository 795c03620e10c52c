"""Grids, crops and tiles against the original's functions and against what they must cover."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam_jax.automatic.grids import image_crops, point_grid
from sam_jax.automatic.options import generate_options


def test_points_stand_in_the_middle_of_cells_row_by_row():
    np.testing.assert_allclose(
        point_grid(2), [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    )


def test_crops_of_the_papers_image_size():
    # 1500 x 2250: 1381 x 1006 in the first layer, 755 x 567 in the second.
    crops = image_crops((1500, 2250), generate_options(crop_n_layers=2))
    assert len(crops) == 1 + 4 + 16
    assert crops[0].box == (0, 0, 2250, 1500)
    assert crops[1].size_hw == (1006, 1381)
    assert crops[5].size_hw == (567, 755)
    # x outside, y inside, as the original orders them.
    assert crops[2].box[0] == 0 and crops[2].box[1] > 0


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 300), (40, 3), (333, 501)])
def test_no_crop_is_empty_and_all_lie_in_the_image(size_hw):
    for crop in image_crops(size_hw, generate_options(crop_n_layers=3)):
        x0, y0, x1, y1 = crop.box
        assert 0 <= x0 < x1 <= size_hw[1] and 0 <= y0 < y1 <= size_hw[0]


@given(st.tuples(st.integers(1, 900), st.integers(1, 900)), st.integers(64, 400), st.floats(0, 0.5))
def test_tiles_cover_the_image_and_overlap(size_hw, tile_size, tile_overlap):
    crops = image_crops(size_hw, generate_options(tile_size=tile_size, tile_overlap=tile_overlap))
    for low, high, side in ((0, 2, size_hw[1]), (1, 3, size_hw[0])):
        spans = sorted({(crop.box[low], crop.box[high]) for crop in crops})
        assert spans[0][0] == 0 and spans[-1][1] == side
        for (_, end), (start, _) in zip(spans, spans[1:], strict=False):
            assert end - start >= tile_overlap * tile_size - 1
        assert {high - low for low, high in spans} == {min(tile_size, side)}
