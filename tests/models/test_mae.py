from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from sam_jax.configs import MAE_CONFIGS, MAE_TEST, MAE_VIT_B, MAE_VIT_H, VIT_B, VIT_H
from sam_jax.models.mae.mae import MaeEncoder, MaskedAutoencoder, patchify, sincos_positions
from sam_jax.models.sam.sam import variable_shapes

# So small a model runs in less time than LLVM takes to optimize it.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

PATCH = MAE_TEST.patch_size
# Not square, so that rows and columns cannot be taken for each other.
GRID_HW = (3, 5)
TOKENS = GRID_HW[0] * GRID_HW[1]


def random_images(seed=0, batch=2):
    shape = (batch, GRID_HW[0] * PATCH, GRID_HW[1] * PATCH, 3)
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def random_noise(seed=0, batch=2):
    noise = np.random.default_rng(seed).uniform(size=(batch, TOKENS))
    return jnp.asarray(noise, jnp.float32)


@pytest.fixture(scope="module")
def params():
    init = quick_jit(MaskedAutoencoder(MAE_TEST).init)
    return init(jax.random.key(0), random_images(), random_noise())


@pytest.mark.parametrize("row, column", [(0, 0), (0, 3), (2, 0), (2, 4)])
def test_a_position_is_the_column_and_then_the_row_each_as_sines_and_then_cosines(row, column):
    channel = 16
    found = sincos_positions(GRID_HW, channel)[row, column]
    frequencies = [10_000 ** (-k / 4) for k in range(4)]
    expected = [
        wave(place * frequency)
        for place in (column, row)
        for wave in (np.sin, np.cos)
        for frequency in frequencies
    ]
    assert np.allclose(found, expected, atol=1e-7)


def test_a_patch_lists_its_rows_of_pixels_and_of_each_its_colours():
    images = random_images()
    patches = np.asarray(patchify(images, PATCH))
    assert patches.shape == (2, TOKENS, 3 * PATCH * PATCH)
    for row, column in ((0, 0), (1, 4), (2, 1)):
        one = patches[1, row * GRID_HW[1] + column].reshape(PATCH, PATCH, 3)
        top, left = row * PATCH, column * PATCH
        assert np.array_equal(one, images[1, top : top + PATCH, left : left + PATCH])


def test_of_each_image_the_patches_with_the_lowest_noise_are_visible(params):
    noise = random_noise()
    _, masked = quick_jit(MaskedAutoencoder(MAE_TEST).apply)(params, random_images(), noise)
    kept = int(TOKENS * 0.25)
    for image in range(2):
        lowest = set(np.argsort(np.asarray(noise[image]))[:kept].tolist())
        assert set(np.flatnonzero(~np.asarray(masked[image])).tolist()) == lowest
    assert not np.array_equal(masked[0], masked[1])


def test_masked_pixels_change_no_prediction_and_visible_ones_do(params):
    apply = quick_jit(MaskedAutoencoder(MAE_TEST).apply)
    images, noise = random_images(), random_noise()
    before, masked = apply(params, images, noise)

    def after_changing(patch):
        top, left = (int(i) * PATCH for i in divmod(int(patch), GRID_HW[1]))
        changed = images.at[0, top : top + PATCH, left : left + PATCH].add(1.0)
        return apply(params, changed, noise)[0]

    assert np.array_equal(before, after_changing(np.flatnonzero(masked[0])[0]))
    assert not np.allclose(before[0], after_changing(np.flatnonzero(~masked[0])[0])[0])


def test_the_encoder_alone_sees_all_patches_unless_told_which(params):
    apply = quick_jit(MaeEncoder(MAE_TEST).apply)
    alone = {"params": params["params"]["image_encoder"]}
    every = apply(alone, random_images())
    assert every.shape == (2, TOKENS + 1, MAE_TEST.embed_dim)
    # All of them in another order: the tokens come in that order, as attention knows none.
    order = np.random.default_rng(0).permuted(np.tile(np.arange(TOKENS), (2, 1)), axis=1)
    shuffled = apply(alone, random_images(), jnp.asarray(order))
    expected = np.take_along_axis(np.asarray(every[:, 1:]), order[..., None], axis=1)
    # Sums in another order.
    assert np.allclose(shuffled[:, 1:], expected, atol=1e-5)
    assert np.allclose(shuffled[:, 0], every[:, 0], atol=1e-5)


