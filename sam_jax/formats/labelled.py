"""What annotation tools are given: each mask of an image with the name of what it shows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from sam_jax.errors import InputError
from sam_jax.formats.rle import mask_box
from sam_jax.formats.sa1b import Sa1bImage, checked_fields, checked_segmentation, entry, naming

# What a mask shows where nobody says it; also the one category of COCO files.
DEFAULT_LABEL = "object"


@dataclass(frozen=True, eq=False)
class LabelledMask:
    """A mask that has a pixel.

    Attributes:
      label: the name of what it shows.
      mask: of the whole image.
      box: x, y, width, height.
      score: predicted IoU; None where the record has none.
    """

    label: str
    mask: Bool[np.ndarray, "height width"]
    box: tuple[int, int, int, int]
    score: float | None

    @property
    def cut_out(self) -> Bool[np.ndarray, "box_height box_width"]:
        """The mask within its box."""
        x, y, width, height = self.box
        return self.mask[y : y + height, x : x + width]


def labelled_masks(image: Sa1bImage) -> Iterator[LabelledMask]:
    """The masks of an image, one in memory at a time; those without a pixel are left out.

    Raises:
      InputError: an entry of a record is wrong, or of another size than the image.
    """
    for index, record in enumerate(image.records):
        with naming(f"record {index} of image {image.file_name!r}"):
            _, mask = checked_segmentation(entry(record, "segmentation"), image.size_hw)
            label = checked_label(record.get("label", DEFAULT_LABEL))
            score = None
            if "predicted_iou" in record:
                score = checked_fields(record, ["predicted_iou"])["predicted_iou"]
        x, y, width, height = mask_box(mask).tolist()
        if width:
            yield LabelledMask(label, mask, (x, y, width, height), score)


def checked_label(label: Any) -> str:
    """A label, or an InputError: it is text on one line, of characters that can be written."""
    if not isinstance(label, str) or not label.strip() or not label.isprintable():
        raise InputError(f"a label is text on one line, not {label!r}")
    return label
