"""Thinning of boundaries to one pixel: Guo and Hall 1989, the `bwmorph(..., "thin")` of BSDS."""

import numpy as np
from jaxtyping import Bool

# (row, column) of the eight neighbors, from the right one on counterclockwise; bit k of a
# pixel's code says whether neighbor k is set.
_AROUND = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


def thin(pixels: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Takes pixels away from the sides of lines until they are a pixel wide.

    Nothing falls apart, and ends of lines stay. Diagonal steps count as connected.
    """
    padded = np.pad(pixels, 1)
    width = padded.shape[1]
    flat = padded.reshape(-1)
    places, before = np.flatnonzero(flat), -1
    while len(places) != before:
        before = len(places)
        for removable in _REMOVABLE:
            codes = np.zeros(len(places), np.uint8)
            for bit, (down, right) in enumerate(_AROUND):
                codes |= flat[places + down * width + right].astype(np.uint8) << np.uint8(bit)
            gone = removable[codes]
            flat[places[gone]] = False
            places = places[~gone]
    return padded[1:-1, 1:-1]


def _removable() -> tuple[Bool[np.ndarray, " 256"], Bool[np.ndarray, " 256"]]:
    """By a pixel's code, whether it may go in the first and in the second half of a round."""
    codes = np.arange(256)
    right, up_right, up, up_left, left, down_left, down, down_right = around = [
        (codes >> bit & 1).astype(bool) for bit in range(8)
    ]
    sides, corners, next_sides = around[0::2], around[1::2], [*around[2::2], around[0]]
    # Groups of neighbors that only this pixel holds together: there must be one.
    groups = sum(
        (~a & (b | c)).astype(int) for a, b, c in zip(sides, corners, next_sides, strict=True)
    )
    pairs = sum((a | b).astype(int) for a, b in zip(sides, corners, strict=True))
    other_pairs = sum((b | c).astype(int) for b, c in zip(corners, next_sides, strict=True))
    neighbours = np.minimum(pairs, other_pairs)
    common = (groups == 1) & (neighbours >= 2) & (neighbours <= 3)
    # Opposite sides in turn, so that a line two pixels wide does not vanish.
    first = common & ~((up_right | up | ~down_right) & right)
    second = common & ~((down_left | down | ~up_left) & left)
    return first, second


_REMOVABLE = _removable()
