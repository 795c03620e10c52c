"""RLE against COCO's own tools: the same text, areas and boxes, and nothing malformed accepted."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from sam_jax.errors import InputError
from sam_jax.formats.rle import decode_rle, encode_rle, mask_area, mask_box


def random_mask(seed, shape, density, coarseness):
    """Blobs of about `coarseness` pixels, so that runs are long and short."""
    rng = np.random.default_rng(seed)
    coarse = rng.random([-(-side // coarseness) for side in shape]) < density
    return np.kron(coarse, np.ones((coarseness, coarseness), bool))[: shape[0], : shape[1]]


def reference(mask):
    return coco.encode(np.asfortranarray(mask.astype(np.uint8)))


SHAPES = [(1, 1), (1, 57), (57, 1), (31, 33), (480, 641), (7, 3000)]
MASKS = [
    pytest.param(
        random_mask(seed, shape, density, coarseness), id=f"{shape}-{density}-{coarseness}"
    )
    for seed, shape in enumerate(SHAPES)
    for density, coarseness in [(0.5, 1), (0.1, 1), (0.5, 11), (0.9, 40), (0, 1), (1, 1)]
]


@pytest.mark.parametrize("mask", MASKS)
def test_text_area_box_and_decoding_equal_pycocotools(mask):
    rle = encode_rle(mask)
    expected = reference(mask)
    assert rle["size"] == expected["size"]
    assert rle["counts"].encode() == expected["counts"]
    assert mask_area(mask) == coco.area(expected)
    assert mask_box(mask).tolist() == coco.toBbox(expected).astype(int).tolist()
    np.testing.assert_array_equal(decode_rle(rle), mask)
    np.testing.assert_array_equal(decode_rle(expected), mask)


def test_the_longest_runs_fit():
    mask = np.zeros((5_000, 4_000), bool)
    mask[2_000:, 3_900] = True  # the first run needs all six groups
    rle = encode_rle(mask)
    assert rle["counts"].encode() == reference(mask)["counts"]
    np.testing.assert_array_equal(decode_rle(rle), mask)


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(0, 2**32 - 1),
    st.floats(0, 1),
    st.integers(1, 9),
)
@settings(deadline=None, max_examples=200)
def test_any_mask_survives_the_round_trip_through_json(shape, seed, density, coarseness):
    mask = random_mask(seed, shape, density, coarseness)
    rle = json.loads(json.dumps(encode_rle(mask)))
    assert rle["counts"].encode() == reference(mask)["counts"]
    np.testing.assert_array_equal(decode_rle(rle), mask)


def test_run_lengths_as_a_list_are_read_too():
    mask = random_mask(0, (13, 17), 0.5, 2)
    columns = mask.T.ravel()
    runs, value = [], False
    while columns.size:
        same = int(np.argmax(columns != value)) if (columns != value).any() else columns.size
        runs.append(same)
        columns, value = columns[same:], not value
    rle = {"size": [13, 17], "counts": runs}
    np.testing.assert_array_equal(decode_rle(rle), mask)
    assert coco.frPyObjects(rle, 13, 17)["counts"] == encode_rle(mask)["counts"].encode()


def test_area_and_box_take_a_batch_of_masks():
    masks = np.stack(
        [[random_mask(i * 3 + j, (19, 23), 0.03, 2) for j in range(3)] for i in (0, 1)]
    )
    masks[1, 2] = False
    assert mask_area(masks).tolist() == masks.sum((-2, -1)).tolist()
    boxes = mask_box(masks)
    assert boxes.shape == (2, 3, 4)
    for index in np.ndindex(2, 3):
        assert boxes[index].tolist() == mask_box(masks[index]).tolist()
    assert boxes[1, 2].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "rle, reason",
    [
        (None, "mapping"),
        ({}, "mapping"),
        ([3, 4], "mapping"),
        ({"size": [3, 4]}, "mapping"),
        ({"size": [3], "counts": "<"}, "mapping"),
        ({"size": [3, "4"], "counts": "<"}, "whole numbers"),
        ({"size": [3.0, 4.0], "counts": "<"}, "whole numbers"),
        ({"size": [-3, -4], "counts": "<"}, "whole numbers"),
        ({"size": [3, 4], "counts": ""}, "empty"),
        ({"size": [3, 4], "counts": ";"}, "add up"),
        ({"size": [3, 4], "counts": "<1"}, "add up"),
        ({"size": [3, 4], "counts": "<h"}, "cut short"),
        ({"size": [3, 4], "counts": "< "}, "characters"),
        ({"size": [3, 4], "counts": "<\x80"}, "another alphabet"),
        ({"size": [3, 4], "counts": b"<\xff"}, "characters"),
        ({"size": [3, 4], "counts": "oooooooooooo?"}, "longer"),
        ({"size": [3, 4], "counts": "@<"}, "negative"),
        ({"size": [3, 4], "counts": [13, -1]}, "negative"),
        ({"size": [3, 4], "counts": [2**62, 2**62, 2**62, 2**62, 12]}, "list of whole numbers"),
        ({"size": [3, 4], "counts": [6.0, 6.0]}, "list of whole numbers"),
        ({"size": [3, 4], "counts": 12}, "list of whole numbers"),
        ({"size": [1 << 20, 1 << 20], "counts": "<"}, "larger than any image"),
    ],
)
def test_what_is_no_rle_is_refused_with_the_reason(rle, reason):
    with pytest.raises(InputError, match=reason) as caught:
        decode_rle(rle)
    assert "\n" not in str(caught.value)


@given(st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=40))
@settings(deadline=None, max_examples=300)
def test_any_text_gives_a_mask_of_the_size_or_an_error(text):
    try:
        mask = decode_rle({"size": [5, 7], "counts": text})
    except InputError:
        return
    assert mask.shape == (5, 7)
    # What is accepted means what pycocotools reads in it.
    np.testing.assert_array_equal(mask, coco.decode({"size": [5, 7], "counts": text.encode()}) == 1)
