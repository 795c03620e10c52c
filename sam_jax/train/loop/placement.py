"""Where training's state and batches lie on a mesh: all of it divided.

Every large parameter, and what the optimizer keeps of it, is divided over all devices: along
`model` as for inference (`sharding.PARTITION_RULES`), and along `data` in its largest remaining
dimension.
"""

import re
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sam_jax.errors import InputError
from sam_jax.sharding import DATA, PARTITION_RULES
from sam_jax.train.loop.optimizer import paths

# Smaller arrays are whole along `data`: dividing them costs more exchanges than it saves memory.
_DIVIDED_FROM = 1 << 14


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """The `NamedSharding` of each array of a training state.

    Args:
      state: a `TrainState`, arrays or their shapes; the optimizer's state repeats the parameters'
        paths behind names of its own.
      mesh: from `sharding.make_mesh`.
    """
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs(state, mesh))


def specs(tree: Any, mesh: Mesh) -> Any:
    """How each array of a tree is divided, see `state_shardings`."""
    return jax.tree.map(lambda path, leaf: _spec(path, np.shape(leaf), mesh), paths(tree), tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Images over `data`."""
    return NamedSharding(mesh, P(DATA))


def check_batch_size(batch_size: int, accumulate: int, mesh: Mesh) -> None:
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


def compile_update(update: Any, state: Any, mesh: Mesh) -> Any:
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


def whole(tree: Any, mesh: Mesh) -> Any:
    """A divided tree as NumPy arrays; every process must call it."""
    gather = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, P()))
    return jax.device_get(gather(tree))


def _spec(path: str, shape: tuple[int, ...], mesh: Mesh) -> P:
    rule = next(spec for pattern, spec in PARTITION_RULES if re.search(pattern, path))
    if len(rule) > len(shape):  # for heads that were split, in a model that has them joined
        rule = P()
    axes = [*rule, *(None,) * (len(shape) - len(rule))]
    free = [i for i, axis in enumerate(axes) if axis is None and shape[i] % mesh.shape[DATA] == 0]
    if free and int(np.prod(shape)) >= _DIVIDED_FROM:
        axes[max(free, key=lambda i: shape[i])] = DATA
    return P(*axes)
