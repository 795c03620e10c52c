"""Edges from masks of everything, and how edge maps are scored (SAM section 7.2, D.2; BSDS500).

The paper leaves the thinning open ("Canny-style"); here a pixel stays where no neighbour across the
edge is stronger, and the direction is the gradient's of the mask that is strongest there. Scores
are BSDS's, whose matching is taken exactly: as many pairs of a found and a true pixel as there can
be within the tolerance, no pixel in two pairs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64
from scipy.ndimage import binary_dilation, map_coordinates, sobel
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree

from sam_jax.automatic.grids import point_grid
from sam_jax.evaluate.interactive import Predictor
from sam_jax.formats.rle import mask_box
from sam_jax.ops.nms import nms
from sam_jax.postprocess import mask_matrices, upscale_logits

POINTS_PER_SIDE = 16
NMS_THRESHOLD = 0.7
# BSDS's tolerance, as a part of the image's diagonal.
TOLERANCE = 0.0075
# Where edge maps are cut: within (0, 1), evenly (BSDS's own code takes up to 99 such cuts).
THRESHOLDS = np.arange(1, 33) / 33
_EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


def edge_map(
    predictor: Predictor, embedding: object, size_hw: tuple[int, int]
) -> Float32[np.ndarray, "height width"]:
    """Edges of an image, thin, from 0 to 1: three masks for each of 16 by 16 points, unfiltered.

    Memory: the low-resolution logits of all candidates, 200 MB for the official models.

    Args:
      predictor: a Segmenter.
      embedding: what it makes of the image.
      size_hw: the image's height and width.
    """
    points = point_grid(POINTS_PER_SIDE) * np.array(size_hw[::-1])
    found = predictor.predict(embedding, points=points[:, None].astype(np.float32))
    prompts, candidates = found.scores.shape
    logits = np.asarray(found.logits).reshape(prompts * candidates, *found.logits.shape[-2:])
    scores = np.asarray(found.scores).reshape(-1)
    boxes = [mask_box(found.mask(*which)) for which in np.ndindex(prompts, candidates)]
    corners = np.array(boxes, np.float32)
    corners[:, 2:] += corners[:, :2] - 1
    kept = nms(corners, scores.astype(np.float32), NMS_THRESHOLD)
    kept = kept[corners[kept, 2] >= corners[kept, 0]]  # an empty mask has no edge
    rows, columns = mask_matrices(size_hw, found.image_size, logits.shape[-1])
    strongest = np.zeros((3, *size_hw), np.float32)
    for i in kept:
        full = np.asarray(upscale_logits(logits[i], rows, columns))
        response = mask_edges(full, found.threshold)
        better = response[0] > strongest[0]
        strongest[:, better] = response[:, better]
    strength = strongest[0]
    lowest, highest = strength.min(), strength.max()
    if highest > lowest:
        strength = (strength - lowest) / (highest - lowest)
    return thinned(strength, strongest[1], strongest[2])


def mask_edges(
    logits: Float[np.ndarray, "height width"], threshold: float = 0.0
) -> Float32[np.ndarray, "3 height width"]:
    """Strength of a mask's edge, and the gradient along x and y: Sobel's of its probability.

    The strength is zero but on the pixels just outside the mask.
    """
    # The same as the sigmoid, and no overflow.
    probability = 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float32)))
    across, down = sobel(probability, axis=1), sobel(probability, axis=0)
    mask = logits > threshold
    outside = binary_dilation(mask, _EIGHT_NEIGHBOURS) & ~mask
    strength = np.where(outside, np.hypot(across, down), 0)
    return np.stack([strength, across, down]).astype(np.float32)


def thinned(
    strength: Float32[np.ndarray, "height width"],
    across: Float32[np.ndarray, "height width"],
    down: Float32[np.ndarray, "height width"],
) -> Float32[np.ndarray, "height width"]:
    """An edge map without the pixels that have a stronger one before or behind, along the gradient.

    Strengths between pixels are interpolated linearly. Of two that are equal the latter stays.
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


def matched(
    found: Bool[np.ndarray, "height width"],
    true: Bool[np.ndarray, "height width"],
    distance: float,
) -> tuple[Bool[np.ndarray, " found"], Bool[np.ndarray, " true"]]:
    """Which pixels of two edge maps have a partner in the other, each at most one.

    As many pairs as there can be with both no farther apart than the distance. BSDS's code looks
    for the least distances as well, but an unmatched pixel costs it more than any of those.

    Returns:
      For the pixels of each map, in reading order.
    """
    places, others = np.argwhere(found), np.argwhere(true)
    partner = np.full(len(places), -1)
    if len(places) and len(others):
        near = cKDTree(places).query_ball_tree(cKDTree(others), distance + 1e-9)
        counts = [len(each) for each in near]
        column = np.array([other for each in near for other in each], np.int32)
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        edges = np.ones(len(column), np.int8)
        graph = csr_array((edges, column, starts), shape=(len(places), len(others)))
        partner = maximum_bipartite_matching(graph, perm_type="column")
    taken = np.zeros(len(others), bool)
    taken[partner[partner >= 0]] = True
    return partner >= 0, taken


