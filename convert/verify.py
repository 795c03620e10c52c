"""Runs the original and our model side by side and compares them after every stage.

Both get the same image and prompts, and each goes on from its own results, so that errors add up as
they do in use.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convert.conversion import read_state_dict, to_state_dict
from convert.families import conversion_of, conversion_of_tensors
from convert.tables import OFFICIAL
from sam_jax.checkpoints.native import Checkpoint, load_checkpoint
from sam_jax.models.families import ModelConfig
from sam_jax.types import Params

# Largest absolute error: of predicted IoU, as it is; of all else, over the reference's deviation.
IOU_BOUND = 1e-4
RELATIVE_BOUND = 2e-4


@dataclass(frozen=True)
class StageError:
    """How far our model is from the original after one stage.

    Attributes:
      stage: its name.
      max_abs: the largest absolute difference.
      reference_std: the standard deviation of the original's values.
      relative: the first over the second.
      bound: what must not be exceeded: by `max_abs` for predicted IoU, by `relative` otherwise.
    """

    stage: str
    max_abs: float
    reference_std: float
    relative: float
    bound: float

    @property
    def passed(self) -> bool:
        """Whether the error is within its bound; never for NaN."""
        return (self.max_abs if _is_iou(self.stage) else self.relative) <= self.bound


def verify(
    source: str | os.PathLike, checkpoint: str | os.PathLike, *, seed: int = 0
) -> list[StageError]:
    """Compares a native checkpoint with the original code, in float32 on the CPU.

    The original loads an official `.pth` itself, with `torch.load`; other files hold names that it
    does not know, and it gets the checkpoint's own values.

    Args:
      source: the file that the checkpoint was converted from (or exported to).
      checkpoint: the native checkpoint's directory.
      seed: of the image and the prompts.

    Returns:
      One error a stage, in the order of computation; `passed` tells which hold.

    Raises:
      InputError: PyTorch or the original is not installed.
      CheckpointError: the source or the checkpoint cannot be used.
    """
    loaded = load_checkpoint(checkpoint)
    config = loaded.config
    original = conversion_of(config).build_original(config)
    _load_weights(original, Path(source), loaded)
    return compare(original, loaded.config, loaded.params, seed=seed)


def compare(
    original: Any, config: ModelConfig, variables: Params, *, seed: int = 0
) -> list[StageError]:
    """Compares our model and the original's, both with their weights; see `verify`."""
    reference, ours = conversion_of(config).stages(original, config, variables, seed)
    errors = []
    for stage, expected in reference.items():
        expected = expected.astype(np.float64)
        difference = ours[stage].reshape(expected.shape) - expected
        max_abs, std = float(np.abs(difference).max()), float(expected.std())
        relative = max_abs / std if std else (math.inf if max_abs else 0.0)
        bound = IOU_BOUND if _is_iou(stage) else RELATIVE_BOUND
        errors.append(StageError(stage, max_abs, std, relative, bound))
    return errors


def format_table(errors: Sequence[StageError]) -> str:
    """The errors as a table for people, one line a stage and a last line with the verdict."""
    width = max([len(error.stage) for error in errors] + [5])
    lines = [f"{'stage':<{width}}  {'max error':>9}  {'std':>9}  {'relative':>9}  {'bound':>7}"]
    for error in errors:
        lines.append(
            f"{error.stage:<{width}}  {error.max_abs:9.2e}  {error.reference_std:9.2e}  "
            f"{error.relative:9.2e}  {error.bound:7.0e}  {'ok' if error.passed else 'FAILED'}"
        )
    failed = sum(not error.passed for error in errors)
    verdict = "all within their bounds" if not failed else f"{failed} beyond their bounds"
    return "\n".join([*lines, f"{len(errors)} stages: {verdict}"])


def _is_iou(stage: str) -> bool:
    return "predicted IoU" in stage


def _load_weights(original: Any, source: Path, loaded: Checkpoint) -> None:
    import torch

    # Our own reader first: it is strict, and nothing reaches PyTorch that it refuses.
    origin = loaded.source or {}
    place = origin.get("state_dict") if origin.get("file") == source.name else None
    found, is_torch = read_state_dict(source, place)
    tensors = found.tensors
    state = None
    if conversion_of_tensors(tensors).detect_naming(tensors) == OFFICIAL:
        plain = is_torch and found.place in ("", "model", "state_dict")
        state = _by_pytorch(source, tensors) if plain else None
        # Behind prefixes that PyTorch's own loading does not see through, or in safetensors.
        state = state or {n: torch.from_numpy(np.array(x, np.float32)) for n, x in tensors.items()}
    else:
        state = {
            name: torch.from_numpy(np.array(array))
            for name, array in to_state_dict(loaded.config, loaded.params).items()
        }
    original.load_state_dict(state, strict=True)


def _by_pytorch(source: Path, tensors: Mapping[str, Any]) -> Any:
    """What `torch.load` reads, or None where that is not a table of exactly these tensors."""
    import pickle

    import torch

    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError):
        return None
    for wrapper in ("model", "state_dict"):
        state = state[wrapper] if isinstance(state.get(wrapper), Mapping) else state
    return state if state.keys() == tensors.keys() else None
