from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax.traverse_util import flatten_dict

from sam_jax.configs import MAE_TEST, TEST
from sam_jax.errors import InputError
from sam_jax.models.mae.mae import MaskedAutoencoder, sincos_positions
from sam_jax.models.sam.image_encoder import ImageEncoder
from sam_jax.train.mae.mae import mae_loss, sam_encoder_from_mae, target_patches
from sam_jax.train.mae.mae_files import load_mae

# So small a model runs in less time than LLVM takes to optimize it.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

SIDE = MAE_TEST.image_size
PATCHES = MAE_TEST.grid_size**2
MODEL = MaskedAutoencoder(MAE_TEST)


def random_images(batch, seed=0):
    shape = (batch, SIDE, SIDE, 3)
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.fixture(scope="module")
def params():
    noise = jnp.zeros((1, PATCHES))
    return quick_jit(MODEL.init)(jax.random.key(0), random_images(1), noise)


def test_targets_have_mean_0_and_unbiased_variance_1_in_every_patch():
    images = 5.0 + 3.0 * random_images(2)
    pixels = np.asarray(target_patches(images, 16, normalize=False), np.float64)
    expected = (pixels - pixels.mean(-1, keepdims=True)) / np.sqrt(
        pixels.var(-1, ddof=1, keepdims=True) + 1e-6
    )
    found = target_patches(images, 16, normalize=True)
    # float32; the two variances differ by 1/768, a hundred times as much.
    assert np.abs(found - expected).max() < 1e-5
    flat = target_patches(jnp.ones((1, 16, 16, 3)), 16, normalize=True)
    assert not np.any(flat)


@pytest.mark.parametrize("normalize", [True, False])
def test_the_loss_is_the_mean_over_masked_patches_alone(params, normalize):
    model = MaskedAutoencoder(replace(MAE_TEST, normalize_targets=normalize))
    images, key = random_images(2), jax.random.key(1)
    noise = jax.random.uniform(key, (2, PATCHES))
    predicted, masked = quick_jit(model.apply)(params, images, noise)
    target = target_patches(images, 16, normalize)
    errors = np.square(np.asarray(predicted - target, np.float64)).mean(-1)
    expected = errors[np.asarray(masked)].mean()
    loss, metrics = quick_jit(partial(mae_loss, model))(params, images, key, noise=noise)
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    assert not np.isclose(expected, errors.mean(), rtol=1e-4)
    assert metrics == {"loss": loss, "weight": 2.0}


def test_the_key_decides_the_mask_and_nothing_else_does(params):
    images = random_images(2)
    loss = quick_jit(lambda key: mae_loss(MODEL, params, images, key)[0])
    one, again, other = (float(loss(jax.random.key(seed))) for seed in (1, 1, 2))
    assert one == again != other


def test_images_that_only_fill_the_batch_change_neither_loss_nor_gradient(params):
    images, noise = random_images(4), jax.random.uniform(jax.random.key(0), (4, PATCHES))
    filled = images.at[2:].set(7.0)

    def value(params, images, noise, weights):
        key = jax.random.key(0)
        return mae_loss(MODEL, params, images, key, weights=weights, noise=noise)[0]

    gradient = quick_jit(jax.value_and_grad(value))
    two, expected = gradient(params, images[:2], noise[:2], jnp.ones(2))
    four, found = gradient(params, filled, noise, jnp.asarray([1.0, 1.0, 0.0, 0.0]))
    # Sums of two and four images, in float32.
    assert float(four) == pytest.approx(float(two), rel=1e-6)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())
    none, zeros = gradient(params, filled, noise, jnp.zeros(4))
    assert float(none) == 0.0
    assert not any(np.any(x) for x in jax.tree.leaves(zeros))


def test_a_weight_counts_an_image_as_often(params):
    images, noise = random_images(2), jax.random.uniform(jax.random.key(0), (2, PATCHES))

    value = quick_jit(partial(mae_loss, MODEL))

    def loss(order, weights=None):
        given = {"weights": weights, "noise": noise[jnp.asarray(order)]}
        return value(params, images[jnp.asarray(order)], jax.random.key(0), **given)[0]

    assert float(loss([0, 1], jnp.asarray([2.0, 1.0]))) == pytest.approx(
        float(loss([0, 0, 1])), rel=1e-6
    )


