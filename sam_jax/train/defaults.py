"""Defaults that depend on the rest of a configuration, or on the machine."""

import os
from collections.abc import Mapping
from typing import Any

from sam_jax.train.loop.schedule import fitted_schedule
from sam_jax.train.options import DataOptions

# Of a run with a table [tune], so that it takes minutes on a CPU. The paper's are for a model that
# starts from nothing and learns from millions of images.
TUNE_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "model": {"dtype": "float32", "drop_path": 0.0},
    "data": {"batch_size": 4, "max_masks": 4},
    "optimizer": {"learning_rate": 3e-4, "steps": 100, "schedule": "cosine"},
    "simulation": {"correction_points": 1, "mask_only_passes": 0},
}


def with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a training run with what they leave out, where it is no constant.

    Args:
      values: as they were written; what is of a wrong type is left to be refused later.
    """
    found = dict(values)
    if "tune" in found:
        for name, table in TUNE_DEFAULTS.items():
            _fill(found, name, _of_step_schedule(found) if name == "optimizer" else table)
    _fill(found, "data", {"workers": reader_processes()})
    return with_fitted_schedule(found)


def with_fitted_schedule(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a run with a schedule of the learning rate that fits its length."""
    found = dict(values)
    table = found.get("optimizer", {})
    if isinstance(table, dict):
        found["optimizer"] = fitted_schedule(table)
    return found


def reader_processes() -> int:
    """How many processes read data by default: one less than there are cores, and at most 8."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        cores = os.cpu_count() or 1
    return max(min(DataOptions.workers, cores - 1), 0)


def _of_step_schedule(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Tuning's [optimizer], which is no cosine where the values speak of decays."""
    given, table = values.get("optimizer", {}), dict(TUNE_DEFAULTS["optimizer"])
    if isinstance(given, dict) and given.keys() & {"decay_steps", "decay_factor"}:
        del table["schedule"]
    return table


def _fill(values: dict[str, Any], name: str, defaults: Mapping[str, Any]) -> None:
    table = values.get(name, {})
    if isinstance(table, dict):
        values[name] = {**defaults, **table}
