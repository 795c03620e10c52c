"""CVAT's XML, read back as its documentation of `mask` elements says."""

import xml.etree.ElementTree as ElementTree

import numpy as np
from labelled_images import SIZE, image_of, some_masks

from sam_jax.formats.cvat import write_cvat

MASKS = some_masks()


def read_cvat(path):
    """For each image, its attributes, and the label and mask of each element."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == "annotations" and root.findtext("version") == "1.1"
    found = []
    for image in root.iter("image"):
        size_hw = int(image.get("height")), int(image.get("width"))
        masks = []
        for element in image.iter("mask"):
            left, top, width, height = (
                int(element.get(key)) for key in ("left", "top", "width", "height")
            )
            counts = [int(count) for count in element.get("rle").split(",")]
            inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)
            mask = np.zeros(size_hw, bool)
            mask[top : top + height, left : left + width] = inside
            masks.append((element.get("label"), mask))
        found.append((image.attrib, masks))
    return found


def test_every_mask_comes_back_exactly(tmp_path):
    labels = [f'{name} & "more" <é>' for name in MASKS]
    images = [
        image_of(list(MASKS.values()), 'a & "b".jpg', labels),
        image_of([np.zeros(SIZE, bool)], "none.png"),
    ]
    path = tmp_path / "cvat.xml"
    write_cvat(path, images)
    (first, masks), (second, none) = read_cvat(path)
    assert first == {
        "id": "0",
        "name": 'a & "b".jpg',
        "width": str(SIZE[1]),
        "height": str(SIZE[0]),
    }
    assert second["id"] == "1" and none == []
    assert [label for label, _ in masks] == labels
    for (_, mask), expected in zip(masks, MASKS.values(), strict=True):
        np.testing.assert_array_equal(mask, expected)
