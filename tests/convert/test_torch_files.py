import os
import struct
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from convert.files.torch_files import RECORD, read_torch_file, write_torch_file
from sam_jax.errors import CheckpointError

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


def saved(value, tmp_path, **options):
    path = tmp_path / "file.pth"
    torch.save(value, path, **options)
    return path


def refused(path):
    """The one line that reading ends in."""
    with pytest.raises(CheckpointError) as error:
        read_torch_file(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


def same(array, tensor):
    if tensor.dtype == torch.bfloat16:
        return array.dtype == ml_dtypes.bfloat16 and same(
            array.astype(np.float32), tensor.to(torch.float32)
        )
    return array.dtype == tensor.numpy().dtype and np.array_equal(array, tensor.numpy())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_type_comes_back_as_it_is(tmp_path, dtype):
    tensor = (100 * torch.randn(3, 5)).to(dtype)
    value, record = read_torch_file(saved({"a": tensor}, tmp_path))
    assert same(value["a"], tensor)
    assert record is None


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_is_read(tmp_path, protocol):
    path = saved({"a": torch.ones(3)}, tmp_path, pickle_protocol=protocol)
    assert same(read_torch_file(path)[0]["a"], torch.ones(3))


def test_views_come_back_with_their_own_order_and_part_of_the_storage(tmp_path):
    base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    views = {
        "whole": base,
        "transposed": base.permute(2, 0, 1),
        "part": base[1:, ::2, 3],
        "scalar": base[2, 3, 4],
        "empty": base[:, :0],
        "row": base[0, 0],
    }
    value, _ = read_torch_file(saved(views, tmp_path))
    assert value.keys() == views.keys()
    for name, view in views.items():
        assert same(value[name], view)


def test_what_training_saves_beside_the_weights_is_read(tmp_path):
    layer = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(3)).sum().backward()
    optimiser.step()
    state = {
        "model": layer.state_dict(),
        "parameter": layer.weight,
        "optimizer": optimiser.state_dict(),
        "epoch": 3,
        "loss": 0.5,
        "name": "run é",
        "size": torch.Size([2, 3]),
        "none": None,
    }
    value, _ = read_torch_file(saved(state, tmp_path))
    assert same(value["model"]["weight"], layer.weight.detach())
    assert same(value["parameter"], layer.weight.detach())
    assert (value["epoch"], value["loss"], value["name"]) == (3, 0.5, "run é")
    assert value["size"] == (2, 3)
    assert value["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.999)


def test_arrays_cannot_be_written_to(tmp_path):
    array = read_torch_file(saved({"a": torch.ones(3)}, tmp_path))[0]["a"]
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 2


names = st.text(st.characters(codec="utf-8"), max_size=20)
arrays = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(names, arrays, max_size=6), st.none() | st.binary(max_size=50))
def test_what_we_write_pytorch_and_we_read(tmp_path_factory, tensors, record):
    path = tmp_path_factory.mktemp("written") / "file.pth"
    write_torch_file(path, tensors, record)
    theirs = torch.load(path, weights_only=True)
    mapped = torch.load(path, weights_only=True, mmap=True)
    ours, read_record = read_torch_file(path)
    assert type(theirs) is OrderedDict
    assert list(theirs) == list(mapped) == list(ours) == list(tensors)
    assert read_record == record
    for name, array in tensors.items():
        for found in (theirs[name].numpy(), mapped[name].numpy(), ours[name]):
            assert found.shape == array.shape
            assert found.tobytes() == array.tobytes()


def test_writing_gives_the_same_bytes_every_time_and_no_half_file(tmp_path):
    tensors = {"a": np.ones((2, 3), np.float32).T}
    for name in ("one", "two"):
        write_torch_file(tmp_path / name, tensors, b"record")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with pytest.raises(ValueError, match="could not convert"):
        write_torch_file(tmp_path / "three", {"a": np.array(["text"])})
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]


