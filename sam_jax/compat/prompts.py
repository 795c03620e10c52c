"""Prompts as the original takes them, in the model's frame, to those that our model takes."""

from typing import Any

import numpy as np

from sam_jax.compat.tensors import to_numpy
from sam_jax.errors import InputError
from sam_jax.preprocess import ImagePrompts
from sam_jax.types import LABEL_ABSENT, LABEL_BACKGROUND, LABEL_FOREGROUND, LABEL_NOT_A_POINT

_LABELS = (LABEL_BACKGROUND, LABEL_FOREGROUND, LABEL_NOT_A_POINT)


def model_prompts(
    point_coords: Any, point_labels: Any, boxes: Any, mask_input: Any, mask_size: int
) -> ImagePrompts:
    """The prompts of one image, checked; as in the original they may lie outside the image.

    Args:
      point_coords: [B, N, 2], (x, y) in the model's frame, or None.
      point_labels: [B, N], 1 foreground, 0 background, -1 the learned "not a point" token.
      boxes: [B, 4] in the model's frame, or None.
      mask_input: [B, 1, s, s] logits, or [1, 1, s, s] for all prompts, or None.
      mask_size: s.

    Raises:
      InputError: a shape or label is wrong, a number is not finite, or the batches differ.
    """
    points, labels, corners, masks = None, None, None, None
    if point_coords is not None:
        points, labels = _points(point_coords, point_labels, boxes is not None)
    if boxes is not None:
        corners = _finite(boxes, "boxes")
        if corners.ndim != 2 or corners.shape[1] != 4:
            raise InputError(f"boxes must be [B, 4] (x0, y0, x1, y1), not {corners.shape}")
    if mask_input is not None:
        masks = _finite(mask_input, "mask_input")
        if masks.ndim != 4 or masks.shape[1:] != (1, mask_size, mask_size):
            raise wrong_masks(mask_size, masks.shape)
        masks = masks[:, 0]
    given = [array for array in (points, corners, masks) if array is not None]
    if not given:
        # The original decodes without a prompt, too: one that has no token.
        points, labels = np.zeros((1, 1, 2), np.float32), np.full((1, 1), LABEL_ABSENT, np.int32)
        return ImagePrompts(points, labels)
    count = len(given[0])
    if masks is not None and len(masks) == 1 and count != 1:
        masks = np.repeat(masks, count, axis=0)
        given[-1] = masks
    if any(len(array) != count for array in given):
        counts = ", ".join(str(len(array)) for array in given)
        raise InputError(f"points, boxes and masks are for different numbers of prompts: {counts}")
    return ImagePrompts(points, labels, corners, masks)


def wrong_masks(mask_size: int, shape: tuple[int, ...]) -> InputError:
    """What is wrong with mask prompts of a shape.

    Args:
      mask_size: the side that they must have.
      shape: as the caller gave it.
    """
    return InputError(
        f"mask_input must be one low-resolution mask a prompt, [1, {mask_size}, {mask_size}] "
        f"each, not {shape}"
    )


def _points(coords: Any, labels: Any, with_boxes: bool) -> tuple[np.ndarray, np.ndarray]:
    points = _finite(coords, "point_coords")
    if points.ndim != 3 or points.shape[2] != 2:
        raise InputError(f"point_coords must be [B, N, 2] (x, y), not {points.shape}")
    if labels is None:
        raise InputError("point_labels must be given with point_coords, one label a point")
    kinds = to_numpy(labels, np.int32, "point_labels")
    if kinds.shape != points.shape[:2]:
        raise InputError(
            f"point_labels must be {points.shape[:2]}, one label a point, not {kinds.shape}"
        )
    if not np.isin(kinds, _LABELS).all():
        raise InputError("point_labels are 1 (foreground), 0 (background) or -1 (not a point)")
    if not points.shape[1] and not with_boxes:
        raise InputError("point_coords are empty; give at least one point, or None")
    return points, kinds


def _finite(value: Any, name: str) -> np.ndarray:
    array = to_numpy(value, np.float32, name)
    if not np.isfinite(array).all():
        raise InputError(f"{name} holds NaN or infinite numbers")
    return array
