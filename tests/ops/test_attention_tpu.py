"""The TPU kernel, interpreted on the CPU, against the reference version in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax.ops.attention import grid_attention, relative_positions
from sam_jax.ops.attention_tpu import (
    KEY_BLOCK,
    LANES,
    MAX_SIDE,
    QUERY_BLOCK,
    _layout,
    grid_attention_tpu,
    head_lanes,
    padded_hw,
    supports,
)

# batch, head, height, width, channel: heads that share lanes (an odd number of them too), with and
# without idle lanes of their own, and heads that fill theirs; single rows and columns.
SMALL = [
    (2, 3, 5, 3, 16),
    (1, 2, 1, 7, 8),
    (3, 2, 14, 14, 64),
    (2, 1, 7, 10, 80),
    (1, 1, 3, 18, 128),
    (1, 2, 40, 5, 64),
]
# More tokens than a block of keys: rows and columns to mask, for every place of the bias.
BLOCKED = [(1, 2, 37, 33, 64), (1, 1, 33, 40, 80), (1, 1, 64, 17, 20)]


def slow(case):
    """Left to the slow suite, where the fast one has a case of the same kind."""
    return pytest.param(case, marks=pytest.mark.slow)


def together(query, key, value):
    """[batch, head, height, width, channel] each, as one projection would make them."""
    return jnp.moveaxis(jnp.stack((query, key, value)), (0, 2), (3, 4))


def attend_tpu(query, key, value, *tables):
    out = grid_attention_tpu(together(query, key, value), *tables, interpret=True)
    return jnp.moveaxis(out, 3, 1)


# Run once each: the kernel's unrolled steps take longer to optimise than to execute.
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
    layouts = [_layout(batch, *rest) for batch, _, *rest in SMALL + BLOCKED]
    assert {layout.bias for layout in layouts} == {"inline", "split", "apart"}
    assert {(layout.heads, layout.one_tile) for layout in layouts} == {
        (1, True),
        (2, True),
        (2, False),
    }
    assert any(layout.group > 1 for layout in layouts)
    for _, _, height, width, _ in BLOCKED:
        rows, columns = padded_hw(height, width)
        assert rows * columns > max(KEY_BLOCK, QUERY_BLOCK) and rows * columns > height * width


@pytest.mark.parametrize("shape", [*SMALL, BLOCKED[0], *map(slow, BLOCKED[1:])])
def test_the_kernel_equals_the_reference(shape):
    inputs = grid_inputs(*shape)
    out = interpreted(*inputs)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, reference(*inputs), rtol=0, atol=2e-5)


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


@pytest.mark.parametrize("channel", [slow(24), 64, slow(80)])
def test_padding_of_the_caller_is_not_seen(channel):
    rng = np.random.default_rng(1)
    query, key, value, *tables = grid_inputs(2, 2, 6, 5, channel)
    qkv = together(query, key, value)
    shape = (2, *padded_hw(6, 5), 3, 2, head_lanes(channel))
    padded = jnp.asarray(rng.normal(size=shape) * 50, jnp.float32)
    padded = padded.at[:, :6, :5, ..., :channel].set(qkv)
    out = grid_attention_tpu(padded, *tables, interpret=True)
    assert out.shape == shape[:3] + shape[4:]
    out = jnp.moveaxis(out[:, :6, :5, ..., :channel], 3, 1)
    np.testing.assert_allclose(out, reference(query, key, value, *tables), rtol=0, atol=2e-5)


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


def test_no_gradient_comes_from_padding():
    *parts, relative_h, relative_w = grid_inputs(1, 2, 3, 4, 16)
    qkv = together(*parts)
    fill = [(0, 0), (0, 0), (0, 12), (0, 0), (0, 0), (0, 48)]

    def scalar(qkv):
        out = grid_attention_tpu(qkv, relative_h, relative_w, interpret=True)
        return jnp.sum(jnp.sin(out[:, :, :4, ..., :16]))

    gradient = jax.grad(scalar)(jnp.pad(qkv, fill, constant_values=3.0))
    assert not np.any(gradient[:, :, 4:]) and not np.any(gradient[..., 16:])
    expected = jax.grad(scalar)(qkv)
    assert float(jnp.abs(expected).max()) > 0.1
    np.testing.assert_allclose(gradient[:, :, :4, ..., :16], expected, rtol=0, atol=1e-5)


def test_sizes_beyond_the_kernel_are_named():
    assert supports(MAX_SIDE, MAX_SIDE, LANES)
    assert not supports(MAX_SIDE + 1, 8, 64) and not supports(8, 8, LANES + 1)
    with pytest.raises(ValueError, match="up to 64x64 .* not 65x2 and 8"):
        attend_tpu(*grid_inputs(1, 1, 65, 2, 8))
    qkv = jnp.zeros((1, 5, 17, 3, 1, 8))
    tables = jnp.zeros((5, 5, 8)), jnp.zeros((4, 4, 8))
    with pytest.raises(
        ValueError, match=r"\(5, 4, 8\) come padded to at most \(5, 16, 64\), not as \(5, 17, 8\)"
    ):
        grid_attention_tpu(qkv, *tables, interpret=True)
