"""`sam-jax evaluate-video`, end to end on squares."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from sam_jax.cli.main import main
from sam_jax.formats.png import mask_png

FRAMES = ["00000", "00004", "00008", "00012"]


def call(*args):
    return CliRunner().invoke(main, ["evaluate-video", *map(str, args)])


def labels(*objects):
    """Squares of 3x3 pixels on 10x10 by number and left column, one below the other."""
    out = np.zeros((10, 10), np.uint8)
    for place, (number, x) in enumerate(objects):
        out[1 + 4 * place : 4 + 4 * place, x : x + 3] = number
    return out


def write(root, video, values):
    folder = Path(root) / video
    folder.mkdir(parents=True, exist_ok=True)
    for frame in FRAMES:
        picture = Image.fromarray(values)
        picture.putpalette([255 - value // 3 for value in range(768)])
        picture.save(folder / f"{frame}.png")


@pytest.fixture
def davis():
    """car/1 shifted by 2 (J 1/5, F 2/3); dog/1 is perfect, dog/2 lost."""
    write("true/Annotations/480p", "car", labels((1, 2)))
    write("true/Annotations/480p", "dog", labels((1, 2), (2, 2)))
    write("found", "car", labels((1, 4)))
    write("found", "dog", labels((1, 2)))
    Path("val.txt").write_text("dog\n")


def test_scores_are_printed_and_written(davis):
    result = call("found", "true", "--output", "scores/all")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "3 objects in 2 videos, layout DAVIS",
        "",
        "| video | objects | J&F | J | F |",
        "|---|---|---|---|---|",
        "| car | 1 | 0.433 | 0.200 | 0.667 |",
        "| dog | 2 | 0.500 | 0.500 | 0.500 |",
        "| all objects | 3 | 0.478 | 0.400 | 0.556 |",
        "written to scores/all",
    ]
    assert result.stderr.splitlines()[-1] == "scoring: 4 of 4 frames"
    assert sorted(path.name for path in Path("scores/all").iterdir()) == [
        "results.csv",
        "results.json",
    ]
    values = json.loads(Path("scores/all/results.json").read_text())
    assert (values["predictions"], values["annotations"]) == ("found", "true")
    assert (values["layout"], values["objects"], values["missing_masks"]) == ("DAVIS", 3, 0)
    assert values["overall"] == pytest.approx({"j_and_f": 4.3 / 9, "j": 0.4, "f": 5 / 9})
    assert values["videos"]["dog"]["j"] == 0.5
    assert values["videos"]["dog"]["objects"]["2"] == {"j_and_f": 0, "j": 0, "f": 0, "frames": 2}
    with open("scores/all/results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["video"], row["object"]) for row in rows] == [
        ("car", "1"),
        ("dog", "1"),
        ("dog", "2"),
    ]
    assert float(rows[0]["j"]) == pytest.approx(0.2)
    assert float(rows[0]["f"]) == pytest.approx(2 / 3)
    assert float(rows[0]["j_and_f"]) == pytest.approx(1.3 / 3)
    assert rows[0]["frames"] == "2"


def test_only_listed_videos_and_all_their_frames(davis):
    result = call("found", "true", "--videos", "val.txt", "--all-frames", "--output", "scores")
    assert "2 objects in 1 videos" in result.stdout
    assert "car" not in result.stdout
    values = json.loads(Path("scores/results.json").read_text())
    assert values["options"] == {
        "videos": ["dog"],
        "missing": "error",
        "skip_first_and_last": False,
    }
    assert values["videos"]["dog"]["objects"]["1"]["frames"] == 4


def test_objects_in_folders_of_their_own(davis):
    for root, left in (("sav", 2), ("sav-found", 3)):
        for name, x in (("000", left), ("001", 2)):
            folder = Path(root, "Annotations_6fps", "sav_000001", name)
            folder.mkdir(parents=True)
            for frame in FRAMES:
                (folder / f"{frame}.png").write_bytes(mask_png(labels((1, x)) > 0))
    result = call("sav-found", "sav")
    assert "2 objects in 1 videos, layout SA-V" in result.stdout
    # 1/2 and 1; boundaries within the tolerance of a pixel.
    assert result.stdout.splitlines()[-1] == "| all objects | 2 | 0.875 | 0.750 | 1.000 |"


def test_names_that_are_no_text(davis):
    name = os.fsdecode(b"caf\xe9")
    for root in ("found", "true/Annotations/480p"):
        try:
            write(root, name, labels((1, 2)))
        except OSError:
            pytest.skip("this file system takes only names that are text")
    result = call("found", "true", "--output", "scores")
    assert "| caf\ufffd | 1 | 1.000 | 1.000 | 1.000 |" in result.stdout
    assert b"caf\xe9,1,1.0,1.0,1.0,2\n" in Path("scores/results.csv").read_bytes()
    assert name in json.loads(Path("scores/results.json").read_text())["videos"]


def test_remarks(davis):
    write("found", "dog", labels((1, 2), (5, 2)))
    for root in ("found", "true/Annotations/480p"):
        write(root, "cat", labels((3, 2)) * 0)
        Image.fromarray(labels((3, 2))).save(f"{root}/cat/00000.png")
        Image.fromarray(labels((3, 2))).save(f"{root}/cat/00012.png")
    Path("found/car/00004.png").unlink()
    result = call("found", "true", "--missing", "empty")
    assert "1 missing masks count as empty" in result.stderr
    assert "only in the predictions: dog/5" in result.stderr
    assert "left out, for no scored frame shows them: cat/3\n" in result.stderr
    assert "| car | 1 | 0.217 | 0.100 | 0.333 |" in result.stdout


def empty_folder():
    Path("empty").mkdir()
    return ["empty", "true"]


def missing_frame():
    Path("found/car/00004.png").unlink()
    return ["found", "true"]


def damaged_mask():
    Path("found/dog/00008.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return ["found", "true"]


def other_size():
    Image.new("L", (20, 10)).save("found/dog/00008.png")
    return ["found", "true"]


def unknown_video():
    Path("val.txt").write_text("cat")
    return ["found", "true", "--videos", "val.txt"]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ["absent", "true"], "cannot list absent: No such file or directory"),
        (empty_folder, "empty holds no videos"),
        (missing_frame, "found has no car/00004.png"),
        (damaged_mask, "'found/dog/00008.png' is damaged or cut short"),
        (other_size, "dog/00008.png: the prediction has 20x10 pixels, the annotation 10x10"),
        (unknown_video, "true/Annotations/480p has no cat"),
        (lambda: ["found", "true", "--videos", "absent.txt"], "list of videos absent.txt"),
        (lambda: ["found", "true", "--output", "val.txt"], "val.txt is not a folder"),
        (lambda: ["found"], "Missing argument 'ANNOTATIONS'"),
    ],
)
def test_errors_are_one_line_and_nothing_is_written(davis, make, message):
    args = make()
    output = [] if "--output" in args else ["--output", "scores"]
    result = call(*args, *output)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("scoring")]
    assert line.startswith("error: ") and message in line
    assert not Path("scores").exists()
