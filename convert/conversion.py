"""PyTorch files to native checkpoints, and native checkpoints to PyTorch files."""

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from convert.families import conversion_of, conversion_of_tensors
from convert.files.restricted_pickle import Placeholder
from convert.files.source_files import SourceFiles, find_source, read_values
from convert.files.state_dicts import StateDict, find_state_dict
from convert.files.torch_files import write_torch_file
from convert.relatives import describe_class, describe_relative
from convert.tables import HUGGING_FACE, OFFICIAL, to_native, to_torch
from sam_jax.checkpoints.native import (
    CheckpointInfo,
    check_destination,
    flat_shapes,
    load_checkpoint,
    save_checkpoint,
)
from sam_jax.configs import config_from_json, config_to_json
from sam_jax.errors import CheckpointError
from sam_jax.models.families import ModelConfig, family_named, family_of
from sam_jax.types import Params

_SHOWN = 3


@dataclass(frozen=True, eq=False)
class LoadedSource:
    """A model that was read from PyTorch weights.

    Attributes:
      config: the architecture.
      variables: for its model, float32, on the host.
      naming: "official" or "huggingface".
      sha256: of the file, in hexadecimal; of several, see `SourceFiles.sha256`.
      files: it was read from.
      state_dict: where in them it stood, and what else there was.
    """

    config: ModelConfig
    variables: Params
    naming: str
    sha256: str
    files: SourceFiles
    state_dict: StateDict

    def origin(self) -> dict[str, Any]:
        """What a checkpoint records of it."""
        record = {
            "file": self.files.path.name,
            "bytes": self.files.num_bytes(),
            "sha256": self.sha256,
            "naming": self.naming,
        }
        return record | ({"state_dict": self.state_dict.place} if self.state_dict.place else {})


def convert_checkpoint(
    source: str | os.PathLike,
    destination: str | os.PathLike,
    *,
    config: ModelConfig | None = None,
    dtype: Any = np.float32,
    overwrite: bool = False,
    state_dict: str | None = None,
) -> CheckpointInfo:
    """Converts an official `.pth` or a Hugging Face `.safetensors` file to a native checkpoint.

    Args:
      source: the file or directory; see `read_source`.
      destination: the directory to make.
      config: the architecture, where it is not to be told from the file.
      dtype: type on disk, see `save_checkpoint`.
      overwrite: replace a checkpoint that is at the destination.
      state_dict: which model to take of several in the file; see `read_source`.

    Returns:
      What the new checkpoint says about itself; its source holds file, bytes, sha256, naming and,
      where the weights stood under keys or a prefix, these as state_dict.

    Raises:
      CheckpointError: the source cannot be used, or the destination is taken.
    """
    check_destination(destination, overwrite=overwrite)
    loaded = load_source(source, config, state_dict)
    try:
        return save_checkpoint(
            destination,
            loaded.config,
            loaded.variables,
            loaded.origin(),
            dtype=dtype,
            overwrite=overwrite,
        )
    except CheckpointError as error:
        raise CheckpointError(f"{loaded.files.path}: {error}") from error


