import dataclasses
from functools import partial

import jax
import numpy as np
import pytest

from sam_jax.data.scenes.scenes import (
    HELD_OUT_KINDS,
    LARGEST,
    PART,
    SAME,
    SMALLEST,
    STUFF,
    SUBPART,
    WHOLE,
    SceneOptions,
    scene,
)
from sam_jax.errors import InputError

OPTIONS = SceneOptions(image_size=128, masks=20, objects=8, primitives=40)
COUNT = 24


@pytest.fixture(scope="module")
def draw():
    return jax.jit(partial(scene, options=OPTIONS))


@pytest.fixture(scope="module")
def scenes(draw):
    key = jax.random.key(7)
    return [jax.device_get(draw(jax.random.fold_in(key, i))) for i in range(COUNT)]


def kept(drawn, *levels):
    """Masks that have weight, of the given levels or of all."""
    return drawn.masks[(drawn.weights > 0) & (np.isin(drawn.levels, levels) if levels else True)]


def test_nothing_lies_beyond_the_image_and_every_shape_comes_up(scenes):
    side = OPTIONS.image_size
    for drawn in scenes:
        height, width = drawn.size_hw
        assert max(height, width) == side
        assert min(height, width) >= round(OPTIONS.least_aspect * side)
        beyond = np.ones((side, side), bool)
        beyond[:height, :width] = False
        assert not drawn.image[beyond].any() and not drawn.masks[:, beyond].any()
    sizes = np.array([drawn.size_hw for drawn in scenes])
    assert (sizes[:, 0] < sizes[:, 1]).any() and (sizes[:, 0] > sizes[:, 1]).any()


def test_masks_have_the_sizes_that_are_trained_on_and_no_weight_means_no_mask(scenes):
    for drawn in scenes:
        areas = kept(drawn).sum(axis=(1, 2))
        assert (areas >= SMALLEST * OPTIONS.image_size**2).all()
        assert (areas <= LARGEST * drawn.size_hw.prod()).all()
        assert not drawn.masks[drawn.weights == 0].any()
        assert set(np.unique(drawn.weights)) <= {0.0, 1.0}
    assert sum((drawn.weights > 0).sum() for drawn in scenes) > 4 * COUNT


def test_things_of_one_level_share_no_pixel(scenes):
    for drawn in scenes:
        for levels in ((WHOLE, STUFF), (PART,), (SUBPART,)):
            assert kept(drawn, *levels).sum(axis=0, initial=0).max() <= 1


def test_parts_lie_in_their_wholes_and_are_not_the_same(scenes):
    nested = 0
    for drawn in scenes:
        for outer, inner in ((WHOLE, PART), (WHOLE, SUBPART), (PART, SUBPART), (STUFF, PART)):
            for whole in kept(drawn, outer):
                for part in kept(drawn, inner):
                    shared = (whole & part).sum()
                    # In it entirely, or in another one.
                    assert shared in (0, part.sum())
                    if shared:
                        assert part.sum() < SAME * whole.sum() and outer != STUFF
                        nested += 1
    assert nested > COUNT


def test_every_level_comes_up_and_scales_vary(scenes):
    levels = np.concatenate([drawn.levels[drawn.weights > 0] for drawn in scenes])
    assert set(levels) == {WHOLE, PART, SUBPART, STUFF}
    shares = np.concatenate(
        [kept(drawn, WHOLE).sum(axis=(1, 2)) / drawn.size_hw.prod() for drawn in scenes]
    )
    assert (shares < 0.03).any() and (shares > 0.3).any()


def test_masks_show_in_the_image(scenes):
    # Over all scenes, neighbors differ more over an edge of a mask than elsewhere.
    over, elsewhere = [], []
    for drawn in scenes:
        image = drawn.image.astype(float)
        step = np.abs(np.diff(image, axis=1)).mean(axis=-1)
        masks = kept(drawn, WHOLE)
        edge = (masks[:, :, 1:] != masks[:, :, :-1]).any(axis=0)
        inside = np.zeros_like(edge)
        inside[: drawn.size_hw[0], : drawn.size_hw[1] - 1] = True
        over.append(step[edge & inside].mean() if (edge & inside).any() else np.nan)
        elsewhere.append(step[~edge & inside].mean())
    assert np.nanmedian(np.array(over) / np.array(elsewhere)) > 1.5


