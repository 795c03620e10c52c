"""Files of PyTorch weights, told by their names and first bytes; nothing here reads a tensor."""

import re
import shlex
from pathlib import Path

TORCH_SUFFIXES = frozenset({".pth", ".pt", ".bin", ".ckpt", ".safetensors"})
# What Hugging Face names the weights in a model's directory, the preferred one first.
_STANDARD_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_INDEX = re.compile(r"\.index(\.\w+)?\.json$")
_SHARD = re.compile(
    r"(?P<start>.*?)(?P<part>\d{1,5})-of-(?P<count>\d{1,4}|0\d{4})(?P<end>\.\w+)", re.DOTALL
)
_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80\x02"


def is_torch_name(path: Path) -> bool:
    """Whether a file of this name is usually PyTorch weights, or the index of their parts."""
    return path.suffix.lower() in TORCH_SUFFIXES or is_index_name(path)


def is_index_name(path: Path) -> bool:
    """Whether a file of this name usually lists the parts of sharded weights."""
    return _INDEX.search(path.name) is not None


def is_torch_content(path: Path) -> bool:
    """Whether a file starts as PyTorch weights do, in either of PyTorch's formats or safetensors.

    Raises:
      OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        start = file.read(512)
    # The first entry of a zip file's is the pickle; other zip files (.npz) have another.
    zipped = start.startswith(_ZIP) and b"/data.pkl" in start
    return zipped or start.startswith(_PICKLE) or start[8:9] == b"{"


def weights_in(directory: Path) -> list[Path]:
    """The PyTorch weights in a directory: the standard file, or else every file that may be one.

    Of sharded weights without an index, the first part. Empty for a native checkpoint.
    """
    if not directory.is_dir() or (directory / "params").is_dir():
        return []
    standard = [directory / name for name in _STANDARD_NAMES if (directory / name).is_file()]
    if standard:
        return standard[:1]
    files = sorted(path for path in directory.iterdir() if is_torch_name(path) and path.is_file())
    # Of the parts of one set, the first that is there.
    return list({tuple(shard_names(path)): path for path in reversed(files)}.values())[::-1]


def is_torch_source(path: Path) -> bool:
    """Whether a path means PyTorch weights: a file, the name of one, or a directory of some.

    Everything else is, or should be, a native checkpoint.
    """
    return path.is_file() or bool(weights_in(path)) or (is_torch_name(path) and not path.is_dir())


def shard_names(path: Path) -> list[str]:
    """The names of all parts that belong to the one at `path`; of no part, its own name."""
    match = _SHARD.fullmatch(path.name)
    if match is None:
        return [path.name]
    start, part, count, end = match["start"], match["part"], match["count"], match["end"]
    return [f"{start}{i:0{len(part)}d}-of-{count}{end}" for i in range(1, int(count) + 1)]


def convert_command(path: Path) -> str:
    """The command that makes a checkpoint of PyTorch weights."""
    return f"sam-jax convert {shlex.quote(str(path))} DESTINATION"
