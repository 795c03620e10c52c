"""`sam-jax train` with [tune]: a small part of a checkpoint is trained, and used as an adapter."""

import json
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from training_photos import CONFIG, write_photos

from sam_jax import Segmenter
from sam_jax.checkpoints.native import load_checkpoint, save_checkpoint
from sam_jax.configs import TEST
from sam_jax.train.loop.run_log import RunLog

pytest.importorskip("grain")
pytestmark = pytest.mark.usefixtures("compiled_once")

KERNELS = {f"image_encoder/blocks_{i}/attn/qkv/kernel" for i in range(2)}
DECODER = ("tune.method=decoder", "optimizer.frozen=['iou_prediction_head']", "run.picture_every=0")
LORA = ("tune.method=lora", "tune.lora_rank=2", "tune.lora_targets=['k']")


@pytest.fixture
def tune(run, folder, checkpoint):
    """`sam-jax train` from the checkpoint, for two updates, with changes."""
    write_photos("photos", count=2)
    Path("run.toml").write_text(CONFIG)

    def call(*changes, output="out", command=run):
        start = (f"model.checkpoint={checkpoint}", "model.drop_path=0", "optimizer.steps=2")
        options = [word for change in (*start, *changes) for word in ("--set", change)]
        return command("train", "run.toml", "--output", output, *options)

    return call


def changed(before, after):
    """Paths of parameters that are not the same in two checkpoints."""
    one, other = (flatten_dict(load_checkpoint(x).params, sep="/") for x in (before, after))
    assert one.keys() == other.keys()
    names = {name for name in one if not np.array_equal(one[name], other[name])}
    return {name.removeprefix("params/") for name in names}


def losses(output):
    lines = Path(output, "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def times(folder):
    return {path: path.stat().st_mtime_ns for path in Path(folder).iterdir()}


@pytest.mark.slow
def test_a_decoder_alone_and_on_cached_embeddings(tune, checkpoint):
    result = tune(*DECODER, "run.log_every=1")
    assert "the adapter is in out/adapter\n" in result.stdout
    names = changed(checkpoint, "out/model")
    assert "mask_decoder/iou_token" in names
    assert all(name.startswith("mask_decoder/") for name in names)
    assert not any("iou_prediction_head" in name for name in names)
    with np.load("out/adapter/arrays.npz") as arrays:
        assert names <= {name.removeprefix("params/") for name in arrays.files}
        assert not any("iou_prediction_head" in name for name in arrays.files)

    cached = (*DECODER, "tune.cached_embeddings=kept", "run.log_every=1")
    tune(*cached, output="cached")
    files = times("kept")
    assert len(files) == 2
    # An image alone and in a batch is encoded by different programs, and so is rounded differently;
    # the second loss has an update in between, where Adam divides gradients by their own size.
    np.testing.assert_allclose(losses("cached"), losses("out"), rtol=1e-4)
    assert changed(checkpoint, "cached/model") == names

    # Another run encodes nothing again but what is damaged.
    first = min(files)
    first.write_bytes(b"damaged")
    tune(*cached, "run.seed=1", output="later")
    now = times("kept")
    assert now.keys() == files.keys()
    assert [path for path in files if now[path] != files[path]] == [first]
    assert first.stat().st_size > 1000


def test_low_rank_updates_their_adapter_and_the_merged_model(
    tune, run, checkpoint, other_checkpoint
):
    tune(*LORA)
    names = changed(checkpoint, "out/model")
    assert KERNELS < names and "mask_decoder/iou_token" in names
    assert all(name in KERNELS or name.startswith("mask_decoder/") for name in names)
    kernels = (
        load_checkpoint(path).params["params"]["image_encoder"]["blocks_0"]["attn"]["qkv"]["kernel"]
        for path in (checkpoint, "out/model")
    )
    width = TEST.image_encoder.embed_dim
    same = np.equal(*kernels).all(axis=0).reshape(3, width).all(axis=1)
    assert same.tolist() == [True, False, True]
    assert Path("out/pictures/step_0000000.jpg").is_file()

    adapted = Segmenter.load(checkpoint, adapter="out/adapter")
    assert adapted.fingerprint == load_checkpoint("out/model").fingerprint
    result = run("merge", checkpoint, "out/adapter", "merged")
    assert result.stdout.endswith("written to merged\n")
    assert load_checkpoint("merged").fingerprint == adapted.fingerprint
    again = run.refused("merge", checkpoint, "out/adapter", "merged")
    assert "merged exists already" in again
    run("merge", checkpoint, "out/adapter", "merged", "--overwrite")
    refusal = run.refused("merge", other_checkpoint, "out/adapter", "other")
    assert "out/adapter is an adapter of the model with fingerprint" in refusal
    assert not Path("other").exists()


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_adapter(tune, run, monkeypatch):
    options = (*LORA, "run.picture_every=0", "run.log_every=1", "optimizer.steps=3")
    tune(*options, output="whole")
    write = RunLog.write

    def stopping(log, step, *args):
        write(log, step, *args)
        if step == 1:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "write", stopping)
        tune(*options, output="stopped", command=run.interrupted)
    assert not Path("stopped/adapter").exists()
    assert "going on from step 2" in tune(*options, output="stopped").stdout
    whole, stopped = (np.load(f"{name}/adapter/arrays.npz") for name in ("whole", "stopped"))
    assert whole.files == stopped.files
    for name in whole.files:
        np.testing.assert_array_equal(whole[name], stopped[name])


@pytest.mark.slow
def test_another_checkpoint_under_the_same_name_is_no_way_to_go_on(tune, run, other_checkpoint):
    params = load_checkpoint(other_checkpoint).params
    options = (*DECODER, "model.checkpoint=mine", "optimizer.steps=1")
    save_checkpoint("mine", TEST, params)
    tune(*options)
    save_checkpoint("mine", TEST, jax.tree.map(lambda x: 0.9 * x, params), overwrite=True)
    refusal = tune(*options, command=run.refused)
    assert "another configuration (model.checkpoint_fingerprint)" in refusal


@pytest.mark.parametrize(
    "changes, message",
    [
        (["model.checkpoint="], "tune.method decoder and lora need model.checkpoint"),
        (["optimizer.frozen=['^mask_decoder/']"], "match the whole mask decoder"),
        (["optimizer.frozen=['nothing']"], "'nothing' matches no parameter"),
        (["tune.method=lora", "tune.lora_rank=0"], "tune.lora_rank must be at least 1"),
        (["tune.method=lora", "tune.lora_patterns=['bias$']"], "'bias$' matches no kernel"),
        (["tune.method=lora", "tune.lora_targets=['o']"], "tune.lora_targets[0] must be one of"),
        (["tune.method=lora", "tune.cached_embeddings=kept"], "needs tune.method decoder"),
        (["tune.cached_embeddings=kept", "data.flip=true"], "images that stay the same"),
        (["tune.cached_embeddings=run.toml"], "cannot write to run.toml"),
        (["tune.method=decode"], "tune.method must be one of full, decoder, lora"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(tune, run, changes, message):
    assert message in tune("tune.method=decoder", *changes, command=run.refused)
    assert not Path("out/model").exists() and not Path("out/adapter").exists()
