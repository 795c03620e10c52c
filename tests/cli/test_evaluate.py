"""`sam-jax evaluate`, end to end with the small model on drawn pictures."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam_jax.cli import evaluate as command
from sam_jax.evaluate import edges, proposals, tasks
from sam_jax.evaluate.boundaries import boundary_pixels
from sam_jax.evaluate.interactive import SegmenterClicks, box_scores, click_scores
from sam_jax.evaluate.thinning import thin
from sam_jax.formats.rle import encode_rle, mask_area, mask_box
from sam_jax.formats.sa1b import write_sa1b
from sam_jax.images import read_image
from sam_jax.segmenter import Segmenter

SIZES = [(70, 100), (90, 50)]


def disc(size_hw, x, y, radius):
    rows, columns = np.indices(size_hw)
    return np.hypot(rows - y, columns - x) <= radius


def drawn(size_hw):
    """A picture of bright discs on dark ground, and their masks: one of them is of 5 pixels."""
    height, width = size_hw
    masks = [
        disc(size_hw, width // 4, height // 3, 12),
        disc(size_hw, width * 2 // 3, height * 2 // 3, 15),
        disc(size_hw, 3, height - 4, 1),
    ]
    colors = [(250, 220, 60), (240, 90, 80), (90, 220, 250)]
    pixels = np.full((*size_hw, 3), (30, 50, 40), np.uint8)
    for mask, color in zip(masks, colors, strict=True):
        pixels[mask] = color
    return pixels, masks


@pytest.fixture
def dataset():
    """SA-1B's files of two pictures, and of one that is damaged."""
    folder = Path("drawn")
    folder.mkdir()
    for number, size_hw in enumerate([*SIZES, (40, 40)], 1):
        pixels, masks = drawn(size_hw)
        Image.fromarray(pixels).save(folder / f"sa_{number}.png")
        records = [
            {
                "segmentation": encode_rle(mask),
                "area": int(mask_area(mask)),
                "bbox": mask_box(mask).tolist(),
                "predicted_iou": 1.0,
                "stability_score": 1.0,
                "crop_box": [0, 0, size_hw[1], size_hw[0]],
                "point_coords": [[1, 1]],
            }
            for mask in masks
        ]
        write_sa1b(
            folder / f"sa_{number}.json",
            records,
            file_name=f"sa_{number}.png",
            size_hw=size_hw,
            image_id=number,
        )
    (folder / "sa_3.png").write_bytes(b"no picture")
    return folder


def read_rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_small_model_on_two_pictures(run, dataset):
    result = run(
        "evaluate", dataset, "--clicks", "3,1", "--min-area", 6, "--output", "out",
        *("--baseline", "flood-fill", "--baseline", "filled-box"),
    )  # fmt: skip
    assert "4 objects in 2 images" in result.stdout
    (notice,) = [line for line in result.stderr.splitlines() if "built-in model" in line]
    assert "'tiny'" in notice and "sam-jax download vit_b" in notice
    assert "1 images left out: 1 broken image; sa_3.png" in result.stderr
    # Of the damaged one nothing is known.
    assert "2 objects left out for their area" in result.stderr
    names = {"results.json", "results.csv", "miou_over_clicks.png"}
    assert {path.name for path in Path("out").iterdir()} == names

    found = json.loads(Path("out/results.json").read_text())
    assert (found["images"], found["objects"]) == (2, 4)
    assert found["images_left_out"] == {"broken image": 1}
    assert found["options"]["clicks"] == [1, 3]
    rows = read_rows("out/results.csv")
    assert [(row["image"], row["object"]) for row in rows] == [
        (f"sa_{number}.png", str(one)) for number in (1, 2) for one in (0, 1)
    ]

    # The same by hand.
    segmenter = Segmenter.load("tiny")
    expected = {"sam click_1": [], "sam click_3": [], "sam box_refined": []}
    for number, size_hw in enumerate(SIZES, 1):
        truths = drawn(size_hw)[1][:2]
        embedding = segmenter.encode(read_image(dataset / f"sa_{number}.png"))
        clicked = click_scores(SegmenterClicks(segmenter, embedding), truths, (1, 3))
        expected["sam click_1"] += clicked.iou[:, 0].tolist()
        expected["sam click_3"] += clicked.iou[:, 1].tolist()
        refined = box_scores(segmenter, embedding, truths).refined
        expected["sam box_refined"] += refined.tolist()
    for column, values in expected.items():
        # Six digits are written.
        np.testing.assert_allclose([float(row[column]) for row in rows], values, atol=1e-6)
        task = "boxes" if "box" in column else "points"
        mean = found["tasks"][task]["mean_iou"]["sam"][column.removeprefix("sam ")]
        assert mean == pytest.approx(np.mean(values))
        assert f"{np.mean(values):.3f}" in result.stdout
    # Discs of one color, in the box that is drawn around them.
    assert found["tasks"]["points"]["mean_iou"]["flood-fill"]["click_1_oracle"] == 1
    discs = [mask for size_hw in SIZES for mask in drawn(size_hw)[1][:2]]
    shares = [mask_area(mask) / np.prod(mask_box(mask)[2:]) for mask in discs]
    assert found["tasks"]["boxes"]["mean_iou"]["filled-box"]["box"] == pytest.approx(
        np.mean(shares)
    )
    with Image.open("out/miou_over_clicks.png") as chart:
        colors = {color for _, color in chart.convert("RGB").getcolors(1 << 20)}
    assert len(colors) > 3


