import json
import os
import shutil
import threading
import zlib
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from small_hybrid import SMALL_HYBRID

from sam_jax.checkpoints.native import (
    fingerprint,
    load_checkpoint,
    load_params,
    read_info,
    save_checkpoint,
)
from sam_jax.configs import CONFIGS, TEST, TINY, VIT_H, HybridEncoderConfig, check_config
from sam_jax.errors import CheckpointError
from sam_jax.models.sam.sam import variable_shapes


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape, np.float32), variable_shapes(TEST)
    )


@pytest.fixture(scope="module")
def saved(params, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model"
    save_checkpoint(path, TEST, params, {"file": "sam.pth", "sha256": "ab"})
    return path


@pytest.fixture
def copy(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def equal(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        jax.tree.leaves(jax.tree.map(np.array_equal, a, b))
    )


def refused(path):
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    return str(error.value)


def refused_in_one_line(path):
    message = refused(path)
    assert "\n" not in message
    assert str(path) in message
    return message


def edit(path, **changes):
    record = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**record, **changes}))


def test_what_is_saved_is_loaded(saved, params):
    loaded = load_checkpoint(saved)
    assert loaded.config == TEST
    assert loaded.source == {"file": "sam.pth", "sha256": "ab"}
    assert loaded.fingerprint == fingerprint(TEST, params)
    assert equal(loaded.params, params)
    assert equal(load_params(saved), params)
    for leaf in jax.tree.leaves(loaded.params):
        assert type(leaf) is np.ndarray
        assert leaf.dtype == np.float32


def test_what_a_checkpoint_says_is_read_without_its_parameters(copy):
    shutil.rmtree(copy / "params")
    info = read_info(copy)
    assert (info.config, info.source) == (TEST, {"file": "sam.pth", "sha256": "ab"})


@pytest.mark.parametrize("dtype", ["bfloat16", jnp.float16, np.float32])
def test_parameters_may_be_stored_in_less_and_come_back_as_float32(params, tmp_path, dtype):
    info = save_checkpoint(tmp_path / "model", TEST, params, dtype=dtype)
    loaded = load_checkpoint(tmp_path / "model")
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.dtype(dtype)).astype(np.float32), params)
    assert equal(loaded.params, rounded)
    assert loaded.fingerprint == info.fingerprint == fingerprint(TEST, rounded)
    assert loaded.source is None


def test_arrays_of_a_device_and_of_other_precision_are_saved(params, tmp_path):
    given = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
    save_checkpoint(tmp_path / "model", TEST, given)
    assert equal(load_params(tmp_path / "model"), jax.tree.map(np.float32, given))


