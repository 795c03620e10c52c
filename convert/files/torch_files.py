"""Reads and writes PyTorch's zip-format files (`torch.save`) without PyTorch.

The archive holds `NAME/data.pkl`, a pickle in which every storage is a persistent id, and the
storages' bytes in `NAME/data/KEY`, uncompressed. Tensors are views of the mapped file, so reading
takes no memory until their values are used.
"""

import math
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

from convert.files.restricted_pickle import (
    MAX_PICKLE_BYTES,
    SAVE_WEIGHTS,
    Global,
    Placeholder,
    loads,
)
from sam_jax.errors import CheckpointError
from sam_jax.files import written_aside

ZIP_MAGIC = b"PK\x03\x04"
# An entry beside the pickle, which PyTorch does not look at: what tensors alone do not tell.
RECORD = "sam_jax.json"

_STORAGE_DTYPES: dict[str, Any] = {
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ShortStorage": np.dtype("<i2"),
    "torch.CharStorage": np.dtype("i1"),
    "torch.ByteStorage": np.dtype("u1"),
    "torch.BoolStorage": np.dtype("?"),
}
# Values that runs save beside their weights and that pickle as calls: they become placeholders.
_INERT = (
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in (
        "bytearray", "complex", "frozenset", "range", "set", "slice", "xrange",
    )),
    *(f"collections.{name}" for name in ("Counter", "deque")),
    *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in (
        "_reconstruct", "scalar",
    )),
    *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in (
        "Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath",
    )),
    "_codecs.encode",
    "decimal.Decimal",
    "functools.partial",
    "numpy.dtype",
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
    *(f"numpy.random._pickle.__{name}_ctor" for name in (
        "bit_generator", "generator", "randomstate",
    )),
    "torch.device",
    "types.SimpleNamespace",
)  # fmt: skip
_MAX_RANK = 8
# More than any state dict's tensors share: a few bytes that many large tensors point to are a bomb.
_MAX_SHARING = 2
_ALIGNMENT = 64
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 0x1


@dataclass(frozen=True, eq=False)
class _Storage:
    values: np.ndarray


def read_torch_file(path: str | os.PathLike) -> tuple[Any, bytes | None]:
    """What a zip-format `.pth` file holds, its tensors as read-only arrays on the mapped file.

    Returns:
      The object: dicts, lists, numbers and text, with a NumPy array (bfloat16 included) for every
      tensor and a `Placeholder` for any other object; and the bytes of the record that
      `write_torch_file` adds, or None.

    Raises:
      CheckpointError: it is damaged, or its pickle calls anything but what tensors need.
    """
    with _named_in_errors(path), open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        archive = _Archive(file, mapped)
        tensors = _Tensors(archive)
        value = loads(archive.read("data.pkl"), tensors.allowed, tensors.load_storage)
        return value, archive.read(RECORD) if RECORD in archive.entries else None


