"""`Sam`: a Segmenter that looks like the original's model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Float32

from sam_jax import segmenter as compiled
from sam_jax.compat.prompts import model_prompts
from sam_jax.compat.tensors import from_numpy, to_numpy
from sam_jax.embeddings import ImageEmbedding
from sam_jax.errors import InputError
from sam_jax.ops.resample import linear_matrix
from sam_jax.postprocess import upscale_logits
from sam_jax.preprocess import ImagePrompts
from sam_jax.prompt_batches import batch_prompts, power_of_two
from sam_jax.segmenter import Segmenter


@dataclass(frozen=True)
class ImageEncoderSize:
    """What code asks the original's image encoder for: the side of its square input in pixels."""

    img_size: int


class Sam:
    """The original's model object over a `Segmenter`.

    Parameters cannot be changed through it, and it has no gradients; `sam_jax.Sam` is for that.

    Attributes:
      segmenter: ours.
      mask_threshold: a pixel belongs to a mask where its logit is above this.
      image_format: order of the channels that the model takes.
      image_encoder: has `img_size`.
      device: where the caller's tensors belong; see `to`.
    """

    image_format: str = "RGB"

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self.mask_threshold = segmenter.config.mask_threshold
        self.image_encoder = ImageEncoderSize(segmenter.config.image_size)
        self._device: Any = "cpu"

    @property
    def device(self) -> Any:
        """What `to` was told, "cpu" at first; `torch.as_tensor(x, device=sam.device)` takes it."""
        return self._device

    def to(self, device: Any = None, dtype: Any = None) -> "Sam":
        """Sets what `device` says. The model stays where JAX has put it.

        Raises:
          InputError: another type than float32 is asked for.
        """
        if str(device).startswith("torch.") and dtype is None:
            device, dtype = None, device
        if dtype is not None and not str(dtype).endswith("float32"):
            raise InputError(
                f"the model cannot be changed to {dtype}; build it with that type: "
                'sam_model_registry["vit_b"](checkpoint=..., dtype="bfloat16")'
            )
        if device is not None:
            self._device = device
        return self

    def cuda(self, device: Any = None) -> "Sam":
        """The same as `to("cuda")`."""
        return self.to("cuda" if device is None else f"cuda:{device}")

    def cpu(self) -> "Sam":
        """The same as `to("cpu")`."""
        return self.to("cpu")

    def eval(self) -> "Sam":
        """Changes nothing: there is no other mode."""
        return self

    def requires_grad_(self, requires_grad: bool = False) -> "Sam":
        """Changes nothing.

        Raises:
          InputError: gradients are asked for.
        """
        if requires_grad:
            raise InputError("compat has no gradients; train sam_jax.Sam with jax.grad")
        return self

    def __call__(
        self, batched_input: Sequence[dict[str, Any]], multimask_output: bool
    ) -> list[dict[str, Any]]:
        """Masks for several images and their prompts at once (the original's `Sam.forward`).

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
        features = self.encode_inputs(inputs)
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
        for record, (iou, low_res) in zip(records, decoded, strict=True):
            masks = self.upscale(
                low_res, record["image"].shape[-2:], record["original_size"], self.mask_threshold
            )
            arrays = {"masks": masks, "iou_predictions": iou, "low_res_logits": low_res}
            outputs.append({k: from_numpy(v, record["image"]) for k, v in arrays.items()})
        return outputs

    def preprocess(self, x: Any) -> Any:
        """Normalises scaled images, [3, h, w] or [B, 3, h, w], and pads them to the square.

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

    def encode_inputs(self, inputs: Sequence[Float32[np.ndarray, "s s 3"]]) -> list[jax.Array]:
        """Embeddings [h, w, C] of normalised and padded images."""
        model, params = self.segmenter._model, self.segmenter.params
        features: list[jax.Array] = []
        while len(features) < len(inputs):
            left = len(inputs) - len(features)
            count = power_of_two(min(self.segmenter._image_batch, left), up=False)
            batch = np.stack(inputs[len(features) : len(features) + count])
            features += compiled._encode(model, params, batch)
        return features

    def prompts(
        self, point_coords: Any, point_labels: Any, boxes: Any, mask_input: Any
    ) -> ImagePrompts:
        """See `prompts.model_prompts`."""
        size = self.segmenter.config.mask_input_size
        return model_prompts(point_coords, point_labels, boxes, mask_input, size)

    def decode(
        self, features: Sequence[jax.Array], prompts: Sequence[ImagePrompts], multimask: bool
    ) -> list[tuple[Float32[np.ndarray, "B M"], Float32[np.ndarray, "B M s s"]]]:
        """Predicted IoU and low-resolution logits of each image's prompts, as new host arrays."""
        config = self.segmenter.config
        # Their size and fingerprint are for checks in the image's frame, which is left behind.
        embeddings = [ImageEmbedding(one, (1, 1), "") for one in features]
        count, side = config.num_multimask_outputs if multimask else 1, config.mask_input_size
        # The empty beginning is all there is of an image without prompts.
        pieces = [
            [(np.zeros((0, count), np.float32), np.zeros((0, count, side, side), np.float32))]
            for _ in features
        ]
        shapes = [one.shape for one in features]
        for batch in batch_prompts(prompts, shapes, self.segmenter._prompt_batch):
            scores, logits = map(
                np.asarray, self.segmenter._decode_batch(embeddings, batch, multimask)
            )
            for slot, (image, length) in enumerate(batch.pieces):
                pieces[image].append((scores[slot, :length], logits[slot, :length]))
        return [
            (np.concatenate([iou for iou, _ in some]), np.concatenate([low for _, low in some]))
            for some in pieces
        ]

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
        """A scaled image, channels first, normalised and padded, channels last."""
        side, config = self.image_encoder.img_size, self.segmenter.config
        sides = image.shape[1:]
        if image.ndim != 3 or image.shape[0] != 3 or min(sides) < 1 or max(sides) > side:
            raise InputError(
                f"a scaled image is [3, height, width] of at most {side} pixels a side, not "
                f"{image.shape}; scale it with ResizeLongestSide({side})"
            )
        padded = np.zeros((side, side, 3), np.float32)
        valid = padded[: sides[0], : sides[1]]
        np.subtract(np.moveaxis(image, 0, -1), np.array(config.pixel_mean, np.float32), out=valid)
        valid /= np.array(config.pixel_std, np.float32)
        return padded


# The original resizes to the padded square, cuts the padding off and resizes again; a person
# clicks on one image many times.
@lru_cache(maxsize=32)
def _matrix(low: int, image_size: int, valid: int, full: int) -> Float32[np.ndarray, "full low"]:
    both = linear_matrix(valid, full) @ linear_matrix(low, image_size)[:valid]
    return both.astype(np.float32)
