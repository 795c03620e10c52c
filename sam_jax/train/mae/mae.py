"""Pre-training as a masked autoencoder: the loss, and SAM's image encoder from what was learned.

The loss is that of He et al. 2021 and their code; the way to SAM's encoder is ViTDet's (Li et al.
2022), from which SAM has its encoder.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from sam_jax.configs import ImageEncoderConfig, MaeConfig
from sam_jax.errors import InputError
from sam_jax.models.mae.mae import MaskedAutoencoder, patchify, sincos_positions
from sam_jax.ops.resample import resize_position_grid
from sam_jax.types import Params

# Added to a patch's variance: one of a single color has none.
_VARIANCE_FLOOR = 1e-6


def mae_loss(
    model: MaskedAutoencoder,
    params: Params,
    images: Float[Array, "batch height width 3"],
    key: PRNGKeyArray,
    *,
    weights: Float[Array, " batch"] | None = None,
    noise: Float[Array, "batch patches"] | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Squared error of predicted pixels, averaged over masked patches and over images.

    Args:
      model: the architecture.
      params: its variables.
      images: normalized with the configuration's statistics.
      key: decides which patches are masked.
      weights: of images; 0 for those that only fill the batch. None: all the same.
      noise: what decides it instead of the key, see `MaskedAutoencoder`.

    Returns:
      The loss, and metrics: "loss" again, and "weight", the sum of the weights.
    """
    config = model.config
    target = target_patches(images, config.patch_size, config.normalize_targets)
    if noise is None:
        noise = jax.random.uniform(key, target.shape[:2])
    if weights is None:
        weights = jnp.ones(len(images))
    found: Any = model.apply(params, images, noise)
    predicted, masked = found
    error = jnp.square(predicted - target).mean(axis=-1)
    error = jnp.where(masked, error, 0.0).sum(axis=1) / masked.sum(axis=1)
    weight = weights.sum()
    total = jnp.where(weights > 0, weights * error, 0.0).sum()
    loss = total / jnp.where(weight > 0, weight, 1.0)
    return loss, {"loss": loss, "weight": weight}


def target_patches(
    images: Float[Array, "batch height width 3"], patch: int, normalize: bool
) -> Float[Array, "batch patches pixels"]:
    """What is to be predicted, in the order of `patchify`.

    Args:
      images: as the model takes them.
      patch: side of a patch in pixels.
      normalize: bring every patch to mean 0 and variance 1, over its pixels and colors together.
        The variance is divided by their number less one, as in the original code.
    """
    pixels = patchify(images.astype(jnp.float32), patch)
    if not normalize:
        return pixels
    variance = pixels.var(axis=-1, ddof=1, keepdims=True)
    return (pixels - pixels.mean(axis=-1, keepdims=True)) / jnp.sqrt(variance + _VARIANCE_FLOOR)


def sam_encoder_from_mae(
    mae: Params, mae_config: MaeConfig, encoder: Params, config: ImageEncoderConfig
) -> Params:
    """The parameters of SAM's image encoder, started from a masked autoencoder's.

    The blocks and the patch embedding are the autoencoder's; the class token and the last norm are
    left out. Its fixed positions, resized to SAM's grid, become SAM's position table, which is
    trained on. Where the patches differ in size, the patch embedding's kernel is resized too; its
    values are not scaled, as in ViTDet's own change from 14 to 16 (facebookresearch/long_seq_mae,
    issue 2). Both are bicubic, without antialiasing, as PyTorch does it. Tables of relative
    positions are zeros.

    Args:
      mae: the autoencoder's parameters under "params/image_encoder".
      mae_config: its configuration.
      encoder: parameters of SAM's image encoder ("params/image_encoder") at their random start, of
        which the neck stays. Not changed.
      config: of SAM's image encoder.

    Raises:
      InputError: the two encoders are of different sizes.
    """
    for name in ("embed_dim", "depth", "num_heads", "mlp_dim"):
        found, wanted = getattr(mae_config, name), getattr(config, name)
        if found != wanted:
            raise InputError(
                f"the pre-trained encoder has {name} {found}, the model's has {wanted}; "
                "pre-train with the model's own sizes"
            )
    kernel = jnp.asarray(mae["patch_embed"]["kernel"])
    patch_hw = config.patch_size, config.patch_size
    resized = resize_position_grid(kernel.reshape(*kernel.shape[:2], -1), patch_hw)
    positions = sincos_positions((mae_config.grid_size,) * 2, config.embed_dim)
    taken = {
        "patch_embed": {
            "kernel": resized.reshape(*patch_hw, *kernel.shape[2:]),
            "bias": mae["patch_embed"]["bias"],
        },
        "pos_embed": resize_position_grid(jnp.asarray(positions), config.table_size_hw),
    }
    for block in (f"blocks_{i}" for i in range(config.depth)):
        relative = {
            name: jnp.zeros(np.shape(encoder[block]["attn"][name]), jnp.float32)
            for name in ("rel_pos_h", "rel_pos_w")
        }
        taken[block] = {**mae[block], "attn": {**mae[block]["attn"], **relative}}
    return {**encoder, **taken}
