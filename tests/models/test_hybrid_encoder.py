"""The hybrid encoder, and its finer features, which the mask decoder's upscaling alone sees."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf
from small_hybrid import SMALL_HYBRID
from test_segmenter import random_params

from sam_jax.configs import TINY
from sam_jax.models.features import ImageFeatures, in_blocks
from sam_jax.models.sam.hybrid_encoder import ConvBlock
from sam_jax.models.sam.sam import Sam, variable_shapes
from sam_jax.types import Prompts

# So small a model runs in less time than LLVM takes to optimize it.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
DIM = SMALL_HYBRID.embed_dim
QUARTER, HALF = DIM // 4, DIM // 8
# Float32 rounding over some twenty layers, on values of order one.
ATOL = 2e-5
# The height and width are multiples of 8; of the grid of 1/16, some are half a token more.
SIZES_HW = [(8, 8), (24, 40), (128, 96), (40, 8)]


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def prompts_of(batch, count):
    points = 8 + 8 * normal(batch, count, 2, 2, seed=7)
    return Prompts(points=points, labels=jnp.array([[[1, 0]] * count] * batch))


def with_values(variables, **values):
    """The variables, with those of the image encoder at these paths ("a/b") replaced."""
    encoder = dict(variables["params"]["image_encoder"])
    for path, change in values.items():
        layer, name = path.rsplit("/", 1)
        *outer, inner = layer.split("/")
        parent = encoder
        for key in outer:
            parent[key] = parent = dict(parent[key])
        parent[inner] = {**parent[inner], name: change(parent[inner][name])}
    return {**variables, "params": {**variables["params"], "image_encoder": encoder}}


@pytest.fixture(scope="module")
def variables():
    return random_params(SMALL_HYBRID)


@quick_jit
def encode(variables, images):
    return Sam(SMALL_HYBRID).apply(variables, images, method="encode_image")


@quick_jit
def decode(variables, features, prompts):
    return Sam(SMALL_HYBRID).apply(variables, features, prompts, method="decode")


@pytest.mark.parametrize("size_hw", [*SIZES_HW, (256, 256)])
def test_shapes_follow_the_image_at_one_eighth(size_hw):
    height, width = size_hw
    images = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
    shapes = variable_shapes(TINY)
    features = jax.eval_shape(partial(Sam(TINY).apply, method="encode_image"), shapes, images)
    assert features.embedding.shape == (2, height // 8, width // 8, 96)
    quarter, half = features.finer
    assert quarter.shape == (2, height // 4, width // 4, 24)
    assert half.shape == (2, height // 2, width // 2, 12)
    logits, iou = jax.eval_shape(Sam(TINY).apply, shapes, images, prompts_of(2, 3))
    assert logits.shape == (2, 3, 3, height // 2, width // 2) and iou.shape == (2, 3, 3)


@pytest.mark.parametrize("size_hw", SIZES_HW)
def test_every_size_gives_finite_values_of_which_none_is_constant(variables, size_hw):
    features = encode(variables, normal(1, *size_hw, 3))
    for one in jax.tree.leaves(features):
        varies = (np.std(one, axis=(0, 1, 2)) > 0).all()
        assert np.isfinite(one).all() and varies == (one.shape[1:3] != (1, 1))


@pytest.mark.parametrize("size_hw", [(12, 16), (16, 20), (4, 8), (8, 1)])
def test_sizes_that_are_no_multiple_of_8_are_refused(size_hw):
    images = jnp.zeros((1, *size_hw, 3))
    with pytest.raises(ValueError, match=f"multiples of 8, not {size_hw[0]}x{size_hw[1]}"):
        jax.eval_shape(
            partial(Sam(TINY).apply, method="encode_image"), variable_shapes(TINY), images
        )


def test_pixels_go_to_the_order_of_the_upscalings_blocks():
    """Row and column in a block of the first upscaling, then of the second within it."""
    height, width = 3, 5
    place = 100 * np.arange(4 * height)[:, None] + np.arange(4 * width)
    finest = jnp.asarray(np.stack([place, -place], axis=-1)[None], jnp.float32)
    found = np.asarray(in_blocks(finest, 2, jnp.float32))[0, 0]
    for h, w, i, j, k, m in np.ndindex(height, width, 2, 2, 2, 2):
        expected = 100 * (4 * h + 2 * i + k) + 4 * w + 2 * j + m
        assert found[h, w, i, j, k, m].tolist() == [expected, -expected]
    assert found.shape == (height, width, 2, 2, 2, 2, 2)
    coarser = in_blocks(finest[:, : 2 * height, : 2 * width], 1, jnp.float32)[0, 0]
    assert coarser.shape == (height, width, 2, 2, 2)
    for h, w, i, j in np.ndindex(height, width, 2, 2):
        assert coarser[h, w, i, j, 0] == 100 * (2 * h + i) + 2 * w + j


def taps_of_own_pixels(kernel):
    """A kernel of stride 2 that sees the 2x2 pixels that it halves, and not the next ones."""
    return kernel.at[2].set(0).at[:, 2].set(0)


LOCAL = {
    "stem_2/kernel": taps_of_own_pixels,
    "stem_4/kernel": taps_of_own_pixels,
    "conv_block_4/conv2/kernel": jnp.zeros_like,
}


@pytest.mark.parametrize(
    "side, silent, layer", [(2, "detail_4", "detail_2"), (4, "detail_2", "detail_4")]
)
@pytest.mark.parametrize("row, column", [(0, 0), (1, 3), (3, 2), (5, 7), (2, 9)])
def test_a_detail_changes_its_own_pixel_of_the_mask_alone(
    variables, side, silent, layer, row, column
):
    """An image that differs in one block of pixels gives masks that differ right there."""
    own = with_values(
        variables,
        **LOCAL,
        **{f"{silent}/kernel": jnp.zeros_like, f"{silent}/bias": jnp.zeros_like},
    )
    one = normal(1, 24, 40, 3)
    block = np.s_[:, side * row : side * row + side, side * column : side * column + side]
    other = one.at[block].add(normal(1, side, side, 3, seed=1))
    features, changed = encode(own, one), encode(own, other)
    # All that the two have of their own is finer features.
    changed = ImageFeatures(features.embedding, changed.finer)
    prompts = prompts_of(1, 2)
    (before, iou), (after, same_iou) = decode(own, features, prompts), decode(own, changed, prompts)
    np.testing.assert_array_equal(iou, same_iou)
    differs = np.abs(np.asarray(after - before)).max(axis=(0, 1, 2)) > 0
    expected = np.zeros_like(differs)
    pixels = side // 2
    expected[pixels * row : pixels * row + pixels, pixels * column : pixels * column + pixels] = 1
    np.testing.assert_array_equal(differs, expected)


def gelu(x):
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def slow_upscaling(params, image, at_quarter, at_half):
    """Two transposed convolutions of kernel 2 and stride 2, pixel by pixel, details added."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    height, width, _ = image.shape
    middle = np.zeros((2 * height, 2 * width, QUARTER))
    for y, x in np.ndindex(*middle.shape[:2]):
        kernel = params["conv1"]["kernel"][:, y % 2, x % 2]
        value = image[y // 2, x // 2] @ kernel + params["conv1"]["bias"] + at_quarter[y, x]
        value = (value - value.mean()) / np.sqrt(value.var() + 1e-6)
        middle[y, x] = gelu(value * params["norm"]["scale"] + params["norm"]["bias"])
    out = np.zeros((4 * height, 4 * width, HALF))
    for y, x in np.ndindex(*out.shape[:2]):
        kernel = params["conv2"]["kernel"][:, y % 2, x % 2]
        value = middle[y // 2, x // 2] @ kernel + params["conv2"]["bias"] + at_half[y, x]
        out[y, x] = gelu(value)
    return out


def test_decoding_with_details_is_what_it_is_pixel_by_pixel(variables):
    height, width = 3, 4
    embedding = normal(1, height, width, DIM, seed=2)
    at_quarter, at_half = (
        np.asarray(normal(scale * height, scale * width, channels, seed=scale))
        for scale, channels in ((2, QUARTER), (4, HALF))
    )
    finer = (jnp.asarray(at_quarter)[None], jnp.asarray(at_half)[None])
    features = ImageFeatures(embedding, finer)
    seen = {"capture_intermediates": True, "mutable": ["intermediates"]}
    decode_seen = quick_jit(partial(Sam(SMALL_HYBRID).apply, method="decode", **seen))
    (logits, _), state = decode_seen(variables, features, prompts_of(1, 2))
    decoder = state["intermediates"]["mask_decoder"]
    ((_, image),) = decoder["transformer"]["__call__"]
    (weights,) = decoder["output_hypernetworks_mlps"]["__call__"]
    own = variables["params"]["mask_decoder"]["output_upscaling"]
    for prompt in range(2):
        tokens = np.asarray(image[0, prompt], np.float64).reshape(height, width, DIM)
        pixels = slow_upscaling(own, tokens, at_quarter, at_half)
        for mask in range(3):
            expected = pixels @ np.asarray(weights[0, prompt, 1 + mask], np.float64)
            assert np.std(expected) > 0.1
            np.testing.assert_allclose(logits[0, prompt, mask], expected, atol=ATOL)


def test_a_batch_is_each_image_alone(variables):
    images, prompts = normal(3, 24, 40, 3), prompts_of(3, 2)
    features = encode(variables, images)
    logits, iou = decode(variables, features, prompts)
    for i in range(3):
        alone = encode(variables, images[i : i + 1])
        own = jax.tree.map(lambda x, i=i: x[i : i + 1], features)
        jax.tree.map(partial(np.testing.assert_allclose, atol=ATOL), own, alone)
        one = jax.tree.map(lambda x, i=i: x[i : i + 1], prompts)
        found = decode(variables, alone, one)
        np.testing.assert_allclose(logits[i : i + 1], found[0], atol=10 * ATOL)
        np.testing.assert_allclose(iou[i : i + 1], found[1], atol=10 * ATOL)


def test_bfloat16_compute_keeps_parameters_in_float32_and_stays_close(variables):
    images, prompts = normal(2, 32, 48, 3), prompts_of(2, 2)
    model = Sam(SMALL_HYBRID, jnp.bfloat16)
    drawn = jax.eval_shape(model.init, jax.random.key(0), images, prompts)
    assert {leaf.dtype for leaf in jax.tree.leaves(drawn)} == {jnp.dtype(jnp.float32)}
    exact = quick_jit(Sam(SMALL_HYBRID).apply)(variables, images, prompts)
    rough = quick_jit(model.apply)(variables, images, prompts)
    for one, other in zip(rough, exact, strict=True):
        assert one.dtype == jnp.float32 and np.isfinite(one).all()
        # Eight bits of mantissa through some twenty layers.
        assert np.quantile(np.abs(one - other), 0.5) < 0.05 * np.std(other)


def test_rematerialisation_changes_neither_values_nor_gradients(variables):
    images = normal(1, 24, 40, 3)

    def scalar(params, remat):
        own = {**variables, "params": params}
        features = Sam(SMALL_HYBRID, remat=remat).apply(own, images, method="encode_image")
        return sum(jnp.sum(jnp.sin(one)) for one in jax.tree.leaves(features))

    gradient = jax.grad(scalar)
    jaxprs = [
        str(jax.make_jaxpr(gradient, static_argnums=1)(variables["params"], remat))
        for remat in (False, True)
    ]
    depth = SMALL_HYBRID.image_encoder.depth
    assert [text.count("remat") >= depth for text in jaxprs] == [False, True]
    both = [
        quick_jit(jax.value_and_grad(scalar), static_argnums=1)(variables["params"], remat)
        for remat in (False, True)
    ]
    for one, other in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * max(float(jnp.abs(other).max()), 1e-6))


def test_every_encoder_parameter_has_a_gradient(variables):
    images, prompts = normal(2, 24, 40, 3), prompts_of(2, 2)

    def scalar(params):
        logits, iou = Sam(SMALL_HYBRID).apply({**variables, "params": params}, images, prompts)
        return jnp.sum(jnp.sin(logits)) + jnp.sum(iou)

    gradients = quick_jit(jax.grad(scalar))(variables["params"])["image_encoder"]
    for path, leaf in jax.tree.leaves_with_path(gradients):
        assert np.isfinite(leaf).all() and np.any(leaf), jax.tree_util.keystr(path)


@pytest.mark.parametrize("attention", ["reference", "chunked", "mapped"])
def test_the_implementation_of_attention_changes_no_embedding(variables, attention):
    images = normal(1, 40, 56, 3)
    model = Sam(SMALL_HYBRID, attention=attention)
    found = quick_jit(partial(model.apply, method="encode_image"))(variables, images)
    expected = encode(variables, images)
    jax.tree.map(partial(np.testing.assert_allclose, atol=ATOL), found, expected)


def test_blocks_that_drop_path_leaves_out_are_left_out_for_that_image_alone(variables):
    images = jnp.tile(normal(1, 16, 24, 3), (2, 1, 1, 1))
    model = Sam(SMALL_HYBRID, drop_path=0.5)
    draws = jnp.array([[[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [0.0, 0.0]]])
    encode_drawn = quick_jit(partial(model.apply, method="encode_image"))
    kept, dropped = encode_drawn(variables, images, draws).embedding
    # The first block is never left out; the last here is, and what it would have added is missing.
    last = {
        f"blocks_1/{layer}/{name}": jnp.zeros_like
        for layer in ("attn/proj", "mlp/lin2")
        for name in ("kernel", "bias")
    }
    without = encode(with_values(variables, **last), images[:1]).embedding[0]
    np.testing.assert_allclose(dropped, without, atol=ATOL)
    assert np.abs(kept - dropped).max() > 1e-2


def test_a_convolution_block_starts_as_the_identity():
    x = normal(2, 5, 7, 6)
    found, variables = ConvBlock().init_with_output(jax.random.key(0), x)
    np.testing.assert_array_equal(found, x)
    kernels = variables["params"]["conv1"]["kernel"], variables["params"]["conv2"]["kernel"]
    assert np.any(kernels[0]) and kernels[0].shape == kernels[1].shape == (3, 3, 6, 6)


def test_whatever_size_it_is_initialised_with_the_variables_are_the_same():
    expected = jax.tree.map(lambda x: (x.shape, x.dtype), variable_shapes(TINY))
    images, prompts = jnp.zeros((1, 40, 24, 3)), prompts_of(1, 1)
    found = jax.eval_shape(Sam(TINY).init, jax.random.key(0), images, prompts)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), found) == expected
