"""Label Studio's tasks and brushes, read back by the decoder that its encoding is documented by."""

import json

import numpy as np
import pytest
from labelled_images import SIZE, image_of, some_masks

from sam_jax.formats.label_studio import encode_brush, write_label_studio

MASKS = some_masks()


class Bits:
    """A stream of bits, highest first."""

    def __init__(self, numbers):
        self.bits = "".join(f"{number:08b}" for number in numbers)
        self.at = 0

    def read(self, count):
        self.at += count
        return int(self.bits[self.at - count : self.at], 2)


def decode_brush(numbers, size_hw):
    """rle-pack's decoder (github.com/thi-ng/umbrella), step by step; the alpha channel."""
    bits = Bits(numbers)
    count, word = bits.read(32), bits.read(5) + 1
    sizes = [bits.read(4) + 1 for _ in range(4)]
    values = []
    while len(values) < count:
        is_run = bits.read(1)
        length = bits.read(sizes[bits.read(2)]) + 1
        if is_run:
            values += [bits.read(word)] * length
        else:
            values += [bits.read(word) for _ in range(length)]
    assert len(values) == count == 4 * size_hw[0] * size_hw[1]
    assert len(bits.bits) - bits.at < 8
    rgba = np.array(values).reshape(*size_hw, 4)
    assert (rgba == rgba[..., 3:]).all() and set(np.unique(rgba)) <= {0, 255}
    return rgba[..., 3] == 255


@pytest.mark.parametrize("name", MASKS)
def test_a_brush_gives_back_the_mask(name):
    np.testing.assert_array_equal(decode_brush(encode_brush(MASKS[name]), SIZE), MASKS[name])


@pytest.mark.parametrize(
    "size_hw", [(1, 1), (1, 2), (1, 4), (1, 5), (8, 8), (1, 65), (128, 128), (129, 127), (300, 250)]
)
@pytest.mark.parametrize("value", [True, False])
def test_runs_of_every_length_are_kept(size_hw, value):
    mask = np.full(size_hw, value)
    np.testing.assert_array_equal(decode_brush(encode_brush(mask), size_hw), mask)


def test_noise_is_kept():
    mask = np.random.default_rng(0).random((40, 31)) > 0.5
    np.testing.assert_array_equal(decode_brush(encode_brush(mask), mask.shape), mask)


def test_tasks_have_an_address_and_a_result_for_each_mask(tmp_path):
    labels = list(MASKS)
    images = [image_of(list(MASKS.values()), labels=labels), image_of([], "b.png")]
    write_label_studio(tmp_path / "tasks.json", images, image_url="/data/local-files/?d=set/")
    first, second = json.loads((tmp_path / "tasks.json").read_text())
    assert first["data"] == {"image": "/data/local-files/?d=set/a%20photo.jpg"}
    assert second["predictions"][0]["result"] == []
    (prediction,) = first["predictions"]
    assert prediction["score"] == pytest.approx(np.mean([0.5 + i / 100 for i in range(5)]))
    assert len({result["id"] for result in prediction["result"]}) == len(MASKS)
    for result, (label, mask) in zip(prediction["result"], MASKS.items(), strict=True):
        value = result["value"]
        assert (result["type"], result["from_name"], result["to_name"]) == (
            "brushlabels", "tag", "image",
        )  # fmt: skip
        assert (result["original_height"], result["original_width"]) == SIZE
        assert value["format"] == "rle" and value["brushlabels"] == [label]
        np.testing.assert_array_equal(decode_brush(value["rle"], SIZE), mask)
