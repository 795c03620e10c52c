"""PyTorch files to native checkpoints, and native checkpoints to PyTorch files."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from convert import sam, sam2
from convert.safetensors_files import read_safetensors_file
from convert.sam2_variants import detect_sam2_naming, infer_sam2_config
from convert.tables import HUGGING_FACE, OFFICIAL, Entry, to_native, to_torch
from convert.torch_files import ZIP_MAGIC, read_torch_file, write_torch_file
from convert.variants import infer_config
from sam_jax.checkpoints import (
    CheckpointInfo,
    check_destination,
    flat_shapes,
    load_checkpoint,
    save_checkpoint,
)
from sam_jax.configs import config_from_json, config_to_json
from sam_jax.errors import CheckpointError
from sam_jax.families import ModelConfig, family_named, family_of
from sam_jax.sam2_configs import Sam2Config
from sam_jax.types import Params

# How torch.save wrote files before version 1.6: a pickled magic number comes first.
_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_LFS_POINTER = b"version https://git-lfs"
_WRAPPERS = ("model", "state_dict")
_MAX_CONFIG_BYTES = 1 << 20


def convert_checkpoint(
    source: str | os.PathLike,
    destination: str | os.PathLike,
    *,
    config: ModelConfig | None = None,
    dtype: Any = np.float32,
    overwrite: bool = False,
) -> CheckpointInfo:
    """Converts an official `.pth` or a Hugging Face `.safetensors` file to a native checkpoint.

    Args:
      source: the file; see `read_source`.
      destination: the directory to make.
      config: the architecture, where it is not to be told from the file.
      dtype: type on disk, see `save_checkpoint`.
      overwrite: replace a checkpoint that is at the destination.

    Returns:
      What the new checkpoint says about itself; its source holds file, bytes, sha256 and naming.

    Raises:
      CheckpointError: the source cannot be used, or the destination is taken.
    """
    check_destination(destination, overwrite=overwrite)
    path = _source_file(source)
    config, variables, naming, sha256 = read_source(path, config)
    origin = {
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": sha256,
        "naming": naming,
    }
    try:
        return save_checkpoint(
            destination, config, variables, origin, dtype=dtype, overwrite=overwrite
        )
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def export_checkpoint(source: str | os.PathLike, destination: str | os.PathLike) -> CheckpointInfo:
    """Writes a native checkpoint as a `.pth` file that the original code loads, in float32.

    Args:
      source: a checkpoint directory.
      destination: the file to write; one that is there is not replaced.

    Returns:
      What the checkpoint says about itself.

    Raises:
      CheckpointError: there is no usable checkpoint, or the destination is taken or not writable.
    """
    destination = Path(destination)
    if os.path.lexists(destination):
        raise CheckpointError(
            f"{destination} exists already; remove it or choose another destination"
        )
    checkpoint = load_checkpoint(source)
    tensors = to_state_dict(checkpoint.config, checkpoint.params)
    family = family_of(checkpoint.config).name
    record = {
        "family": family,
        "config": config_to_json(checkpoint.config),
        "fingerprint": checkpoint.fingerprint,
    }
    # As each original's loader expects it.
    wrapper = "model" if family == "sam2" else None
    try:
        write_torch_file(destination, tensors, json.dumps(record).encode(), wrapper)
    except OSError as error:
        reason = error.strerror or error
        raise CheckpointError(f"cannot write {destination}: {reason}") from error
    return CheckpointInfo(
        checkpoint.config, checkpoint.source, checkpoint.fingerprint, checkpoint.generate
    )


def read_source(
    path: str | os.PathLike, config: ModelConfig | None = None
) -> tuple[ModelConfig, Params, str, str]:
    """Reads a PyTorch file of a SAM or SAM 2 model, whole and strictly.

    Takes zip-format `.pth` and `.pt` files with a state dict, bare or under "model" or
    "state_dict", and `.safetensors` files, each in the original's or in Hugging Face's naming; or a
    directory with a `model.safetensors`.

    Args:
      path: the file or directory.
      config: the architecture; by default the file's own, where `export_checkpoint` wrote it, and
        else told from names and shapes (`convert.variants`).

    Returns:
      The configuration, the variables for its model (float32, on the host), the naming
      ("official" or "huggingface") and the file's SHA-256 in hexadecimal.

    Raises:
      CheckpointError: the file is damaged, refused, of another family, or its tensors are not the
        model's; then everything missing, unexpected and misshapen is listed.
    """
    path = _source_file(path)
    sha256 = _sha256(path)
    tensors, record, _ = _read_file(path)
    try:
        of_sam2 = sam2.is_sam2(tensors)
        naming = detect_sam2_naming(tensors) if of_sam2 else sam.detect_naming(tensors)
        if config is None:
            config = _recorded_config(record)
        if config is None and of_sam2:
            config = infer_sam2_config({n: tensor.shape for n, tensor in tensors.items()}, naming)
        if config is None:
            heads = _huggingface_heads(path) if naming == HUGGING_FACE else None
            shapes = {name: tensor.shape for name, tensor in tensors.items()}
            config = infer_config(shapes, naming, heads)
        variables = from_state_dict(config, tensors, naming)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return config, variables, naming, sha256


def from_state_dict(
    config: ModelConfig, tensors: Mapping[str, np.ndarray], naming: str = OFFICIAL
) -> Params:
    """Variables for the configuration's model, float32, from a PyTorch state dict; strict.

    Raises:
      CheckpointError: lists everything missing, unexpected and misshapen.
    """
    title = f"the tensors ({naming} names) are not those of the model {config.name!r}:"
    if isinstance(config, Sam2Config) and naming == HUGGING_FACE:
        tensors = sam2.points_apart(tensors)
    flat = to_native(title, _entries(config), naming, tensors, flat_shapes(config))
    return unflatten_dict(flat, sep="/")


def to_state_dict(
    config: ModelConfig, variables: Params, naming: str = OFFICIAL
) -> dict[str, np.ndarray]:
    """A PyTorch model's state dict, as NumPy arrays, from variables for its configuration."""
    flat = {name: np.asarray(array) for name, array in flatten_dict(variables, sep="/").items()}
    tensors = to_torch(_entries(config), naming, flat)
    whole = isinstance(config, Sam2Config) and naming == HUGGING_FACE
    return sam2.points_together(tensors) if whole else tensors


