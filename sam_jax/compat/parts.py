"""What code asks the parts of the original's model for."""

from typing import Any

import jax
import numpy as np

from sam_jax.compat.packed_features import packed
from sam_jax.compat.tensors import from_numpy, to_numpy
from sam_jax.errors import InputError
from sam_jax.inference.compiled_model import CompiledModel


class ImageEncoder:
    """The image encoder, to be called on batches.

    Attributes:
      img_size: side of its square input in pixels.
    """

    def __init__(self, compiled: CompiledModel) -> None:
        self.img_size = compiled.model.config.image_size
        self._compiled = compiled

    def __call__(self, x: Any) -> Any:
        """Embeddings of images from `Sam.preprocess`.

        Args:
          x: [B, 3, img_size, img_size], tensor or array.

        Returns:
          float32 [B, C, h, w], tensor or array as given.

        Raises:
          InputError: images of another shape.
        """
        images = to_numpy(x, np.float32, "images")
        shape = (3, self.img_size, self.img_size)
        if images.ndim != 4 or images.shape[1:] != shape or not len(images):
            raise InputError(
                f"the image encoder takes {['B', *shape]} from Sam.preprocess, not {images.shape}"
            )
        features = self._compiled.encode(np.moveaxis(images, 1, -1))
        arrays = jax.device_get([packed(one) for one in features])
        return from_numpy(np.moveaxis(np.stack(arrays), -1, 1), x)


class PromptEncoder:
    """Sizes of the prompt encoder, which cannot be called.

    Attributes:
      embed_dim: channels of every embedding.
      image_embedding_size: (height, width) of the image embedding.
      input_image_size: (height, width) of the padded image in pixels.
      mask_input_size: (height, width) of a mask prompt.
    """

    def __init__(self, compiled: CompiledModel) -> None:
        config = compiled.model.config
        side = config.image_size // config.image_encoder.patch_size
        self.embed_dim = config.embed_dim
        self.image_embedding_size = (side, side)
        self.input_image_size = (config.image_size, config.image_size)
        self.mask_input_size = (config.mask_input_size, config.mask_input_size)

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Raises an InputError that says what to call."""
        raise _not_alone("prompt encoder")


class MaskDecoder:
    """Sizes of the mask decoder, which cannot be called.

    Attributes:
      transformer_dim: channels of every embedding.
      num_multimask_outputs: masks for an ambiguous prompt.
      num_mask_tokens: those and the single mask.
    """

    def __init__(self, compiled: CompiledModel) -> None:
        config = compiled.model.config
        self.transformer_dim = config.embed_dim
        self.num_multimask_outputs = config.num_multimask_outputs
        self.num_mask_tokens = config.num_multimask_outputs + 1

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Raises an InputError that says what to call."""
        raise _not_alone("mask decoder")


def _not_alone(part: str) -> InputError:
    return InputError(
        f"the {part} cannot be called alone in sam_jax.compat; call SamPredictor.predict_torch, "
        "or the parts of sam_jax.Sam"
    )
