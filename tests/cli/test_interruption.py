"""Ctrl-C and SIGTERM in a training run: one line wherever it is, and what was done is kept."""

import gc
import os
import signal
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest

from sam_jax.cli import interruption
from sam_jax.cli.interruption import WAITING, what_is_kept
from sam_jax.train import runs
from sam_jax.train.loop.run_checkpoints import newest_step
from sam_jax.train.mae import pretrain as pretrain_module
from tests.forked import Forks

SCRIPT = Path(__file__).parent / "interrupted_run.py"


@pytest.fixture(scope="module")
def forks():
    forks = Forks(SCRIPT)
    yield forks
    forks.close()


def finished(forks, folder):
    done = forks.run(folder)
    assert done.returncode == 0, done.stderr
    return np.load(folder / "model.npy"), done.stdout


def interrupted(forks, folder, place, *signals):
    """What a run that is held up at a place says on stderr, interrupted there; it ends with 130."""
    marker = Path(f"{folder}.held")
    child = forks.start(folder, place)
    try:
        while not marker.exists():
            assert child.poll() is None, child.communicate()
            time.sleep(0.05)
        for number in signals:
            os.kill(child.pid, number)
            time.sleep(0.3)  # two of the same that are waiting are one
        said = child.communicate(timeout=50)[1]
    finally:
        child.send_signal(signal.SIGKILL)
    assert child.returncode == 130, said
    # On a busy machine a run may wait for so long that it says what for.
    return [line for line in said.splitlines() if line != WAITING]


@pytest.fixture(scope="module")
def unbroken(forks, tmp_path_factory):
    return finished(forks, tmp_path_factory.mktemp("unbroken") / "run")[0]


# What is held up for a minute must end before that: `interrupted` waits for 50 seconds.
@pytest.mark.parametrize(
    "place, number, step",
    [
        ("compile", signal.SIGINT, 0),
        ("step", signal.SIGTERM, 8),
        ("read", signal.SIGINT, 7),
        pytest.param("read", signal.SIGTERM, 7, marks=pytest.mark.exhaustive),
        pytest.param("compile", signal.SIGTERM, 0, marks=pytest.mark.exhaustive),
        pytest.param("save", signal.SIGTERM, 5, marks=pytest.mark.slow),
    ],
)
def test_a_run_ends_with_one_line_and_the_same_command_goes_on(
    forks, tmp_path, unbroken, place, number, step
):
    folder = tmp_path / "run"
    (line,) = interrupted(forks, folder, place, number)
    assert line == what_is_kept(folder)
    assert newest_step(folder / "checkpoints") == step
    if not step:
        assert line == "interrupted before the first checkpoint; the same command begins again"
        return
    assert f"the checkpoint of step {step} is kept in {folder / 'checkpoints'}" in line
    found, told = finished(forks, folder)
    assert f"going on from step {step}\n" in told
    np.testing.assert_array_equal(found, unbroken)


def test_a_second_request_ends_an_update_that_does_not_listen(forks, tmp_path):
    folder = tmp_path / "run"
    (line,) = interrupted(forks, folder, "long step", signal.SIGINT, signal.SIGINT)
    assert "the checkpoint of step 5 is kept" in line


def test_a_request_that_python_drops_is_asked_again(tmp_path, monkeypatch, capsys):
    """What a signal's handler raises in a callback of the garbage collector is lost."""
    monkeypatch.setattr(interruption, "_PATIENCE", 0.2)
    begun = []

    def in_a_callback(phase, info):
        if not begun:
            begun.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)

    monkeypatch.setattr(sys, "unraisablehook", lambda _: begun.append("dropped"))
    gc.callbacks.append(in_a_callback)
    try:
        with pytest.raises(click.Abort), interruption.interruptible(tmp_path):
            gc.collect()
            for _ in range(100):
                time.sleep(0.1)
    finally:
        gc.callbacks.remove(in_a_callback)
    assert begun == [True, "dropped"]
    said = capsys.readouterr().err.splitlines()
    assert said == ["interrupted before the first checkpoint; the same command begins again"]


@pytest.mark.parametrize("command, recipe", [("train", "vit_b"), ("pretrain", "mae_vit_b")])
def test_both_commands_say_what_is_kept(run, monkeypatch, command, recipe):
    def stopped(*_):
        Path("out/checkpoints").mkdir(parents=True)
        Path("out/checkpoints/12.sealed").touch()
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(runs, "train_run", stopped)
    monkeypatch.setattr(pretrain_module, "pretrain_run", stopped)
    result = run.interrupted(command, recipe, "--set", "data.path=x", "--output", "out")
    assert result.stderr == (
        "interrupted: the checkpoint of step 12 is kept in out/checkpoints, and the same command "
        "goes on from there\n"
    )
