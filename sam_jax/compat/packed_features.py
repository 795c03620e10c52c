"""Features as one array, as the original has them: finer ones as further channels.

The original's models have no finer features; the shipped one, which its classes run too, does.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from sam_jax.models.config import ModelConfig
from sam_jax.models.features import ImageFeatures


def packed_channels(config: ModelConfig) -> int:
    """Channels of `packed` features."""
    (side, _, channels), *finer = config.feature_shapes(1)
    return channels + sum(height * width * depth for height, width, depth in finer)


def packed(features: ImageFeatures) -> Float[Array, "h w channels"]:
    """The embedding, then for each of its pixels those of the finer features in it."""
    height, width, _ = features.embedding.shape
    parts = [features.embedding]
    for one in features.finer:
        times, depth = one.shape[0] // height, one.shape[2]
        blocks = one.reshape(height, times, width, times, depth).swapaxes(1, 2)
        parts.append(blocks.reshape(height, width, -1))
    return jnp.concatenate(parts, axis=-1)


def unpacked(array: Float[Array, "h w channels"], config: ModelConfig) -> ImageFeatures:
    """The inverse of `packed`."""
    height, width, _ = array.shape
    shapes = config.feature_shapes(1)
    ends = [sum(h * w * depth for h, w, depth in shapes[: i + 1]) for i in range(len(shapes) - 1)]
    embedding, *finer = jnp.split(array, ends, axis=-1)
    images = []
    for one, (times, _, depth) in zip(finer, shapes[1:], strict=True):
        blocks = one.reshape(height, width, times, times, depth).swapaxes(1, 2)
        images.append(blocks.reshape(height * times, width * times, depth))
    return ImageFeatures(embedding, tuple(images))
