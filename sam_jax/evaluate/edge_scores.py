"""How edge maps are scored against true boundaries: ODS, OIS, AP and R50 of the BSDS benchmark.

At every threshold the map is thinned, then pixels are matched exactly: as many pairs of a found
and a true pixel as there can be within the tolerance, no pixel in two pairs. BSDS's code seeks the
least distances of pairs besides, on which no score depends; its search rounds distances, so that a
few pairs can differ.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow
from scipy.spatial import cKDTree

from sam_jax.evaluate.thinning import thin

# BSDS's tolerance, as a part of the image's diagonal.
TOLERANCE = 0.0075
# Where edge maps are cut, as BSDS does by default.
THRESHOLDS = np.arange(1, 100) / 100
# Recalls at which precision is averaged.
_RECALLS = np.arange(101) / 100


@dataclass(frozen=True, eq=False)
class EdgeCounts:
    """Pixels of an image's edge map cut at each of `THRESHOLDS`.

    Attributes:
      matched: pairs of a found and a true pixel.
      found: found pixels.
      true: true pixels, the same for all.
    """

    matched: Int64[np.ndarray, " thresholds"]
    found: Int64[np.ndarray, " thresholds"]
    true: Int64[np.ndarray, " thresholds"]

    def __add__(self, other: "EdgeCounts") -> "EdgeCounts":
        return EdgeCounts(
            self.matched + other.matched, self.found + other.found, self.true + other.true
        )

    def at(self, place: int) -> "EdgeCounts":
        """Those of one threshold alone."""
        one = slice(place, place + 1)
        return EdgeCounts(self.matched[one], self.found[one], self.true[one])

    def precision(self) -> Float64[np.ndarray, " thresholds"]:
        """The part of the found pixels that is right; 0 where none is found."""
        return self.matched / np.maximum(self.found, 1)

    def recall(self) -> Float64[np.ndarray, " thresholds"]:
        """The part of the true pixels that is found."""
        return self.matched / np.maximum(self.true, 1)

    def f(self) -> Float64[np.ndarray, " thresholds"]:
        """F-measure, which comes to 2 * matched / (found + true)."""
        return 2 * self.matched / np.maximum(self.found + self.true, 1)


def count_edges(
    edges: Float[np.ndarray, "height width"],
    truth: Bool[np.ndarray, "height width"],
    tolerance: float = TOLERANCE,
) -> EdgeCounts:
    """Compares an edge map from 0 to 1 with true boundaries.

    Args:
      edges: the map.
      truth: pixels of boundaries, thin.
      tolerance: as a part of the image's diagonal.
    """
    all_found = edges >= THRESHOLDS[0]
    graph = _near_pairs(all_found, truth, tolerance * math.hypot(*edges.shape))
    row_of = np.cumsum(all_found).reshape(edges.shape) - 1
    found, matched = np.zeros((2, len(THRESHOLDS)), np.int64)
    count = -1
    for place, threshold in enumerate(THRESHOLDS):
        above = edges >= threshold
        before, count = count, int(np.count_nonzero(above))
        if count == before:  # the same pixels
            found[place], matched[place] = found[place - 1], matched[place - 1]
            continue
        rows = row_of[thin(above)]
        found[place], matched[place] = len(rows), _most_pairs(graph[rows])
    return EdgeCounts(matched, found, np.full(len(THRESHOLDS), np.count_nonzero(truth)))


def _near_pairs(
    found: Bool[np.ndarray, "height width"], true: Bool[np.ndarray, "height width"], distance: float
) -> csr_array:
    """Which pixels of the two, in reading order, are no farther apart than the distance."""
    places, others = np.argwhere(found), np.argwhere(true)
    shape = (len(places), len(others))
    if not all(shape):
        return csr_array(shape, dtype=np.int8)
    # A distance that is met exactly counts, whatever its rounding.
    pairs = cKDTree(places).sparse_distance_matrix(
        cKDTree(others), distance + 1e-9, output_type="ndarray"
    )
    return csr_array((np.ones(len(pairs), np.int8), (pairs["i"], pairs["j"])), shape=shape)


def _most_pairs(graph: csr_array) -> int:
    """How many pairs there can be at most, no row and no column in two.

    As a flow: SciPy's bipartite matching can take exponential time on such graphs (scipy#26147).
    """
    rows, columns = graph.shape
    # One unit from the source, node 0, to every row, on to a column, and to the sink, the last.
    starts = np.concatenate(
        [[0], rows + graph.indptr, graph.nnz + rows + np.arange(1, columns + 1)]
    )
    starts = np.append(starts, starts[-1])
    ends = np.concatenate(
        [np.arange(rows) + 1, graph.indices + rows + 1, np.full(columns, rows + columns + 1)]
    )
    capacities = np.ones(len(ends), np.int32)
    nodes = rows + columns + 2
    network = csr_array(
        (capacities, ends.astype(np.int32), starts.astype(np.int32)), shape=(nodes, nodes)
    )
    return int(maximum_flow(network, 0, nodes - 1, method="dinic").flow_value)


def edge_scores(images: Sequence[EdgeCounts]) -> dict[str, float]:
    """ODS, OIS, AP and R50 of images, as BSDS defines them.

    ODS: F of all images' pixels at the threshold that is best for all; OIS: at each image's best,
    which weighs images otherwise, so that it can be the lower one. AP: the area under precision
    over recall, 0 where the curve does not reach. R50: recall where precision is one half, or the
    best recall if it never falls so low.

    Args:
      images: one or more; without a true pixel in any, all scores are 0.
    """
    first, *others = images
    total = sum(others, first)
    best = [image.at(int(np.argmax(image.f()))) for image in images]
    precision, recall = total.precision(), total.recall()
    # The highest threshold first: recall grows.
    some = np.flatnonzero(total.found)[::-1]
    precision, recall = precision[some], recall[some]
    return {
        "ODS": float(total.f().max()),
        "OIS": float(sum(best[1:], best[0]).f()[0]),
        "AP": _area(precision, recall),
        "R50": _recall_at_half(precision, recall),
    }


def _area(
    precision: Float64[np.ndarray, " points"], recall: Float64[np.ndarray, " points"]
) -> float:
    """The sum over recalls in steps of 0.01, linear between the points."""
    if not recall.size:
        return 0.0
    # Of points with one recall the first counts: it was reached at the highest precision.
    recall, first = np.unique(recall, return_index=True)
    curve = np.interp(_RECALLS, recall, precision[first], left=0, right=0)
    return float(curve.sum() * 0.01)


def _recall_at_half(
    precision: Float64[np.ndarray, " points"], recall: Float64[np.ndarray, " points"]
) -> float:
    """Along the curve, from the lowest recall on, the last place with a precision of one half."""
    enough = np.flatnonzero(precision >= 0.5)
    if not enough.size:
        return 0.0
    last = int(enough[-1])
    if last + 1 == len(recall):
        return float(recall[last])
    part = (precision[last] - 0.5) / (precision[last] - precision[last + 1])
    return float(recall[last] + part * (recall[last + 1] - recall[last]))
