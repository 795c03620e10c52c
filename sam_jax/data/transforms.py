"""A sample into the model's frame: the image resized, some of its masks beside it.

Masks stay run lengths until they are small: a mask is resized by taking the pixel that lies under
the center of each pixel of the frame (nearest neighbor), and for run lengths that is a count of
how many such pixels come before each of its ends. Nearest rather than a share of the area above one
half, because it keeps a thin object's area on average where the other would erase it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from sam_jax.data.batches import TrainingBatch
from sam_jax.data.samples import (
    NO_MASK,
    RecordError,
    Sample,
    decoded_image,
    mask_counts,
)
from sam_jax.errors import InputError
from sam_jax.models.input_frame import resized_hw
from sam_jax.one_line import one_line


@dataclass(frozen=True)
class FrameOptions:
    """How samples come into the frame; the defaults are the paper's recipe (appendix A).

    Attributes:
      image_size: side of the frame, to which the image's longer side is resized; in pixels, a
        multiple of 8.
      max_masks: how many of an image's masks are taken, at random; fewer where it has fewer.
      max_area: masks that cover more of the whole image than this share are left out.
      scale_range: large-scale jitter. The longer side is resized to the frame's times a number
        drawn from this range; what is larger than the frame is cropped at random, what is smaller
        lies at the top left. None for no jitter; the paper has (0.1, 2.0) for manual annotations.
      flip: how often the image is mirrored left to right, from 0 to 1.
    """

    image_size: int = 1024
    max_masks: int = 64
    max_area: float = 0.9
    scale_range: tuple[float, float] | None = None
    flip: float = 0.0

    def __post_init__(self):
        if self.image_size < 8 or self.image_size % 8:
            raise InputError(f"image_size is a multiple of 8, not {self.image_size}")
        if self.max_masks < 1:
            raise InputError(f"max_masks is at least 1, not {self.max_masks}")
        if not 0 < self.max_area <= 1:
            raise InputError(f"max_area is a share of the image above 0, not {self.max_area}")
        if not 0 <= self.flip <= 1:
            raise InputError(f"flip is a probability from 0 to 1, not {self.flip}")
        low, high = self.scale_range or (1, 1)
        # Beyond 16 an image of 1024 would be resized to more pixels than any that is read.
        if not 0 < low <= high <= 16:
            raise InputError(
                f"scale_range is two factors, low and high, up to 16, not {self.scale_range}"
            )


@dataclass(frozen=True)
class Placement:
    """Where in the frame which part of an image lies.

    Attributes:
      scaled_hw: height and width that the whole image is resized to.
      offset_yx: where in there the part begins that is kept.
      size_hw: of that part, which lies at the frame's top left.
      mirrored: whether the image is mirrored left to right before all that.
    """

    scaled_hw: tuple[int, int]
    offset_yx: tuple[int, int]
    size_hw: tuple[int, int]
    mirrored: bool


@dataclass(frozen=True)
class FramedSample:
    """A sample in the frame, without what is empty there: small, to be sent between processes.

    Attributes:
      image: what of the frame it covers.
      masks: of each mask the bytes from left to right, as high as the image, and how many bytes
        of the frame come before.
    """

    image: UInt8[np.ndarray, "new_height new_width 3"]
    masks: list[tuple[int, UInt8[np.ndarray, "new_height _"]]]

    __repr__ = one_line


def draw_placement(
    size_hw: tuple[int, int], options: FrameOptions, rng: np.random.Generator
) -> Placement:
    """Draws where an image of this size lies; without jitter and flip nothing is drawn."""
    side = options.image_size
    if options.scale_range is not None:
        side = max(1, round(side * rng.uniform(*options.scale_range)))
    scaled = resized_hw(size_hw, side)
    kept = (min(scaled[0], options.image_size), min(scaled[1], options.image_size))
    offset = (0, 0)
    if kept != scaled:
        top, left = rng.integers(0, [scaled[0] - kept[0] + 1, scaled[1] - kept[1] + 1])
        offset = (int(top), int(left))
    return Placement(scaled, offset, kept, options.flip > 0 and bool(rng.random() < options.flip))


def place_image(
    picture: Image.Image, placement: Placement
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    """The part of an RGB image that is in the frame; resized as `preprocess.resize_image` does."""
    if placement.mirrored:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    (top, left), (height, width) = placement.offset_yx, placement.size_hw
    box = None
    if placement.size_hw != placement.scaled_hw:
        per_row = picture.height / placement.scaled_hw[0]
        per_column = picture.width / placement.scaled_hw[1]
        # Pillow looks beyond the box where its filter reaches there, so that this equals a crop.
        box = (
            left * per_column,
            top * per_row,
            min((left + width) * per_column, picture.width),
            min((top + height) * per_row, picture.height),
        )
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, box))


class MaskPlacer:
    """Brings masks of one image into the frame, as `place_image` does with the image."""

    def __init__(self, size_hw: tuple[int, int], placement: Placement):
        (height, width), (scaled_height, scaled_width) = size_hw, placement.scaled_hw
        (top, left), (self._height, kept_width) = placement.offset_yx, placement.size_hw
        rows = _sources(height, scaled_height, top, self._height)
        columns = _sources(width, scaled_width, left, kept_width)
        if placement.mirrored:
            columns = (width - 1 - columns)[::-1]
        self._mirrored = placement.mirrored
        self._image_height = height
        # Where an image is enlarged, a column is taken several times: once for now.
        taken, self._column_of = np.unique(columns, return_inverse=True)
        # How many of the pixels taken come before each row and column, one behind the last too.
        self._rows_before = np.searchsorted(rows, np.arange(height + 1))
        self._columns_before = np.searchsorted(taken, np.arange(width + 2))

    def resampled(self, counts: Int64[np.ndarray, " runs"]) -> Int64[np.ndarray, " ends"]:
        """Where each of the mask's runs ends, among the pixels that are taken, down the columns."""
        column, row = np.divmod(np.cumsum(counts), self._image_height)
        before = self._columns_before[column]
        inside = (self._columns_before[column + 1] - before) * self._rows_before[row]
        return before * self._height + inside

    def draw(
        self, ends: Int64[np.ndarray, " ends"]
    ) -> tuple[int, UInt8[np.ndarray, "new_height _"]]:
        """A mask of `resampled`, which is not empty: its bytes from left to right, after so many.

        Packed along x as in a `TrainingBatch`, from the first byte with a pixel to the last.
        """
        begins = ends[:-1]
        drawn = np.flatnonzero(ends[1::2] > begins[::2])
        height = self._height
        first = int(begins[::2][drawn[0]]) // height
        behind = -(-int(ends[1::2][drawn[-1]]) // height)
        cut = np.clip(ends, first * height, behind * height) - first * height
        runs = np.diff(cut, prepend=0)
        inside = np.arange(len(runs)) % 2 == 1
        columns = np.repeat(inside, runs).reshape(-1, height)
        left, right = np.searchsorted(self._column_of, [first, behind])
        if right - left > len(columns):
            columns = columns[self._column_of[left:right] - first]
        if self._mirrored:
            left, right = len(self._column_of) - right, len(self._column_of) - left
            columns = columns[::-1]
        begin = int(left) // 8
        aligned = np.zeros((height, right - 8 * begin), bool)
        aligned[:, left - 8 * begin :] = columns.T
        return begin, np.packbits(aligned, axis=1)


def framed(sample: Sample, options: FrameOptions, rng: np.random.Generator) -> FramedSample:
    """Brings a sample into the frame.

    Masks are drawn without replacement from those that have a pixel, cover no more than `max_area`
    of the whole image, and have a pixel left in the frame. A damaged mask, or one of another size
    than the image, is left out without the others.

    Raises:
      RecordError: the image is damaged or not of its annotations' size, or no mask is left.
    """
    height, width = sample.size_hw
    placement = draw_placement(sample.size_hw, options, rng)
    placer = MaskPlacer(sample.size_hw, placement)
    masks: list[tuple[int, UInt8[np.ndarray, "new_height _"]]] = []
    problem: RecordError | None = None
    for index in rng.permutation(len(sample.segmentations)):
        try:
            counts = mask_counts(sample, int(index))
        except RecordError as error:
            problem = problem or error
            continue
        if not 0 < counts[1::2].sum() <= options.max_area * height * width:
            continue
        ends = placer.resampled(counts)
        if np.diff(ends)[::2].any():
            masks.append(placer.draw(ends))
            if len(masks) == options.max_masks:
                break
    if not masks:
        nothing = f"{sample.name}: no mask is left that could be learned from"
        raise problem or RecordError(NO_MASK, nothing)
    return FramedSample(place_image(decoded_image(sample), placement), masks)


def batch_of(samples: Sequence[FramedSample], options: FrameOptions) -> TrainingBatch:
    """A batch on the host, as NumPy arrays."""
    side, count = options.image_size, len(samples)
    images = np.zeros((count, side, side, 3), np.uint8)
    sizes_hw = np.zeros((count, 2), np.int32)
    masks = np.zeros((count, options.max_masks, side, side // 8), np.uint8)
    weights = np.zeros((count, options.max_masks), np.float32)
    for place, sample in enumerate(samples):
        height, width = sizes_hw[place] = sample.image.shape[:2]
        images[place, :height, :width] = sample.image
        weights[place, : len(sample.masks)] = 1
        for mask, (begin, part) in zip(masks[place], sample.masks, strict=False):
            mask[:height, begin : begin + part.shape[1]] = part
    return TrainingBatch(images=images, sizes_hw=sizes_hw, masks=masks, weights=weights)


def _sources(original: int, scaled: int, offset: int, length: int) -> Int64[np.ndarray, " length"]:
    """The pixel of the original under the center of each of these pixels of the scaled."""
    return (2 * np.arange(offset, offset + length) + 1) * original // (2 * scaled)
