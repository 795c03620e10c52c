"""Native checkpoints: a directory with config.json and the parameters written by Orbax.

    config.json   format version, model family, configuration, source, fingerprint, file checksums
    params/       an Orbax tree, {"params": ..., "constants": ...}

Loading trusts nothing: files must have their checksums before Orbax sees them, the tree's names,
shapes and types are compared with the model before an array is read, and the fingerprint of what
was read must be the one that was written.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict

from sam_jax.checkpoints.registry import checkpoint_path
from sam_jax.checkpoints.weight_files import (
    convert_command,
    is_torch_content,
    is_torch_name,
    weights_in,
)
from sam_jax.configs import config_from_json, config_to_json
from sam_jax.errors import CheckpointError
from sam_jax.files import directory_checksums
from sam_jax.forks import refuse_forked
from sam_jax.models.families import Model, ModelConfig, build_model, family_named, family_of
from sam_jax.one_line import one_line
from sam_jax.types import Params, compute_dtype

FORMAT_VERSION = 1

_STORED_DTYPES = tuple(np.dtype(kind) for kind in (jnp.float32, jnp.bfloat16, jnp.float16))
_MAX_CONFIG_BYTES = 1 << 20
# Weights hardly compress: directories that claim far more than they hold are damaged or hostile.
# Chunks that are missing would read as zeros.
_MAX_EXPANSION = 100
_UNCHECKED_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class CheckpointInfo:
    """What a checkpoint says about itself.

    Attributes:
      config: the architecture.
      source: where the parameters came from (file, sha256, ...), or None.
      fingerprint: of configuration and parameters.
      generate: options of automatic mask generation that suit these parameters, by name; where it
        is empty, the original's defaults do.
    """

    config: ModelConfig
    source: dict[str, Any] | None
    fingerprint: str
    generate: Mapping[str, float]

    __repr__ = one_line


@dataclass(frozen=True, eq=False)
class Checkpoint(CheckpointInfo):
    """A loaded checkpoint.

    Attributes:
      params: Flax variables for the model: nested dicts of float32 NumPy arrays.
    """

    params: Params

    __repr__ = one_line


def load_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """The configuration and parameters of a native checkpoint, on the host.

    Args:
      path: a name ("tiny", "vit_b") or a checkpoint directory, as for `Segmenter.load`; names come
        first, and "./tiny" is always a directory.

    Raises:
      CheckpointError: there is none, it is damaged, of another family or format, or its entries
        are not the model's; then every missing, unexpected and wrong entry is listed.
    """
    path = checkpoint_path(path)
    refuse_forked()
    record = _read_record(path)
    info = _info(path, record)
    _check_files(path, record.get("files"))
    flat = _read_arrays(path, flat_shapes(info.config))
    if _fingerprint(info.config, flat) != info.fingerprint:
        raise CheckpointError(
            f"{path} is damaged: its values are not those that were saved; get or convert it again"
        )
    params = unflatten_dict(flat, sep="/")
    return Checkpoint(**vars(info), params=params)


def load_params(path: str | os.PathLike) -> Params:
    """The parameters of a checkpoint, by name or directory, for `model.apply`.

    Nested dicts of float32 NumPy arrays; see `load_checkpoint` for names and errors.
    """
    return load_checkpoint(path).params


def load_model(path: str | os.PathLike, dtype: Any = jnp.float32) -> tuple[Model, Params]:
    """The model of a checkpoint and its parameters, for `model.apply`.

    Args:
      path: a name or a directory, as for `load_checkpoint`.
      dtype: compute type, float32 or bfloat16; a name ("bf16") or a type of NumPy's, JAX's or
        PyTorch's.

    Raises:
      CheckpointError: as `load_checkpoint`.
      InputError: the type is another.
    """
    dtype = compute_dtype(dtype)
    checkpoint = load_checkpoint(path)
    return build_model(checkpoint.config, dtype), checkpoint.params


def save_checkpoint(
    path: str | os.PathLike,
    config: ModelConfig,
    params: Params,
    source: dict[str, Any] | None = None,
    *,
    dtype: Any = jnp.float32,
    overwrite: bool = False,
    generate: Mapping[str, float] | None = None,
) -> CheckpointInfo:
    """Writes a native checkpoint: whole under its final name, or not at all.

    Args:
      path: the directory to make.
      config: the architecture.
      params: variables for it.
      source: JSON values that say where they came from.
      dtype: type on disk, float32, bfloat16 or float16; loading gives float32 again.
      overwrite: replace a checkpoint that is there already. Anything else is never replaced.
      generate: options of automatic mask generation that suit the parameters, such as
        `pred_iou_thresh`.

    Raises:
      CheckpointError: the parameters are not the model's or not finite, something else is at
        `path`, or it cannot be written to.
    """
    path = Path(path)
    check_destination(path, overwrite=overwrite)
    stored_dtype = np.dtype(dtype)
    if stored_dtype not in _STORED_DTYPES:
        raise CheckpointError(
            f"a checkpoint is stored as float32, bfloat16 or float16, not {stored_dtype}"
        )
    family_of(config).check(config)
    check_params(config, params)
    flat = {name: np.asarray(value) for name, value in flatten_dict(params, sep="/").items()}
    with np.errstate(over="ignore"):  # what overflows is reported below
        flat = {name: value.astype(stored_dtype, copy=False) for name, value in flat.items()}
    broken = [f"not finite: {n}" for n, v in flat.items() if not np.isfinite(v).all()]
    if broken:
        raise CheckpointError("\n  ".join([f"not saved, as {stored_dtype}:", *broken]))
    info = CheckpointInfo(config, source, _fingerprint(config, flat), dict(generate or {}))
    record = {
        "format_version": FORMAT_VERSION,
        "family": family_of(config).name,
        "config": config_to_json(config),
        "source": source,
        "fingerprint": info.fingerprint,
        "generate": info.generate,
    }
    with directory_written_aside(path) as directory:
        with _writer() as writer:
            writer.save(directory / "params", unflatten_dict(flat, sep="/"))
        # Orbax notes there which path it wrote to: a file's maker is nobody else's business.
        (directory / "params" / "commit_success.txt").unlink(missing_ok=True)
        record["files"] = directory_checksums(directory / "params")
        (directory / "config.json").write_text(json.dumps(record, indent=2) + "\n")
    return info


def _writer() -> ocp.Checkpointer:
    """Of this process alone: where several train together, one writes and none waits for it."""
    this = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"process_{this}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def read_info(path: str | os.PathLike) -> CheckpointInfo:
    """What a checkpoint, by name or directory, says about itself; reads no parameters.

    Raises:
      CheckpointError: as `load_checkpoint`, but for the parameters.
    """
    path = checkpoint_path(path)
    return _info(path, _read_record(path))


def fingerprint(config: ModelConfig, params: Params) -> str:
    """SHA-256, in hexadecimal, of a configuration and every parameter's name, shape and values.

    Values count as float32, so that it does not matter how they are stored or where they are.
    """
    return _fingerprint(config, flatten_dict(params, sep="/"))


@lru_cache(maxsize=8)
def flat_shapes(config: ModelConfig) -> Mapping[str, Any]:
    """The shapes of all variables of the model, by path: "params/mask_decoder/iou_token"."""
    return MappingProxyType(flatten_dict(family_of(config).variable_shapes(config), sep="/"))


def check_destination(path: str | os.PathLike, *, overwrite: bool = False) -> None:
    """Refuses to write a checkpoint over anything else; to be asked before long work.

    Raises:
      CheckpointError: there is a file, a directory with other things in it, or, unless
        `overwrite`, a checkpoint.
    """
    path = Path(path)
    try:
        if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
            return
    except OSError as error:
        raise CheckpointError(f"cannot write a checkpoint to {path}: {error.strerror}") from None
    if not (path.is_dir() and (path / "config.json").is_file() and (path / "params").is_dir()):
        raise CheckpointError(f"{path} exists and is no checkpoint; choose another destination")
    if not overwrite:
        raise CheckpointError(f"{path} exists already; remove it or choose another destination")


def mismatch_report(
    title: str, missing: Iterable[str], unexpected: Iterable[str], wrong: Iterable[str]
) -> str:
    """One text that lists everything that does not fit, a line each; empty where all fits."""
    lines = [f"  missing: {name}" for name in missing]
    lines += [f"  unexpected: {name}" for name in unexpected]
    lines += [f"  {line}" for line in wrong]
    return "\n".join([title, *lines]) if lines else ""


def _info(path: Path, record: dict[str, Any]) -> CheckpointInfo:
    where = path / "config.json"
    version, family = record.get("format_version"), record.get("family")
    if type(version) is not int or version != FORMAT_VERSION:
        if type(version) is int and version > FORMAT_VERSION:
            raise CheckpointError(
                f"{path} has format version {version}, newer than this sam_jax reads "
                f"({FORMAT_VERSION}); upgrade sam_jax"
            )
        raise CheckpointError(f"{where} has no valid format_version")
    try:
        kind = family_named(family)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    try:
        config = config_from_json(record.get("config"), kind.config)
        kind.check(config)
    # Beside our own errors: numbers and nesting beyond all bounds, lists of the wrong length.
    except (ValueError, OverflowError, RecursionError, TypeError) as error:
        raise CheckpointError(f"{where} is damaged: {_first_line(error)[:300]}") from None
    source, fingerprint_ = record.get("source"), record.get("fingerprint")
    if not isinstance(source, dict | None) or not isinstance(fingerprint_, str):
        raise CheckpointError(f"{where} is damaged: source or fingerprint is missing or no text")
    generate = record.get("generate") or {}
    if not isinstance(generate, dict) or not all(
        isinstance(value, int | float) for value in generate.values()
    ):
        raise CheckpointError(f"{where} is damaged: generate is no table of numbers")
    return CheckpointInfo(config, source, fingerprint_, generate)


def check_params(config: ModelConfig, params: Params) -> None:
    """Refuses parameters that are not those of a configuration; looks at no value.

    Raises:
      CheckpointError: lists every missing, unexpected, misshapen and mistyped entry.
    """
    found = {
        name: (np.shape(leaf), np.dtype(jnp.result_type(leaf)))
        for name, leaf in flatten_dict(params, sep="/").items()
    }
    _check_entries("the parameters are not those of the configuration:", found, flat_shapes(config))


def _check_entries(
    title: str,
    found: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    expected: Mapping[str, Any],
) -> None:
    """Compares names, shapes and types with the model's, and lists whatever differs."""
    wrong = []
    for name in sorted(expected.keys() & found.keys()):
        shape, dtype = found[name]
        if shape != expected[name].shape:
            wrong.append(f"wrong shape: {name} is {shape}, not {expected[name].shape}")
        if dtype not in _STORED_DTYPES:
            wrong.append(f"wrong type: {name} is {dtype}, not float32, bfloat16 or float16")
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    report = mismatch_report(title, missing, unexpected, wrong)
    if report:
        raise CheckpointError(report)


