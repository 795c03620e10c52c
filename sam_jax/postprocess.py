"""Low-resolution logits to masks in the image's own frame.

The original resizes twice: low-resolution logits to the padded input, then its unpadded part to the
image. Both steps are linear and act on each axis alone, so one small matrix an axis does both.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from flax import struct
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from sam_jax.errors import InputError
from sam_jax.formats.label_png import Labels, label_map
from sam_jax.formats.polygons import mask_to_polygons
from sam_jax.formats.result_files import ResultMask, check_objects, write_result
from sam_jax.formats.result_overlay import draw_prediction
from sam_jax.formats.rle import encode_rle, mask_area, mask_box
from sam_jax.images import read_image
from sam_jax.models.input_frame import InputFrame
from sam_jax.one_line import one_line
from sam_jax.ops.mask_regions import clean_mask
from sam_jax.ops.resample import linear_matrix
from sam_jax.types import ArrayLike
from sam_jax.version import __version__

# Full-size logits exist for this many pixels at a time.
BLOCK_PIXELS = 1 << 22
# `MaskPrediction.masks` refuses to build more than this at once.
MAX_MASK_BYTES = 4 << 30
# What is smaller than a cell of the image embedding, 4 by 4 pixels of logits, is no object that the
# model saw: the decoder's upscaling made it.
_CLEANED_LOGITS = 16


def mask_matrices(
    size_hw: tuple[int, int], frame: InputFrame, low_res_size: int
) -> tuple[Float[np.ndarray, "height low"], Float[np.ndarray, "width low"]]:
    """The two matrices that take low-resolution logits to the image's own frame.

    Args:
      size_hw: the image's height and width.
      frame: the model's input; where the image fills it (SAM 2) there is one step, else two.
      low_res_size: side of the low-resolution logits, which cover the input.

    Returns:
      float32 `rows` and `columns`; `rows @ logits @ columns.T` equals the original's
      `postprocess_masks`. For any array library, on any device.
    """
    if frame.fit == "stretch":
        rows, columns = (linear_matrix(low_res_size, full).astype(np.float32) for full in size_hw)
        return rows, columns
    to_input = linear_matrix(low_res_size, frame.side)
    rows, columns = (
        (linear_matrix(valid, full) @ to_input[:valid]).astype(np.float32)
        for valid, full in zip(frame.image_hw(size_hw), size_hw, strict=True)
    )
    return rows, columns


# A person clicks on one image many times; the matrices depend on its size alone.
_cached_matrices = lru_cache(maxsize=16)(mask_matrices)


def upscale_logits(
    logits: Float[ArrayLike, "*batch low low"],
    rows: Float[ArrayLike, "height low"],
    columns: Float[ArrayLike, "width low"],
) -> Float[ArrayLike, "*batch height width"]:
    """Full-size logits by the matrices of `mask_matrices`; NumPy in, NumPy out, JAX likewise.

    On TPU and GPU ask JAX for highest matmul precision where a pixel at the edge matters.
    """
    return rows @ logits @ columns.T


def default_clean_area(size_hw: tuple[int, int], frame: InputFrame, low_res_size: int) -> int:
    """Pixels below which a hole or an island of a mask is noise: a cell of the image embedding.

    Args:
      size_hw: the image's height and width.
      frame: the model's input.
      low_res_size: side of the low-resolution logits.
    """
    height, width = size_hw
    pixels = height * width if frame.fit == "stretch" else max(size_hw) ** 2
    return round(_CLEANED_LOGITS * pixels / low_res_size**2)


def checked_clean(clean: Any) -> bool | int:
    """What `clean=` of a prediction may be: an area in pixels, True, or nothing (0).

    Raises:
      InputError: it is something else.
    """
    if clean is None or isinstance(clean, bool | np.bool_):
        return bool(clean)
    if not isinstance(clean, int | np.integer) or clean < 0:
        raise InputError(
            f"clean is True, False or an area in whole pixels from 0 on, not {clean!r}"
        )
    return int(clean)


@struct.dataclass
class MaskPrediction:
    """Masks for every prompt of one image.

    Full-size masks are made when asked for: `scores` and `logits` are small, `masks` is not.

    Attributes:
      scores: float32 [P, M], the predicted IoU of each mask.
      logits: float32 [P, M, h, w], low-resolution logits of the model's input; one of them can be
        given back as `masks=`.
      size_hw: the image's own height and width.
      frame: the model's input.
      threshold: a pixel belongs to a mask where its logit is above this.
      unlimited: what masks are made of, where `logits` were cut (SAM 2: at 32 and -32).
      clean_area: holes and islands of fewer pixels are filled and removed in `masks` and all that
        is made of them; scores and logits stay the model's. 0 for masks as they are.
      model: the model's name, for people.
    """

    scores: np.ndarray
    logits: np.ndarray
    size_hw: tuple[int, int] = struct.field(pytree_node=False)
    frame: InputFrame = struct.field(pytree_node=False)
    threshold: float = struct.field(pytree_node=False)
    unlimited: np.ndarray | None = None
    clean_area: int = struct.field(pytree_node=False, default=0)
    model: str = struct.field(pytree_node=False, default="")

    __repr__ = one_line

    @cached_property
    def masks(self) -> Bool[np.ndarray, "P M H W"]:
        """All masks at the image's own size, bool [P, M, H, W].

        Raises:
          InputError: together they would take more than 4 GiB; take them one at a time from `mask`.
        """
        prompts, masks = self.scores.shape
        height, width = self.size_hw
        if prompts * masks * height * width > MAX_MASK_BYTES:
            raise InputError(
                f"{prompts * masks} masks of {width}x{height} pixels take more than "
                f"{MAX_MASK_BYTES >> 30} GiB; take them one at a time with .mask(prompt, index)"
            )
        out = np.empty((prompts, masks, height, width), bool)
        for prompt in range(prompts):
            for index in range(masks):
                self._fill_mask(out[prompt, index], prompt, index)
        return out

    def mask(self, prompt: int, index: int) -> Bool[np.ndarray, "H W"]:
        """One mask at the image's own size, bool [H, W]."""
        out = np.empty(self.size_hw, bool)
        self._fill_mask(out, prompt, index)
        return out

    def best(self) -> Iterator[tuple[int, int]]:
        """For each prompt, (prompt, index of its mask with the highest predicted IoU)."""
        for prompt, index in enumerate(np.argmax(np.asarray(self.scores), axis=1)):
            yield prompt, int(index)

    def only_best(self) -> "MaskPrediction":
        """One mask a prompt, that with the highest predicted IoU: the same with M = 1."""
        prompts, chosen = np.arange(len(self.scores)), [index for _, index in self.best()]
        cut: dict[str, Any] = {
            name: None if value is None else np.asarray(value)[prompts, chosen][:, None]
            for name, value in self._arrays().items()
        }
        return replace(self, **cut)

    def label_map(self) -> Labels:
        """The best masks in one array: 0 for background, i + 1 for the mask of prompt i.

        Where masks overlap, the smaller one is on top; of equals, the first.

        Returns:
          [H, W], uint8 for up to 255 prompts, else uint16.
        """
        return label_map((self.mask(*which) for which in self.best()), self.size_hw)

    def polygons(self, *, simplify: float = 0.0, best_only: bool = True) -> list[list[list[float]]]:
        """Each mask as polygons x0, y0, x1, y1, ... in pixel corners, one a connected part.

        Args:
          simplify: how far they may be from the outline, in pixels; see `mask_to_polygons`.
          best_only: the best mask of each prompt, or every candidate in turn.
        """
        chosen = self._chosen(best_only)
        return [mask_to_polygons(self.mask(*which), simplify=simplify) for which in chosen]

    def to_coco(
        self, *, image_id: int = 1, category_id: int = 1, best_only: bool = True
    ) -> list[dict[str, Any]]:
        """Each mask as a COCO annotation, which is a COCO result too.

        Args:
          image_id: the image's number in the COCO file.
          category_id: the masks' category.
          best_only: the best mask of each prompt, or every candidate in turn.

        Returns:
          Dicts with `id` from 1 on, `image_id`, `category_id`, `iscrowd` 0, `segmentation`
          (compressed RLE), `area`, `bbox` (x, y, width, height) and `score`, the predicted IoU,
          which is `predicted_iou` too, as `write_coco` takes it.
        """
        records = []
        for number, which in enumerate(self._chosen(best_only), 1):
            mask, score = self.mask(*which), float(self.scores[which])
            records.append(
                {
                    "id": number,
                    "image_id": image_id,
                    "category_id": category_id,
                    "iscrowd": 0,
                    "segmentation": encode_rle(mask),
                    "area": int(mask_area(mask)),
                    "bbox": mask_box(mask).tolist(),
                    "score": score,
                    "predicted_iou": score,
                }
            )
        return records

    def overlay(
        self,
        image: Any,
        *,
        prompts: Sequence[Mapping[str, Any]] = (),
        objects: Sequence[str] | None = None,
        best_only: bool = True,
    ) -> Image.Image:
        """The image with masks and their scores drawn on it, an RGB picture.

        Args:
          image: path, PIL image or array, as for `Segmenter.encode`.
          prompts: what was asked, drawn too: a mapping for each prompt with `points` [N, 2],
            `labels` [N] and `box` [4], each left out or None where there is none.
          objects: a name for each prompt, to write before its score.
          best_only: the best mask of each prompt, or a strip of pictures, one a candidate.

        Raises:
          InputError: the image cannot be read, or is of another size.
        """
        return draw_prediction(
            pixels_of_size(image, self.size_hw),
            self.mask,
            np.asarray(self.scores),
            prompts=prompts,
            objects=objects,
            best_only=best_only,
        )

    def save(
        self,
        folder: str | os.PathLike,
        image: Any = None,
        *,
        name: str | None = None,
        prompts: Sequence[Mapping[str, Any]] = (),
        objects: Sequence[str] | None = None,
        label_map: bool = False,
        logits: bool = False,
        formats: Sequence[str] = (),
        simplify: float = 0.0,
        about: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Writes what `sam-jax segment` writes: a PNG a mask, an overlay, a JSON file.

        All files appear together, and replace those of an earlier call with that name.

        Args:
          folder: made where it is missing.
          image: to draw the overlay on, as for `overlay`; without it none is drawn.
          name: what the files' names begin with; the image file's own, or "image".
          prompts: as for `overlay`; they are drawn, and listed in the JSON file.
          objects: a name for each prompt, for files, entries and labels.
          label_map: also write NAME_labels.png, the `label_map`.
          logits: also write each mask's logits (.npy).
          formats: also write the best masks in these forms: "coco-rle", "polygon", "yolo",
            "labelme", "label-studio", "cvat".
          simplify: how far polygons may be from the masks' outlines, in pixels.
          about: further entries of the JSON file.

        Returns:
          What the JSON file holds.

        Raises:
          InputError: the image or a name cannot be used, the JSON file of that name is no earlier
            result, or the folder cannot be written to.
        """
        path = Path(image) if isinstance(image, str | os.PathLike) else None
        stem = name or (path.stem if path else "image")
        if objects is not None:
            check_objects(objects, len(self.scores))
        overlay = None
        if image is not None:
            alone = len(self.scores) == 1
            overlay = self.overlay(image, prompts=prompts, objects=objects, best_only=not alone)
        height, width = self.size_hw
        about = {} if about is None else about
        record = {
            "sam_jax": __version__,
            "image": {"file": path and path.name, "height": height, "width": width},
            **about,
            "clean_area": self.clean_area,
            "prompts": list(prompts),
        }
        return write_result(
            Path(folder),
            stem,
            self.size_hw,
            self._result_masks(logits),
            overlay=overlay,
            objects=objects,
            candidates=self.scores.shape[1],
            labels=label_map,
            formats=formats,
            simplify=simplify,
            record=record,
        )

    def _result_masks(self, with_logits: bool) -> Iterator[ResultMask]:
        best = dict(self.best())
        for prompt, index in np.ndindex(self.scores.shape):
            yield ResultMask(
                prompt,
                index,
                best[prompt] == index,
                float(self.scores[prompt, index]),
                self.mask(prompt, index),
                np.asarray(self.logits[prompt, index]) if with_logits else None,
            )

    def _chosen(self, best_only: bool) -> Iterator[tuple[int, int]]:
        return self.best() if best_only else iter(np.ndindex(self.scores.shape))

    def _arrays(self) -> dict[str, Any]:
        return {"scores": self.scores, "logits": self.logits, "unlimited": self.unlimited}

    def _fill_mask(self, out: Bool[np.ndarray, "H W"], prompt: int, index: int) -> None:
        source = self.logits if self.unlimited is None else self.unlimited
        logits = np.asarray(source[prompt, index])
        rows, columns = _cached_matrices(self.size_hw, self.frame, logits.shape[-1])
        across = logits @ columns.T
        step = max(1, BLOCK_PIXELS // self.size_hw[1])
        for start in range(0, self.size_hw[0], step):
            block = rows[start : start + step] @ across
            np.greater(block, self.threshold, out=out[start : start + step])
        if self.clean_area > 1:
            out[...] = clean_mask(out, self.clean_area)


def pixels_of_size(image: Any, size_hw: tuple[int, int]) -> UInt8[np.ndarray, "height width 3"]:
    """The RGB pixels of an image, as `read_image` reads it, that masks belong to.

    Raises:
      InputError: it cannot be read, or is of another size.
    """
    pixels = read_image(image)
    if pixels.shape[:2] != size_hw:
        (height, width), (own_height, own_width) = pixels.shape[:2], size_hw
        raise InputError(
            f"the image is {width}x{height} pixels, but the masks are of one of "
            f"{own_width}x{own_height}"
        )
    return pixels


def joined_predictions(predictions: Sequence[MaskPrediction]) -> MaskPrediction:
    """The prompts of several predictions on one image, with as many masks each, as one."""
    first = predictions[0]
    columns: dict[str, Any] = {
        name: None
        if value is None
        else np.concatenate([np.asarray(one._arrays()[name]) for one in predictions])
        for name, value in first._arrays().items()
    }
    return replace(first, **columns)