def test_a_scene_is_a_function_of_its_key(draw, scenes):
    again = jax.device_get(draw(jax.random.fold_in(jax.random.key(7), 3)))
    for ours, before in zip(jax.tree.leaves(again), jax.tree.leaves(scenes[3]), strict=True):
        np.testing.assert_array_equal(ours, before)
    assert len({drawn.image.tobytes() for drawn in scenes}) == COUNT


def test_pictures_are_neither_dark_nor_blown_out_as_a_rule(scenes):
    means = np.array([s.image[: s.size_hw[0], : s.size_hw[1]].mean() for s in scenes])
    assert 60 < np.median(means) < 190
    assert np.median([s.image[: s.size_hw[0], : s.size_hw[1]].std() for s in scenes]) > 25


@pytest.mark.parametrize(
    "change, words",
    [
        ({"image_size": 100}, "multiple of 64"),
        ({"image_size": 0}, "multiple of 64"),
        ({"masks": 0}, "at least 1"),
        ({"objects": 0}, "at least 1"),
        ({"primitives": 5}, "at least 15"),
        ({"kinds": ("coin", "cloud")}, "cloud"),
        ({"kinds": ()}, "no names"),
        ({"least_aspect": 0.1}, "0.25 to 1"),
        ({"difficulty": 1.5}, "0 to 1"),
        ({"group": -0.1}, "0 to 1"),
        ({"stuff": float("nan")}, "0 to 1"),
    ],
)
def test_options_say_what_they_want(change, words):
    with pytest.raises(InputError, match=words):
        SceneOptions(**change)


def test_the_usual_options_hold_nothing_out_of_training_in():
    assert not set(SceneOptions().kinds) & set(HELD_OUT_KINDS)
    assert hash(SceneOptions()) == hash(dataclasses.replace(SceneOptions()))


@pytest.mark.slow
@pytest.mark.parametrize("side", [64, 1024])
def test_other_sizes_are_drawn_too(side):
    options = SceneOptions(image_size=side, masks=4, least_aspect=1.0)
    drawn = jax.jit(partial(scene, options=options))(jax.random.key(0))
    assert drawn.image.shape == (side, side, 3) and drawn.masks.shape == (4, side, side)
    assert drawn.weights.sum() > 0 and tuple(drawn.size_hw) == (side, side)


@pytest.mark.slow
def test_drawing_scenes_together_changes_nothing_that_is_seen(draw, scenes):
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(7), i))(np.arange(4))
    together = jax.device_get(jax.jit(jax.vmap(partial(scene, options=OPTIONS)))(keys))
    for i in range(4):
        np.testing.assert_array_equal(together.size_hw[i], scenes[i].size_hw)
        np.testing.assert_array_equal(together.levels[i], scenes[i].levels)
        # Products of matrices are added up in another order: single gray values round otherwise,
        # and with them, rarely, a coefficient of JPEG; an edge may pass a pixel's very center.
        assert (together.masks[i] != scenes[i].masks).mean() < 1e-4
        difference = np.abs(together.image[i].astype(int) - scenes[i].image)
        assert (difference > 1).mean() < 0.02


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"objects": 1}, marks=pytest.mark.slow),
        pytest.param({"objects": 3, "masks": 64, "primitives": 20}, marks=pytest.mark.slow),
    ],
)
def test_few_objects_and_more_masks_than_there_can_be(change):
    options = SceneOptions(image_size=64, least_aspect=1.0, **change)
    found = jax.jit(scene, static_argnums=1)(jax.random.key(3), options)
    masks, weights = np.asarray(found.masks), np.asarray(found.weights)
    assert masks.shape == (options.masks, 64, 64) and 0 < weights.sum() < options.masks
    np.testing.assert_array_equal(masks.any(axis=(1, 2)), weights > 0)
