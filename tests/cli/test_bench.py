"""`sam-jax bench`: the table, the JSON, what is refused; that all packages do the same work."""

import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from convert.sam.original_package import suppress_boxes
from sam_jax.bench import children, rivals
from sam_jax.bench.agreement import same_masks
from sam_jax.bench.machine import machine
from sam_jax.bench.ours import Ours
from sam_jax.bench.readings import Summary, in_turn, ratio, summary
from sam_jax.bench.report import Measured, stage_table, table
from sam_jax.errors import InputError
from sam_jax.version import __version__

# The same for every package: quick, and with a photo of a size that is not the model's.
TOY = ("--model", "test", "--rounds", 2)


# Not by importing them: the original wants torchvision, for which we have a stand-in.
with_all_packages = pytest.mark.skipif(
    any(map(rivals.missing, rivals.REQUIRED)),
    reason="PyTorch's are not installed",
)


@pytest.fixture
def alone(monkeypatch):
    """A machine on which no other package is installed."""
    nowhere = {name: ("no_such_package",) for name in rivals.REQUIRED}
    monkeypatch.setattr(rivals, "REQUIRED", nowhere)


def rows(result):
    """The task and package of each row of the first table."""
    lines = [line for line in result.stdout.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line.split("|")[1:3]) for line in lines[2:]]


@with_all_packages
def test_all_packages_do_every_task_in_the_process(run, tmp_path):
    file = tmp_path / "made" / "bench.json"
    tasks = ("encoder", "prompt-1")
    chosen = [argument for task in tasks for argument in ("--task", task)]
    result = run("bench", *TOY, *chosen, "--json", file)
    packages = ("sam_jax", "original", "transformers")
    titles = ("image encoder, s", "1 prompt, s")
    assert rows(result) == [(title, package) for title in titles for package in packages]

    found = json.loads(file.read_text())
    assert found["arguments"] == {
        "model": "test",
        "dtype": "float32",
        "rounds": 2,
        "tasks": list(tasks),
        "against": ["original", "transformers"],
        "image": None,
    }
    assert found["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert {"jax", "jaxlib", "torch", "transformers"} <= set(found["machine"]["versions"])
    assert set(found["devices"]) == set(packages)
    for task in tasks:
        values = found["tasks"][task]["packages"]
        ours = np.array(values["sam_jax"]["readings"])
        for package in packages:
            theirs = np.array(values[package]["readings"])
            assert len(theirs) == 2 and (theirs > 0).all()
            over = values[package]["ours_over_it"]
            assert over["median"] == pytest.approx(np.median(ours) / np.median(theirs))
            assert over["greatest"] == pytest.approx((ours / theirs).max())
    assert found["machine"]["cpu"] in result.stdout
    assert str(file) in result.stdout.splitlines()[-1]
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.slow
@with_all_packages
def test_generate_does_the_same_work_in_both():
    photo = np.random.default_rng(0).integers(0, 256, (61, 90, 3), np.uint8)
    ours = Ours("test", photo=photo)
    options = ours.generate_options(12)
    variables = ours.segmenter.params
    original = rivals.Original("test", variables=variables, photo=photo, generate_options=options)
    mine, theirs = ours.segmenter.generate(photo, **options), original.generate()
    # About a tenth of 432 candidates: what a photo gives under trained weights, give or take.
    assert 15 < len(mine) < 150
    # Scores as close as float32 rounding to a threshold may fall on either side.
    assert abs(len(mine) - len(theirs)) <= 2
    assert same_masks(mine, theirs) >= len(mine) - 2


@pytest.mark.slow
def test_peak_memory_is_of_the_process_that_encodes(run, alone, tmp_path):
    file = tmp_path / "bench.json"
    held = np.ones(1 << 27)  # 1 GB in this process, and none of a child's
    result = run("bench", "--model", "test", "--task", "memory", "--json", file)
    assert result.stderr.count("left out") == 2
    found = json.loads(file.read_text())["tasks"]["memory"]
    assert found["unit"] == "GB"
    # JAX alone takes more than this.
    assert 0.1 < found["packages"]["sam_jax"]["median"] < held.nbytes / 1e9


STAGES = ["start", "import", "load", "encode", "mask"]


def test_a_first_mask_is_measured_stage_by_stage(checkpoint):
    started = time.time()
    found = children.first_mask(
        "test", str(checkpoint), "float32", "photo.png", [9.0, 9.0], started
    )
    assert list(found) == [*STAGES, "encode again", "mask again"]
    assert sum(found.values()) <= time.time() - started
    assert all(seconds >= 0 for seconds in found.values())


@pytest.mark.slow
def test_a_cold_start_has_an_empty_and_a_filled_cache(run, alone, tmp_path):
    file = tmp_path / "bench.json"
    arguments = ("--model", "test", "--rounds", 2, "--task", "first-mask")
    run("bench", *arguments, "--image", "photo.png", "--json", file)
    found = json.loads(file.read_text())["tasks"]["first-mask"]
    stages = found["stages"]
    assert list(stages) == ["sam_jax, empty cache", "sam_jax, filled cache"]
    for label, rounds in stages.items():
        totals = [sum(one[name] for name in STAGES) for one in rounds]
        assert found["packages"][label]["readings"] == pytest.approx(totals)


@with_all_packages
@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param("float32", marks=pytest.mark.slow),
        pytest.param("bfloat16", marks=pytest.mark.exhaustive),
    ],
)
def test_every_package_does_everything(run, dtype, tmp_path):
    file = tmp_path / "bench.json"
    tasks = ("encoder", "prompts-64", "prompt-1", "generate", "first-mask", "memory")
    chosen = [argument for task in tasks for argument in ("--task", task)]
    result = run(
        *("bench", "--model", "test", "--rounds", 1, "--dtype", dtype, *chosen),
        *("--image", "photo.png", "--json", file),
    )
    found = json.loads(file.read_text())["tasks"]
    assert set(found) == set(tasks)
    assert list(found["memory"]["packages"]) == ["sam_jax", "original", "transformers"]
    assert list(found["first-mask"]["packages"])[2:] == ["original", "transformers"]
    generated = found["generate"]
    assert generated["options"]["points_per_side"] == 32
    assert f"masks: sam_jax {generated['masks']['sam_jax']}, original" in result.stdout
    if dtype == "float32":
        # Scores as close as float32 rounding to a threshold may fall on either side.
        assert abs(generated["masks"]["sam_jax"] - generated["masks"]["original"]) <= 2


