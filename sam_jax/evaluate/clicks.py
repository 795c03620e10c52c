"""Where a tireless annotator clicks: on an object, then on what a prediction gets wrong.

SAM appendix D.1: the pixel of a region that is farthest from the region's boundary. Coordinates are
(x, y), whole pixels; outside the image is outside every region.
"""

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from sam_jax.types import LABEL_BACKGROUND, LABEL_FOREGROUND

Point = tuple[int, int]


def centre_point(region: Bool[np.ndarray, "height width"]) -> Point:
    """The pixel of a region farthest from its boundary; among equals the first, row by row.

    Raises:
      ValueError: the region is empty.
    """
    point, distance = _farthest_inside(region)
    if not distance:
        raise ValueError("an empty region has no centre")
    return point


def random_point(region: Bool[np.ndarray, "height width"], rng: np.random.Generator) -> Point:
    """A pixel drawn uniformly from a region.

    Raises:
      ValueError: the region is empty.
    """
    pixels = np.flatnonzero(region)
    y, x = divmod(int(rng.choice(pixels)), region.shape[1])
    return x, y


def error_click(
    predicted: Bool[np.ndarray, "height width"], truth: Bool[np.ndarray, "height width"]
) -> tuple[Point, int] | None:
    """The next click: where a prediction is most deeply wrong, and its label.

    What is missing and what is too much are measured apart; the greater distance from the boundary
    wins, and too much among equals, as in the evaluation of RITM and SAM 2.

    Returns:
      (x, y), and 1 where the object is missing or 0 where there is too much; None where the
      prediction is right everywhere.
    """
    missing, missing_distance = _farthest_inside(truth & ~predicted)
    surplus, surplus_distance = _farthest_inside(predicted & ~truth)
    if not missing_distance and not surplus_distance:
        return None
    if missing_distance > surplus_distance:
        return missing, LABEL_FOREGROUND
    return surplus, LABEL_BACKGROUND


def _farthest_inside(region: Bool[np.ndarray, "height width"]) -> tuple[Point, float]:
    """The pixel farthest from all pixels outside, and how far that is; 0 for an empty region."""
    rows = np.flatnonzero(region.any(axis=1))
    if not len(rows):
        return (0, 0), 0.0
    columns = np.flatnonzero(region.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    # Around the region's box all is outside: what lies beyond that ring is never nearer.
    cropped = np.pad(region[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    distance = ndimage.distance_transform_edt(cropped)
    y, x = divmod(int(distance.argmax()), cropped.shape[1])
    return (left + x - 1, top + y - 1), float(distance[y, x])
