"""Mask PNGs read back as the mask, in both depths."""

import io

import numpy as np
import pytest
from PIL import Image

from sam_jax.errors import InputError
from sam_jax.formats.png import mask_png


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (37, 53)])
@pytest.mark.parametrize("bits, mode", [(8, "L"), (1, "1")])
def test_a_mask_reads_back_as_itself(shape, bits, mode):
    mask = np.random.default_rng(0).random(shape) < 0.5
    picture = Image.open(io.BytesIO(mask_png(mask, bits=bits)))
    assert picture.format == "PNG" and picture.mode == mode
    np.testing.assert_array_equal(np.asarray(picture.convert("L")), mask * np.uint8(255))


def test_one_bit_is_the_smaller_file():
    mask = np.random.default_rng(0).random((200, 300)) < 0.5
    assert len(mask_png(mask, bits=1)) < len(mask_png(mask))


def test_what_cannot_be_written_is_refused():
    with pytest.raises(InputError, match="8 bits or 1"):
        mask_png(np.ones((2, 2), bool), bits=2)
    with pytest.raises(InputError, match="no pixels"):
        mask_png(np.ones((0, 2), bool))
