"""A short clip from its first prompt to its last frame, and the same in other ways."""

import pickle

import jax
import numpy as np
import pytest

from sam_jax.models.sam2.config import SAM2_TEST
from sam_jax.video.tracker import Tracker
from tests.small_sam2 import small_variables

SIZE = (40, 60)
CLICKS = {"left": [[12, 20]], "right": [[45, 15], [50, 30]]}


@pytest.fixture(scope="module")
def frames():
    """A square that moves over noise."""
    drawn = np.random.default_rng(0).integers(0, 90, (5, *SIZE, 3)).astype(np.uint8)
    for i, frame in enumerate(drawn):
        frame[12:26, 5 + 4 * i : 19 + 4 * i] = (220, 60, 40)
    return drawn


@pytest.fixture(scope="module")
def tracker():
    return Tracker(SAM2_TEST, small_variables(), max_objects=2)


def started(tracker, frames, names=("left", "right")):
    state = tracker.start(SIZE)
    for name in names:
        state = tracker.prompt(state, frames[0], name, points=CLICKS[name])
    return state


def followed(tracker, state, frames):
    """What is found in each frame, and the state after the last."""
    found = []
    for frame in frames:
        state, masks = tracker.step(state, frame)
        found.append(masks)
    return found, state


@pytest.fixture(scope="module")
def whole(tracker, frames):
    return followed(tracker, started(tracker, frames), frames)[0]


def logits_of(masks, name):
    return np.asarray(masks.logits)[masks.object_ids.index(name)]


def test_a_clip_is_followed_to_its_end(whole):
    assert [masks.frame_index for masks in whole] == [0, 1, 2, 3, 4]
    for masks in whole:
        assert masks.object_ids == ("left", "right") and masks.masks.shape == (2, *SIZE)
        assert np.isfinite(masks.logits).all() and np.std(logits_of(masks, "left")) > 1e-3
    # Memory is looked at: the same frame again is not answered as it was.
    assert np.abs(whole[1].logits - whole[0].logits).max() > 1e-3


def test_the_order_of_prompts_changes_no_object(tracker, frames, whole):
    state = started(tracker, frames, ("right", "left"))
    for found, expected in zip(followed(tracker, state, frames)[0], whole, strict=True):
        for name in CLICKS:
            # Of another place in the batch: float32 rounding.
            ours, theirs = logits_of(found, name), logits_of(expected, name)
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-3)


def test_a_state_that_was_kept_goes_on_to_the_same_bits(tracker, frames, whole):
    before, state = followed(tracker, started(tracker, frames), frames[:2])
    kept = pickle.loads(pickle.dumps(jax.device_get(state)))
    after, _ = followed(tracker, kept, frames[2:])
    for found, expected in zip(before + after, whole, strict=True):
        assert found.frame_index == expected.frame_index
        np.testing.assert_array_equal(found.logits, expected.logits)


def test_another_tracker_of_the_same_model_gives_the_same(frames, whole):
    other = Tracker(SAM2_TEST, small_variables(), max_objects=2)
    found, _ = followed(other, started(other, frames), frames)
    for masks, expected in zip(found, whole, strict=True):
        np.testing.assert_array_equal(masks.logits, expected.logits)
