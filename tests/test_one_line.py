"""What people print is one line, with shapes and no content, whatever stands for the arrays."""

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax import ImageEmbedding, MaskPrediction, Segmenter, TrackedMasks
from sam_jax.automatic.candidates import no_candidates
from sam_jax.automatic.records import GeneratedMasks
from sam_jax.checkpoints.native import Checkpoint
from sam_jax.configs import TEST
from sam_jax.formats.sa1b import Sa1bImage
from sam_jax.models.sam.sam import variable_shapes
from sam_jax.models.sam2.config import SAM2_CONFIGS
from sam_jax.one_line import one_line, short
from sam_jax.types import Prompts
from sam_jax.video.state import TrackerState, empty_bank

FINGERPRINT = "0123456789abcdef" * 4


def embedding():
    return ImageEmbedding(jnp.ones((8, 8, 32)), (61, 90), FINGERPRINT, model="test")


def prediction():
    scores, logits = np.full((2, 3), 0.5, np.float32), np.ones((2, 3, 32, 32), np.float32)
    return MaskPrediction(scores, logits, (61, 90), TEST.frame, 0.0, model="test")


def state():
    config = SAM2_CONFIGS["sam2.1_tiny"]
    bank = jax.eval_shape(lambda: empty_bank(config, 2, 3, 4, jnp.bfloat16))
    return TrackerState(bank, ("dog", None), (61, 90), 3, 60, "sam2.1_tiny")


def checkpoint():
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape), variable_shapes(TEST))
    return Checkpoint(TEST, {"file": "a.pth"}, FINGERPRINT, {}, params)


VALUES = {
    "embedding": (embedding, ["float32[8,8,32]", "(61, 90)", "'test'", "'0123456789ab...'"]),
    "prediction": (prediction, ["float32[2,3]", "float32[2,3,32,32]", "(61, 90)", "'test'"]),
    "state": (state, ["'dog'", "frame_index=3", "num_frames=60", "bfloat16[2,3,", "sam2.1_tiny"]),
    "tracked": (
        lambda: TrackedMasks(np.ones((1, 8, 8)), np.ones(1), np.ones(1), ("dog",), 4, (61, 90)),
        ["float64[1,8,8]", "'dog'", "frame_index=4", "(61, 90)"],
    ),
    "generated": (
        lambda: GeneratedMasks((61, 90), no_candidates(), {}, "test"),
        ["0 masks", "(61, 90)", "'test'"],
    ),
    "checkpoint": (checkpoint, ["config='test'", "params=dict of 2"]),
    "prompts": (lambda: Prompts(points=jnp.ones((1, 2, 3, 2))), ["points=float32[1,2,3,2]"]),
    "file": (
        lambda: Sa1bImage("a.jpg", (61, 90), 1, [{"id": 1}] * 9),
        ["'a.jpg'", "records=list of 9"],
    ),
}


@pytest.mark.parametrize("name", VALUES)
def test_it_is_one_line_with_shapes_and_without_content(name):
    make, wanted = VALUES[name]
    line = repr(make())
    assert "\n" not in line and len(line) < 400
    assert all(part in line for part in wanted), line
    assert "0.5" not in line and "array(" not in line and "None" not in line.replace(", None)", "")


@pytest.mark.parametrize("name", ["embedding", "prediction", "state", "prompts"])
@pytest.mark.parametrize(
    "placeholder", [None, object(), "leaf", 3.0, jax.ShapeDtypeStruct((2,), jnp.int32)]
)
def test_whatever_jax_puts_in_the_place_of_arrays_is_printed(name, placeholder):
    value = copy.copy(VALUES[name][0]())
    for field in dataclasses.fields(value):
        if field.metadata.get("pytree_node", True):
            # As tree operations do; in the tests, constructors check types.
            object.__setattr__(value, field.name, placeholder)
    printed = repr(value)
    assert "\n" not in printed and len(printed) < 500


@pytest.mark.parametrize("name", ["embedding", "prompts"])
def test_inside_jit_it_is_what_it_is_outside(name):
    lines = []
    value = VALUES[name][0]()
    jax.eval_shape(lambda traced: lines.append(repr(traced)), value)
    assert lines == [repr(value)]


def test_a_segmenter_says_its_model_size_and_parameters():
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), variable_shapes(TEST))
    segmenter = Segmenter(TEST, params, fingerprint=FINGERPRINT)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert repr(segmenter) == (
        f"Segmenter('test', image_size=128, {count:,} parameters, float32, "
        "fingerprint='0123456789ab...')"
    )
    assert "bfloat16" in repr(Segmenter(TEST, params, dtype=jnp.bfloat16))


@dataclass
class _Held:
    value: Any


@pytest.mark.parametrize(
    "value, expected",
    [
        (np.zeros((2, 0), bool), "bool[2,0]"),
        (np.float32(1.5), "float32[]"),
        ("a\nb", r"'a\nb'"),
        ([1, 2], "[1, 2]"),
        ((1,), "(1,)"),
        (list(range(99)), "list of 99"),
        (_Held(np.zeros(250_000, np.float32)), "_Held(1 arrays, 1.0 MB)"),
        (TEST, "'test'"),
    ],
)
def test_single_values_are_short(value, expected):
    assert short(value) == expected
    assert one_line(_Held(value)) == f"_Held(value={expected})"
