"""A folder run that is killed again and again ends with the files of one that was not."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
OUT = Path("out")
IMAGES = 60
ARGS = (
    "generate photos --points-per-side 4 --pred-iou-thresh 0 --stability-score-thresh 0 "
    "--box-nms-thresh 1 --max-masks 5 --overlay --ids --format png --format coco-rle --resume"
).split()


@pytest.fixture
def photos(folder):
    Path("photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        pixels = rng.integers(0, 256, (61, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{number:02}.png")


@pytest.fixture
def start(checkpoint):
    """Starts the command in a process of its own; programs are compiled once for all of them.

    Not in the folder that all tests share: what ends while it is written there would stay.
    """
    environment = {
        **{k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"},
        "PYTHONPATH": str(ROOT),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }

    def call():
        words = [*ARGS, "--checkpoint", str(checkpoint), "--output", str(OUT)]
        return subprocess.Popen(
            [sys.executable, "-m", "sam_jax.cli.main", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    return call


def files(folder=OUT):
    """Names of the files that are not hidden."""
    return {name for name in os.listdir(folder) if name[0] != "."} if folder.is_dir() else set()


def finished():
    return {Path(name).stem for name in files() if name[:2].isdigit() and name.endswith(".json")}


def stamps():
    """What shows that a finished image's files were not written again."""
    names = {name for name in files() if name[:2] in finished()}
    return {name: ((OUT / name).stat().st_ino, (OUT / name).stat().st_mtime_ns) for name in names}


def assert_all_whole():
    for name in files():
        if name.endswith(".json"):
            json.loads((OUT / name).read_bytes())
        else:
            Image.open(OUT / name).load()
    for stem in finished():
        assert {f"{stem}_labels.png", f"{stem}_overlay.jpg"} <= files()


def assert_same_as_whole_run():
    assert sorted(os.listdir(OUT)) == sorted(os.listdir("whole"))
    for name in files():
        assert (OUT / name).read_bytes() == (Path("whole") / name).read_bytes(), name


@pytest.mark.slow
def test_killed_runs_are_gone_on_with(photos, start, run, checkpoint):
    run(*ARGS, "--checkpoint", checkpoint, "--output", "whole")
    choose = random.Random(0)
    for part in (0.05, 0.2, 0.4):
        before = stamps()
        process = start()
        wanted = int(part * IMAGES) + choose.randrange(IMAGES // 10)
        while len(finished()) < wanted and process.poll() is None:
            time.sleep(0.001)
        # Then in the middle of something, such as three files that are being written.
        for _ in range(choose.randrange(30)):
            os.listdir(OUT)
        assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert_all_whole()
        assert wanted <= len(finished()) < IMAGES
        assert stamps().items() >= before.items()
    before, count = stamps(), len(finished())
    result = run(*ARGS, "--checkpoint", checkpoint, "--output", OUT)
    done = f"{IMAGES - count} of {IMAGES} images done, {count} were there already"
    assert result.stdout.splitlines()[0] == f"{OUT}: {done}"
    assert stamps().items() >= before.items()
    assert_same_as_whole_run()


def test_a_full_disk_stops_a_run_in_one_line(photos, start, run, checkpoint):
    """The system refuses files above a size as a full disk does: in the middle of writing one."""
    for number in range(8, IMAGES):
        Path(f"photos/{number:02}.png").unlink()
    Image.open("photos/05.png").resize((360, 244)).save("photos/05.png")
    run(*ARGS, "--checkpoint", checkpoint, "--output", "whole")
    small, large = (Path("whole", f"0{i}_overlay.jpg").stat().st_size for i in (1, 5))
    limit = (small + large) // 2

    process = start()
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    _, errors = process.communicate()
    assert process.returncode == 2, errors
    line = errors.splitlines()[-1]
    assert line.startswith(f"error: cannot write to {OUT}: ")
    assert "5 of 8 images are finished" in line and "--resume" in line
    assert finished() == {f"0{i}" for i in range(5)} and len(os.listdir(OUT)) == 15
    assert_all_whole()
    before = stamps()
    run(*ARGS, "--checkpoint", checkpoint, "--output", OUT)
    assert stamps().items() >= before.items()
    assert_same_as_whole_run()
