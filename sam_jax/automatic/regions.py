"""Small holes and islands of masks, filled and removed as the original does."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int64

from sam_jax.automatic.candidates import Candidates
from sam_jax.automatic.runs import Box, Runs, runs_of_mask
from sam_jax.formats.rle import mask_box

# Pixels that touch at a corner belong together, on either side of the outline.
_EIGHT = np.ones((3, 3), bool)


def without_small_regions(
    candidates: Candidates, min_area: int
) -> tuple[Candidates, Bool[np.ndarray, " n"]]:
    """Fills holes, then removes islands, of fewer than `min_area` pixels.

    A hole is any connected part of the background, at the image's border too. Where every island is
    small, the largest stays.

    Returns:
      The masks with their new boxes, and which of them changed.
    """
    runs, boxes = list(candidates.runs), candidates.boxes.copy()
    changed = np.zeros(len(candidates), bool)
    for i in range(len(candidates)):
        cleaned = _cleaned(runs[i], boxes[i], min_area)
        if cleaned is not None:
            runs[i], boxes[i] = cleaned
            changed[i] = True
    return replace(candidates, runs=runs, boxes=boxes), changed


def _cleaned(
    runs: Runs, box: Int64[np.ndarray, " 4"], min_area: int
) -> tuple[Runs, Int64[np.ndarray, " 4"]] | None:
    """The mask's new runs and box; None if nothing changes."""
    if not runs.area:
        # Its only background is the image: smaller than `min_area` only in a tiny image.
        window: Box = (0, 0, runs.size_hw[1], runs.size_hw[0])
    else:
        window = _window(box, runs.size_hw, min_area)
    mask = runs.mask(window)
    filled = _filled(mask, window, runs.size_hw, min_area)
    cleaned = _without_islands(filled, min_area)
    if cleaned is mask:
        return None
    x, y, width, height = (int(value) for value in mask_box(cleaned))
    if not width:
        return runs_of_mask(cleaned, window, runs.size_hw), np.zeros(4, np.int64)
    x, y = x + window[0], y + window[1]
    new_box = np.array([x, y, x + width - 1, y + height - 1], np.int64)
    return runs_of_mask(cleaned, window, runs.size_hw), new_box


def _window(box: Int64[np.ndarray, " 4"], size_hw: tuple[int, int], min_area: int) -> Box:
    """The mask's box with a pixel around it, up to the image's border where little is left beyond.

    What lies beyond a side of the window is then background of at least `min_area` pixels.
    """
    height, width = size_hw
    x0, y0 = max(0, int(box[0]) - 1), max(0, int(box[1]) - 1)
    x1, y1 = min(width, int(box[2]) + 2), min(height, int(box[3]) + 2)
    x0 = 0 if x0 * height < min_area else x0
    x1 = width if (width - x1) * height < min_area else x1
    y0 = 0 if y0 * (x1 - x0) < min_area else y0
    y1 = height if (height - y1) * (x1 - x0) < min_area else y1
    return x0, y0, x1, y1


def _filled(
    mask: Bool[np.ndarray, "height width"], window: Box, size_hw: tuple[int, int], min_area: int
) -> Bool[np.ndarray, "height width"]:
    labels, count = _parts(~mask)
    small = np.bincount(labels.reshape(-1), minlength=count + 1) < min_area
    small[0] = False
    # Background that goes on outside the window is large.
    x0, y0, x1, y1 = window
    edges = (
        (x0 > 0, labels[:, 0]),
        (y0 > 0, labels[0]),
        (x1 < size_hw[1], labels[:, -1]),
        (y1 < size_hw[0], labels[-1]),
    )
    for goes_on, edge in edges:
        if goes_on:
            small[edge] = False
    return mask | small[labels] if small.any() else mask


def _without_islands(
    mask: Bool[np.ndarray, "height width"], min_area: int
) -> Bool[np.ndarray, "height width"]:
    labels, count = _parts(mask)
    sizes = np.bincount(labels.reshape(-1), minlength=count + 1)[1:]
    small = sizes < min_area
    if not small.any():
        return mask
    if small.all():
        small[np.argmax(sizes)] = False
    return np.concatenate([[False], ~small])[labels]


def _parts(mask: Bool[np.ndarray, "height width"]) -> tuple[np.ndarray, int]:
    """Numbers the connected parts of a mask from 1 on, and says how many there are."""
    # Imported where it is needed: it would be a fifth of the time that the package takes to import.
    from scipy import ndimage

    return ndimage.label(mask, _EIGHT)