@dataclass(frozen=True, eq=False)
class EdgeCounts:
    """Pixels of an image's edge map cut at each of `THRESHOLDS`.

    Attributes:
      right: found ones that some annotator's map has.
      found: found ones.
      recalled: true ones that were found, of all annotators together.
      true: true ones, of all annotators together.
    """

    right: Int64[np.ndarray, " thresholds"]
    found: Int64[np.ndarray, " thresholds"]
    recalled: Int64[np.ndarray, " thresholds"]
    true: Int64[np.ndarray, " thresholds"]


def count_edges(
    edges: Float[np.ndarray, "height width"],
    truths: Sequence[Bool[np.ndarray, "height width"]],
    tolerance: float = TOLERANCE,
) -> EdgeCounts:
    """Compares an edge map, thin and from 0 to 1, with the boundaries that annotators drew.

    Args:
      edges: the map.
      truths: one map for each annotator.
      tolerance: as a part of the image's diagonal.
    """
    distance = tolerance * math.hypot(*edges.shape)
    total = sum(int(np.count_nonzero(truth)) for truth in truths)
    rows: list[tuple[int, int, int]] = []
    before = None
    for threshold in THRESHOLDS:
        found = edges >= threshold
        # Fewer pixels than before, or the same ones.
        if before is not None and np.count_nonzero(found) == np.count_nonzero(before):
            rows.append(rows[-1])
            continue
        before = found
        right = np.zeros(np.count_nonzero(found), bool)
        recalled = 0
        for truth in truths:
            ours, theirs = matched(found, truth, distance)
            right |= ours
            recalled += int(np.count_nonzero(theirs))
        rows.append((int(np.count_nonzero(right)), right.size, recalled))
    columns = np.array(rows, np.int64).T
    return EdgeCounts(columns[0], columns[1], columns[2], np.full(len(rows), total))


def edge_scores(images: Sequence[EdgeCounts]) -> dict[str, int | float | None]:
    """ODS, OIS, AP and R50 of many images, as BSDS defines them.

    ODS: F of all images' pixels at the best threshold for all; OIS: at each image's best. AP: mean
    precision over recalls 0, 0.01, ... 1, nothing where the curve does not reach. R50: recall where
    precision is one half, or the best recall if it never falls so low.
    """
    if not any(image.true[0] for image in images):
        return {"images": len(images), "ODS": None, "OIS": None, "AP": None, "R50": None}
    each = np.array([[c.right, c.found, c.recalled, c.true] for c in images])
    precision, recall = _precision_recall(each.sum(axis=0))
    best = np.argmax(np.stack([_f(*_precision_recall(image)) for image in each]), axis=1)
    own = each[np.arange(len(each)), :, best].sum(axis=0, keepdims=True).T
    order = np.argsort(recall, kind="stable")
    curve = np.interp(np.arange(101) / 100, recall[order], precision[order], right=0.0)
    # Below the lowest recall there is no curve; BSDS counts nothing there.
    curve[np.arange(101) / 100 < recall.min()] = 0
    return {
        "images": len(images),
        "ODS": float(np.max(_f(precision, recall))),
        "OIS": float(_f(*_precision_recall(own))[0]),
        "AP": float(np.mean(curve)),
        "R50": _recall_at_half(precision[order], recall[order]),
    }


def _precision_recall(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    right, found, recalled, true = counts
    return right / np.maximum(found, 1), recalled / np.maximum(true, 1)


def _f(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    return 2 * precision * recall / np.maximum(precision + recall, 1e-12)


def _recall_at_half(precision: np.ndarray, recall: np.ndarray) -> float:
    """Along the curve, from the lowest recall on, the last place with a precision of one half."""
    enough = np.flatnonzero(precision >= 0.5)
    if not enough.size:
        return 0.0
    last = int(enough[-1])
    if last + 1 == len(recall):
        return float(recall[last])
    fall = precision[last] - precision[last + 1]
    part = (precision[last] - 0.5) / fall
    return float(recall[last] + part * (recall[last + 1] - recall[last]))
