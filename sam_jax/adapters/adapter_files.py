"""Adapters: what fine-tuning changed in a model, without the model.

    config.json   format version, fingerprint of the base model, LoRA options, file checksums,
                  and a checksum of all that
    arrays.npz    parameters that were trained whole, and low-rank updates, by path

An adapter belongs to the parameters that it was trained on; others refuse it.
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from sam_jax.adapters.lora import DOWN, LoraOptions, lora_shapes, merge_lora
from sam_jax.checkpoints.native import (
    Checkpoint,
    CheckpointInfo,
    directory_written_aside,
    load_checkpoint,
    save_checkpoint,
)
from sam_jax.errors import CheckpointError
from sam_jax.files import directory_checksums
from sam_jax.types import Params

FORMAT_VERSION = 1
_ARRAYS = "arrays.npz"
_MAX_CONFIG_BYTES = 1 << 20


def save_adapter(
    path: str | os.PathLike,
    base_fingerprint: str,
    trained: Params,
    lora: Params | None = None,
    options: LoraOptions | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Writes an adapter: whole under its final name, or not at all.

    Args:
      path: the directory to make.
      base_fingerprint: of the checkpoint that was tuned.
      trained: the part of its "params" that was trained whole, as they are now; may be empty.
      lora: low-rank updates, from `lora.init_lora` and trained.
      options: of the updates.
      overwrite: replace an adapter that is there already. Anything else is never replaced.

    Raises:
      CheckpointError: something else is at `path`, it cannot be written to, or a value is not
        finite.
    """
    if (lora is None) != (options is None):
        raise ValueError("lora and options come together")
    path = Path(path)
    _check_destination(path, overwrite)
    tree = {"params": trained} | ({"lora": lora} if lora else {})
    flat = {name: np.asarray(x, np.float32) for name, x in flatten_dict(tree, sep="/").items()}
    broken = [name for name, values in flat.items() if not np.isfinite(values).all()]
    if broken:
        raise CheckpointError(f"not saved: {broken[0]} is not finite")
    record = {
        "format_version": FORMAT_VERSION,
        "adapter_of": base_fingerprint,
        "lora": dataclasses.asdict(options) if options else None,
    }
    with directory_written_aside(path) as directory:
        with open(directory / _ARRAYS, "wb") as file:
            np.savez(file, **flat)  # type: ignore[arg-type]
        record["files"] = directory_checksums(directory)
        record["checksum"] = _checksum(record)
        (directory / "config.json").write_text(json.dumps(record, indent=2) + "\n")


def load_adapter(path: str | os.PathLike, base: Checkpoint) -> Params:
    """Variables of the base model with an adapter merged into them.

    Args:
      path: the adapter's directory.
      base: the checkpoint that it was trained on.

    Raises:
      CheckpointError: there is none, it is damaged, or it belongs to another model.
    """
    path = Path(path)
    record = _read_record(path)
    if record["adapter_of"] != base.fingerprint:
        raise CheckpointError(
            f"{path} is an adapter of the model with fingerprint {record['adapter_of'][:16]}, not "
            f"of {base.config.name} with {base.fingerprint[:16]}; give the model that was tuned"
        )
    options = _lora_options(path, record["lora"])
    flat = _read_arrays(path, record["files"])
    params = flatten_dict(base.params["params"], sep="/")
    _check_arrays(path, flat, params, options)
    for name, values in flat.items():
        kind, name = name.split("/", 1)
        if kind == "params":
            params[name] = values
    merged = unflatten_dict(params, sep="/")
    if options is not None:
        lora = {k.removeprefix("lora/"): v for k, v in flat.items() if k.startswith("lora/")}
        merged = merge_lora(merged, unflatten_dict(lora, sep="/"), options)
    return {**base.params, "params": jax.tree.map(np.asarray, merged)}


def merge_adapter(
    base: str | os.PathLike,
    adapter: str | os.PathLike,
    destination: str | os.PathLike,
    *,
    overwrite: bool = False,
) -> CheckpointInfo:
    """Writes a checkpoint of the base model with an adapter merged into it.

    Args:
      base: the checkpoint that the adapter was trained on, a name or a directory.
      adapter: the adapter's directory.
      destination: the directory to make, as `save_checkpoint`.
      overwrite: replace a checkpoint that is there already.

    Raises:
      CheckpointError: as `load_adapter` and `save_checkpoint`.
    """
    checkpoint = load_checkpoint(base)
    params = load_adapter(adapter, checkpoint)
    source = {"merged_with": "an adapter", "base_fingerprint": checkpoint.fingerprint}
    return save_checkpoint(
        destination,
        checkpoint.config,
        params,
        source,
        overwrite=overwrite,
        generate=checkpoint.generate,
    )


