"""Joining what the seams of tiles cut: the parts of one object that neighboring tiles found."""

from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from sam_jax.automatic.candidates import Candidates, concatenated
from sam_jax.automatic.grids import Crop
from sam_jax.automatic.runs import Box, Runs, runs_of_mask

# A mask that comes this close to the end of its tile, in pixels, may go on behind it.
_REACH = 2
# A cut is mended where other parts go on behind so much of it. It is not all, so that an object
# keeps its mask whose last few pixels lie in a tile that did not find it.
_CONTINUED = 0.75


def joined_over_seams(
    candidates: Candidates, tiles: list[Crop], size_hw: tuple[int, int], threshold: float
) -> tuple[Candidates, int]:
    """Masks of different tiles that are one object, as one mask; without those that stay cut.

    Two masks of overlapping tiles belong together when one of them is cut by the end of its tile
    and, where the tiles overlap, they agree: intersection over union of what lies there above
    `threshold`. Pairs are joined the best first, and never so that two masks of one tile come
    together. What is joined has the mean of the scores by area, and all of the points. A mask that
    is cut where no part of it goes on is left out: its outline is not an object's.

    Returns:
      The masks, and how many of the candidates were left out.
    """
    boxes = candidates.boxes
    cut = np.any(_cut_sides(boxes, candidates.crops, size_hw), axis=1)
    members = {tile.box: np.flatnonzero((candidates.crops == tile.box).all(1)) for tile in tiles}
    tile_of = np.zeros(len(candidates), np.int64)
    for number, inside in enumerate(members.values()):
        tile_of[inside] = number
    pairs: list[tuple[float, int, int]] = []
    for first, second in combinations(members, 2):
        overlap = _intersection(first, second)
        if overlap is None:
            continue
        ours, theirs = (_inside(boxes, members[tile], overlap) for tile in (first, second))
        agreement = _agreement(candidates.runs, ours, theirs, overlap)
        agreement[~(cut[ours][:, None] | cut[theirs][None, :])] = 0
        for i, j in np.argwhere(agreement > threshold):
            pairs.append((float(agreement[i, j]), int(ours[i]), int(theirs[j])))
    groups = _groups(sorted(pairs, key=lambda pair: -pair[0]), tile_of.tolist())
    objects, left_out = [], 0
    for group in groups:
        parts = candidates.take(group)
        if _stays_cut(parts, size_hw):
            left_out += len(parts)
        else:
            objects.append(_joined(parts, size_hw))
    return concatenated(objects), left_out


def _cut_sides(
    boxes: Int64[np.ndarray, "n 4"], crops: Int64[np.ndarray, "n 4"], size_hw: tuple[int, int]
) -> Bool[np.ndarray, "n 4"]:
    """Whether each mask reaches its tile's left, top, right and lower end inside the image."""
    ends = np.array([0, 0, size_hw[1], size_hw[0]])
    last = np.array([0, 0, 1, 1])  # a box ends with a pixel, a crop behind it
    near = np.abs(boxes - (crops - last)) <= _REACH
    return near & (crops != ends)


def _stays_cut(parts: Candidates, size_hw: tuple[int, int]) -> bool:
    """Whether a part is cut at an end of its tile behind which no other part goes on."""
    for part, side in np.argwhere(_cut_sides(parts.boxes, parts.crops, size_hw)).tolist():
        strip = parts.crops[part].copy()
        axis, end = side % 2, int(strip[side])
        # The pixels within reach of this end: columns of a left or right one, rows of the others.
        strip[side - 2] = end - _REACH - 1 if side >= 2 else end + _REACH + 1
        x0, y0, x1, y1 = strip.tolist()
        touched, continued = (
            np.any([runs.mask((x0, y0, x1, y1)).any(axis=1 - axis) for runs in some], axis=0)
            for some in ([parts.runs[part]], _looking_behind(parts, axis, end))
        )
        if np.sum(touched & continued) < _CONTINUED * np.sum(touched):
            return True
    return False


def _looking_behind(parts: Candidates, axis: int, end: int) -> list[Runs]:
    """The masks of those parts whose tiles go on behind an end."""
    begins, ends = parts.crops[:, axis], parts.crops[:, axis + 2]
    return [parts.runs[i] for i in np.flatnonzero((begins < end) & (end < ends))]


def _intersection(a: Box, b: Box) -> Box | None:
    x0, y0, x1, y1 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _inside(
    boxes: Int64[np.ndarray, "n 4"], members: Int64[np.ndarray, " m"], area: Box
) -> Int64[np.ndarray, " some"]:
    """Those of the members whose boxes reach into the area."""
    x0, y0, x1, y1 = boxes[members].T
    meets = (x0 < area[2]) & (x1 >= area[0]) & (y0 < area[3]) & (y1 >= area[1])
    return members[meets]


def _agreement(
    runs: list[Runs], ours: Int64[np.ndarray, " a"], theirs: Int64[np.ndarray, " b"], area: Box
) -> Float[np.ndarray, "a b"]:
    """Intersection over union of every pair, of the pixels in the area alone."""
    agreement = np.zeros((len(ours), len(theirs)))
    if not agreement.size:
        return agreement
    packed = np.stack([_packed(runs[j], area) for j in theirs])
    sizes = np.bitwise_count(packed).sum(axis=1, dtype=np.int64)
    for row, i in enumerate(ours):
        mine = _packed(runs[i], area)
        shared = np.bitwise_count(packed & mine).sum(axis=1, dtype=np.int64)
        either = sizes + np.bitwise_count(mine).sum(dtype=np.int64) - shared
        agreement[row] = shared / np.maximum(either, 1)
    return agreement


def _packed(runs: Runs, area: Box) -> UInt8[np.ndarray, " bytes"]:
    return np.packbits(runs.mask(area))


def _groups(pairs: list[tuple[float, int, int]], tile_of: list[int]) -> list[list[int]]:
    """What pairs connect, the best first, without two masks of one tile in any group.

    One tile tells its masks apart: what others say must not join them.
    """
    group_of = [[i] for i in range(len(tile_of))]
    for _, i, j in pairs:
        ours, theirs = group_of[i], group_of[j]
        if not {tile_of[k] for k in ours} & {tile_of[k] for k in theirs}:
            both = sorted(ours + theirs)
            for k in both:
                group_of[k] = both
    return [group for i, group in enumerate(group_of) if group[0] == i]


def _joined(parts: Candidates, size_hw: tuple[int, int]) -> Candidates:
    if len(parts) == 1:
        return parts
    box = np.concatenate([parts.boxes[:, :2].min(0), parts.boxes[:, 2:].max(0)])
    crop = np.concatenate([parts.crops[:, :2].min(0), parts.crops[:, 2:].max(0)])
    window = (int(box[0]), int(box[1]), int(box[2]) + 1, int(box[3]) + 1)
    mask = parts.runs[0].mask(window)
    for runs in parts.runs[1:]:
        mask = mask | runs.mask(window)
    areas = np.array([runs.area for runs in parts.runs], np.float64)
    predicted_iou, stability_score = (
        np.average(scores, weights=areas, keepdims=True).astype(np.float32)
        for scores in (parts.predicted_iou, parts.stability_score)
    )
    return Candidates(
        predicted_iou,
        stability_score,
        box[None],
        crop[None],
        [np.concatenate(parts.points)],
        [runs_of_mask(mask, window, size_hw)],
    )