class _Archive:
    """The entries of a zip file, checked so that each is a plain run of the file's own bytes."""

    def __init__(self, file: Any, mapped: mmap.mmap):
        self._mapped = mapped
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
        if any("/code/" in i.filename or i.filename.endswith("/constants.pkl") for i in infos):
            raise CheckpointError(
                f"it is a TorchScript program (torch.jit.save), not weights; {SAVE_WEIGHTS}"
            )
        pickles = [i.filename for i in infos if i.filename.endswith("/data.pkl")]
        if len(pickles) != 1 or pickles[0].count("/") != 1:
            raise CheckpointError(
                "it is a zip file but not one that torch.save wrote: it needs one NAME/data.pkl"
            )
        prefix = pickles[0].removesuffix("data.pkl")
        self.entries: dict[str, tuple[int, zipfile.ZipInfo]] = {}
        end = 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            name = info.filename.removeprefix(prefix)
            if not info.filename.startswith(prefix) or name in self.entries:
                raise CheckpointError(f"the entry {info.filename[:200]!r} does not belong in it")
            start = self._data_start(info)
            if info.header_offset < end:
                raise CheckpointError(f"the entry {name[:200]!r} overlaps another")
            end = start + info.file_size
            self.entries[name] = start, info
        if "byteorder" in self.entries and self.read("byteorder").strip() != b"little":
            raise CheckpointError(
                "it was written on a big-endian machine; save it again on another"
            )

    def read(self, name: str) -> bytes:
        """A small entry's bytes."""
        if self.entries[name][1].file_size > MAX_PICKLE_BYTES:
            raise CheckpointError(
                f"its {name} of {self.entries[name][1].file_size} bytes is too large"
            )
        return bytes(self.view(name))

    def view(self, name: str) -> memoryview:
        """An entry's bytes in the mapped file, after its checksum was found right."""
        start, info = self.entries[name]
        data = memoryview(self._mapped)[start : start + info.file_size]
        if zlib.crc32(data) != info.CRC:
            raise CheckpointError(f"the checksum of its entry {name[:200]!r} is wrong")
        return data

    def _data_start(self, info: zipfile.ZipInfo) -> int:
        name = info.filename[:200]
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise CheckpointError(f"the entry {name!r} is compressed, which torch.save never does")
        if info.flag_bits & _ENCRYPTED:
            raise CheckpointError(f"the entry {name!r} is encrypted")
        offset = info.header_offset
        header = self._mapped[offset : offset + _LOCAL_HEADER.size] if offset >= 0 else b""
        if len(header) < _LOCAL_HEADER.size or header[:4] != ZIP_MAGIC:
            raise CheckpointError(f"the entry {name!r} is not where the directory says")
        *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        start = offset + _LOCAL_HEADER.size + name_length + extra_length
        if start + info.file_size > len(self._mapped):
            raise CheckpointError(f"the entry {name!r} ends after the end of the file")
        return start


class _Tensors:
    """The globals that a state dict's pickle may name, over the storages of one archive."""

    def __init__(self, archive: _Archive):
        self._archive = archive
        self._storages: dict[str, _Storage] = {}
        self._bytes_left = _MAX_SHARING * sum(i.file_size for _, i in archive.entries.values())
        calls: dict[str, Callable[..., Any] | None] = {
            "collections.OrderedDict": _empty_dict,
            "torch.Size": tuple,
            "torch._utils._rebuild_tensor_v2": self._rebuild_tensor,
            "torch._utils._rebuild_parameter": _rebuild_parameter,
            "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
            "collections.defaultdict": _empty_dict,
            **{name: partial(_placeholder, name) for name in _INERT},
            **dict.fromkeys(_STORAGE_DTYPES),
        }
        self.allowed = {name: Global(name, call) for name, call in calls.items()}

    def load_storage(self, persistent_id: Any) -> _Storage:
        """The storage that a persistent id names: ("storage", type, key, device, elements)."""
        kind, storage_type, key, _, count = persistent_id
        if kind != "storage" or not isinstance(storage_type, Global) or not isinstance(key, str):
            raise ValueError("no storage")
        dtype, name = _STORAGE_DTYPES[storage_type.name], f"data/{key}"
        if name not in self._archive.entries:
            raise CheckpointError(f"its storage {key[:200]!r} is missing")
        if key not in self._storages:
            data = self._archive.view(name)
            if len(data) != _count(count) * dtype.itemsize:
                raise CheckpointError(
                    f"its storage {key[:200]!r} has {len(data)} bytes, not {count} elements"
                )
            self._storages[key] = _Storage(np.frombuffer(data, dtype))
        if self._storages[key].values.dtype != dtype:
            raise CheckpointError(f"its storage {key[:200]!r} is given two types")
        return self._storages[key]

    def _rebuild_tensor(
        self,
        storage: Any,
        offset: Any,
        shape: Any,
        strides: Any,
        requires_grad: Any,
        hooks: Any,
        metadata: Any = None,
    ) -> np.ndarray:
        if not isinstance(storage, _Storage) or hooks:
            raise TypeError("no plain tensor")
        if not isinstance(shape, tuple) or len(shape) > _MAX_RANK or len(shape) != len(strides):
            raise ValueError("no shape")
        sizes, steps = [_count(n) for n in shape], [_count(n) for n in strides]
        values, elements = storage.values, math.prod(sizes)
        last = _count(offset) + sum(
            (n - 1) * step for n, step in zip(sizes, steps, strict=True) if elements
        )
        # More elements than the storage has: expanded by strides of zero, or overlapping.
        if (elements and last >= values.size) or offset > values.size or elements > values.size:
            raise CheckpointError(f"a tensor of shape {shape} reaches outside its storage")
        self._bytes_left -= elements * values.itemsize
        if self._bytes_left < 0:
            raise CheckpointError("its tensors claim more bytes than the file has")
        return np.lib.stride_tricks.as_strided(
            values[offset:], sizes, [step * values.itemsize for step in steps], writeable=False
        )