def test_a_path_may_be_text_relative_and_deep(params, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_checkpoint("a/b/model", TEST, params)
    assert equal(load_params("a/b/model"), params)
    assert os.listdir("a/b") == ["model"]


def test_threads_load_side_by_side(saved, params):
    found = []
    threads = [threading.Thread(target=lambda: found.append(load_params(saved))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(equal(one, params) for one in found)


# --- fingerprints


def test_a_fingerprint_depends_on_every_name_shape_value_and_setting(params):
    original = fingerprint(TEST, params)
    assert original == fingerprint(TEST, jax.tree.map(jnp.asarray, params))
    leaves, structure = jax.tree.flatten(params)
    for i in (0, len(leaves) // 2, len(leaves) - 1):
        changed = [leaf.copy() for leaf in leaves]
        changed[i].flat[-1] += 1
        assert fingerprint(TEST, jax.tree.unflatten(structure, changed)) != original
    assert fingerprint(replace(TEST, mask_threshold=0.5), params) != original
    a = {"params": {"a": np.zeros((2, 3)), "b": np.zeros((3,))}}
    prints = {
        fingerprint(TEST, one)
        for one in (
            a,
            {"params": {"a": np.zeros((3, 2)), "b": np.zeros((3,))}},
            {"params": {"a": np.zeros((2, 3)), "c": np.zeros((3,))}},
            {"params": {"a": np.zeros((3,)), "b": np.zeros((2, 3))}},
        )
    }
    assert len(prints) == 4


def test_a_fingerprint_is_the_same_in_every_version():
    """Saved embeddings and checkpoints hold it."""
    tree = {"params": {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}}
    assert fingerprint(CONFIGS["vit_b"], tree) == (
        "a05857659259a947bb4845740de2a2819fc527d8bb316212e38655c616e96c04"
    )


# --- strict loading


def replace_params(path, tree):
    """Other parameters in the same checkpoint, with the checksums of their files."""
    shutil.rmtree(path / "params")
    with ocp.PyTreeCheckpointer() as writer:
        writer.save(path / "params", tree)
    sign(path)


def sign(path):
    files = [file for file in (path / "params").rglob("*") if file.is_file()]
    edit(
        path,
        files={
            file.relative_to(path / "params").as_posix(): f"{zlib.crc32(file.read_bytes()):08x}"
            for file in files
        },
    )


def test_everything_that_does_not_fit_is_listed_at_once(copy, params):
    tree = jax.tree.map(np.copy, params)
    del tree["params"]["image_encoder"]["pos_embed"]
    del tree["constants"]
    tree["params"]["extra"] = {"kernel": np.ones(3, np.float32)}
    tree["params"]["mask_decoder"]["iou_token"] = np.ones(31, np.float32)
    tree["params"]["prompt_encoder"]["no_mask_embed"] = np.ones(32, np.int32)
    replace_params(copy, tree)
    assert refused(copy).split("\n") == [
        f"{copy} does not hold the parameters of its configuration:",
        "  missing: constants/prompt_encoder/positional_encoding_gaussian_matrix",
        "  missing: params/image_encoder/pos_embed",
        "  unexpected: params/extra/kernel",
        "  wrong shape: params/mask_decoder/iou_token is (31,), not (32,)",
        "  wrong type: params/prompt_encoder/no_mask_embed is int32, "
        "not float32, bfloat16 or float16",
    ]


def test_shapes_are_compared_before_anything_is_read(copy, params, monkeypatch):
    tree = jax.tree.map(np.copy, params)
    tree["params"]["mask_decoder"]["iou_token"] = np.ones(31, np.float32)
    replace_params(copy, tree)
    monkeypatch.setattr(ocp.Checkpointer, "restore", lambda *_, **__: pytest.fail("it was read"))
    assert "wrong shape" in refused(copy)


def test_a_small_directory_that_claims_a_large_model_is_refused_unread(copy, monkeypatch, tmp_path):
    """Orbax would give zeros for every chunk that is not there."""
    large = replace(TEST, image_encoder=replace(TEST.image_encoder, embed_dim=2048, mlp_dim=8192))
    zeros = jax.tree.map(
        lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), variable_shapes(large)
    )
    replace_params(copy, zeros)
    record = json.loads((copy / "config.json").read_text())
    record["config"]["image_encoder"].update(embed_dim=2048, mlp_dim=8192)
    (copy / "config.json").write_text(json.dumps(record))
    monkeypatch.setattr(ocp.Checkpointer, "restore", lambda *_, **__: pytest.fail("it was read"))
    assert "cannot hold parameters of" in refused_in_one_line(copy)


def test_changed_values_and_settings_are_noticed(copy, params):
    tree = jax.tree.map(np.copy, params)
    tree["params"]["mask_decoder"]["iou_token"][3] += 1e-6
    replace_params(copy, tree)
    assert "not those that were saved" in refused_in_one_line(copy)
    replace_params(copy, params)
    assert equal(load_params(copy), params)
    record = json.loads((copy / "config.json").read_text())
    edit(copy, config={**record["config"], "mask_threshold": 1.5})
    assert "not those that were saved" in refused_in_one_line(copy)


@pytest.mark.parametrize("keep", [0, 1, 0.5])
def test_truncated_parameter_files_are_refused(saved, tmp_path, keep):
    files = [path.relative_to(saved) for path in (saved / "params").rglob("*") if path.is_file()]
    largest = max(files, key=lambda name: (saved / name).stat().st_size)
    for i, name in enumerate([largest, Path("params/manifest.ocdbt"), Path("params/_METADATA")]):
        copy = Path(shutil.copytree(saved, tmp_path / str(i)))
        data = (copy / name).read_bytes()
        (copy / name).write_bytes(data[: int(keep * len(data)) if keep < 1 else keep])
        assert f"file {name} is damaged" in refused_in_one_line(copy)


def test_what_orbax_cannot_read_is_refused_though_its_checksums_are_right(copy):
    (copy / "params" / "_METADATA").write_text("{}")
    sign(copy)
    assert "the parameters of" in refused_in_one_line(copy)


def test_a_file_more_does_no_harm(copy, params):
    (copy / "params" / "notes.txt").write_text("mine")
    assert equal(load_params(copy), params)


def test_missing_pieces_are_named(copy, tmp_path):
    (copy / "params" / "manifest.ocdbt").unlink()
    assert "params/manifest.ocdbt is missing" in refused_in_one_line(copy)
    shutil.rmtree(copy / "params")
    assert "no params directory" in refused_in_one_line(copy)
    (copy / "config.json").unlink()
    assert "no config.json" in refused_in_one_line(copy)
    assert "there is no checkpoint at" in refused_in_one_line(tmp_path / "missing")


@pytest.mark.parametrize("name", ["sam.pth", "sam.pt", "model.SAFETENSORS", "pytorch_model.bin"])
def test_for_a_pytorch_file_the_command_is_given(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK")
    message = refused_in_one_line(tmp_path / name)
    assert f"sam-jax convert {tmp_path / name} DESTINATION" in message


def test_for_a_hugging_face_directory_the_command_is_given(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "sam"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert f"sam-jax convert {tmp_path / 'model.safetensors'}" in refused_in_one_line(tmp_path)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.safetensors.index.json", "sam_vit_b.pth"]
)
@pytest.mark.parametrize("config", [None, '{"model_type": "sam"}'])
def test_for_a_directory_of_pytorch_weights_the_command_is_given(tmp_path, name, config):
    (tmp_path / name).write_bytes(b"")
    if config:
        (tmp_path / "config.json").write_text(config)
    assert f"sam-jax convert {tmp_path / name} DEST" in refused_in_one_line(tmp_path)


def test_a_pytorch_file_is_known_by_its_content_too(tmp_path):
    for name, content in (
        ("a", b"PK\x03\x04" + bytes(26) + b"m/data.pkl"),
        ("b", bytes(8) + b"{}"),
    ):
        (tmp_path / name).write_bytes(content)
        assert f"sam-jax convert {tmp_path / name} DEST" in refused_in_one_line(tmp_path / name)
    np.savez(tmp_path / "c.npz", x=np.ones(2))
    assert "c.npz is a file" in refused_in_one_line(tmp_path / "c.npz")


def test_names_are_taken_wherever_a_checkpoint_is(saved, tmp_path, monkeypatch):
    monkeypatch.setenv("SAM_JAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "checkpoints").mkdir(parents=True)
    (tmp_path / "cache" / "checkpoints" / "vit_b").symlink_to(saved)
    assert equal(load_params("vit_b"), load_params(saved))
    assert load_checkpoint("sam-vit-b").fingerprint == load_checkpoint(saved).fingerprint
    assert read_info("tiny").config == load_checkpoint("tiny").config == TINY
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="write ./tiny for that"):
        assert read_info("tiny").config == TINY
    with pytest.raises(CheckpointError, match="tiny is no checkpoint"):
        read_info("./tiny")
    with pytest.raises(CheckpointError, match="'vit_x' is neither .* names are: tiny, vit_b"):
        load_params("vit_x")


def test_another_kind_of_file_is_refused(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    assert "is a file" in refused_in_one_line(tmp_path / "photo.jpg")


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"format_version": 2}, "upgrade sam_jax"),
        ({"format_version": 0}, "no valid format_version"),
        ({"format_version": "1"}, "no valid format_version"),
        ({"format_version": True}, "no valid format_version"),
        ({"family": "sam3"}, "family 'sam3'"),
        ({"family": "sam2"}, "missing keys"),
        ({"family": None}, "family 'None'"),
        ({"family": ["sam"]}, "reads 'sam' and 'sam2'"),
        ({"config": None}, "must be a JSON object"),
        ({"config": {}}, "missing keys"),
        ({"source": 3}, "source or fingerprint"),
        ({"fingerprint": None}, "source or fingerprint"),
        ({"files": None}, "no list of files"),
        ({"files": {"_METADATA": 3}}, "file params/_METADATA is damaged"),
        ({"files": {"../../x": "00000000"}}, "file params/../../x is missing"),
        ({"fingerprint": "0" * 64}, "not those that were saved"),
    ],
)
def test_a_config_json_of_another_kind_is_refused(copy, changes, says):
    edit(copy, **changes)
    assert says in refused_in_one_line(copy)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b" " * (2 << 20), b"1" * 9999]
)
def test_a_damaged_config_json_is_refused(copy, text):
    (copy / "config.json").write_bytes(text)
    assert "config.json is damaged" in refused_in_one_line(copy)


