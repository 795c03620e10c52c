"""Masks as polygons and back: exact outlines along pixel edges, simplified on request.

Coordinates are pixel corners: pixel (column, row) covers column..column + 1 and row..row + 1.

The outline of a mask has corners where the four pixels around a point are one or three of a kind,
or two diagonal ones. Along a row of pixel corners they pair up into the outline's horizontal edges,
along a column into its vertical ones, so whole arrays of edges are found at once; only the walk
from edge to edge is a loop. A diagonal counts as two corners, which keeps pixels that touch at a
corner apart: components are 4-connected.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from sam_jax.errors import InputError
from sam_jax.formats.rle import MAX_PIXELS, mask_box

# Far outside any image, and small enough that no product of two overflows or loses half pixels.
_MAX_COORDINATE = 1e9
# Crossings of edges and columns that are in memory at a time.
_CROSSINGS = 1 << 20


@dataclass(frozen=True)
class _Rings:
    """Closed walks along a mask's edges with the mask on the right hand, one after the other.

    Outer rings run clockwise as seen on the screen, holes the other way. A hole's bridge goes from
    its first point straight up to the point `bridges` of a ring that comes before it.
    """

    xy: Int64[np.ndarray, "points 2"]
    starts: Int64[np.ndarray, "rings"]  # each ring's first point, its topmost
    ring: Int64[np.ndarray, "points"]  # the ring that each point belongs to
    holes: Int64[np.ndarray, "holes"]  # rings that are holes
    bridges: Int64[np.ndarray, "holes"]  # points

    @property
    def is_outer(self) -> Bool[np.ndarray, "rings"]:
        outer = np.ones(len(self.starts), bool)
        outer[self.holes] = False
        return outer


def mask_to_polygons(
    mask: Bool[np.ndarray, "height width"], *, simplify: float = 0.0
) -> list[list[float]]:
    """The outline of a mask as polygons, one for each 4-connected component.

    Holes are joined to the ring above them by a vertical bridge that is walked down and up again.
    Readers that fill by the even-odd or the nonzero rule, pycocotools among them, see the holes.

    With `simplify=0` the polygons follow the pixels' edges and give back the very mask, through
    `polygons_to_mask` and through pycocotools. With `simplify=t`, corners are left out
    (Douglas-Peucker, each ring by itself), and this holds:

    - every point of the outline is at most t pixels from its simplified ring, so a pixel whose
      center is further than t from the outline keeps its value;
    - corners are the outline's own, whole numbers;
    - every component keeps its bounding box and a polygon of at least four corners, however small;
    - a hole that shrinks to a line is left out; it was nowhere wider than 2 t.

    Rings that were closer than 2 t to each other, or to themselves, may touch or cross.

    Args:
      mask: of any size.
      simplify: how far the polygons may be from the outline, in pixels.

    Returns:
      For each component x0, y0, x1, y1, ... in pixel corners, 0..width and 0..height, in order of
      their topmost pixels; clockwise as seen on the screen; the first point is not repeated at the
      end. Nothing for an empty mask.

    Raises:
      InputError: `simplify` is negative or not finite.
    """
    if not (math.isfinite(simplify) and simplify >= 0):
        raise InputError(f"simplify is a distance in pixels, 0 or more, not {simplify}")
    left, top, width, height = mask_box(mask).tolist()
    if not width:
        return []
    rings = _trace(mask[top : top + height, left : left + width])
    kept, alive = np.ones(len(rings.xy), bool), np.ones(len(rings.holes), bool)
    if simplify:
        kept, alive = _simplified(rings, float(simplify))
    return _joined(rings, kept, alive, np.array([left, top]))


def polygons_to_mask(polygons: Any, size_hw: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    """The mask of the pixels whose center is inside any of the polygons.

    A polygon that crosses or encloses itself is filled by the even-odd rule, each by itself. What
    reaches out of the image is cut off. Whole coordinates along pixel edges are exact; where edges
    are slanted or between pixels, pycocotools, which counts in fifths of a pixel, may decide
    differently about pixels on the outline.

    Args:
      polygons: sequences x0, y0, x1, y1, ... in pixel corners, as in a COCO file.
      size_hw: the mask's height and width.

    Raises:
      InputError: no list of polygons, or one with an odd number of coordinates, with less than
        three points, or with something other than finite numbers (up to a thousand million).
    """
    height, width = size_hw
    if height < 0 or width < 0 or height * width > MAX_PIXELS:
        raise InputError(f"a mask cannot have {width}x{height} pixels")
    if not isinstance(polygons, list | tuple):
        raise InputError(f"polygons are a list of lists of numbers, not {type(polygons).__name__}")
    mask = np.zeros((height, width), bool)
    # All are checked before the first is drawn: refusing is quick.
    for ring in [_checked_ring(polygon, index) for index, polygon in enumerate(polygons)]:
        _fill(mask, ring)
    return mask


def _trace(mask: Bool[np.ndarray, "height width"]) -> _Rings:
    padded = np.pad(mask, 1)
    stride = padded.shape[1] - 1
    corners, upper_right, lower_right = _corners(padded)
    y, x = np.divmod(corners, stride)
    # Edge k joins corners 2k and 2k + 1; it runs rightwards if the mask is below it.
    rightwards = lower_right[::2]
    edges = np.arange(len(rightwards))
    begins, ends = 2 * edges + ~rightwards, 2 * edges + rightwards
    # Of the two corners of a diagonal, the first ends the edge from the left. In the column it is
    # the upper one, unless the pixel at its edge is the lower left one: then upper right is inside.
    second = np.concatenate([[False], corners[1:] == corners[:-1]])
    by_column = np.argsort(2 * (x * len(padded) + y) + (second ^ upper_right))
    across = np.empty_like(corners)
    across[by_column[::2]], across[by_column[1::2]] = by_column[1::2], by_column[::2]
    order, first_edges = _cycles(across[ends] // 2)

    points = np.stack([begins[order], ends[order]], axis=1).ravel()
    xy = np.stack([x[points], y[points]], axis=1)
    starts = 2 * first_edges
    is_hole = ~rightwards[order[first_edges]]
    ring = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(points)))
    holes = np.flatnonzero(is_hole)
    if not holes.size:
        return _Rings(xy, starts, ring, holes, holes)
    at_xy, under = _bridge_ends(padded, xy[starts[holes]], corners[::2])
    # A bridge that does not end at the corner where the edge ends needs a point of its own.
    begin = 2 * np.argsort(order)[under]
    new = np.flatnonzero(at_xy[:, 0] != xy[begin + 1, 0])
    new = new[np.lexsort([at_xy[new, 0], begin[new]])]
    before = begin[new] + 1
    bridges = begin + 1 + np.searchsorted(before, begin + 1, side="right")
    bridges[new] = before + np.arange(len(new))
    starts = starts + np.searchsorted(before, starts, side="left")
    xy = np.insert(xy, before, at_xy[new], axis=0)
    return _Rings(xy, starts, np.insert(ring, before, ring[before]), holes, bridges)


def _corners(
    padded: Bool[np.ndarray, "height width"],
) -> tuple[Int64[np.ndarray, "corners"], Bool[np.ndarray, "corners"], Bool[np.ndarray, "corners"]]:
    """Where the outline turns, row by row, and if the pixels right above and below are inside.

    A point is row * (width - 1) + column; where two pixels touch diagonally it comes twice.
    """
    upper_left, upper_right = padded[:-1, :-1], padded[:-1, 1:]
    lower_left, lower_right = padded[1:, :-1], padded[1:, 1:]
    diagonal = (upper_left == lower_right) & (upper_left != upper_right)
    diagonal &= upper_right == lower_left
    turns = np.flatnonzero(diagonal | (upper_left ^ upper_right ^ lower_left ^ lower_right))
    corners = np.repeat(turns, 1 + diagonal.ravel()[turns])
    at = np.unravel_index(corners, diagonal.shape)
    return corners, upper_right[at], lower_right[at]


def _cycles(
    following: Int64[np.ndarray, "edges"],
) -> tuple[Int64[np.ndarray, "edges"], Int64[np.ndarray, "rings"]]:
    """A permutation's cycles one after the other, each from its first edge, and where they start.

    Edges are numbered row by row, so that a ring starts at its topmost edge.
    """
    after = following.tolist()
    seen = bytearray(len(after))
    order: list[int] = []
    starts: list[int] = []
    for edge in range(len(after)):
        if seen[edge]:
            continue
        starts.append(len(order))
        while not seen[edge]:
            seen[edge] = 1
            order.append(edge)
            edge = after[edge]
    return np.array(order, np.int64), np.array(starts, np.int64)


def _bridge_ends(
    padded: Bool[np.ndarray, "height width"],
    hole_xy: Int64[np.ndarray, "holes 2"],
    left_corners: Int64[np.ndarray, "edges"],
) -> tuple[Int64[np.ndarray, "holes 2"], Int64[np.ndarray, "holes"]]:
    """Straight up from the right end of each hole's top edge: the first edge, and the point on it.

    The way goes along the mask's pixels left of it, so it ends at an edge of the same component,
    higher than the hole: at its outer ring, or at a hole that is thereby joined to it earlier.
    """
    height, width = padded.shape
    x, y = hole_xy.T
    tops = np.flatnonzero((padded[1:, 1:-1] & ~padded[:-1, 1:-1]).T)  # column by column
    above = tops[np.searchsorted(tops, (x - 1) * (height - 1) + y) - 1] % (height - 1)
    edges = np.searchsorted(left_corners, above * (width - 1) + x - 1, side="right") - 1
    return np.stack([x, above], axis=1), edges


def _simplified(
    rings: _Rings, tolerance: float
) -> tuple[Bool[np.ndarray, "points"], Bool[np.ndarray, "holes"]]:
    """Which points stay, and which holes do."""
    anchors = np.concatenate([rings.starts, _extremes(rings)])
    kept = _douglas_peucker(rings, anchors, tolerance)
    if not rings.holes.size:
        return kept, np.zeros(0, bool)
    alive = (np.bincount(rings.ring, kept) >= 3) | rings.is_outer
    # A hole that others hang on stays as part of their bridge, even if nothing of it is left.
    parents = rings.ring[rings.bridges]
    for hole, parent in zip(rings.holes[::-1].tolist(), parents[::-1].tolist(), strict=True):
        alive[parent] |= alive[hole]
    stay = alive[rings.holes]
    anchors = np.concatenate([anchors, rings.bridges[stay]])
    return _douglas_peucker(rings, anchors, tolerance), stay


def _extremes(rings: _Rings) -> Int64[np.ndarray, "anchors"]:
    """The points of outer rings that hold their boxes: first of each side, going clockwise.

    The top's is the ring's first point. The four differ and are never on one line.
    """
    x, y = rings.xy.T
    far = int(rings.xy.max()) + 1
    is_extreme = np.zeros(len(x), bool)
    for rank in (x * far - y, y * far + x, y - x * far):
        largest = np.maximum.reduceat(rank, rings.starts)
        is_extreme |= rank == largest[rings.ring]
    return np.flatnonzero(is_extreme & rings.is_outer[rings.ring])


def _douglas_peucker(
    rings: _Rings, anchors: Int64[np.ndarray, "anchors"], tolerance: float
) -> Bool[np.ndarray, "points"]:
    """Which points stay: the anchors, the first of each ring among them, and what these need.

    The parts of all rings between points that stay are split at the same time, each at the point
    furthest from its chord, until none is further than the tolerance.
    """
    # Each ring's first point again behind its last.
    behind = np.append(rings.starts[1:], len(rings.xy))
    closed = np.insert(np.arange(len(rings.xy)), behind, rings.starts)
    xy = rings.xy[closed].astype(np.float64)
    is_anchor = np.zeros(len(rings.xy), bool)
    is_anchor[anchors] = True
    kept = is_anchor[closed]
    stops = np.flatnonzero(kept)
    # From one ring's closing point to the next one's first is no part; it is two points long.
    begin, end = stops[:-1], stops[1:]
    while True:
        longer = end - begin > 1
        begin, end = begin[longer], end[longer]
        if not begin.size:
            break
        counts = end - begin - 1
        offsets = np.cumsum(counts) - counts
        part = np.repeat(np.arange(len(begin)), counts)
        inner = np.arange(len(part)) + (begin + 1 - offsets)[part]
        distance = _squared_distance(xy[inner], xy[begin], xy[end], part)
        furthest = np.maximum.reduceat(distance, offsets)
        split = furthest > tolerance**2
        candidates = np.flatnonzero(split[part] & (distance == furthest[part]))
        # Of equals the middle one: the first would take a comb apart tooth by tooth.
        equals = np.bincount(part[candidates], minlength=len(begin))[split]
        middle = inner[candidates[np.cumsum(equals) - equals + equals // 2]]
        kept[middle] = True
        begin, end = np.append(begin[split], middle), np.append(middle, end[split])
    stay = np.zeros(len(rings.xy), bool)
    stay[closed[kept]] = True
    return stay


def _squared_distance(
    xy: Float[np.ndarray, "points 2"],
    begin_xy: Float[np.ndarray, "parts 2"],
    end_xy: Float[np.ndarray, "parts 2"],
    part: Int64[np.ndarray, "points"],
) -> Float[np.ndarray, "points"]:
    """From each point to the chord of its part, the stretch between the ends and not the line."""
    chord = end_xy - begin_xy
    length = np.maximum((chord**2).sum(axis=1), 1)  # whole coordinates: less than one is none
    away, chord = xy - begin_xy[part], chord[part]
    along = np.clip((away * chord).sum(axis=1) / length[part], 0, 1)
    return ((away - along[:, None] * chord) ** 2).sum(axis=1)


def _joined(
    rings: _Rings,
    kept: Bool[np.ndarray, "points"],
    alive: Bool[np.ndarray, "holes"],
    offset_xy: Int64[np.ndarray, "2"],
) -> list[list[float]]:
    """The outer rings, with each hole spliced in where its bridge ends."""
    count = len(rings.xy)
    hole_starts, bridges = rings.starts[rings.holes[alive]], rings.bridges[alive]
    # Behind the points: each hole's first point again, then each bridge's end again.
    starts_again = count + np.arange(len(hole_starts))
    bridges_again = starts_again + len(hole_starts)
    xy = np.concatenate([rings.xy, rings.xy[hole_starts], rings.xy[bridges]]) + offset_xy

    stay = np.flatnonzero(kept)
    after = np.full(len(xy), -1)
    inside_ring = rings.ring[stay[1:]] == rings.ring[stay[:-1]]
    after[stay[:-1][inside_ring]] = stay[1:][inside_ring]
    last = np.append(stay[:-1][~inside_ring], stay[-1:])
    last_of_ring = np.empty(len(rings.starts), np.int64)
    last_of_ring[rings.ring[last]] = last
    after[last_of_ring[rings.holes[alive]]] = starts_again
    after[starts_again] = bridges_again
    after[bridges_again] = after[bridges]
    after[bridges] = hole_starts

    following = after.tolist()
    polygons: list[list[float]] = []
    for point in rings.starts[rings.is_outer].tolist():
        walk: list[int] = []
        while point >= 0:
            walk.append(point)
            point = following[point]
        polygons.append(xy[walk].astype(np.float64).ravel().tolist())
    return polygons


def _checked_ring(polygon: Any, index: int) -> Float[np.ndarray, "points 2"]:
    if isinstance(polygon, np.ndarray):
        polygon = polygon.tolist()
    if not isinstance(polygon, list | tuple):
        raise InputError(f"polygon {index} is a {type(polygon).__name__}, not a list of numbers")
    if len(polygon) % 2:
        raise InputError(f"polygon {index} has {len(polygon)} coordinates; they come in pairs x, y")
    if len(polygon) < 6:
        raise InputError(f"polygon {index} has {len(polygon)} coordinates; a triangle has 6")
    for kind in set(map(type, polygon)):
        if not issubclass(kind, int | float | np.integer | np.floating) or kind is bool:
            raise InputError(f"polygon {index} holds a {kind.__name__} where a number is due")
    # In Python, where whole numbers of any length compare right, and NaN fails.
    if not all(abs(value) <= _MAX_COORDINATE for value in polygon):
        raise InputError(f"polygon {index} holds NaN or a number beyond {_MAX_COORDINATE:g}")
    return np.array(polygon, np.float64).reshape(-1, 2)


def _fill(mask: Bool[np.ndarray, "height width"], ring: Float[np.ndarray, "points 2"]) -> None:
    """Adds the pixels whose center the ring encloses an odd number of times."""
    height, width = mask.shape
    following = np.roll(ring, -1, axis=0)
    # From left to right, so that an edge walked both ways is computed once and cancels.
    swap = (ring[:, 0] > following[:, 0])[:, None]
    left, right = np.where(swap, following, ring), np.where(swap, ring, following)
    first = np.clip(np.ceil(left[:, 0] - 0.5), 0, width).astype(np.int64)
    behind = np.clip(np.ceil(right[:, 0] - 0.5), 0, width).astype(np.int64)
    crossing = first < behind
    left, right, first, behind = left[crossing], right[crossing], first[crossing], behind[crossing]
    rows = np.clip(np.ceil([ring[:, 1].min() - 0.5, ring[:, 1].max() - 0.5]), 0, height)
    top, bottom = rows.astype(np.int64).tolist()
    if not first.size or top == bottom:
        return
    x0, x1 = int(first.min()), int(behind.max())
    slope = (right[:, 1] - left[:, 1]) / (right[:, 0] - left[:, 0])
    # How often an edge passes above a pixel, modulo 256, first as steps from row to row.
    passes = np.zeros((bottom - top + 1, x1 - x0), np.uint8)
    ends = np.cumsum(behind - first)
    for begin in range(0, int(ends[-1]), _CROSSINGS):
        number = np.arange(begin, min(begin + _CROSSINGS, int(ends[-1])))
        edge = np.searchsorted(ends, number, side="right")
        column = number - ends[edge] + behind[edge]
        y = left[edge, 1] + (column + 0.5 - left[edge, 0]) * slope[edge]
        row = np.clip(np.ceil(y - 0.5), top, bottom).astype(np.int64)
        np.add.at(passes.reshape(-1), (row - top) * (x1 - x0) + column - x0, np.uint8(1))
    np.add.accumulate(passes, axis=0, out=passes)
    mask[top:bottom, x0:x1] |= (passes[:-1] & 1).view(bool)
