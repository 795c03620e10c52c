import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch.nn import functional

from sam_jax import postprocess
from sam_jax.configs import SAM2_CONFIGS, TEST
from sam_jax.errors import InputError
from sam_jax.formats.polygons import polygons_to_mask
from sam_jax.formats.rle import decode_rle, mask_box
from sam_jax.models.input_frame import resized_hw
from sam_jax.ops.mask_regions import clean_mask
from sam_jax.postprocess import (
    MaskPrediction,
    checked_clean,
    default_clean_area,
    joined_predictions,
    mask_matrices,
    upscale_logits,
)

# (image size, side of the model's input)
SIZES = [
    ((1200, 1800), 1024),
    ((1800, 1200), 1024),
    ((333, 501), 1024),
    ((97, 61), 128),
    ((1, 1), 128),
    ((3, 700), 128),
    ((2000, 3), 128),
    ((128, 128), 128),
    ((64, 1024), 1024),
]


def original_postprocess(logits, size_hw, image_size):
    """The two steps as the original takes them, in PyTorch."""
    valid_h, valid_w = resized_hw(size_hw, image_size)
    masks = functional.interpolate(
        torch.from_numpy(logits), (image_size, image_size), mode="bilinear", align_corners=False
    )
    masks = masks[..., :valid_h, :valid_w]
    return functional.interpolate(masks, size_hw, mode="bilinear", align_corners=False).numpy()


def random_logits(side, shape=(1, 2)):
    return np.random.default_rng(0).normal(size=(*shape, side, side)).astype(np.float32)


@pytest.mark.parametrize("size_hw, image_size", SIZES)
def test_one_matrix_an_axis_equals_the_originals_two_steps(size_hw, image_size):
    logits = random_logits(image_size // 4)
    rows, columns = mask_matrices(size_hw, TEST.frame.with_side(image_size), image_size // 4)
    ours = upscale_logits(logits, rows, columns)
    # float32 weights of at most four taps, accumulated in another order, plus PyTorch's float32
    # sampling positions, which are off by 1e-7 of an axis of up to 2,000 pixels.
    np.testing.assert_allclose(ours, original_postprocess(logits, size_hw, image_size), atol=2e-3)
    assert np.mean((ours > 0) != (original_postprocess(logits, size_hw, image_size) > 0)) <= 1e-4


def test_the_same_function_serves_jax_arrays():
    rows, columns = mask_matrices((40, 70), TEST.frame, 32)
    logits = random_logits(32)
    ours = upscale_logits(jnp.asarray(logits), jnp.asarray(rows), jnp.asarray(columns))
    np.testing.assert_allclose(ours, upscale_logits(logits, rows, columns), atol=1e-5)


def prediction(size_hw=(97, 61), threshold=0.0, shape=(3, 2)):
    scores = np.random.default_rng(1).uniform(size=shape).astype(np.float32)
    return MaskPrediction(scores, random_logits(32, shape), size_hw, TEST.frame, threshold)


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_masks_are_full_size_logits_above_the_threshold(threshold):
    result = prediction(threshold=threshold)
    expected = original_postprocess(result.logits, (97, 61), 128) > threshold
    assert result.masks.shape == (3, 2, 97, 61) and result.masks.dtype == bool
    assert np.mean(result.masks != expected) <= 1e-4


def test_blocks_of_rows_change_no_mask(monkeypatch):
    whole = prediction().masks
    monkeypatch.setattr(postprocess, "BLOCK_PIXELS", 61 * 7)
    np.testing.assert_array_equal(prediction().masks, whole)
    monkeypatch.setattr(postprocess, "BLOCK_PIXELS", 1)
    np.testing.assert_array_equal(prediction().masks, whole)


def test_one_mask_alone_equals_its_place_among_all():
    result = prediction()
    np.testing.assert_array_equal(result.mask(2, 1), result.masks[2, 1])


def test_best_names_the_highest_score_of_every_prompt():
    result = prediction()
    assert list(result.best()) == [(p, int(np.argmax(result.scores[p]))) for p in range(3)]


def test_masks_that_would_fill_the_memory_are_refused_with_another_way(monkeypatch):
    monkeypatch.setattr(postprocess, "MAX_MASK_BYTES", 97 * 61)
    result = prediction()
    with pytest.raises(InputError, match=r"\.mask\(prompt, index\)"):
        _ = result.masks
    assert result.mask(0, 0).shape == (97, 61)


# --- what is made of a prediction ---


def clicked(scores=None, size_hw=(61, 90)):
    """Two prompts with three candidates each: smooth random masks."""
    rng = np.random.default_rng(3)
    coarse = torch.from_numpy(rng.normal(size=(2, 3, 8, 8)).astype(np.float32))
    logits = functional.interpolate(coarse, (32, 32), mode="bicubic").numpy()
    scores = np.array([[0.1, 0.9, 0.3], [0.8, 0.2, 0.4]]) if scores is None else scores
    return MaskPrediction(scores.astype(np.float32), logits, size_hw, TEST.frame, 0.0, model="test")


BEST = [(0, 1), (1, 0)]
IMAGE = np.random.default_rng(0).integers(0, 256, (61, 90, 3), dtype=np.uint8)


def test_cleaned_masks_are_what_everything_is_made_of(tmp_path):
    raw = replace(prediction(size_hw=(61, 90)), model="test")
    clean = replace(raw, clean_area=60)
    np.testing.assert_array_equal(clean.scores, raw.scores)
    np.testing.assert_array_equal(clean.logits, raw.logits)
    expected = np.stack([[clean_mask(mask, 60) for mask in masks] for masks in raw.masks])
    assert (expected != raw.masks).any()
    np.testing.assert_array_equal(clean.masks, expected)
    np.testing.assert_array_equal(clean.mask(1, 1), expected[1, 1])
    record = clean.save(tmp_path)
    assert record["clean_area"] == 60
    for entry in record["masks"]:
        mask = expected[entry["prompt"], entry["candidate"]]
        np.testing.assert_array_equal(decode_rle(entry["segmentation"]), mask)
        assert (entry["area"], entry["bbox"]) == (mask.sum(), mask_box(mask).tolist())
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / entry["file"])) > 0, mask)


