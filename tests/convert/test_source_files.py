"""Sources of several files: what belongs together is found, what is missing is named."""

import hashlib
import json

import jax
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import convert
from convert.conversion import from_state_dict
from convert.files.source_files import find_source
from sam_jax.configs import TEST
from sam_jax.errors import CheckpointError


def split(state, count):
    names = sorted(state)
    return [{name: state[name] for name in names[i::count]} for i in range(count)]


def write_shards(folder, state, kind, count=3):
    """A model in parts, as transformers writes it; the path of its index."""
    stem, suffix = ("model", ".safetensors") if kind == "safetensors" else ("pytorch_model", ".bin")
    placed = {}
    folder.mkdir(exist_ok=True)
    for i, part in enumerate(split(state, count), 1):
        path = folder / f"{stem}-{i:05d}-of-{count:05d}{suffix}"
        if kind == "safetensors":
            save_file({n: np.ascontiguousarray(x) for n, x in part.items()}, path)
        else:
            torch.save({n: torch.from_numpy(x) for n, x in part.items()}, path)
        placed |= dict.fromkeys(part, path.name)
    index = folder / f"{stem}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": placed}))
    return index


def refused(path):
    with pytest.raises(CheckpointError) as error:
        convert.read_source(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_sharded_weights_are_read_by_folder_index_or_any_part(tmp_path, state, kind):
    index = write_shards(tmp_path / "hf", state, kind)
    parts = sorted(path for path in (tmp_path / "hf").iterdir() if path != index)
    expected = from_state_dict(TEST, state)
    for source in (tmp_path / "hf", index, parts[0], parts[2]):
        config, variables, _, sha256 = convert.read_source(source)
        assert config == TEST
        assert jax.tree.all(jax.tree.map(np.array_equal, variables, expected))
        sums = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in parts]
        assert sha256 == hashlib.sha256("".join(sums).encode()).hexdigest()
    index.unlink()
    assert convert.read_source(tmp_path / "hf")[0] == TEST
    info = convert.convert_checkpoint(parts[1], tmp_path / "native")
    assert info.source["file"] == parts[1].name
    assert info.source["bytes"] == sum(part.stat().st_size for part in parts)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_missing_part_is_named_from_the_index_and_from_another_part(tmp_path, state, kind):
    index = write_shards(tmp_path / "hf", state, kind)
    parts = sorted(path for path in (tmp_path / "hf").iterdir() if path != index)
    parts[0].unlink()
    for source in (index, parts[1], tmp_path / "hf"):
        assert f"3 files, and beside it {parts[0].name} is missing" in refused(source)
    index.unlink()
    assert f"{parts[0].name} is missing" in refused(tmp_path / "hf")


@pytest.mark.parametrize(
    "text, says",
    [
        ("{", "no usable index"),
        ("[]", "no weight_map"),
        ("{}", "no weight_map"),
        ('{"weight_map": {}}', "no weight_map"),
        ('{"weight_map": {"a": 3}}', "no file beside it"),
        ('{"weight_map": {"a": "../secret.bin"}}', "no file beside it"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "no file beside it"),
        ('{"weight_map": {"a": ".."}}', "no file beside it"),
        ("[" * 100_000, "no usable index"),
    ],
)
def test_an_index_that_is_none_or_leads_elsewhere_is_refused(tmp_path, text, says):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    assert says in refused(tmp_path)


def test_an_index_that_lists_more_than_its_files_hold_is_refused(tmp_path, state):
    index = write_shards(tmp_path, state, "safetensors")
    values = json.loads(index.read_text())
    values["weight_map"]["mask_decoder.extra"] = "model-00001-of-00003.safetensors"
    index.write_text(json.dumps(values))
    assert "lists 1 tensors that are not in its files, such as 'mask_decoder.extra'" in refused(
        index
    )


def test_a_tensor_in_two_parts_is_refused(tmp_path, state):
    write_shards(tmp_path, state, "bin", 2)
    part = {n: torch.from_numpy(x) for n, x in split(state, 2)[0].items()}
    torch.save(part, tmp_path / "pytorch_model-00002-of-00002.bin")
    (tmp_path / "pytorch_model.bin.index.json").unlink()
    assert "stands in another part too" in refused(tmp_path)


def test_a_folder_with_one_file_is_that_file_and_with_several_none(tmp_path, state, pth):
    one = tmp_path / "sam_vit_b.pth"
    one.write_bytes(pth.read_bytes())
    (tmp_path / "README.md").write_text("")
    assert find_source(tmp_path).files == (one,)
    (tmp_path / "other.pt").write_bytes(pth.read_bytes())
    assert "several files of weights (other.pt, sam_vit_b.pth); name one" in refused(tmp_path)
    save_file(
        {n: np.ascontiguousarray(x) for n, x in state.items()}, tmp_path / "model.safetensors"
    )
    assert find_source(tmp_path).files == (tmp_path / "model.safetensors",)


def test_a_distributed_checkpoint_is_named(tmp_path):
    (tmp_path / ".metadata").write_bytes(b"x")
    (tmp_path / "__0_0.distcp").write_bytes(b"x")
    assert "dcp_to_torch_save" in refused(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_where_they_are_read(tmp_path, state, value):
    tensors = {name: torch.from_numpy(array.copy()) for name, array in state.items()}
    tensors["image_encoder.pos_embed"][0, 0, 0, 0] = value
    torch.save({"model": tensors}, tmp_path / "nan.pth")
    line = refused(tmp_path / "nan.pth")
    assert "not finite: params/image_encoder/pos_embed (1 of" in line
