"""A mask as its runs of pixels: what stays of it in memory when the device has gone on."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Int64, UInt8

from sam_jax.formats.rle import Rle, counts_to_rle, rle_to_counts
from sam_jax.one_line import one_line

Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Runs:
    """A mask of an image, column by column, as COCO's compressed RLE: a byte or two an edge.

    Attributes:
      rle: the mask.
      area: its pixels.
    """

    rle: Rle
    area: int

    __repr__ = one_line

    @property
    def size_hw(self) -> tuple[int, int]:
        """The image's height and width."""
        height, width = self.rle["size"]
        return height, width

    def counts(self) -> Int64[np.ndarray, " counts"]:
        """Lengths of the runs outside and inside in turn, outside first: uncompressed RLE."""
        return rle_to_counts(self.rle)

    def intervals(self) -> tuple[Int64[np.ndarray, " runs"], Int64[np.ndarray, " runs"]]:
        """Position x * height + y of the first pixel of every run inside, and of one behind it."""
        edges = np.cumsum(self.counts())
        # The last run may be outside, and then it ends with the image and not a run inside.
        ends = edges[1::2]
        return edges[0::2][: len(ends)], ends

    def mask(self, box: Box | None = None) -> Bool[np.ndarray, "height width"]:
        """The pixels, of the whole image or of x0 y0 x1 y1 (x1, y1 not included)."""
        height, width = self.size_hw
        x0, y0, x1, y1 = box or (0, 0, width, height)
        base, length = x0 * height, (x1 - x0) * height
        starts, ends = self.intervals()
        reach = slice(np.searchsorted(ends, base, "right"), np.searchsorted(starts, base + length))
        starts = np.maximum(starts[reach] - base, 0)
        ends = np.minimum(ends[reach] - base, length)
        edges = np.zeros(length + 1, np.int8)
        edges[starts] += 1
        edges[ends] -= 1
        columns = np.cumsum(edges[:-1], dtype=np.int8).view(bool)
        return columns.reshape(x1 - x0, height)[:, y0:y1].T


def runs_of_mask(
    mask: Bool[np.ndarray, "box_height box_width"], box: Box, size_hw: tuple[int, int]
) -> Runs:
    """The runs of a mask that fills `box` (x0 y0 x1 y1, ends not included) of an image."""
    padded = np.pad(mask.T, ((0, 0), (1, 1))).view(np.int8)
    x, y = np.nonzero(np.diff(padded, axis=1))
    return _from_edges(x, y, box, size_hw)


def runs_of_changes(
    packed: UInt8[np.ndarray, "columns_by_8 rows"], box: Box, size_hw: tuple[int, int]
) -> Runs:
    """The runs of a mask of which the device tells where each column changes.

    Args:
      packed: bit b of packed[i, y] says whether column 8i + b changes sides before row y; row
        `height` counts as outside, so every column that ends inside changes there.
      box: x0 y0 x1 y1 of the image (ends not included) that the columns and rows stand for.
      size_hw: of the image.
    """
    rows = packed.shape[1]
    # Few bytes hold a change: looking at bytes first is an eighth of the work.
    where = np.flatnonzero(packed)
    bits = np.unpackbits(packed.ravel()[where][:, None], axis=1, bitorder="little")
    byte, bit = np.nonzero(bits)
    x, y = where[byte] // rows * 8 + bit, where[byte] % rows
    return _from_edges(x, y, box, size_hw)


def _from_edges(
    x: Int[np.ndarray, " edges"], y: Int[np.ndarray, " edges"], box: Box, size_hw: tuple[int, int]
) -> Runs:
    """From the pixels of the box before which a column changes sides, in any order."""
    # Where one column's run ends at the image's bottom and the next begins at its top, both edges
    # have one position; either order of the two gives the same runs.
    edges = np.sort((x + box[0]).astype(np.int64) * size_hw[0] + (y + box[1]))
    apart = np.ones(len(edges), bool)
    apart[1:-1:2] = apart[2::2] = edges[1:-1:2] != edges[2::2]
    edges = edges[apart]
    area = int((edges[1::2] - edges[0::2]).sum())
    pixels = size_hw[0] * size_hw[1]
    if not edges.size or edges[-1] != pixels:
        edges = np.append(edges, pixels)
    return Runs(counts_to_rle(np.diff(edges, prepend=0), size_hw), area)
