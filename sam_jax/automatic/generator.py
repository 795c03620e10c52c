"""The way from an image to its masks: points, candidates, filters, duplicates, clean-up.

SAM appendix B and the original's `SamAutomaticMaskGenerator`, in its order, so that the same
weights and options give the same records.
"""

from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool, Float32, Float64, Int, Int64

from sam_jax.automatic.candidates import Candidates, concatenated
from sam_jax.automatic.duplicates import distinct
from sam_jax.automatic.grids import Crop, image_crops, layer_points
from sam_jax.automatic.options import GenerateOptions
from sam_jax.automatic.records import GeneratedMasks
from sam_jax.automatic.regions import without_small_regions
from sam_jax.automatic.runs import Box, runs_of_changes
from sam_jax.automatic.scoring import (
    Measured,
    crop_frame,
    decode_points,
    measure,
    refine_candidates,
)
from sam_jax.automatic.seams import joined_over_seams
from sam_jax.forks import refuse_forked
from sam_jax.models.families import Model
from sam_jax.models.features import ImageFeatures
from sam_jax.preprocess import scale_factors_xy
from sam_jax.types import Params

# A mask this close to the end of a crop, in pixels, is taken to be cut by it.
CROP_EDGE = 20

# The report's entries, in the order in which the filters come.
_FILTERS = (
    "below pred_iou_thresh",
    "below stability_score_thresh",
    "near a crop's edge",
    "above max_mask_area_ratio",
    "duplicates in a crop",
    "joined over seams",
    "cut by a tile",
    "duplicates between crops",
    "alike after clean-up",
    "below min_mask_area",
    "beyond max_masks",
)


def generate_masks(
    model: Model,
    params: Params,
    features_of: Callable[[Crop], ImageFeatures],
    size_hw: tuple[int, int],
    options: GenerateOptions,
    mesh: Mesh | None = None,
) -> GeneratedMasks:
    """All masks of an image that pass the filters.

    Memory: the candidates of two batches of points, and the runs of the masks that pass the filters
    of their batch.

    Args:
      model: the architecture.
      params: its variables; with a mesh, from `sharding.place_params`.
      features_of: encodes a part of the image; called once for each crop, in turn.
      size_hw: the image's height and width.
      options: which points, which filters.
      mesh: devices that share the points of a crop, and measure what they found.
    """
    refuse_forked()
    report = dict.fromkeys(("candidates", *_FILTERS, "kept"), 0)
    crops = image_crops(size_hw, options)
    parts = []
    for crop in crops:
        features = features_of(crop)
        generator = _CropGenerator(model, params, features, crop, size_hw, options, report, mesh)
        found = concatenated(list(generator.batches()))
        kept = distinct(found, found.predicted_iou, options.box_nms_thresh, options.nms)
        parts.append(_keep(found, kept, report, "duplicates in a crop"))
    found = concatenated(parts)
    if len(crops) > 1:
        found = _distinct_between_crops(found, crops, size_hw, options, report)
    if options.min_mask_region_area:
        found = _cleaned(found, options, report)
    if options.min_mask_area:
        areas = np.array([runs.area for runs in found.runs])
        kept = np.flatnonzero(areas >= options.min_mask_area)
        found = _keep(found, kept, report, "below min_mask_area")
    if options.max_masks is not None:
        best = np.argsort(-found.predicted_iou, kind="stable")[: options.max_masks]
        found = _keep(found, np.sort(best), report, "beyond max_masks")
    report["kept"] = len(found)
    return GeneratedMasks(size_hw, found, report, model.config.name)


