"""An image encoder for small models: convolutions at fine resolutions, attention at 1/16.

Not the paper's: on few pictures and little compute, convolutions learn what a plain ViT has to be
shown many examples of, and keep edges that a coarse patch loses. Like SAM 2's, it hands features of
finer resolutions to the decoder's upscaling.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from sam_jax.models.features import ImageFeatures
from sam_jax.models.layers import Dense, LayerNorm, Upscale, gelu
from sam_jax.models.sam.image_encoder import Neck, TransformerEncoder


class ConvBlock(nn.Module):
    """Two 3x3 convolutions with a residual; pre-norm."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch height width channel"]:
        """The block starts as the identity."""
        channel = x.shape[-1]
        out = LayerNorm(dtype=self.dtype, name="norm")(x)
        out = gelu(nn.Conv(channel, (3, 3), dtype=self.dtype, name="conv1")(out))
        zeros = nn.initializers.zeros
        return x + nn.Conv(channel, (3, 3), dtype=self.dtype, kernel_init=zeros, name="conv2")(out)


class HybridEncoder(TransformerEncoder):
    """Normalized images to embeddings at 1/8 of their resolution, and features at 1/4 and 1/2.

    Its `config` is a `HybridEncoderConfig`; `features` are those of the embedding.
    """

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width 3"],
        draws: Float[Array, "batch {self.config.depth} 2"] | None = None,
    ) -> ImageFeatures:
        """Encodes images whose height and width are multiples of 8.

        Args:
          images: normalized.
          draws: see `image_encoder.ImageEncoder`.

        Raises:
          ValueError: they are not.
        """
        config = self.config
        if images.shape[1] % 8 or images.shape[2] % 8:
            raise ValueError(
                f"height and width must be multiples of 8, not {images.shape[1]}x{images.shape[2]}"
            )

        def halved(x, features, name):
            """A convolution of stride 2; of an odd number of rows, the last one stays."""
            return nn.Conv(features, (3, 3), (2, 2), dtype=self.dtype, name=name)(x)

        def norm(x, name):
            return LayerNorm(dtype=self.dtype, name=name)(x)

        half, quarter, eighth = config.stem_dims
        at_half = gelu(halved(images, half, "stem_2"))
        at_quarter = halved(at_half, quarter, "stem_4")
        at_quarter = ConvBlock(self.dtype, name="conv_block_4")(at_quarter)
        at_eighth = halved(norm(at_quarter, "norm_4"), eighth, "stem_8")
        at_eighth = ConvBlock(self.dtype, name="conv_block_8")(at_eighth)
        x = halved(norm(at_eighth, "norm_8"), config.embed_dim, "stem_16")
        x = self.transform(x, draws, [0] * config.depth)

        height, width = at_eighth.shape[1:3]
        x = Upscale(eighth, self.dtype, name="upscale")(norm(x, "norm_16"))
        x = _joined(x)[:, :height, :width] + at_eighth
        x = ConvBlock(self.dtype, name="conv_block_up")(x)
        x = Neck(self.features, self.dtype, name="neck")(x)
        at_quarter = Dense(self.features // 4, self.dtype, name="detail_4")(at_quarter)
        at_half = Dense(self.features // 8, self.dtype, name="detail_2")(at_half)
        return ImageFeatures(x, (at_quarter, at_half))


def _joined(x: Float[Array, "B h w 2 2 C"]) -> Float[Array, "B two_h two_w C"]:
    """Blocks of 2x2 pixels as pixels."""
    batch, height, width, *_, channel = x.shape
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, channel)
