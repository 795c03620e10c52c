"""Images with masks of the kinds that formats stumble over: holes, parts, borders, names."""

import numpy as np

from sam_jax.formats.sa1b import Sa1bImage

SIZE = (57, 83)


def some_masks(size_hw=SIZE):
    height, width = size_hw
    y, x = np.mgrid[:height, :width]
    disc = (y - height * 0.45) ** 2 + (x - width * 0.3) ** 2 < (height * 0.35) ** 2
    ring = disc & ((y - height * 0.45) ** 2 + (x - width * 0.3) ** 2 > (height * 0.15) ** 2)
    parts = np.zeros(size_hw, bool)
    parts[2:12, width // 2 : -6] = parts[height // 2 : -3, -20:-9] = True
    corner = (y >= height - 7) & (x >= width - 9)
    pixel = (y == height // 3) & (x == width - 4)
    return {"disc": disc, "ring": ring, "parts": parts, "corner": corner, "pixel": pixel}


def image_of(masks, file_name="a photo.jpg", labels=None, size_hw=SIZE):
    labels = labels or ["object"] * len(masks)
    records = [
        {"segmentation": mask, "label": label, "predicted_iou": 0.5 + i / 100}
        for i, (mask, label) in enumerate(zip(masks, labels, strict=True))
    ]
    return Sa1bImage(file_name, size_hw, 1, records)


def near_outline(mask):
    """Pixels beside the outline, on either side."""
    from scipy import ndimage

    box = np.ones((3, 3))
    return ndimage.binary_dilation(mask, box) & ~ndimage.binary_erosion(mask, box, border_value=1)
