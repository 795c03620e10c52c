"""The public API under JAX's modes gives what it gives without them, in the same types."""

import os
import subprocess
import sys
import warnings
from contextlib import ExitStack, contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest

from sam_jax import prepare_images
from tests import public_calls
from tests.public_calls import CALLS, SIZE, picture, small_segmenter, small_tracker

ROOT = Path(__file__).parents[1]
MODES = {
    "x64": {"JAX_ENABLE_X64": "1"},
    "strict promotion": {"JAX_NUMPY_DTYPE_PROMOTION": "strict"},
    "rank promotion": {"JAX_NUMPY_RANK_PROMOTION": "raise"},
    "NaNs and checks": {"JAX_DEBUG_NANS": "1", "JAX_ENABLE_CHECKS": "1"},
}
ALL = {name: value for mode in MODES.values() for name, value in mode.items()}
# Another mode makes another program, which XLA may fuse in another way: float32 rounding over some
# twenty layers, as a part of the largest value.
CLOSE = 1e-5
# Pixels and filters decide at a threshold, next to which rounding decides.
MOST = 0.999


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        if array.dtype == bool:
            assert array.size == 0 or (found[name] == array).mean() >= MOST, name
        else:
            largest = float(np.abs(array).max(initial=0)) if array.dtype.kind == "f" else 0.0
            np.testing.assert_allclose(
                found[name], array, rtol=CLOSE, atol=CLOSE * largest, err_msg=name
            )


@contextmanager
def every_mode():
    """All of them but JAX's checks of its own, which take several times as long as the rest."""
    with ExitStack() as stack:
        stack.enter_context(jax.enable_x64(True))
        stack.enter_context(jax.numpy_dtype_promotion("strict"))
        stack.enter_context(jax.numpy_rank_promotion("raise"))
        stack.enter_context(jax.debug_nans(True))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("error", FutureWarning)
        yield


@pytest.mark.parametrize("name", ["short compat", "short tracker"])
def test_all_modes_at_once_change_nothing(name):
    expected = public_calls.results(name)
    with every_mode():
        found = public_calls.results(name)
    assert_same(found, expected)


def test_nothing_is_sent_to_or_from_a_device_unasked():
    segmenter, tracker = small_segmenter("sam"), small_tracker()
    with jax.transfer_guard("disallow"):
        embedding = segmenter.encode(picture())
        assert segmenter.predict(embedding, points=[[30, 20]]).masks.shape == (1, 3, *SIZE)
        assert segmenter.predict_logits(embedding, boxes=[])[1].shape == (0, 3)
        assert segmenter.generate(embedding, **public_calls.EVERYTHING)
        for batch in (picture()[None], jax.device_put(picture()[None])):
            assert prepare_images(batch, segmenter.config).shape[0] == 1
        state = tracker.prompt(tracker.start(SIZE), picture(), "a", points=[[30, 20]])
        state, found = tracker.step(state, picture())
        assert found.masks.shape == (1, *SIZE)


def run_child(output, environment, names):
    given = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    given |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **environment}
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-m", "tests.public_calls", output, *names],
        cwd=ROOT,
        env=given,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(output) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    return run_child(tmp_path_factory.mktemp("plain") / "plain.npz", {}, list(CALLS))


@pytest.mark.parametrize(
    "mode",
    [
        *(pytest.param(mode, marks=pytest.mark.exhaustive) for mode in MODES),
        pytest.param("all", marks=pytest.mark.slow),
    ],
)
def test_a_process_in_a_mode_gives_what_one_without_gives(mode, without, tmp_path):
    environment = ALL if mode == "all" else MODES[mode]
    assert_same(run_child(tmp_path / "found.npz", environment, list(CALLS)), without)
