"""Images through SAM 2's own predictor and mask generator, and through `Segmenter`."""

import sys
from types import ModuleType

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sam2")

from torch.nn import functional  # noqa: E402

from sam_jax.configs import TEST  # noqa: E402
from sam_jax.models.families import family_of  # noqa: E402
from sam_jax.models.sam2.config import SAM2_TEST  # noqa: E402
from sam_jax.segmenter import Segmenter  # noqa: E402
from tests.parity import original_sam2, original_video  # noqa: E402


@pytest.fixture(scope="module")
def torchvision():
    """What the original's transforms import, where torchvision is not installed."""
    if "torchvision" in sys.modules:
        yield
        return

    class Resize(torch.nn.Module):
        def __init__(self, size):
            super().__init__()
            self.height, self.width = size

        def forward(self, image):
            size = [self.height, self.width]
            return functional.interpolate(
                image[None], size, mode="bilinear", align_corners=False, antialias=True
            )[0]

    class Normalize(torch.nn.Module):
        def __init__(self, mean: list[float], std: list[float]):
            super().__init__()
            self.mean = torch.tensor(mean)[:, None, None]
            self.std = torch.tensor(std)[:, None, None]

        def forward(self, image):
            return (image - self.mean) / self.std

    class ToTensor:
        def __call__(self, image):
            return torch.from_numpy(np.array(image)).permute(2, 0, 1).to(torch.float32) / 255

    def batched_nms(boxes, scores, categories, iou_threshold):
        kept: list[int] = []
        for i in torch.argsort(scores, descending=True, stable=True).tolist():
            if all(_overlap(boxes[i], boxes[k]) <= iou_threshold for k in kept):
                kept.append(i)
        return torch.tensor(kept, dtype=torch.int64)

    def box_area(boxes):
        return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])

    names = ("torchvision", "torchvision.ops", "torchvision.ops.boxes", "torchvision.transforms")
    modules = {name: ModuleType(name) for name in names}
    transforms, boxes = modules["torchvision.transforms"], modules["torchvision.ops.boxes"]
    transforms.Resize, transforms.Normalize = Resize, Normalize
    transforms.ToTensor = ToTensor
    boxes.batched_nms, boxes.box_area = batched_nms, box_area
    sys.modules.update(modules)
    yield
    for name in names:
        del sys.modules[name]


def _overlap(a, b):
    sides = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0)
    shared = sides.prod()
    either = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared
    return float(shared / either) if either else 0.0


@pytest.fixture(scope="module")
def both(torchvision):
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    with jax.default_matmul_precision("highest"):
        model = original_sam2.build(SAM2_TEST, seed=2, **original_sam2.POSTPROCESSING)
        segmenter = Segmenter(SAM2_TEST, original_sam2.variables(model, SAM2_TEST))
        predictor = SAM2ImagePredictor(model)
        # It is written for one size of input.
        grid = SAM2_TEST.grid_size
        predictor._bb_feat_sizes = [(4 * grid,) * 2, (2 * grid,) * 2, (grid,) * 2]
        yield predictor, segmenter


def prompts(size_hw):
    height, width = size_hw
    point = np.array([[0.3 * width, 0.4 * height]], np.float32)
    two = np.array([[0.3 * width, 0.4 * height], [0.8 * width, 0.2 * height]], np.float32)
    box = np.array([0.2 * width, 0.1 * height, 0.7 * width, 0.8 * height], np.float32)
    return {
        "point": {"points": point, "labels": np.array([1])},
        "points": {"points": two, "labels": np.array([1, 0])},
        "box": {"boxes": box},
        "box and point": {"points": point, "labels": np.array([0]), "boxes": box},
    }


@pytest.mark.parametrize("size_hw", [(90, 131), (201, 77), (128, 128)])
@pytest.mark.parametrize("multimask", [True, False])
def test_predictions_are_the_originals(both, size_hw, multimask):
    predictor, segmenter = both
    image = original_video.clip(1, *size_hw, seed=4)[0]
    predictor.set_image(image)
    embedding = segmenter.encode(image)
    for given in prompts(size_hw).values():
        theirs = {"point_coords": given.get("points"), "point_labels": given.get("labels")}
        theirs["box"] = given.get("boxes")
        again = None
        for _ in range(2):
            logits, iou, low = predictor.predict(
                **theirs, mask_input=again, multimask_output=multimask, return_logits=True
            )
            ours = segmenter.predict(
                embedding, **given, masks=None if again is None else again[0], multimask=multimask
            )
            # DESIGN's bounds: over the reference's deviation, absolute, and of all pixels.
            assert original_sam2.relative_error(ours.logits[0], low) < 2e-4
            np.testing.assert_allclose(ours.scores[0], iou, atol=1e-4)
            assert (ours.masks[0] == (logits > 0)).mean() >= 0.9999
            again = low[iou.argmax()][None]