def test_a_seed_repeats_what_is_random(run, dataset):
    args = ("--first-click", "random", "--max-images", 1, "--max-masks", 1, "--clicks", 1)
    tables = []
    for seed in (0, 0, 1, 2):
        run("evaluate", dataset, *args, "--task", "points", "--seed", seed, "--output", "out")
        tables.append(read_rows("out/results.csv"))
    assert tables[0] == tables[1]
    assert len({(t[0]["image"], t[0]["object"], t[0]["sam click_1"]) for t in tables}) > 1
    assert all(len(table) == 1 for table in tables)


def test_one_task_alone_and_nothing_written_without_output(run, dataset):
    before = sorted(Path().rglob("*"))
    result = run("evaluate", dataset, "--task", "boxes", "--max-masks", 1)
    assert "boxes" in result.stdout and "points" not in result.stdout
    assert sorted(Path().rglob("*")) == before


def test_pictures_of_earlier_results_go_and_others_stay(run, dataset):
    run("evaluate", dataset, "--clicks", 1, "--output", "out")
    assert Path("out/miou_over_clicks.png").is_file()
    Path("out/mine.png").touch()
    run("evaluate", dataset, "--task", "boxes", "--output", "out")
    assert {path.name for path in Path("out").iterdir()} == {
        "results.json", "results.csv", "mine.png"
    }  # fmt: skip


def test_edges_and_proposals_of_the_small_model(run, dataset, monkeypatch):
    for module in (edges, proposals):  # as many points as they have takes a minute
        monkeypatch.setattr(module, "POINTS_PER_SIDE", 8)
    tasks = ("--task", "edges", "--task", "proposals")
    result = run("evaluate", dataset, *tasks, "--output", "out")
    found = json.loads(Path("out/results.json").read_text())["tasks"]
    assert list(found) == ["proposals", "edges"]
    for scores in (found["proposals"]["average_recall"], found["edges"]):
        for score in scores.values():
            assert score is None or 0 <= score <= 1
            assert score is None or f"{score:.3f}" in result.stdout
    assert found["proposals"]["average_recall"]["AR@1000 large"] is None
    assert found["proposals"]["average_recall"]["AR@1000"] > 0
    assert found["edges"]["ODS"] > 0
    # The best of an image's masks is at least as good as the one that took it.
    best = [float(row["sam best_proposal"]) for row in read_rows("out/results.csv")]
    assert len(best) == 6 and np.mean(best) >= found["proposals"]["average_recall"]["AR@1000"]
    for number, size_hw in enumerate(SIZES, 1):
        with Image.open(f"out/edges_{number}.png") as picture:
            assert picture.width > 3 * size_hw[1] and picture.height == size_hw[0]
            boundaries = np.asarray(picture.convert("L"))[:, -size_hw[1] :]
        truth = np.any([boundary_pixels(m) for m in drawn(size_hw)[1]], axis=0)
        np.testing.assert_array_equal(boundaries == 0, thin(truth))


def test_coco_instances_are_evaluated_with_polygons(run, dataset):
    square = [[10, 10, 40, 10, 40, 30, 10, 30]]
    annotations = {
        "images": [{"id": 7, "file_name": "sa_1.png", "height": 70, "width": 100}],
        "annotations": [{"id": 1, "image_id": 7, "segmentation": square, "iscrowd": 0}],
    }
    Path("instances.json").write_text(json.dumps(annotations))
    run("evaluate", dataset, "--annotations", "instances.json", "--clicks", 1, "--output", "out")
    (row,) = read_rows("out/results.csv")
    assert (row["image"], row["area"]) == ("sa_1.png", "600")


@pytest.mark.parametrize(
    "args, message",
    [
        (("--clicks", "0,1"), "'0,1' is not a list"),
        (("--clicks", "one"), "'one' is not a list"),
        (("--task", "edges", "--max-masks", 2), "leave out --max-masks"),
        (("--task", "edges", "--min-area", 2), "leave out --min-area"),
        (("--task", "boxes", "--baseline", "flood-fill"), "add --task points"),
        (("--min-area", 100000, "--task", "boxes"), "no image can be evaluated"),
        (("--checkpoint", "nowhere/at/all"), "nowhere/at/all"),
        (("--output", "photo.png"), "choose another --output"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(run, dataset, args, message):
    before = sorted(Path().rglob("*"))
    arguments = ["--checkpoint", "tiny", "--output", "out", *args]
    assert message in run.refused("evaluate", dataset, *arguments)
    assert sorted(Path().rglob("*")) == before


def test_a_folder_of_nothing_is_refused(run):
    assert "no dataset" in run.refused("evaluate", "missing")


def test_the_command_offers_every_task_and_baseline():
    assert tuple(tasks.TASKS) == command.TASKS
    assert tuple(tasks.BASELINES) == command.BASELINES
