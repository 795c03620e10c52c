"""What `test_step.py` runs in a process of its own, where JAX has eight devices."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_hybrid import SMALL_HYBRID

from sam_jax import InputError
from sam_jax.adapters.lora import LoraOptions
from sam_jax.configs import TEST
from sam_jax.data.batches import TrainingBatch
from sam_jax.models.sam.sam import Sam
from sam_jax.sharding import MODEL, make_mesh, split_heads
from sam_jax.train.interactive.passes import InteractiveOptions
from sam_jax.train.interactive.simulation import SimulationOptions
from sam_jax.train.jobs import random_variables
from sam_jax.train.loop import placement
from sam_jax.train.loop.optimizer import OptimizerOptions, make_optimizer
from sam_jax.train.loop.step import initial_state, make_update
from sam_jax.train.loop.tasks import interactive_loss
from sam_jax.train.tuning.tune import FROZEN, divide, tuned_loss

CONFIG = replace(TEST, name="small", image_size=64, decoder_depth=1)
DEPTH = CONFIG.image_encoder.depth
assert DEPTH == SMALL_HYBRID.image_encoder.depth
B, P = 8, 2
OPTIONS = InteractiveOptions(SimulationOptions(correction_points=1))
# A correction is clicked where a mask is wrong: where a logit is so near 0 that the order of a sum
# decides its sign, the click is another one, and all that follows.
WITHOUT_CLICKS = InteractiveOptions(SimulationOptions(correction_points=0))


@pytest.fixture(scope="module", autouse=True)
def divide_everything():
    assert jax.device_count() == 8
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "_DIVIDED_FROM", 64)
        yield


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    masks = np.zeros((B, P, 64, 64), bool)
    for mask in masks.reshape(-1, 64, 64):
        y, x = rng.integers(0, 40, 2)
        mask[y : y + 22, x : x + 13] = True
    return TrainingBatch(
        images=rng.integers(0, 256, (B, 64, 64, 3), dtype=np.uint8),
        sizes_hw=np.tile(np.array([64, 50], np.int32), (B, 1)),
        masks=np.packbits(masks, axis=-1),
        weights=np.array([[1.0, 0.0], [1.0, 1.0]] * (B // 2), np.float32),
    )


def prepared(sizes, accumulate=1, config=CONFIG, interaction=OPTIONS):
    mesh = make_mesh(*sizes, devices=jax.devices()[: np.prod(sizes)])
    model = Sam(
        config,
        remat=True,
        drop_path=0.5,
        decoder_dropout=0.2,
        model_axis=MODEL if sizes[1] > 1 else None,
    )
    variables = split_heads(config, random_variables(config, seed=1))
    # Adam makes steps of one size from gradients that rounding alone tells from zero: small ones,
    # lest the second update be another because of them.
    options = OptimizerOptions(warmup_steps=0, learning_rate=1e-9)
    optimizer = make_optimizer(options, variables["params"], DEPTH)
    state = initial_state(variables, optimizer, seed=2)
    update = make_update(interactive_loss(model, interaction), optimizer, mesh, accumulate)
    return placement.compile_update(update, state, mesh), state, mesh


def run(sizes, batch, accumulate=1, config=CONFIG, interaction=OPTIONS):
    update, state, mesh = prepared(sizes, accumulate, config, interaction)
    state = jax.device_put(state, placement.state_shardings(state, mesh))
    placed = jax.device_put(batch, placement.batch_sharding(mesh))
    compiled = update.lower(state, placed).compile()
    for _ in range(2):  # the second with other random numbers
        state, metrics = compiled(state, placed)
    return *jax.device_get((state, metrics)), compiled.as_text()


@pytest.fixture(scope="module")
def single(batch):
    return run((1, 1), batch)


@pytest.mark.parametrize("sizes, accumulate", [((8, 1), 1), ((2, 2), 2)])
def test_any_mesh_makes_the_same_update(sizes, accumulate, single, batch):
    state, metrics, text = run(sizes, batch, accumulate)
    assert_same_update((state, metrics), single)
    if sizes == (8, 1):
        only_gathers_and_sums(text, state.params, make_mesh(*sizes))


@pytest.mark.parametrize("sizes", [(8, 1), (2, 2)])
def test_a_hybrid_model_makes_the_same_update_over_any_mesh(sizes, batch):
    found, single = (
        run(mesh, batch, config=SMALL_HYBRID, interaction=WITHOUT_CLICKS)
        for mesh in (sizes, (1, 1))
    )
    assert_same_update(found, single)


def assert_same_update(found, single):
    (state, metrics), (expected, expected_metrics) = found[:2], single[:2]
    for name in ("loss", "gradient_norm", "focal", "dice", "iou_error"):
        # Sums of float32 in another order.
        np.testing.assert_allclose(metrics[name], expected_metrics[name], rtol=1e-4, err_msg=name)
    assert metrics["finite"] and state.step == 2
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    wanted = [x for x in jax.tree.leaves(expected.opt_state) if x.ndim]
    largest = max(np.abs(x).max() for x in wanted)
    for one, other in zip(moments, wanted, strict=True):
        # Gradients and their squares; likewise.
        np.testing.assert_allclose(one, other, atol=1e-4 * largest)


def only_gathers_and_sums(text, params, mesh):
    """Devices meet to gather parameters and to add up their gradients, and for nothing else."""
    names = r" (all-\w+|collective-[\w-]+|reduce-scatter|ragged-[\w-]+|send|recv)(?:-start)?\("
    found = re.findall(names, text)
    specs = jax.tree.leaves(placement.specs(params, mesh))
    divided = sum("data" in spec for spec in specs)
    assert divided > 20
    assert found.count("all-gather") <= divided and found.count("reduce-scatter") <= divided
    assert set(found) == {"all-gather", "reduce-scatter", "all-reduce"}


def test_low_rank_updates_are_the_same_over_a_mesh(batch):
    """The encoder's kernels, frozen, are divided; each device makes its part of their updates."""
    options, found = LoraOptions(rank=2), {}
    whole = split_heads(CONFIG, random_variables(CONFIG, seed=1))
    divided = divide(whole, ("^mask_decoder/",), options)
    keys = iter(jax.random.split(jax.random.key(3), 100))
    divided["params"] = jax.tree.map(
        lambda x: 0.1 * jax.random.normal(next(keys), x.shape), divided["params"]
    )
    optimizer = make_optimizer(
        OptimizerOptions(warmup_steps=0, learning_rate=1e-9), divided["params"], DEPTH
    )
    for sizes in ((1, 1), (2, 2)):
        mesh = make_mesh(*sizes, devices=jax.devices()[: np.prod(sizes)])
        axis = MODEL if sizes[1] > 1 else None
        loss = interactive_loss(Sam(CONFIG, model_axis=axis), OPTIONS)
        update = make_update(tuned_loss(loss, options, axis), optimizer, mesh)
        state = initial_state(divided, optimizer, seed=2)
        state = jax.device_put(state, placement.state_shardings(state, mesh))
        kernel = state.constants[FROZEN]["image_encoder"]["blocks_0"]["attn"]["qkv"]["kernel"]
        assert kernel.addressable_shards[0].data.size == kernel.size // np.prod(sizes)
        placed = jax.device_put(batch, placement.batch_sharding(mesh))
        found[sizes] = jax.device_get(placement.compile_update(update, state, mesh)(state, placed))
    (one, metrics), (other, other_metrics) = found.values()
    # Sums of float32 in another order, as above.
    for name in ("loss", "gradient_norm"):
        np.testing.assert_allclose(metrics[name], other_metrics[name], rtol=1e-4, err_msg=name)
    moments, others = (
        [x for x in jax.tree.leaves(state.opt_state) if x.ndim] for state in (one, other)
    )
    largest = max(np.abs(x).max() for x in moments)
    for x, y in zip(moments, others, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-4 * largest)


