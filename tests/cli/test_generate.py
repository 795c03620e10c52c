"""`sam-jax generate`: whole results in every format, and none lost, whatever the disk does."""

import hashlib
import json
import os
import re
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from generated_folder import (
    ARGS,
    KNOBS,
    OUT,
    fail_on_call,
    full_disk,
    masks_of,
    names,
    snapshot,
)
from PIL import Image
from pycocotools.coco import COCO

from sam_jax import Segmenter, images
from sam_jax.automatic.options import PRESETS, GenerateOptions
from sam_jax.cli import generate as generate_module
from sam_jax.cli import generation_options
from sam_jax.cli.main import main
from sam_jax.folder_runs import generated_exports, generation, generation_run
from sam_jax.formats.label_png import label_png, read_label_png
from sam_jax.formats.sa1b import read_sa1b


@pytest.fixture(scope="module")
def segmenter(checkpoint):
    return Segmenter.load(checkpoint)


def test_one_image_gives_what_the_segmenter_gives(generate, segmenter, checkpoint):
    result = generate("photo.png")
    assert names() == ["photo.json", "photo_overlay.jpg"]
    expected = segmenter.generate_masks("photo.png", **KNOBS)
    written = read_sa1b(OUT / "photo.json")
    assert (written.file_name, written.size_hw) == ("photo.png", (61, 90))
    assert len(written.records) == 5
    for record, wanted in zip(written.records, expected.records("coco_rle"), strict=True):
        assert record.items() >= wanted.items()
    entry = written.extra["sam_jax"]
    assert entry["checkpoint"] == {
        "name": str(checkpoint),
        "model": "test",
        "fingerprint": segmenter.fingerprint,
        "dtype": "float32",
    }
    assert entry["options"].items() >= KNOBS.items() and entry["options"]["nms"] == "box"
    assert entry["report"] == expected.report and entry["report"]["kept"] == 5
    assert entry["files"] == {"photo_overlay.jpg": "overlay"}
    content = hashlib.sha256(Path("photo.png").read_bytes()).hexdigest()
    assert entry["made_from"] == {"image_sha256": content, "embedding_sha256": None}
    overlay = Image.open(OUT / "photo_overlay.jpg")
    assert (overlay.mode, overlay.size) == ("RGB", (3 * 90, 3 * 61))  # enlarged
    assert overlay.info["comment"] == b"sam-jax generate: overlay."
    lines = result.stdout.splitlines()
    assert lines[:3] == [f"{OUT}/photo_overlay.jpg", f"{OUT}/photo.json", "  48 candidates"]
    assert lines[-1] == "   5 kept"
    counted = {line.strip().split(" ", 1)[1]: int(line.split()[0]) for line in lines[2:]}
    assert counted == {name: n for name, n in expected.report.items() if n}


def test_a_folder_gives_each_image_and_the_totals(generate, photos):
    result = generate(photos)
    assert names() == ["a.json", "b.json", "c.json", "d.json"]
    assert read_sa1b(OUT / "c.json").file_name == "c.webp"
    first, *report = result.stdout.splitlines()
    assert first == f"{OUT}: 4 of 4 images done"
    assert report[0] == "  192 candidates" and report[-1] == "   20 kept"
    assert "generating: 4 of 4 images" in result.stderr.splitlines()


def test_label_pngs_are_of_the_masks(generate, photos):
    generate(photos, "--format", "png", "--output", "out")
    assert names(Path("out"))[:3] == ["a.json", "a_labels.png", "b.json"]
    labels = read_label_png("out/b_labels.png")
    assert labels.shape == (61, 90)
    Path("plain.png").write_bytes(label_png(iter(masks_of("out/b.json")), (61, 90)))
    np.testing.assert_array_equal(labels, read_label_png("plain.png"))
    assert Image.open("out/b_labels.png").info["Software"] == "sam-jax generate: labels."


@pytest.mark.parametrize("kind", ["coco-rle", "polygon"])
def test_one_coco_file_holds_all_images(generate, photos, kind):
    result = generate(photos, "--format", kind, "--format", "sa1b")
    path = OUT / generated_exports.EXPORTS[kind]
    assert str(path) in result.stdout.splitlines()
    coco = COCO(str(path))
    assert {i: image["file_name"] for i, image in coco.imgs.items()} == {
        1: "a.jpg", 2: "b.png", 3: "c.webp", 4: "d.png",
    }  # fmt: skip
    for number, name in enumerate("abcd", 1):
        annotations = coco.loadAnns(coco.getAnnIds(number))
        for annotation, mask in zip(annotations, masks_of(OUT / f"{name}.json"), strict=True):
            np.testing.assert_array_equal(coco.annToMask(annotation), mask)