def test_kernels_start_uniform_as_of_linear_layers_and_tokens_normal():
    config = MAE_VIT_B
    images, noise = jnp.zeros((1, 224, 224, 3)), jnp.zeros((1, 196))

    def kernels(key):
        tree = MaskedAutoencoder(config).init(key, images, noise)["params"]
        encoder, decoder = tree["image_encoder"], tree["decoder"]
        return {
            "patch_embed": encoder["patch_embed"]["kernel"],
            "qkv": encoder["blocks_0"]["attn"]["qkv"]["kernel"],
            "proj": encoder["blocks_0"]["attn"]["proj"]["kernel"],
            "lin1": encoder["blocks_0"]["mlp"]["lin1"]["kernel"],
            "lin2": encoder["blocks_0"]["mlp"]["lin2"]["kernel"],
            "decoder_pred": decoder["decoder_pred"]["kernel"],
        }, (encoder["cls_token"], decoder["mask_token"])

    found, tokens = jax.jit(kernels)(jax.random.key(0))
    for name, kernel in found.items():
        kernel = np.asarray(kernel).reshape(-1, kernel.shape[-1])
        bound = np.sqrt(6 / sum(kernel.shape))
        # Of half a million draws the largest comes within 0.1% of the bound.
        assert 0.999 * bound < np.abs(kernel).max() < 1.000001 * bound, name
        assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.01), name
    for token in tokens:
        # 512 draws or more: the standard deviation is within 3% one time in three.
        assert np.std(token) == pytest.approx(0.02, rel=0.15)


def test_bfloat16_computes_nearly_the_same_with_parameters_in_float32(params):
    images, noise = random_images(), random_noise()
    exact, _ = quick_jit(MaskedAutoencoder(MAE_TEST).apply)(params, images, noise)
    low = MaskedAutoencoder(MAE_TEST, dtype=jnp.bfloat16)
    found, _ = quick_jit(low.apply)(params, images, noise)
    assert found.dtype == jnp.float32
    error = np.abs(found - exact).max() / np.std(exact)
    # bfloat16 has 8 bits: some 0.4% a rounding, over three blocks.
    assert 0 < error < 0.1
    shapes = jax.eval_shape(low.init, jax.random.key(0), images, noise)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}


def test_remat_changes_no_gradient(params):
    images, noise = random_images(), random_noise()

    def gradient(remat):
        model = MaskedAutoencoder(MAE_TEST, remat=remat)
        return quick_jit(jax.grad(lambda p: jnp.square(model.apply(p, images, noise)[0]).sum()))

    one, other = gradient(False)(params), gradient(True)(params)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        # The same formula in programs that XLA fuses differently.
        assert np.allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(a).max())


def shapes_of(config):
    side, patches = config.image_size, config.grid_size**2
    return jax.eval_shape(
        MaskedAutoencoder(config).init,
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32),
        jax.ShapeDtypeStruct((1, patches), jnp.float32),
    )


@pytest.mark.parametrize("mae, sam", [(MAE_VIT_B, VIT_B), (MAE_VIT_H, VIT_H)])
def test_the_papers_encoders_have_the_blocks_of_sams(mae, sam):
    pretrained = flatten_dict(shapes_of(mae)["params"]["image_encoder"], sep="/")
    encoder = flatten_dict(variable_shapes(sam)["params"]["image_encoder"], sep="/")
    blocks = {n: x.shape for n, x in encoder.items() if n.startswith("blocks_")}
    blocks = {n: shape for n, shape in blocks.items() if "rel_pos" not in n}
    assert blocks == {n: x.shape for n, x in pretrained.items() if n.startswith("blocks_")}


@pytest.mark.parametrize(
    "name, values, visible",
    [("vit_b", 111_655_680, 49), ("vit_l", 329_239_296, 49), ("vit_h", 656_613_964, 64)],
)
def test_the_papers_models_have_the_originals_size(name, values, visible):
    """Without the fixed positions, which the original counts too; and as many visible patches."""
    config = MAE_CONFIGS[name]
    assert sum(x.size for x in jax.tree.leaves(shapes_of(config))) == values
    assert config.visible(config.grid_size**2) == visible
