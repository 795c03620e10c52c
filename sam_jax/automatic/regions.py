"""Small holes and islands of generated masks, filled and removed."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int64

from sam_jax.automatic.candidates import Candidates
from sam_jax.automatic.runs import Box, Runs, runs_of_mask
from sam_jax.formats.rle import mask_box
from sam_jax.ops.mask_regions import clean_part, surrounding_window


def without_small_regions(
    candidates: Candidates, min_area: int
) -> tuple[Candidates, Bool[np.ndarray, " n"]]:
    """Fills holes, then removes islands, of fewer than `min_area` pixels.

    As `ops.mask_regions.clean_mask`.

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
        x0, y0, x1, y1 = box.tolist()
        window = surrounding_window((x0, y0, x1, y1), runs.size_hw, min_area)
    mask = runs.mask(window)
    cleaned, changed = clean_part(mask, window, runs.size_hw, min_area)
    if not changed:
        return None
    x, y, width, height = (int(value) for value in mask_box(cleaned))
    if not width:
        return runs_of_mask(cleaned, window, runs.size_hw), np.zeros(4, np.int64)
    x, y = x + window[0], y + window[1]
    new_box = np.array([x, y, x + width - 1, y + height - 1], np.int64)
    return runs_of_mask(cleaned, window, runs.size_hw), new_box
