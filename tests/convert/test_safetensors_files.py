import json
import struct

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from convert.files.safetensors_files import read_safetensors_file
from sam_jax.errors import CheckpointError


def crafted(tmp_path, header, values=b"", length=None):
    path = tmp_path / "crafted.safetensors"
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + values)
    return path


def refused(path):
    with pytest.raises(CheckpointError) as error:
        read_safetensors_file(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


DTYPES = [np.float64, np.float32, np.float16, np.int64, np.int32, np.int16, np.int8, np.uint8, bool]


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
        st.sampled_from(DTYPES).flatmap(
            lambda dtype: hnp.arrays(
                dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
            )
        ),
        max_size=6,
    )
)
def test_what_the_package_writes_is_read(tmp_path_factory, tensors):
    tensors = {name: value for name, value in tensors.items() if name != "__metadata__"}
    path = tmp_path_factory.mktemp("files") / "a.safetensors"
    save_file(tensors, path, {"format": "np"})
    found = read_safetensors_file(path)
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
        assert found[name].tobytes() == value.tobytes()


def test_bfloat16_is_read(tmp_path):
    value = torch.randn(3, 4).to(torch.bfloat16)
    save_torch({"a": value}, tmp_path / "a.safetensors")
    found = read_safetensors_file(tmp_path / "a.safetensors")["a"]
    assert found.dtype == ml_dtypes.bfloat16
    assert np.array_equal(found.astype(np.float32), value.to(torch.float32).numpy())


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    "header, says",
    [
        ({"a": entry(dtype="F31")}, "unknown type"),
        ({"a": entry(shape=(3,))}, "do not fit the file"),
        ({"a": entry(shape=(1 << 40, 1 << 40), offsets=(0, 8))}, "do not fit the file"),
        ({"a": entry(shape=(4,), offsets=(0, 16))}, "do not fit the file"),
        ({"a": entry(offsets=(8, 0))}, "do not fit the file"),
        ({"a": entry(shape=[1] * 9, offsets=(0, 4))}, "too many dimensions"),
        ({"a": entry(), "b": entry()}, "overlap"),
        ({"a": entry(shape=(1,), offsets=(4, 8))}, "gaps"),
        ({"a": entry(shape=(1,), offsets=(0, 4))}, "belong to no tensor"),
        ({}, "belong to no tensor"),
        ({"a": entry(shape=(-2,))}, "damaged"),
        ({"a": entry(shape=(2.0,))}, "damaged"),
        ({"a": entry(shape=(True, 2))}, "damaged"),
        ({"a": entry(offsets=(0, 4, 8))}, "damaged"),
        ({"a": {"dtype": "F32"}}, "damaged"),
        ({"a": 3}, "damaged"),
        ({"a": {**entry(), "dtype": ["F32"]}}, "damaged"),
        ([], "damaged"),
        (3, "damaged"),
        (b"{", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[" * 100_000, "damaged"),
        (b'{"a": 1, "a": 2}', "twice"),
    ],
)
def test_a_header_that_does_not_describe_the_file_is_refused(tmp_path, header, says):
    assert says in refused(crafted(tmp_path, header, bytes(8)))


def test_the_crafted_file_is_right_where_nothing_is_wrong_with_it(tmp_path):
    found = read_safetensors_file(crafted(tmp_path, {"a": entry(), "__metadata__": {}}, bytes(8)))
    assert found["a"].tolist() == [0, 0]


@pytest.mark.parametrize("length", [10_000, 1 << 40, (1 << 64) - 1])
def test_header_lengths_beyond_the_file_are_refused(tmp_path, length):
    assert "header is longer" in refused(crafted(tmp_path, {}, bytes(8), length))


def test_truncated_missing_and_empty_files_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": np.ones(100, np.float32)}, path)
    data = path.read_bytes()
    for keep in (0, 1, 7, 8, 20, len(data) - 1):
        path.write_bytes(data[:keep])
        refused(path)
    assert "No such file" in refused(tmp_path / "missing")
    assert "directory" in refused(tmp_path)