def _fingerprint(config: ModelConfig, flat: Mapping[str, Any]) -> str:
    def leaf_digest(name: str) -> bytes:
        values = np.ascontiguousarray(np.asarray(flat[name]), dtype="<f4")
        return hashlib.sha256(values.reshape(-1).view(np.uint8).data).digest()

    names = sorted(flat)
    # Hashing releases the interpreter's lock: one leaf a thread.
    with ThreadPoolExecutor() as threads:
        digests = list(threads.map(leaf_digest, names))
    total = hashlib.sha256(json.dumps(config_to_json(config), sort_keys=True).encode())
    for name, digest in zip(names, digests, strict=True):
        total.update(f"\n{name} {list(np.shape(flat[name]))} ".encode() + digest)
    return total.hexdigest()


def _read_record(path: Path) -> dict[str, Any]:
    """The content of config.json, a JSON object of some kind."""
    if path.is_file() and (is_torch_name(path) or _starts_as_torch(path)):
        raise CheckpointError(
            f"{path} is a PyTorch file; run `{convert_command(path)}` and use that"
        )
    if not os.path.lexists(path):
        raise CheckpointError(f"there is no checkpoint at {path}")
    if not path.is_dir():
        raise CheckpointError(f"{path} is a file; a checkpoint is a directory with config.json")
    where = path / "config.json"
    try:
        with open(where, "rb") as file:
            text = file.read(_MAX_CONFIG_BYTES + 1)
        if len(text) > _MAX_CONFIG_BYTES:
            raise ValueError("it is too large")
        record = json.loads(text)
        if not isinstance(record, dict):
            raise ValueError("it is no JSON object")
    except FileNotFoundError:
        holds = [f"; run `{convert_command(one)}` and use that" for one in weights_in(path)[:1]]
        raise CheckpointError(
            f"{path} is no checkpoint: it has no config.json{''.join(holds)}"
        ) from None
    except OSError as error:
        raise CheckpointError(f"cannot read {where}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where} is damaged: {_first_line(error)}") from None
    if "adapter_of" in record:
        raise CheckpointError(
            f"{path} is an adapter; run `sam-jax merge CHECKPOINT {path} DESTINATION` with the "
            "model that was tuned, and use that"
        )
    weights = weights_in(path)
    if "format_version" not in record and weights:
        raise CheckpointError(
            f"{path} is a Hugging Face model; run `{convert_command(weights[0])}` and use that"
        )
    return record


