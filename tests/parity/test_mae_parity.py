"""Masked autoencoders against Hugging Face's, with the same weights and the same masks.

Its loss is the original's: targets by the unbiased variance, the mean over masked patches.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from closeness import MODEL_BOUND, assert_close
from flax.traverse_util import flatten_dict
from quick_compile import quick_jit
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from convert.mae.table import from_state_dict
from convert.tables import HUGGING_FACE
from sam_jax.configs import MAE_TEST, MAE_VIT_B, ImageEncoderConfig, MaeConfig
from sam_jax.models.mae.mae import MaskedAutoencoder
from sam_jax.models.sam.image_encoder import ImageEncoder
from sam_jax.train.mae.mae import mae_loss, sam_encoder_from_mae

LOSS_BOUND = 1e-5
# The largest error of a parameter's gradient over that gradient's largest value.
GRADIENT_BOUND = 1e-4


def build(config: MaeConfig, seed=0):
    """Hugging Face's model with random values everywhere but in the fixed positions."""
    model = ViTMAEForPreTraining(
        ViTMAEConfig(
            hidden_size=config.embed_dim,
            num_hidden_layers=config.depth,
            num_attention_heads=config.num_heads,
            intermediate_size=config.mlp_dim,
            layer_norm_eps=1e-6,
            image_size=config.image_size,
            patch_size=config.patch_size,
            decoder_hidden_size=config.decoder_embed_dim,
            decoder_num_hidden_layers=config.decoder_depth,
            decoder_num_attention_heads=config.decoder_num_heads,
            decoder_intermediate_size=config.decoder_mlp_dim,
            mask_ratio=config.mask_ratio,
            norm_pix_loss=config.normalize_targets,
        )
    ).eval()
    # Some versions leave both tables of positions at zero: they take them for filled already.
    model.vit.embeddings.patch_embeddings.projection._is_hf_initialized = False
    with torch.no_grad():
        model.vit.embeddings.initialize_weights()
        model.decoder.initialize_weights(config.grid_size**2)
        rng = np.random.default_rng(seed)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                values = rng.standard_normal(tuple(parameter.shape), np.float32)
                parameter.copy_(torch.from_numpy(scaled(name, values)))
    return model


def scaled(name, values):
    """Activations keep their order of magnitude, and nothing is zero or one."""
    if name.endswith("bias"):
        return 0.3 * values
    if values.ndim == 1:
        return 1.0 + 0.3 * values
    return values if "token" in name else values * np.prod(values.shape[1:]) ** -0.5


def variables(model, config):
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return jax.tree.map(jnp.asarray, from_state_dict(config, state, HUGGING_FACE))


def gradients(model, config):
    found = {n: p.grad.numpy() for n, p in model.named_parameters() if p.requires_grad}
    return from_state_dict(config, found, HUGGING_FACE)


def random_inputs(config, batch, seed=1):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(batch, config.image_size, config.image_size, 3))
    noise = rng.uniform(size=(batch, config.grid_size**2))
    return jnp.asarray(images, jnp.float32), jnp.asarray(noise, jnp.float32)


def as_torch(images):
    """NCHW."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)


def assert_same(config: MaeConfig, batch: int) -> None:
    """Predictions, masks, the loss and the gradients of all parameters."""
    model = build(config)
    images, noise = random_inputs(config, batch)
    expected = model(as_torch(images), noise=torch.from_numpy(np.array(noise)))
    expected.loss.backward()
    ours, params = MaskedAutoencoder(config), variables(model, config)
    predicted, masked = quick_jit(ours.apply)(params, images, noise)
    assert np.array_equal(masked, expected.mask.numpy().astype(bool))
    assert_close(predicted, expected.logits.detach().numpy(), MODEL_BOUND, "predicted pixels")

    def value(params):
        return mae_loss(ours, params, images, jax.random.key(0), noise=noise)[0]

    loss, found = quick_jit(jax.value_and_grad(value))(params)
    assert float(loss) == pytest.approx(expected.loss.item(), rel=LOSS_BOUND)
    found, reference = (flatten_dict(x, sep="/") for x in (found, gradients(model, config)))
    assert found.keys() == reference.keys()
    for name, value in reference.items():
        scale = np.abs(value).max()
        assert scale > 0, f"{name} is reached by no gradient"
        error = np.abs(found[name] - value).max() / scale
        assert error <= GRADIENT_BOUND, f"{name} is off by {error:.1e}"


@pytest.mark.parametrize("normalize", [True, False])
def test_pixels_loss_and_gradients_are_hugging_faces(normalize):
    assert_same(replace(MAE_TEST, normalize_targets=normalize), batch=3)


def test_so_they_are_with_another_patch_and_ratio():
    """As ViT-H's patch; 25 patches, of which 40% are no whole number above."""
    assert_same(replace(MAE_TEST, patch_size=14, image_size=70, mask_ratio=0.61), batch=2)


@pytest.mark.exhaustive
def test_so_they_are_with_vit_b_at_full_size():
    assert_same(MAE_VIT_B, batch=1)


def test_sams_encoder_computes_the_same_tokens_where_both_are_the_same_model():
    """Global attention everywhere, a grid of the same size, and no class token on either side.

    With the class token, the pre-trained model attends to one token more, which SAM's cannot see:
    no equality is to be had there. Before the neck, and without the last norm.
    """
    config = replace(MAE_TEST, image_size=80)
    model = build(config)
    images, _ = random_inputs(config, batch=2)
    with torch.no_grad():
        embeddings = model.vit.embeddings
        tokens = embeddings.patch_embeddings(as_torch(images))
        tokens = tokens + embeddings.position_embeddings[:, 1:]
        for layer in model.vit.layers:
            tokens = layer(tokens)
    encoder_config = ImageEncoderConfig(
        patch_size=config.patch_size,
        embed_dim=config.embed_dim,
        depth=config.depth,
        num_heads=config.num_heads,
        mlp_dim=config.mlp_dim,
        global_attention_indexes=tuple(range(config.depth)),
        table_size_hw=(config.grid_size, config.grid_size),
    )
    encoder = ImageEncoder(encoder_config, 8)
    fresh = quick_jit(encoder.init)(jax.random.key(0), images)["params"]
    # Not at their start, so that it shows if they are left in place.
    noisy = jax.tree.map(lambda x: x + 0.1, fresh)
    mae = variables(model, config)["params"]["image_encoder"]
    params = sam_encoder_from_mae(mae, config, noisy, encoder_config)
    last = f"blocks_{config.depth - 1}"

    def capture(module, method):
        return module.name == last and method == "__call__"

    apply = quick_jit(partial(encoder.apply, capture_intermediates=capture))
    _, kept = apply({"params": params}, images)
    found = kept["intermediates"][last]["__call__"][0]
    assert_close(found.reshape(tokens.shape), tokens.numpy(), what="tokens before the neck")
