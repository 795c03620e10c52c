"""What the original's example notebooks do, written once and run with either package.

Every function takes the package (`sam`), the weights and the photos, and nothing else tells it
which package it is. PyTorch tensors go in where the notebooks use them.
"""

import numpy as np
import pytest
import torch
from same_results import assert_same, assert_same_records

# --- predictor_example


def ready_predictor(sam, checkpoint, photo):
    model = sam.sam_model_registry["small"](checkpoint=checkpoint)
    model.to(device="cpu")
    predictor = sam.SamPredictor(model)
    predictor.set_image(photo)
    return predictor


def one_click_then_several(sam, checkpoint, photo, _):
    predictor = ready_predictor(sam, checkpoint, photo)
    ambiguous = predictor.predict(
        point_coords=np.array([[225, 160]]),
        point_labels=np.array([1]),
        multimask_output=True,
    )
    masks, scores, logits = ambiguous
    for i, (mask, score) in enumerate(zip(masks, scores)):  # noqa: B905
        assert mask.reshape(*mask.shape[-2:], 1).shape == (300, 451, 1), i
        assert f"{score:.3f}"
    best = logits[np.argmax(scores), :, :]
    narrowed = predictor.predict(
        point_coords=np.array([[225, 160], [300, 90]]),
        point_labels=np.array([1, 1]),
        mask_input=best[None, :, :],
        multimask_output=False,
    )
    with_background = predictor.predict(
        point_coords=np.array([[225, 160], [300, 90]]),
        point_labels=np.array([1, 0]),
        mask_input=best[None, :, :],
        multimask_output=False,
    )
    return ambiguous, narrowed, with_background


def one_box_with_and_without_a_click(sam, checkpoint, photo, _):
    predictor = ready_predictor(sam, checkpoint, photo)
    box = np.array([120, 40, 340, 290])
    alone = predictor.predict(
        point_coords=None, point_labels=None, box=box[None, :], multimask_output=False
    )
    without_a_part = predictor.predict(
        point_coords=np.array([[200, 250]]),
        point_labels=np.array([0]),
        box=box,
        multimask_output=False,
    )
    return alone, without_a_part


def several_boxes_at_once(sam, checkpoint, photo, _):
    predictor = ready_predictor(sam, checkpoint, photo)
    boxes = torch.tensor(
        [[10, 20, 250, 280], [130, 40, 330, 200], [200, 10, 450, 150], [5, 200, 90, 295]],
        device=predictor.device,
    )
    transformed = predictor.transform.apply_boxes_torch(boxes, photo.shape[:2])
    masks, scores, logits = predictor.predict_torch(
        point_coords=None, point_labels=None, boxes=transformed, multimask_output=False
    )
    assert masks.shape == (4, 1, 300, 451)
    return transformed, masks, scores, logits, [mask.cpu().numpy() for mask in masks]


def several_images_end_to_end(sam, checkpoint, photo, other_photo):
    model = sam.sam_model_registry["small"](checkpoint=checkpoint)
    model.to(device="cpu")
    resize = sam.ResizeLongestSide(model.image_encoder.img_size)

    def prepared(image):
        image = torch.as_tensor(resize.apply_image(image), device=model.device)
        return image.permute(2, 0, 1).contiguous()

    boxes = torch.tensor([[10, 20, 250, 280], [130, 40, 330, 200]], device=model.device)
    other_boxes = torch.tensor([[250, 100, 590, 390], [20, 15, 300, 300]], device=model.device)
    batched_input = [
        {
            "image": prepared(photo),
            "boxes": resize.apply_boxes_torch(boxes, photo.shape[:2]),
            "original_size": photo.shape[:2],
        },
        {
            "image": prepared(other_photo),
            "boxes": resize.apply_boxes_torch(other_boxes, other_photo.shape[:2]),
            "original_size": other_photo.shape[:2],
        },
    ]
    return model(batched_input, multimask_output=False)


@pytest.mark.parametrize(
    "example",
    [
        one_click_then_several,
        one_box_with_and_without_a_click,
        several_boxes_at_once,
        several_images_end_to_end,
    ],
)
def test_the_predictors_notebook(theirs, ours, pth, chelsea, coffee, example):
    assert_same(example(ours, pth, chelsea, coffee), example(theirs, pth, chelsea, coffee))


# --- automatic_mask_generator_example


def masks_by_default(sam, checkpoint, photo):
    model = sam.sam_model_registry["small"](checkpoint=checkpoint)
    model.to(device="cpu")
    generator = sam.SamAutomaticMaskGenerator(model)
    return generator.generate(photo)


def more_masks_from_crops(sam, checkpoint, photo):
    model = sam.sam_model_registry["small"](checkpoint=checkpoint)
    generator = sam.SamAutomaticMaskGenerator(
        model=model,
        points_per_side=16,  # 32 in the notebook, which take four times as long
        pred_iou_thresh=0.86,
        stability_score_thresh=0.92,
        crop_n_layers=1,
        crop_n_points_downscale_factor=2,
        min_mask_region_area=100,  # the original needs OpenCV for this
    )
    return generator.generate(photo)


@pytest.mark.slow
@pytest.mark.parametrize("example, at_least", [(masks_by_default, 10), (more_masks_from_crops, 10)])
def test_the_generators_notebook(theirs, ours, sparse_pth, small_chelsea, example, at_least):
    expected = example(theirs, sparse_pth, small_chelsea)
    assert len(expected) >= at_least
    records = example(ours, sparse_pth, small_chelsea)
    assert_same_records(records, expected)
    # As the notebook lays them over the picture.
    picture = np.ones((*records[0]["segmentation"].shape, 4))
    for record in sorted(records, key=lambda record: record["area"], reverse=True):
        picture[record["segmentation"]] = 0.35
    assert (picture == 0.35).any()
