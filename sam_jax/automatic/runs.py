"""A mask as its runs of pixels: what stays of it in memory when the device has gone on."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, UInt8

from sam_jax.formats.rle import Rle, counts_to_rle

Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Runs:
    """A mask of an image, column by column: pixels starts[i] to ends[i] (not included) are inside.

    Half the size of int64, for any image that is read (`images.MAX_PIXELS`).

    Attributes:
      starts: rising positions x * height + y of each run's first pixel.
      ends: one behind each run's last pixel; no run begins where another ends.
      size_hw: the image's height and width.
    """

    starts: Int32[np.ndarray, " runs"]
    ends: Int32[np.ndarray, " runs"]
    size_hw: tuple[int, int]

    @property
    def area(self) -> int:
        """Pixels inside."""
        return int((self.ends - self.starts).sum(dtype=np.int64))

    def counts(self) -> Int64[np.ndarray, " counts"]:
        """Lengths of the runs outside and inside in turn, outside first: uncompressed RLE."""
        pixels = self.size_hw[0] * self.size_hw[1]
        edges = np.stack([self.starts, self.ends], axis=1).ravel().astype(np.int64)
        if not edges.size or edges[-1] != pixels:
            edges = np.append(edges, pixels)
        return np.diff(edges, prepend=0)

    def rle(self) -> Rle:
        """COCO's compressed RLE."""
        return counts_to_rle(self.counts(), self.size_hw)

    def mask(self, box: Box | None = None) -> Bool[np.ndarray, "height width"]:
        """The pixels, of the whole image or of x0 y0 x1 y1 (x1, y1 not included)."""
        height, width = self.size_hw
        x0, y0, x1, y1 = box or (0, 0, width, height)
        base, length = x0 * height, (x1 - x0) * height
        first, last = (
            np.searchsorted(self.ends, base, "right"),
            np.searchsorted(self.starts, base + length),
        )
        starts = np.maximum(self.starts[first:last] - base, 0)
        ends = np.minimum(self.ends[first:last] - base, length)
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
    edges = np.sort((x + box[0]).astype(np.int64) * size_hw[0] + (y + box[1])).astype(np.int32)
    starts, ends = edges[0::2], edges[1::2]
    apart = starts[1:] != ends[:-1]
    begins, stops = np.ones(len(starts), bool), np.ones(len(ends), bool)
    begins[1:], stops[:-1] = apart, apart
    return Runs(starts[begins], ends[stops], size_hw)
