"""Small holes and islands of masks, filled and removed as the original does.

A mask is taken apart into the runs of its rows, and runs that touch are joined to parts: memory
grows with the outline and not with the pixels, so large images are no harder than small ones.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

Box = tuple[int, int, int, int]

# Pixels whose edges between inside and outside are looked for at a time.
_BLOCK_PIXELS = 1 << 22


def clean_mask(
    mask: Bool[np.ndarray, "height width"], min_area: int
) -> Bool[np.ndarray, "height width"]:
    """Fills holes, then removes islands, of fewer than `min_area` pixels.

    Pixels that touch at a corner are connected, on either side of the outline. A hole is any
    connected part of the background, at the image's border too. Where every island is small, the
    largest stays, so no mask vanishes; an empty one stays empty. Source: the original's
    `remove_small_regions`.

    Args:
      mask: of a whole image; left as it is.
      min_area: in pixels; 0 and 1 change nothing.

    Returns:
      The cleaned mask; `mask` itself where nothing changes.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return mask
    size_hw = (mask.shape[0], mask.shape[1])
    box = (int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))
    window = surrounding_window(box, size_hw, min_area)
    x0, y0, x1, y1 = window
    part = mask[y0:y1, x0:x1]
    cleaned, _ = clean_part(part, window, size_hw, min_area)
    if cleaned is part:
        return mask
    out = mask.copy()
    out[y0:y1, x0:x1] = cleaned
    return out


def surrounding_window(box: Box, size_hw: tuple[int, int], min_area: int) -> Box:
    """A mask's box with a pixel around it, up to the image's border where little is left beyond.

    What lies beyond a side of the window is then background of at least `min_area` pixels.

    Args:
      box: x0 y0 x1 y1 of the mask's outermost pixels, all inside it.
      size_hw: the image's height and width.
      min_area: in pixels.

    Returns:
      x0 y0 x1 y1, x1 and y1 not included.
    """
    height, width = size_hw
    x0, y0 = max(0, box[0] - 1), max(0, box[1] - 1)
    x1, y1 = min(width, box[2] + 2), min(height, box[3] + 2)
    x0 = 0 if x0 * height < min_area else x0
    x1 = width if (width - x1) * height < min_area else x1
    y0 = 0 if y0 * (x1 - x0) < min_area else y0
    y1 = height if (height - y1) * (x1 - x0) < min_area else y1
    return x0, y0, x1, y1


def clean_part(
    mask: Bool[np.ndarray, "height width"], window: Box, size_hw: tuple[int, int], min_area: int
) -> tuple[Bool[np.ndarray, "height width"], bool]:
    """As `clean_mask`, of the part of a mask in its `surrounding_window`.

    Returns:
      The cleaned part, and whether there was a small hole or island; the original calls a mask
      changed then, even where its largest island is small and stays.
    """
    filled, any_hole = _without_holes(mask, window, size_hw, min_area)
    cleaned, any_island = _without_islands(filled, min_area)
    return cleaned, any_hole or any_island


def _without_holes(
    mask: Bool[np.ndarray, "height width"], window: Box, size_hw: tuple[int, int], min_area: int
) -> tuple[Bool[np.ndarray, "height width"], bool]:
    parts = _parts(mask, False)
    small = parts.areas < min_area
    # Background that goes on outside the window is large.
    x0, y0, x1, y1 = window
    goes_on = (parts.left == 0) & (x0 > 0) | (parts.row == 0) & (y0 > 0)
    goes_on |= (parts.right == mask.shape[1]) & (x1 < size_hw[1])
    goes_on |= (parts.row == mask.shape[0] - 1) & (y1 < size_hw[0])
    small[parts.part[goes_on]] = False
    return _painted(mask, parts, small, True), bool(small.any())


def _without_islands(
    mask: Bool[np.ndarray, "height width"], min_area: int
) -> tuple[Bool[np.ndarray, "height width"], bool]:
    parts = _parts(mask, True)
    small = parts.areas < min_area
    any_small = bool(small.any())
    if any_small and small.all():
        small[np.argmax(parts.areas)] = False
    return _painted(mask, parts, small, False), any_small


@dataclass(frozen=True, eq=False)
class _Parts:
    """The runs of a mask's rows, and the connected part that each belongs to."""

    row: Int64[np.ndarray, " runs"]
    left: Int64[np.ndarray, " runs"]
    right: Int64[np.ndarray, " runs"]  # behind the last column
    part: Int64[np.ndarray, " runs"]
    areas: Int64[np.ndarray, " parts"]


def _parts(mask: Bool[np.ndarray, "height width"], inside: bool) -> _Parts:
    """Connected parts of the mask, or of its background; in the order of their first pixels."""
    # Imported where it is needed: it would be a fifth of the time that the package takes to import.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # One column more on either side: runs of neighboring rows touch there at no corner.
    stride = mask.shape[1] + 2
    edges = _edges(mask, inside, stride)
    starts, ends = edges[::2], edges[1::2]
    first = np.searchsorted(ends, starts + stride, "left")
    touching = np.searchsorted(starts, ends + stride, "right") - first
    upper = np.repeat(np.arange(len(starts)), touching)
    lower = _ranges(first, touching)
    links = coo_array((np.ones(len(upper), bool), (upper, lower)), shape=(len(starts),) * 2)
    count, part = connected_components(links, directed=False)
    areas = np.bincount(part, ends - starts, minlength=count).astype(np.int64)
    row, left = np.divmod(starts, stride)
    return _Parts(row, left - 1, ends - row * stride - 1, part.astype(np.int64), areas)


def _edges(
    mask: Bool[np.ndarray, "height width"], inside: bool, stride: int
) -> Int64[np.ndarray, " edges"]:
    """Where runs start and end in turn, as row * stride + column + 1."""
    height, width = mask.shape
    rows = max(1, _BLOCK_PIXELS // stride)
    found = [np.zeros(0, np.int64)]
    for start in range(0, height, rows):
        block = mask[start : start + rows]
        padded = np.zeros((len(block), stride), bool)
        np.equal(block, inside, out=padded[:, 1 : width + 1])
        flat = padded.reshape(-1)
        found.append(start * stride + 1 + np.flatnonzero(flat[1:] != flat[:-1]))
    return np.concatenate(found)


def _painted(
    mask: Bool[np.ndarray, "height width"],
    parts: _Parts,
    chosen: Bool[np.ndarray, " parts"],
    value: bool,
) -> Bool[np.ndarray, "height width"]:
    """The mask with the pixels of these parts set; the mask itself where there are none."""
    runs = chosen[parts.part]
    if not runs.any():
        return mask
    lengths = (parts.right - parts.left)[runs]
    out = mask.copy()
    out[np.repeat(parts.row[runs], lengths), _ranges(parts.left[runs], lengths)] = value
    return out


def _ranges(
    first: Int64[np.ndarray, " ranges"], lengths: Int64[np.ndarray, " ranges"]
) -> Int64[np.ndarray, " numbers"]:
    """first, first + 1, ... of each range, one range after the other."""
    before = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) + np.repeat(first - before, lengths)
