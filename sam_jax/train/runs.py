"""A whole run: the mesh, the input, the folder, and the loop."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax

from sam_jax.checkpoints.native import read_info
from sam_jax.checkpoints.registry import checkpoint_path
from sam_jax.errors import InputError
from sam_jax.sharding import make_mesh
from sam_jax.train.config import FREE_TO_CHANGE, differences
from sam_jax.train.inputs import open_batches
from sam_jax.train.jobs import interactive_job
from sam_jax.train.loop.loop import run_folder, run_job
from sam_jax.train.options import TrainConfig
from sam_jax.train.tuning.tune import tuned_job

# What a person may wish to change in the middle of a run: parameters and state keep their shapes.
RECIPE_TABLES = ("optimizer", "losses", "simulation")


def train_run(
    config: TrainConfig,
    folder: Path,
    echo: Callable[[str], None] = print,
    change_recipe: bool = False,
) -> Path:
    """Trains interactively, from the newest checkpoint in the folder or from the start.

    Args:
      config: of the run.
      folder: of the run.
      echo: takes lines for a person.
      change_recipe: a run that is gone on with may have other `RECIPE_TABLES` than it began with.

    Returns:
      The path of the model, a native checkpoint.

    Raises:
      InputError: the data or the checkpoint to start from cannot be used, the devices do not fit,
        the folder has another run, or the loss is not finite.
      KeyboardInterrupt: the run was asked to stop; the same call goes on.
    """
    mesh = make_mesh(config.run.data or None, config.run.model, devices=jax.devices())
    processes = jax.process_count()
    if config.data.batch_size % processes:
        raise InputError(
            f"data.batch_size {config.data.batch_size} is no multiple of the {processes} processes"
        )
    values = asdict(config)
    if config.tune.method != "full":
        # An adapter belongs to the parameters that it was trained on: a run must end on them.
        base = read_info(checkpoint_path(config.model.checkpoint))
        values["model"]["checkpoint_fingerprint"] = base.fingerprint
    changed = changes_besides_recipe if change_recipe else forbidden_changes
    with run_folder(folder, values, changed) as begin:
        batches = open_batches(
            config.data,
            config.scenes,
            config.sam.image_size,
            config.run.seed,
            echo,
        )
        if config.tune.method == "full":
            job = interactive_job(config, mesh, batches)
            return run_job(job, config.optimizer, config.run, mesh, folder, begin, echo)
        job = tuned_job(config, mesh, batches, echo)
        # What is frozen is none of the optimizer's parameters.
        optimizer = replace(config.optimizer, frozen=())
        model = run_job(job, optimizer, config.run, mesh, folder, begin, echo)
        echo(f"the adapter is in {folder / 'adapter'}")
        return model


def forbidden_changes(earlier: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """Names of what differs between two configurations and would change what a run computes."""
    return [name for name in differences(earlier, values) if name not in FREE_TO_CHANGE]


def changes_besides_recipe(earlier: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """Those of `forbidden_changes` that are of no `RECIPE_TABLES`."""
    names = forbidden_changes(earlier, values)
    return [
        name
        for name in names
        # What is frozen has no state in the optimizer, and each rule has its own: these decide the
        # checkpoint's arrays.
        if name in ("optimizer.frozen", "optimizer.rule") or name.split(".")[0] not in RECIPE_TABLES
    ]
