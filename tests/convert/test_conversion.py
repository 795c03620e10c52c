import hashlib
import json
import shutil
import threading
from dataclasses import replace

import jax
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from transformers import SamModel

import convert
from convert.conversion import from_state_dict, to_state_dict
from convert.sam.reference import build_original
from convert.tables import HUGGING_FACE
from sam_jax.checkpoints.native import load_checkpoint
from sam_jax.configs import TEST, config_to_json
from sam_jax.errors import CheckpointError


def equal(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        jax.tree.leaves(jax.tree.map(np.array_equal, a, b))
    )


def refused(function, *arguments):
    with pytest.raises(CheckpointError) as error:
        function(*arguments)
    return str(error.value)


def test_an_official_file_is_converted(pth, state, tmp_path):
    info = convert.convert_checkpoint(pth, tmp_path / "native")
    loaded = load_checkpoint(tmp_path / "native")
    assert loaded.config == info.config == TEST
    assert loaded.fingerprint == info.fingerprint
    assert loaded.source == {
        "file": "sam_test.pth",
        "bytes": pth.stat().st_size,
        "sha256": hashlib.sha256(pth.read_bytes()).hexdigest(),
        "naming": "official",
    }
    assert equal(loaded.params, from_state_dict(TEST, state))


def test_export_is_what_the_original_loads_strictly(pth, original, tmp_path):
    convert.convert_checkpoint(pth, tmp_path / "native")
    convert.export_checkpoint(tmp_path / "native", tmp_path / "back.pth")
    state = torch.load(tmp_path / "back.pth", weights_only=True)
    fresh = build_original(TEST)
    fresh.load_state_dict(state, strict=True)
    for name, tensor in original.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor), name


def test_native_to_pth_to_native_is_the_same_bit_for_bit(pth, tmp_path):
    """Even what tensors do not tell, the decoder's heads among it, survives."""
    config = replace(
        TEST, name="mine", decoder_num_heads=4, pixel_mean=(1.0, 2.0, 3.0), mask_threshold=0.5
    )
    first = convert.convert_checkpoint(pth, tmp_path / "first", config=config)
    convert.export_checkpoint(tmp_path / "first", tmp_path / "between.pth")
    second = convert.convert_checkpoint(tmp_path / "between.pth", tmp_path / "second")
    assert second.config == config
    assert second.fingerprint == first.fingerprint
    assert equal(
        load_checkpoint(tmp_path / "first").params, load_checkpoint(tmp_path / "second").params
    )


def test_hugging_faces_files_are_converted(state, tmp_path):
    from test_sam_table import huggingface_config

    config = replace(TEST, decoder_num_heads=4)
    model = SamModel(huggingface_config(config))
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(tmp_path / "hf")
    for source in (tmp_path / "hf", tmp_path / "hf" / "model.safetensors"):
        found, variables, naming, _ = convert.read_source(source)
        # The number of heads comes from the config.json that lies beside it.
        assert (found, naming) == (replace(config, name="custom"), HUGGING_FACE)
        tensors = to_state_dict(found, variables, HUGGING_FACE)
        for name, value in tensors.items():
            assert np.array_equal(value, model.state_dict()[name].numpy()), name
    shutil.copy(tmp_path / "hf" / "model.safetensors", tmp_path / "alone.safetensors")
    assert convert.read_source(tmp_path / "alone.safetensors")[0] == TEST
    (tmp_path / "config.json").write_text("{")
    assert "config.json is damaged" in refused(convert.read_source, tmp_path / "alone.safetensors")


def test_either_naming_in_either_format_is_read(state, tmp_path):
    variables = from_state_dict(TEST, state)
    for naming in ("official", "huggingface"):
        tensors = {
            name: np.ascontiguousarray(value)
            for name, value in to_state_dict(TEST, variables, naming).items()
        }
        save_file(tensors, tmp_path / "a.safetensors")
        torch.save({n: torch.from_numpy(v) for n, v in tensors.items()}, tmp_path / "a.bin")
        for path in (tmp_path / "a.safetensors", tmp_path / "a.bin"):
            config, found, found_naming, _ = convert.read_source(path)
            assert (config, found_naming) == (TEST, naming)
            assert equal(found, variables)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_become_float32(state, tmp_path, dtype):
    halves = {name: torch.from_numpy(value).to(dtype) for name, value in state.items()}
    torch.save(halves, tmp_path / "half.pth")
    _, variables, _, _ = convert.read_source(tmp_path / "half.pth")
    for name, value in to_state_dict(TEST, variables).items():
        assert value.dtype == np.float32
        assert np.array_equal(value, halves[name].to(torch.float32).numpy())


def test_a_checkpoint_can_be_stored_in_half_precision(pth, state, tmp_path):
    convert.convert_checkpoint(pth, tmp_path / "half", dtype="bfloat16")
    rounded = jax.tree.map(
        lambda value: value.astype(jax.numpy.bfloat16).astype(np.float32),
        from_state_dict(TEST, state),
    )
    assert equal(load_checkpoint(tmp_path / "half").params, rounded)


@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_a_state_dict_among_what_training_saved_is_found(original, tmp_path, wrapper):
    path = tmp_path / "training.pth"
    torch.save({wrapper: original.state_dict(), "epoch": 3, "optimizer": {"lr": 0.1}}, path)
    assert convert.read_source(path)[0] == TEST


