"""The GPU kernel, interpreted on the CPU at the models' own sizes, and lowered for CUDA."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax.ops import attention_gpu
from sam_jax.ops.attention import grid_attention
from sam_jax.ops.attention_gpu import KEY_BLOCK, MAX_CHANNELS, _layout, grid_attention_gpu, supports

# batch, height, width, head, channel. Channels that are one piece, several, and none of a tile;
# one row a step and more, the last step with rows and every row with columns to mask; queries that
# leave a part of a block.
CASES = [
    (2, 14, 14, 2, 64),
    (1, 14, 14, 2, 80),
    (2, 5, 64, 1, 64),
    (1, 7, 37, 2, 24),
    (1, 9, 20, 1, 128),
]


def slow(*case):
    """Left to the slow suite, where the fast one has a case of the same kind."""
    return pytest.param(*case, marks=pytest.mark.slow)


# What the encoders ask for: windows and the whole image, of ViT-B, ViT-H and ViT-L.
B_WINDOWS, B_IMAGE = (25, 14, 14, 12, 64), (1, 64, 64, 12, 64)
H_WINDOWS, H_IMAGE = (25, 14, 14, 16, 80), (1, 64, 64, 16, 80)
L_WINDOWS, L_IMAGE = (25, 14, 14, 16, 64), (1, 64, 64, 16, 64)
MODELS = [
    (B_WINDOWS, "bfloat16"),
    (B_IMAGE, "bfloat16"),
    (H_WINDOWS, "bfloat16"),
    (H_IMAGE, "float32"),
    *(slow(case, "bfloat16") for case in (H_IMAGE, L_WINDOWS, L_IMAGE)),
    *(slow(case, "float32") for case in (B_WINDOWS, B_IMAGE, H_WINDOWS, L_WINDOWS, L_IMAGE)),
]

# Run once each: compiled quickly, not well.
interpreted = jax.jit(
    functools.partial(grid_attention_gpu, interpret=True),
    compiler_options={"xla_backend_optimization_level": 0},
)


def grid_inputs(batch, height, width, head, channel, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    qkv = rng.normal(size=(batch, height, width, 3, head, channel))
    tables = (0.3 * rng.normal(size=(size, size, channel)) for size in (height, width))
    return [jnp.asarray(x, dtype) for x in (qkv, *tables)]


def reference(*inputs):
    with jax.default_matmul_precision("highest"):
        inputs = [jnp.asarray(x, jnp.float32) for x in inputs]
        return grid_attention(*inputs, implementation="reference")


def test_the_cases_cover_every_layout():
    layouts = [_layout(*case[1:3], case[4], jnp.float32) for case in CASES]
    assert {len(layout.pieces) for layout in layouts} == {1, 2}
    assert {layout.stages for layout in layouts} == {1, 2}
    assert any(layout.key_rows == 1 for layout in layouts)
    assert any(layout.size_hw[0] % layout.key_rows for layout in layouts)
    assert any(layout.tokens % layout.query_block for layout in layouts)
    assert {layout.keys for layout in layouts} == {KEY_BLOCK}
    for layout in layouts:
        assert layout.channel <= sum(length for _, length in layout.pieces) < layout.channel + 16


@pytest.mark.parametrize("case", [*CASES[:3], *map(slow, CASES[3:])])
def test_the_kernel_equals_the_reference(case):
    inputs = grid_inputs(*case)
    out = interpreted(*inputs)
    assert out.dtype == jnp.float32
    # float32 sums of up to 128 products, in another order.
    np.testing.assert_allclose(out, reference(*inputs), rtol=0, atol=2e-5)


@pytest.mark.parametrize("case", [CASES[0], *map(slow, CASES[1:3])])
def test_bfloat16_is_as_close_as_its_eight_bits_allow(case):
    inputs = grid_inputs(*case, dtype=jnp.bfloat16)
    out = interpreted(*inputs)
    assert out.dtype == jnp.bfloat16
    truth = reference(*inputs)
    error, scale = np.abs(np.asarray(out, np.float32) - truth), float(jnp.std(truth))
    # The scaled query, the weights and the result are rounded to 2**-9 of themselves, the bias and
    # the logits are not.
    assert np.quantile(error, 0.5) < 0.005 * scale
    assert np.quantile(error, 0.99) < 0.03 * scale
    assert error.max() < 0.15 * scale


def triton_calls(text):
    """Operand and result types of each kernel call in a lowered module."""
    return re.findall(r"stablehlo\.custom_call @__gpu\$xla\.gpu\.triton.*?: (\(.*)", text)


lowers_without_a_device = pytest.mark.skipif(
    jax.__version_info__ >= (0, 12), reason="Pallas asks for a GPU, or a described one, from 0.12"
)


@lowers_without_a_device
@pytest.mark.parametrize("case, dtype", MODELS)
def test_the_models_attention_lowers_for_cuda_and_no_matrix_of_all_tokens_is_made(case, dtype):
    batch, height, width, head, channel = case
    inputs = jax.eval_shape(lambda: grid_inputs(*case, dtype=dtype))
    traced = jax.jit(grid_attention_gpu).trace(*inputs)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    [call] = triton_calls(text)
    name = {"bfloat16": "bf16", "float32": "f32"}[dtype]
    tokens = height * width
    assert call.endswith(f"-> tensor<{batch}x{tokens}x{head}x{channel}x{name}>")
    sizes = [
        np.prod([int(side) for side in re.findall(r"(\d+)x", shape)])
        for shape in re.findall(r"tensor<([\dx]+x)[a-z]", text)
    ]
    # The largest arrays: queries, keys and values, or a bias with its transpose.
    assert max(sizes) <= batch * tokens * head * max(3 * channel, height, width)
    assert batch * head * tokens**2 not in sizes


@lowers_without_a_device
def test_gradients_lower_for_cuda_too():
    def scalar(*inputs):
        return jnp.sum(grid_attention_gpu(*inputs).astype(jnp.float32))

    inputs = jax.eval_shape(lambda: grid_inputs(*B_IMAGE, dtype=jnp.bfloat16))
    traced = jax.jit(jax.value_and_grad(scalar, argnums=(0, 1, 2))).trace(*inputs)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert len(triton_calls(text)) == 1
    assert "4096x4096" not in text and "64x64x64x64" not in text


def test_sizes_beyond_the_kernel_are_named():
    assert supports(200, KEY_BLOCK, MAX_CHANNELS)
    assert not supports(8, KEY_BLOCK + 1, 64) and not supports(8, 8, MAX_CHANNELS + 1)
    with pytest.raises(ValueError, match="up to 64 wide .* not 2x65 and 8"):
        interpreted(*grid_inputs(1, 2, 65, 1, 8))


def test_a_jax_without_triton_is_named(monkeypatch):
    monkeypatch.setattr(attention_gpu, "pltriton", None)
    assert not supports(14, 14, 64)
    with pytest.raises(ValueError, match="Triton"):
        interpreted(*grid_inputs(1, 3, 4, 1, 8))
