"""What is divided into trained and frozen comes together again, and is one model to the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from sam_jax.adapters.lora import LoraOptions, merge_lora
from sam_jax.configs import TEST
from sam_jax.errors import InputError
from sam_jax.models.sam.sam import variable_shapes
from sam_jax.sharding import make_mesh, split_heads
from sam_jax.train.loop.optimizer import OptimizerOptions, make_optimizer
from sam_jax.train.loop.state import Summed
from sam_jax.train.loop.step import initial_state, make_update
from sam_jax.train.tuning.tune import FROZEN, LORA, divide, tuned_loss, unite

OPTIONS = LoraOptions(rank=2)


@pytest.fixture(scope="module")
def variables():
    rng = np.random.default_rng(0)
    whole = jax.tree.map(
        lambda leaf: (0.2 * rng.standard_normal(leaf.shape)).astype(np.float32),
        variable_shapes(TEST),
    )
    return split_heads(TEST, whole)


def names(tree):
    return set(flatten_dict(tree, sep="/"))


@pytest.mark.parametrize("lora", [None, OPTIONS], ids=["decoder", "lora"])
def test_what_is_divided_is_united_again(variables, lora):
    divided = divide(variables, ("hypernetworks", "^prompt_encoder/"), lora)
    trained = names(divided["params"]) - names({LORA: divided["params"].get(LORA, {})})
    assert trained and all(name.startswith("mask_decoder/") for name in trained)
    assert not any("hypernetworks" in name for name in trained)
    assert trained | names(divided[FROZEN]) == names(variables["params"])
    assert not trained & names(divided[FROZEN])
    found = unite(divided, lora)
    assert jax.tree.structure(found) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, found, variables)


def test_updates_alone_are_trained_where_the_decoder_is_frozen(variables):
    divided = divide(variables, ("^mask_decoder/",), OPTIONS)
    assert set(divided["params"]) == {LORA}
    with pytest.raises(InputError, match="nothing is trained"):
        divide(variables, ("^mask_decoder/",))


def test_the_encoder_may_be_left_out(variables):
    divided = divide(variables, without_encoder=True)
    assert set(divided[FROZEN]) == {"prompt_encoder"}
    assert set(unite(divided)["params"]) == {"prompt_encoder", "mask_decoder"}


def loss(params, constants, batch, keys):
    """Of every parameter: the squared distance from what the batch says."""
    leaves = jax.tree.leaves(params) + jax.tree.leaves(constants)
    total = sum(jnp.square(leaf - batch[:, None]).sum() for leaf in map(jnp.ravel, leaves))
    return Summed(jnp.asarray(total), jnp.float32(len(batch)), {})


def test_the_loss_is_that_of_the_merged_model_and_only_what_is_tuned_changes(variables):
    divided = divide(variables, lora=OPTIONS, seed=3)
    rng = np.random.default_rng(1)
    divided["params"][LORA] = jax.tree.map(
        lambda x: 0.1 * rng.standard_normal(x.shape, np.float32), divided["params"][LORA]
    )
    batch, tuned = jnp.array([1.0, 0.5]), tuned_loss(loss, OPTIONS)
    merged = merge_lora(variables["params"], divided["params"][LORA], OPTIONS)
    keys = jax.random.split(jax.random.key(0), 2)
    constants = {name: value for name, value in divided.items() if name != "params"}
    found = tuned(divided["params"], constants, batch, keys).loss
    others = {name: value for name, value in variables.items() if name != "params"}
    assert found == loss(merged, others, batch, keys).loss

    rule = OptimizerOptions(warmup_steps=0, learning_rate=1e-3, weight_decay=0.1)
    optimizer = make_optimizer(rule, divided["params"], TEST.image_encoder.depth)
    state = initial_state(divided, optimizer, seed=0)
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim)
    assert moments == 2 * sum(leaf.size for leaf in jax.tree.leaves(state.params))
    after, _ = jax.jit(make_update(tuned, optimizer, make_mesh(1)))(state, batch)
    jax.tree.map(np.testing.assert_array_equal, after.constants, constants)
    for before, now in zip(
        jax.tree.leaves(divided["params"]), jax.tree.leaves(after.params), strict=True
    ):
        assert (np.asarray(before) != np.asarray(now)).any()