def test_the_usual_area_is_a_cell_of_the_embedding():
    # 1,024 pixels of the model are 64 cells of 16 by 16, and 256 pixels of logits.
    assert default_clean_area((1024, 700), TEST.frame, 256) == 16 * 16
    assert default_clean_area((480, 640), TEST.frame, 256) == 100
    assert default_clean_area((480, 640), SAM2_CONFIGS["sam2_test"].frame, 256) == 75


@pytest.mark.parametrize("clean", [-1, 2.5, float("nan"), "yes", [3]])
def test_areas_that_are_none_are_refused(clean):
    with pytest.raises(InputError, match="clean is True, False or an area"):
        checked_clean(clean)


def test_areas_are_told_from_true_and_false():
    assert [checked_clean(x) for x in (None, False, True, 0, 1, np.int64(7))] == [
        False, False, True, 0, 1, 7,
    ]  # fmt: skip


def test_a_label_map_has_the_smaller_mask_on_top():
    result = clicked()
    masks = [result.mask(*which) for which in BEST]
    expected = np.zeros((61, 90), np.uint8)
    for index in sorted(range(2), key=lambda i: -masks[i].sum()):
        expected[masks[index]] = index + 1
    assert (masks[0] & masks[1]).any()
    np.testing.assert_array_equal(result.label_map(), expected)


def test_polygons_and_coco_are_of_the_best_masks_or_of_all():
    result = clicked()
    everything = list(np.ndindex(2, 3))
    for best_only, chosen in ((True, BEST), (False, everything)):
        for polygons, which in zip(result.polygons(best_only=best_only), chosen, strict=True):
            np.testing.assert_array_equal(polygons_to_mask(polygons, (61, 90)), result.mask(*which))
        records = result.to_coco(image_id=7, category_id=3, best_only=best_only)
        for number, (record, which) in enumerate(zip(records, chosen, strict=True), 1):
            mask = result.mask(*which)
            np.testing.assert_array_equal(coco_mask.decode(record["segmentation"]), mask)
            assert record["area"] == coco_mask.area(record["segmentation"])
            assert record["bbox"] == coco_mask.toBbox(record["segmentation"]).tolist()
            assert record["score"] == record["predicted_iou"] == result.scores[which]
            ids = [record[key] for key in ("id", "image_id", "category_id", "iscrowd")]
            assert ids == [number, 7, 3, 0]
    assert json.loads(json.dumps(records)) == records