def _entries(config: ModelConfig) -> list[Entry]:
    return sam2.entries(config) if isinstance(config, Sam2Config) else sam.entries(config)


def read_tensors(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], bool]:
    """The tensors of a PyTorch file by name, and whether `torch.load` reads it too.

    Raises:
      CheckpointError: as `read_source`, but for which tensors there are.
    """
    tensors, _, is_torch = _read_file(_source_file(path))
    return tensors, is_torch


def _source_file(path: str | os.PathLike) -> Path:
    path = Path(path)
    if path.is_dir():
        if not (path / "model.safetensors").is_file():
            raise CheckpointError(
                f"{path} is a directory without a model.safetensors; give a .pth, .pt or "
                ".safetensors file"
            )
        return path / "model.safetensors"
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    return path


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error


def _read_file(path: Path) -> tuple[dict[str, np.ndarray], bytes | None, bool]:
    """The state dict of a file, our record in it, and whether it is PyTorch's own format.

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
        value, record = read_torch_file(path)
        return _state_dict(path, value), record, True
    if start.startswith(_LEGACY_MAGIC):
        raise CheckpointError(
            f"{path} is in PyTorch's old format; load it with torch.load and save it again with "
            "torch.save, in PyTorch 1.6 or later"
        )
    if start.startswith(_LFS_POINTER):
        raise CheckpointError(f"{path} is a Git LFS pointer, not the file; run `git lfs pull`")
    if start[8:9] == b"{":
        return read_safetensors_file(path), None, False
    raise CheckpointError(
        f"{path} is neither a zip-format PyTorch file (.pth, .pt) nor a .safetensors file; "
        "it may be damaged, so get it again"
    )


def _state_dict(path: Path, value: Any) -> dict[str, np.ndarray]:
    for wrapper in _WRAPPERS:
        if isinstance(value, dict) and isinstance(value.get(wrapper), dict):
            value = value[wrapper]
            break
    if not isinstance(value, dict) or not value:
        raise CheckpointError(f"{path} holds no state dict")
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, np.ndarray):
            raise CheckpointError(
                f"{path} holds no state dict: the value of {str(name)[:200]!r} is no tensor"
            )
    return value


def _recorded_config(record: bytes | None) -> ModelConfig | None:
    if record is None:
        return None
    try:
        values = json.loads(record)
        if not isinstance(values, dict):
            raise ValueError("no JSON object")
        family = family_named(values.get("family", "sam"))
        config = config_from_json(values.get("config"), family.config)
        family.check(config)
    except (ValueError, OverflowError, RecursionError, TypeError) as error:
        reason = str(error).split("\n")[0][:300]
        raise CheckpointError(f"its recorded configuration is damaged: {reason}") from error
    return config


def _huggingface_heads(path: Path) -> int | None:
    """The decoder's number of heads, from the config.json beside the file, where there is one."""
    beside = path.with_name("config.json")
    try:
        if not beside.is_file() or beside.stat().st_size > _MAX_CONFIG_BYTES:
            return None
        values = json.loads(beside.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{beside} is damaged; get it again or remove it") from error
    decoder = values.get("mask_decoder_config") if isinstance(values, dict) else None
    heads = decoder.get("num_attention_heads") if isinstance(decoder, dict) else None
    return heads if type(heads) is int and heads > 0 else None
