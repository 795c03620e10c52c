"""Edges of an image from masks of everything in it (SAM sections 7.2 and D.2).

The paper leaves two things open. What its non-maximum suppression of edges is, "Canny-style":
here a pixel stays where no neighbor across the edge is stronger, by the gradient of the mask that
is strongest there. And whether maps are smoothed before; here they are not.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int64
from scipy.ndimage import binary_dilation, map_coordinates, sobel

from sam_jax.automatic.grids import point_grid
from sam_jax.evaluate.interactive import Predictor
from sam_jax.formats.rle import mask_box
from sam_jax.ops.nms import nms
from sam_jax.postprocess import mask_matrices, upscale_logits

POINTS_PER_SIDE = 16
NMS_THRESHOLD = 0.7
# A mask's edge lies a pixel outside of it, and its gradient takes one more.
_MARGIN = 2


def edge_map(
    segmenter: Predictor, embedding: Any, size_hw: tuple[int, int]
) -> Float32[np.ndarray, "height width"]:
    """Edges of an image, thin, from 0 to 1: three masks for each of 16 by 16 points, unfiltered.

    Memory: the low-resolution logits of all candidates, 200 MB for the official models.

    Args:
      segmenter: the model.
      embedding: of the image.
      size_hw: the image's height and width.
    """
    points = point_grid(POINTS_PER_SIDE) * np.array(size_hw[::-1])
    found = segmenter.predict(embedding, points=points[:, None].astype(np.float32))
    rows, columns = mask_matrices(size_hw, found.frame, found.logits.shape[-1])
    strongest = np.zeros((3, *size_hw), np.float32)
    for prompt, index, (x0, y0, x1, y1) in _distinct(found):
        part = np.s_[max(y0 - _MARGIN, 0) : y1 + _MARGIN, max(x0 - _MARGIN, 0) : x1 + _MARGIN]
        logits = upscale_logits(found.logits[prompt, index], rows[part[0]], columns[part[1]])
        here, edge = strongest[:, *part], mask_edge(np.asarray(logits), found.threshold)
        np.copyto(here, edge, where=edge[0] > here[0])
    strength, across, down = strongest
    return edge_nms(strength / max(strength.max(), np.finfo(np.float32).tiny), across, down)


def _distinct(found: Any) -> list[tuple[int, int, tuple[int, int, int, int]]]:
    """Prompt, index and x0 y0 x1 y1 (ends not included) of the masks left by suppression."""
    places = list(np.ndindex(found.scores.shape))
    boxes: Int64[np.ndarray, "n 4"] = np.array([mask_box(found.mask(*place)) for place in places])
    boxes[:, 2:] += boxes[:, :2]
    # An empty mask has no edge.
    some = np.flatnonzero(boxes[:, 2] > boxes[:, 0])
    corners = (boxes[some] - np.array([0, 0, 1, 1])).astype(np.float32)
    kept = some[nms(corners, found.scores.reshape(-1)[some], NMS_THRESHOLD)]
    return [(*places[i], tuple(boxes[i].tolist())) for i in kept]


def mask_edge(
    logits: Float[np.ndarray, "height width"], threshold: float = 0.0
) -> Float32[np.ndarray, "3 height width"]:
    """Strength of a mask's edge, and the gradient along x and y: Sobel's of its probability.

    The strength is zero but on the pixels just outside the mask.
    """
    # The sigmoid, without its overflow.
    probability = 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float32)))
    across, down = sobel(probability, axis=1), sobel(probability, axis=0)
    mask = logits > threshold
    outside = binary_dilation(mask, np.ones((3, 3), bool)) & ~mask
    return np.stack([np.where(outside, np.hypot(across, down), 0), across, down])


def edge_nms(
    strength: Float32[np.ndarray, "height width"],
    across: Float32[np.ndarray, "height width"],
    down: Float32[np.ndarray, "height width"],
) -> Float32[np.ndarray, "height width"]:
    """An edge map without the pixels that have a stronger one before or behind, along the gradient.

    Strengths between pixels are interpolated linearly. Of two that are equal one stays.
    """
    y, x = np.nonzero(strength)
    here, dx, dy = strength[y, x], across[y, x], down[y, x]
    length = np.maximum(np.hypot(dx, dy), np.finfo(np.float32).tiny)
    step = np.stack([dy, dx]) / length
    place = np.stack([y, x]).astype(np.float32)
    behind = map_coordinates(strength, place - step, order=1)
    before = map_coordinates(strength, place + step, order=1)
    out = np.zeros_like(strength)
    out[y, x] = np.where((here >= behind) & (here > before), here, 0)
    return out
