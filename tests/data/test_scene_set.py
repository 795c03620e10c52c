"""Procedural scenes as a dataset."""

import numpy as np
import pytest

from sam_jax.data.layouts import open_dataset
from sam_jax.data.samples import check_sizes, decoded_image, mask_counts
from sam_jax.data.scenes.batches import SceneBatches
from sam_jax.data.scenes.scene_set import FIRST_SCENE, SceneSet
from sam_jax.data.scenes.scenes import HELD_OUT_KINDS, TRAINING_KINDS, SceneOptions
from sam_jax.errors import InputError
from sam_jax.formats.rle import counts_to_rle, decode_rle

OPTIONS = SceneOptions(image_size=64, masks=6, objects=4, primitives=20)


@pytest.mark.slow
def test_samples_are_the_scenes_that_training_would_draw():
    scenes = SceneSet(OPTIONS, count=3, seed=5, first=7)
    assert len(scenes) == 3
    for index in range(3):
        sample = scenes[index]
        batch = next(SceneBatches(OPTIONS, 5, 1, start=7 + index))
        height, width = sample.size_hw
        assert (height, width) == tuple(batch.sizes_hw[0]) and max(sample.size_hw) == 64
        np.testing.assert_array_equal(sample.image, batch.images[0, :height, :width])
        masks = np.unpackbits(np.asarray(batch.masks[0]), axis=-1).astype(bool)
        masks = masks[np.asarray(batch.weights[0]) > 0, :height, :width]
        check_sizes(sample)
        assert decoded_image(sample).size == (width, height)
        counts = [mask_counts(sample, number) for number in range(len(sample.segmentations))]
        found = [decode_rle(counts_to_rle(one, sample.size_hw)) for one in counts]
        assert len(found) > 0
        np.testing.assert_array_equal(found, masks)


def test_sets_by_name_are_of_kinds_that_training_has_or_never_has():
    assert open_dataset("scenes").options.kinds == TRAINING_KINDS
    held_out = open_dataset("scenes:held-out")
    assert held_out.options.kinds == HELD_OUT_KINDS
    assert not set(HELD_OUT_KINDS) & set(TRAINING_KINDS)
    assert held_out.description == "500 procedural scenes of 5 held-out kinds of object"
    # 700,000 updates of 1,024 images.
    assert held_out.first > 700_000 * 1024
    # Indices are 32-bit integers.
    assert FIRST_SCENE + len(held_out) < 2**31
    with pytest.raises(InputError, match="scenes or scenes:held-out"):
        open_dataset("scenes:others")
    with pytest.raises(InputError, match="leave annotations out"):
        open_dataset("scenes", "instances.json")