def test_annotation_tools_get_all_images(generate, photos):
    kinds = ("yolo", "labelme", "label-studio", "cvat")
    args = [arg for kind in kinds for arg in ("--format", kind)]
    result = generate(photos, *args)
    paths = [OUT / generated_exports.EXPORTS[kind] for kind in kinds]
    assert set(map(str, paths)) <= set(result.stdout.splitlines())
    expected = {name: masks_of(OUT / f"{name}.json") for name in "abcd"}
    tasks = json.loads((OUT / "label_studio.json").read_text())
    root = ElementTree.parse(OUT / "cvat.xml").getroot()
    for name, task, element in zip("abcd", tasks, root.iter("image"), strict=True):
        count = len(expected[name])
        labelme = json.loads((OUT / "labelme" / f"{name}.json").read_text())
        assert len(labelme["shapes"]) == count
        assert (OUT / "labelme" / labelme["imagePath"]).resolve().parent == photos.resolve()
        assert len((OUT / "yolo" / "labels" / f"{name}.txt").read_text().splitlines()) == count
        assert len(task["predictions"][0]["result"]) == len(element.findall("mask")) == count
    # Again, with images that people put there: they stay. With other masks alone: nothing does.
    (OUT / "yolo" / "images").mkdir()
    (OUT / "yolo" / "images" / "a.jpg").write_bytes(b"mine")
    generate(photos, *args)
    generate(photos, "--max-masks", "2")
    assert not any(path.exists() for path in paths[2:])
    left = [path.relative_to(OUT) for folder in paths[:2] for path in folder.rglob("*.*")]
    assert sorted(map(str, left)) == ["yolo/data.yaml", "yolo/images/a.jpg"]
    generate(photos, *args, "--max-masks", "2")
    assert len((OUT / "yolo" / "labels" / "a.txt").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "kind, file, content",
    [
        ("yolo", "yolo/data.yaml", "names: [dog]"),
        ("yolo", "yolo", "a file"),
        ("labelme", "labelme/a.json", '{"version": "5.2.0", "shapes": []}'),
        ("label-studio", "label_studio.json", '[{"data": {}}]'),
        ("cvat", "cvat.xml", "<annotations/>"),
    ],
)
def test_annotations_of_others_are_not_replaced(refused, photos, kind, file, content):
    (OUT / file).parent.mkdir(parents=True)
    (OUT / file).write_text(content)
    assert "exists and is no result of this command" in refused(photos, "--format", kind)
    assert (OUT / file).read_text() == content


