"""The batches that training takes, whatever made them."""

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, UInt8

from sam_jax.image_inputs import normalized
from sam_jax.models.config import ModelConfig
from sam_jax.models.features import ImageFeatures
from sam_jax.one_line import one_line

# Readers make batches on the host; training places them on devices.
_HostOrDevice = Array | np.ndarray


@struct.dataclass
class TrainingBatch:
    """Images in the model's frame with true masks of some of their objects.

    Images are resized so that their longer side is the frame's, and lie at its top left. Masks are
    packed eight pixels to a byte along x, most significant bit first, as `numpy.packbits` does: 64
    masks of one image of 1024x1024 are 8 MB.

    Attributes:
      images: RGB, 0 beyond the image.
      sizes_hw: height and width of each image inside the frame.
      masks: of P objects of each image, packed; False beyond the image.
      weights: of objects; 0 for those that only fill the batch.
    """

    images: UInt8[_HostOrDevice, "B S S 3"]
    sizes_hw: Int[_HostOrDevice, "B 2"]
    masks: UInt8[_HostOrDevice, "B P S S_eighth"]
    weights: Float[_HostOrDevice, "B P"]

    __repr__ = one_line


@struct.dataclass
class EmbeddedBatch:
    """A `TrainingBatch` with its images encoded.

    Attributes:
      features: what the image encoder made of each image.
      sizes_hw: as in `TrainingBatch`.
      masks: likewise.
      weights: likewise.
    """

    features: ImageFeatures
    sizes_hw: Int[_HostOrDevice, "B 2"]
    masks: UInt8[_HostOrDevice, "B P S S_eighth"]
    weights: Float[_HostOrDevice, "B P"]

    __repr__ = one_line


def pack_masks(masks: Bool[Array, "*objects height width"]) -> UInt8[Array, "*objects height _"]:
    """Eight pixels to a byte, as `TrainingBatch.masks`; the width is a multiple of 8."""
    return jnp.packbits(masks, axis=-1)


def unpack_masks(packed: UInt8[Array, "*objects height _"]) -> Bool[Array, "*objects height width"]:
    """The inverse of `pack_masks`."""
    return jnp.unpackbits(packed, axis=-1).astype(bool)


def normalized_images(batch: TrainingBatch, config: ModelConfig) -> Float[Array, "B S S 3"]:
    """Images as the model takes them: normalized, then padded with zeros (as the original does).

    Args:
      batch: with images as bytes.
      config: of the model.
    """
    images = normalized(jnp.asarray(batch.images), config)
    side = jnp.arange(batch.images.shape[1], dtype=jnp.int32)
    inside = side[None, None] < jnp.asarray(batch.sizes_hw, jnp.int32)[:, :, None]
    inside = inside[:, 0, :, None] & inside[:, 1, None, :]
    return jnp.where(inside[..., None], images, 0.0)
