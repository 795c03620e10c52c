"""Every implementation of grid attention against the formula in float64; prompt attention."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax.ops import attention_gpu
from sam_jax.ops.attention import (
    CHUNKED_FROM_TOKENS,
    IMPLEMENTATIONS,
    QUERY_BLOCK,
    chosen_implementation,
    grid_attention,
    prompt_attention,
    relative_positions,
)
from sam_jax.ops.attention_gpu import grid_attention_gpu

# The kernel for TPUs has its own tests: it takes tables that `relative_positions` makes.
PORTABLE = tuple(name for name in IMPLEMENTATIONS if name != "tpu")

# Odd, long and single-row grids; then more tokens than a block of queries holds: one token too
# many, no multiple of a block, and two whole blocks.
SMALL_GRIDS = [(1, 1), (1, 7), (5, 3), (7, 10)]
BLOCKED_GRIDS = [(27, 19), (23, 31), (16, 64)]


def grid_inputs(height, width, seed=0, batch=2, head=3, channel=4):
    rng = np.random.default_rng(seed)
    q, k, v = rng.normal(size=(3, batch, head, height, width, channel))
    relative_h = rng.normal(size=(height, height, channel))
    relative_w = rng.normal(size=(width, width, channel))
    return [jnp.asarray(x, jnp.float32) for x in (q, k, v, relative_h, relative_w)]


def attend(query, key, value, relative_h, relative_w, implementation=None):
    """`grid_attention` with the three parts and the result as [batch, head, height, width, ...]."""
    qkv = jnp.moveaxis(jnp.stack((query, key, value)), (0, 2), (3, 4))
    if implementation == "gpu":
        out = interpreted_gpu(qkv, relative_h, relative_w)
    else:
        out = grid_attention(qkv, relative_h, relative_w, implementation=implementation)
    return jnp.moveaxis(out, 3, 1)


interpreted_gpu = functools.partial(grid_attention_gpu, interpret=True)


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def formula(query, key, value, relative_h, relative_w):
    """Query by query, in float64, straight from the definition."""
    query, key, value, relative_h, relative_w = (
        np.asarray(x, np.float64) for x in (query, key, value, relative_h, relative_w)
    )
    out = np.empty_like(query)
    for h, w in np.ndindex(query.shape[2:4]):
        q = query[:, :, h, w]
        logits = np.einsum("bnd,bnyxd->bnyx", q, key) / np.sqrt(q.shape[-1])
        logits += np.einsum("bnd,yd->bny", q, relative_h[h])[..., :, None]
        logits += np.einsum("bnd,xd->bnx", q, relative_w[w])[..., None, :]
        weights = softmax(logits.reshape(*logits.shape[:2], -1)).reshape(logits.shape)
        out[:, :, h, w] = np.einsum("bnyx,bnyxd->bnd", weights, value)
    return out


def test_the_blocked_grids_are_blocked_and_one_leaves_a_part_of_a_block():
    tokens = [height * width for height, width in BLOCKED_GRIDS]
    assert min(tokens) > QUERY_BLOCK
    assert {count % QUERY_BLOCK == 0 for count in tokens} == {True, False}


@pytest.mark.parametrize("implementation", PORTABLE)
@pytest.mark.parametrize("height, width", SMALL_GRIDS + BLOCKED_GRIDS)
def test_grid_attention_is_the_formula(implementation, height, width):
    inputs = grid_inputs(height, width)
    with jax.default_matmul_precision("highest"):
        out = attend(*inputs, implementation=implementation)
    # float32 against float64: a few roundings over sums of at most some hundred terms.
    np.testing.assert_allclose(out, formula(*inputs), rtol=0, atol=5e-6)


@pytest.mark.parametrize("height, width", [(5, 3), (27, 19)])
def test_grid_attention_has_one_gradient(height, width):
    inputs = grid_inputs(height, width, batch=1, head=2)
    weights = np.random.default_rng(1).normal(size=inputs[0].shape).astype(np.float32)

    def gradients(implementation):
        def scalar(*args):
            return jnp.sum(attend(*args, implementation=implementation) * weights)

        with jax.default_matmul_precision("highest"):
            return jax.grad(scalar, argnums=range(5))(*inputs)

    for reference, *others in zip(*map(gradients, PORTABLE), strict=True):
        scale = np.abs(reference).max()
        assert scale > 0.1
        for other in others:
            np.testing.assert_allclose(other, reference, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("argument", range(5))
def test_the_gradient_of_grid_attention_is_the_slope_of_the_formula(argument):
    inputs = grid_inputs(3, 4, batch=1, head=1)
    rng = np.random.default_rng(2)
    weights = rng.normal(size=inputs[0].shape)
    direction = rng.normal(size=inputs[argument].shape)
    step = 1e-5
    moved = []
    for sign in (1, -1):
        args = [np.asarray(x, np.float64) for x in inputs]
        args[argument] = args[argument] + sign * step * direction
        moved.append(np.sum(formula(*args) * weights))
    slope = (moved[0] - moved[1]) / (2 * step)

    def scalar(x):
        args = [*inputs[:argument], x, *inputs[argument + 1 :]]
        return jnp.sum(attend(*args, implementation="reference") * weights)

    gradient = jax.grad(scalar)(jnp.asarray(inputs[argument]))
    np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-4)


@pytest.mark.parametrize("implementation", PORTABLE)
def test_bfloat16_grid_attention_is_as_close_as_its_eight_bits_allow(implementation):
    inputs = [jnp.asarray(x, jnp.bfloat16) for x in grid_inputs(23, 31, channel=16)]
    out = attend(*inputs, implementation=implementation)
    assert out.dtype == jnp.bfloat16
    error = np.abs(np.asarray(out, np.float32) - formula(*inputs))
    scale = np.std(formula(*inputs))
    # Inputs and result are rounded to 2**-9 of their size, logits and softmax are not; weights
    # rounded likewise average out. The scaled query is rounded once more.
    assert np.quantile(error, 0.5) < 0.005 * scale
    assert np.quantile(error, 0.99) < 0.03 * scale
    assert error.max() < 0.15 * scale


@pytest.mark.parametrize("implementation", PORTABLE)
def test_grid_attention_survives_logits_beyond_what_exp_can_hold(implementation):
    q, k, v, relative_h, relative_w = grid_inputs(5, 3)
    inputs = (300 * q, k, v, relative_h, relative_w)
    out = attend(*inputs, implementation=implementation)
    np.testing.assert_allclose(out, formula(*inputs), rtol=0, atol=1e-3)


def test_the_default_implementation_changes_with_size_and_not_in_value():
    for height, width in ((5, 3), (CHUNKED_FROM_TOKENS // 32, 32)):
        inputs = grid_inputs(height, width, batch=1, head=1)
        outs = [attend(*inputs, implementation=name) for name in (None, *PORTABLE)]
        for out in outs[1:]:
            np.testing.assert_allclose(outs[0], out, rtol=0, atol=1e-5)


def test_the_implementation_is_chosen_by_platform(monkeypatch):
    def chosen(platform, *grid, capability="8.0"):
        device = SimpleNamespace(compute_capability=capability)
        monkeypatch.setattr(jax, "default_backend", lambda: platform)
        monkeypatch.setattr(jax, "local_devices", lambda: [device])
        return chosen_implementation(*grid)

    window, image, large = (14, 14, 64), (64, 64, 64), (96, 64, 64)
    assert [chosen("cpu", *grid) for grid in (window, image)] == ["mapped", "chunked"]
    assert [chosen("gpu", *grid) for grid in (window, image, large)] == ["gpu"] * 3
    assert chosen("gpu", 64, 96, 64) == "chunked"
    # Before Ampere, and AMD's: the kernel would not compile, or never has been tried.
    for capability in ("7.5", "gfx942"):
        names = [chosen("gpu", *grid, capability=capability) for grid in (window, image)]
        assert names == ["reference", "chunked"]
    assert chosen("gpu", *window, capability="12.0") == "gpu"
    monkeypatch.setattr(attention_gpu, "pltriton", None)
    assert [chosen("gpu", *grid) for grid in (window, image)] == ["reference", "chunked"]
    assert [chosen("tpu", *grid) for grid in (window, image, large)] == ["tpu", "tpu", "chunked"]


def test_the_platform_is_that_of_the_default_device(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert chosen_implementation(14, 14, 64) == "tpu"
    for device in ("cpu", jax.devices("cpu")[0]):
        with jax.default_device(device):
            assert chosen_implementation(14, 14, 64) == "mapped"


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_tables_of_another_size_are_refused(implementation):
    qkv = jnp.zeros((1, 3, 5, 3, 2, 8))
    tall, wide = jnp.zeros((3, 3, 8)), jnp.zeros((5, 5, 8))
    for tables in ((wide, tall), (tall, tall), (tall[..., :4], wide[..., :4])):
        with pytest.raises(ValueError, match="3x5 grid and 8 channels"):
            grid_attention(qkv, *tables, implementation=implementation)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_no_grids_give_none(implementation):
    tables = jnp.zeros((3, 3, 8)), jnp.zeros((5, 5, 8))
    qkv = jnp.zeros((0, 3, 5, 3, 2, 8), jnp.bfloat16)
    out = grid_attention(qkv, *tables, implementation=implementation)
    assert out.shape == (0, 3, 5, 2, 8) and out.dtype == jnp.bfloat16


def test_an_unknown_implementation_is_named():
    with pytest.raises(ValueError, match="'fast'.*reference.*chunked"):
        attend(*grid_inputs(2, 3), implementation="fast")


@pytest.mark.parametrize("size", [1, 2, 7])
def test_relative_positions_of_a_fitting_table_are_its_rows(size):
    table = np.random.default_rng(0).normal(size=(2 * size - 1, 3)).astype(np.float32)
    positions = relative_positions(jnp.asarray(table), size)
    for query, key in np.ndindex(size, size):
        np.testing.assert_array_equal(positions[query, key], table[query - key + size - 1])


def prompt_inputs(query_prompts, key_prompts, seed=0):
    rng = np.random.default_rng(seed)
    query = rng.normal(size=(2, query_prompts, 5, 2, 4))
    key, value = rng.normal(size=(2, 2, key_prompts, 7, 2, 4))
    return tuple(jnp.asarray(x, jnp.float32) for x in (query, key, value))


def prompt_formula(query, key, value, key_mask=None):
    prompts = max(query.shape[1], key.shape[1])
    query, key, value = (
        np.repeat(np.asarray(x, np.float64), prompts // x.shape[1], axis=1)
        for x in (query, key, value)
    )
    logits = np.einsum("bpqnd,bpknd->bpnqk", query, key) / np.sqrt(query.shape[-1])
    if key_mask is not None:
        logits[np.broadcast_to(~key_mask[:, :, None, None], logits.shape)] = -np.inf
    return np.einsum("bpnqk,bpknd->bpqnd", softmax(logits), value)


@pytest.mark.parametrize("query_prompts, key_prompts", [(1, 1), (3, 3), (3, 1), (1, 3)])
@pytest.mark.parametrize("masked", [False, True])
def test_shared_sides_give_what_copies_would(query_prompts, key_prompts, masked):
    inputs = prompt_inputs(query_prompts, key_prompts)
    mask = None
    if masked:
        mask = np.random.default_rng(1).random((2, key_prompts, 7)) < 0.5
        mask[..., 3] = True
        assert not mask.all()
    with jax.default_matmul_precision("highest"):
        out = prompt_attention(*inputs, None if mask is None else jnp.asarray(mask))
    np.testing.assert_allclose(out, prompt_formula(*inputs, mask), rtol=0, atol=2e-6)


def test_masked_keys_reach_neither_result_nor_gradient():
    query, key, value = prompt_inputs(3, 3)
    mask = np.ones((2, 3, 7), bool)
    mask[0, 1, 2:4] = mask[1, 2, 5] = False
    hidden = np.broadcast_to(~mask[..., None, None], key.shape)
    mask = jnp.asarray(mask)

    def scalar(key, value):
        return jnp.sum(jnp.sin(prompt_attention(query, key, value, mask)))

    junk = jnp.where(hidden, 1e4, key), jnp.where(hidden, -1e4, value)
    np.testing.assert_array_equal(
        prompt_attention(query, *junk, mask), prompt_attention(query, key, value, mask)
    )
    for gradient in jax.grad(scalar, argnums=(0, 1))(key, value):
        assert np.isfinite(gradient).all()
        assert not np.any(np.asarray(gradient)[hidden])
        assert np.any(np.asarray(gradient)[~hidden])
