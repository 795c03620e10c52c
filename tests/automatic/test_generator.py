"""`Segmenter.generate` with a small trained model: options, reports, tiles, embeddings."""

import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from small_vit import SMALL_VIT_CHECKPOINT

from sam_jax import InputError, Segmenter, load_checkpoint, read_image
from sam_jax.automatic.generator import near_crop_edge
from sam_jax.configs import TEST
from sam_jax.formats.rle import decode_rle
from sam_jax.models.sam.sam import variable_shapes

pytestmark = pytest.mark.optimised

PHOTO = "examples/photos/coffee.jpg"
LOOSE = {
    "points_per_side": 8,
    "pred_iou_thresh": 0.1,
    "stability_score_thresh": 0.3,
    "min_mask_region_area": 0,
}


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter.load(SMALL_VIT_CHECKPOINT)


@pytest.fixture(scope="module")
def image(request):
    return read_image(request.config.rootpath / PHOTO)


@pytest.fixture(scope="module")
def embedding(segmenter, image):
    return segmenter.encode(image)


def areas(records):
    return [record["area"] for record in records]


def test_records_have_the_documented_types(segmenter, embedding, image):
    records = segmenter.generate(embedding, **LOOSE)
    assert len(records) > 4
    for record in records:
        assert record["segmentation"].dtype == bool
        assert record["segmentation"].shape == image.shape[:2]
        assert record["segmentation"].sum() == record["area"]
        ys, xs = np.nonzero(record["segmentation"])
        x, y, width, height = record["bbox"]
        assert [x, y, x + width, y + height] == [xs.min(), ys.min(), xs.max(), ys.max()]
        assert record["crop_box"] == [0, 0, image.shape[1], image.shape[0]]
        [[px, py]] = record["point_coords"]
        assert 0 < px < image.shape[1] and 0 < py < image.shape[0]
        assert LOOSE["pred_iou_thresh"] < record["predicted_iou"]
        assert LOOSE["stability_score_thresh"] <= record["stability_score"] <= 1


def test_every_output_mode_is_the_same_mask(segmenter, embedding):
    masks = segmenter.generate_masks(embedding, **LOOSE)
    assert len(masks) == masks.report["kept"]
    modes = [masks.records(mode) for mode in ("binary_mask", "uncompressed_rle", "coco_rle")]
    for binary, counts, text in zip(*modes, strict=True):
        np.testing.assert_array_equal(decode_rle(counts["segmentation"]), binary["segmentation"])
        np.testing.assert_array_equal(decode_rle(text["segmentation"]), binary["segmentation"])
        assert all(type(n) is int for n in counts["segmentation"]["counts"])
    with pytest.raises(InputError, match="unknown output_mode 'png'"):
        masks.records("png")


def test_masks_that_would_not_fit_are_refused_as_arrays(segmenter, embedding):
    masks = segmenter.generate_masks(embedding, **LOOSE)
    huge = replace(masks, size_hw=(1 << 16, 1 << 16))
    with pytest.raises(InputError, match='ask for output_mode="coco_rle".* generate_masks'):
        huge.records()


def test_the_limit_on_masks_as_arrays_can_be_set_and_lifted(segmenter, embedding):
    masks = segmenter.generate_masks(embedding, **LOOSE)
    size = sum(record["segmentation"].nbytes for record in masks.records(max_mask_bytes=None))
    assert len(masks.records(max_mask_bytes=size)) == len(masks)
    with pytest.raises(InputError, match="max_mask_bytes=None"):
        masks.records(max_mask_bytes=size - 1)
    assert len(masks.records("coco_rle", max_mask_bytes=0)) == len(masks)


def test_an_image_and_its_embedding_give_the_same(segmenter, embedding, image):
    a = segmenter.generate_masks(embedding, **LOOSE).records("coco_rle")
    b = segmenter.generate_masks(Image.fromarray(image), **LOOSE).records("coco_rle")
    assert a == b


def test_embeddings_are_refused_where_crops_or_another_model_want_the_image(segmenter, embedding):
    for option in ({"crop_n_layers": 1}, {"tile_size": 256}, {"preset": "paper"}):
        with pytest.raises(InputError, match="give the image, not its embedding"):
            segmenter.generate(embedding, **option)
    other = replace(embedding, fingerprint="0" * 64)
    with pytest.raises(InputError, match="made by another model"):
        segmenter.generate(other)
    with pytest.raises(InputError, match="unknown option 'points'"):
        segmenter.generate(embedding, points=3)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"crop_n_layers": 1, "min_mask_region_area": 50},
        {"tile_size": 256, "min_mask_area": 500, "max_mask_area_ratio": 0.5, "max_masks": 7},
    ],
)
def test_the_report_accounts_for_every_candidate(segmenter, image, options):
    report = segmenter.generate_masks(image, **{**LOOSE, **options}).report
    dropped = sum(count for name, count in report.items() if name not in ("candidates", "kept"))
    assert report["candidates"] - dropped == report["kept"] > 0
    assert list(report)[0] == "candidates" and list(report)[-1] == "kept"
    assert all(type(count) is int for count in report.values())


def test_how_many_points_are_asked_at_once_changes_nothing(segmenter, embedding):
    expected = segmenter.generate(embedding, **LOOSE, output_mode="coco_rle")
    for batch in (1, 24, 1000):
        records = segmenter.generate(
            embedding, **LOOSE, points_per_batch=batch, output_mode="coco_rle"
        )
        assert areas(records) == pytest.approx(areas(expected), abs=2)
        for ours, theirs in zip(records, expected, strict=True):
            # XLA may sum in another order for another batch: float32 rounding.
            assert ours["predicted_iou"] == pytest.approx(theirs["predicted_iou"], abs=2e-6)


