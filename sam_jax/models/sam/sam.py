"""Segment Anything: image encoder, prompt encoder and mask decoder as one module."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Shaped

from sam_jax.models.features import ImageFeatures
from sam_jax.models.layers import check_images
from sam_jax.models.mask_decoder import MaskDecoder
from sam_jax.models.prompt_encoder import PromptEncoder
from sam_jax.models.sam.config import HybridEncoderConfig, SamConfig
from sam_jax.models.sam.hybrid_encoder import HybridEncoder
from sam_jax.models.sam.image_encoder import ImageEncoder
from sam_jax.types import Params, Prompts


class Sam(nn.Module):
    """The model as a stateless description: `model.apply(params, ...)` is a pure function.

    Attributes:
      config: the architecture.
      dtype: compute type, float32 or bfloat16. Parameters, LayerNorm statistics, softmax and the
        outputs of `decode` are float32 either way.
      remat: recompute the encoder's blocks in the backward pass to save memory.
      attention: implementation of the encoder's attention, one of `ops.attention.IMPLEMENTATIONS`;
        None chooses by platform.
      model_axis: the axis of a device mesh over which the encoder's heads and MLP are divided. Such
        a model runs inside `jax.shard_map`, on one device's part of the parameters
        (`inference.mesh_programs`); it cannot be initialized there.
      drop_path: how often the encoder's last block is left out for an image, in training; linearly
        less in those before.
      decoder_dropout: of the outputs of the decoder's attention and MLPs, in training (paper: 0.1;
        the released code has none). Above 0, `apply` needs a key for "dropout".
    """

    config: SamConfig
    dtype: Any = jnp.float32
    remat: bool = False
    attention: str | None = None
    model_axis: str | None = None
    drop_path: float = 0.0
    decoder_dropout: float = 0.0

    def setup(self):
        """The three parts of the paper's figure."""
        config = self.config
        hybrid = isinstance(config.image_encoder, HybridEncoderConfig)
        encoder: Any = HybridEncoder if hybrid else ImageEncoder
        self.image_encoder = encoder(
            config.image_encoder,
            config.embed_dim,
            self.dtype,
            self.remat,
            self.attention,
            self.model_axis,
            self.drop_path,
        )
        self.prompt_encoder = PromptEncoder(config, self.dtype)
        self.mask_decoder = MaskDecoder(config, self.dtype, self.decoder_dropout)

    def __call__(
        self, images: Shaped[Array, "B H W 3"], prompts: Prompts, multimask: bool = True
    ) -> tuple[Float[Array, "B P M h w"], Float[Array, "B P M"]]:
        """Encodes images and decodes prompts; see `encode_image` and `decode`."""
        return self.decode(self.encode_image(images), prompts, multimask)

    def encode_image(
        self, images: Shaped[Array, "B H W 3"], draws: Float[Array, "B depth 2"] | None = None
    ) -> ImageFeatures:
        """Embeddings at 1/16 of the resolution; a hybrid encoder's at 1/8, and finer features.

        Args:
          images: RGB, normalized: (value - `config.pixel_mean`) / `config.pixel_std` of values from
            0 to 255, as float32 or bfloat16, batch and channels as the first and last axis;
            scaled so that the longest side is `config.image_size` and padded with zeros at the
            bottom and right. `sam_jax.prepare_image` makes that of an image and `prepare_images`,
            under `jit`, of a batch. Neither bytes nor floats from 0 to 1: those, which cannot be
            told from normalized ones, give wrong features. Height and width may be any multiples
            of the patch size; position tables are resized to them.
          draws: uniform numbers for `drop_path`, in training.

        Raises:
          ValueError: height or width is no multiple of the patch size, or images are integers or
            booleans (`InputError`).
        """
        check_images(images)
        return self.image_encoder(images, draws)

    def encode_prompts(
        self, prompts: Prompts, grid_hw: tuple[int, int]
    ) -> tuple[Float[Array, "B P N C"], Bool[Array, "B P N"], Float[Array, "B shared_or_P h w C"]]:
        """Sparse tokens, which of them are there, and the dense embedding of prompts.

        Args:
          prompts: in the frame of the padded image.
          grid_hw: the image embedding's height and width.
        """
        return self.prompt_encoder(prompts, grid_hw)

    def decode(
        self,
        features: ImageFeatures,
        prompts: Prompts,
        multimask: bool | None = True,
    ) -> tuple[Float[Array, "B P M four_h four_w"], Float[Array, "B P M"]]:
        """Mask logits and predicted IoU of every prompt of every image, in float32.

        Args:
          features: from `encode_image`.
          prompts: in the frame of the padded image, at least one of points, boxes and masks.
          multimask: three masks for an ambiguous prompt (True), the single one (False), or all, the
            single one first (None); static.

        Raises:
          ValueError: the prompts are empty.
        """
        grid_hw = (features.embedding.shape[1], features.embedding.shape[2])
        sparse, sparse_mask, dense = self.prompt_encoder(prompts, grid_hw)
        image_pe = self.prompt_encoder.dense_positions(grid_hw)
        return self.mask_decoder(features, image_pe, sparse, sparse_mask, dense, multimask)


def variable_shapes(config: SamConfig) -> Params:
    """The tree of variables that the model needs, as `jax.ShapeDtypeStruct`; allocates nothing."""

    def init():
        patch = config.image_encoder.patch_size
        points = jnp.zeros((1, 1, 1, 2), jnp.float32)
        prompts = Prompts(points=points, labels=jnp.zeros((1, 1, 1), jnp.int32))
        images = jnp.zeros((1, patch, patch, 3), jnp.float32)
        return Sam(config).init(jax.random.key(0), images, prompts)

    return jax.eval_shape(init)