def test_overlays_are_drawn_on_any_image_of_the_masks_size():
    result = clicked()
    prompts = [{"points": [[5, 6]], "labels": [1]}, {"box": [2, 3, 40, 50]}]
    one = result.overlay(Image.fromarray(IMAGE), prompts=prompts, objects=["a", "b"])
    strip = result.overlay(IMAGE, best_only=False)
    assert one.size == (270, 183) and strip.width > 3 * 270
    assert (np.asarray(result.overlay(IMAGE)) != np.asarray(one)).any()
    with pytest.raises(InputError, match="the image is 61x90 pixels, but the masks are of one of"):
        result.overlay(IMAGE.transpose(1, 0, 2))


def test_files_are_named_for_objects_and_listed(tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "photo.png")
    record = clicked().save(
        tmp_path / "out",
        tmp_path / "photo.png",
        objects=["a dog", "cat"],
        label_map=True,
        logits=True,
        formats=["coco-rle", "polygon", "yolo", "labelme", "label-studio", "cvat"],
        about={"note": "mine"},
    )
    assert record == json.loads((tmp_path / "out" / "photo.json").read_text())
    assert record["note"] == "mine" and record["image"]["file"] == "photo.png"
    named = [(entry["object"], entry["file"]) for entry in record["masks"]]
    assert named == [
        (name, f"photo_mask_{name}_{i}.png") for name in ("a dog", "cat") for i in range(3)
    ]
    files = [entry[key] for entry in record["masks"] for key in ("file", "logits")]
    files += [record["overlay"], record["labels"], *record["exports"].values(), "photo.json"]
    assert sorted(files) == sorted(path.name for path in (tmp_path / "out").iterdir())
    labels = np.asarray(Image.open(tmp_path / "out" / "photo_labels.png"))
    np.testing.assert_array_equal(labels, clicked().label_map())
    shapes = json.loads((tmp_path / "out" / "photo_labelme.json").read_text())["shapes"]
    assert [shape["label"] for shape in shapes] == ["a dog", "cat"]
    # With other names, the earlier call's files go.
    clicked().only_best().save(tmp_path / "out", name="photo")
    left = {path.name for path in (tmp_path / "out").glob("photo_mask_*")}
    assert left == {"photo_mask_0.png", "photo_mask_1.png"}


@pytest.mark.parametrize(
    "objects, reason",
    [
        (["a"], "1 names of objects for 2 prompts"),
        (["a", "a"], "two objects have the name 'a'"),
        (["a", "A"], "two objects have the name 'A'"),
        (["a", "../b"], "cannot be part of a file's name"),
        (["a", "b" * 101], "cannot be part of a file's name"),
        (["a", " "], "a label is text on one line"),
        (["a", "b\n"], "a label is text on one line"),
        (["a", ".."], "cannot be part of a file's name"),
    ],
)
def test_names_that_files_cannot_have_are_refused(tmp_path, objects, reason):
    with pytest.raises(InputError, match=reason):
        clicked().save(tmp_path, objects=objects)
    assert not list(tmp_path.iterdir())


def test_predictions_are_joined_prompt_by_prompt():
    result = clicked()
    joined = joined_predictions([result, replace(result, scores=1 - result.scores)])
    assert joined.masks.shape == (4, 3, 61, 90)
    np.testing.assert_array_equal(joined.masks[2:], result.masks)
    np.testing.assert_array_equal(joined.only_best().masks[:2, 0], result.masks[[0, 1], [1, 0]])
    assert joined.only_best().scores.shape == (4, 1)
