"""labelme's JSON, read back as its own LabelFile and shape_to_mask read it."""

import base64
import io
import json

import numpy as np
import pytest
from labelled_images import SIZE, image_of, near_outline, some_masks
from PIL import Image, ImageDraw

from sam_jax.formats.labelme import write_labelme

MASKS = some_masks()


def read_shapes(path):
    """What labelme makes of a file: each shape's label, group and mask (labelme 6.3)."""
    content = json.loads(path.read_text())
    height, width = content["imageHeight"], content["imageWidth"]
    found = []
    for shape in content["shapes"]:
        assert set(shape) >= {"label", "points", "group_id", "shape_type", "flags", "description"}
        assert all(isinstance(x, int | float) for point in shape["points"] for x in point)
        if shape["shape_type"] == "mask":
            png = Image.open(io.BytesIO(base64.b64decode(shape["mask"])))
            (x1, y1), (x2, y2) = np.array(shape["points"]).astype(int)
            mask = np.zeros((height, width), bool)
            mask[y1 : y2 + 1, x1 : x2 + 1] = np.array(png).astype(bool)
        else:
            picture = Image.fromarray(np.zeros((height, width), np.uint8))
            points = [tuple(point) for point in shape["points"]]
            ImageDraw.Draw(picture).polygon(points, outline=1, fill=1)
            mask = np.array(picture, bool)
        found.append((shape["label"], shape["group_id"], mask))
    return found


def test_bitmaps_give_back_every_mask_exactly(tmp_path):
    labels = [f"a {name}" for name in MASKS]
    image = image_of(list(MASKS.values()), labels=labels)
    write_labelme(tmp_path / "a.json", image, image_path="../photos/a photo.jpg")
    found = read_shapes(tmp_path / "a.json")
    assert [label for label, _, _ in found] == labels
    for (_, _, mask), expected in zip(found, MASKS.values(), strict=True):
        np.testing.assert_array_equal(mask, expected)
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["imagePath"] == "../photos/a photo.jpg" and content["imageData"] is None
    assert (content["imageHeight"], content["imageWidth"]) == SIZE


@pytest.mark.parametrize("name", MASKS)
def test_polygons_of_a_mask_share_a_group(tmp_path, name):
    write_labelme(tmp_path / "a.json", image_of([MASKS[name]]), polygons=True)
    found = read_shapes(tmp_path / "a.json")
    assert len(found) == (2 if name == "parts" else 1)
    groups = {group for _, group, _ in found}
    assert groups == ({0} if name == "parts" else {None})
    union = np.any([mask for _, _, mask in found], axis=0)
    wrong = (union != MASKS[name]) & ~near_outline(MASKS[name])
    # labelme draws outlines a pixel wide, and the line to a hole with them.
    assert wrong.sum() <= (SIZE[0] if name == "ring" else 0)


def test_masks_without_a_pixel_are_left_out(tmp_path):
    write_labelme(tmp_path / "a.json", image_of([np.zeros(SIZE, bool)]))
    assert read_shapes(tmp_path / "a.json") == []
