"""`SamAutomaticMaskGenerator`: masks of everything in an image."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sam_jax.automatic.grids import layer_points
from sam_jax.automatic.options import GenerateOptions
from sam_jax.automatic.records import OUTPUT_MODES
from sam_jax.compat.misuse import MisuseError
from sam_jax.compat.predictor import SamPredictor
from sam_jax.errors import InputError


class SamAutomaticMaskGenerator:
    """The original's generator over `Segmenter.generate_masks`.

    Every argument becomes an attribute; changing one changes what the next `generate` does.
    `point_grids` holds the points of every crop layer, and `points_per_side` is used up in them.

    Attributes:
      predictor: a `SamPredictor` of the model; generating leaves it alone.
    """

    def __init__(
        self,
        model: Any,
        points_per_side: int | None = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.88,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        point_grids: Sequence[np.ndarray] | None = None,
        min_mask_region_area: int = 0,
        output_mode: str = "binary_mask",
    ) -> None:
        """Checks the options; see `sam_jax.automatic.options.GenerateOptions` for each of them.

        Raises:
          MisuseError: not exactly one of `points_per_side` and `point_grids` is given, or the
            output mode is unknown.
          InputError: an option is out of its range.
        """
        if (points_per_side is None) == (point_grids is None):
            raise MisuseError("give exactly one of points_per_side and point_grids")
        if output_mode not in OUTPUT_MODES:
            modes = ", ".join(OUTPUT_MODES)
            raise MisuseError(f"unknown output_mode {output_mode!r}; it is one of {modes}")
        self.predictor = SamPredictor(model)
        self.points_per_batch = points_per_batch
        self.pred_iou_thresh = pred_iou_thresh
        self.stability_score_thresh = stability_score_thresh
        self.stability_score_offset = stability_score_offset
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers = crop_n_layers
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.crop_n_points_downscale_factor = crop_n_points_downscale_factor
        self.min_mask_region_area = min_mask_region_area
        self.output_mode = output_mode
        self.point_grids = point_grids
        options = GenerateOptions(**{**self._options(), "points_per_side": points_per_side})
        self.point_grids = [layer_points(options, layer) for layer in range(crop_n_layers + 1)]

    def generate(self, image: np.ndarray) -> list[dict[str, Any]]:
        """Masks of everything in an image.

        Args:
          image: uint8 [height, width, 3] in RGB order.

        Returns:
          Records with the original's keys: `segmentation` (bool [height, width], or RLE as
          `output_mode` says), `area`, `bbox` (x, y, width, height), `predicted_iou`,
          `point_coords` [[x, y]], `stability_score` and `crop_box`.

        Raises:
          MisuseError: the image is no such array.
          InputError: an attribute was set out of its range, or masks as arrays would take more than
            4 GiB (set `output_mode` to "coco_rle").
        """
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise MisuseError(
                f"the image must be uint8 [height, width, 3], not {image.dtype} {image.shape}"
            )
        model = self.predictor.model
        if model.mask_threshold != model.segmenter.config.mask_threshold:
            raise InputError(
                f"mask_threshold was set to {model.mask_threshold}, which generating does not "
                "follow; make the Segmenter with a config of that mask_threshold"
            )
        masks = model.segmenter.generate_masks(image, **self._options())
        return masks.records(self.output_mode)

    def _options(self) -> dict[str, Any]:
        return {
            "points_per_side": None,
            "points_per_batch": self.points_per_batch,
            "pred_iou_thresh": self.pred_iou_thresh,
            "stability_score_thresh": self.stability_score_thresh,
            "stability_score_offset": self.stability_score_offset,
            "box_nms_thresh": self.box_nms_thresh,
            "crop_n_layers": self.crop_n_layers,
            "crop_nms_thresh": self.crop_nms_thresh,
            "crop_overlap_ratio": self.crop_overlap_ratio,
            "crop_n_points_downscale_factor": self.crop_n_points_downscale_factor,
            "point_grids": self.point_grids,
            "min_mask_region_area": self.min_mask_region_area,
        }
