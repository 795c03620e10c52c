"""One update: gradients of a batch, accumulated and averaged, over a mesh of devices.

Images are divided over `data`, and each device's program is written for its own part, as in
`sharding`. Large parameters and the optimizer's state are divided over both axes of the mesh
(`placement`): a device gathers whole parameters along `data` where it needs them, and the gradient
of that scatters their gradients again (FSDP; ZeRO, Rajbhandari et al. 2020). Random numbers belong
to images, not to devices, so that any mesh gives the same update.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Key

from sam_jax.sharding import ALL, DATA, MODEL, over
from sam_jax.train.loop.placement import specs
from sam_jax.train.loop.state import Summed, TrainState
from sam_jax.types import Params

# Parameters and constants (of one device along `model`), images, a key for each image.
Loss = Callable[[Params, Params, Any, Key[Array, " B"]], Summed]
Update = Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]]


def initial_state(
    variables: Params, optimizer: optax.GradientTransformation, seed: int
) -> TrainState:
    """The state before the first update; variables are copied, as updates consume theirs.

    Args:
      variables: "params" and whatever else the model has.
      optimizer: from `optimizer.make_optimizer`.
      seed: decides all random numbers of the run.
    """
    params = jax.tree.map(lambda x: jnp.array(x, jnp.float32), variables["params"])
    constants = {name: value for name, value in variables.items() if name != "params"}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        constants=jax.tree.map(jnp.array, constants),
        key=jax.random.key_data(jax.random.key(seed)),
    )


def make_update(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    accumulate: int = 1,
) -> Update:
    """The pure function from a state and a batch to the next state and metrics.

    Args:
      loss: of a part of a batch.
      optimizer: from `optimizer.make_optimizer`.
      mesh: from `sharding.make_mesh`.
      accumulate: parts that a batch is taken in, one after the other; the update is the same.

    Returns:
      A function for `placement.compile_update`. Metrics are scalars and short vectors: the loss's
      own, "loss", "gradient_norm" and "finite".
    """

    def update(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Any]]:
        step_key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        keys = jax.random.split(step_key, jax.tree.leaves(batch)[0].shape[0])
        find = _gradients(loss, mesh, state.params, state.constants)
        if accumulate == 1:
            grads, summed = find(state.params, state.constants, batch, keys)
        else:
            grads, summed = _accumulated(find, state, (batch, keys), accumulate)
        weight = jnp.maximum(summed.weight, 1.0)
        grads = jax.tree.map(lambda x: x / weight, grads)
        # Optax mixes the types of its counts and rates, also where the user allows no such thing.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        norm = jnp.sqrt(sum(jnp.square(x).sum() for x in jax.tree.leaves(grads)))
        metrics = jax.tree.map(lambda x: x / weight, {**summed.metrics, "loss": summed.loss})
        metrics |= {
            "gradient_norm": norm,
            "finite": jnp.isfinite(summed.loss) & jnp.isfinite(norm),
        }
        new = dataclasses.replace(
            state,
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
        )
        return new, metrics

    return update


def _gradients(loss: Loss, mesh: Mesh, params: Params, constants: Params) -> Any:
    """The gradient of the sum over all images, divided as the parameters are, and the sums."""
    # Constants are divided too: frozen parameters are among them.
    where, constant_where = specs(params, mesh), specs(constants, mesh)
    sharers = mesh.shape[MODEL]

    def whole(part: Array, spec: P) -> Array:
        if DATA not in spec:
            return part
        return jax.lax.all_gather(part, DATA, axis=spec.index(DATA), tiled=True)

    def of_part(parts, constant_parts, batch, keys):
        kept = jax.tree.map(whole, constant_parts, constant_where)

        def value(parts):
            summed = loss(jax.tree.map(whole, parts, where), kept, batch, keys)
            # Devices along `model` compute the same loss; what is differentiated is the sum of what
            # all devices compute.
            return summed.loss / sharers, summed

        grads, summed = jax.grad(value, has_aux=True)(parts)
        grads = jax.tree.map(_added_up, grads, where)
        return grads, jax.lax.psum(summed, DATA)

    return over(mesh, of_part, (where, constant_where, P(DATA), P(DATA)), (where, P()))


def _added_up(gradient: Array, spec: P) -> Array:
    """Over the devices that have the same part of a parameter."""
    same = tuple(axis for axis in ALL if axis not in spec)
    return jax.lax.psum(gradient, same) if same else gradient


def _accumulated(find: Any, state: TrainState, whole: Any, parts: int) -> tuple[Any, Any]:
    def divided(x):
        if x.shape[0] % parts:
            raise ValueError(f"{parts} parts do not divide a batch of {x.shape[0]}")
        # Every device's images lie together: each part takes some of each device.
        return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)

    def one_part(total, part):
        found = find(state.params, state.constants, *part)
        return jax.tree.map(jnp.add, total, found), None

    batches = jax.tree.map(divided, whole)
    first = jax.tree.map(lambda x: x[0], batches)
    shapes = jax.eval_shape(find, state.params, state.constants, *first)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(one_part, zeros, batches)[0]
