"""COCO's run-length encoding of masks, with area and box; NumPy alone, no loop over pixels.

A mask is read column by column, and is the lengths of its runs, of zeros and ones in turn, zeros
first. COCO stores the lengths as text: each, less the one two before it (from the fourth on), in
groups of five bits from the lowest, each group one character from "0" on; a group's sixth bit says
that another follows, and the last group's highest bit is the sign.
"""

from typing import Any, TypedDict

import numpy as np
from jaxtyping import Bool, Int, Int64

from sam_jax.errors import InputError

# A few bytes can claim a mask of any size: refuse what no image of ours can be.
MAX_PIXELS = 1 << 28
# A run is shorter than MAX_PIXELS, and so is its difference to another: six groups of five bits.
_MAX_GROUPS = 6


class Rle(TypedDict):
    """COCO's compressed RLE, as it stands in a JSON file: `size` is [height, width]."""

    size: list[int]
    counts: str


def encode_rle(mask: Bool[np.ndarray, "height width"]) -> Rle:
    """A mask as COCO's compressed RLE, equal to what pycocotools gives (with text for bytes).

    Raises:
      InputError: the mask has more than `MAX_PIXELS` pixels.
    """
    height, width = mask.shape
    return counts_to_rle(mask_to_counts(mask), (height, width))


def mask_to_counts(mask: Bool[np.ndarray, "height width"]) -> Int64[np.ndarray, " runs"]:
    """The run lengths of a mask, column by column, of zeros and ones in turn, zeros first.

    Raises:
      InputError: the mask has more than `MAX_PIXELS` pixels.
    """
    if mask.size > MAX_PIXELS:
        raise InputError(f"a mask of shape {mask.shape} is too large for RLE")
    columns = np.ravel(mask, order="F")
    changes = np.flatnonzero(columns[1:] != columns[:-1]) + 1
    ends = np.concatenate([changes, [columns.size]])
    runs = np.diff(ends, prepend=0)
    if columns.size and columns[0]:
        runs = np.concatenate([[0], runs])
    return runs


def counts_to_rle(counts: Int[np.ndarray, " runs"], size_hw: tuple[int, int]) -> Rle:
    """Compressed RLE of run lengths, of zeros and ones in turn, zeros first."""
    return {"size": list(size_hw), "counts": _runs_to_text(counts.astype(np.int64))}


def rle_to_counts(rle: Rle) -> Int64[np.ndarray, " runs"]:
    """The run lengths of a compressed RLE that `counts_to_rle` made."""
    return _text_to_runs(rle["counts"].encode("ascii"))


def decode_rle(rle: Any) -> Bool[np.ndarray, "height width"]:
    """The mask of a COCO RLE: compressed, or with the run lengths as a list.

    Args:
      rle: a mapping with `size` [height, width] and `counts`, text, bytes or a list of integers.

    Raises:
      InputError: it is no RLE, or its runs do not add up to its size.
    """
    runs, (height, width) = checked_counts(rle)
    inside = np.arange(runs.size) % 2 == 1
    return np.repeat(inside, runs).reshape(width, height).T


def checked_counts(rle: Any) -> tuple[Int64[np.ndarray, " runs"], tuple[int, int]]:
    """The run lengths and (height, width) of a COCO RLE, in any form that `decode_rle` takes.

    Raises:
      InputError: it is no RLE, or its runs do not add up to its size.
    """
    try:
        size, counts = rle["size"], rle["counts"]
        height, width = size
    except (TypeError, KeyError, ValueError, IndexError):
        raise InputError("an RLE is a mapping with size [height, width] and counts") from None
    for side in (height, width):
        if isinstance(side, bool) or not isinstance(side, int | np.integer) or side < 0:
            raise InputError(f"the size of an RLE is two whole numbers, not {str(size)[:100]!r}")
    height, width = int(height), int(width)
    if height * width > MAX_PIXELS:
        raise InputError(f"an RLE of {width}x{height} pixels is larger than any image that is read")
    runs = _runs(counts)
    if runs.size and runs.min() < 0:
        raise InputError("the counts of an RLE hold a negative run")
    # No run may exceed the whole before they are added, so the sum cannot overflow.
    if runs.size and (runs.max() > height * width or runs.sum() != height * width):
        raise InputError(f"the runs of an RLE do not add up to its size, {width}x{height} pixels")
    if not runs.size and height * width:
        raise InputError("the counts of an RLE are empty")
    return runs, (height, width)