def test_settings_beyond_reason_are_refused_before_the_model_is_built(copy):
    record = json.loads((copy / "config.json").read_text())
    for value in (10**9, 10**400, -1, 0):
        record["config"]["decoder_depth"] = value
        (copy / "config.json").write_text(json.dumps(record))
        assert "decoder_depth must be between 1 and 64" in refused_in_one_line(copy)
    record["config"]["decoder_depth"] = 2
    record["config"]["mask_threshold"] = 10**400
    (copy / "config.json").write_text(json.dumps(record))
    assert "config.json is damaged" in refused_in_one_line(copy)


@pytest.mark.parametrize(
    "place, value",
    [("pixel_mean", [1.0, 2.0]), ("pixel_std", [1.0] * 4), ("table_size_hw", [8]), ("depth", "2")],
)
def test_settings_of_the_wrong_length_or_type_are_refused(copy, place, value):
    record = json.loads((copy / "config.json").read_text())
    config = record["config"]
    (config if place in config else config["image_encoder"])[place] = value
    (copy / "config.json").write_text(json.dumps(record))
    assert "config.json is damaged" in refused_in_one_line(copy)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_preset_is_a_sound_configuration(config):
    check_config(config)


@pytest.mark.parametrize(
    "changes, vit_changes, says",
    [
        ({}, {"embed_dim": 33}, "num_heads must divide"),
        ({}, {"global_attention_indexes": (2,)}, "global_attention_indexes"),
        ({}, {"table_size_hw": (8, 10**6)}, "table_size_hw[1]"),
        ({"image_size": 100}, {}, "multiple of patch_size"),
        ({"embed_dim": 36}, {}, "multiple of 8"),
        ({"mask_in_channels": 6}, {}, "multiple of 4"),
        ({"decoder_num_heads": 5}, {}, "must divide embed_dim"),
        ({"pixel_mean": (1.0, 2.0, float("inf"))}, {}, "three finite"),
        ({"pixel_std": (1.0, 0.0, 1.0)}, {}, "three positive"),
        ({"mask_threshold": float("nan")}, {}, "mask_threshold"),
    ],
)
def test_a_configuration_of_no_model_is_refused(params, tmp_path, changes, vit_changes, says):
    config = replace(TEST, image_encoder=replace(TEST.image_encoder, **vit_changes), **changes)
    with pytest.raises(CheckpointError) as error:
        save_checkpoint(tmp_path / "model", config, params)
    assert says in str(error.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"stem_dims": (0, 48, 96)}, "stem_dims[0] must be between 1 and 4096, not 0"),
        ({"stem_dims": (16, 48, 5000)}, "stem_dims[2] must be between 1 and 4096, not 5000"),
        ({"stem_dims": (16, -1, 96)}, "stem_dims[1] must be between"),
        ({"embed_dim": 190}, "num_heads must divide image_encoder.embed_dim"),
        ({"depth": 0}, "depth must be between"),
        ({"table_size_hw": (16, 0)}, "table_size_hw[1] must be between"),
    ],
)
def test_a_hybrid_encoder_of_no_model_is_refused(changes, says):
    with pytest.raises(CheckpointError) as error:
        check_config(replace(TINY, image_encoder=HybridEncoderConfig(**changes)))
    assert says in str(error.value)
    with pytest.raises(CheckpointError, match="image_size must be a multiple of patch_size"):
        check_config(replace(TINY, image_size=100))