def test_large_parameters_and_their_moments_are_divided_over_all_devices():
    _, state, mesh = prepared((4, 2))
    placed = jax.device_put(state, placement.state_shardings(state, mesh))
    block = placed.params["image_encoder"]["blocks_0"]
    shapes = jax.tree.map(lambda x: x.addressable_shards[0].data.shape, block)
    assert shapes["attn"]["qkv"]["kernel"] == (8, 3, 1, 16)
    assert shapes["mlp"]["lin1"]["kernel"] == (8, 32)
    assert shapes["mlp"]["lin1"]["bias"] == (32,)
    whole = sum(x.size for x in jax.tree.leaves(state.opt_state))
    part = sum(x.addressable_shards[0].data.size for x in jax.tree.leaves(placed.opt_state))
    assert part < 0.3 * whole


def test_batches_that_do_not_fit_are_refused():
    mesh = make_mesh(4, 2)
    placement.check_batch_size(24, 3, mesh)
    with pytest.raises(InputError, match="batch_size 10 is no multiple.*data=4; 12 is"):
        placement.check_batch_size(10, 1, mesh)


def test_a_whole_tree_comes_back():
    mesh = make_mesh(8, 1)
    tree = {"kernel": jnp.arange(128.0).reshape(16, 8)}
    placed = jax.device_put(tree, placement.state_shardings(tree, mesh))
    np.testing.assert_array_equal(placement.whole(placed, mesh)["kernel"], tree["kernel"])