class _CropGenerator:
    """The masks of one crop, batch by batch of its points."""

    def __init__(
        self,
        model: Model,
        params: Params,
        features: ImageFeatures,
        crop: Crop,
        size_hw: tuple[int, int],
        options: GenerateOptions,
        report: dict[str, int],
        mesh: Mesh | None,
    ):
        if mesh is not None:
            features = jax.device_put(features, NamedSharding(mesh, PartitionSpec()))
        self.model, self.params, self.features, self.mesh = model, params, features, mesh
        self.crop, self.size_hw = crop, size_hw
        self.options, self.report = options, report
        height, width = crop.size_hw
        self.points = layer_points(options, crop.layer) * np.array([width, height])
        # Points decoded at once: fewer than asked for only where there are fewer.
        devices = 1 if mesh is None else mesh.size
        each = -(-len(self.points) // devices)
        self.room = devices * min(options.points_per_batch, 1 << (each - 1).bit_length())
        side = features.embedding.shape[0]
        self.input = model.config.frame.with_side(side * model.config.image_encoder.patch_size)
        self.frame = crop_frame(crop.size_hw, self.input, 4 * side, mesh)

    def batches(self) -> Iterator[Candidates]:
        """What passes the filters of each batch; the device works on the next one meanwhile."""
        under_way = None
        for start in range(0, len(self.points), self.room):
            batch = self.points[start : start + self.room]
            # One decoder at a time: a CPU would run both, in twice the memory.
            jax.block_until_ready(under_way)
            decoded = self._decode(batch)
            if under_way is not None:
                yield self._passing(*under_way)
            under_way = (batch, *decoded)
        assert under_way is not None  # a grid has a point
        yield self._passing(*under_way)

    def _decode(self, points: Float64[np.ndarray, "n 2"]) -> tuple[jax.Array, jax.Array]:
        scaled = points * scale_factors_xy(self.crop.size_hw, self.input)
        # What only fills the batch asks the first point again, and is not looked at.
        filled = np.concatenate([scaled, np.tile(scaled[:1], (self.room - len(scaled), 1))])
        filled = filled.astype(np.float32)
        filled = filled if self.mesh is not None else jax.device_put(filled)
        head = (self.model, self.params, self.features, filled)
        logits, iou = decode_points(*head, self.mesh)
        return refine_candidates(*head, logits) if self.options.use_m2m else (logits, iou)

    def _passing(
        self, points: Float64[np.ndarray, "n 2"], logits: jax.Array, iou: jax.Array
    ) -> Candidates:
        masks_per_point = iou.shape[0] // self.room
        predicted = jax.device_get(iou)[: len(points) * masks_per_point]
        self.report["candidates"] += len(predicted)
        chosen = np.arange(len(predicted))
        if self.options.pred_iou_thresh > 0:
            chosen = np.flatnonzero(predicted > self.options.pred_iou_thresh)
        self.report["below pred_iou_thresh"] += len(predicted) - len(chosen)
        offset = self.options.stability_score_offset
        parts, places = [], []
        for now, measured in measure(
            logits, chosen, self.frame, self.model.config.mask_threshold, offset
        ):
            part = chosen[now]
            kept, found = self._measured_passing(
                measured, predicted[part], points[part // masks_per_point]
            )
            parts.append(found)
            places.append(now[kept])
        # Devices take turns; one after the other is the order without them.
        return concatenated(parts).take(np.argsort(np.concatenate([[], *places])))

    def _measured_passing(
        self,
        measured: Measured,
        predicted: Float32[np.ndarray, " n"],
        points: Float64[np.ndarray, "n 2"],
    ) -> tuple[Int[np.ndarray, " kept"], Candidates]:
        count = len(predicted)
        high, low, area = map(np.asarray, (measured.high, measured.low, measured.area))
        with np.errstate(invalid="ignore"):
            stability = high.astype(np.float32) / low.astype(np.float32)
        corner = np.array(self.crop.box[:2])
        boxes = np.asarray(measured.boxes).astype(np.int64) + np.tile(corner, 2)
        kept = np.arange(count)
        for name, passes in self._filters(stability, boxes, area):
            before, kept = len(kept), kept[passes[kept]]
            self.report[name] += before - len(kept)
        changes = np.asarray(measured.changes)
        return kept, Candidates(
            predicted[kept],
            stability[kept],
            boxes[kept],
            np.tile(np.array(self.crop.box, np.int64), (len(kept), 1)),
            [point[None] for point in points[kept] + corner],
            [runs_of_changes(changes[i], self.crop.box, self.size_hw) for i in kept],
        )

    def _filters(
        self,
        stability: Float32[np.ndarray, " n"],
        boxes: Int64[np.ndarray, "n 4"],
        area: Int[np.ndarray, " n"],
    ) -> Iterator[tuple[str, Bool[np.ndarray, " n"]]]:
        options = self.options
        # As in the original, a threshold of 0 lets everything pass, even a score of 0/0.
        if options.stability_score_thresh > 0:
            yield "below stability_score_thresh", stability >= options.stability_score_thresh
        if options.tile_size is None:
            yield "near a crop's edge", ~near_crop_edge(boxes, self.crop.box, self.size_hw)
        if options.max_mask_area_ratio is not None:
            pixels = self.size_hw[0] * self.size_hw[1]
            yield "above max_mask_area_ratio", area < options.max_mask_area_ratio * pixels


def near_crop_edge(
    boxes: Int64[np.ndarray, "n 4"], crop: Box, size_hw: tuple[int, int]
) -> Bool[np.ndarray, " n"]:
    """Which boxes come near an edge of the crop that is not near the image's own edge there."""
    image = np.array([0, 0, size_hw[1], size_hw[0]])
    near_crop = np.abs(boxes - np.array(crop)) <= CROP_EDGE
    near_image = np.abs(boxes - image) <= CROP_EDGE
    return np.any(near_crop & ~near_image, axis=1)


def _distinct_between_crops(
    found: Candidates,
    crops: list[Crop],
    size_hw: tuple[int, int],
    options: GenerateOptions,
    report: dict[str, int],
) -> Candidates:
    if options.tile_size is None:
        # The smaller the crop, the better it saw the mask.
        sides = found.crops[:, 2:] - found.crops[:, :2]
        scores = 1 / np.prod(sides, axis=1).astype(np.float32)
    else:
        joined, cut = joined_over_seams(found, crops, size_hw, options.crop_nms_thresh)
        report["joined over seams"] += len(found) - len(joined) - cut
        report["cut by a tile"] += cut
        found, scores = joined, joined.predicted_iou
    kept = distinct(found, scores, options.crop_nms_thresh, options.nms)
    return _keep(found, kept, report, "duplicates between crops")


def _cleaned(found: Candidates, options: GenerateOptions, report: dict[str, int]) -> Candidates:
    found, changed = without_small_regions(found, options.min_mask_region_area)
    # Of two that became alike, the one that needed no change is better.
    threshold = max(options.box_nms_thresh, options.crop_nms_thresh)
    kept = distinct(found, (~changed).astype(np.float32), threshold, options.nms)
    return _keep(found, kept, report, "alike after clean-up")


def _keep(
    found: Candidates, kept: Int[np.ndarray, " kept"], report: dict[str, int], name: str
) -> Candidates:
    report[name] += len(found) - len(kept)
    return found.take(kept)
