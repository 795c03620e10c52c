"""Batches of embeddings: new ones and kept ones are alike, so that one program takes both."""

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax.configs import TEST
from sam_jax.data.batches import EmbeddedBatch, TrainingBatch
from sam_jax.models.sam.sam import Sam
from sam_jax.train.jobs import random_variables
from sam_jax.train.tuning.embeddings import EmbeddedBatches

SIDE, MASKS = 64, 2


class Photos:
    """Batches of two photos, of which every one but the first has been there before."""

    def __init__(self):
        self.drawn = 0

    def __next__(self):
        numbers = [self.drawn, self.drawn + 1]
        self.drawn += 1
        images = np.stack([np.full((SIDE, SIDE, 3), 20 * n, np.uint8) for n in numbers])
        return TrainingBatch(
            images,
            np.full((2, 2), SIDE, np.int32),
            np.zeros((2, MASKS, SIDE, SIDE // 8), np.uint8),
            np.ones((2, MASKS), np.float32),
        )

    def get_state(self):
        return {}

    def set_state(self, state):
        pass

    def skipped(self):
        return {}

    def close(self):
        pass


def test_new_and_kept_embeddings_make_batches_of_the_shapes_that_were_told(tmp_path):
    variables, told = random_variables(TEST, 0), []
    model = Sam(TEST, jnp.bfloat16)
    batches = EmbeddedBatches(Photos(), model, lambda: variables, tmp_path / "kept", told.append)
    shapes = batches.shapes(next(Photos()))
    both_new, one_kept = next(batches), next(batches)
    for batch in (both_new, one_kept):
        assert isinstance(batch, EmbeddedBatch)
        jax.tree.map(
            lambda x, shape: np.testing.assert_equal(
                (x.shape, x.dtype), (shape.shape, shape.dtype)
            ),
            batch,
            shapes,
        )
    # Kept in float32, which holds every number of bfloat16.
    np.testing.assert_array_equal(one_kept.features.embedding[0], both_new.features.embedding[1])
    assert told == [f"encoding each image once; embeddings are kept in {tmp_path / 'kept'}"]