def test_training_learns_to_continue_what_is_visible(params):
    """Ramps of random direction: a guess that ignores the image has an error of 1."""
    place = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1) / SIDE
    directions = np.random.default_rng(0).normal(size=(16, 2, 3))
    images = jnp.asarray(place @ directions[:, None], jnp.float32)
    optimizer = optax.adam(3e-3)

    def step(carry, number):
        params, state = carry
        key = jax.random.fold_in(jax.random.key(0), number)
        loss, gradient = jax.value_and_grad(
            lambda p: mae_loss(MODEL, p, images, key)[0],
        )(params)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), loss

    start = (params, optimizer.init(params))
    _, losses = jax.jit(lambda start: jax.lax.scan(step, start, jnp.arange(200)))(start)
    assert losses[0] > 0.9
    assert losses[-20:].mean() < 0.3


@pytest.fixture(scope="module")
def fresh():
    """SAM's image encoder at its random start."""
    images = jnp.zeros((1, TEST.image_size, TEST.image_size, 3))
    init = quick_jit(ImageEncoder(TEST.image_encoder, TEST.embed_dim).init)
    return init(jax.random.key(3), images)["params"]


def test_sams_encoder_takes_blocks_and_positions_and_keeps_its_neck(params, fresh):
    mae = params["params"]["image_encoder"]
    found = sam_encoder_from_mae(mae, MAE_TEST, fresh, TEST.image_encoder)
    flat, before = flatten_dict(found, sep="/"), flatten_dict(fresh, sep="/")
    assert {n: x.shape for n, x in flat.items()} == {n: x.shape for n, x in before.items()}
    learned = flatten_dict(mae, sep="/")
    for name, value in flat.items():
        if name.startswith("neck/"):
            assert np.array_equal(value, before[name])
        elif "rel_pos" in name:
            assert not np.any(value)
        elif name != "pos_embed":
            assert np.array_equal(value, learned[name]), name
    # The whole tree is used but for what SAM has no place for.
    assert learned.keys() - flat.keys() == {"cls_token", "norm/scale", "norm/bias"}
    table = torch.from_numpy(sincos_positions((4, 4), TEST.image_encoder.embed_dim))
    resized = torch.nn.functional.interpolate(
        table.permute(2, 0, 1)[None], (8, 8), mode="bicubic", align_corners=False
    )
    # Both in float32, in different orders.
    assert np.abs(flat["pos_embed"] - resized[0].permute(1, 2, 0).numpy()).max() < 1e-5


def test_a_patch_kernel_of_another_size_is_resized_as_pytorch_does(params, fresh):
    config = replace(MAE_TEST, patch_size=14, image_size=56)
    mae = params["params"]["image_encoder"]
    kernel = np.random.default_rng(0).normal(size=(14, 14, 3, config.embed_dim))
    mae = {**mae, "patch_embed": {**mae["patch_embed"], "kernel": kernel.astype(np.float32)}}
    found = sam_encoder_from_mae(mae, config, fresh, TEST.image_encoder)
    nchw = torch.from_numpy(kernel).permute(3, 2, 0, 1)
    resized = torch.nn.functional.interpolate(nchw, (16, 16), mode="bicubic", align_corners=False)
    expected = resized.permute(2, 3, 1, 0).numpy()
    # Float32 against float64, values of up to 5.
    assert np.abs(found["patch_embed"]["kernel"] - expected).max() < 1e-5


@pytest.mark.parametrize("name", ["embed_dim", "depth", "num_heads", "mlp_dim"])
def test_an_encoder_of_other_sizes_is_refused(params, name):
    other = replace(MAE_TEST, **{name: 4})
    with pytest.raises(InputError, match=f"has {name} 4, the model's has"):
        sam_encoder_from_mae(params["params"]["image_encoder"], other, {}, TEST.image_encoder)


def test_a_file_of_something_else_is_no_autoencoder(tmp_path):
    path = tmp_path / "model.npz"
    writes = (
        lambda: path.write_bytes(b""),
        lambda: path.write_bytes(b"no archive"),
        lambda: np.save(path.open("wb"), np.zeros(3)),
        lambda: np.savez(path, weights=np.zeros(3)),
        lambda: np.savez(path, config=np.array("{}")),
        lambda: np.savez(path, config=np.array("[1]")),
    )
    for write in writes:
        write()
        with pytest.raises(InputError, match="is no file that sam-jax pretrain wrote") as error:
            load_mae(path)
        assert "\n" not in str(error.value)
