"""The estimate of an update's memory, and what is said where it does not suffice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax import InputError
from sam_jax.sharding import make_mesh
from sam_jax.train.loop import memory
from sam_jax.train.loop.memory import (
    advice,
    check_compiled,
    check_estimate,
    memory_errors,
    peak_bytes,
)

WAYS = ["lower data.batch_size (now 4)", "take a smaller model"]
WIDTH, LAYERS = 512, 6


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(1, devices=jax.devices()[:1])


def gradient(remat):
    def layer(x):
        return jnp.tanh(x @ jnp.full((WIDTH, WIDTH), 0.1)) ** 2

    layer = jax.checkpoint(layer) if remat else layer

    def loss(x):
        for _ in range(LAYERS):
            x = layer(x)
        return x.sum()

    return jax.jit(jax.grad(loss))


@pytest.mark.parametrize("remat", [False, True])
def test_the_estimate_is_of_the_compilers_size(remat):
    x = jax.ShapeDtypeStruct((8192, WIDTH), jnp.float32)
    traced = gradient(remat).trace(x)
    found = peak_bytes(traced.jaxpr.jaxpr)
    compiled = traced.lower().compile().memory_analysis()
    true = compiled.temp_size_in_bytes + compiled.output_size_in_bytes
    # It decides between what fits and what is many times too large: a factor of two is enough.
    assert 0.5 < found / true < 2


def check(mesh, monkeypatch, there, ways=WAYS):
    monkeypatch.setattr(memory, "device_bytes", lambda mesh: there)
    shape = jax.ShapeDtypeStruct((8192, WIDTH), jnp.float32)
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    told = []
    check_estimate(gradient(False).trace(shape), [shape], [where], mesh, ways, told.append)
    return told


def test_what_cannot_fit_is_refused_and_what_may_not_fit_is_told(mesh, monkeypatch):
    assert check(mesh, monkeypatch, 10**12) == []
    assert check(mesh, monkeypatch, None) == []
    with pytest.raises(InputError, match=r"takes about .* GB .*: lower data.batch_size \(now 4\)"):
        check(mesh, monkeypatch, 10**6)
    needed = 8192 * WIDTH * 4 * (LAYERS + 2)
    (line,) = check(mesh, monkeypatch, needed)
    assert "it may not fit" in line and "take a smaller model" in line


def test_buffers_that_the_compiler_needs_and_that_are_not_there_are_refused(mesh, monkeypatch):
    compiled = jax.jit(lambda x: x @ x).lower(jnp.zeros((64, 64))).compile()
    check_compiled(compiled, mesh, WAYS)
    monkeypatch.setattr(memory, "device_bytes", lambda mesh: 1000)
    with pytest.raises(InputError, match="take a smaller model"):
        check_compiled(compiled, mesh, WAYS)


class Exhausted(jax.errors.JaxRuntimeError):
    pass


@pytest.mark.parametrize("error", [MemoryError(), Exhausted("RESOURCE_EXHAUSTED: 3 GB")])
def test_running_out_of_memory_names_what_can_be_changed(error):
    with pytest.raises(InputError, match=r"ran out of memory: lower data.batch_size \(now 4\), or"):
        with memory_errors(WAYS):
            raise error


def test_other_errors_of_a_device_stay():
    with pytest.raises(Exhausted, match="INTERNAL"), memory_errors(WAYS):
        raise Exhausted("INTERNAL: ours")


def test_only_what_can_still_be_changed_is_advised():
    everything = advice(128, 1, 64, "float32", remat=False)
    assert [line.split()[1] for line in everything[:3]] == [
        "data.batch_size",
        "data.max_masks",
        "run.accumulate",
    ]
    assert "set model.remat = true" in everything
    assert advice(1, 1, 1, "bfloat16", remat=True) == ["take a smaller model"]


def test_a_cpus_memory_is_the_machines_divided_over_its_devices(mesh):
    there = memory.device_bytes(mesh)
    assert there is not None and 1e8 < there
    both = np.array(jax.devices()[:1] * 2).reshape(2, 1)
    twice = jax.sharding.Mesh(both, mesh.axis_names)
    assert memory.device_bytes(twice) == there // 2
