"""Losses against the same formulas in PyTorch, and padding objects that count for nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax.train.interactive.losses import (
    LossOptions,
    actual_iou,
    combined,
    dice_loss,
    focal_loss,
    mask_terms,
)

torch = pytest.importorskip("torch")


@pytest.fixture
def masks():
    rng = np.random.default_rng(0)
    logits = 4 * rng.standard_normal((2, 3, 4, 9, 13), np.float32)
    return logits, rng.random((2, 3, 1, 9, 13)) < 0.3


def both(ours, theirs, logits, target):
    """Values and gradients with respect to the logits of two implementations."""
    value, gradient = jax.value_and_grad(lambda x: ours(x).sum())(jnp.asarray(logits))
    x = torch.from_numpy(logits).requires_grad_()
    expected = theirs(x, torch.from_numpy(target).float().expand_as(x)).sum()
    expected.backward()
    return (value, gradient), (expected.item(), x.grad.numpy())


@pytest.mark.parametrize(
    "alpha, gamma", [(0.25, 2.0), (-1.0, 2.0), (0.6, 0.5), (0.25, 0.0), (-1.0, 0.0)]
)
def test_the_focal_loss_is_the_one_of_its_paper(masks, alpha, gamma):
    logits, target = masks

    def reference(x, t):
        p = torch.sigmoid(x)
        ce = torch.nn.functional.binary_cross_entropy_with_logits(x, t, reduction="none")
        p_t = p * t + (1 - p) * (1 - t)
        loss = ce * (1 - p_t) ** gamma
        if alpha >= 0:
            loss = (alpha * t + (1 - alpha) * (1 - t)) * loss
        return loss.mean((-2, -1))

    mine, theirs = both(
        lambda x: focal_loss(x, jnp.asarray(target), alpha, gamma), reference, logits, target
    )
    # Float32 sums of 117 pixels in another order.
    np.testing.assert_allclose(mine[0], theirs[0], rtol=1e-5)
    np.testing.assert_allclose(mine[1], theirs[1], atol=1e-6)


def test_the_dice_loss_is_that_of_probabilities(masks):
    logits, target = masks

    def reference(x, t):
        p, t = torch.sigmoid(x).flatten(3), t.flatten(3)
        return 1 - (2 * (p * t).sum(-1) + 1) / (p.sum(-1) + t.sum(-1) + 1)

    mine, theirs = both(lambda x: dice_loss(x, jnp.asarray(target)), reference, logits, target)
    np.testing.assert_allclose(mine[0], theirs[0], rtol=1e-5)
    np.testing.assert_allclose(mine[1], theirs[1], atol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_logits_of_any_size_have_finite_losses_and_gradients(gamma):
    logits = jnp.array([[1e4, -1e4, 0.0, 90.0]])[None]
    target = jnp.array([[True, True, False, False]])[None]

    def loss(x):
        return (focal_loss(x, target, gamma=gamma) + dice_loss(x, target)).sum()

    value, gradient = jax.value_and_grad(loss)(logits)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    # A pixel that is right without doubt costs nothing; one that is wrong costs its logit.
    focal = focal_loss(logits[..., :1], target[..., :1])
    np.testing.assert_allclose(focal, [0.0], atol=0)
    np.testing.assert_allclose(focal_loss(logits[..., 1:2], target[..., 1:2]), [0.25e4], rtol=1e-6)


def test_iou_by_counting():
    logits = jnp.array([[[3.0, -1.0], [2.0, 5.0]], [[-1.0, -1.0], [-1.0, 0.0]]])
    target = jnp.array([[True, True], [False, True]])
    np.testing.assert_array_equal(actual_iou(logits, target), [0.5, 0.0])
    np.testing.assert_array_equal(actual_iou(-jnp.ones((1, 2, 2)), jnp.zeros((1, 2, 2), bool)), [0])


@pytest.mark.parametrize("iou_of", ["chosen", "all"])
def test_of_three_masks_the_best_alone_is_trained(masks, iou_of):
    logits, target = jnp.asarray(masks[0]), jnp.asarray(masks[1])
    options = LossOptions(iou_of=iou_of)
    predicted = jnp.asarray(np.random.default_rng(1).random((2, 3, 4), np.float32))
    weights = jnp.ones((2, 3))

    def loss(x, predicted):
        return combined(mask_terms(x, target, options), predicted, weights, options).total

    to_logits, to_predicted = jax.grad(loss, argnums=(0, 1))(logits, predicted)
    terms = mask_terms(logits, target, options)
    best = np.argmin(20 * terms.focal + terms.dice, axis=-1)
    trained = np.any(np.asarray(to_logits) != 0, axis=(-2, -1))
    np.testing.assert_array_equal(trained, np.arange(4) == best[..., None])
    iou_trained = np.asarray(to_predicted) != 0
    np.testing.assert_array_equal(iou_trained, trained if iou_of == "chosen" else True)


def test_the_sum_is_that_of_each_object_alone(masks):
    logits, target = jnp.asarray(masks[0]), jnp.asarray(masks[1])
    options = LossOptions(focal_weight=3.0, dice_weight=2.0, iou_weight=5.0)
    predicted = jnp.full((2, 3, 4), 0.4)
    sums = combined(mask_terms(logits, target, options), predicted, jnp.ones((2, 3)), options)
    expected = 0.0
    for b in range(2):
        for p in range(3):
            terms = mask_terms(logits[b, p], target[b, p], options)
            each = 3 * terms.focal + 2 * terms.dice
            m = int(np.argmin(each))
            expected += each[m] + 5 * (0.4 - terms.iou[m]) ** 2
    np.testing.assert_allclose(sums.total, expected, rtol=1e-5)
    parts = 3 * sums.focal + 2 * sums.dice + 5 * sums.iou
    np.testing.assert_allclose(sums.total, parts, rtol=1e-6)


def test_padding_objects_change_neither_values_nor_gradients(masks):
    logits, target = jnp.asarray(masks[0]), jnp.asarray(masks[1])
    options = LossOptions()

    def loss(x, target, weights):
        terms = mask_terms(x, target, options)
        return combined(terms, jnp.full(x.shape[:3], 0.7), weights, options).total

    value, gradient = jax.value_and_grad(loss)(logits, target, jnp.ones((2, 3)))
    more = jnp.concatenate([logits, 1e3 * jnp.ones((2, 2, *logits.shape[2:]))], axis=1)
    more_target = jnp.concatenate([target, jnp.zeros((2, 2, *target.shape[2:]), bool)], axis=1)
    weights = jnp.array([[1.0, 1, 1, 0, 0]] * 2)
    padded, padded_gradient = jax.value_and_grad(loss)(more, more_target, weights)
    # The same numbers; only the order of a sum of six may differ.
    np.testing.assert_allclose(padded, value, rtol=1e-6)
    np.testing.assert_allclose(padded_gradient[:, :3], gradient, rtol=1e-6)
    np.testing.assert_array_equal(padded_gradient[:, 3:], 0)


def test_the_other_masks_have_their_share_of_the_loss_where_they_are_given_one(masks):
    logits, target = masks
    terms = mask_terms(jnp.asarray(logits), jnp.asarray(target), LossOptions())
    weights = jnp.ones(logits.shape[:2])
    predicted = jnp.zeros(logits.shape[:3])

    def found(share):
        return combined(terms, predicted, weights, LossOptions(others_weight=share))

    least, mixed, mean = found(0.0), found(0.3), found(1.0)
    np.testing.assert_allclose(mean.dice, terms.dice.mean(axis=-1).sum(), rtol=1e-6)
    np.testing.assert_allclose(mixed.dice, 0.7 * least.dice + 0.3 * mean.dice, rtol=1e-6)
    np.testing.assert_allclose(mixed.focal, 0.7 * least.focal + 0.3 * mean.focal, rtol=1e-6)
    assert mean.dice > least.dice
