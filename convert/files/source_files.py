"""Which files a source of weights consists of, and the tensors in them.

A source is one file, a directory, or sharded weights: the index that lists their parts, or any one
part, beside which the others lie.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convert.files.restricted_pickle import SAVE_WEIGHTS
from convert.files.safetensors_files import read_safetensors_file
from convert.files.torch_files import ZIP_MAGIC, read_torch_file
from sam_jax.checkpoints.weight_files import is_index_name, shard_names, weights_in
from sam_jax.errors import CheckpointError
from sam_jax.files import file_sha256

# How torch.save wrote files before version 1.6: a pickled magic number comes first.
_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_LFS_POINTER = b"version https://git-lfs"
_MAX_INDEX_BYTES = 16 << 20
_OTHER_FORMATS = {
    ".onnx": "an ONNX program",
    ".engine": "a TensorRT program",
    ".tflite": "a TensorFlow Lite program",
    ".msgpack": "a Flax file",
    ".h5": "a Keras file",
    ".gguf": "a GGUF file",
}


@dataclass(frozen=True)
class SourceFiles:
    """The files of a source.

    Attributes:
      path: what is named in messages; a config.json may lie beside it.
      files: one, or the parts of sharded weights in order.
      placed: of an index, the file of each tensor; otherwise None.
    """

    path: Path
    files: tuple[Path, ...]
    placed: dict[str, str] | None = None

    def num_bytes(self) -> int:
        """Of all files."""
        return sum(file.stat().st_size for file in self.files)

    def sha256(self) -> str:
        """Of the one file; of several, of what `sha256sum` prints of them in order.

        Raises:
          CheckpointError: one cannot be read.
        """
        try:
            sums = [file_sha256(file) for file in self.files]
        except OSError as error:
            raise CheckpointError(
                f"cannot read {error.filename or self.path}: {error.strerror or error}"
            ) from error
        if len(self.files) == 1:
            return sums[0]
        lines = [f"{one}  {file.name}\n" for one, file in zip(sums, self.files, strict=True)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def find_source(path: str | os.PathLike) -> SourceFiles:
    """The files that a path stands for.

    Raises:
      CheckpointError: there is no such file, a directory holds none or several that it could be, or
        parts of sharded weights are missing.
    """
    path = Path(path)
    if path.is_dir():
        path = _in_directory(path)
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    if is_index_name(path):
        placed = _read_index(path)
        names = sorted(set(placed.values()))
    else:
        placed, names = None, shard_names(path)
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{path} belongs to weights in {len(names)} files, and beside it "
            f"{', '.join(missing[:3])}{' and more' if len(missing) > 3 else ''} "
            f"{'is' if len(missing) == 1 else 'are'} missing; get the rest"
        )
    return SourceFiles(path, tuple(path.parent / name for name in names), placed)


def read_values(source: SourceFiles) -> tuple[Any, bytes | None, bool]:
    """What a source holds: a table of tensors, or whatever is around one.

    Returns:
      The object, our record in a file that `export_checkpoint` wrote, and whether it is one file in
      PyTorch's own format.

    Raises:
      CheckpointError: a file is damaged or refused, or the parts do not fit their index.
    """
    if len(source.files) == 1:
        return _read_file(source.files[0])
    tensors: dict[str, np.ndarray] = {}
    for file in source.files:
        part, _, _ = _read_file(file)
        if not isinstance(part, dict):
            raise CheckpointError(f"{file} holds no state dict")
        twice = sorted(tensors.keys() & part.keys())
        if twice:
            raise CheckpointError(f"{file}: {twice[0][:200]!r} stands in another part too")
        tensors.update(part)
    if source.placed is not None:
        absent = sorted(source.placed.keys() - tensors.keys())
        if absent:
            raise CheckpointError(
                f"{source.path} lists {len(absent)} tensors that are not in its files, such as "
                f"{absent[0][:200]!r} in {source.placed[absent[0]][:200]}; get them again"
            )
    return tensors, None, False


def _in_directory(directory: Path) -> Path:
    found = weights_in(directory)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.name for path in found[:5])
        raise CheckpointError(f"{directory} holds several files of weights ({names}); name one")
    if (directory / ".metadata").is_file() and any(directory.glob("*.distcp")):
        raise CheckpointError(
            f"{directory} is a distributed checkpoint of PyTorch; make one file of it with "
            "torch.distributed.checkpoint.format_utils.dcp_to_torch_save"
        )
    raise CheckpointError(
        f"{directory} is a directory without a model.safetensors; give a .pth, .pt or "
        ".safetensors file"
    )


def _read_index(path: Path) -> dict[str, str]:
    try:
        if path.stat().st_size > _MAX_INDEX_BYTES:
            raise ValueError("it is too large")
        values = json.loads(path.read_bytes())
        placed = values.get("weight_map") if isinstance(values, dict) else None
        if not isinstance(placed, dict) or not placed:
            raise ValueError("it has no weight_map")
        for name in placed.values():
            # Only files beside it: an index must not reach anywhere else.
            if not isinstance(name, str) or name != Path(name).name or name in ("", "..", "."):
                raise ValueError(f"{str(name)[:100]!r} is no file beside it")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        reason = str(error).split("\n")[0]
        raise CheckpointError(f"{path} is no usable index of weights: {reason}") from error
    return placed


def _read_file(path: Path) -> tuple[Any, bytes | None, bool]:
    """What a file holds, our record in it, and whether it is PyTorch's own format.

    The format is told by the first bytes.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(64)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    if not start:
        raise CheckpointError(f"{path} is empty; get it again")
    if start.startswith(ZIP_MAGIC):
        return *read_torch_file(path), True
    if start.startswith(_LEGACY_MAGIC):
        raise CheckpointError(
            f"{path} is in PyTorch's old format; load it with torch.load and save it again with "
            "torch.save, in PyTorch 1.6 or later"
        )
    if start.startswith(_LFS_POINTER):
        raise CheckpointError(f"{path} is a Git LFS pointer, not the file; run `git lfs pull`")
    other = _OTHER_FORMATS.get(path.suffix.lower())
    if other is not None:
        raise CheckpointError(f"{path} is {other}, which sam_jax does not read; {SAVE_WEIGHTS}")
    if start[8:9] == b"{":
        return read_safetensors_file(path), None, False
    raise CheckpointError(
        f"{path} is neither a zip-format PyTorch file (.pth, .pt) nor a .safetensors file; "
        "it may be damaged, so get it again"
    )