def test_a_given_configuration_must_fit(pth, tmp_path):
    config = replace(TEST, decoder_mlp_dim=48)
    with pytest.raises(CheckpointError) as error:
        convert.read_source(pth, config)
    lines = str(error.value).split("\n")
    assert str(pth) in lines[0]
    assert lines[1] == (
        "  wrong shape: mask_decoder.transformer.layers.0.mlp.lin1.weight is (64, 32), not (48, 32)"
    )
    assert len(lines) == 1 + 2 * 3


def test_the_report_names_the_file_and_nothing_is_written(state, tmp_path):
    tensors = {name: torch.from_numpy(value) for name, value in state.items()}
    del tensors["mask_decoder.mask_tokens.weight"]
    tensors["mask_decoder.hf_token.weight"] = torch.ones(1, 32)
    torch.save(tensors, tmp_path / "other.pth")
    report = refused(convert.convert_checkpoint, tmp_path / "other.pth", tmp_path / "native")
    assert report.split("\n")[1:] == [
        "  missing: mask_decoder.mask_tokens.weight",
        "  unexpected: mask_decoder.hf_token.weight",
    ]
    assert str(tmp_path / "other.pth") in report
    assert [path.name for path in tmp_path.iterdir()] == ["other.pth"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(state, tmp_path, value):
    tensors = {name: torch.from_numpy(array.copy()) for name, array in state.items()}
    tensors["image_encoder.pos_embed"][0, 0, 0, 0] = value
    torch.save(tensors, tmp_path / "nan.pth")
    report = refused(convert.convert_checkpoint, tmp_path / "nan.pth", tmp_path / "native")
    assert "not finite: params/image_encoder/pos_embed" in report
    assert not (tmp_path / "native").exists()


def saved(tmp_path, value, **options):
    torch.save(value, tmp_path / "file.pth", **options)
    return tmp_path / "file.pth"


def test_files_that_are_no_sam_checkpoint_are_refused_in_one_line(state, tmp_path):
    ones = torch.ones(2)
    sam2 = saved(tmp_path, {"model": {"image_encoder.trunk.pos_embed": ones}})
    assert "a SAM 2 image encoder of 0 blocks" in refused(convert.read_source, sam2)
    assert "holds no state dict" in refused(convert.read_source, saved(tmp_path, [ones]))
    assert "'epoch' is no tensor" in refused(
        convert.read_source, saved(tmp_path, {"epoch": 3, "w": ones})
    )
    assert "no Segment Anything" in refused(convert.read_source, saved(tmp_path, {"w": ones}))
    old = saved(tmp_path, {"w": ones}, _use_new_zipfile_serialization=False)
    assert "old format" in refused(convert.read_source, old)
    path = tmp_path / "x.pth"
    for content, says in (
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<html>not found</html>", "neither a zip-format"),
        (b"\x80\x02}.", "neither a zip-format"),
        (b"PK\x03\x04garbage", "damaged"),
        (bytes(8) + b"{}", "damaged"),
    ):
        path.write_bytes(content)
        message = refused(convert.read_source, path)
        assert says in message
        assert str(path) in message
        assert "\n" not in message
    assert "there is no file" in refused(convert.read_source, tmp_path / "missing.pth")
    (tmp_path / "folder").mkdir()
    assert "without a model.safetensors" in refused(convert.read_source, tmp_path / "folder")


def test_a_destination_that_is_taken_is_left_alone(pth, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "exists and is no checkpoint" in refused(
        convert.convert_checkpoint, pth, tmp_path / "file"
    )
    assert (tmp_path / "file").read_text() == "mine"
    convert.convert_checkpoint(pth, tmp_path / "native")
    assert "exists already" in refused(convert.convert_checkpoint, pth, tmp_path / "native")
    convert.convert_checkpoint(pth, tmp_path / "native", overwrite=True)
    assert "exists already" in refused(
        convert.export_checkpoint, tmp_path / "native", tmp_path / "file"
    )
    assert (tmp_path / "file").read_text() == "mine"
    assert "no checkpoint at" in refused(
        convert.export_checkpoint, tmp_path / "missing", tmp_path / "new.pth"
    )
    assert "cannot write" in refused(
        convert.export_checkpoint, tmp_path / "native", tmp_path / "file" / "deeper.pth"
    )


def test_a_damaged_record_is_refused(pth, tmp_path):
    convert.convert_checkpoint(pth, tmp_path / "native")
    path = tmp_path / "file.pth"
    from convert.files.torch_files import read_torch_file, write_torch_file

    tensors, _ = read_torch_file(pth)
    for record in (b"{", b"[]", b"{}", b'{"config": 3}', b"\xff", b"[" * 100_000):
        write_torch_file(path, tensors, record)
        assert "recorded configuration is damaged" in refused(convert.read_source, path)
    values = config_to_json(TEST)
    values["decoder_depth"] = 10**9
    write_torch_file(path, tensors, json.dumps({"config": values}).encode())
    assert "decoder_depth must be between" in refused(convert.read_source, path)


def test_threads_may_convert_side_by_side(pth, tmp_path):
    errors = []

    def work(i):
        try:
            convert.convert_checkpoint(pth, tmp_path / str(i))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len({load_checkpoint(tmp_path / str(i)).fingerprint for i in range(4)}) == 1