def test_limits_on_number_and_area(segmenter, embedding, image):
    everything = segmenter.generate(embedding, **LOOSE)
    best = sorted((r["predicted_iou"] for r in everything), reverse=True)[:3]
    records = segmenter.generate(embedding, **LOOSE, max_masks=3)
    assert [record["predicted_iou"] for record in records] == best
    assert segmenter.generate(embedding, **LOOSE, max_masks=0) == []
    limit = sorted(areas(everything))[len(everything) // 2]
    large = segmenter.generate(embedding, **LOOSE, min_mask_area=limit)
    assert areas(large) == [area for area in areas(everything) if area >= limit]
    ratio = 0.03
    small = segmenter.generate(embedding, **LOOSE, max_mask_area_ratio=ratio)
    assert max(areas(small)) < ratio * image.shape[0] * image.shape[1] < max(areas(everything))


def test_suppression_by_masks_keeps_masks_whose_boxes_agree(segmenter, embedding):
    by_box = segmenter.generate_masks(embedding, **LOOSE, box_nms_thresh=0.5)
    by_mask = segmenter.generate_masks(embedding, **LOOSE, box_nms_thresh=0.5, nms="mask")
    assert len(by_mask) > len(by_box)
    masks = [record["segmentation"] for record in by_mask.records()]
    for i, a in enumerate(masks):
        for b in masks[:i]:
            assert (a & b).sum() <= 0.5 * (a | b).sum()


def test_tiles_find_what_the_whole_image_hides_and_fit_together(segmenter, image):
    masks = segmenter.generate_masks(image, **LOOSE, tile_size=256, tile_overlap=0.3)
    records = masks.records()
    assert masks.report["joined over seams"] > 0
    assert masks.report["near a crop's edge"] == 0
    joined = [record for record in records if len(record["point_coords"]) > 1]
    assert joined
    for record in joined:
        x, y, width, height = record["crop_box"]
        assert max(width, height) > 256
        inside = np.zeros(image.shape[:2], bool)
        inside[y : y + height, x : x + width] = True
        assert not (record["segmentation"] & ~inside).any()


def test_a_mask_at_a_crops_edge_is_dropped_unless_the_image_ends_there():
    boxes = np.array([[0, 30, 60, 60], [30, 30, 79, 60], [30, 30, 60, 99], [30, 30, 60, 60]])
    crop, size_hw = (0, 0, 100, 100), (100, 200)
    # Crop and image share three sides; only the right one is a cut.
    assert near_crop_edge(boxes, crop, size_hw).tolist() == [False, False, False, False]
    boxes[1, 2] = 80
    assert near_crop_edge(boxes, crop, size_hw).tolist() == [False, True, False, False]


def test_a_checkpoint_brings_values_along_and_a_call_replaces_them(segmenter, embedding):
    known = load_checkpoint(SMALL_VIT_CHECKPOINT).generate
    assert known["pred_iou_thresh"] < 0.88
    # With the released defaults, which are for another model, nothing would be left.
    records = segmenter.generate(embedding, points_per_side=8, output_mode="coco_rle")
    assert records
    assert records == segmenter.generate(
        embedding, points_per_side=8, output_mode="coco_rle", **known
    )
    plain = Segmenter(segmenter.config, segmenter.params, fingerprint=segmenter.fingerprint)
    assert plain.generate(embedding, points_per_side=8) == []
    assert segmenter.generate(embedding, points_per_side=8, pred_iou_thresh=0.88) == []


def test_where_filters_drop_all_candidates_a_warning_says_which(segmenter, embedding):
    strict = {**LOOSE, "pred_iou_thresh": 0.0, "stability_score_thresh": 1.0}
    dropped = segmenter.generate_masks(embedding, **strict).report["below stability_score_thresh"]
    message = f"no mask is left of 192 candidates: .*{dropped} below stability_score_thresh"
    with pytest.warns(UserWarning, match=message):
        assert segmenter.generate(embedding, **strict) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert segmenter.generate(embedding, **LOOSE)
        assert segmenter.generate(embedding, **LOOSE, max_masks=0) == []


class CompilationCount:
    """Counts XLA compilations through JAX's own events."""

    def __init__(self):
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event, *_, **__):
        self.count += event == "/jax/core/compile/backend_compile_duration"


def test_images_of_like_sizes_compile_nothing_more():
    # A configuration of its own, so that no other test has compiled for it.
    config = replace(TEST, iou_head_hidden_dim=24)
    shapes = variable_shapes(config)
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01, leaf.dtype), shapes)
    segmenter = Segmenter(config, params)
    options = {"points_per_side": 5, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    rng = np.random.default_rng(0)
    compilations = CompilationCount()

    def generate(height, width, **more):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        return segmenter.generate_masks(image, **{**options, **more})

    generate(90, 120)
    warm = compilations.count
    assert warm > 0, "the counter sees compilations"
    for height, width in ((91, 119), (95, 113), (88, 126)):
        assert generate(height, width).report["candidates"] == 75
    # More points, the last batch of which is not full, in batches of the first shape.
    generate(90, 120, points_per_side=6, points_per_batch=32)
    assert compilations.count == warm