@pytest.mark.parametrize("against", [(), ("--against", "transformers")])
def test_a_model_that_no_other_package_has_is_measured_alone(run, against):
    result = run("bench", "--model", "tiny", "--rounds", 1, "--task", "prompt-1", *against)
    assert rows(result) == [("1 prompt, s", "sam_jax")]
    names = ("transformers",) if against else ("original", "transformers")
    notes = [line for line in result.stderr.splitlines() if "left out" in line]
    why = "is left out: it has no image encoder like tiny's"
    assert notes == [f"{name} {why}" for name in names]
    assert "tiny, float32, 1 round" in result.stdout.splitlines()


def test_without_other_packages_ours_is_measured_alone(run, alone):
    result = run("bench", *TOY, "--task", "prompt-1", "--against", "original")
    assert rows(result) == [("1 prompt, s", "sam_jax")]
    assert "original is left out: no_such_package not installed" in result.stderr
    assert "test, float32, 2 rounds" in result.stdout.splitlines()


def test_the_version_is_that_of_the_code_whatever_is_installed(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"{name} of long ago")
    found = machine()["versions"]
    assert found["sam-jax"] == __version__ and found["jax"] == "jax of long ago"


def test_the_json_goes_into_a_pipe_too(run, alone):
    os.mkfifo("pipe")
    found = []
    reader = threading.Thread(target=lambda: found.append(Path("pipe").read_text()), daemon=True)
    reader.start()
    task = ("--task", "prompt-1", "--rounds", 1)
    result = run("bench", "--model", "test", *task, "--json", "pipe")
    reader.join(30)
    assert [*json.loads(found[0])["tasks"]] == ["prompt-1"] and Path("pipe").is_fifo()
    assert "test, float32, 1 round" in result.stdout.splitlines()


def test_a_json_file_that_cannot_be_written_is_refused_before_the_work(run, folder):
    Path("taken").mkdir()
    assert "taken is a folder" in run.refused("bench", *TOY, "--json", "taken")
    assert "is not a folder" in run.refused("bench", *TOY, "--json", "photo.png/bench.json")
    assert sorted(os.listdir(folder)) == ["photo.png", "taken"]


def test_a_photo_that_cannot_be_read_is_refused_before_the_work(run):
    Path("text.jpg").write_text("no image")
    line = run.refused("bench", *TOY, "--task", "generate", "--image", "text.jpg")
    assert "text.jpg" in line


