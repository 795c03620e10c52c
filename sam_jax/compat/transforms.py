"""`ResizeLongestSide`: images, points and boxes from the image's frame to the model's."""

from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image

from sam_jax.compat.tensors import from_numpy, is_tensor, to_numpy
from sam_jax.errors import InputError
from sam_jax.models.input_frame import resized_hw


class ResizeLongestSide:
    """Scales so that the longest side has `target_length` pixels (the original's class).

    Sizes are (height, width) of the image before scaling. Nothing that is given is changed.

    Attributes:
      target_length: the longest side afterwards, in pixels.
    """

    def __init__(self, target_length: int) -> None:
        self.target_length = target_length

    def apply_image(self, image: Any) -> UInt8[np.ndarray, "new_height new_width *channel"]:
        """Scales an image with Pillow's antialiased bilinear filter.

        Args:
          image: uint8 [height, width, channels], 0 to 255.

        Raises:
          InputError: it is no such array.
        """
        array = np.asarray(image)
        if array.dtype != np.uint8 or array.ndim not in (2, 3) or not array.size:
            raise InputError(
                f"the image is an array of {array.dtype} {array.shape}, not uint8 "
                "[height, width, 3] with values from 0 to 255"
            )
        try:
            picture = Image.fromarray(array)
        except TypeError:
            raise InputError(f"an image has 3 channels, not {array.shape[-1]}") from None
        return np.array(self._resize(picture))

    def apply_coords(self, coords: Any, original_size: Any) -> Float64[np.ndarray, "*batch 2"]:
        """Scales points (x, y), float64 [..., 2]."""
        return self._scale(np.array(coords, np.float64), original_size)

    def apply_boxes(self, boxes: Any, original_size: Any) -> Float64[np.ndarray, "n 4"]:
        """Scales boxes x0 y0 x1 y1, float64 [n, 4]."""
        corners = np.asarray(boxes, np.float64).reshape(-1, 2, 2)
        return self.apply_coords(corners, original_size).reshape(-1, 4)

    def apply_image_torch(self, image: Any) -> Any:
        """Scales a batch of images [B, C, height, width], tensor or array; float32.

        Equals PyTorch's antialiased bilinear interpolation, which is not quite `apply_image`: that
        one rounds to whole numbers. The original's release 1.0 takes the size from the wrong axes.
        """
        array = to_numpy(image, np.float32, "image")
        if array.ndim != 4 or not array.size:
            raise InputError(f"images have shape [B, C, height, width], not {array.shape}")
        planes = [
            np.asarray(self._resize(Image.fromarray(plane)))
            for plane in array.reshape(-1, *array.shape[2:])
        ]
        resized = np.stack(planes).reshape(*array.shape[:2], *planes[0].shape)
        return from_numpy(resized, image)

    def apply_coords_torch(self, coords: Any, original_size: Any) -> Any:
        """Scales points (x, y) [..., 2], tensor or array; float32 of the same kind."""
        if is_tensor(coords):
            return self._scale(coords.clone().float(), original_size)
        return self._scale(np.array(coords, np.float32), original_size)

    def apply_boxes_torch(self, boxes: Any, original_size: Any) -> Any:
        """Scales boxes x0 y0 x1 y1 [n, 4], tensor or array; float32 of the same kind."""
        corners = (boxes if is_tensor(boxes) else np.asarray(boxes)).reshape(-1, 2, 2)
        return self.apply_coords_torch(corners, original_size).reshape(-1, 4)

    @staticmethod
    def get_preprocess_shape(oldh: int, oldw: int, long_side_length: int) -> tuple[int, int]:
        """(height, width) after scaling, rounded half up; at least 1, where the original has 0."""
        return resized_hw((oldh, oldw), long_side_length)

    def _resize(self, picture: Image.Image) -> Image.Image:
        width, height = picture.size
        new_height, new_width = self.get_preprocess_shape(height, width, self.target_length)
        return picture.resize((new_width, new_height), Image.Resampling.BILINEAR)

    def _scale(self, coords: Any, original_size: Any) -> Any:
        old_h, old_w = original_size
        new_h, new_w = self.get_preprocess_shape(old_h, old_w, self.target_length)
        # Python's own numbers keep an array's or a tensor's type.
        coords[..., 0] = coords[..., 0] * float(new_w / old_w)
        coords[..., 1] = coords[..., 1] * float(new_h / old_h)
        return coords
