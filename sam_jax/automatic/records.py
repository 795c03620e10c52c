"""What automatic generation returns: masks as records, and what became of the rest."""

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image

from sam_jax.automatic.candidates import Candidates
from sam_jax.errors import InputError
from sam_jax.files import written_together
from sam_jax.formats.exports import write_exports
from sam_jax.formats.label_png import Labels, label_map, label_png
from sam_jax.formats.overlay import draw_overlay
from sam_jax.formats.polygons import mask_to_polygons
from sam_jax.formats.result_files import check_not_foreign
from sam_jax.formats.rle import mask_box
from sam_jax.formats.sa1b import Sa1bImage, write_sa1b
from sam_jax.postprocess import pixels_of_size
from sam_jax.version import __version__

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
      model: the model's name, for people.
    """

    size_hw: tuple[int, int]
    candidates: Candidates
    report: dict[str, int]
    model: str = ""

    def __repr__(self) -> str:
        return f"GeneratedMasks({len(self)} masks, size_hw={self.size_hw}, model={self.model!r})"

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

    def masks(self) -> Iterator[Bool[np.ndarray, "height width"]]:
        """Each mask at the image's own size; one is in memory at a time."""
        return (runs.mask() for runs in self.candidates.runs)

    def label_map(self) -> Labels:
        """The masks in one array: 0 for background, i + 1 for mask i.

        Where masks overlap, the smaller one is on top; of equals, the first.

        Returns:
          [height, width], uint8 for up to 255 masks, else uint16.
        """
        return label_map(self.masks(), self.size_hw)

    def polygons(self, *, simplify: float = 0.0) -> list[list[list[float]]]:
        """Each mask as polygons x0, y0, x1, y1, ... in pixel corners, one a connected part.

        Args:
          simplify: how far they may be from the outline, in pixels; see `mask_to_polygons`.
        """
        return [mask_to_polygons(mask, simplify=simplify) for mask in self.masks()]

    def to_coco(self, *, image_id: int = 1, category_id: int = 1) -> list[dict[str, Any]]:
        """Each mask as a COCO annotation, which is a COCO result too.

        Args:
          image_id: the image's number in the COCO file.
          category_id: the masks' category.

        Returns:
          Dicts with `id` from 1 on, `image_id`, `category_id`, `iscrowd` 0, `segmentation`
          (compressed RLE), `area`, `bbox` (x, y, width, height, counting pixels) and `score`, the
          predicted IoU; and the other entries of `records`.
        """
        found = []
        for number, record in enumerate(self.records("coco_rle"), 1):
            box = mask_box(self.candidates.runs[number - 1].mask()).tolist()
            about = {"image_id": image_id, "category_id": category_id, "iscrowd": 0}
            score = record["predicted_iou"]
            found.append({"id": number, **about, **record, "bbox": box, "score": score})
        return found

    def overlay(self, image: Any, *, ids: bool = False) -> Image.Image:
        """The image with all masks drawn on it, an RGB picture.

        Args:
          image: path, PIL image or array, as for `Segmenter.encode`.
          ids: write each mask's number on it, its value in `label_map`.

        Raises:
          InputError: the image cannot be read, or is of another size.
        """
        texts = [str(number) for number in range(1, len(self) + 1)] if ids else []
        return draw_overlay(pixels_of_size(image, self.size_hw), self.masks(), texts=texts)

    def save(
        self,
        folder: str | os.PathLike,
        image: Any = None,
        *,
        name: str | None = None,
        label_map: bool = False,
        ids: bool = False,
        formats: Sequence[str] = (),
        simplify: float = 0.0,
    ) -> list[Path]:
        """Writes NAME.json in SA-1B's form, and NAME_overlay.jpg where there is an image.

        All files appear together, and replace those of their names. Masks without a pixel are left
        out.

        Args:
          folder: made where it is missing.
          image: to draw the overlay on, as for `overlay`.
          name: what the files' names begin with; the image file's own, or "image".
          label_map: also write NAME_labels.png, the `label_map`.
          ids: write each mask's number on it in the overlay.
          formats: also write the masks in these forms: "coco-rle", "polygon", "yolo", "labelme",
            "label-studio", "cvat".
          simplify: how far polygons may be from the masks' outlines, in pixels.

        Returns:
          The files and folders that were written.

        Raises:
          InputError: the image cannot be used, the JSON file of that name is no earlier result, or
            the folder cannot be written to.
        """
        path = Path(image) if isinstance(image, str | os.PathLike) else None
        stem = name or (path.stem if path else "image")
        file_name = path.name if path else stem
        there = [i for i, runs in enumerate(self.candidates.runs) if runs.area]
        shown = replace(self, candidates=self.candidates.take(there))
        records = shown.records("coco_rle")
        check_not_foreign(Path(folder) / f"{stem}.json", dict)
        with written_together(Path(folder)) as aside:
            if image is not None:
                overlay = shown.overlay(image, ids=ids)
                overlay.save(aside / f"{stem}_overlay.jpg", quality=90)
            if label_map:
                content = label_png(shown.masks(), self.size_hw)
                (aside / f"{stem}_labels.png").write_bytes(content)
            of_image = Sa1bImage(file_name, self.size_hw, 1, records)
            write_exports(aside, stem, of_image, formats, simplify=simplify)
            entry = {"version": __version__, "model": self.model, "report": self.report}
            write_sa1b(
                aside / f"{stem}.json",
                records,
                file_name=file_name,
                size_hw=self.size_hw,
                extra={"sam_jax": entry},
            )
            written = sorted(Path(folder) / file.name for file in aside.iterdir())
        return written

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
