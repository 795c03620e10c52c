"""Folders with masks of videos, as DAVIS and SA-V lay them out."""

import numpy as np
from PIL import Image

from sam_jax.formats.png import mask_png


def labels_of(masks):
    """One label image of masks by the number of their object; later ones are on top."""
    labels = np.zeros(next(iter(masks.values())).shape, np.uint8)
    for number, mask in masks.items():
        labels[mask] = number
    return labels


def write_palette(path, labels, **options):
    """A PNG whose palette has no two colors alike, none of them its own index."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(labels)
    picture.putpalette([255 - value // 3 for value in range(768)])
    assert picture.mode == "P"
    picture.save(path, **options)


def write_davis(root, video, frames):
    """`frames`: label images by the name of the frame."""
    for name, labels in frames.items():
        write_palette(root / video / f"{name}.png", labels)


def write_sav(root, video, objects):
    """`objects`: masks by the name of the frame, by the name of the object."""
    for name, frames in objects.items():
        folder = root / video / name
        folder.mkdir(parents=True, exist_ok=True)
        for frame, mask in frames.items():
            (folder / f"{frame}.png").write_bytes(mask_png(mask, bits=1))
