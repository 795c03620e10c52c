"""Runs that die and go on: the same parameters to the last bit; what is told meanwhile."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sam_jax.train.loop.run_checkpoints import RunCheckpoints
from tests.forked import Forks

SCRIPT = Path(__file__).parent / "toy_run.py"


@pytest.fixture(scope="module")
def run():
    forks = Forks(SCRIPT)
    yield forks.run
    forks.close()


def finished(run, folder):
    done = run(folder)
    assert done.returncode == 0, done.stderr
    return np.load(folder / "model.npy"), done.stdout


def metrics(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, run):
    folder = tmp_path_factory.mktemp("unbroken")
    return finished(run, folder)[0], metrics(folder)


def without_times(records):
    return [{k: v for k, v in record.items() if k != "images_per_second"} for record in records]


@pytest.mark.parametrize(
    "deaths",
    [
        ["step:3", "step:14", "step:21"],  # the first before there is a checkpoint
        # While it is being written.
        pytest.param(["call:save:1", "call:save:3"], marks=pytest.mark.slow),
        pytest.param(["call:_seal:2", "call:wait:3"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_a_killed_run_ends_with_the_same_bits(run, tmp_path, deaths, unbroken):
    for spec in deaths:
        assert run(tmp_path, spec).returncode == -signal.SIGKILL
        assert not (tmp_path / "model.npy").exists()
    found, _ = finished(run, tmp_path)
    np.testing.assert_array_equal(found, unbroken[0])
    records = without_times(metrics(tmp_path))
    assert [r["step"] for r in records] == sorted({r["step"] for r in records})
    assert records[-1] == without_times(unbroken[1])[-1]


def sealed(folder):
    return sorted(int(path.stem) for path in (folder / "checkpoints").glob("*.sealed"))


def cut_short(folder, step):
    files = (folder / "checkpoints" / str(step)).rglob("*")
    largest = max(files, key=lambda path: path.stat().st_size if path.is_file() else 0)
    largest.write_bytes(largest.read_bytes()[:-7])


def test_a_checkpoint_that_was_cut_short_is_passed_over(run, tmp_path, unbroken):
    assert run(tmp_path, "step:18").returncode == -signal.SIGKILL
    *_, before, newest = sealed(tmp_path)
    cut_short(tmp_path, newest)
    found, told = finished(run, tmp_path)
    assert f"step {newest} was cut short" in told and f"going on from step {before}" in told
    np.testing.assert_array_equal(found, unbroken[0])


def test_damaged_checkpoints_alone_are_said_and_stay(run, tmp_path):
    assert run(tmp_path, "step:18").returncode == -signal.SIGKILL
    steps = sealed(tmp_path)
    for step in steps:
        cut_short(tmp_path, step)
    done = run(tmp_path)
    assert done.returncode == 1 and f"steps {steps[::-1]} are damaged" in done.stderr
    assert sealed(tmp_path) == steps


def test_checkpoints_without_their_seals_are_not_removed(run, tmp_path, unbroken):
    assert run(tmp_path, "step:18").returncode == -signal.SIGKILL
    steps = sealed(tmp_path)
    kept = {path: path.read_bytes() for path in (tmp_path / "checkpoints").glob("*.sealed")}
    for path in kept:
        path.unlink()
    done = run(tmp_path)
    assert (
        done.returncode == 1 and f"of steps {steps[::-1]}, are without their seals" in done.stderr
    )
    assert all((tmp_path / "checkpoints" / str(step) / "state").is_dir() for step in steps)
    for path, content in kept.items():
        path.write_bytes(content)
    np.testing.assert_array_equal(finished(run, tmp_path)[0], unbroken[0])


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on the size of files")
def test_a_checkpoint_that_cannot_be_written_is_one_line_and_the_one_before_stays(
    run, tmp_path, unbroken
):
    assert run(tmp_path, "step:14").returncode == -signal.SIGKILL
    before = sealed(tmp_path)
    assert before
    # As a full disk: files end at 20 kB, which is less than the parameters are. Less than compiled
    # programs are too, which all tests share: JAX would warn that it cannot keep one, and leave a
    # part of it there.
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    command = f'ulimit -f 40; exec "{sys.executable}" "{SCRIPT}" "{tmp_path}"'
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 1
    told = f"error: a checkpoint cannot be written to {tmp_path / 'checkpoints'}"
    assert done.stderr.count(told) == 1 and done.stderr.count("error:") == 1
    assert "make room" in done.stderr and "batches are closed" in done.stdout
    # TensorStore's threads may tell, in the middle of another's line, of a write that ended when
    # another had failed; nothing else does.
    of_closed_loops = done.stderr.count("raise RuntimeError('Event loop is closed')")
    assert done.stderr.count("Traceback") == of_closed_loops
    assert sealed(tmp_path) == before
    np.testing.assert_array_equal(finished(run, tmp_path)[0], unbroken[0])


@pytest.mark.parametrize(
    ("path", "told"), [("/site/orbax/checkpoint/x.py", False), ("/site/mine/x.py", True)]
)
def test_what_fails_in_a_task_of_orbax_is_not_told_beside_the_one_line(tmp_path, path, told):
    try:
        exec(compile("1 / 0", path, "exec"))
    except ZeroDivisionError as error:
        failed = (type(error), error, error.__traceback__)
    # As asyncio tells of a task that nobody waited for.
    words = ("Task exception was never retrieved", None, failed)
    record = logging.LogRecord("asyncio", logging.ERROR, "asyncio/base_events.py", 1, *words)
    checkpoints = RunCheckpoints(tmp_path)
    assert bool(logging.getLogger("asyncio").filter(record)) == told
    checkpoints.close()
    assert logging.getLogger("asyncio").filter(record)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_batch(run, tmp_path, unbroken):
    done = run(tmp_path, "bad:12")
    assert done.returncode == 1
    assert "step 12: the loss or its gradient is not finite" in done.stderr
    kept = np.load(tmp_path / "bad_batch_12.npz")
    assert all(np.isinf(kept[name]).all() for name in kept.files) and kept.files
    assert sealed(tmp_path) == [5, 10]
    # The last good checkpoint is whole: with the batch mended, the run ends as if nothing had been.
    np.testing.assert_array_equal(finished(run, tmp_path)[0], unbroken[0])


def test_a_run_that_is_asked_to_stop_keeps_where_it_stood(run, tmp_path, unbroken):
    done = run(tmp_path, "term:12")
    assert done.returncode == 130, done.stderr
    found, told = finished(run, tmp_path)
    assert "going on from step 12" in told
    np.testing.assert_array_equal(found, unbroken[0])


def test_two_checkpoints_stay(run, unbroken, tmp_path):
    finished(run, tmp_path)
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"20", "20.sealed", "23", "23.sealed"}


def test_another_run_in_the_folder_is_refused(run, tmp_path):
    (tmp_path / "config.json").write_text('{"steps": 24}')
    done = run(tmp_path)
    assert done.returncode == 1 and "another configuration (steps)" in done.stderr
    (tmp_path / "config.json").write_text('{"steps"')
    assert "damaged" in run(tmp_path).stderr


def test_metrics_are_means_and_learning_rates_follow_the_schedule(unbroken):
    records = unbroken[1]
    assert [record["step"] for record in records] == [4, 8, 12, 16, 20, 23]
    rates = [record["learning_rate"] for record in records]
    # The rate of update 16 is the first after 15 were made.
    np.testing.assert_allclose(rates, [8e-4] * 3 + [8e-5] * 3, rtol=1e-6)
    assert records[-1]["loss"] < records[0]["loss"]
    assert all(record["skipped_records"] == 0 for record in records)
