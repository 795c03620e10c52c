"""Where training's state and batches lie on a mesh: all of it divided.

Every large parameter, and what the optimiser keeps of it, is divided over all devices (ZeRO,
Rajbhandari et al. 2020; FSDP): along `model` as for inference (`sharding.PARTITION_RULES`), and
along `data` in its largest remaining dimension. XLA gathers parameters where they are used and
scatters their gradients.
"""

import re
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sam_jax.errors import InputError
from sam_jax.sharding import DATA, PARTITION_RULES
from sam_jax.train.optimizer import paths
from sam_jax.train.step import Update

# Smaller arrays are on every device: dividing them costs more exchanges than it saves memory.
_DIVIDED_FROM = 1 << 14


def state_shardings(state: Any, mesh: Mesh | AbstractMesh) -> Any:
    """The `NamedSharding` of each array of a training state.

    Args:
      state: a `TrainState`, arrays or their shapes; the optimiser's state repeats the parameters'
        paths behind names of its own.
      mesh: from `sharding.make_mesh`.
    """

    def sharding(path: str, leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, _spec(path, np.shape(leaf), mesh))

    return jax.tree.map(sharding, paths(state), state)


def batch_sharding(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Images over `data`."""
    return NamedSharding(mesh, P(DATA))


def check_batch_size(batch_size: int, accumulate: int, mesh: Mesh | AbstractMesh) -> None:
    """Refuses a batch that the mesh cannot divide.

    Raises:
      InputError: the batch is no multiple of its parts times `data`.
    """
    parts = accumulate * mesh.shape[DATA]
    if batch_size % parts:
        raise InputError(
            f"batch_size {batch_size} is no multiple of accumulate={accumulate} times "
            f"data={mesh.shape[DATA]}; {-(-batch_size // parts) * parts} is"
        )


def compile_update(update: Update, state: Any, mesh: Mesh | AbstractMesh) -> Any:
    """The update as one compiled function over a mesh, which consumes its state.

    Args:
      update: from `step.make_update`.
      state: arrays or their shapes.
      mesh: from `sharding.make_mesh`.
    """
    where = state_shardings(state, mesh)
    everywhere = NamedSharding(mesh, P())
    return jax.jit(
        update,
        in_shardings=(where, batch_sharding(mesh)),
        out_shardings=(where, everywhere),
        donate_argnums=0,
    )


def _spec(path: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> P:
    if int(np.prod(shape)) < _DIVIDED_FROM:
        return P()
    rule = next(spec for pattern, spec in PARTITION_RULES if re.search(pattern, path))
    # A rule for the projection to queries, keys and values is for its view with an axis of heads.
    axes = list(rule) if len(rule) <= len(shape) else []
    axes += [None] * (len(shape) - len(axes))
    axes = [
        a if a is None or n % mesh.shape[a] == 0 else None for a, n in zip(axes, shape, strict=True)
    ]
    free = [i for i, axis in enumerate(axes) if axis is None and shape[i] % mesh.shape[DATA] == 0]
    if free:
        axes[max(free, key=lambda i: shape[i])] = DATA
    return P(*axes)