def test_a_hybrid_models_checkpoint_comes_back_as_it_was(tmp_path):
    rng = np.random.default_rng(4)
    shapes = flatten_dict(variable_shapes(SMALL_HYBRID), sep="/")
    flat = {name: rng.normal(size=x.shape).astype(np.float32) for name, x in shapes.items()}
    params = unflatten_dict(flat, sep="/")
    info = save_checkpoint(tmp_path / "model", SMALL_HYBRID, params)
    loaded = load_checkpoint(tmp_path / "model")
    assert loaded.config == SMALL_HYBRID
    assert loaded.fingerprint == info.fingerprint == fingerprint(SMALL_HYBRID, params)
    assert equal(loaded.params, params)
    # The architecture counts, not the values alone.
    other = replace(SMALL_HYBRID.image_encoder, num_heads=1)
    assert fingerprint(replace(SMALL_HYBRID, image_encoder=other), params) != info.fingerprint


# --- saving


def test_parameters_of_another_model_are_not_saved(params, tmp_path):
    with pytest.raises(CheckpointError) as error:
        save_checkpoint(tmp_path / "model", VIT_H, params)
    assert "missing: params/image_encoder/blocks_31/attn/proj/bias" in str(error.value)
    assert "wrong shape: params/image_encoder/pos_embed" in str(error.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "value, dtype", [(np.nan, np.float32), (np.inf, np.float32), (1e6, np.float16)]
)
def test_values_that_are_not_finite_on_disk_are_not_saved(params, tmp_path, value, dtype):
    broken = jax.tree.map(np.copy, params)
    broken["params"]["image_encoder"]["pos_embed"][0, 0, 0] = value
    with pytest.raises(CheckpointError, match="not finite: params/image_encoder/pos_embed"):
        save_checkpoint(tmp_path / "model", TEST, broken, dtype=dtype)
    assert os.listdir(tmp_path) == []


