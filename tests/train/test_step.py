"""The update over many devices, in a process that has them; and what one device can show."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax.sharding import make_mesh
from sam_jax.train.loop.optimizer import OptimizerOptions, make_optimizer
from sam_jax.train.loop.state import Summed
from sam_jax.train.loop.step import initial_state, make_update

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_an_update_over_eight_devices_is_that_of_one():
    # Compiled without LLVM's optimizations: that takes longer than to run models this small.
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    flags = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    words = "-m pytest -q -p no:cacheprovider tests/train/eight_devices.py"
    done = subprocess.run(
        [sys.executable, *words.split()],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-10000:] + done.stderr[-2000:]


def toy_loss(params, constants, batch, keys):
    noise = jax.vmap(lambda key: jax.random.normal(key, (4,)))(keys)
    weights = batch["weights"]
    error = ((batch["x"] + noise) @ params["layer"]["kernel"]).sum(axis=-1) - 1
    total = (weights * jnp.square(error)).sum()
    return Summed(total, weights.sum(), {"error": (weights * error).sum()})


def toy(accumulate=1):
    params = {"layer": {"kernel": jnp.arange(12.0).reshape(4, 3) / 10}}
    optimizer = make_optimizer(OptimizerOptions(warmup_steps=0, clip_norm=1.0), params, depth=1)
    state = initial_state({"params": params}, optimizer, seed=0)
    return make_update(toy_loss, optimizer, make_mesh(1, 1), accumulate), state


def toy_batch(seed=0, count=6):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 4)).astype(np.float32)
    return {"x": jnp.asarray(x), "weights": jnp.array([1.0, 1, 0, 1, 1, 0])[:count]}


def test_parts_of_a_batch_add_up_to_the_whole():
    batch = toy_batch()
    results = [update(state, batch) for update, state in (toy(), toy(2), toy(3))]
    for state, metrics in results[1:]:
        expected, wanted = results[0]
        np.testing.assert_allclose(metrics["loss"], wanted["loss"], rtol=1e-6)
        np.testing.assert_allclose(metrics["error"], wanted["error"], rtol=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
            state.params,
            expected.params,
        )


def test_the_gradient_is_that_of_the_mean_over_what_has_weight():
    update, state = toy()
    _, metrics = update(state, toy_batch())
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), 0)
    keys = jax.random.split(key, 6)

    def mean(params):
        summed = toy_loss(params, {}, toy_batch(), keys)
        return summed.loss / 4

    gradient = jax.grad(mean)(state.params)["layer"]["kernel"]
    np.testing.assert_allclose(metrics["gradient_norm"], jnp.linalg.norm(gradient), rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], mean(state.params), rtol=1e-6)


def test_random_numbers_differ_by_step_and_repeat_by_seed():
    update, state = toy()
    once, metrics = update(state, toy_batch())
    again, same = update(state, toy_batch())
    _, other = update(once, toy_batch())
    assert metrics["loss"] == same["loss"] and other["error"] != metrics["error"]
    assert once.step == again.step == 1


def test_what_is_not_finite_is_said():
    update, state = toy()
    batch = toy_batch()
    assert update(state, batch)[1]["finite"]
    batch["x"] = batch["x"].at[0, 0].set(jnp.nan)
    assert not update(state, batch)[1]["finite"]
