"""Many devices: rules and refusals here; what needs eight devices, in a process that has them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jaxtyping
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from test_segmenter import random_params

from sam_jax import InputError, Segmenter, make_mesh, sharding
from sam_jax.configs import CONFIGS, TEST, VIT_B
from sam_jax.models.sam.sam import variable_shapes

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_every_result_over_eight_devices_is_that_of_one():
    # Compiled without LLVM's optimizations: that takes longer than to run models this small.
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    flags = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    words = "-m pytest -q -p no:cacheprovider -W error::DeprecationWarning tests/eight_devices.py"
    done = subprocess.run(
        [sys.executable, *words.split()],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-10000:] + done.stderr[-2000:]


@pytest.mark.parametrize("name", CONFIGS)
def test_rules_divide_the_encoders_heads_and_mlps_and_nothing_else(name):
    config = CONFIGS[name]
    tree = jax.eval_shape(lambda p: sharding.split_heads(config, p), variable_shapes(config))
    specs = sharding.partition_specs(tree)
    is_spec = {"is_leaf": lambda x: isinstance(x, P)}
    divided = [path for path, spec in jax.tree.leaves_with_path(specs, **is_spec) if spec != P()]
    assert len(divided) == 6 * config.image_encoder.depth
    for path in divided:
        place = jax.tree_util.keystr(path, simple=True, separator="/")
        assert re.match(r"params/image_encoder/blocks_\d+/(attn|mlp)/", place)


def test_the_first_rule_wins_and_the_last_takes_the_rest():
    tree = {"blocks_0/mlp/lin1": {"kernel": jax.ShapeDtypeStruct((4, 8), "float32")}, "x": 3}
    assert sharding.partition_specs(tree) == {
        "blocks_0/mlp/lin1": {"kernel": P(None, "model")},
        "x": P(),
    }
    with pytest.raises(ValueError, match="blocks_0/attn/proj/kernel has shape .* cannot"):
        sharding.partition_specs({"blocks_0/attn/proj/kernel": jax.ShapeDtypeStruct((4,), "f4")})


def test_a_model_says_which_meshes_it_takes():
    def mesh(model):
        return jax.sharding.AbstractMesh((1, model), ("data", "model"))

    sharding.check_mesh(VIT_B, mesh(4))
    with pytest.raises(InputError, match="model=8 .* 12 heads .* model may be 1, 2, 3, 4, 6, 12"):
        sharding.check_mesh(VIT_B, mesh(8))
    with pytest.raises(InputError, match="model may be 1, 2$"):
        sharding.check_mesh(TEST, mesh(4))


@pytest.fixture
def unchecked():
    """Values of other types than a signature has, as users give them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    "sizes", [(0, 1), (1, 0), (None, -1), (1, None), ("abc",), (True,), (1, True), (1.0,)]
)
def test_a_mesh_has_whole_numbers_of_devices(sizes, unchecked):
    with pytest.raises(InputError, match="whole number of devices"):
        make_mesh(*sizes)
    assert dict(make_mesh(np.int64(1), np.uint8(1)).shape) == {"data": 1, "model": 1}


def test_a_mesh_has_devices_and_each_once(unchecked):
    (device,) = jax.local_devices()
    assert make_mesh(devices=np.array([device])) == make_mesh()
    for devices, reason in (
        ([], "a list of JAX devices, not an empty one"),
        (device, "a list of JAX devices, not "),
        (3, "a list of JAX devices, not int"),
        ("abc", r"devices\[0\] must be a JAX device, .* not str"),
        ([device, 0], r"devices\[1\] must be a JAX device, .* not int"),
        (np.array([[device]]), r"devices\[0\] must be a JAX device, .* not ndarray"),
        ([device, device], "has .* twice"),
    ):
        with pytest.raises(InputError, match=reason) as refused:
            make_mesh(devices=devices)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("mesh", ["abc", 8, jax.sharding.AbstractMesh((1, 1), ("data", "model"))])
def test_a_segmenter_takes_no_other_mesh(mesh, unchecked):
    with pytest.raises(InputError, match=f"must be a Mesh, not {type(mesh).__name__}; "):
        Segmenter(TEST, random_params(TEST), mesh=mesh)