def _check_destination(path: Path, overwrite: bool) -> None:
    if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / _ARRAYS).is_file() or not (path / "config.json").is_file():
        raise CheckpointError(f"{path} exists and is no adapter; choose another destination")
    if not overwrite:
        raise CheckpointError(f"{path} exists already; remove it or choose another destination")


def _checksum(record: Mapping[str, Any]) -> str:
    """Of everything in a config.json but this."""
    rest = {name: value for name, value in record.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _read_record(path: Path) -> dict[str, Any]:
    where = path / "config.json"
    try:
        with open(where, "rb") as file:
            record = json.loads(file.read(_MAX_CONFIG_BYTES))
    except FileNotFoundError:
        raise CheckpointError(f"there is no adapter at {path}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {where}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where} is damaged: {error}") from None
    if not isinstance(record, dict) or not isinstance(record.get("adapter_of"), str):
        raise CheckpointError(f"{path} is no adapter: {where} names no model that it is for")
    if record.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {record.get('format_version')!r}; this sam_jax reads "
            f"{FORMAT_VERSION}"
        )
    if not isinstance(record.get("files"), dict) or "lora" not in record:
        raise CheckpointError(f"{where} is damaged: files or lora is missing")
    # A changed rank or alpha would merge into another model without a word.
    if record.get("checksum") != _checksum(record):
        raise CheckpointError(f"{where} is damaged or was changed; get it again")
    return record


def _lora_options(path: Path, values: Any) -> LoraOptions | None:
    if values is None:
        return None
    try:
        options = LoraOptions(
            int(values["rank"]),
            float(values["alpha"]),
            tuple(values["targets"]),
            tuple(values["patterns"]),
        )
        if (
            options.rank < 1
            or not 0 < options.alpha < math.inf
            or not options.targets
            or set(options.targets) - set("qkv")
        ):
            raise ValueError(
                f"rank {options.rank}, alpha {options.alpha}, targets {options.targets}"
            )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path / 'config.json'} is damaged: lora: {error}") from None
    return options


def _read_arrays(path: Path, checksums: Mapping[str, Any]) -> dict[str, np.ndarray]:
    where = path / _ARRAYS
    try:
        found = directory_checksums(path).get(_ARRAYS)
        if found is None:
            raise CheckpointError(f"{path} is damaged: it has no {_ARRAYS}; get it again")
        if found != checksums.get(_ARRAYS):
            raise CheckpointError(f"{where} is damaged; get it again")
        with np.load(where, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except CheckpointError:
        raise
    # zipfile and NumPy raise a dozen unrelated types for a damaged file.
    except Exception as error:
        raise CheckpointError(f"{where} cannot be read ({error}); get it again") from None


def _check_arrays(
    path: Path,
    flat: Mapping[str, np.ndarray],
    params: Mapping[str, Any],
    options: LoraOptions | None,
) -> None:
    """Refuses arrays that are not parameters of the model or updates of its kernels."""
    expected: dict[str, tuple[int, ...]] = {}
    for name, leaf in params.items():
        expected[f"params/{name}"] = leaf.shape
        if options is not None and f"lora/{name}/{DOWN}" in flat:
            for part, shape in lora_shapes(name, leaf.shape, options).items():
                expected[f"lora/{name}/{part}"] = shape
    for name, values in flat.items():
        if values.dtype != np.float32 or values.shape != expected.get(name):
            raise CheckpointError(
                f"{path} does not fit the model: {name[:200]} is {values.dtype} {values.shape}, "
                f"expected is {expected.get(name, 'no such entry')}"
            )
        if not np.isfinite(values).all():
            raise CheckpointError(f"{path} is damaged: {name} is not finite")
    incomplete = [name for name in expected if name.startswith("lora/") and name not in flat]
    if incomplete:
        raise CheckpointError(f"{path} does not fit the model: {incomplete[0]} is missing")