def export_checkpoint(source: str | os.PathLike, destination: str | os.PathLike) -> CheckpointInfo:
    """Writes a native checkpoint as a `.pth` file that the original code loads, in float32.

    Args:
      source: a checkpoint, by name or directory.
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
    path: str | os.PathLike, config: ModelConfig | None = None, state_dict: str | None = None
) -> tuple[ModelConfig, Params, str, str]:
    """Reads PyTorch weights of a SAM or SAM 2 model, whole and strictly.

    Takes zip-format `.pth`, `.pt` and `.bin` files and `.safetensors` files, each in the original's
    or in Hugging Face's naming; sharded weights by their index or by one part; or a directory that
    holds one of these. The keys and prefixes that training code puts around a state dict are seen
    through (`convert.files.state_dicts`); where a file holds several models, averaged weights are
    preferred, and a warning names what was taken.

    Args:
      path: the file or directory.
      config: the architecture; by default the file's own, where `export_checkpoint` wrote it, and
        else told from names and shapes (`convert.sam.variants`).
      state_dict: which model to take of several in the file, such as "model" or "teacher.*".

    Returns:
      The configuration, the variables for its model (float32, on the host), the naming
      ("official" or "huggingface") and the file's SHA-256 in hexadecimal.

    Raises:
      CheckpointError: the file is damaged, refused, of another family or a relative that is not
        read, its values are not finite, or its tensors are not the model's; then everything
        missing, unexpected and misshapen is listed.
    """
    loaded = load_source(path, config, state_dict)
    return loaded.config, loaded.variables, loaded.naming, loaded.sha256


def load_source(
    path: str | os.PathLike, config: ModelConfig | None = None, state_dict: str | None = None
) -> LoadedSource:
    """As `read_source`, with all that is known of where the model came from."""
    files = find_source(path)
    sha256 = files.sha256()
    found, record, _ = _read(files, state_dict)
    tensors = found.tensors
    try:
        relative = describe_relative(tensors)
        if relative is not None:
            raise CheckpointError(relative)
        conversion = conversion_of_tensors(tensors)
        naming = conversion.detect_naming(tensors)
        config = config or _recorded_config(record)
        if config is None:
            shapes = {name: tensor.shape for name, tensor in tensors.items()}
            config = conversion.infer_config(shapes, naming, files.path)
        variables = from_state_dict(config, tensors, naming)
        _check_finite(variables)
    except CheckpointError as error:
        raise CheckpointError(f"{files.path}: {error}") from error
    if found.others:
        warnings.warn(
            f"{files.path} holds several models; {found.place!r} is taken, not "
            f"{', '.join(map(repr, found.others))}; for another: sam-jax convert --state-dict KEY",
            UserWarning,
            stacklevel=1,
        )
    return LoadedSource(config, variables, naming, sha256, files, found)


def from_state_dict(
    config: ModelConfig, tensors: Mapping[str, np.ndarray], naming: str = OFFICIAL
) -> Params:
    """Variables for the configuration's model, float32, from a PyTorch state dict; strict.

    Raises:
      CheckpointError: lists everything missing, unexpected and misshapen.
    """
    title = f"the tensors ({naming} names) are not those of the model {config.name!r}:"
    conversion = conversion_of(config)
    tensors = conversion.from_huggingface(tensors) if naming == HUGGING_FACE else tensors
    flat = to_native(title, conversion.entries(config), naming, tensors, flat_shapes(config))
    return unflatten_dict(flat, sep="/")


def to_state_dict(
    config: ModelConfig, variables: Params, naming: str = OFFICIAL
) -> dict[str, np.ndarray]:
    """A PyTorch model's state dict, as NumPy arrays, from variables for its configuration."""
    flat = {name: np.asarray(array) for name, array in flatten_dict(variables, sep="/").items()}
    conversion = conversion_of(config)
    tensors = to_torch(conversion.entries(config), naming, flat)
    return dict(conversion.to_huggingface(tensors) if naming == HUGGING_FACE else tensors)


def read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of PyTorch weights by name, under wrappers and behind prefixes as they may be.

    Raises:
      CheckpointError: as `read_source`, but for which tensors there are.
    """
    return read_state_dict(path)[0].tensors


def read_state_dict(path: str | os.PathLike, place: str | None = None) -> tuple[StateDict, bool]:
    """The state dict in PyTorch weights, and whether `torch.load` reads the file too.

    Args:
      path: as for `read_source`.
      place: where it stands, if not where `convert.files.state_dicts` finds it.

    Raises:
      CheckpointError: as `read_source`, but for which tensors there are.
    """
    found, _, is_torch = _read(find_source(path), place)
    return found, is_torch


def _read(files: SourceFiles, place: str | None) -> tuple[StateDict, bytes | None, bool]:
    value, record, is_torch = read_values(files)
    try:
        return find_state_dict(value, place), record, is_torch
    except CheckpointError as error:
        kind = describe_class(_class_in(value))
        raise CheckpointError(f"{files.path}: {kind or error}") from error


def _class_in(value: Any) -> str:
    """The class of the first whole object in a file's dictionary."""
    objects = value.values() if isinstance(value, dict) else ()
    return next((one.class_name for one in objects if isinstance(one, Placeholder)), "")


def _check_finite(variables: Params) -> None:
    flat = flatten_dict(variables, sep="/")
    broken = [name for name, values in flat.items() if not np.isfinite(values).all()]
    if broken:
        more = f" and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
        raise CheckpointError(
            f"not finite: {', '.join(broken[:_SHOWN])}{more} ({len(broken)} of {len(flat)} arrays "
            "have NaN or infinite values); the training failed or the file is damaged"
        )


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
