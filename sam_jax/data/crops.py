"""Crops for pre-training: a random part of an image at a random size, flipped half of the time.

The augmentation of MAE (He et al. 2021), and nothing else: torchvision's random resized crop with
Pillow's bicubic filter, and a horizontal flip. Crops stay bytes until they are on the device.
"""

import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image

# Of the image's area; width over height.
AREA_RANGE = (0.2, 1.0)
ASPECT_RANGE = (3 / 4, 4 / 3)
# Boxes that are drawn before one in the middle is taken, as torchvision does.
_TRIES = 10


def random_box(
    rng: np.random.Generator,
    size_hw: tuple[int, int],
    area_range: tuple[float, float] = AREA_RANGE,
    aspect_range: tuple[float, float] = ASPECT_RANGE,
) -> tuple[int, int, int, int]:
    """Where to crop: x0 y0 x1 y1 inside the image.

    The area is uniform in its range and the aspect uniform on a logarithmic scale; what does not
    fit is drawn again. Where nothing fits, it is the largest box in the middle that has an aspect
    in the range.

    Args:
      rng: decides the box.
      size_hw: of the image.
      area_range: parts of the image's area.
      aspect_range: widths over heights.
    """
    height, width = size_hw
    low, high = np.log(aspect_range)
    for _ in range(_TRIES):
        area = height * width * rng.uniform(*area_range)
        aspect = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            x = int(rng.integers(width - w, endpoint=True))
            y = int(rng.integers(height - h, endpoint=True))
            return x, y, x + w, y + h
    aspect = min(max(width / height, aspect_range[0]), aspect_range[1])
    w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
    x, y = (width - w) // 2, (height - h) // 2
    return x, y, x + w, y + h


def random_crop(
    image: UInt8[np.ndarray, "height width 3"], rng: np.random.Generator, size: int
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """A random box of an image, resized to a square, and mirrored half of the time.

    Args:
      image: RGB.
      rng: decides box and mirroring.
      size: of the result in pixels.
    """
    x0, y0, x1, y1 = random_box(rng, (image.shape[0], image.shape[1]))
    # Cut first, so that the filter sees nothing beyond the box, as torchvision does.
    box = Image.fromarray(np.ascontiguousarray(image[y0:y1, x0:x1]))
    crop = np.asarray(box.resize((size, size), Image.Resampling.BICUBIC))
    return np.ascontiguousarray(crop[:, ::-1]) if rng.random() < 0.5 else crop
