"""Whatever is public pickles and copies after it was used, and works where it arrives."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sam_jax import Segmenter, make_mesh, open_video
from tests.public_calls import answers, picture, public_objects, small_segmenter

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def objects():
    return public_objects()


@pytest.fixture(scope="module")
def expected(objects):
    return answers(objects)


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_was_used_pickles_and_copies(objects, expected):
    assert_equal(answers(pickle.loads(pickle.dumps(objects))), expected)
    assert_equal(answers(copy.deepcopy(objects)), expected)
    for name, value in objects.items():
        copied = pickle.loads(pickle.dumps(value))
        assert type(copied) is type(value), name
        assert type(copy.deepcopy(value)) is type(value), name


def test_a_spawned_process_gives_the_same(objects, expected):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(answers, (objects,))
    # It optimizes what it compiles, and this process does not: float32 rounding.
    for one, other in zip(found, expected, strict=True):
        if other.dtype == bool:
            assert (one == other).mean() > 0.999
        else:
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_devices_stay_in_their_process():
    segmenter = small_segmenter("sam")
    on_mesh = Segmenter(segmenter.config, segmenter.params, mesh=make_mesh(1, 1))
    with pytest.raises(pickle.PicklingError, match="make_mesh in the other process") as caught:
        pickle.dumps(on_mesh)
    assert "\n" not in str(caught.value)
    copied = copy.deepcopy(on_mesh)
    assert copied.compiled.mesh is on_mesh.compiled.mesh


def test_an_open_video_says_that_it_stays():
    with pytest.raises(pickle.PicklingError, match="the array.*open_video the same source"):
        pickle.dumps(open_video(np.stack([picture(), picture(1)])))


FORKED = """
import os, warnings
import numpy as np
import sam_jax
from tests.public_calls import picture, small_segmenter, small_tracker

warnings.simplefilter("ignore")
segmenter, tracker = small_segmenter("sam"), small_tracker()
calls = (
    lambda: segmenter.encode(picture()),
    lambda: tracker.start((9, 9)),
    lambda: sam_jax.Segmenter.load("tiny"),
    lambda: sam_jax.load_params("tiny"),
    lambda: sam_jax.prepare_images(np.zeros((1, 8, 9, 3), np.uint8), segmenter.config),
)
child = os.fork()
if not child:
    for call in calls:
        try:
            call()
        except RuntimeError as error:
            print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


def test_a_fork_of_a_process_that_used_jax_is_told_so():
    done = subprocess.run(
        [sys.executable, "-c", FORKED],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stdout.count("forked after JAX was in use") == 5, done.stderr
