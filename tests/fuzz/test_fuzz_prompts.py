"""Prompts of any shape, type and value: valid ImagePrompts, or one clear error."""

import math
import random
import resource
import sys
import warnings
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax.configs import TEST
from sam_jax.errors import InputError
from sam_jax.preprocess import ImagePrompts, check_prompts, mask_to_logits, scale_prompts
from sam_jax.types import LABEL_ABSENT

pytestmark = pytest.mark.slow

SIZE_HW = (480, 640)
MASK_SIZE = 6
CASES = 3000

NUMBERS = (0, 1, 2, 5, 31.5, 479, 480, 639.99, 640)
BAD_NUMBERS = (-1, -0.001, 640.001, 1e9, 1e308, math.nan, math.inf, -math.inf, 10**400, 2**63)
JUNK: tuple[object, ...] = (
    None,
    "5",
    b"5",
    1j,
    True,
    {},
    {"x": 5},
    {1, 2},
    [],
    (),
    [[]],
    object(),
    int,
    np.nan,
    np.float16(3),
    np.datetime64("2020-01-01"),
    np.array([]),
    np.array(5),
    np.array(["a"]),
    np.array([None]),
    np.zeros((3, 2), [("x", float), ("y", float)]),
    np.longdouble("1e4000"),
    jnp.ones(3, jnp.bfloat16),
    range(3),
    iter([1, 2]),
    [[[[[[[[5]]]]]]]],
)
# Small things that would be enormous if they were copied.
HUGE: tuple[object, ...] = (
    [[[0] * 100_000] * 100_000] * 100_000,
    [[[[[[[[[[1.0] * 9] * 9] * 9] * 9] * 9] * 9] * 9] * 9] * 9] * 9,
    [[1, 2], [[0] * 100_000] * 100_000],
    np.broadcast_to(np.float32(1), (1, 1 << 40)),
    np.broadcast_to(np.uint8(1), (1 << 20, 1 << 20)),
    np.broadcast_to(np.uint8(1), (1 << 15, 1 << 15, 1 << 15)),
)
DTYPES = ("f2", "f4", "f8", ">f8", "i1", "i8", "u2", "?", "c16", "U3", "O", "M8[s]", "V8", "g")
TREES: dict[str, Callable[[random.Random], object]] = {
    "points": lambda rng: [[point(rng) for _ in range(2)] for _ in range(2)],
    "labels": lambda rng: [[rng.randrange(2) for _ in range(2)] for _ in range(2)],
    "boxes": lambda rng: [[*point(rng, 0.4), 300 + rng.random(), 400] for _ in range(2)],
    "masks": lambda rng: [
        [[rng.gauss(0, 5) for _ in range(MASK_SIZE)] for _ in range(MASK_SIZE)] for _ in range(2)
    ],
}


def point(rng: random.Random, part: float = 1.0) -> list[float]:
    return [rng.random() * part * SIZE_HW[1], rng.random() * part * SIZE_HW[0]]


def changed(value: object, rng: random.Random) -> object:
    """The value with something in it replaced, removed, repeated, wrapped or of another type."""
    if isinstance(value, list) and value and rng.random() < 0.75:
        index = rng.randrange(len(value))
        return [*value[:index], changed(value[index], rng), *value[index + 1 :]]
    match rng.randrange(8):
        case 0:
            return rng.choice(NUMBERS)
        case 1:
            return rng.choice(BAD_NUMBERS)
        case 2:
            return rng.choice(JUNK)
        case 3:
            return [value]
        case 4:
            return value[0] if isinstance(value, list) and value else [value] * rng.randrange(4)
        case 5:
            return value[1:] if isinstance(value, list) else [value, value]
        case 6:
            return [*value, rng.choice(NUMBERS)] if isinstance(value, list) else str(value)
        case _:
            return as_array(value, rng)


def as_array(value: object, rng: random.Random) -> object:
    try:
        with np.errstate(all="ignore"):
            return np.array(value, rng.choice(DTYPES))
    except (ValueError, TypeError, OverflowError, RuntimeWarning):
        return value