def _empty_dict(*_: Any) -> dict[Any, Any]:
    return {}


def _placeholder(name: str, *_: Any) -> Placeholder:
    return Placeholder(name)


def _rebuild_parameter(data: Any, requires_grad: Any, hooks: Any, state: Any = None) -> np.ndarray:
    if not isinstance(data, np.ndarray) or hooks:
        raise TypeError("no plain parameter")
    return data


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 48:
        raise ValueError("no count")
    return value


@contextmanager
def _named_in_errors(path: str | os.PathLike) -> Iterator[None]:
    """Puts the file's name before every message; whatever a damaged zip file ends in is one."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}") from error
    except OSError as error:
        raise CheckpointError(
            f"cannot read {os.fspath(path)}: {error.strerror or error}"
        ) from error
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        struct.error,
        NotImplementedError,
        LookupError,
        OverflowError,
        RuntimeError,
        ValueError,
    ) as error:
        raise CheckpointError(
            f"{os.fspath(path)} is truncated or damaged ({type(error).__name__})"
        ) from error


def write_torch_file(
    path: str | os.PathLike,
    tensors: Mapping[str, np.ndarray],
    record: bytes | None = None,
    wrapper: str | None = None,
) -> None:
    """Writes a state dict of float32 arrays that `torch.load(path, weights_only=True)` reads.

    Args:
      path: the file, which appears whole or not at all.
      tensors: arrays by their name in the state dict.
      record: bytes to keep beside them, which PyTorch ignores and `read_torch_file` returns.
      wrapper: the key of a dictionary that the state dict is the only value of; None for none.

    Raises:
      OSError: it cannot be written.
    """
    arrays = {name: np.asarray(value, "<f4", order="C") for name, value in tensors.items()}
    with written_aside(path) as file, zipfile.ZipFile(file, "w") as archive:
        add = partial(_add_entry, archive)
        shapes = {name: a.shape for name, a in arrays.items()}
        add("data.pkl", _state_dict_pickle(shapes, wrapper))
        add("byteorder", b"little")
        for key, array in enumerate(arrays.values()):
            add(f"data/{key}", array.reshape(-1).view(np.uint8).data)
        add("version", b"3\n")
        if record is not None:
            add(RECORD, record)


def _add_entry(archive: zipfile.ZipFile, name: str, data: bytes | memoryview) -> None:
    info = zipfile.ZipInfo(f"archive/{name}")  # dated 1980: equal models make equal files
    # PyTorch maps storages into memory and wants them aligned; the field's name is its own, "FB".
    assert archive.fp is not None
    end = archive.fp.tell() + _LOCAL_HEADER.size + len(info.filename.encode()) + 4
    padding = -end % _ALIGNMENT
    info.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    archive.writestr(info, data)


def _state_dict_pickle(shapes: Mapping[str, tuple[int, ...]], wrapper: str | None) -> bytes:
    """The pickle, protocol 2, of an ordered dictionary of float32 tensors, one storage each.

    With a wrapper it is the one value, of that key, of another dictionary.
    """
    ordered_dict = b"ccollections\nOrderedDict\n)R"
    opening = b"" if wrapper is None else b"}(" + _pickled_text(wrapper)
    out = [b"\x80\x02", opening, ordered_dict, b"("]
    for key, (name, shape) in enumerate(shapes.items()):
        count = math.prod(shape)
        strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
        storage = b"(%sctorch\nFloatStorage\n%s%s%st" % (
            _pickled_text("storage"),
            _pickled_text(str(key)),
            _pickled_text("cpu"),
            _pickled_int(count),
        )
        tensor = b"(%sQ%s%s%s\x89%st" % (
            storage,
            _pickled_int(0),
            b"(%st" % b"".join(map(_pickled_int, shape)),
            b"(%st" % b"".join(map(_pickled_int, strides)),
            ordered_dict,
        )
        out += [_pickled_text(name), b"ctorch._utils\n_rebuild_tensor_v2\n", tensor, b"R"]
    return b"".join([*out, b"u." if wrapper is None else b"uu."])


def _pickled_text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _pickled_int(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)
