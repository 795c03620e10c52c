"""One update: gradients of a batch, accumulated and averaged, on any mesh of devices.

The program is written for the whole batch, and XLA divides it by where its arguments lie: images
over `data`, parameters and the optimiser's state over both axes (`placement`). What is drawn at
random depends on the key and the whole batch alone, so that any mesh gives the same update.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

from sam_jax.types import Params


@struct.dataclass
class TrainState:
    """All that an update changes, and what decides its random numbers.

    Attributes:
      step: updates made.
      params: the tree under "params", float32.
      opt_state: the optimiser's.
      constants: variables that no optimiser reaches.
      key: data of the random key of the run; every step folds its number into it.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: Any
    constants: Params
    key: UInt32[Array, " words"]


@struct.dataclass
class Summed:
    """What a part of a batch gives: sums, which add up to the whole batch's.

    Attributes:
      loss: what is minimised, summed over objects (or images).
      weight: how many there are; the gradient is that of the whole loss over the whole weight.
      metrics: sums to be reported, divided by the weight likewise.
    """

    loss: Float[Array, ""]
    weight: Float[Array, ""]
    metrics: dict[str, Any]


# Parameters, constants, a batch, a key.
Loss = Callable[[Params, Params, Any, PRNGKeyArray], Summed]
Update = Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]]


def initial_state(
    variables: Params, optimizer: optax.GradientTransformation, seed: int
) -> TrainState:
    """The state before the first update; variables are copied, as updates consume theirs.

    Args:
      variables: of the model, "params" and whatever else it has.
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


def make_update(loss: Loss, optimizer: optax.GradientTransformation, accumulate: int = 1) -> Update:
    """The pure function from a state and a batch to the next state and metrics.

    Args:
      loss: of a part of a batch.
      optimizer: from `optimizer.make_optimizer`.
      accumulate: parts that a batch is taken in, one after the other; the update is that of the
        whole batch, but for what is drawn at random.

    Returns:
      A function to be compiled with `jax.jit`, its first argument donated. Metrics are scalars
      and short vectors: the loss's own, "loss", "gradient_norm" and "finite".
    """

    def gradients(state: TrainState, batch: Any, key: PRNGKeyArray) -> tuple[Any, Summed]:
        def value(params):
            summed = loss(params, state.constants, batch, key)
            return summed.loss, summed

        grads, summed = jax.grad(value, has_aux=True)(state.params)
        return grads, summed

    def update(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Any]]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        if accumulate == 1:
            grads, summed = gradients(state, batch, key)
        else:
            grads, summed = _accumulated(gradients, state, batch, key, accumulate)
        weight = jnp.maximum(summed.weight, 1.0)
        grads = jax.tree.map(lambda x: x / weight, grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        norm = optax.global_norm(grads)
        metrics = jax.tree.map(lambda x: x / weight, {**summed.metrics, "loss": summed.loss})
        metrics |= {
            "gradient_norm": norm,
            "finite": jnp.isfinite(summed.loss) & jnp.isfinite(norm),
        }
        new = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
        )
        return new, metrics

    return update


def _accumulated(gradients: Any, state: Any, batch: Any, key: Any, parts: int) -> tuple[Any, Any]:
    def divided(x):
        if x.shape[0] % parts:
            raise ValueError(f"{parts} parts do not divide a batch of {x.shape[0]}")
        # Every device's images lie together: each part takes some of each device.
        return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)

    def one_part(total, args):
        number, part = args
        found = gradients(state, part, jax.random.fold_in(key, number))
        return jax.tree.map(jnp.add, total, found), None

    batches = jax.tree.map(divided, batch)
    first = jax.tree.map(lambda x: x[0], batches)
    shapes = jax.eval_shape(gradients, state, first, key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(one_part, zeros, (jnp.arange(parts), batches))[0]