def random_prompts(rng: random.Random) -> dict[str, object]:
    names = rng.sample(sorted(TREES), rng.randrange(1, 5))
    if "labels" in names and "points" not in names and rng.random() < 0.9:
        names.append("points")
    prompts = {name: TREES[name](rng) for name in names}
    for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
        name = rng.choice(names)
        prompts[name] = changed(prompts[name], rng)
    if rng.random() < 0.3:
        prompts = {name: as_array(value, rng) for name, value in prompts.items()}
    return prompts


def assert_valid(prompts: ImagePrompts) -> None:
    count = prompts.num_prompts
    assert count >= 1
    if prompts.points is not None:
        assert prompts.labels is not None
        assert prompts.points.shape == (*prompts.labels.shape, 2)
        assert prompts.points.shape[0] == count and prompts.points.shape[1] >= 1
        assert ((prompts.points >= 0) & (prompts.points <= (640, 480))).all()
        assert np.isin(prompts.labels, (0, 1, LABEL_ABSENT)).all()
        if prompts.boxes is None:
            assert (prompts.labels != LABEL_ABSENT).any(axis=1).all()
    if prompts.boxes is not None:
        x0, y0, x1, y1 = prompts.boxes.T
        assert prompts.boxes.shape == (count, 4)
        assert ((x0 >= 0) & (x0 < x1) & (x1 <= 640) & (y0 >= 0) & (y0 < y1) & (y1 <= 480)).all()
    if prompts.masks is not None:
        assert prompts.masks.shape == (count, MASK_SIZE, MASK_SIZE)
        assert prompts.masks.dtype == np.float32 and np.isfinite(prompts.masks).all()


def peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def test_mutated_prompts_are_valid_or_refused():
    before = peak_bytes()
    accepted, refused = 0, set()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy must have nothing to warn of
        warnings.filterwarnings("ignore", message="masks.* looks like a picture")
        for seed in range(CASES):
            given = {name: None for name in TREES} | random_prompts(random.Random(seed))
            try:
                prompts = check_prompts(**given, size_hw=SIZE_HW, mask_size=MASK_SIZE)
            except InputError as error:
                message = str(error)
                assert message.isprintable() and 10 < len(message) < 300, (seed, message)
                refused.add(message)
            else:
                assert_valid(prompts)
                assert_scaled(scale_prompts(prompts, SIZE_HW, 128))
                accepted += 1
    assert accepted > 500
    assert len(refused) > 300
    assert peak_bytes() - before < 600e6


def assert_scaled(prompts: ImagePrompts) -> None:
    for coordinates in (prompts.points, prompts.boxes):
        if coordinates is not None:
            assert coordinates.dtype == np.float32
            assert (coordinates >= 0).all() and (coordinates <= 128).all()


def test_anything_given_as_a_mask_becomes_logits_or_is_refused():
    accepted = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(CASES // 3):
            rng = random.Random(seed)
            mask: object = [[rng.randrange(2) for _ in range(5)] for _ in range(4)]
            for _ in range(rng.randrange(3)):
                mask = changed(mask, rng)
            try:
                logits = mask_to_logits(mask, TEST)
            except InputError as error:
                assert str(error).isprintable() and len(str(error)) < 300, seed
            else:
                assert logits.shape == (32, 32) and (abs(logits) <= 10.001).all()
                accepted += 1
    assert accepted > 100


@pytest.mark.parametrize("name", ["points", "labels", "boxes", "masks", "mask"])
def test_junk_alone_is_refused_and_the_huge_is_not_copied(name):
    before = peak_bytes()
    for junk in (*JUNK, *HUGE):
        if junk is None and name != "mask":
            continue
        with pytest.raises(InputError) as caught:
            if name == "mask":
                mask_to_logits(junk, TEST)
            else:
                beside = {"points": [[[1, 2]], [[3, 4]]]} if name == "labels" else {}
                given = {name: None for name in TREES} | beside | {name: junk}
                check_prompts(**given, size_hw=SIZE_HW, mask_size=MASK_SIZE)
        assert str(caught.value).isprintable() and len(str(caught.value)) < 300
    assert peak_bytes() - before < 300e6