def mask_area(masks: Bool[np.ndarray, "*batch height width"]) -> Int[np.ndarray, "*batch"]:
    """Pixels inside each mask."""
    return np.asarray(np.count_nonzero(masks, axis=(-2, -1)))


def mask_box(masks: Bool[np.ndarray, "*batch height width"]) -> Int[np.ndarray, "*batch 4"]:
    """The tight box of each mask as COCO writes it: x, y, width, height; zeros for an empty one."""
    if 0 in masks.shape[-2:]:
        return np.zeros((*masks.shape[:-2], 4), np.int64)
    x0, width = _extent(np.asarray(masks.any(axis=-2)))
    y0, height = _extent(np.asarray(masks.any(axis=-1)))
    return np.stack([x0, y0, width, height], axis=-1)


def _extent(
    inside: Bool[np.ndarray, "*batch length"],
) -> tuple[Int[np.ndarray, "*batch"], Int[np.ndarray, "*batch"]]:
    """Where the first True stands, and how far it is to behind the last; zeros if there is none."""
    first = np.asarray(inside.argmax(axis=-1))
    behind = inside.shape[-1] - inside[..., ::-1].argmax(axis=-1)
    return first, np.where(inside.any(axis=-1), behind - first, 0)


def _runs_to_text(runs: Int64[np.ndarray, "runs"]) -> str:
    values = runs.copy()
    values[3:] -= runs[1:-2]
    shifted = values[:, None] >> (5 * np.arange(_MAX_GROUPS))
    group, rest = shifted & 31, shifted >> 5
    # Done when all that is left is copies of the sign bit, which the reader extends.
    more = rest != np.where(group & 16, -1, 0)
    used = np.concatenate([np.ones((len(values), 1), bool), more[:, :-1]], axis=1)
    characters = (group | (more << 5)) + ord("0")
    return characters[used].astype(np.uint8).tobytes().decode("ascii")


def _runs(counts: Any) -> Int64[np.ndarray, "runs"]:
    if isinstance(counts, str):
        try:
            return _text_to_runs(counts.encode("ascii"))
        except UnicodeEncodeError:
            raise InputError("the counts of an RLE hold characters of another alphabet") from None
    if isinstance(counts, bytes):
        return _text_to_runs(counts)
    whole = isinstance(counts, list | tuple | np.ndarray) and all(
        isinstance(n, int | np.integer) and not isinstance(n, bool) and abs(int(n)) <= MAX_PIXELS
        for n in counts
    )
    if not whole:
        raise InputError("the counts of an RLE are text, or a list of whole numbers (run lengths)")
    return np.array(counts, np.int64).reshape(-1)


def _text_to_runs(text: bytes) -> Int64[np.ndarray, "runs"]:
    characters = np.frombuffer(text, np.uint8).astype(np.int64) - ord("0")
    if not characters.size:
        return np.zeros(0, np.int64)
    if characters.min() < 0 or characters.max() > 63:
        raise InputError("the counts of an RLE hold characters that RLE text does not have")
    last = np.flatnonzero(characters < 32)
    if not last.size or last[-1] != characters.size - 1:
        raise InputError("the counts of an RLE end in the middle of a run; they are cut short")
    lengths = np.diff(last, prepend=-1)
    if lengths.max() > _MAX_GROUPS + 1:
        raise InputError("the counts of an RLE hold a run longer than any image")
    starts = last - lengths + 1
    position = np.arange(characters.size) - np.repeat(starts, lengths)
    values = np.add.reduceat((characters & 31) << (5 * position), starts)
    negative = (characters[last] & 16) != 0
    values -= negative.astype(np.int64) << (5 * lengths)
    # Odd places count from the second run, even ones from the third.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