def _starts_as_torch(path: Path) -> bool:
    try:
        return is_torch_content(path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None


def _check_files(path: Path, written: Any) -> None:
    """Finds damaged files before Orbax does, which goes on in the background after it failed."""
    directory = path / "params"
    if not directory.is_dir():
        raise CheckpointError(f"{path} is no checkpoint: it has no params directory")
    if not isinstance(written, dict):
        raise CheckpointError(f"{path / 'config.json'} is damaged: it has no list of files")
    try:
        found = directory_checksums(directory)
    except OSError as error:
        raise CheckpointError(f"cannot read {directory}: {error.strerror or error}") from error
    for name, checksum in written.items():
        if found.get(name) != checksum:
            what = "damaged" if name in found else "missing"
            raise CheckpointError(
                f"{path}: its file params/{name[:200]} is {what}; get or convert it again"
            )


def _read_arrays(path: Path, shapes: Mapping[str, Any]) -> dict[str, Any]:
    """Every array of params/ as float32, by its path in the tree."""
    directory = (path / "params").absolute()
    # Orbax and TensorStore raise whatever they meet in a damaged file: no list of types is whole.
    try:
        # Of several processes of one program, each reads for itself: none waits for the others.
        this = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(primary_host=this, active_processes={this})
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
            metadata = flatten_dict(reader.metadata(directory).item_metadata.tree, sep="/")
            _check_metadata(path, directory, metadata, shapes)
            restore = unflatten_dict(
                {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in shapes}, sep="/"
            )
            tree = reader.restore(directory, args=ocp.args.PyTreeRestore(restore_args=restore))
        flat = flatten_dict(tree, sep="/")
        for name, expected in shapes.items():
            if flat[name].shape != expected.shape:
                raise ValueError(f"{name} was read as {flat[name].shape}")
        return {name: np.asarray(flat[name], np.float32) for name in shapes}
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"the parameters of {path} are damaged ({type(error).__name__}: "
            f"{_first_line(error)[:200]}); get or convert it again"
        ) from error


