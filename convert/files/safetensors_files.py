"""Reads `.safetensors` files without the package.

Eight bytes of header length, a JSON header that gives each tensor's type, shape and place, and the
values, one after the other without gaps. Tensors are views of the mapped file.
"""

import json
import math
import mmap
import os
import struct
from typing import Any

import ml_dtypes
import numpy as np

from sam_jax.errors import CheckpointError

_MAX_HEADER_BYTES = 16 << 20
_MAX_RANK = 8
# What an empty file, bad UTF-8, bad JSON or a value of the wrong kind ends in.
_DAMAGE = (
    AttributeError,
    LookupError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
_DTYPES: dict[str, Any] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


def read_safetensors_file(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a `.safetensors` file by name, as read-only arrays on the mapped file.

    Raises:
      CheckpointError: its header is damaged, or does not describe the rest of the file exactly.
    """
    try:
        with open(path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return _tensors(memoryview(mapped))
    except CheckpointError as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}") from error
    except OSError as error:
        reason = error.strerror or error
        raise CheckpointError(f"cannot read {os.fspath(path)}: {reason}") from error
    except _DAMAGE as error:
        raise CheckpointError(
            f"{os.fspath(path)} is truncated or damaged ({type(error).__name__})"
        ) from error


def _tensors(data: memoryview) -> dict[str, np.ndarray]:
    (header_length,) = struct.unpack_from("<Q", data)
    if header_length > min(_MAX_HEADER_BYTES, len(data) - 8):
        raise CheckpointError("its header is longer than the file, or too long")
    values = data[8 + header_length :]
    header = json.loads(bytes(data[8 : 8 + header_length]), object_pairs_hook=_unique_keys)
    header.pop("__metadata__", None)
    tensors, places = {}, []
    for name, entry in header.items():
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise CheckpointError(f"{name[:200]!r} has an unknown type")
        shape = [_count(size) for size in entry["shape"]]
        start, end = (_count(offset) for offset in entry["data_offsets"])
        if len(shape) > _MAX_RANK:
            raise CheckpointError(f"{name[:200]!r} has too many dimensions")
        if end - start != math.prod(shape) * dtype.itemsize or end > len(values):
            raise CheckpointError(f"the place and shape of {name[:200]!r} do not fit the file")
        places.append((start, end))
        tensors[name] = np.frombuffer(values[start:end], dtype).reshape(shape)
    covered = 0
    for start, end in sorted(places):
        if start != covered:
            raise CheckpointError("its tensors overlap, or leave gaps between them")
        covered = end
    if covered != len(values):
        raise CheckpointError("it has bytes that belong to no tensor")
    return tensors


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise CheckpointError("a name stands in its header twice")
    return keys


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 48:
        raise ValueError("no count")
    return value
