import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from sam_jax.data.batches import unpack_masks
from sam_jax.data.scenes.batches import SceneBatches
from sam_jax.data.scenes.scenes import SceneOptions
from sam_jax.errors import InputError

OPTIONS = SceneOptions(image_size=64, masks=6, objects=4, primitives=20)


def batches(**changes):
    return SceneBatches(OPTIONS, **{"seed": 3, "batch_size": 2, **changes})


def same(a, b):
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def single(batch, index):
    return [leaf[index] for leaf in jax.tree.leaves(batch)]


def test_a_batch_has_the_shapes_that_training_takes():
    batch = next(batches())
    assert batch.images.shape == (2, 64, 64, 3) and batch.images.dtype == np.uint8
    assert batch.masks.shape == (2, 6, 64, 8) and batch.masks.dtype == np.uint8
    assert batch.weights.shape == (2, 6) and batch.sizes_hw.shape == (2, 2)
    masks = np.asarray(unpack_masks(batch.masks))
    np.testing.assert_array_equal(masks.any(axis=(2, 3)), np.asarray(batch.weights) > 0)


def test_a_scene_is_the_same_wherever_in_a_batch_it_stands():
    first, later = next(batches()), next(batches(start=1))
    assert same(single(first, 1), single(later, 0))
    assert not same(single(first, 0), single(first, 1))
    assert not same(first, next(batches(seed=4)))
    assert not same(first, next(batches(seed=(1 << 32) - 1)))


def test_a_state_brings_back_the_very_next_batch():
    ours = batches()
    next(ours)
    state = json.loads(json.dumps(ours.get_state()))
    assert state == {"seed": 3, "position": 2}
    expected = next(ours)
    other = batches()
    other.set_state(state)
    assert same(next(other), expected)
    assert other.get_state() == ours.get_state()


def test_processes_draw_the_parts_of_one_batch():
    parts = [batches(process_index=i, process_count=2) for i in (0, 1)]
    alone = batches()
    for _ in range(2):
        for part in parts:
            assert same(next(part), next(alone))
    assert [part.get_state() for part in parts] == [alone.get_state()] * 2


def test_a_fixed_set_ends_and_what_fills_its_last_batch_has_no_weight():
    whole = [next(batches(start=k)) for k in (4, 6)]
    fixed = list(batches(start=4, stop=7))
    assert len(fixed) == 2
    assert same(fixed[0], whole[0])
    assert not np.asarray(fixed[1].weights[1]).any()
    np.testing.assert_array_equal(fixed[1].weights[0], whole[1].weights[0])
    np.testing.assert_array_equal(fixed[1].images, whole[1].images)
    assert list(batches(start=2, stop=2)) == []


@pytest.mark.parametrize(
    "change, words",
    [
        ({"batch_size": 0}, "batch_size"),
        ({"start": -1}, "start"),
        ({"seed": -1}, "4294967295"),
        ({"seed": 1 << 32}, "4294967295"),
        ({"start": 3, "stop": 1}, "stop"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change, words):
    with pytest.raises(InputError, match=words):
        batches(**change)


@pytest.mark.parametrize("state", [{}, {"seed": 4, "position": 1}, {"seed": 3, "place": 1}])
def test_a_state_of_something_else_is_refused_and_changes_nothing(state):
    ours = batches(start=5)
    with pytest.raises(InputError, match="seed 3"):
        ours.set_state(state)
    assert ours.get_state() == {"seed": 3, "position": 5}


SHARDED = """
import sys
import jax, numpy as np
from jax.sharding import AxisType, PartitionSpec as P
from functools import partial
from sam_jax.data.scenes.batches import scene_batch
from sam_jax.data.scenes.scenes import SceneOptions

options = SceneOptions(image_size=64, masks=6, objects=4, primitives=20)
draw = lambda indices: scene_batch(3, indices, options)
indices = np.arange(4, dtype=np.int32)
devices = jax.device_count()
mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
mapped = jax.shard_map(draw, mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False)
batch = jax.jit(mapped)(indices)
np.savez(sys.argv[1], *jax.tree.leaves(batch))
"""


@pytest.mark.slow
def test_scenes_are_the_same_on_any_number_of_devices(tmp_path):
    drawn = []
    for devices in (1, 4):
        flags = f"--xla_force_host_platform_device_count={devices}"
        file = tmp_path / f"{devices}.npz"
        subprocess.run(
            [sys.executable, "-c", SHARDED, str(file)],
            env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            check=True,
        )
        with np.load(file) as arrays:
            drawn.append([arrays[name] for name in arrays.files])
    assert len(drawn[0][0]) == 4
    assert same(*drawn)
