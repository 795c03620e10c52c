import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from sam_jax import Segmenter
from sam_jax.adapters.adapter_files import load_adapter, merge_adapter, save_adapter
from sam_jax.adapters.lora import LoraOptions, init_lora, merge_lora
from sam_jax.checkpoints.native import load_checkpoint, save_checkpoint
from sam_jax.configs import TEST, VIT_B
from sam_jax.errors import CheckpointError
from sam_jax.files import directory_checksums
from sam_jax.models.sam.sam import variable_shapes

OPTIONS = LoraOptions(rank=2)


def random_like(tree, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: (0.3 * rng.standard_normal(leaf.shape)).astype(np.float32), tree
    )


@pytest.fixture(scope="module")
def base_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("bases") / "base"
    save_checkpoint(
        path, TEST, random_like(variable_shapes(TEST), 0), generate={"pred_iou_thresh": 0.5}
    )
    return path


@pytest.fixture(scope="module")
def base(base_path):
    return load_checkpoint(base_path)


@pytest.fixture(scope="module")
def parts(base):
    """A decoder and updates of the encoder, as training would leave them."""
    lora = init_lora(jax.random.key(0), base.params["params"], OPTIONS)
    return random_like({"mask_decoder": base.params["params"]["mask_decoder"]}, 1), random_like(
        lora, 2
    )


@pytest.fixture
def adapter(base, parts, tmp_path):
    save_adapter(tmp_path / "adapter", base.fingerprint, *parts, OPTIONS)
    return tmp_path / "adapter"


def test_what_was_trained_comes_back_and_nothing_else_changes(base, parts, adapter):
    trained, lora = parts
    found = load_adapter(adapter, base)
    expected = merge_lora({**base.params["params"], **trained}, lora, OPTIONS)
    jax.tree.map(np.testing.assert_array_equal, found["params"], expected)
    jax.tree.map(np.testing.assert_array_equal, found["constants"], base.params["constants"])
    before, after = (flatten_dict(x["params"], sep="/") for x in (base.params, found))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    kernels = {f"image_encoder/blocks_{i}/attn/qkv/kernel" for i in range(2)}
    assert changed == kernels | {name for name in before if name.startswith("mask_decoder/")}


def test_adapters_and_checkpoints_are_told_apart(base_path, base, adapter):
    with pytest.raises(CheckpointError, match=f"sam-jax merge CHECKPOINT {adapter} DEST"):
        load_checkpoint(adapter)
    with pytest.raises(CheckpointError, match="is no adapter: .* names no model"):
        load_adapter(base_path, base)


def test_either_part_may_be_there_alone(base, parts, tmp_path):
    trained, lora = parts
    save_adapter(tmp_path / "trained", base.fingerprint, trained)
    save_adapter(tmp_path / "lora", base.fingerprint, {}, lora, OPTIONS)
    params = base.params["params"]
    for name, expected in [
        ("trained", {**params, **trained}),
        ("lora", merge_lora(params, lora, OPTIONS)),
    ]:
        found = load_adapter(tmp_path / name, base)["params"]
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_segmenter_takes_an_adapter_and_is_the_merged_model(base_path, base, adapter, tmp_path):
    info = merge_adapter(base_path, adapter, tmp_path / "merged")
    assert info.generate == base.generate == {"pred_iou_thresh": 0.5}
    assert info.source["base_fingerprint"] == base.fingerprint
    one = Segmenter.load(base_path, adapter=adapter)
    other = Segmenter.load(tmp_path / "merged")
    assert one.fingerprint == other.fingerprint == info.fingerprint != base.fingerprint
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)


def test_another_model_refuses_it_by_name(base, adapter, tmp_path):
    other = random_like(variable_shapes(TEST), 5)
    config = replace(TEST, name="another")
    info = save_checkpoint(tmp_path / "other", config, other)
    with pytest.raises(CheckpointError) as error:
        Segmenter.load(tmp_path / "other", adapter=adapter)
    message = str(error.value)
    assert str(adapter) in message and "of another with" in message
    assert base.fingerprint[:16] in message and info.fingerprint[:16] in message


def test_an_adapter_of_vit_b_is_small():
    """Shapes alone: 4 bytes a parameter, and what a file adds."""
    shapes = variable_shapes(VIT_B)["params"]
    lora = jax.eval_shape(lambda: init_lora(jax.random.key(0), shapes, LoraOptions()))

    def megabytes(tree):
        return sum(4 * leaf.size for leaf in jax.tree.leaves(tree)) / 1e6

    assert round(megabytes(lora), 1) == 0.6
    assert round(megabytes(shapes["mask_decoder"]), 1) == 16.2
    assert round(megabytes(shapes), 0) == 375


