"""The tracker's state is a value of fixed size, and what it is told wrong it says."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax.errors import CheckpointError, InputError
from sam_jax.models.sam2.config import SAM2_1_TINY, SAM2_TEST
from sam_jax.models.sam2.mask_selection import ABSENT
from sam_jax.video import programs
from sam_jax.video.memory_bank import slot_for
from sam_jax.video.state import EMPTY
from sam_jax.video.tracked_masks import TrackedMasks
from sam_jax.video.tracker import Tracker
from tests.small_sam2 import small_variables

SIZE = (50, 70)


@pytest.fixture(scope="module")
def variables():
    return small_variables()


@pytest.fixture(scope="module")
def tracker(variables):
    return Tracker(SAM2_TEST, variables, max_objects=4)


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (*SIZE, 3)).astype(np.uint8) for _ in range(12)]


def started(tracker, frames, *objects):
    state = tracker.start(SIZE)
    encoded = tracker.encode(frames[0])
    for i, one in enumerate(objects):
        state = tracker.prompt(state, encoded, one, points=[[10 + 15 * i, 20]])
    return state


def sizes(state):
    return jax.tree.map(lambda x: (x.shape, x.dtype), state.bank)


def test_a_state_has_one_size_and_nothing_is_compiled_while_a_video_goes_on(tracker, frames):
    state = started(tracker, frames, "a", "b")
    state, _ = tracker.step(state, frames[0])
    state, _ = tracker.step(state, frames[1])
    before, compiled = sizes(state), programs.follow._cache_size()
    for i in range(2, 30):
        state, found = tracker.step(state, frames[i % 12])
        assert found.frame_index == i
    assert sizes(state) == before
    assert programs.follow._cache_size() == compiled
    # A correction and an object in a slot that is free compile no step either.
    state = tracker.prompt(state, frames[5], "a", points=[[30, 30]], frame_index=29)
    state = tracker.remove(state, "b")
    state = tracker.prompt(state, frames[6], "c", box=[5, 5, 40, 40])
    state, found = tracker.step(state, frames[6])
    assert found.object_ids == ("a", "c")
    assert sizes(state) == before and programs.follow._cache_size() == compiled


def test_a_late_object_changes_no_other(tracker, frames):
    alone = started(tracker, frames, "a")
    together = started(tracker, frames, "a")
    for i in range(6):
        if i == 3:
            together = tracker.prompt(together, frames[i], "late", box=[20, 5, 60, 45])
            together = tracker.prompt(together, frames[i], "later", points=[[60, 40]])
        alone, one = tracker.step(alone, frames[i])
        together, many = tracker.step(together, frames[i])
        # Another bucket is another program, whose sums may be ordered otherwise.
        np.testing.assert_allclose(many.logits[0], one.logits[0], atol=2e-3)
    assert many.object_ids == ("a", "late", "later")


def test_an_object_in_a_free_slot_and_one_removed_change_no_bit_of_the_others(tracker, frames):
    alone = started(tracker, frames, "a", "b", "c")
    together = alone
    for i in range(6):
        if i == 2:
            together = tracker.prompt(together, frames[i], "late", points=[[60, 40]])
        if i == 4:
            together = tracker.remove(together, "b")
        alone, one = tracker.step(alone, frames[i])
        together, many = tracker.step(together, frames[i])
        for name in ("a", "c"):
            np.testing.assert_array_equal(many.mask(name), one.mask(name))
            ours, theirs = (x.logits[x.object_ids.index(name)] for x in (many, one))
            np.testing.assert_array_equal(ours, theirs)


def test_old_states_stay_valid(tracker, frames):
    state = started(tracker, frames, 1)
    state, _ = tracker.step(state, frames[0])
    _, first = tracker.step(state, frames[1])
    for i in (2, 3):
        tracker.step(tracker.prompt(state, frames[i], 1, points=[[1, 1]]), frames[i])
    _, again = tracker.step(state, frames[1])
    np.testing.assert_array_equal(first.logits, again.logits)


def test_a_prompted_frame_shows_the_answer_and_a_removed_object_nothing(tracker, frames):
    mask = np.zeros(SIZE, bool)
    mask[10:30, 20:50] = True
    state = tracker.prompt(tracker.start(SIZE), frames[0], "m", mask=mask)
    state, found = tracker.step(state, frames[0])
    inside = found.mask("m")
    assert (inside & mask).sum() / (inside | mask).sum() > 0.85
    assert found.scores[0] == 1 and found.object_scores[0] == 10
    state = tracker.remove(state, "m")
    state, found = tracker.step(state, frames[1])
    assert found.object_ids == () and found.masks.shape == (0, *SIZE)
    with pytest.raises(KeyError, match="no object 'm'"):
        found.mask("m")


def test_a_dropped_frame_does_not_end_the_track(tracker, frames):
    state = started(tracker, frames, "a")
    state, _ = tracker.step(state, frames[0])
    before = state
    state, found = tracker.step(state, None)
    assert found.dropped and not found.masks.any() and (found.logits == ABSENT).all()
    assert state.frame_index == 1 and state.bank is before.bank
    state, found = tracker.step(state, frames[2])
    assert found.frame_index == 2 and not found.dropped


def test_masks_need_not_overlap():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (3, 8, 8)).astype(np.float32)
    scores = np.ones(3, np.float32)
    both = TrackedMasks(logits, scores, scores, (1, 2, 3), 0, SIZE)
    assert (both.masks.sum(axis=0) > 1).any()
    strongest = both.replace(overlapping=False)
    assert strongest.masks.sum(axis=0).max() == 1
    np.testing.assert_array_equal(strongest.masks.any(axis=0), both.masks.any(axis=0))


def test_of_too_many_frames_the_furthest_makes_room_but_never_the_first_prompt():
    frames = jnp.full((3,), EMPTY)
    for index in (0, 2, 4, 6, 8, 6):
        frames = frames.at[slot_for(frames, jnp.int32(index), keep_first=True)].set(index)
    assert sorted(frames.tolist()) == [0, 6, 8]
    for index in (5, 4):
        frames = frames.at[slot_for(frames, jnp.int32(index))].set(index)
    assert sorted(frames.tolist()) == [4, 5, 6]


def test_backward_goes_to_the_first_frame_and_no_further(tracker, frames):
    state = tracker.prompt(tracker.start(SIZE), frames[2], "a", points=[[5, 5]], frame_index=2)
    state, _ = tracker.step(state, frames[2], frame_index=2)
    for index in (1, 0):
        state, found = tracker.step(state, frames[index], backward=True)
        assert found.frame_index == index
    with pytest.raises(InputError, match="there is no frame -1"):
        tracker.step(state, frames[0], backward=True)


def test_what_cannot_be_used_is_refused(tracker, frames):
    state = started(tracker, frames, *range(4))
    wrong = np.zeros((10, 10, 3), np.uint8)
    point = {"points": [[1, 1]]}
    mask = np.zeros(SIZE, bool)

    def refused(message, call, *args, **kwargs):
        with pytest.raises(InputError, match=message):
            call(*args, **kwargs)

    refused("4 objects are followed already", tracker.prompt, state, frames[0], "x", **point)
    refused("the frame is 10x10, but the video's frames are 70x50", tracker.step, state, wrong)
    refused("the frame is 10x10", tracker.prompt, state, wrong, 1, **point)
    refused("there is no object 'x'", tracker.remove, state, "x")
    refused("there is no object None", tracker.remove, state, None)
    refused("there is no object array", tracker.remove, state, np.array([1, 2]))
    elsewhere = replace(tracker.encode(frames[0]), config=SAM2_1_TINY)
    refused("sam2.1_tiny encoded the frame, and this is sam2_test", tracker.step, state, elsewhere)
    refused("None is no object_id", tracker.prompt, state, frames[0], None, **point)
    refused("no prompt is given", tracker.prompt, state, frames[0], 1)
    refused("outside the image", tracker.prompt, state, frames[0], 1, points=[[99, 1]])
    refused("one object's at a time", tracker.prompt, state, frames[0], 1, box=[[1, 1, 9, 9]] * 2)
    refused("not both", tracker.prompt, state, frames[0], 1, mask=mask, **point)
    refused("must have the frame's shape", tracker.prompt, state, frames[0], 1, mask=mask[1:])
    refused("is no object_id", tracker.prompt, state, frames[0], [1], **point)
    refused("is no object_id", tracker.prompt, state, frames[0], np.array([1, 2]), **point)
    refused("is no object_id", tracker.prompt, state, frames[0], float("nan"), **point)
    refused("there is no frame 0.0", tracker.step, state, frames[0], frame_index=0.0)
    refused("there is no frame 1073741824", tracker.step, state, frames[0], frame_index=1 << 30)
    refused("there is no frame -2", tracker.prompt, state, frames[0], 1, **point, frame_index=-2)
    known = tracker.start(SIZE, num_frames=3)
    refused("the video has 3", tracker.prompt, known, frames[0], 1, **point, frame_index=3)
    for size in ((3,), None, "ab", (50.5, 70), (0, 70)):
        refused("must be .height, width.", tracker.start, size)
    refused("num_frames must be", tracker.start, SIZE, num_frames=2.5)
    refused("num_frames must be", tracker.start, SIZE, num_frames=-1)
    refused("recent_frames must be at least 6", Tracker, SAM2_TEST, {}, recent_frames=5)
    refused("memory_dtype", Tracker, SAM2_TEST, {}, memory_dtype=jnp.int32)
    with pytest.raises(CheckpointError, match="missing: constants/"):
        Tracker(SAM2_TEST, {})


def test_numpys_numbers_are_numbers(tracker, frames):
    state = tracker.start(np.array(SIZE), num_frames=None)
    state = tracker.prompt(state, frames[0], np.int64(7), points=[[5, 5]], frame_index=np.int64(0))
    state, found = tracker.step(state, frames[0], frame_index=np.uint8(0))
    assert found.frame_index == 0 and found.mask(7).shape == SIZE


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (300, 7)])
def test_frames_of_any_shape_are_followed(tracker, size):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (*size, 3)).astype(np.uint8) for _ in range(3)]
    state = tracker.prompt(tracker.start(size), frames[0], 1, points=[[0, 0]])
    state = tracker.prompt(state, frames[0], 2, mask=np.ones(size, bool))
    for frame in frames:
        state, found = tracker.step(state, frame)
    assert found.masks.shape == (2, *size) and np.isfinite(found.logits).all()


def test_holes_are_filled_as_scipy_finds_them():
    from scipy import ndimage

    from sam_jax.ops.holes import FILLED, fill_small_holes

    rng = np.random.default_rng(0)
    for density in (0.3, 0.5, 0.7, 0.95):
        logits = np.where(rng.random((60, 83)) < density, 1.0, -1.0).astype(np.float32)
        labels, _ = ndimage.label(logits <= 0, np.ones((3, 3)))
        small = np.bincount(labels.ravel()) <= 8
        small[0] = False
        expected = np.where(small[labels], np.float32(FILLED), logits)
        np.testing.assert_array_equal(fill_small_holes(jnp.asarray(logits), 8), expected)
        np.testing.assert_array_equal(fill_small_holes(jnp.asarray(logits), 0), logits)


def test_a_frame_that_other_parameters_encoded_is_refused(tracker, variables, frames):
    state = tracker.start(SIZE)
    other = Tracker(SAM2_TEST, jax.tree.map(lambda x: x + 0.5, variables))
    with pytest.raises(InputError, match=r"encoded with other parameters .*with this Tracker"):
        tracker.prompt(state, other.encode(frames[0]), "a", points=[[10, 20]])
    same = Tracker(SAM2_TEST, jax.tree.map(np.asarray, variables))
    tracker.prompt(state, same.encode(frames[0]), "a", points=[[10, 20]])
