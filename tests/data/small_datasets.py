"""Datasets of a few small pictures, in every layout that is read."""

import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from sam_jax.data.samples import Sample
from sam_jax.formats.coco import write_coco
from sam_jax.formats.rle import encode_rle, mask_area, mask_box
from sam_jax.formats.sa1b import read_sa1b, write_sa1b

# Pictures of one size would hide height and width that are exchanged.
SIZES = [(30, 50), (61, 40), (33, 33), (20, 90), (47, 64), (80, 31), (29, 70)]


def rectangle(size_hw, top, left, bottom, right):
    mask = np.zeros(size_hw, bool)
    mask[top:bottom, left:right] = True
    return mask


def random_masks(rng, size_hw, count):
    height, width = size_hw
    masks = []
    for _ in range(count):
        top, left = rng.integers(0, [height // 2, width // 2])
        tall, wide = rng.integers(4, [height // 2, width // 2])
        mask = rectangle(size_hw, top, left, top + tall, left + wide)
        masks.append(mask & (rng.random(size_hw) < 0.9))
    return masks


def record(mask):
    return {
        "segmentation": encode_rle(mask),
        "area": int(mask_area(mask)),
        "bbox": mask_box(mask).tolist(),
        "predicted_iou": 0.9,
        "stability_score": 0.95,
        "crop_box": [0, 0, mask.shape[1], mask.shape[0]],
        "point_coords": [[1.5, 2.5]],
    }


def write_folder(folder, sizes=SIZES, masks_each=5, seed=0):
    """Pairs sa_1.jpg, sa_1.json, ... with random masks."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number, size_hw in enumerate(sizes, 1):
        pixels = rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"sa_{number}.jpg", quality=95)
        write_sa1b(
            folder / f"sa_{number}.json",
            [record(mask) for mask in random_masks(rng, size_hw, masks_each)],
            file_name=f"sa_{number}.jpg",
            size_hw=size_hw,
            image_id=number,
        )
    return folder


def write_tar(path, folder, prefix="./"):
    """The folder's files as a shard, JSON files first: their order must not matter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for file in sorted(folder.iterdir(), key=lambda each: (each.suffix != ".json", each.name)):
            tar.add(file, prefix + file.name)
    return path


def write_instances(path, folder, polygons=False):
    """The folder's masks as COCO instances."""
    images = [read_sa1b(each) for each in sorted(folder.glob("sa_*.json"))]
    write_coco(path, images, polygons=polygons)
    return path


def edit(path, change):
    """Changes what a JSON file holds."""
    content = json.loads(Path(path).read_text())
    change(content)
    Path(path).write_text(json.dumps(content))


class Squares:
    """Pictures that can be told by their color, number i + 1, without a file; some unusable."""

    description = "squares"

    def __init__(self, count, unusable=()):
        self.count, self.unusable = count, frozenset(unusable)

    def __len__(self):
        return self.count

    def name(self, index):
        return f"square {index}"

    def __getitem__(self, index):
        size_hw = SIZES[index % len(SIZES)]
        rng = np.random.default_rng(index)
        masks = random_masks(rng, size_hw, 0 if index in self.unusable else 4)
        return Sample(
            self.name(index),
            np.full((*size_hw, 3), index + 1, np.uint8),
            size_hw,
            [encode_rle(mask) for mask in masks],
        )


class Faulty(Squares):
    """One that fails for a reason of the program's own."""

    def __getitem__(self, index):
        raise TypeError("a fault of ours")
