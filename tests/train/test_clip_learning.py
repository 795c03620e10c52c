"""A small SAM 2 learns to segment and to follow, from procedural clips; killed, it goes on."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from sam_jax import InputError
from sam_jax.cli.main import main
from sam_jax.train.clips.runs import clip_config_from_values, train_clips
from sam_jax.train.config import read_values
from sam_jax.video.tracker import Tracker

pytest.importorskip("grain")

RUN = """
[model]
name = "sam2_test"
dtype = "float32"
remat = false

[data]
path = "clips"
batch_size = 4
frames = 2
objects = 1

[clips]
passers = 0
leaving = 0.0
alike = 0.0
noise = 0.0

[optimizer]
learning_rate = 2e-3
steps = 2
schedule = "cosine"
layer_decay = 1.0
weight_decay = 0.01
clip_norm = 1.0
beta2 = 0.98

[interaction]
max_conditioning = 1
max_corrected = 0
correction_points = 0
mask_probability = 0.3
focal_weight = 5.0

[interaction.terms]
focal_alpha = -1.0
focal_gamma = 0.0

[run]
checkpoint_every = 2
log_every = 1
picture_every = 0
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "clips.toml"
    path.write_text(RUN)
    return str(path)


def config_of(recipe, *changes):
    return clip_config_from_values(read_values(recipe, changes))


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.name=sam2.9", "model.name must be one of sam2.1_tiny"),
        ("data.path=", "data.path is missing"),
        ("data.frames=0", "must be at least 1"),
        ("clips.image_size=64", "come from the model and from data"),
        ("interaction.mask_probability=2.0", "from 0 to 1"),
        ("interaction.clicks=2", "interaction.clicks is unknown"),
        ("model.image_size=100", "image_size must be a multiple of 32"),
        ("optimizer.learning_rate=0", "learning_rate must be above 0"),
        ("run.model=2", "run.model must be 1"),
    ],
)
def test_what_contradicts_itself_is_refused(recipe, change, message):
    with pytest.raises(InputError, match=message):
        config_of(recipe, change)


def test_options_of_other_runs_are_refused(recipe, tmp_path):
    for option in (["--change-recipe"], ["--overfit", "2"]):
        result = CliRunner().invoke(
            main, ["train", recipe, "--output", str(tmp_path / "r"), *option]
        )
        assert result.exit_code == 2 and "are not for SAM 2" in result.output
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_a_run_that_was_cut_off_ends_as_one_that_was_not(recipe, tmp_path):
    longer = config_of(recipe, "optimizer.steps=4")
    whole = train_clips(longer, tmp_path / "whole", print)
    parts = tmp_path / "parts"

    class Stopped(Exception):
        pass

    def stop(line):
        if "step 3 " in line:
            raise Stopped

    with pytest.raises(Stopped):
        train_clips(longer, parts, stop)
    again = train_clips(longer, parts, print)
    one, other = (json.loads((path / "config.json").read_text()) for path in (whole, again))
    assert one["fingerprint"] == other["fingerprint"]
    assert Tracker.load(whole).config.name == "sam2_test"


@pytest.mark.slow
def test_it_learns_what_it_is_shown(recipe, tmp_path):
    config = config_of(
        recipe,
        "optimizer.steps=480",
        "optimizer.warmup_steps=10",
        "run.log_every=20",
        "run.checkpoint_every=480",
    )
    train_clips(config, tmp_path / "run", print)
    found = metrics(tmp_path / "run")
    loss = [line["loss"] for line in found]
    iou = np.array([line["iou"] for line in found])
    assert np.mean(loss[-3:]) < 0.75 * loss[0]
    # A reading is of 80 clips, and the frame that follows is learned late and unsteadily: its
    # readings go from 0.13 to 0.34 in the second half, whose mean counts.
    assert (iou[len(iou) // 2 :].mean(axis=0) > iou[0] + 0.1).all()
