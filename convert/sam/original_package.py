"""The original's whole package, its predictor and its mask generator included."""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


def import_original() -> ModuleType:
    """The package segment-anything, all of it.

    It wants torchvision for resizing with Pillow and for box suppression. Where torchvision is
    missing, or was built for another PyTorch and lacks its operators, a stand-in does both.
    """
    if "segment_anything" in sys.modules:
        return sys.modules["segment_anything"]
    if has_torchvision():
        return importlib.import_module("segment_anything")
    stand_in = _torchvision_stand_in()
    sys.modules.update(stand_in)
    try:
        return importlib.import_module("segment_anything")
    finally:
        for name in stand_in:
            del sys.modules[name]


def has_torchvision() -> bool:
    """Whether torchvision is there with its operators."""
    if importlib.util.find_spec("torchvision") is None:
        return False
    try:
        from torchvision.extension import _has_ops

        return bool(_has_ops())
    except (ImportError, RuntimeError):  # RuntimeError: an operator that it describes is not there
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        return False


def suppress_boxes(boxes: Any, scores: Any, iou_threshold: Any) -> Any:
    """Indices of the boxes that stay, best first: torchvision's `nms` with PyTorch's own operators.

    Args:
      boxes: float [n, 4], x0 y0 x1 y1.
      scores: [n].
      iou_threshold: a box goes if it overlaps one that stays by more.
    """
    import torch

    order = torch.argsort(scores, descending=True, stable=True)
    corners = boxes[order]
    areas = (corners[:, 2:] - corners[:, :2]).prod(dim=1)
    stays = torch.ones(len(order), dtype=torch.bool)
    for i in range(len(order)):
        if not stays[i]:
            continue
        rest = corners[i + 1 :]
        low = torch.maximum(rest[:, :2], corners[i, :2])
        high = torch.minimum(rest[:, 2:], corners[i, 2:])
        shared = (high - low).clamp(min=0).prod(dim=1)
        # Not a number where both boxes are empty, which is no overlap.
        overlap = shared / (areas[i] + areas[i + 1 :] - shared)
        stays[i + 1 :] &= ~(overlap > iou_threshold).cpu()
    return order[stays.to(order.device)]


def _torchvision_stand_in() -> dict[str, ModuleType]:
    from PIL import Image

    def batched_nms(boxes: Any, scores: Any, categories: Any, iou_threshold: Any) -> Any:
        # The original knows one category.
        return suppress_boxes(boxes, scores, iou_threshold)

    def box_area(boxes: Any) -> Any:
        return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)

    def resize(image: Image.Image, size_hw: tuple[int, int]) -> Image.Image:
        return image.resize(size_hw[::-1], Image.Resampling.BILINEAR)

    contents: dict[str, dict[str, Any]] = {
        "torchvision": {},
        "torchvision.ops": {},
        "torchvision.ops.boxes": {"batched_nms": batched_nms, "box_area": box_area},
        "torchvision.transforms": {},
        "torchvision.transforms.functional": {
            "resize": resize,
            "to_pil_image": Image.fromarray,
        },
    }
    modules = {name: ModuleType(name) for name in contents}
    for name, values in contents.items():
        vars(modules[name]).update(values)
    return modules
