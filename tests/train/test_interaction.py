"""The passes of interactive training: which prompts the model sees, and what is summed up."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax.train.interactive.passes import InteractiveOptions, interact
from sam_jax.train.interactive.simulation import SimulationOptions

# What is noted and what is computed with agree to the last bit.
pytestmark = pytest.mark.optimised

P, SIDE, LOW = 3, 16, 4
WHOLE = jnp.array([SIDE, 2 * SIDE])


class Recorder:
    """A stand-in for the decoder that notes, outside of the program, what it is asked."""

    def __init__(self):
        self.seen = []

    def __call__(self, prompts, multimask, key):
        masks = 3 if multimask else 1
        noise = jax.random.normal(jax.random.fold_in(jax.random.key(5), masks), (masks, LOW, LOW))
        logits = jnp.broadcast_to(noise, (P, masks, LOW, LOW))
        if prompts.masks is not None:
            # Another answer every time.
            logits = logits + 0.1 * prompts.masks[:, None, ::-1]
        logits = logits + 0.1 * jax.random.normal(key, logits.shape)
        predicted = jnp.broadcast_to(jnp.array([0.1, 0.9, 0.3])[:masks], (P, masks))

        def note(points, labels, masks_in, logits):
            self.seen.append((points, labels, masks_in, logits, multimask))

        given = jnp.zeros((P, 0, 0)) if prompts.masks is None else prompts.masks
        jax.debug.callback(note, prompts.points, prompts.labels, given, logits, ordered=True)
        return logits, predicted


class Simulation:
    """Interactive training of three masks, compiled once, with what the decoder was asked."""

    def __init__(self):
        self._decode = Recorder()
        self._run = jax.jit(
            lambda targets, weights, size_hw, key: interact(
                self._decode, targets, weights, size_hw, key, InteractiveOptions()
            )
        )

    def __call__(self, targets, seed=0, weights=(1.0, 1.0, 1.0), size_hw=(SIDE, 2 * SIDE)):
        self._decode.seen = []
        result = self._run(targets, jnp.array(weights), jnp.array(size_hw), jax.random.key(seed))
        jax.effects_barrier()
        return result, self._decode.seen


@pytest.fixture(scope="module")
def run():
    return Simulation()


@pytest.fixture
def targets():
    rng = np.random.default_rng(3)
    return jnp.asarray(rng.random((P, SIDE, 2 * SIDE)) < 0.4)


def test_eleven_passes_with_points_that_add_up_and_two_without(run, targets):
    for seed in range(5):
        result, seen = run(targets, seed)
        assert result.iou.shape == (11,) and len(seen) == 11
        counts = np.array([(labels[..., 2:] != -2).sum(-1) for _, labels, *_ in seen])
        assert (counts == counts[:, :1]).all()
        grown = np.diff(counts[:, 0])
        # Eight passes bring a point; the last brings none, nor does one before another's point.
        assert sorted(grown) == [0, 0, *[1] * 8]
        assert grown[-1] == 0 and np.flatnonzero(grown == 0)[0] < 9
        for before, after in zip(seen[:-1], seen[1:], strict=True):
            kept = before[1] != -2
            np.testing.assert_array_equal(after[0][kept], before[0][kept])
            np.testing.assert_array_equal(after[1][kept], before[1][kept])


def test_the_mask_that_the_model_is_surest_of_comes_back_as_raw_logits(run, targets):
    _, seen = run(targets)
    first = seen[0]
    assert first[2].size == 0 and first[4] and first[3].shape[1] == 3
    np.testing.assert_array_equal(seen[1][2], first[3][:, 1])
    for before, after in zip(seen[1:-1], seen[2:], strict=True):
        assert not after[4]
        np.testing.assert_array_equal(after[2], before[3][:, 0])


def test_points_correct_the_prediction_that_was_shown(run, targets):
    _, seen = run(targets)
    from sam_jax.ops.resample import linear_matrix

    rows, columns = linear_matrix(LOW, SIDE), linear_matrix(LOW, 2 * SIDE)
    true = np.asarray(targets)
    checked = 0
    for before, after in zip(seen[:-1], seen[1:], strict=True):
        new = (after[1] != -2) & (before[1] == -2)
        if not new.any():
            continue
        shown = before[3][:, 1 if before[4] else 0]
        guess = rows @ shown @ columns.T > 0
        for p, slot in zip(*np.nonzero(new), strict=True):
            x, y = after[0][p, slot].astype(int)
            assert true[p, y, x] != guess[p, y, x]
            assert after[1][p, slot] == true[p, y, x]
            checked += 1
    assert checked == 8 * P


def test_the_same_key_gives_the_same_numbers_and_another_gives_others(run, targets):
    one, again, other = (run(targets, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.losses.total, again.losses.total)
    np.testing.assert_array_equal(one.iou, again.iou)
    assert one.losses.total != other.losses.total


@pytest.mark.parametrize("points", [0, 1, 3])
def test_fewer_points_make_fewer_passes(targets, points):
    options = InteractiveOptions(SimulationOptions(correction_points=points))

    def iou(key):
        return interact(Recorder(), targets, jnp.ones(P), WHOLE, key, options).iou

    assert jax.eval_shape(iou, jax.random.key(0)).shape == (points + 3,)


@pytest.mark.parametrize("without", [0, 1, 2])
def test_passes_without_a_point_are_as_many_as_asked_for(targets, without):
    options = InteractiveOptions(SimulationOptions(correction_points=3, mask_only_passes=without))

    def iou(key):
        return interact(Recorder(), targets, jnp.ones(P), WHOLE, key, options).iou

    assert jax.eval_shape(iou, jax.random.key(0)).shape == (4 + without,)


def test_gradients_go_through_the_fed_back_logits_unless_detached(targets):
    @partial(jax.jit, static_argnums=1)
    def total(scale, detach):
        def decode(prompts, multimask, key):
            shape = (P, 3 if multimask else 1, LOW, LOW)
            if prompts.masks is None:
                logits = scale * jnp.ones(shape)
            else:
                logits = jnp.broadcast_to(prompts.masks[:, None], shape) - 0.3
            return logits, jnp.zeros(shape[:2])

        few = SimulationOptions(correction_points=3)
        options = InteractiveOptions(few, detach_feedback=detach)
        key = jax.random.key(0)
        return interact(decode, targets, jnp.ones(P), WHOLE, key, options).losses.total

    step = 1e-2
    slope = (total(1.0 + step, False) - total(1.0 - step, False)) / (2 * step)
    # Float32 sums of some hundred, and a step that thresholds do not notice.
    np.testing.assert_allclose(jax.grad(total)(1.0, False), slope, rtol=1e-2)
    # Detached, later passes take the logits as they come: the first pass alone is left.
    assert abs(jax.grad(total)(1.0, True) - slope) > 0.25 * abs(slope)


def test_objects_without_weight_change_nothing(run, targets):
    changed = targets.at[2].set(~targets[2])
    one, other = (run(given, weights=(1.0, 1.0, 0.0))[0] for given in (targets, changed))
    np.testing.assert_array_equal(one.losses.total, other.losses.total)
    np.testing.assert_array_equal(one.iou, other.iou)


def test_what_is_predicted_in_the_padding_is_neither_clicked_nor_counted(run, targets):
    inside = targets.at[:, 10:].set(False)
    size_hw = (10, 2 * SIDE)
    result, seen = run(inside, size_hw=size_hw)
    for points, labels, *_ in seen:
        assert (points[labels >= 0][:, 1] < 10).all()
    # The same logits, compared with more than the image.
    other, _ = run(inside)
    assert (result.iou[0] >= other.iou[0]).all() and result.iou[0] != other.iou[0]


def test_the_single_mask_is_trained_on_the_first_prompt_if_wanted(targets):
    """Its logits have a gradient then, and what is shown and given back stays one of the three."""

    @partial(jax.jit, static_argnums=2)
    def total(single, three, single_first):
        def decode(prompts, multimask, key):
            of_all = jnp.concatenate([jnp.full((P, 1), single), jnp.full((P, 3), three)], axis=1)
            logits = jnp.broadcast_to(of_all[..., None, None], (P, 4, LOW, LOW))
            # The single one is the surest.
            scores = jnp.zeros((P, 4)).at[:, 0].set(1.0)
            wanted = {None: slice(None), True: slice(1, None), False: slice(0, 1)}[multimask]
            return logits[:, wanted], scores[:, wanted]

        simulation = SimulationOptions(correction_points=0, mask_only_passes=0)
        options = InteractiveOptions(simulation, single_first=single_first)
        done = interact(decode, targets, jnp.ones(P), WHOLE, jax.random.key(0), options)
        return done.losses.total, done.iou

    assert jax.grad(total, has_aux=True)(0.5, 0.5, False)[0] == 0
    assert jax.grad(total, has_aux=True)(0.5, 0.5, True)[0] != 0
    # The three fill the frame with what is none, the single one with what is object.
    _, iou = total(1.0, -1.0, True)
    assert iou[0] == 0
