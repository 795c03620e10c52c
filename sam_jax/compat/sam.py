"""`Sam`: a Segmenter that looks like the original's model."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from sam_jax.compat.module import Module
from sam_jax.compat.parts import ImageEncoder, MaskDecoder, PromptEncoder
from sam_jax.compat.prompts import model_prompts
from sam_jax.compat.tensors import from_numpy, to_numpy
from sam_jax.errors import InputError
from sam_jax.models.features import ImageFeatures
from sam_jax.ops.resample import linear_matrix
from sam_jax.postprocess import upscale_logits
from sam_jax.preprocess import ImagePrompts
from sam_jax.segmenter import Segmenter


class Sam(Module):
    """The original's model object over a `Segmenter`.

    Attributes:
      mask_threshold: a pixel belongs to a mask where its logit is above this.
      image_format: order of the channels that the model takes.
      pixel_mean: of each channel, NumPy float32 [3, 1, 1], subtracted before encoding.
      pixel_std: what the difference is divided by, likewise.
      image_encoder: has `img_size`, and can be called.
      prompt_encoder: has the original's sizes.
      mask_decoder: has the original's sizes.
    """

    image_format: str = "RGB"

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__(segmenter)
        config = segmenter.config
        self.mask_threshold = config.mask_threshold
        self.pixel_mean = np.array(config.pixel_mean, np.float32).reshape(3, 1, 1)
        self.pixel_std = np.array(config.pixel_std, np.float32).reshape(3, 1, 1)
        self.image_encoder = ImageEncoder(segmenter.compiled)
        self.prompt_encoder = PromptEncoder(segmenter.compiled)
        self.mask_decoder = MaskDecoder(segmenter.compiled)

    def forward(
        self, batched_input: Sequence[dict[str, Any]], multimask_output: bool
    ) -> list[dict[str, Any]]:
        """Masks for several images and their prompts at once (what calling the model does).

        Args:
          batched_input: for each image a dict of tensors or arrays: `image` [3, h, w], already
            scaled (`ResizeLongestSide`), 0 to 255; `original_size` (height, width); and, in the
            model's frame, what there is of `point_coords` [B, N, 2] with `point_labels` [B, N],
            `boxes` [B, 4] and `mask_inputs` [B, 1, s, s].
          multimask_output: three masks a prompt, or one.

        Returns:
          For each image a dict of what its `image` was, tensors or arrays: `masks` bool
          [B, M, height, width] of the original size, `iou_predictions` [B, M] and
          `low_res_logits` [B, M, s, s], float32.

        Raises:
          InputError: an image or a prompt cannot be used.
        """
        records = list(batched_input)
        inputs = [self.padded_input(to_numpy(r["image"], np.float32, "image")) for r in records]
        features = self.segmenter.compiled.encode(inputs)
        prompts = [
            self.prompts(
                record.get("point_coords"),
                record.get("point_labels"),
                record.get("boxes"),
                record.get("mask_inputs"),
            )
            for record in records
        ]
        outputs = []
        decoded = self.decode(features, prompts, multimask_output)
        for record, (low_res, iou) in zip(records, decoded, strict=True):
            masks = self.upscale(
                low_res, record["image"].shape[-2:], record["original_size"], self.mask_threshold
            )
            arrays = {"masks": masks, "iou_predictions": iou, "low_res_logits": low_res}
            outputs.append({k: from_numpy(v, record["image"]) for k, v in arrays.items()})
        return outputs

    __call__ = forward

    def preprocess(self, x: Any) -> Any:
        """Normalizes scaled images, [3, h, w] or [B, 3, h, w], and pads them to the square.

        Returns:
          float32 [..., 3, img_size, img_size], tensor or array as given.
        """
        images = to_numpy(x, np.float32, "image")
        padded = [self.padded_input(one) for one in (images if images.ndim == 4 else images[None])]
        stacked = np.moveaxis(np.stack(padded), -1, 1)
        return from_numpy(stacked if images.ndim == 4 else stacked[0], x)

    def postprocess_masks(self, masks: Any, input_size: Any, original_size: Any) -> Any:
        """Low-resolution logits [B, M, s, s] to logits at the image's own size.

        Args:
          masks: tensor or array.
          input_size: (height, width) of the scaled image, without padding.
          original_size: (height, width) of the image.

        Returns:
          float32 [B, M, height, width], tensor or array as given.
        """
        low_res = to_numpy(masks, np.float32, "masks")
        return from_numpy(self.upscale(low_res, input_size, original_size, None), masks)

    # What follows serves the classes beside this one.

    def prompts(
        self, point_coords: Any, point_labels: Any, boxes: Any, mask_input: Any
    ) -> ImagePrompts:
        """See `prompts.model_prompts`."""
        size = self.segmenter.config.mask_input_size
        return model_prompts(point_coords, point_labels, boxes, mask_input, size)

    def decode(
        self, features: Sequence[ImageFeatures], prompts: Sequence[ImagePrompts], multimask: bool
    ) -> list[tuple[Float32[np.ndarray, "B M s s"], Float32[np.ndarray, "B M"]]]:
        """Low-resolution logits and predicted IoU of each image's prompts, as new host arrays."""
        pairs = self.segmenter.compiled.decode(features, prompts, multimask)
        return [(np.array(low_res), np.array(iou)) for low_res, iou in pairs]

    def upscale(
        self,
        low_res: Float[np.ndarray, "B M s s"],
        input_size: Any,
        original_size: Any,
        threshold: float | None,
    ) -> np.ndarray:
        """Masks at the image's own size: bool, or float32 logits where the threshold is None.

        Full-size logits of one mask exist at a time, if they are not what is asked for.
        """
        height, width = (int(length) for length in original_size)
        input_h, input_w = (int(length) for length in input_size)
        side, image_size = low_res.shape[-1], self.image_encoder.img_size
        rows = _matrix(side, image_size, input_h, height)
        columns = _matrix(side, image_size, input_w, width)
        dtype = np.float32 if threshold is None else bool
        out = np.empty((*low_res.shape[:2], height, width), dtype)
        for place in np.ndindex(*low_res.shape[:2]):
            full = upscale_logits(low_res[place], rows, columns)
            if threshold is None:
                out[place] = full
            else:
                np.greater(full, threshold, out=out[place])
        return out

    def padded_input(self, image: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "s s 3"]:
        """A scaled image, channels first, normalized and padded, channels last."""
        side = self.image_encoder.img_size
        sides = image.shape[1:]
        if image.ndim != 3 or image.shape[0] != 3 or min(sides) < 1 or max(sides) > side:
            raise InputError(
                f"a scaled image is [3, height, width] of at most {side} pixels a side, not "
                f"{image.shape}; scale it with ResizeLongestSide({side})"
            )
        padded = np.zeros((3, side, side), np.float32)
        valid = padded[:, : sides[0], : sides[1]]
        np.subtract(image, to_numpy(self.pixel_mean, np.float32, "pixel_mean"), out=valid)
        valid /= to_numpy(self.pixel_std, np.float32, "pixel_std")
        return np.moveaxis(padded, 0, -1)


# The original resizes to the padded square, cuts the padding off and resizes again; a person
# clicks on one image many times.
@lru_cache(maxsize=32)
def _matrix(low: int, image_size: int, valid: int, full: int) -> Float32[np.ndarray, "full low"]:
    both = linear_matrix(valid, full) @ linear_matrix(low, image_size)[:valid]
    return both.astype(np.float32)
