"""The example that trained the shipped `tiny`: its scenes, its update, and what it saves."""

import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax.checkpoints import load_checkpoint
from sam_jax.configs import TINY
from sam_jax.models.sam import Sam

FOLDER = Path(__file__).parents[1] / "examples" / "small_model"
SMALL = replace(
    TINY,
    name="small",
    image_encoder=replace(
        TINY.image_encoder, embed_dim=32, depth=1, mlp_dim=32, global_attention_indexes=()
    ),
    embed_dim=32,
    decoder_depth=1,
    decoder_mlp_dim=32,
)


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import scenes
    import train

    yield scenes, train
    for name in ("scenes", "train"):
        sys.modules.pop(name)


def test_a_scene_is_the_same_for_the_same_seed_and_its_masks_lie_in_it(example):
    scenes, _ = example
    for seed in range(5):
        scene = scenes.draw_scene((seed, 0), 64)
        again = scenes.draw_scene((seed, 0), 64)
        np.testing.assert_array_equal(scene.image, again.image)
        np.testing.assert_array_equal(scene.masks, again.masks)
        assert scene.image.shape == (64, 64, 3) and scene.image.dtype == np.uint8
        assert scene.masks.shape[1:] == (32, 32) and scene.masks.any((1, 2)).all()
        height, width = scene.size_hw
        assert not scene.masks[:, -(-height // 2) :].any()
        assert not scene.masks[:, :, -(-width // 2) :].any()


def test_clicks_lie_where_they_must_on_non_square_masks(example):
    _, train = example
    region = np.zeros((1, 2, 8, 20), bool)
    region[0, 0, 2, 15] = True  # row 2, column 15
    xy, labels = train.click(jax.random.key(0), jnp.asarray(region), jnp.asarray(region))
    np.testing.assert_array_equal(xy[0, 0], [30.5, 4.5])  # (x, y), in pixels of twice the size
    assert labels[0].tolist() == [1, 0]  # an empty region gives a background click


def test_boxes_without_noise_are_tight(example):
    _, train = example
    masks = np.zeros((1, 1, 16, 16), bool)
    masks[0, 0, 3:7, 5:14] = True
    boxes = train.noisy_boxes(jax.random.key(0), jnp.asarray(masks), noise=0.0)
    np.testing.assert_array_equal(boxes[0, 0], [10, 6, 28, 14])


@pytest.mark.slow
def test_updates_on_one_batch_lower_its_loss(example):
    scenes, train = example
    batch = scenes.draw_batch(0, 0, 2, 2, 64)
    model, optimizer = Sam(SMALL), train.make_optimizer()
    state = train.initial_state(SMALL, optimizer)
    losses = []
    for _ in range(12):
        state, loss, ious = train.update(model, optimizer, state, batch, jnp.float32(1e-3))
        losses.append(float(loss))
    assert np.isfinite(losses).all() and ious.shape == (train.CORRECTIONS + 1,)
    assert min(losses[-3:]) < 0.9 * losses[0]


def test_the_shipped_model_is_the_configuration_it_says():
    checkpoint = load_checkpoint(Path(__file__).parents[1] / "sam_jax" / "weights" / "tiny")
    assert checkpoint.config == TINY
    assert checkpoint.source["trained_with"] == "examples/small_model/train.py"
