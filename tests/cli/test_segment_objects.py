"""`sam-jax segment` of several objects: whose prompts are whose, names in files, label maps."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam_jax import Segmenter, configs
from sam_jax.formats.label_png import read_label_png
from sam_jax.formats.rle import decode_rle

OUT = Path("sam-jax-output")


@pytest.fixture(scope="module")
def segmenter(checkpoint):
    return Segmenter.load(checkpoint)


@pytest.fixture
def segment(run, checkpoint):
    def call(*args):
        run("segment", "photo.png", "--checkpoint", checkpoint, *args)
        return json.loads((OUT / "photo.json").read_text())

    return call


def masks_of(record):
    return {entry["object"]: decode_rle(entry["segmentation"]) for entry in record["masks"]}


def best_mask(prediction):
    return prediction.mask(*next(prediction.best()))


def test_each_object_has_its_prompts_and_its_files(segment, segmenter):
    record = segment(
        "--object", "dog", "--point", "30,20", "--object", "cat", "--box", "5,6,70,50",
        "--point", "60,40,0", "--object", "dog", "--point", "10,50,0",
    )  # fmt: skip
    embedding = segmenter.encode("photo.png")
    dog = segmenter.predict(embedding, points=[[30, 20], [10, 50]], labels=[1, 0], multimask=False)
    cat = segmenter.predict(
        embedding, points=[[60, 40]], labels=[0], boxes=[5, 6, 70, 50], multimask=False
    )
    found = masks_of(record)
    assert list(found) == ["dog", "cat"]
    np.testing.assert_array_equal(found["dog"], best_mask(dog))
    np.testing.assert_array_equal(found["cat"], best_mask(cat))
    assert [prompt["object"] for prompt in record["prompts"]] == ["dog", "cat"]
    assert record["prompts"][1]["labels"] == [0]
    assert {path.name for path in OUT.iterdir()} == {
        "photo_mask_dog.png", "photo_mask_cat.png", "photo_overlay.png", "photo.json",
    }  # fmt: skip


def test_of_a_single_point_the_best_of_three_is_kept(segment, segmenter):
    record = segment("--object", "a", "--point", "30,20", "--object", "b", "--point", "60,40")
    embedding = segmenter.encode("photo.png")
    for name, point in (("a", [30, 20]), ("b", [60, 40])):
        expected = best_mask(segmenter.predict(embedding, points=[point]))
        np.testing.assert_array_equal(masks_of(record)[name], expected)


def test_candidates_of_each_are_written_when_asked_for(segment):
    both = ("--object", "a", "--point", "30,20", "--object", "b", "--box", "5,6,70,50")
    record = segment(*both, "--multimask")
    assert [entry["file"] for entry in record["masks"]] == [
        f"photo_mask_{name}_{i}.png" for name in "ab" for i in range(3)
    ]
    assert len(segment(*both, "--single-mask")["masks"]) == 2
    assert len(list(OUT.glob("photo_mask_*"))) == 2


def test_masks_of_objects_are_prompts_of_their_own(segment):
    for name, box in (("a", (10, 10, 40, 50)), ("b", (50, 5, 85, 30))):
        picture = Image.new("L", (90, 61))
        picture.paste(255, box)
        picture.save(f"{name}.png")
    args = ["--object", "a", "--mask-input", "a.png", "--object", "b", "--mask-input", "b.png"]
    record = segment(*args)
    assert [prompt["mask_input"] for prompt in record["prompts"]] == ["a.png", "b.png"]
    found = masks_of(record)
    assert (found["a"] != found["b"]).any()


def test_a_label_map_numbers_the_objects(segment):
    record = segment(
        "--object", "a", "--box", "5,6,70,50", "--object", "b", "--point", "60,40", "--label-map"
    )
    labels, found = read_label_png(OUT / record["labels"]), masks_of(record)
    assert set(np.unique(labels)) <= {0, 1, 2}
    only_b = found["b"] & ~found["a"]
    assert (labels[only_b] == 2).all() and (labels[~found["a"] & ~found["b"]] == 0).all()


def test_boxes_without_names_have_a_label_map_too(segment):
    record = segment("--box", "5,6,70,50", "--box", "0,0,30,30", "--label-map")
    assert read_label_png(OUT / record["labels"]).shape == (61, 90)
    assert [entry["file"] for entry in record["masks"]] == ["photo_mask_0.png", "photo_mask_1.png"]


@pytest.mark.parametrize("kind", ["coco-rle", "polygon", "yolo", "labelme", "label-studio", "cvat"])
def test_other_programs_formats_are_written_and_replaced(segment, kind):
    args = ("--object", "dog", "--box", "5,6,70,50", "--format", kind)
    name = segment(*args)["exports"][kind]
    assert segment(*args)["exports"] == {kind: name}
    assert (OUT / name).exists()
    if kind not in ("coco-rle", "polygon"):
        files = [OUT / name] if (OUT / name).is_file() else (OUT / name).rglob("*.*")
        assert any("dog" in file.read_text() for file in files)


@pytest.mark.parametrize("model, cleaned", [("test", False), ("tiny", True)])
def test_masks_are_cleaned_by_default_for_the_small_model_alone(
    segment, segmenter, monkeypatch, model, cleaned
):
    monkeypatch.setattr(configs, "TINY", configs.TEST if cleaned else configs.TINY)
    box = ("--box", "5,6,70,50")
    assert bool(segment(*box)["clean_area"]) == cleaned
    assert segment(*box, "--no-clean")["clean_area"] == 0
    usual = segment(*box, "--clean")
    # A cell of the embedding: 90 pixels are 32 of logits, and a cell is 4 by 4 of those.
    assert usual["clean_area"] == round(16 * (90 / 32) ** 2)
    chosen = segment(*box, "--clean-area", "40")
    assert chosen["clean_area"] == 40
    prediction = segmenter.predict(
        segmenter.encode("photo.png"), boxes=[5, 6, 70, 50], multimask=False, clean=40
    )
    (entry,) = chosen["masks"]
    np.testing.assert_array_equal(decode_rle(entry["segmentation"]), prediction.mask(0, 0))


@pytest.mark.parametrize(
    "args, reason",
    [
        (["--object", "a"], "--object a has no prompt; give --point, --box or --mask-input"),
        (["--object", "a", "--box", "1,2,3,4", "--object", "b"], "--object b has no prompt"),
        (["--object", "a", "--box", "1,2,3,4", "--box", "1,2,3,5"], "object a has two boxes"),
        (["--object", "a", "--mask-input", "x.npy", "--mask-input", "y.npy"],
         "object a has two masks"),
        (["--mask-input", "x.npy", "--mask-input", "y.npy"], "there are two masks"),
        (["--object", "a", "--point", "300,2"], "object a: "),
        (["--object", "a/b", "--point", "3,2"], "'a/b' cannot be part of a file's name"),
        (["--object", "", "--point", "3,2"], "a label is text on one line"),
        (["--object", "a", "--point", "3,2", "--object", "A", "--point", "3,2"],
         "two objects have the name 'A'"),
        (["--box", "1,2,3,4", "--clean-area", "-1"], "--clean-area"),
        (["--box", "1,2,3,4", "--no-clean", "--clean-area", "5"], "leave out --no-clean"),
        (["--box", "1,2,3,4", "--simplify", "1"], "--simplify is for polygons"),
        (["--box", "1,2,3,4", "--format", "voc"], "'voc' is not one of"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(run, checkpoint, args, reason):
    line = run.refused("segment", "photo.png", "--checkpoint", checkpoint, *args)
    assert reason in line
    assert not OUT.exists()


def test_what_stands_before_the_first_object_is_object_1(segment):
    record = segment("--point", "30,20", "--object", "cat", "--box", "5,6,70,50")
    assert [entry["object"] for entry in record["masks"]] == ["1", "cat"]
