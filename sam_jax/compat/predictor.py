"""`SamPredictor`: sets an image, then predicts masks for prompts on it."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

from sam_jax.compat.misuse import MisuseError, NoImageError
from sam_jax.compat.packed_features import packed, packed_channels, unpacked
from sam_jax.compat.prompts import wrong_masks
from sam_jax.compat.sam import Sam
from sam_jax.compat.tensors import from_numpy, is_tensor, to_numpy
from sam_jax.compat.transforms import ResizeLongestSide
from sam_jax.errors import InputError
from sam_jax.models.features import ImageFeatures


class SamPredictor:
    """The original's predictor. It holds an image, so it serves one thread at a time.

    Attributes:
      model: a compat `Sam`.
      transform: `ResizeLongestSide` to the model's input.
      is_image_set: whether there is something to predict on.
      features: the embedding, a NumPy copy [1, C, h, w], or None. One kept from earlier may be
        assigned, tensor or array; `original_size`, `input_size` and `is_image_set` then want
        setting too.
      original_size: (height, width) of the image.
      input_size: (height, width) of the scaled image.
    """

    def __init__(self, sam_model: Any) -> None:
        if not isinstance(sam_model, Sam):
            raise InputError(
                f"the model is {type(sam_model).__module__}.{type(sam_model).__name__}; build it "
                "with sam_jax.compat.sam_model_registry"
            )
        self.model = sam_model
        self.transform = ResizeLongestSide(sam_model.image_encoder.img_size)
        self._features: ImageFeatures | None = None
        self.reset_image()

    def set_image(self, image: np.ndarray, image_format: str = "RGB") -> None:
        """Embeds an image for `predict`.

        Args:
          image: uint8 [height, width, 3], 0 to 255.
          image_format: order of its channels, "RGB" or "BGR".

        Raises:
          MisuseError: the format is another, or the image has not three channels.
          InputError: the image is no such array.
        """
        if image_format not in ("RGB", "BGR"):
            raise MisuseError(f"image_format must be 'RGB' or 'BGR', not {image_format!r}")
        image = np.asarray(image)
        if image.ndim != 3 or image.shape[2] != 3:
            raise MisuseError(
                f"the image must be uint8 [height, width, 3], not of shape {image.shape}; "
                "convert it to RGB first"
            )
        if image_format != self.model.image_format:
            image = image[..., ::-1]
        scaled = self.transform.apply_image(image)
        self.set_torch_image(np.moveaxis(scaled, -1, 0)[None], image.shape[:2])

    def set_torch_image(self, transformed_image: Any, original_image_size: Any) -> None:
        """Embeds an image that is scaled already.

        Args:
          transformed_image: [1, 3, h, w] tensor or array, 0 to 255, the longest side as long as the
            model's input.
          original_image_size: (height, width) before scaling.

        Raises:
          MisuseError: the image has another shape.
        """
        shape = tuple(transformed_image.shape)
        side = self.model.image_encoder.img_size
        if len(shape) != 4 or shape[:2] != (1, 3) or max(shape[2:]) != side:
            raise MisuseError(
                f"set_torch_image takes [1, 3, h, w] with a long side of {side}, not {shape}"
            )
        self.reset_image()
        scaled = to_numpy(transformed_image[0], np.float32, "image")
        self.original_size = tuple(original_image_size)
        self.input_size = shape[-2:]
        inputs = [self.model.padded_input(scaled)]
        self._features = self.model.segmenter.compiled.encode(inputs)[0]
        self.is_image_set = True

    def predict(
        self,
        point_coords: Any = None,
        point_labels: Any = None,
        box: Any = None,
        mask_input: Any = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[np.ndarray, Float32[np.ndarray, " M"], Float32[np.ndarray, "M s s"]]:
        """Masks for one prompt on the image that is set.

        Args:
          point_coords: [N, 2], (x, y) in pixels of the image.
          point_labels: [N], 1 foreground, 0 background.
          box: [4], x0 y0 x1 y1 in pixels of the image.
          mask_input: [1, s, s] logits of an earlier result, s as there (256 of an
            official model).
          multimask_output: three masks, or one.
          return_logits: logits instead of masks.

        Returns:
          Masks [M, height, width], bool or float32 logits, at the image's own size; the predicted
          IoU [M]; the low-resolution logits [M, s, s].

        Raises:
          NoImageError: no image is set.
          MisuseError: points without labels.
          InputError: a prompt cannot be used.
        """
        self._require_image()
        points = labels = boxes = masks = None
        if point_coords is not None:
            if point_labels is None:
                raise MisuseError("point_labels must be given with point_coords, one label a point")
            points = to_numpy(point_coords, np.float64, "point_coords")
            if points.ndim != 2 or points.shape[1] != 2:
                raise InputError(f"point_coords must be [N, 2] (x, y), not {points.shape}")
            labels = to_numpy(point_labels, np.int32, "point_labels")
            if labels.shape != points.shape[:1]:
                raise InputError(
                    f"point_labels must be [{len(points)}], one label a point, not {labels.shape}"
                )
            points = self.transform.apply_coords(points, self.original_size)[None]
            labels = labels[None]
        if box is not None:
            boxes = to_numpy(box, np.float64, "box")
            if boxes.shape not in ((4,), (1, 4)):
                raise InputError(
                    f"box must be one box [4] (x0, y0, x1, y1), not {boxes.shape}; predict_torch "
                    "takes several"
                )
            boxes = self.transform.apply_boxes(boxes, self.original_size)
        if mask_input is not None:
            masks = to_numpy(mask_input, np.float32, "mask_input")
            side = self.model.prompt_encoder.mask_input_size[0]
            if masks.shape != (1, side, side):
                raise wrong_masks(side, masks.shape)
            masks = masks[None]
        predicted = self.predict_torch(
            points, labels, boxes, masks, multimask_output, return_logits
        )
        masks, iou, low_res = (array[0] for array in predicted)
        return masks, iou, low_res

    def predict_torch(
        self,
        point_coords: Any,
        point_labels: Any,
        boxes: Any = None,
        mask_input: Any = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[Any, Any, Any]:
        """Masks for B prompts in the model's frame (`transform`) on the image that is set.

        Args:
          point_coords: [B, N, 2], (x, y), or None.
          point_labels: [B, N], 1 foreground, 0 background, -1 none, or None.
          boxes: [B, 4], x0 y0 x1 y1.
          mask_input: [B, 1, s, s] logits, or [1, 1, s, s] for all prompts.
          multimask_output: three masks a prompt, or one.
          return_logits: logits instead of masks.

        Returns:
          Masks [B, M, height, width], IoU [B, M] and low-resolution logits [B, M, s, s], as
          `predict`; tensors on the device of the prompts where these are tensors, else NumPy.

        Raises:
          NoImageError: no image is set.
          InputError: a prompt cannot be used.
        """
        features = self._require_image()
        given = (point_coords, boxes, mask_input)
        example = next((value for value in given if is_tensor(value)), None)
        prompts = self.model.prompts(*given[:1], point_labels, *given[1:])
        low_res, iou = self.model.decode([features], [prompts], multimask_output)[0]
        threshold = None if return_logits else self.model.mask_threshold
        masks = self.model.upscale(low_res, self.input_size, self.original_size, threshold)
        return (
            from_numpy(masks, example),
            from_numpy(iou, example),
            from_numpy(low_res, example),
        )

    def get_image_embedding(self) -> Float32[np.ndarray, "1 C h w"]:
        """The embedding of the image that is set, as a NumPy array.

        Raises:
          NoImageError: no image is set.
        """
        self._require_image()
        assert self.features is not None
        return self.features

    @property
    def features(self) -> Float32[np.ndarray, "1 C h w"] | None:
        """The embedding, see the class."""
        if self._features is None:
            return None
        return np.array(np.moveaxis(jax.device_get(packed(self._features)), -1, 0)[None])

    @features.setter
    def features(self, value: Any) -> None:
        if value is not None:
            config = self.model.segmenter.config
            side = config.image_size // config.image_encoder.patch_size
            array = to_numpy(value, np.float32, "features")
            wanted = (1, packed_channels(config), side, side)
            if array.shape != wanted:
                raise InputError(f"features must be {list(wanted)}, not {array.shape}")
            value = unpacked(jax.device_put(np.moveaxis(array[0], 0, -1)), config)
        self._features = value

    @property
    def device(self) -> Any:
        """The model's `device`."""
        return self.model.device

    def reset_image(self) -> None:
        """Forgets the image."""
        self.is_image_set = False
        self._features = None
        # The original has these and never sets them either.
        self.orig_h = self.orig_w = self.input_h = self.input_w = None

    def image_features(self) -> ImageFeatures:
        """The features of the image that is set, on the device, as our own models take them.

        Raises:
          NoImageError: no image is set.
        """
        return self._require_image()

    def _require_image(self) -> ImageFeatures:
        if not self.is_image_set or self._features is None:
            raise NoImageError("no image is set; call set_image(image) first")
        return self._features
