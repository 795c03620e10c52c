"""From Hiera's stages to what the memory and the mask decoder read (SAM 2 section C.1)."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from sam_jax.models.features import ImageFeatures
from sam_jax.models.layers import Projection, add_to_channels
from sam_jax.models.sam2.config import Sam2Config
from sam_jax.models.sam2.hiera import Hiera


class ImageEncoder(nn.Module):
    """Trunk and neck: normalized images to `ImageFeatures`.

    The neck is linear, and so is what the decoder does first with the two finer stages: both are
    one product, a tenth of the work of two.
    """

    config: Sam2Config
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"]) -> ImageFeatures:
        """Encodes images whose height and width are multiples of 32.

        Raises:
          ValueError: they are not.
        """
        coarsest = 2 * self.config.image_encoder.patch_size
        if images.shape[1] % coarsest or images.shape[2] % coarsest:
            raise ValueError(
                f"height and width must be multiples of {coarsest}, "
                f"not {images.shape[1]}x{images.shape[2]}"
            )
        dim = self.config.embed_dim
        stages = Hiera(self.config.image_encoder, self.dtype, self.remat, name="trunk")(images)
        lateral = [
            Projection(x.shape[-1], dim, name=f"lateral_{i}")() for i, x in enumerate(stages)
        ]
        finer = [
            Projection(dim, dim // 8, name="stride4")(),
            Projection(dim, dim // 4, name="stride8")(),
        ]
        high = jnp.float32
        for i, (kernel, bias) in enumerate(finer):
            first, first_bias = lateral[i]
            both = jnp.matmul(first, kernel, precision="highest")
            lateral[i] = both, jnp.matmul(first_bias, kernel, precision="highest") + bias

        def project(i):
            kernel, bias = (x.astype(self.dtype) for x in lateral[i])
            out = jnp.matmul(stages[i], kernel, preferred_element_type=high)
            return add_to_channels(out.astype(self.dtype), bias)

        above = jnp.repeat(jnp.repeat(project(3), 2, axis=1), 2, axis=2)
        return ImageFeatures(project(2) + above, (project(1), project(0)))
