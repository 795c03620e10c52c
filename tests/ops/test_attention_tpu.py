"""The TPU kernels, interpreted on the CPU, against the reference version in float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax.ops.attention import grid_attention, relative_positions
from sam_jax.ops.attention_lanes import KEY_BLOCK, LANES, MAX_SIDE, QUERY_BLOCK, make_layout
from sam_jax.ops.attention_tpu import grid_attention_tpu, supports, window_attention_tpu
from sam_jax.ops.windows import join_windows, partition_windows

# batch, head, height, width, channel: heads that share lanes (an odd number of them too), with and
# without idle lanes of their own, and heads that fill theirs; single rows and columns.
SMALL = [
    (2, 3, 5, 3, 16),
    (1, 2, 1, 7, 8),
    (3, 2, 14, 14, 64),
    (2, 1, 7, 10, 80),
    (1, 1, 3, 18, 128),
    (1, 2, 40, 5, 64),
    (1, 2, 20, 17, 40),
]
# More tokens than a block of keys: rows and columns to mask, for every place of the bias.
BLOCKED = [(1, 2, 37, 33, 64), (1, 1, 33, 40, 80), (1, 1, 64, 17, 20)]
# Biases in two parts over keys that end within a block of lanes, or before one is full.
UNEVEN = [(1, 33), (7, 40), (49, 5), (50, 16), (63, 1), (3, 64), (5, 64), (60, 10)]


def slow(case):
    """Left to the slow suite, where the fast one has a case of the same kind."""
    return pytest.param(case, marks=pytest.mark.slow)


def together(query, key, value):
    """[batch, head, height, width, channel] each, as one projection would make them."""
    return jnp.moveaxis(jnp.stack((query, key, value)), (0, 2), (3, 4))


def attend_tpu(query, key, value, *tables):
    out = grid_attention_tpu(together(query, key, value), *tables, interpret=True)
    return jnp.moveaxis(out, 3, 1)


# Run once each: the kernel's unrolled steps take longer to optimize than to execute.
interpreted = jax.jit(
    attend_tpu,
    compiler_options={"xla_backend_optimization_level": 0},
)


def grid_inputs(batch, head, height, width, channel, seed=0):
    rng = np.random.default_rng(seed)
    parts = rng.normal(size=(3, batch, head, height, width, channel))
    tables = (
        relative_positions(jnp.asarray(rng.normal(size=(2 * size - 1, channel)) * 0.3), size)
        for size in (height, width)
    )
    return [jnp.asarray(x, jnp.float32) for x in (*parts, *tables)]


def reference(*inputs):
    query, key, value, *tables = (jnp.asarray(x, jnp.float32) for x in inputs)
    with jax.default_matmul_precision("highest"):
        out = grid_attention(together(query, key, value), *tables, implementation="reference")
    return jnp.moveaxis(out, 3, 1)


def test_the_cases_cover_every_layout():
    layouts = [make_layout(*rest) for _, _, *rest in SMALL + BLOCKED]
    assert {layout.bias for layout in layouts} == {"inline", "split", "apart"}
    # Heads in a block of lanes, and the blocks that their bias by offset takes.
    blocks = {(x.heads, 1 + x.offset_lane(x.heads - 1, 1) // LANES) for x in layouts}
    assert blocks == {(1, 1), (1, 2), (2, 1), (2, 2), (2, 4)}
    for _, _, height, width, channel in BLOCKED:
        tokens = make_layout(height, width, channel).tokens
        assert tokens > max(KEY_BLOCK, QUERY_BLOCK) and tokens > height * width


@pytest.mark.parametrize("shape", [*SMALL, BLOCKED[0], *map(slow, BLOCKED[1:])])
def test_the_kernel_equals_the_reference(shape):
    inputs = grid_inputs(*shape)
    out = interpreted(*inputs)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, reference(*inputs), rtol=0, atol=2e-5)


@pytest.mark.parametrize("grid_hw", [*UNEVEN[:5], *map(slow, UNEVEN[5:])])
def test_keys_may_end_within_a_block_of_lanes(grid_hw):
    layout = make_layout(*grid_hw, 8)
    assert layout.bias == "split" and layout.tokens % LANES
    inputs = grid_inputs(1, 2, *grid_hw, 8)
    np.testing.assert_allclose(interpreted(*inputs), reference(*inputs), rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", [SMALL[2], SMALL[3], slow(BLOCKED[0])])
def test_bfloat16_is_as_close_as_its_eight_bits_allow(shape):
    inputs = [x.astype(jnp.bfloat16) for x in grid_inputs(*shape)]
    out = interpreted(*inputs)
    assert out.dtype == jnp.bfloat16
    truth = reference(*inputs)
    error = np.abs(np.asarray(out, np.float32) - truth)
    scale = float(jnp.std(truth))
    # Beside queries, weights and result, the bias is rounded to 2**-9 of itself: it reaches 20
    # here, which is 0.04 of a logit.
    assert np.quantile(error, 0.5) < 0.01 * scale
    assert np.quantile(error, 0.99) < 0.06 * scale
    assert error.max() < 0.25 * scale


def test_logits_beyond_what_exp_can_hold():
    query, *rest = grid_inputs(1, 2, 5, 3, 16)
    out = interpreted(300 * query, *rest)
    np.testing.assert_allclose(out, reference(300 * query, *rest), rtol=0, atol=2e-3)


@pytest.mark.parametrize("shape", [(2, 3, 5, 3, 16), slow((1, 1, 7, 10, 80))])
def test_gradients_equal_the_references(shape):
    inputs = grid_inputs(*shape)
    weights = jnp.asarray(np.random.default_rng(2).normal(size=inputs[0].shape), jnp.float32)

    def gradients(attention):
        def scalar(*args):
            return jnp.sum(attention(*args) * weights)

        return jax.grad(scalar, argnums=range(5))(*inputs)

    found = gradients(attend_tpu)
    for mine, expected in zip(found, gradients(reference), strict=True):
        assert float(jnp.abs(expected).max()) > 0.1
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-4)


# batch, height, width, head, channel, window: windows cut by the grid's end on either side, or by
# both, one window for everything; heads as above; and windows with rows to mask.
WINDOWED = [
    (2, 9, 11, 3, 16, 4),
    (1, 17, 30, 2, 64, 14),
    (2, 5, 6, 1, 80, 7),
    (1, 8, 24, 1, 128, 8),
    (1, 41, 20, 1, 64, 40),
]


def window_inputs(batch, height, width, head, channel, window, seed=0):
    rng = np.random.default_rng(seed)
    parts = [(batch, height, width, 3, head, channel), (3, head, channel)]
    lines = [(2 * window - 1, channel)] * 2
    arrays = [rng.normal(size=x) for x in parts] + [0.3 * rng.normal(size=x) for x in lines]
    return [jnp.asarray(x, jnp.float32) for x in arrays]


def cut_and_joined(window, qkv, fill, *lines):
    qkv, fill, *lines = (jnp.asarray(x, jnp.float32) for x in (qkv, fill, *lines))
    tables = (relative_positions(line, window) for line in lines)
    x = partition_windows(qkv.reshape(*qkv.shape[:3], -1), window, fill=fill.reshape(-1))
    x = x.reshape(*x.shape[:3], *qkv.shape[3:])
    with jax.default_matmul_precision("highest"):
        out = grid_attention(x, *tables, implementation="reference")
    out = join_windows(out.reshape(*out.shape[:3], -1), qkv.shape[1:3])
    return out.reshape(*qkv.shape[:3], *qkv.shape[4:])


@functools.partial(
    jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0}
)
def interpreted_windows(window, *inputs):
    return window_attention_tpu(*inputs, window, interpret=True)


@pytest.mark.parametrize("shape", [*WINDOWED[:3], *map(slow, WINDOWED[3:])])
def test_windows_equal_cutting_the_reference_and_joining(shape):
    inputs = window_inputs(*shape)
    found = interpreted_windows(shape[-1], *inputs)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, cut_and_joined(shape[-1], *inputs), rtol=0, atol=2e-5)


def test_windows_in_bfloat16_are_as_close_as_its_eight_bits_allow():
    shape = WINDOWED[1]
    inputs = [x.astype(jnp.bfloat16) for x in window_inputs(*shape)]
    out = interpreted_windows(shape[-1], *inputs)
    assert out.dtype == jnp.bfloat16
    truth = cut_and_joined(shape[-1], *inputs)
    error = np.abs(np.asarray(out, np.float32) - truth)
    scale = float(jnp.std(truth))
    # The bounds of the grid's kernel above, for the same reasons.
    assert np.quantile(error, 0.5) < 0.01 * scale
    assert np.quantile(error, 0.99) < 0.06 * scale
    assert error.max() < 0.25 * scale


@pytest.mark.parametrize("shape", [WINDOWED[0], slow(WINDOWED[2])])
def test_gradients_of_windows_equal_the_references(shape):
    inputs, window = window_inputs(*shape), shape[-1]

    def gradients(attention):
        def scalar(*args):
            return jnp.sum(jnp.sin(3 * attention(*args)))

        return jax.grad(scalar, argnums=range(4))(*inputs)

    found = gradients(functools.partial(window_attention_tpu, window=window, interpret=True))
    expected = gradients(functools.partial(cut_and_joined, window))
    for mine, theirs in zip(found, expected, strict=True):
        assert float(jnp.abs(theirs).max()) > 0.1
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


def test_sizes_beyond_the_kernels_are_named():
    assert supports(MAX_SIDE, MAX_SIDE, LANES)
    assert not supports(MAX_SIDE + 1, 8, 64) and not supports(8, 8, LANES + 1)
    with pytest.raises(ValueError, match="up to 64x64 .* not 65x2 and 8"):
        attend_tpu(*grid_inputs(1, 1, 65, 2, 8))
    with pytest.raises(ValueError, match="up to 64x64 .* not 65x65 and 8"):
        window_attention_tpu(*window_inputs(1, 3, 3, 1, 8, 65), 65, interpret=True)


def test_no_grids_have_no_windows():
    out = window_attention_tpu(*window_inputs(0, 7, 9, 2, 8, 4), 4, interpret=True)
    assert out.shape == (0, 7, 9, 2, 8)
