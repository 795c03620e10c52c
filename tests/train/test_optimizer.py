"""Learning rates, decay and what is frozen, against numbers by hand and torch's AdamW."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sam_jax import InputError
from sam_jax.configs import TEST, VIT_H
from sam_jax.models.sam.sam import variable_shapes
from sam_jax.train.loop.optimizer import (
    OptimizerOptions,
    decays,
    layer_scale,
    learning_rate,
    make_optimizer,
    paths,
)

PARAMS = {
    "image_encoder": {
        "patch_embed": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
        "pos_embed": jnp.ones((2, 2)),
        "blocks_0": {"mlp": {"kernel": jnp.ones((3, 3))}},
        "blocks_1": {"norm1": {"scale": jnp.ones(3)}, "mlp": {"kernel": jnp.ones((3, 3))}},
        "neck": {"conv1": {"kernel": jnp.ones((1, 1, 3, 3))}},
    },
    "mask_decoder": {"iou_token": jnp.ones(3), "head": {"kernel": jnp.ones((3, 2))}},
}


def test_the_papers_schedule_warms_up_and_steps_down_twice():
    rate = learning_rate(OptimizerOptions())
    found = [float(rate(step)) for step in (0, 125, 250, 59_999, 60_000, 86_665, 86_666, 89_999)]
    expected = [8e-7, 8e-4 * (0.001 + 0.999 / 2), *[8e-4] * 2, *[8e-5] * 2, *[8e-6] * 2]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_cosine_ends_at_zero():
    rate = learning_rate(
        OptimizerOptions(schedule="cosine", steps=110, warmup_steps=10, warmup_start=0.0)
    )
    found = [float(rate(step)) for step in (0, 5, 10, 60, 110)]
    np.testing.assert_allclose(found, [0, 4e-4, 8e-4, 4e-4, 0], atol=1e-9)


@pytest.mark.parametrize(
    "path, power",
    [
        ("image_encoder/patch_embed/kernel", 33),
        ("image_encoder/pos_embed", 33),
        ("image_encoder/blocks_0/attn/qkv/kernel", 32),
        ("image_encoder/stem_16/kernel", 33),
        ("image_encoder/conv_block_4/norm/scale", 33),
        ("image_encoder/norm_8/bias", 33),
        ("image_encoder/norm_16/bias", 0),
        ("image_encoder/conv_block_up/conv1/kernel", 0),
        ("image_encoder/detail_2/kernel", 0),
        ("image_encoder/blocks_31/norm2/scale", 1),
        ("image_encoder/neck/conv1/kernel", 0),
        ("mask_decoder/iou_token", 0),
        ("prompt_encoder/point_embeddings", 0),
    ],
)
def test_learning_rates_fall_with_the_distance_from_the_decoder(path, power):
    assert layer_scale(path, VIT_H.image_encoder.depth, 0.8) == pytest.approx(0.8**power)


def test_kernels_alone_decay():
    shapes = variable_shapes(TEST)["params"]
    named = jax.tree.leaves(paths(shapes))
    decayed = {
        name
        for name, leaf in zip(named, jax.tree.leaves(shapes), strict=True)
        if decays(name, leaf.ndim)
    }
    assert decayed == {name for name in named if name.endswith("kernel")}
    assert any("rel_pos" in name for name in named)


def test_updates_are_torchs_adamw_with_a_learning_rate_for_each_layer():
    torch = pytest.importorskip("torch")
    options = OptimizerOptions(
        learning_rate=1e-2, warmup_steps=0, decay_steps=(2,), layer_decay=0.5, weight_decay=0.3
    )
    optimizer = make_optimizer(options, PARAMS, depth=2)
    params, state = PARAMS, optimizer.init(PARAMS)
    names, leaves = jax.tree.leaves(paths(PARAMS)), jax.tree.leaves(PARAMS)
    tensors = [torch.nn.Parameter(torch.tensor(np.asarray(leaf))) for leaf in leaves]
    scales = [layer_scale(name, 2, 0.5) for name in names]
    groups = [
        {"params": [tensor], "weight_decay": 0.3 if decays(name, tensor.ndim) else 0.0}
        for name, tensor in zip(names, tensors, strict=True)
    ]
    theirs = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)
    rng = np.random.default_rng(0)
    for step in range(4):
        grads = [rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
        tree = jax.tree.unflatten(jax.tree.structure(PARAMS), [jnp.asarray(g) for g in grads])
        updates, state = optimizer.update(tree, state, params)
        params = optax.apply_updates(params, updates)
        rate = 1e-2 * (0.1 if step >= 2 else 1)
        for group, scale, tensor, grad in zip(
            theirs.param_groups, scales, tensors, grads, strict=True
        ):
            group["lr"] = rate * scale
            tensor.grad = torch.tensor(grad)
        theirs.step()
    for ours, tensor in zip(jax.tree.leaves(params), tensors, strict=True):
        # Four updates of float32.
        np.testing.assert_allclose(ours, tensor.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_muon_makes_matrices_orthogonal_and_leaves_the_rest_to_adamw():
    rng = np.random.default_rng(0)
    shape = (6, 4)
    params = {
        "a": {"kernel": jnp.zeros(shape), "bias": jnp.zeros(4)},
        "conv": {"kernel": jnp.zeros((3, 3, 2, 4)), "bias": jnp.zeros(4)},
        "pointwise": {"kernel": jnp.zeros((1, 1, 5, 3))},
        # What has no pixel in the middle of its window, and what is no single matrix.
        "patch_embed": {"kernel": jnp.zeros((4, 4, 3, 5))},
        "upscale": {"kernel": jnp.zeros((3, 2, 2, 4))},
        "oblong": {"kernel": jnp.zeros((3, 1, 2, 4))},
        "stack": {"kernel": jnp.zeros((3, 3, 4))},
        "pos_embed": jnp.zeros((3, 3, 4)),
        "frozen": {"kernel": jnp.zeros(shape)},
    }
    options = OptimizerOptions(
        rule="muon", learning_rate=0.1, warmup_steps=0, weight_decay=0.0, frozen=("^frozen",)
    )
    optimizer = make_optimizer(options, params, depth=2)
    grads = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    # A convolution is a matrix over all pixels of its window and channels.
    for part, (rows, columns) in {"a": shape, "conv": (18, 4), "pointwise": (5, 3)}.items():
        # Newton-Schulz's five steps bring singular values near 1, not to it; the length is Adam's.
        matrix = updates[part]["kernel"].reshape(rows, columns)
        singular = np.linalg.svd(matrix, compute_uv=False)
        expected = 0.1 * 0.2 * max(rows, columns) ** 0.5
        assert (0.6 * expected < singular).all() and (singular < 1.3 * expected).all()
        # It keeps the gradient's directions, and turns none around.
        product = -grads[part]["kernel"].reshape(rows, columns).T @ matrix
        np.testing.assert_allclose(product, product.T, atol=1e-4)
        assert (np.linalg.eigvalsh(product) > 0).all()
    # Adam's first update is the gradient's sign.
    others = [("a", "bias"), ("conv", "bias")]
    others += [(part, "kernel") for part in ("patch_embed", "upscale", "oblong", "stack")]
    pairs = [(updates[part][name], grads[part][name]) for part, name in others]
    for update, grad in [*pairs, (updates["pos_embed"], grads["pos_embed"])]:
        np.testing.assert_allclose(update, -0.1 * np.sign(grad), rtol=1e-3)
    assert not np.any(updates["frozen"]["kernel"])


def test_frozen_parameters_stay_and_cost_no_state():
    options = OptimizerOptions(frozen=("^image_encoder/",), warmup_steps=0, weight_decay=0.5)
    optimizer = make_optimizer(options, PARAMS, depth=2)
    state = optimizer.init(PARAMS)
    assert sum(x.size for x in jax.tree.leaves(state)) <= 2 * (3 + 6) + 2
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    new = optax.apply_updates(PARAMS, optimizer.update(grads, state, PARAMS)[0])
    jax.tree.map(np.testing.assert_array_equal, new["image_encoder"], PARAMS["image_encoder"])
    assert np.all(new["mask_decoder"]["iou_token"] != 1)


def test_clipping_is_by_the_norm_of_what_is_trained():
    options = OptimizerOptions(clip_norm=1.0, frozen=("neck",), warmup_steps=0)
    optimizer = make_optimizer(options, PARAMS, depth=2)
    grads = jax.tree.map(lambda x: 1e6 * jnp.ones_like(x), PARAMS)
    _, state = optimizer.update(grads, optimizer.init(PARAMS), PARAMS)
    first = [x for x in jax.tree.leaves(state) if x.ndim]
    count = sum(x.size for x in jax.tree.leaves(PARAMS)) - 9
    largest = max(float(np.abs(x).max()) for x in first)
    np.testing.assert_allclose(largest, 0.1 / np.sqrt(count), rtol=1e-4)


@pytest.mark.parametrize(
    "frozen, message",
    [
        (("nothing_like_it",), "matches no parameter"),
        (("(",), "no regular expression"),
        (("",), "nothing would be trained"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(frozen, message):
    with pytest.raises(InputError, match=message):
        make_optimizer(OptimizerOptions(frozen=frozen), PARAMS, depth=2)


def test_a_run_may_be_gone_on_from_with_clipping():
    states = [
        jax.eval_shape(
            make_optimizer(OptimizerOptions(clip_norm=norm), PARAMS, depth=2).init, PARAMS
        )
        for norm in (0.0, 1.0)
    ]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