def test_integers_are_no_type_to_store(params, tmp_path):
    with pytest.raises(CheckpointError, match="not int8"):
        save_checkpoint(tmp_path / "model", TEST, params, dtype=np.int8)


def test_only_a_checkpoint_is_replaced_and_only_when_asked(params, tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    save_checkpoint(path, TEST, params)  # an empty directory is free
    changed = jax.tree.map(lambda leaf: leaf + 1, params)
    with pytest.raises(CheckpointError, match="exists already"):
        save_checkpoint(path, TEST, changed)
    assert equal(load_params(path), params)
    save_checkpoint(path, TEST, changed, overwrite=True)
    assert equal(load_params(path), changed)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("mine")
    for taken in ("file", "folder"):
        with pytest.raises(CheckpointError, match="exists and is no checkpoint"):
            save_checkpoint(tmp_path / taken, TEST, params, overwrite=True)
    assert (tmp_path / "folder" / "thesis.tex").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "model"]


def test_a_failure_leaves_the_old_checkpoint_and_no_rest(params, tmp_path, monkeypatch):
    path = tmp_path / "model"
    save_checkpoint(path, TEST, params)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ocp.Checkpointer, "save", full)
    for name in ("model", "new"):
        with pytest.raises(CheckpointError, match="No space left on device"):
            save_checkpoint(tmp_path / name, TEST, params, overwrite=True)
    assert os.listdir(tmp_path) == ["model"]
    assert equal(load_params(path), params)


def test_where_nothing_can_be_written_the_reason_is_given(params, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write .*Not a directory"):
        save_checkpoint(tmp_path / "file" / "model", TEST, params)


def test_values_for_mask_generation_come_along(params, tmp_path):
    values = {"pred_iou_thresh": 0.5, "min_mask_region_area": 9}
    save_checkpoint(tmp_path / "model", TEST, params, generate=values)
    assert read_info(tmp_path / "model").generate == values
    assert load_checkpoint(tmp_path / "model").generate == values
    for broken in ([1], {"pred_iou_thresh": "high"}):
        edit(tmp_path / "model", generate=broken)
        assert "no table of numbers" in refused_in_one_line(tmp_path / "model")