def test_simplified_polygons_have_fewer_corners(generate):
    def corners(*args):
        generate("photo.png", "--format", "polygon", *args)
        content = json.loads((OUT / "instances_polygon.json").read_text())
        rings = [ring for one in content["annotations"] for ring in one["segmentation"]]
        return sum(len(ring) // 2 for ring in rings)

    assert corners("--simplify", "2") < corners()


def test_ids_are_written_on_the_overlay(generate):
    generate("photo.png")
    without = (OUT / "photo_overlay.jpg").read_bytes()
    generate("photo.png", "--ids", "--resume")
    assert (OUT / "photo_overlay.jpg").read_bytes() != without
    assert read_sa1b(OUT / "photo.json").extra["sam_jax"]["files"] == {
        "photo_overlay.jpg": "overlay with ids"
    }


def test_every_option_of_the_generator_can_be_typed(monkeypatch, checkpoint):
    typed = {
        "points_per_side": 7, "points_per_batch": 8, "pred_iou_thresh": 0.5,
        "stability_score_thresh": 0.25, "stability_score_offset": 2.0, "box_nms_thresh": 0.5,
        "crop_n_layers": 1, "crop_nms_thresh": 0.25, "crop_overlap_ratio": 0.5,
        "crop_n_points_downscale_factor": 2, "min_mask_region_area": 3, "min_mask_area": 4,
        "max_mask_area_ratio": 0.75, "nms": "mask", "max_masks": 9, "tile_overlap": 0.125,
    }  # fmt: skip
    known = {field.name for field in fields(GenerateOptions)}
    assert set(typed) | {"tile_size", "point_grids", "use_m2m"} == known
    assert generation_options.PRESET_NAMES == tuple(PRESETS)
    chosen = {}

    class Stop(Exception):
        pass

    def stop(*args, **_):
        chosen.update(vars(args[2]))
        raise Stop

    monkeypatch.setattr(generation, "GenerationRun", stop)
    for args, expected in (
        (typed, {**typed, "tile_size": None}),
        ({"tile_size": 512}, {**vars(PRESETS["default"]), "tile_size": 512}),
        ({"preset": "paper", "min_mask_area": 5}, {**vars(PRESETS["paper"]), "min_mask_area": 5}),
    ):
        words = [w for k, v in args.items() for w in ("--" + k.replace("_", "-"), str(v))]
        arguments = ["generate", "photo.png", "--checkpoint", str(checkpoint), *words]
        assert isinstance(CliRunner().invoke(main, arguments).exception, Stop)
        assert {k: chosen[k] for k in expected} == expected


def test_help_says_what_raising_each_knob_does(run):
    text = " ".join(run("generate", "--help").stdout.split())
    options = re.findall(r"--([a-z0-9-]+)(?: \S+)? ", text)
    for field in fields(GenerateOptions):
        assert field.name == "point_grids" or field.name.replace("_", "-") in options
    # Neither a grid of one's own nor a switch can be raised.
    assert text.count("Raising it") >= len(fields(GenerateOptions)) - 3


@pytest.mark.parametrize(
    "args, reason",
    [
        (["--points-per-side", "0"], "--points-per-side is a whole number from 1"),
        (["--pred-iou-thresh", "nan"], "--pred-iou-thresh is a number, not nan"),
        (["--pred-iou-thresh", "-inf"], "--pred-iou-thresh is a number, not -inf"),
        (["--box-nms-thresh", "1.5"], "--box-nms-thresh is a number from 0 to 1"),
        (["--nms", "boxes"], "'boxes' is not one of"),
        (["--preset", "slow"], "'slow' is not one of"),
        (["--format", "coco"], "'coco' is not one of"),
        (["--tile-size", "64", "--crop-n-layers", "1"], "--tile-size and --crop-n-layers cannot"),
        (["--simplify", "1"], "add --format polygon"),
        (["--simplify", "-1", "--format", "polygon"], "from 0 on, not -1"),
        (["--simplify", "nan", "--format", "polygon"], "from 0 on, not nan"),
        (["--no-overlay", "--ids"], "add --overlay"),
        (["--embeddings", "photos", "--crop-n-layers", "1"], "encoded one by one"),
        (["--embeddings", "photos", "--tile-size", "64"], "encoded one by one"),
        (["--embeddings", "nowhere"], "no folder nowhere"),
        (["--output", "photo.png"], "photo.png is not a folder"),
        (["--output", "photos", "--format", "png"], "choose another --output"),
        (["--output", "photos", "--overlay"], "choose another --output"),
        (["--checkpoint", "nothing"], "names are: "),
    ],
)  # fmt: skip
def test_bad_options_are_refused_before_the_model_is_loaded(
    refused, photos, monkeypatch, args, reason
):
    monkeypatch.setattr(generate_module, "load_segmenter", None)
    assert reason in refused(photos, *args)


def test_bad_folders_and_names_are_refused_before_the_model_is_loaded(refused, photos, monkeypatch):
    monkeypatch.setattr(generate_module, "load_segmenter", None)
    Path("empty").mkdir()
    assert "no images in 'empty'" in refused("empty")
    assert "nothing.png" in refused("nothing.png")
    Path("damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "damaged.png" in refused("damaged.png")
    assert not OUT.exists()
    shutil.copy("photos/b.png", "photos/a.png")
    assert refused(photos).startswith(f"a.jpg and a.png would both be written to {OUT}/a.json;")
    Path("photos/a.png").unlink()
    shutil.copy("photos/b.png", "photos/instances_rle.png")
    assert "instances_rle" in refused(photos, "--format", "coco-rle")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written to; choose another --output" in refused(photos)


def test_what_cannot_be_read_is_listed_and_the_rest_done(failing, generate, photos, monkeypatch):
    (photos / "b.png").write_bytes(b"")
    read_image = images.read_image

    def read(source):
        # It goes between listing and reading.
        (photos / "c.webp").unlink(missing_ok=True)
        return read_image(source)

    monkeypatch.setattr(images, "read_image", read)
    result = failing(photos, "--format", "coco-rle")
    assert names() == ["a.json", "d.json", "instances_rle.json"]
    assert result.stdout.startswith(f"{OUT}: 2 of 4 images done, 2 failed\n")
    *_, first, second, last = result.stderr.splitlines()
    assert first.startswith("failed: ") and "b.png" in first
    assert second.startswith("failed: ") and "c.webp" in second
    assert last.startswith("error: 2 of 4 images could not be done") and "--resume" in last
    coco = COCO(str(OUT / "instances_rle.json"))
    assert [image["file_name"] for image in coco.imgs.values()] == ["a.jpg", "d.png"]
    Image.fromarray(np.zeros((61, 90, 3), np.uint8)).save(photos / "b.png")
    result = generate(photos, "--format", "coco-rle", "--resume")
    assert result.stdout.startswith(f"{OUT}: 1 of 3 images done, 2 were there already\n")


def test_few_images_are_in_memory_however_many_there_are(generate, photos, monkeypatch):
    for number in range(8):
        shutil.copy(photos / "b.png", photos / f"e{number}.png")
    read, most = [], []
    read_image, generate_masks = images.read_image, Segmenter.generate_masks

    def reading(source):
        read.append(source)
        return read_image(source)

    def generating(self, *args, **options):
        most.append(len(read) - len(most))
        return generate_masks(self, *args, **options)

    monkeypatch.setattr(images, "read_image", reading)
    monkeypatch.setattr(Segmenter, "generate_masks", generating)
    generate(photos)
    assert len(most) == 12 and max(most) <= 3


# Of the second image: a picture, the JSON, the first file to take its place, the second one.
@pytest.mark.parametrize(
    "owner, name, number",
    [(Path, "write_bytes", 3), (os, "replace", 5), (os, "replace", 6), (os, "replace", 7)],
)
def test_a_full_disk_stops_the_run_and_keeps_what_is_finished(
    generate, failing, photos, monkeypatch, owner, name, number
):
    pictures = ("--format", "png", "--overlay")
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail_on_call(getattr(owner, name), number))
        result = failing(photos, *pictures)
    (line,) = (x for x in result.stderr.splitlines() if not x.startswith("generating"))
    assert "No space left on device" in line and "1 of 4 images are finished" in line
    assert "--resume" in line
    assert [path.name for path in OUT.glob("*.json")] == ["a.json"]
    assert [name for name in names() if name.endswith(".part")] == []
    before = {path: stamp for path, stamp in snapshot(OUT).items() if path.stem[0] == "a"}
    assert len(before) == 3
    result = generate(photos, *pictures, "--resume")
    assert result.stdout.startswith(f"{OUT}: 3 of 4 images done, 1 were there already\n")
    assert snapshot(OUT).items() >= before.items() and len(names()) == 12


def test_a_full_disk_at_the_end_keeps_all_images(failing, photos, monkeypatch):
    (photos / "b.png").write_bytes(b"")
    monkeypatch.setattr(generation, "write_export", full_disk)
    result = failing(photos, "--format", "coco-rle")
    failed, line = result.stderr.splitlines()[-2:]
    assert failed.startswith("failed: ") and "b.png" in failed
    assert "No space left on device; the images are finished" in line and "--resume" in line
    assert names() == ["a.json", "c.json", "d.json"]


def test_it_says_so_when_nothing_is_left(generate):
    result = generate("photo.png", "--pred-iou-thresh", "1000")
    assert result.stderr.splitlines()[-1] == (
        "no mask is left; most candidates were below pred_iou_thresh"
    )
    assert read_sa1b(OUT / "photo.json").records == []


def test_a_full_disk_leaves_the_result_of_before(generate, failing, monkeypatch):
    generate("photo.png", "--format", "png")
    before = snapshot(OUT)
    monkeypatch.setattr(os, "replace", fail_on_call(os.replace, 1))
    failing("photo.png", "--format", "png", "--max-masks", "2")
    assert snapshot(OUT) == before


def test_ctrl_c_keeps_what_is_finished_and_ends_with_130(checkpoint, photos, monkeypatch):
    write_image, written = generation_run.write_image, []

    def interrupted(*args):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(args)
        return write_image(*args)

    monkeypatch.setattr(generation_run, "write_image", interrupted)
    arguments = ["generate", str(photos), "--checkpoint", str(checkpoint), *ARGS]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 130 and "Traceback" not in result.stderr
    assert "interrupted: 2 of 4 images are finished, go on with --resume" in result.stderr
    assert names() == ["a.json", "b.json"]


def test_without_a_checkpoint_the_small_one_is_used_and_said_so(run, shipped):
    result = run("generate", "photo.png", *ARGS)
    assert "small built-in model" in result.stderr
