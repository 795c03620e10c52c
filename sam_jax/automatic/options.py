"""The knobs of automatic mask generation, what turning each does, and named settings of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from sam_jax.errors import InputError


@dataclass(frozen=True, eq=False)
class GenerateOptions:
    """How masks are generated and which are kept (SAM appendix B; names and defaults as released).

    First those that say which points are asked, then which masks are kept, then which of them are
    the same.

    Attributes:
      points_per_side: a grid of this many points squared on the image. Raising it finds smaller
        objects; time grows with its square, memory only by the RLE of what passes the filters.
        None with `point_grids`.
      points_per_batch: points decoded at once. Raising it is faster on an accelerator and takes
        more memory there; on a CPU it changes little. Never changes which masks are found.
      crop_n_layers: layer i cuts the image into 2^i by 2^i overlapping crops and encodes each.
        Raising it finds small objects in large images, and costs 4^i encodings a layer.
      crop_n_points_downscale_factor: layer i has points_per_side / factor^i points a side in each
        crop. Raising it makes layers cheaper and misses more in them.
      crop_overlap_ratio: overlap of the crops of layer 1, as a part of the image's short side.
        Raising it finds more objects at the crops' edges, at larger crops.
      point_grids: instead of `points_per_side`, one array [n, 2] for each layer, (x, y) from 0 to 1
        of the crop.
      tile_size: cuts an image into overlapping square tiles of this many pixels, generates on each
        at full resolution and joins what their seams cut. For images too large for one pass; not
        with crop layers. Raising it means fewer tiles and coarser masks.
      tile_overlap: overlap of neighboring tiles as a part of `tile_size`. Raising it joins masks
        over seams more surely and costs more tiles.
      pred_iou_thresh: lowest quality that the model predicts for a mask. Raising it keeps fewer,
        better masks.
      stability_score_thresh: lowest overlap between the mask cut at a higher and at a lower logit.
        Raising it drops masks with vague outlines.
      stability_score_offset: how far those two logits are from the mask's own. Raising it makes
        every score lower.
      min_mask_region_area: holes and islands smaller than this many pixels are filled and removed
        after everything else; masks that became alike are dropped. Raising it smooths more away.
      min_mask_area: masks of fewer pixels are dropped, after that clean-up.
      max_mask_area_ratio: masks that cover this part of the image or more are dropped. Lowering it
        drops backgrounds. None drops none.
      nms: "box" calls two masks the same by their boxes' overlap, as the original; "mask" by the
        masks' own, which keeps thin or nested objects whose boxes agree, and takes longer.
      box_nms_thresh: overlap from which, within a crop, only the better one is kept. Raising it
        keeps more near-duplicates.
      crop_nms_thresh: the same between crops, or tiles; the smaller crop's mask is kept.
      use_m2m: decodes each candidate once more, from its point and its own mask, before anything is
        filtered (SAM 2's mask-to-mask refinement). Smoother masks, for about three times the
        decoder's time. Not with a mesh.
      max_masks: at most so many, those of the highest predicted quality. None sets no limit.

    Raises:
      InputError: a value is out of its range.
    """

    points_per_side: int | None = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    point_grids: Sequence[np.ndarray] | None = None
    min_mask_region_area: int = 0
    nms: str = "box"
    max_masks: int | None = None
    min_mask_area: int = 0
    max_mask_area_ratio: float | None = None
    tile_size: int | None = None
    tile_overlap: float = 0.25
    use_m2m: bool = False

    def __post_init__(self) -> None:
        _check_numbers(self)
        if (self.points_per_side is None) == (self.point_grids is None):
            raise InputError("give exactly one of points_per_side and point_grids")
        if not isinstance(self.use_m2m, bool):
            raise InputError(f"use_m2m is True or False, not {self.use_m2m!r}")
        if self.nms not in ("box", "mask"):
            raise InputError(f'nms is "box" or "mask", not {self.nms!r}')
        if self.tile_size is not None and self.crop_n_layers:
            raise InputError("tile_size and crop_n_layers cannot be combined; set one of them")
        layers = self.crop_n_layers + 1
        if self.points_per_side is not None:
            last = self.points_per_side // self.crop_n_points_downscale_factor**self.crop_n_layers
            if last < 1:
                raise InputError(
                    f"crop layer {self.crop_n_layers} would have no point: raise points_per_side "
                    f"({self.points_per_side}) or lower crop_n_points_downscale_factor "
                    f"({self.crop_n_points_downscale_factor})"
                )
        if self.point_grids is not None:
            object.__setattr__(self, "point_grids", _checked_grids(self.point_grids, layers))


# Name, lowest and highest value, whether whole numbers only, whether None is allowed.
_RANGES: tuple[tuple[str, float, float, bool, bool], ...] = (
    ("points_per_side", 1, 1024, True, True),
    ("points_per_batch", 1, 65536, True, False),
    ("pred_iou_thresh", -1e6, 1e6, False, False),
    ("stability_score_thresh", 0, 1, False, False),
    ("stability_score_offset", 0, 1e6, False, False),
    ("box_nms_thresh", 0, 1, False, False),
    ("crop_n_layers", 0, 6, True, False),
    ("crop_nms_thresh", 0, 1, False, False),
    ("crop_overlap_ratio", 0, 1, False, False),
    ("crop_n_points_downscale_factor", 1, 1024, True, False),
    ("min_mask_region_area", 0, 1 << 40, True, False),
    ("max_masks", 0, 1 << 40, True, True),
    ("min_mask_area", 0, 1 << 40, True, False),
    ("max_mask_area_ratio", 0, 1, False, True),
    ("tile_size", 64, 1 << 20, True, True),
    ("tile_overlap", 0, 0.5, False, False),
)


def _check_numbers(options: GenerateOptions) -> None:
    for name, low, high, whole, optional in _RANGES:
        value = getattr(options, name)
        if value is None and optional:
            continue
        kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
        kind = "a whole number" if whole else "a number"
        if isinstance(value, bool) or not isinstance(value, kinds) or math.isnan(value):
            raise InputError(f"{name} is {kind}, not {value!r}")
        if not low <= value <= high:
            raise InputError(f"{name} is {kind} from {low:g} to {high:g}, not {value!r}")


def _checked_grids(grids: Any, layers: int) -> tuple[np.ndarray, ...]:
    try:
        arrays = tuple(np.array(grid, np.float64) for grid in grids)
    except (TypeError, ValueError):
        raise InputError("point_grids is a list of arrays [n, 2], one a crop layer") from None
    if len(arrays) < layers:
        raise InputError(f"point_grids has {len(arrays)} grids for {layers} layers; give one each")
    for array in arrays:
        if array.ndim != 2 or array.shape[1] != 2:
            raise InputError(f"a grid of point_grids has shape {array.shape}, not [n, 2]")
        if not len(array):
            raise InputError("a grid of point_grids has no point; give it one or more")
        if not (array >= 0).all() or not (array <= 1).all():
            raise InputError("points of point_grids lie from 0 to 1, as parts of the crop's sides")
    return arrays


# The paper's points are its appendix B's; it also drops masks whose every part is small, which
# `min_mask_area` after the clean-up amounts to.
PRESETS = {
    "default": GenerateOptions(),
    "fast": GenerateOptions(points_per_side=16),
    "dense": GenerateOptions(points_per_side=64, crop_n_layers=1, crop_n_points_downscale_factor=2),
    "paper": GenerateOptions(
        crop_n_layers=2,
        crop_n_points_downscale_factor=2,
        max_mask_area_ratio=0.95,
        min_mask_region_area=100,
        min_mask_area=100,
    ),
}


def generate_options(preset: str = "default", **changes: Any) -> GenerateOptions:
    """A preset with some of its values replaced.

    Args:
      preset: "default" (the original's defaults), "fast" (a quarter of its points), "dense" (four
        times as many, and a layer of crops) or "paper" (the settings that made SA-1B).
      **changes: fields of `GenerateOptions`. `point_grids` takes the place of `points_per_side`.

    Raises:
      InputError: the preset or a name is unknown, or a value is out of its range.
    """
    if not isinstance(preset, str) or preset not in PRESETS:
        raise InputError(f"unknown preset {preset!r}; there are {', '.join(PRESETS)}")
    names = {field.name for field in fields(GenerateOptions)}
    unknown = sorted(set(changes) - names)
    if unknown:
        raise InputError(f"unknown option {unknown[0]!r}; there are {', '.join(sorted(names))}")
    if changes.get("point_grids") is not None:
        changes.setdefault("points_per_side", None)
    return replace(PRESETS[preset], **changes)
