"""Frames and prompts as users give them, in the frame of the model's input."""

from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int, Int32, UInt8
from PIL import Image

from sam_jax.errors import InputError
from sam_jax.image_inputs import normalized
from sam_jax.inference.prompt_batches import MIN_POINTS, power_of_two
from sam_jax.models.sam2.config import Sam2Config
from sam_jax.ops.resample import antialiased_matrix
from sam_jax.preprocess import check_prompts
from sam_jax.types import LABEL_ABSENT, box_corners


def prepare_frame(
    image: UInt8[np.ndarray, "height width 3"], config: Sam2Config
) -> Float32[np.ndarray, "side side 3"]:
    """A frame stretched to the square and normalized, as the original's video predictor does it.

    Its image predictor has another filter, and rounds to no eight bits.
    """
    side = config.image_size
    stretched = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    return normalized(np.asarray(stretched), config)


def prompt_points(
    points: Any, labels: Any, box: Any, size_hw: tuple[int, int], config: Sam2Config
) -> tuple[Float32[np.ndarray, "N 2"], Int32[np.ndarray, " N"]]:
    """One object's clicks, with a box as its two corners first, in the model's frame.

    Args:
      points: [N, 2] in pixels of the frame, or None.
      labels: [N], or None.
      box: [4], or None.
      size_hw: of the frame.
      config: of the model.

    Raises:
      InputError: nothing is given, or it cannot be used.
    """
    checked = check_prompts(
        points, labels, box, None, size_hw=size_hw, mask_size=config.mask_input_size
    )
    if checked.num_prompts != 1:
        raise InputError(
            f"prompts of {checked.num_prompts} objects are given; give one object's at a time"
        )
    coords, kinds = np.zeros((0, 2)), np.zeros((0,), np.int32)
    if checked.points is not None and checked.labels is not None:
        coords, kinds = checked.points[0], checked.labels[0]
    if checked.boxes is not None:
        corners, corner_labels = box_corners(checked.boxes[0])
        coords = np.concatenate([corners, coords])
        kinds = np.concatenate([corner_labels, kinds])
    scale = np.array([config.image_size / size_hw[1], config.image_size / size_hw[0]])
    return (coords * scale).astype(np.float32), kinds.astype(np.int32)


def padded_points(
    points: Float[np.ndarray, "N 2"], labels: Int[np.ndarray, " N"]
) -> tuple[Float32[np.ndarray, "M 2"], Int32[np.ndarray, " M"]]:
    """The same with absent points up to a power of two, so that few shapes are compiled."""
    missing = power_of_two(max(MIN_POINTS, len(points))) - len(points)
    return (
        np.pad(points, ((0, missing), (0, 0))).astype(np.float32),
        np.pad(labels, (0, missing), constant_values=LABEL_ABSENT).astype(np.int32),
    )


def mask_input(
    mask: Any, size_hw: tuple[int, int], config: Sam2Config
) -> Float32[np.ndarray, "side side"]:
    """A mask of the frame's size at the model's, 0 and 1.

    Raises:
      InputError: it has another size or is no mask.
    """
    array = np.asarray(mask)
    if array.shape != size_hw:
        raise InputError(
            f"mask must have the frame's shape {size_hw}, not {array.shape}; "
            "give one object's at a time"
        )
    if array.dtype.kind not in "bui" or not ((array == 0) | (array == array.max())).all():
        raise InputError("mask must be boolean, or hold 0 and one other whole number")
    side = config.image_size
    inside = (array != 0).astype(np.float32)
    if size_hw == (side, side):
        return inside
    rows, columns = (antialiased_matrix(size, side).astype(np.float32) for size in size_hw)
    return (rows @ inside @ columns.T >= 0.5).astype(np.float32)
