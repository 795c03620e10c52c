"""A toy dataset in SA-1B's layout, and a configuration that trains a toy model on it."""

from pathlib import Path

import numpy as np
from PIL import Image

from sam_jax.formats.rle import encode_rle
from sam_jax.formats.sa1b import write_sa1b

CONFIG = """
[model]
name = "test"
dtype = "float32"
remat = false
decoder_dropout = 0.0

[data]
path = "photos"
batch_size = 2
max_masks = 2
workers = 0

[optimizer]
steps = 4
warmup_steps = 0
decay_steps = []

[simulation]
correction_points = 0

[run]
log_every = 2
checkpoint_every = 2
picture_every = 3
"""


def mask_record(mask):
    ys, xs = np.nonzero(mask)
    x, y = int(xs.min()), int(ys.min())
    return {
        "segmentation": encode_rle(mask),
        "area": int(mask.sum()),
        "bbox": [x, y, int(xs.max()) - x + 1, int(ys.max()) - y + 1],
        "predicted_iou": 0.9,
        "stability_score": 0.9,
        "crop_box": [0, 0, mask.shape[1], mask.shape[0]],
        "point_coords": [[float(x), float(y)]],
    }


def write_photos(folder, count=3):
    """Images with two rectangles each."""
    rng = np.random.default_rng(0)
    Path(folder).mkdir()
    for number in range(1, count + 1):
        image = rng.integers(0, 256, (40, 70, 3), dtype=np.uint8)
        records = []
        for left in (5, 40):
            mask = np.zeros((40, 70), bool)
            mask[8:30, left : left + 20] = True
            image[mask] = (200, 40, left)
            records.append(mask_record(mask))
        Image.fromarray(image).save(f"{folder}/sa_{number}.png")
        write_sa1b(
            f"{folder}/sa_{number}.json",
            records,
            file_name=f"sa_{number}.png",
            size_hw=(40, 70),
            image_id=number,
        )
