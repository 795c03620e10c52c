"""What is made of generated masks: label maps, polygons, COCO records, pictures, files."""

import json

import numpy as np
import pytest
from mask_candidates import blobs, candidates_of
from PIL import Image

from sam_jax.automatic.records import GeneratedMasks
from sam_jax.errors import InputError
from sam_jax.formats.coco import read_coco
from sam_jax.formats.label_png import read_label_png
from sam_jax.formats.polygons import polygons_to_mask
from sam_jax.formats.rle import decode_rle, mask_box
from sam_jax.formats.sa1b import read_sa1b

SIZE = (45, 60)
IMAGE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


@pytest.fixture
def masks():
    # In their middle an empty one, which has no place in files.
    found = blobs(np.random.default_rng(1), 5, SIZE)
    found[2] = False
    return found


@pytest.fixture
def generated(masks):
    return GeneratedMasks(SIZE, candidates_of(masks), {"candidates": 9, "kept": 5}, "test")


def test_masks_polygons_and_coco_are_of_each_mask(generated, masks):
    np.testing.assert_array_equal(np.stack(list(generated.masks())), masks)
    for mask, polygons in zip(masks, generated.polygons(), strict=True):
        np.testing.assert_array_equal(polygons_to_mask(polygons, SIZE), mask)
    for number, (mask, record) in enumerate(zip(masks, generated.to_coco(), strict=True), 1):
        np.testing.assert_array_equal(decode_rle(record["segmentation"]), mask)
        assert record["bbox"] == mask_box(mask).tolist()
        assert (record["id"], record["image_id"], record["area"]) == (number, 1, mask.sum())
        assert record["score"] == record["predicted_iou"]


def test_a_label_map_has_the_smaller_mask_on_top(generated, masks):
    expected = np.zeros(SIZE, np.uint8)
    for index in sorted(range(5), key=lambda i: -masks[i].sum()):
        expected[masks[index]] = index + 1
    np.testing.assert_array_equal(generated.label_map(), expected)


def test_files_are_of_the_masks_that_have_a_pixel(generated, masks, tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "photo.png")
    out = tmp_path / "out"
    written = generated.save(
        out, tmp_path / "photo.png", label_map=True, formats=["coco-rle", "yolo", "cvat"]
    )
    assert sorted(written) == sorted(out.iterdir()) and len(written) == 6
    read = read_sa1b(out / "photo.json")
    assert read.file_name == "photo.png" and len(read.records) == 4
    assert read.extra["sam_jax"]["report"] == generated.report
    labels = read_label_png(out / "photo_labels.png")
    for record in read.records:
        mask = decode_rle(record["segmentation"])
        assert mask.any() and set(np.unique(labels[mask])) - {0}
        assert (labels == record["id"])[mask].any()
        assert not (labels == record["id"])[~mask].any()
    (coco,) = read_coco(out / "photo_instances_rle.json")
    assert len(coco.records) == 4
    assert Image.open(out / "photo_overlay.jpg").size == generated.overlay(IMAGE).size
    generated.save(out, name="photo")  # an earlier result is replaced


def test_images_of_another_size_and_files_of_others_are_refused(generated, tmp_path):
    with pytest.raises(InputError, match="the image is 45x60 pixels"):
        generated.overlay(IMAGE.transpose(1, 0, 2))
    (tmp_path / "image.json").write_text(json.dumps({"annotations": []}))
    with pytest.raises(InputError, match="is no result of ours"):
        generated.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["image.json"]
