"""SAM 2 as a function of images and prompts. Values are held by tests/parity."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax import Segmenter
from sam_jax.models.sam2.config import SAM2_TEST
from sam_jax.models.sam2.sam2 import Sam2
from sam_jax.types import Prompts
from tests.small_sam2 import small_variables

# Rounding, of a compiler that adds up in another order.
ATOL = 2e-4


@pytest.fixture(scope="module")
def variables():
    return small_variables()


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(1).standard_normal((2, 64, 96, 3), np.float32))


def clicks(batch=2, prompts=3, points=2):
    rng = np.random.default_rng(2)
    xy = rng.uniform(0, 64, (batch, prompts, points, 2)).astype(np.float32)
    labels = rng.integers(0, 2, (batch, prompts, points), np.int32)
    return Prompts(points=jnp.asarray(xy), labels=jnp.asarray(labels))


apply = Sam2(SAM2_TEST).apply
# The model is so small that it runs in less time than LLVM takes to optimize it.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
compiled = quick_jit(apply)


def assert_same(ours, expected):
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=ATOL)


def test_compiled_and_not_are_the_same(variables, images):
    eager = apply(variables, images, clicks())
    assert all(np.std(leaf) > 1e-3 for leaf in jax.tree.leaves(eager))
    assert_same(compiled(variables, images, clicks()), eager)


def test_absent_points_change_nothing(variables, images):
    prompts = clicks()
    filler = np.full((2, 3, 2, 2), 1e4, np.float32)
    padded = Prompts(
        points=np.concatenate([filler, prompts.points], axis=2),
        labels=np.concatenate([np.full((2, 3, 2), -2, np.int32), prompts.labels], axis=2),
    )
    assert_same(compiled(variables, images, padded), compiled(variables, images, prompts))


def test_prompts_in_another_order_give_the_same_in_that_order(variables, images):
    order = np.array([2, 0, 1])
    expected = compiled(variables, images, clicks())
    found = compiled(variables, images, jax.tree.map(lambda x: x[:, order], clicks()))
    assert_same(found, jax.tree.map(lambda x: x[:, order], expected))


def test_a_batch_is_each_image_and_prompt_alone(variables, images):
    together = compiled(variables, images, clicks())
    for image, prompt in ((0, 0), (1, 2)):

        def part(x, i=image, p=prompt):
            return x[i : i + 1, p : p + 1]

        alone = compiled(variables, images[image : image + 1], jax.tree.map(part, clicks()))
        assert_same(alone, jax.tree.map(part, together))


def test_bfloat16_compute_stays_close_and_keeps_parameters_in_float32(variables, images):
    model = Sam2(SAM2_TEST, jnp.bfloat16)
    drawn = jax.eval_shape(model.init, jax.random.key(0), images, clicks())
    assert {leaf.dtype for leaf in jax.tree.leaves(drawn)} == {jnp.dtype(jnp.float32)}
    found = quick_jit(model.apply)(variables, images, clicks())
    expected = compiled(variables, images, clicks())
    for rough, exact in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert rough.dtype == jnp.float32
        # Eight bits of mantissa through some twenty layers.
        assert np.quantile(np.abs(rough - exact), 0.5) < 0.05 * np.abs(exact).max()


def test_a_segmenter_answers_for_an_image_of_any_shape(variables):
    image = np.random.default_rng(3).integers(0, 256, (45, 70, 3), dtype=np.uint8)
    segmenter = Segmenter(SAM2_TEST, variables)
    embedding = segmenter.encode(image)
    points, labels = np.array([[[30, 20]], [[60, 40]]]), np.array([[1], [1]])
    both = segmenter.predict(embedding, points=points, labels=labels)
    assert both.masks.shape == (2, 3, 45, 70) and np.isfinite(both.logits).all()
    for i in range(2):
        one = segmenter.predict(embedding, points=points[i], labels=labels[i])
        assert_same((one.logits[0], one.scores[0]), (both.logits[i], both.scores[i]))
    boxes = segmenter.predict(embedding, boxes=[[5, 5, 40, 30]], multimask=False)
    assert boxes.masks.shape == (1, 1, 45, 70)