def _check_metadata(
    path: Path, directory: Path, metadata: Mapping[str, Any], shapes: Mapping[str, Any]
) -> None:
    found = {name: (tuple(leaf.shape), np.dtype(leaf.dtype)) for name, leaf in metadata.items()}
    _check_entries(f"{path} does not hold the parameters of its configuration:", found, shapes)
    claimed = 0
    for name, leaf in metadata.items():
        count, chunk = np.prod(leaf.shape, dtype=object), leaf.storage.chunk_shape
        if np.prod(chunk, dtype=object) > max(count, 1):
            raise ValueError(f"{name} has chunks larger than itself")
        claimed += int(count) * np.dtype(leaf.dtype).itemsize
    held = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
    if claimed > max(_UNCHECKED_BYTES, _MAX_EXPANSION * held):
        raise ValueError(f"{held} bytes cannot hold parameters of {claimed} bytes")


@contextmanager
def directory_written_aside(path: Path) -> Iterator[Path]:
    """A directory to fill; it takes the name `path` only when the block ends without an error.

    A directory that has the name already is replaced.

    Raises:
      CheckpointError: it cannot be written.
    """
    path = path.absolute()
    token = secrets.token_hex(8)
    aside = path.with_name(f".{path.name[:100]}.{token}.part")
    before = path.with_name(f".{path.name[:100]}.{token}.old")
    try:
        aside.mkdir(parents=True)
        yield aside
        if os.path.lexists(path):
            path.rename(before)
        try:
            aside.rename(path)
        except BaseException:
            if os.path.lexists(before):
                before.rename(path)
            raise
        shutil.rmtree(before, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]
