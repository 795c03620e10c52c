"""Simulated prompts: where clicks fall, how often, and that x and y keep their places."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax.train.interactive.simulation import (
    SimulationOptions,
    correction,
    first_prompt,
    noisy_box,
    random_pixel,
    tight_box,
)

HEIGHT, WIDTH = 20, 50


@pytest.fixture
def mask():
    """An L far to the right of a low, wide frame: x and y cannot be mistaken."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[3:15, 40:42] = True
    mask[13:15, 40:48] = True
    return jnp.asarray(mask)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def test_pixels_are_drawn_uniformly_from_the_region_and_from_nowhere_else(mask):
    draws = 36_000
    points = np.asarray(jax.vmap(random_pixel, (0, None))(keys(draws), mask)).astype(int)
    counts = np.zeros((HEIGHT, WIDTH))
    np.add.at(counts, (points[:, 1], points[:, 0]), 1)
    inside = np.asarray(mask)
    assert counts[~inside].sum() == 0
    expected = draws / inside.sum()
    # Chi-squared over 36 pixels: mean 35, standard deviation 8.4; five of them.
    assert ((counts[inside] - expected) ** 2 / expected).sum() < 35 + 5 * 8.4


def test_single_pixels_are_found_wherever_they_are():
    for y, x in ((0, 0), (0, WIDTH - 1), (HEIGHT - 1, 0), (HEIGHT - 1, WIDTH - 1), (7, 31)):
        region = jnp.zeros((HEIGHT, WIDTH), bool).at[y, x].set(True)
        np.testing.assert_array_equal(random_pixel(jax.random.key(1), region), [x, y])
    empty = jnp.zeros((HEIGHT, WIDTH), bool)
    np.testing.assert_array_equal(random_pixel(jax.random.key(1), empty), [0, 0])


def whole(mask):
    """The size of an image that fills its frame."""
    return jnp.array(mask.shape)


def test_the_tight_box_is_x_before_y(mask):
    np.testing.assert_array_equal(tight_box(mask), [40, 3, 47, 14])
    np.testing.assert_array_equal(tight_box(jnp.zeros_like(mask)), [0, 0, 0, 0])


def test_gaussian_box_noise_has_its_spread_and_limit():
    mask = jnp.zeros((400, 600), bool).at[100:300, 200:260].set(True)
    options = SimulationOptions(max_box_noise=12.0)
    boxes = np.asarray(jax.vmap(lambda key: noisy_box(key, mask, whole(mask), options))(keys(4000)))
    noise = boxes - np.array([200, 100, 259, 299])
    # Width 60: a standard deviation of 6 and the limit at two of them. A normal distribution
    # clamped there keeps 0.962 of its spread; 4,000 draws tell it to about 1%.
    np.testing.assert_allclose(noise[:, [0, 2]].std(), 6 * 0.962, rtol=0.04)
    # Height 200: a standard deviation of 20 and the limit at 0.6 of them, where most draws end.
    assert np.abs(noise).max() == 12.0
    np.testing.assert_allclose((np.abs(noise[:, [1, 3]]) == 12.0).mean(), 0.5485, atol=0.03)
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=0.6)
    # Coordinates move independently.
    assert np.abs(np.corrcoef(noise.T) - np.eye(4)).max() < 0.08


def test_uniform_box_noise_reaches_a_tenth_of_each_side():
    mask = jnp.zeros((400, 600), bool).at[100:300, 200:260].set(True)
    options = SimulationOptions(box_noise_kind="uniform")
    boxes = np.asarray(jax.vmap(lambda key: noisy_box(key, mask, whole(mask), options))(keys(4000)))
    noise = np.abs(boxes - np.array([200, 100, 259, 299])).max(axis=0)
    np.testing.assert_allclose(noise, [6, 20, 6, 20], rtol=0.01)


def test_boxes_stay_in_the_frame_and_never_turn_over():
    everything = jnp.ones((HEIGHT, WIDTH), bool)
    pixel = jnp.zeros((HEIGHT, WIDTH), bool).at[5, 9].set(True)
    for mask in (everything, pixel):
        draw = jax.vmap(
            lambda key, mask=mask: noisy_box(key, mask, whole(mask), SimulationOptions())
        )
        boxes = np.asarray(draw(keys(500)))
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= [WIDTH - 1, HEIGHT - 1]).all()
        assert (boxes[:, 2:] >= boxes[:, :2]).all()


def test_first_prompts_are_points_and_boxes_in_their_proportion(mask):
    for probability in (0.0, 0.5, 1.0):
        options = SimulationOptions(box_probability=probability)
        draw = jax.vmap(lambda key, options=options: first_prompt(key, mask, whole(mask), options))
        coords, labels = map(np.asarray, draw(keys(2000)))
        boxes = (labels == [2, 3]).all(axis=1)
        points = (labels == [1, -2]).all(axis=1)
        assert (boxes | points).all()
        # Five standard deviations of a fair coin thrown 2,000 times.
        np.testing.assert_allclose(boxes.mean(), probability, atol=0.056 * (probability == 0.5))
        x, y = coords[points, 0].astype(int).T
        assert np.asarray(mask)[y, x].all()


def test_corrections_lie_where_the_prediction_is_wrong_and_say_how(mask):
    predicted = jnp.roll(mask, 3, axis=1)
    true, guess = np.asarray(mask), np.asarray(predicted)
    points, labels = jax.vmap(correction, (0, None, None, None))(
        keys(3000), predicted, mask, whole(mask)
    )
    x, y = np.asarray(points).astype(int).T
    assert (true[y, x] != guess[y, x]).all()
    np.testing.assert_array_equal(labels, true[y, x])
    lacking = (true & ~guess).sum() / (true != guess).sum()
    np.testing.assert_allclose(np.mean(labels), lacking, atol=0.05)


def test_where_nothing_is_wrong_the_correction_is_a_point_of_the_background(mask):
    points, labels = jax.vmap(correction, (0, None, None, None))(keys(200), mask, mask, whole(mask))
    x, y = np.asarray(points).astype(int).T
    assert not np.asarray(mask)[y, x].any() and not np.any(labels)
    full = jnp.ones_like(mask)
    _, label = correction(jax.random.key(0), full, full, whole(full))
    assert label == 1


def test_nobody_clicks_or_draws_boxes_in_the_padding(mask):
    size_hw = jnp.array([16, WIDTH])  # The object ends two rows above.
    everywhere = jnp.ones_like(mask)
    for predicted in (everywhere, mask):
        draw = jax.vmap(correction, (0, None, None, None))
        points, labels = draw(keys(500), predicted, mask, size_hw)
        assert (points[:, 1] < 16).all() and not labels.any()
    # What is predicted in the padding alone is no error of the image.
    beyond = mask.at[16:].set(True)
    points, _ = jax.vmap(correction, (0, None, None, None))(keys(500), beyond, mask, size_hw)
    assert (points[:, 1] < 16).all()
    options = SimulationOptions(box_noise=0.5)
    boxes = jax.vmap(lambda key: noisy_box(key, mask, size_hw, options))(keys(500))
    assert boxes[:, 3].max() == 15
