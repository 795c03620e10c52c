"""How well the outlines of masks agree: the boundary F-measure of the DAVIS benchmark."""

import math

import numpy as np
from jaxtyping import Bool
from scipy.ndimage import distance_transform_edt

# DAVIS's tolerance, as a part of the image's diagonal.
TOLERANCE = 0.008


def boundary_pixels(mask: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Pixels that differ from their neighbour to the right, below, or right below.

    Masks that touch share the boundary between them, and it is one pixel wide. The image's own
    edge is none.
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    here = padded[:-1, :-1]
    return (here != padded[:-1, 1:]) | (here != padded[1:, :-1]) | (here != padded[1:, 1:])


def boundary_f(
    predicted: Bool[np.ndarray, "height width"],
    truth: Bool[np.ndarray, "height width"],
    tolerance: float = TOLERANCE,
) -> float:
    """F-measure of a mask's boundary: 2PR / (P + R).

    P is the part of the predicted boundary within the tolerance of the true one, R the part of the
    true one within the tolerance of the predicted one; no boundary at all agrees with none, and
    with nothing else. As DAVIS 2016 measures it.

    Args:
      predicted: the mask.
      truth: the true mask.
      tolerance: as a part of the image's diagonal; rounded up to whole pixels.
    """
    radius = math.ceil(tolerance * math.hypot(*truth.shape))
    both = predicted | truth
    rows, columns = np.flatnonzero(both.any(axis=1)), np.flatnonzero(both.any(axis=0))
    if not rows.size:
        return 1.0
    # Boundaries lie within a pixel of the masks; the rest of the image holds none.
    area = (
        slice(max(0, rows[0] - 1), rows[-1] + 2),
        slice(max(0, columns[0] - 1), columns[-1] + 2),
    )
    found, true = boundary_pixels(predicted[area]), boundary_pixels(truth[area])
    if not found.any() or not true.any():
        return float(found.any() == true.any())
    precision = np.mean(_distance_to(true)[found] <= radius)
    recall = np.mean(_distance_to(found)[true] <= radius)
    total = precision + recall
    return float(2 * precision * recall / total) if total else 0.0


def _distance_to(boundary: Bool[np.ndarray, "height width"]) -> np.ndarray:
    """Distances to the nearest pixel of a boundary: a radius of it is a dilation by a disk."""
    return np.asarray(distance_transform_edt(~boundary))
