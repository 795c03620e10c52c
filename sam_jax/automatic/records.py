"""What automatic generation returns: masks as records, and what became of the rest."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from sam_jax.automatic.candidates import Candidates
from sam_jax.errors import InputError

OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")
# Full-size masks of one image are not built beyond this, unless somebody asks for it.
MAX_MASK_BYTES = 4 << 30


@dataclass(frozen=True, eq=False)
class GeneratedMasks:
    """All masks of an image, held as runs, which take little memory whatever the image's size.

    Attributes:
      size_hw: the image's height and width.
      candidates: the masks in the order of the records.
      report: how many candidates there were, how many each filter dropped in its turn, and how many
        are kept.
    """

    size_hw: tuple[int, int]
    candidates: Candidates
    report: dict[str, int]

    def __len__(self) -> int:
        return len(self.candidates)

    def records(
        self, output_mode: str = "binary_mask", *, max_mask_bytes: int | None = MAX_MASK_BYTES
    ) -> list[dict[str, Any]]:
        """One dict a mask, with the original's keys.

        segmentation: the mask; area: its pixels; bbox: x, y, width, height from the first to the
        last pixel's position, as the original writes it; predicted_iou and stability_score (not a
        number for an empty mask); point_coords: [[x, y]] of the points it was asked with;
        crop_box: x, y, width, height of the part of the image it was found in.

        Args:
          output_mode: what `segmentation` is: "binary_mask", bool [height, width];
            "uncompressed_rle", {"size": [height, width], "counts": list}; or "coco_rle", the same
            with text for counts, as pycocotools and JSON take it.
          max_mask_bytes: what full-size masks may take together, 4 GiB; None sets no limit.

        Raises:
          InputError: the mode is another, or full-size masks would take more than that.
        """
        if output_mode not in OUTPUT_MODES:
            raise InputError(
                f"unknown output_mode {output_mode!r}; there are {', '.join(OUTPUT_MODES)}"
            )
        height, width = self.size_hw
        size = len(self) * height * width
        if output_mode == "binary_mask" and max_mask_bytes is not None and size > max_mask_bytes:
            raise InputError(
                f"{len(self)} masks of {width}x{height} pixels would take {size / 2**30:.1f} GiB; "
                'ask for output_mode="coco_rle", or keep what generate_masks returns: its records '
                "come in any mode, and its max_mask_bytes=None lifts the limit"
            )
        return [self._record(i, output_mode) for i in range(len(self))]

    def _record(self, i: int, output_mode: str) -> dict[str, Any]:
        found = self.candidates
        runs = found.runs[i]
        segmentation: Any
        if output_mode == "binary_mask":
            segmentation = runs.mask()
        elif output_mode == "coco_rle":
            segmentation = {"size": list(self.size_hw), "counts": runs.rle["counts"]}
        else:
            segmentation = {"size": list(self.size_hw), "counts": runs.counts().tolist()}
        return {
            "segmentation": segmentation,
            "area": runs.area,
            "bbox": _corner_and_size(found.boxes[i]),
            "predicted_iou": float(found.predicted_iou[i]),
            "point_coords": found.points[i].tolist(),
            "stability_score": float(found.stability_score[i]),
            "crop_box": _corner_and_size(found.crops[i]),
        }


def warn_of_nothing_kept(masks: GeneratedMasks) -> None:
    """Warns the caller's caller where there were candidates and filters dropped all of them."""
    dropped = {
        name: count
        for name, count in masks.report.items()
        if count and name not in ("candidates", "kept")
    }
    # To keep none is what `max_masks=0` asks for.
    if len(masks) or not dropped or "beyond max_masks" in dropped:
        return
    listed = ", ".join(f"{count} {name}" for name, count in dropped.items())
    warnings.warn(
        f"no mask is left of {masks.report['candidates']} candidates: {listed}; lower these "
        "thresholds, or leave them out for the model's own",
        UserWarning,
        stacklevel=3,
    )


def _corner_and_size(box: np.ndarray) -> list[int]:
    x0, y0, x1, y1 = box.tolist()
    return [x0, y0, x1 - x0, y1 - y0]