def test_storages_are_aligned_as_pytorch_aligns_them(tmp_path):
    write_torch_file(tmp_path / "f.pth", {"a": np.ones(3), "b": np.ones(5)})
    data = (tmp_path / "f.pth").read_bytes()
    for value, count in ((np.float32(1), 3), (np.float32(1), 5)):
        assert data.index(value.tobytes() * count) % 64 == 0


# --- files that are refused


def entries_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(path, entries, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def with_pickle(tmp_path, data, storage=bytes(400)):
    return rewritten(
        tmp_path / "crafted.pth",
        {"archive/data.pkl": data, "archive/data/0": storage, "archive/version": b"3\n"},
    )


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "function, argument, name",
    [
        (os.system, "touch {}", "system"),
        (eval, "open({!r}, 'w')", "eval"),
        (torch.load, "{}", "load"),
        (torch.nn.Linear, "{}", "Linear"),
        (np.load, "{}", "load"),
    ],
)
def test_a_malicious_pickle_is_refused_by_name(tmp_path, function, argument, name):
    trap = tmp_path / "trap"
    path = tmp_path / "malicious.pth"
    value = {"weight": torch.ones(3), "x": Call(function, argument.format(str(trap)))}
    torch.save(value, path)
    assert f".{name}'" in refused(path)
    assert "tensors and nothing else" in refused(path)
    assert not trap.exists()


def test_a_whole_module_is_refused_by_name(tmp_path):
    assert "'torch.nn.modules.linear.Linear'" in refused(saved(torch.nn.Linear(2, 2), tmp_path))


def tensor_pickle(
    offset="K\x00", shape="(K\x0at", stride="(K\x01t", count="Kd", key="X\x01\0\0\x000"
):
    """A state dict {"a": tensor} over storage 0; by default its first 10 of 100 elements."""
    return (
        b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storage"
        b"ctorch\nFloatStorage\n"
        + key.encode("latin-1")
        + b"X\x03\0\0\0cpu"
        + count.encode("latin-1")
        + b"tQ"
        + "".join([offset, shape, stride]).encode("latin-1")
        + b"\x89ccollections\nOrderedDict\n)RtRs."
    )


def test_the_crafted_file_is_right_where_nothing_is_wrong_with_it(tmp_path):
    value, _ = read_torch_file(with_pickle(tmp_path, tensor_pickle()))
    assert value["a"].shape == (10,)


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"offset": "K\x5b"}, "outside its storage"),
        ({"shape": "(K\x65t"}, "outside its storage"),
        ({"stride": "(K\x0ct"}, "outside its storage"),
        # Expanded by strides of zero to a terabyte.
        ({"shape": "(J\0\0\x10\0J\0\0\x10\0t", "stride": "(K\0K\0t"}, "outside its storage"),
        ({"stride": "(J\xff\xff\xff\xfft"}, "damaged"),
        ({"shape": "(J\xff\xff\xff\xfft"}, "damaged"),
        ({"offset": "J\xff\xff\xff\xff"}, "damaged"),
        ({"shape": "(K\x01K\x01t"}, "damaged"),
        ({"shape": "(" + 9 * "K\x01" + "t", "stride": "(" + 9 * "K\x01" + "t"}, "damaged"),
        ({"shape": "(\x88t"}, "damaged"),
        ({"shape": "K\x01"}, "damaged"),
        ({"count": "K\x63"}, "has 400 bytes, not 99 elements"),
        ({"key": "X\x01\0\0\x001"}, "storage '1' is missing"),
        ({"key": "X\x0a\0\0\x00../version"}, "storage '../version' is missing"),
        ({"key": "K\x00"}, "damaged"),
    ],
)
def test_a_tensor_that_does_not_fit_its_storage_is_refused(tmp_path, changes, says):
    assert says in refused(with_pickle(tmp_path, tensor_pickle(**changes)))


def test_many_tensors_on_one_storage_may_not_claim_more_than_the_file(tmp_path):
    one = torch.zeros(1000)
    path = saved({str(i): one[:] for i in range(100)}, tmp_path)
    assert "claim more bytes" in refused(path)
    assert len(read_torch_file(saved({"a": one, "b": one[:]}, tmp_path))[0]) == 2


