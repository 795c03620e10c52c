"""`SamAutomaticMaskGenerator`: masks of everything in an image."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import numpy as np

from sam_jax.automatic.generator import generate_masks
from sam_jax.automatic.grids import Crop
from sam_jax.automatic.records import OUTPUT_MODES, warn_of_nothing_kept
from sam_jax.compat.misuse import MisuseError
from sam_jax.compat.original_options import grids_of_layers, original_options
from sam_jax.compat.predictor import SamPredictor
from sam_jax.models.features import ImageFeatures

# Whatever becomes a number: NumPy's scalars, a whole number for a part of one.
Number = Any


def _with_the_models_defaults(init: Callable[..., None]) -> Callable[..., None]:
    """The constructor, which also sees what its caller left out: there a model's own values count.

    Its signature stays the original's.
    """
    signature = inspect.signature(init)

    @wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        given = signature.bind(self, *args, **kwargs).arguments
        segmenter = getattr(given["model"], "segmenter", None)
        known = dict(getattr(segmenter, "generate_defaults", {}))
        if "point_grids" in given or "points_per_side" in given:
            for name in ("point_grids", "points_per_side"):
                known.pop(name, None)
        own = {k: v for k, v in known.items() if k in signature.parameters and k not in given}
        init(self, *args, **kwargs, **own)

    return wrapped


class SamAutomaticMaskGenerator:
    """The original's generator.

    Options that are not given have the values that the checkpoint brings along, as the one in the
    package does; else the original's defaults. The attributes say which.

    Every argument becomes an attribute; changing one changes what the next `generate` does.
    `point_grids` holds the points of every crop layer, and `points_per_side` is used up in them.
    Options may have any value that the original computes something from: `Segmenter.generate` is
    the one that catches a threshold of 95 where 0.95 was meant.

    Attributes:
      predictor: a `SamPredictor` of the model; generating leaves it alone.
    """

    @_with_the_models_defaults
    def __init__(
        self,
        model: Any,
        points_per_side: Number = 32,
        points_per_batch: Number = 64,
        pred_iou_thresh: Number = 0.88,
        stability_score_thresh: Number = 0.95,
        stability_score_offset: Number = 1.0,
        box_nms_thresh: Number = 0.7,
        crop_n_layers: Number = 0,
        crop_nms_thresh: Number = 0.7,
        crop_overlap_ratio: Number = 512 / 1500,
        crop_n_points_downscale_factor: Number = 1,
        point_grids: Any = None,
        min_mask_region_area: Number = 0,
        output_mode: str = "binary_mask",
    ) -> None:
        """Checks the options; see `sam_jax.automatic.options.GenerateOptions` for each of them.

        Raises:
          MisuseError: not exactly one of `points_per_side` and `point_grids` is given, or the
            output mode is unknown.
          InputError: an option is nothing that the original could use.
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
        if points_per_side is not None:
            self.point_grids = grids_of_layers(
                points_per_side, crop_n_layers, crop_n_points_downscale_factor
            )
        original_options(vars(self))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"sam_jax.compat's SamAutomaticMaskGenerator has no {name!r}: generate() does all in "
            "one, and min_mask_region_area cleans small regions"
        )

    def generate(self, image: np.ndarray) -> list[dict[str, Any]]:
        """Masks of everything in an image.

        Args:
          image: uint8 [height, width, 3] in RGB order.

        Returns:
          Records with the original's keys: `segmentation` (bool [height, width], or RLE as
          `output_mode` says), `area`, `bbox` (x, y, width, height), `predicted_iou`,
          `point_coords` [[x, y]], `stability_score` and `crop_box`. Where filters dropped every
          candidate, a warning says which.

        Raises:
          MisuseError: the image is no such array.
          InputError: an attribute was set to something that cannot be used.
        """
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise MisuseError(
                f"the image must be uint8 [height, width, 3], not {image.dtype} {image.shape}"
            )
        sam = self.predictor.model
        predictor = SamPredictor(sam)  # so that what is set in the caller's stays

        def features_of(crop: Crop) -> ImageFeatures:
            x0, y0, x1, y1 = crop.box
            predictor.set_image(image[y0:y1, x0:x1])
            return predictor.image_features()

        model = sam.segmenter.compiled.model
        model = model.clone(config=replace(model.config, mask_threshold=float(sam.mask_threshold)))
        masks = generate_masks(
            model, sam.segmenter.params, features_of, image.shape[:2], original_options(vars(self))
        )
        warn_of_nothing_kept(masks)
        return masks.records(self.output_mode, max_mask_bytes=None)