def test_a_file_is_little_more_than_its_arrays(parts, adapter):
    arrays = sum(leaf.nbytes for leaf in jax.tree.leaves(parts))
    files = sum(file.stat().st_size for file in adapter.iterdir())
    # A header of at most 512 bytes for each of 130 arrays, the configuration, the zip's directory.
    assert arrays < files < arrays + 130 * 512 + 4096


def test_nothing_else_is_ever_replaced(base, parts, adapter, tmp_path):
    trained, _ = parts
    before = directory_checksums(adapter)
    with pytest.raises(CheckpointError, match="exists already"):
        save_adapter(adapter, base.fingerprint, trained)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(CheckpointError, match="is no adapter"):
            save_adapter(tmp_path / "photos", base.fingerprint, trained, overwrite=overwrite)
    trained = jax.tree.map(np.array, trained)
    trained["mask_decoder"]["iou_token"][:] = np.nan
    with pytest.raises(CheckpointError, match="mask_decoder/iou_token is not finite"):
        save_adapter(adapter, base.fingerprint, trained, overwrite=True)
    assert directory_checksums(adapter) == before
    save_adapter(adapter, base.fingerprint, parts[0], overwrite=True)
    jax.tree.map(
        np.testing.assert_array_equal,
        load_adapter(adapter, base)["params"],
        {**base.params["params"], **parts[0]},
    )


def damage_arrays(path):
    data = bytearray((path / "arrays.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (path / "arrays.npz").write_bytes(data)


def change_record(path, **changes):
    """Another record, with the checksum that it would have: made by hand, not by accident."""
    record = {**json.loads((path / "config.json").read_text()), **changes}
    record.pop("checksum")
    text = json.dumps(record, sort_keys=True)
    record["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    (path / "config.json").write_text(json.dumps(record))


def edit_record(path, old, new):
    text = (path / "config.json").read_text()
    assert text.count(old) == 1
    (path / "config.json").write_text(text.replace(old, new))


def lora_values(**changes):
    return {"rank": 1, "alpha": 1, "targets": ["q"], "patterns": [], **changes}


def with_arrays(path, change):
    """Other arrays, with checksums that are right: made by hand, not by accident."""
    with np.load(path / "arrays.npz") as file:
        arrays = dict(file)
    change(arrays)
    np.savez(path / "arrays.npz", **arrays)
    change_record(path, files={"arrays.npz": directory_checksums(path)["arrays.npz"]})


UP = "lora/image_encoder/blocks_0/attn/qkv/kernel/up"
DAMAGES = {
    "arrays.npz is damaged": damage_arrays,
    "it has no arrays.npz": lambda path: (path / "arrays.npz").unlink(),
    "there is no adapter at": shutil.rmtree,
    "config.json is damaged": lambda path: (path / "config.json").write_text("{"),
    "names no model": lambda path: change_record(path, adapter_of=None),
    "format version 2": lambda path: change_record(path, format_version=2),
    "config.json is damaged or was changed": lambda path: edit_record(
        path, '"alpha": ', '"alpha": 1'
    ),
    "lora: rank 0": lambda path: change_record(path, lora=lora_values(rank=0)),
    "lora: rank 1, alpha nan": lambda path: change_record(path, lora=lora_values(alpha=np.nan)),
    "lora: rank 1, alpha 0.0": lambda path: change_record(path, lora=lora_values(alpha=0)),
    "lora: int too large": lambda path: change_record(path, lora=lora_values(alpha=10**400)),
    f"{UP} is missing": lambda path: with_arrays(path, lambda arrays: arrays.pop(UP)),
    "no such entry": lambda path: with_arrays(
        path, lambda arrays: arrays.update(other=np.zeros(1, np.float32))
    ),
    "kernel/up is float32": lambda path: with_arrays(
        path, lambda arrays: arrays.update({UP: arrays[UP][:1]})
    ),
    "iou_token is int64": lambda path: with_arrays(
        path, lambda arrays: arrays.update({"params/mask_decoder/iou_token": np.zeros(1, int)})
    ),
    "up is not finite": lambda path: with_arrays(path, lambda arrays: arrays[UP].fill(np.inf)),
    "cannot be read": lambda path: (
        (path / "arrays.npz").write_bytes(b"no archive"),
        change_record(path, files={"arrays.npz": directory_checksums(path)["arrays.npz"]}),
    ),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_adapter_is_refused(base, adapter, message):
    DAMAGES[message](Path(adapter))
    with pytest.raises(CheckpointError) as error:
        load_adapter(adapter, base)
    assert message in str(error.value) and "\n" not in str(error.value)