def test_a_mask_alone_is_a_prompt(both):
    predictor, segmenter = both
    image = original_video.clip(1, 64, 100, seed=5)[0]
    predictor.set_image(image)
    low = np.random.default_rng(0).normal(0, 20, (1, 32, 32)).astype(np.float32)
    _, iou, theirs = predictor.predict(mask_input=low, multimask_output=True)
    ours = segmenter.predict(segmenter.encode(image), masks=low)
    assert original_sam2.relative_error(ours.logits[0], theirs) < 2e-4
    np.testing.assert_allclose(ours.scores[0], iou, atol=1e-4)


def test_what_is_given_back_is_limited_and_masks_are_not(both):
    predictor, segmenter = both
    decoder = predictor.model.sam_mask_decoder
    image = original_video.clip(1, 80, 80, seed=6)[0]
    last = [mlp.layers[-1] for mlp in decoder.output_hypernetworks_mlps]
    for layer in last:
        layer.weight *= 60
        layer.bias *= 60
    loud = Segmenter(SAM2_TEST, original_sam2.variables(predictor.model, SAM2_TEST))
    predictor.set_image(image)
    point = {"points": np.array([[30.0, 40.0]]), "labels": np.array([1])}
    logits, _, low = predictor.predict(point["points"], point["labels"], return_logits=True)
    ours = loud.predict(loud.encode(image), **point)
    for layer in last:
        layer.weight /= 60
        layer.bias /= 60
    assert np.abs(low).max() == 32 and (np.abs(low) == 32).mean() > 0.05
    assert original_sam2.relative_error(ours.logits[0], low) < 2e-3  # 60 times the deviation, cut
    assert (ours.masks[0] == (logits > 0)).mean() >= 0.9999
    on_device = loud.predict_logits(loud.encode(image), **point)
    np.testing.assert_array_equal(on_device[0], ours.logits)


@pytest.mark.parametrize("use_m2m", [False, True])
def test_generated_masks_are_the_originals(both, use_m2m):
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

    predictor, segmenter = both
    image = original_video.clip(1, 75, 110, seed=7)[0]
    # Random weights are sure of nothing: thresholds at which about half of the masks pass.
    options = {
        "points_per_side": 6,
        "points_per_batch": 12,
        "pred_iou_thresh": 0.3,
        "stability_score_thresh": 0.3,
        "stability_score_offset": 0.1,
        # Their boxes are the same, too.
        "box_nms_thresh": 1.0,
        "use_m2m": use_m2m,
    }
    generator = SAM2AutomaticMaskGenerator(predictor.model, **options)
    generator.predictor._bb_feat_sizes = predictor._bb_feat_sizes
    theirs = generator.generate(image)
    ours = segmenter.generate(image, **options)
    assert 3 < len(theirs) == len(ours)
    for one, other in zip(ours, theirs, strict=True):
        a, b = one["segmentation"], other["segmentation"]
        assert (a & b).sum() / (a | b).sum() > 0.99
        np.testing.assert_allclose(one["predicted_iou"], other["predicted_iou"], atol=1e-4)
        np.testing.assert_allclose(one["stability_score"], other["stability_score"], atol=1e-2)
        np.testing.assert_allclose(one["point_coords"], other["point_coords"], atol=1e-3)


def test_the_defaults_are_sam_2s(both):
    _, segmenter = both
    assert segmenter._generate_defaults == {"pred_iou_thresh": 0.8}
    assert family_of(segmenter.config).generate_defaults == {"pred_iou_thresh": 0.8}
    assert family_of(TEST).generate_defaults == {}


def test_embeddings_are_saved_with_their_finer_features(both, tmp_path):
    _, segmenter = both
    image = original_video.clip(1, 60, 90)[0]
    embedding = segmenter.encode(image)
    embedding.save(tmp_path / "one.npz")
    loaded = type(embedding).load(tmp_path / "one.npz")
    for one, other in zip(jax.tree.leaves(loaded), jax.tree.leaves(embedding), strict=True):
        np.testing.assert_array_equal(one, other)
    first = segmenter.predict(embedding, points=[[20, 30]])
    second = segmenter.predict(loaded, points=[[20, 30]])
    np.testing.assert_array_equal(first.logits, second.logits)


def test_batched_equals_looped(both):
    _, segmenter = both
    images = original_video.clip(3, 50, 70)
    together = segmenter.encode(images)
    points = [[[[10, 20]]], [[[30, 5]], [[60, 40]]], [[[1, 1]]]]
    found = segmenter.predict(together, points=points)
    for image, given, many in zip(images, points, found, strict=True):
        alone = segmenter.predict(segmenter.encode(image), points=given)
        np.testing.assert_allclose(many.logits, alone.logits, atol=2e-4)
