"""`sam-jax train` and `pretrain`: a toy model from a toy dataset to a checkpoint that segments."""

import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from training_photos import CONFIG, write_photos

from sam_jax import Segmenter
from sam_jax.checkpoints.native import load_checkpoint, save_checkpoint
from sam_jax.data.scenes.scenes import SceneOptions
from sam_jax.train.inputs import open_batches
from sam_jax.train.options import DataOptions

pytest.importorskip("grain")
pytestmark = pytest.mark.usefixtures("compiled_once")

ROOT = Path(__file__).parents[2]
PRETRAINING = """
[model]
name = "test"
dtype = "float32"

[data]
path = "photos"
batch_size = 2

[optimizer]
steps = 2
warmup_steps = 0
schedule = "cosine"

[run]
log_every = 1
"""


@pytest.fixture
def photos(folder):
    """Three images with two rectangles each, one of them with a broken JSON file."""
    write_photos("photos")
    Path("photos/sa_3.json").write_text("{")
    Path("run.toml").write_text(CONFIG)
    return Path("photos")


def metrics(run_folder):
    return [json.loads(line) for line in Path(run_folder, "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_run_ends_with_a_checkpoint_that_segments_and_goes_on_where_it_stood(
    run, photos, monkeypatch
):
    result = run("train", "run.toml", "--output", "out", "--set", "optimizer.steps=4")
    assert "step 4 of 4" in result.stdout and result.stdout.endswith("written to out/model\n")
    plan, compiling, first = result.stdout.splitlines()[1:4]
    assert plan == "learning rate: 0.0008, the same to step 4"
    assert re.fullmatch(r"compiling the step \(about \d+ s\)", compiling)
    # After the first update already, though metrics are written after every second.
    assert re.search(r"^step 1 of 4 .* about \d+:\d\d:\d\d left$", first)
    records = metrics("out")
    assert [record["step"] for record in records] == [2, 4]
    assert len(records[-1]["iou"]) == 3 and records[-1]["skipped_records"] >= 1
    assert all(np.isfinite(record["loss"]) for record in records)
    with Image.open("out/pictures/step_0000003.jpg") as picture:
        assert picture.width > picture.height / 2
    assert any(Path("out/tensorboard").iterdir())
    segmenter = Segmenter.load("out/model")
    found = segmenter.predict(segmenter.encode("photos/sa_1.png"), points=[[10, 15]], labels=[1])
    assert found.masks.shape == (1, 3, 40, 70)

    other = run.refused("train", "run.toml", "--output", "out", "--set", "run.seed=1")
    assert "another configuration (run.seed)" in other
    longer = run.refused("train", "run.toml", "--output", "out", "--set", "optimizer.steps=6")
    assert "optimizer.steps" in longer

    # Again: nothing is left to be done, and the model is the same. From another folder: paths in
    # the file are relative to the file's, others to this one.
    before = load_checkpoint("out/model").fingerprint
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    again = run("train", "../run.toml", "--output", "../out", "--set", "run.log_every=1")
    assert "going on from step 4" in again.stdout and "images in ../photos" not in again.stdout
    assert load_checkpoint("../out/model").fingerprint == before
    gone = run.refused("train", "../run.toml", "--output", "out", "--set", "data.path=photos")
    assert "there is no dataset at photos" in gone


@pytest.mark.slow
def test_a_run_goes_on_with_another_recipe(run, photos):
    run("train", "run.toml", "--output", "out", "--set", "optimizer.steps=4")
    before = load_checkpoint("out/model").fingerprint
    changes = ("--set", "optimizer.steps=6", "--set", "losses.dice_weight=2.0")
    changes += ("--set", "optimizer.clip_norm=1.0")
    longer = run("train", "run.toml", "--output", "out", "--change-recipe", *changes)
    assert "going on from step 4" in longer.stdout
    assert [record["step"] for record in metrics("out")] == [2, 4, 6]
    assert load_checkpoint("out/model").fingerprint != before
    seed = ("--change-recipe", "--set", "run.seed=1")
    assert "run.seed" in run.refused("train", "run.toml", "--output", "out", *changes, *seed)
    frozen = ("--change-recipe", "--set", 'optimizer.frozen=["^image_encoder/"]')
    refused = run.refused("train", "run.toml", "--output", "out", *changes, *frozen)
    assert "optimizer.frozen" in refused
    rule = ("--change-recipe", "--set", "optimizer.rule=muon")
    assert "optimizer.rule" in run.refused("train", "run.toml", "--output", "out", *changes, *rule)


@pytest.mark.slow
def test_a_decoder_is_trained_alone_from_a_checkpoint(run, photos, checkpoint):
    thresholds = {"pred_iou_thresh": 0.5}
    given = load_checkpoint(checkpoint)
    save_checkpoint("base", given.config, given.params, generate=thresholds)
    checkpoint = "base"
    changes = (f"model.checkpoint={checkpoint}", 'optimizer.frozen=["^image_encoder/"]')
    options = [word for change in changes for word in ("--set", change)]
    run("train", "run.toml", "--output", "out", "--set", "optimizer.steps=2", *options)
    old, new = (load_checkpoint(path).params["params"] for path in (checkpoint, "out/model"))
    for name in ("blocks_0", "neck"):
        found, expected = new["image_encoder"][name], old["image_encoder"][name]
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert load_checkpoint("out/model").generate == thresholds
    changed = new["mask_decoder"]["iou_token"] - old["mask_decoder"]["iou_token"]
    assert np.abs(changed).max() > 1e-5


@pytest.mark.slow
def test_overfitting_repeats_one_batch(run, photos):
    Path("photos/sa_3.json").unlink()
    args = ("--overfit", 2, "--set", "optimizer.steps=2", "--set", "run.log_every=1")
    run("train", "run.toml", "--output", "out", *args)
    assert json.loads(Path("out/config.json").read_text())["data"]["overfit"] == 2


@pytest.mark.parametrize("path", ["photos", "scenes"])
def test_overfitting_takes_the_first_batch_for_ever(photos, path):
    Path("photos/sa_3.json").unlink()
    data = DataOptions(path=path, batch_size=2, max_masks=6, workers=0)
    scenes = SceneOptions(objects=4, primitives=20)

    def opened(overfit):
        options = replace(data, overfit=overfit)
        return open_batches(options, scenes, image_size=64, seed=0, echo=lambda line: None)

    first = next(opened(0))
    assert first.images.any() and first.weights.any()
    repeated = opened(2)
    for _ in range(2):
        jax.tree.map(np.testing.assert_array_equal, next(repeated), first)


@pytest.mark.slow
def test_an_encoder_is_pre_trained_and_started_from(run, photos):
    Path("mae.toml").write_text(PRETRAINING)
    result = run("pretrain", "mae.toml", "--output", "mae")
    assert result.stdout.endswith("written to mae/model.npz\n")
    losses = [record["loss"] for record in metrics("mae")]
    assert len(losses) == 2 and all(0.5 < loss < 2 for loss in losses)
    args = ("--set", "model.mae=mae/model.npz", "--set", "optimizer.steps=1")
    run("train", "run.toml", "--output", "out", *args, "--set", "optimizer.learning_rate=1e-12")
    with np.load("mae/model.npz") as file:
        bias = file["params/image_encoder/blocks_1/mlp/lin1/bias"]
        kernel = file["params/image_encoder/blocks_1/mlp/lin1/kernel"]
    block = load_checkpoint("out/model").params["params"]["image_encoder"]["blocks_1"]
    np.testing.assert_allclose(block["mlp"]["lin1"]["kernel"], kernel, atol=1e-6)
    np.testing.assert_allclose(block["mlp"]["lin1"]["bias"], bias, atol=1e-6)


@pytest.mark.parametrize(
    "changes, message",
    [
        (["data.path=nowhere"], "there is no dataset at nowhere"),
        (["data.path=empty"], "empty is no dataset that is known"),
        (["model.checkpoint=nowhere"], "nowhere"),
        (["model.mae=run.toml"], "run.toml is no file that sam-jax pretrain wrote"),
        (["run.model=3"], "model=3"),
        (["data.batch_size=3", "run.accumulate=2"], "no multiple of accumulate=2"),
        (['optimizer.frozen=["nothing"]'], "'nothing' matches no parameter"),
        (
            ["data.batch_size=5", "data.overfit=5"],
            "data.overfit 5: photos has fewer images that can be used",
        ),
        (["model.name=vit_z"], "model.name must be one of"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run, photos, changes, message):
    Path("empty").mkdir()
    options = [word for change in changes for word in ("--set", change)]
    assert message in run.refused("train", "run.toml", "--output", "out", *options)
    # A mistake does not take the folder away from the run that was meant.
    assert not Path("out").exists()


def test_a_missing_configuration_names_the_recipes(run, photos):
    message = run.refused("train", "nothing.toml", "--output", "out")
    assert "vit_b" in message and not Path("out").exists()


@pytest.mark.slow
def test_two_processes_train_together(photos):
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    command = [sys.executable, "-m", "sam_jax.cli.main", "train", "run.toml", "--output", "out"]
    command += ["--set", "optimizer.steps=2", "--set", "run.log_every=1", "--distributed"]
    command += ["--coordinator-address", f"localhost:{port}", "--num-processes", "2"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    environment.pop("XLA_FLAGS", None)
    processes = [
        subprocess.Popen(
            [*command, "--process-id", index],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for index in "01"
    ]
    said = [process.communicate(timeout=400) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert said[0][0].endswith("written to out/model\n") and "step 1" not in said[1][0]
    assert [record["step"] for record in metrics("out")] == [1, 2]
    assert load_checkpoint("out/model").config.name == "test"
