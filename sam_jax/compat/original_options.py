"""The original generator's options: any values that it computes something from."""

import math
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64

from sam_jax.automatic.grids import point_grid
from sam_jax.automatic.options import GenerateOptions
from sam_jax.errors import InputError

_THRESHOLDS = (
    "pred_iou_thresh",
    "stability_score_thresh",
    "stability_score_offset",
    "box_nms_thresh",
    "crop_nms_thresh",
)
# More pixels than any image has.
_ALL = 1 << 40


class _Unchecked(GenerateOptions):
    """Without the ranges that catch mistakes."""

    def __post_init__(self) -> None:
        pass


def original_options(given: Mapping[str, Any]) -> GenerateOptions:
    """Options with which masks are generated as the original does, from its generator's attributes.

    Thresholds may be numbers that every mask passes, or none; points may lie outside the image; an
    area need not be whole.

    Args:
      given: by name; of the points `point_grids` alone is looked at.

    Raises:
      InputError: a value with which the original fails, too, or computes nothing but NaN.
    """
    overlap, area = _number(given, "crop_overlap_ratio"), _number(given, "min_mask_region_area")
    batch, layers = _whole(given, "points_per_batch"), max(0, _whole(given, "crop_n_layers"))
    if batch < 1:
        raise InputError(f"points_per_batch must be at least 1, not {batch}")
    if layers and not -math.inf < overlap <= 1:
        raise InputError(
            f"crop_overlap_ratio {overlap} leaves no step from crop to crop; give 1 or less"
        )
    thresholds: dict[str, Any] = {name: _number(given, name) for name in _THRESHOLDS}
    return _Unchecked(
        points_per_side=None,
        points_per_batch=batch,
        crop_n_layers=layers,
        crop_overlap_ratio=overlap,
        # A region of fewer pixels than 12.5 has fewer than 13.
        min_mask_region_area=math.ceil(min(area, _ALL)) if area > 0 else 0,
        point_grids=[_grid(given["point_grids"], layer) for layer in range(layers + 1)],
        **thresholds,
    )


def grids_of_layers(points_per_side: Any, layers: Any, downscale_factor: Any) -> list[np.ndarray]:
    """Points (x, y) from 0 to 1, float64 [n, 2], for the image and each of the crop layers.

    Args:
      points_per_side: on the image; fractions are cut off, here and after each division.
      layers: how many layers of crops.
      downscale_factor: by which a layer has fewer points a side than the one before.

    Raises:
      InputError: a layer would have no point, or something is no number.
    """
    grids = []
    try:
        for layer in range(layers + 1):
            grids.append(point_grid(max(0, int(points_per_side / downscale_factor**layer))))
    except ZeroDivisionError:
        raise InputError(
            f"crop layer {len(grids)} would have no point: raise points_per_side "
            f"({points_per_side}) or change crop_n_points_downscale_factor ({downscale_factor})"
        ) from None
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            "points_per_side, crop_n_layers and crop_n_points_downscale_factor must be numbers, "
            f"the second a whole one, not {points_per_side!r}, {layers!r}, {downscale_factor!r}"
        ) from None
    return grids


def _number(given: Mapping[str, Any], name: str) -> float:
    value = given[name]
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{name} must be a number, not {value!r}") from None


def _whole(given: Mapping[str, Any], name: str) -> int:
    value = given[name]
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(f"{name} must be a whole number, not {value!r}") from None


def _grid(grids: Any, layer: int) -> Float64[np.ndarray, "n 2"]:
    try:
        grid = np.array(grids[layer], np.float64)
    except (TypeError, ValueError, LookupError):
        raise InputError(
            f"point_grids has no array of points for crop layer {layer}; give one [n, 2] a layer"
        ) from None
    if grid.ndim != 2 or grid.shape[1] != 2:
        raise InputError(f"the points of crop layer {layer} have shape {grid.shape}, not [n, 2]")
    if not len(grid):
        raise InputError(f"crop layer {layer} has no point in point_grids; give one or more")
    if not np.isfinite(grid).all():
        raise InputError(f"the points of crop layer {layer} hold NaN or infinite numbers")
    return grid
