import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax.adapters.lora import LoraOptions, adapted, init_lora, merge_lora
from sam_jax.configs import TEST
from sam_jax.errors import InputError
from sam_jax.models.sam.sam import Sam, variable_shapes
from sam_jax.sharding import split_heads
from sam_jax.types import Prompts

QKV = "image_encoder/blocks_0/attn/qkv/kernel"
WIDTH = TEST.image_encoder.embed_dim


@pytest.fixture(scope="module")
def variables():
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: (0.2 * rng.standard_normal(leaf.shape)).astype(np.float32),
        variable_shapes(TEST),
    )


def trained(params, options, seed=1):
    """Updates as training would leave them: neither half is zero."""
    lora = init_lora(jax.random.key(seed), params, options)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32), lora)


def at(tree, path):
    for name in path.split("/"):
        tree = tree[name]
    return np.asarray(tree)


def test_fresh_updates_change_nothing(variables):
    params = variables["params"]
    options = LoraOptions(rank=3, patterns=("kernel$",))
    lora = init_lora(jax.random.key(0), params, options)
    assert all(np.abs(at(lora, f"{path}/down")).max() > 0 for path in adapted(params, options))
    merged = merge_lora(params, lora, options)
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, merged, params)

    images = np.random.default_rng(1).standard_normal((1, 64, 48, 3), np.float32)
    prompts = Prompts(points=jnp.full((1, 1, 1, 2), 20.0), labels=jnp.ones((1, 1, 1), jnp.int32))
    apply = jax.jit(Sam(TEST).apply)
    found = apply({**variables, "params": merged}, images, prompts)
    jax.tree.map(np.testing.assert_array_equal, found, apply(variables, images, prompts))


@pytest.mark.parametrize("targets", [("q", "v"), ("k",), ("v", "q", "k")])
def test_a_merged_kernel_does_what_kernel_and_update_do(variables, targets):
    params = variables["params"]
    options = LoraOptions(rank=5, alpha=3.0, targets=targets)
    lora = trained(params, options)
    kernel, merged = at(params, QKV), at(merge_lora(params, lora, options), QKV)
    down, up = at(lora, f"{QKV}/down"), at(lora, f"{QKV}/up")
    assert down.shape == (len(targets), WIDTH, 5) and up.shape == (len(targets), 5, WIDTH)

    x = np.random.default_rng(2).standard_normal((7, WIDTH)).astype(np.float32)
    unmerged = (x @ kernel).astype(np.float64)
    size = np.abs(x) @ np.abs(kernel)
    for part, target in enumerate(targets):
        third = slice("qkv".index(target) * WIDTH, ("qkv".index(target) + 1) * WIDTH)
        unmerged[:, third] += 3.0 / 5 * ((x @ down[part]) @ up[part])
        size[:, third] += 3.0 / 5 * np.abs(x) @ np.abs(down[part]) @ np.abs(up[part])
    # A sum of n products is off by at most n roundings of the sum of their absolute values; in each
    # of the two ways a term passes through no more than these many.
    roundings = 2 * (WIDTH + 5 + 4)
    assert (np.abs(x @ merged - unmerged) <= roundings * 2.0**-24 * size).all()
    for target in set("qkv") - set(targets):
        third = slice("qkv".index(target) * WIDTH, ("qkv".index(target) + 1) * WIDTH)
        np.testing.assert_array_equal(merged[:, third], kernel[:, third])


def test_only_kernels_that_a_pattern_matches_are_updated(variables):
    params = variables["params"]
    options = LoraOptions(patterns=("blocks_1/attn/qkv/kernel$", "blocks_0/mlp/lin1/kernel$"))
    changed = {"image_encoder/blocks_0/mlp/lin1/kernel", "image_encoder/blocks_1/attn/qkv/kernel"}
    assert set(adapted(params, options)) == changed
    merged = merge_lora(params, trained(params, options), options)
    same = jax.tree.map(np.array_equal, merged, params)
    paths = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, equal in jax.tree_util.tree_leaves_with_path(same)
        if not equal
    }
    assert paths == changed


def test_heads_may_be_split(variables):
    options = LoraOptions(rank=2)
    params, split = variables["params"], split_heads(TEST, variables)["params"]
    lora = init_lora(jax.random.key(3), params, options)
    jax.tree.map(np.testing.assert_array_equal, init_lora(jax.random.key(3), split, options), lora)
    lora = trained(params, options)
    expected = split_heads(TEST, {"params": merge_lora(params, lora, options)})["params"]
    jax.tree.map(np.testing.assert_array_equal, merge_lora(split, lora, options), expected)


@pytest.mark.parametrize(
    "options, message",
    [
        (LoraOptions(rank=0), "rank of at least 1"),
        (LoraOptions(targets=()), "targets of q, k and v"),
        (LoraOptions(patterns=("(",)), "'\\(' is no regular expression"),
        (LoraOptions(patterns=("nothing",)), "'nothing' matches no kernel"),
    ],
)
def test_options_that_make_no_sense_are_refused(variables, options, message):
    with pytest.raises(InputError, match=message):
        init_lora(jax.random.key(0), variables["params"], options)