def test_files_in_the_old_format_or_not_of_torch_are_refused(tmp_path):
    old = saved({"a": torch.ones(2)}, tmp_path, _use_new_zipfile_serialization=False)
    assert "damaged" in refused(old)
    assert "not one that torch.save wrote" in refused(rewritten(tmp_path / "z", {"a.txt": b"hi"}))
    nested = rewritten(tmp_path / "n", {"a/b/data.pkl": b"\x80\x02}."})
    assert "not one that torch.save wrote" in refused(nested)
    two = rewritten(tmp_path / "t", {"a/data.pkl": b"\x80\x02}.", "b/data.pkl": b"\x80\x02}."})
    assert "not one that torch.save wrote" in refused(two)


def test_missing_and_empty_files_and_directories_are_refused(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    assert "damaged" in refused(tmp_path / "empty")
    assert "No such file" in refused(tmp_path / "missing")
    assert "directory" in refused(tmp_path)


def test_strange_archives_are_refused(tmp_path):
    entries = entries_of(saved({"a": torch.ones(100)}, tmp_path))
    path = rewritten(tmp_path / "compressed.pth", entries, zipfile.ZIP_DEFLATED)
    assert "compressed" in refused(path)
    prefix = next(iter(entries)).split("/")[0]
    path = rewritten(tmp_path / "outside.pth", {**entries, "../evil": b""})
    assert "'../evil' does not belong in it" in refused(path)
    path = rewritten(tmp_path / "endian.pth", {**entries, f"{prefix}/byteorder": b"big"})
    assert "big-endian" in refused(path)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as archive:
        for name in [*entries, f"{prefix}/data/0"]:
            archive.writestr(name, entries.get(name, b""))
    assert "does not belong in it" in refused(path)


def directory_field(data, name, offset, value):
    """The file with four bytes of an entry's line in the zip directory replaced."""
    start = data.rindex(name) - 46
    assert data[start : start + 4] == b"PK\x01\x02"
    return data[: start + offset] + struct.pack("<I", value) + data[start + offset + 4 :]


@pytest.mark.parametrize(
    "offset, value, says",
    [
        (42, 0, "not where|overlaps|does not belong"),  # the place of another entry
        (42, 7, "not where the directory says"),
        (16, 1, "checksum"),
        (20, 10, "compressed"),
        (8, 1, "encrypted"),
    ],
)
def test_a_directory_that_lies_about_an_entry_is_refused(tmp_path, offset, value, says):
    path = with_pickle(tmp_path, tensor_pickle())
    path.write_bytes(directory_field(path.read_bytes(), b"archive/data/0", offset, value))
    message = refused(path)
    assert any(one in message for one in says.split("|"))


def test_sizes_beyond_the_file_are_refused_before_anything_is_read(tmp_path):
    path = with_pickle(tmp_path, tensor_pickle())
    data = path.read_bytes()
    for offset in (20, 24):
        data = directory_field(data, b"archive/data/0", offset, 0xF0000000)
    path.write_bytes(data)
    assert "ends after the end of the file" in refused(path)


def test_a_changed_value_is_noticed(tmp_path):
    path = saved({"a": torch.ones(100)}, tmp_path)
    data = bytearray(path.read_bytes())
    at = data.index(np.float32(1).tobytes() * 100)
    data[at + 50] ^= 1
    path.write_bytes(data)
    assert "checksum" in refused(path)


def test_truncated_files_are_refused(tmp_path):
    path = saved({"a": torch.ones(100)}, tmp_path)
    data = path.read_bytes()
    for keep in (1, 30, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:keep])
        refused(path)


def test_our_record_is_ignored_by_pytorch(tmp_path):
    write_torch_file(tmp_path / "f.pth", {"a": np.ones(3)}, b'{"config": 1}')
    assert entries_of(tmp_path / "f.pth")[f"archive/{RECORD}"] == b'{"config": 1}'
    assert torch.load(tmp_path / "f.pth", weights_only=False)["a"].sum() == 3
