"""One image with the masks of its objects, as a dataset has it: before it is in the frame."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from sam_jax.errors import InputError
from sam_jax.formats.polygons import polygons_to_mask
from sam_jax.formats.rle import checked_counts, mask_to_counts
from sam_jax.images import read_image
from sam_jax.one_line import one_line

# Why a record cannot be used: what the counts of skipped records are kept by.
CANNOT_READ = "cannot be read"
BROKEN_IMAGE = "broken image"
BROKEN_ANNOTATIONS = "broken annotations"
SIZES_DIFFER = "image and masks differ in size"
NOT_LISTED = "annotations of unknown images"
NO_MASK = "no usable mask"

# What of a JPEG may say that it lies on its side. Without, and with three colors, it is what
# `read_image` makes of it already: an array would be two more copies, half the time of decoding.
_TURNING = {"exif", "xmp"}


class RecordError(InputError):
    """A record of a dataset cannot be used; the others can.

    Attributes:
      reason: one of the few of this module.
    """

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason

    def __reduce__(self):
        return type(self), (self.reason, str(self))


@dataclass(frozen=True)
class Sample:
    """An image and the masks of its objects.

    Attributes:
      name: what a person finds it by.
      image: the content of an image file, or RGB.
      size_hw: of image and masks, as the annotations have it; upright, as `read_image` turns it.
      segmentations: of its objects, as a COCO file has them: RLE or polygons. None is decoded yet.
    """

    name: str
    image: bytes | UInt8[np.ndarray, "height width 3"]
    size_hw: tuple[int, int]
    segmentations: Sequence[Any]

    __repr__ = one_line


@runtime_checkable
class Dataset(Protocol):
    """Samples by number. Processes get copies of it, so it holds no open file and little memory."""

    @property
    def description(self) -> str:
        """What it is, and of how many images."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What a person finds the sample by."""

    def __getitem__(self, index: int) -> Sample:
        """Reads a sample; raises RecordError where it cannot be used."""


@contextmanager
def blaming(reason: str, name: str) -> Iterator[None]:
    """What is wrong with a record in the block is told with its name, and why it is skipped."""
    try:
        yield
    except RecordError:
        raise
    except InputError as error:
        raise RecordError(reason, f"{name}: {error}") from error
    except OSError as error:
        raise RecordError(CANNOT_READ, f"{name}: {error.strerror or error}") from error


def decoded_image(sample: Sample) -> Image.Image:
    """The image, RGB and upright, of the size that the annotations give; as `read_image` reads it.

    Raises:
      RecordError: it is damaged, cut short, no image, or of another size.
    """
    if isinstance(sample.image, np.ndarray):
        _check_size(sample, sample.image.shape[:2])
        return Image.fromarray(sample.image)
    with blaming(BROKEN_IMAGE, sample.name):
        try:
            image: Image.Image = Image.open(io.BytesIO(sample.image))
            if image.format != "JPEG" or image.mode != "RGB" or _TURNING & image.info.keys():
                image = Image.fromarray(read_image(image))
            _check_size(sample, image.size[::-1])
            image.load()
        except InputError:
            raise
        # On damaged files Pillow's readers raise nearly anything.
        except Exception as error:
            raise InputError(f"it is no image that can be read ({error})") from error
        return image


def check_sizes(sample: Sample) -> None:
    """Refuses a sample of which any mask is of another size than the image.

    Raises:
      RecordError: for that.
    """
    for segmentation in sample.segmentations:
        _check_mask_size(sample, segmentation)


def mask_counts(sample: Sample, index: int) -> Int64[np.ndarray, " runs"]:
    """One of a sample's masks, as run lengths down its columns, zeros first.

    Raises:
      RecordError: it is no RLE and no polygons, or of another size than the image.
    """
    segmentation = sample.segmentations[index]
    _check_mask_size(sample, segmentation)
    with blaming(BROKEN_ANNOTATIONS, f"{sample.name}: object {index}"):
        if isinstance(segmentation, list):
            return mask_to_counts(polygons_to_mask(segmentation, sample.size_hw))
        return checked_counts(segmentation)[0]


def _check_mask_size(sample: Sample, segmentation: Any) -> None:
    if isinstance(segmentation, dict) and "size" in segmentation:
        size = segmentation["size"]
        if not isinstance(size, list) or tuple(size) != sample.size_hw:
            height, width = sample.size_hw
            raise RecordError(
                SIZES_DIFFER,
                f"{sample.name}: a mask of height and width {str(size)[:50]} in an image of "
                f"{width}x{height} pixels",
            )


def _check_size(sample: Sample, size_hw: Sequence[int]) -> None:
    if tuple(size_hw) != sample.size_hw:
        (height, width), (named_height, named_width) = size_hw, sample.size_hw
        raise RecordError(
            SIZES_DIFFER,
            f"{sample.name}: the image is of {width}x{height} pixels, its annotations say "
            f"{named_width}x{named_height}",
        )