def test_summary_and_ratio_of_given_readings():
    ours, theirs = [1.0, 4.0, 2.0], [4.0, 8.0, 10.0]
    assert summary(ours) == Summary(2.0, 1.0, 4.0)
    # Medians 2 and 8; within the rounds 1/4, 4/8 and 2/10.
    assert ratio(ours, theirs) == Summary(0.25, 0.2, 0.5)
    with pytest.raises(ValueError):
        ratio(ours, theirs[:2])


def test_readings_are_taken_in_turn():
    order = []
    sources = {name: lambda name=name: order.append(name) or float(len(order)) for name in "ab"}
    readings = in_turn(sources, 3)
    assert order == list("ababab")
    assert readings == {"a": [1, 3, 5], "b": [2, 4, 6]}


def test_the_table_shows_medians_spread_and_ratios():
    measured = [
        Measured("encoder", {"sam_jax": [1.0, 2.0, 3.0], "original": [4.0, 4.0, 4.0]}),
        Measured("memory", {"sam_jax": [1.0], "original": [2.0]}),
    ]
    assert table(measured)[2:] == [
        "| image encoder, s | sam_jax | 2.000 | 1.000 to 3.000 |  |  |",
        "| image encoder, s | original | 4.000 | 4.000 to 4.000 | 0.50 | 0.25 to 0.75 |",
        "| peak memory of encoding, GB | sam_jax | 1.000 |  |  |  |",
        "| peak memory of encoding, GB | original | 2.000 |  | 0.50 |  |",
    ]


def test_the_stages_of_a_first_mask_are_medians():
    rounds = [{"import": 1.0, "load": 5.0}, {"import": 3.0, "load": 7.0}]
    assert stage_table({"original": rounds})[0] == "| median, s | import | load |"
    assert stage_table({"original": rounds})[2] == "| original | 2.000 | 6.000 |"


def test_a_child_that_fails_says_why():
    with pytest.raises(RuntimeError, match="no_such_model"):
        arguments = {"name": "original", "model": "no_such_model", "dtype": "float32"}
        children.run_child(
            "sam_jax.bench.rival_children", "memory", {**arguments, "accelerator": False}
        )


def test_what_a_child_refuses_is_one_line(tmp_path):
    (tmp_path / "refusing.py").write_text(
        "from sam_jax.bench.children import serve\n"
        "from sam_jax.errors import CheckpointError\n"
        "def task():\n"
        "    raise CheckpointError('install again')\n"
        "serve({'task': task})\n"
    )
    with pytest.raises(InputError, match="^install again$"):
        children.run_child("refusing", "task", {}, {"PYTHONPATH": f"{children.ROOT}:{tmp_path}"})


def test_the_rivals_are_measured_without_our_libraries():
    code = (
        "import sam_jax.bench.rival_children, sys; "
        "print(sorted({'jax', 'flax'} & set(sys.modules)))"
    )
    done = children.subprocess.run(
        [children.sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(children.ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_records_are_the_same_if_point_and_mask_are():
    mask = np.zeros((40, 50), bool)
    mask[5:30, 5:30] = True
    nearly = mask.copy()
    nearly[5, 5] = False
    at = lambda x, shape: {"point_coords": [[x, 2.0]], "segmentation": shape}  # noqa: E731
    assert same_masks([at(1.0, mask)], [at(1.0, nearly)]) == 1
    assert same_masks([at(1.0, mask)], [at(3.0, mask)]) == 0
    assert same_masks([at(1.0, mask)], [at(1.0, ~mask)]) == 0
    # One of theirs stands for one of ours.
    assert same_masks([at(1.0, mask)] * 2, [at(1.0, mask)]) == 1


def test_boxes_are_suppressed_as_torchvision_does():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    low = rng.integers(0, 60, (200, 2))
    boxes = np.concatenate([low, low + rng.integers(0, 40, (200, 2))], 1).astype(np.float32)
    scores = rng.integers(0, 50, 200).astype(np.float32)  # many are equal
    kept = suppress_boxes(torch.from_numpy(boxes), torch.from_numpy(scores), 0.4).tolist()

    def overlap(a, b):
        sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
        shared = np.prod(sides)
        either = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared
        return shared / either if either else 0.0

    expected: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if all(overlap(boxes[i], boxes[k]) <= 0.4 for k in expected):
            expected.append(int(i))
    assert kept == expected
