"""Real photos as uint8 RGB arrays: those bundled with scikit-image, and shared ones where present.

Square, landscape, portrait, odd sizes, a sliver, and one larger than the model's input.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

SHARED = Path(__file__).parents[3] / "shared" / "images"

BUNDLED = {
    "coffee": data.coffee,
    "chelsea": data.chelsea,
    "astronaut": data.astronaut,
    "retina": data.retina,
    "rocket, 333x501": lambda: data.rocket()[47:380, 70:571],
    "astronaut, 501x333": lambda: data.astronaut()[5:506, 61:394],
    "coffee, 400x37": lambda: data.coffee()[:, 211:248],
}
EXTRA = {path.stem: path for path in sorted(SHARED.glob("*.jpg"))}
NAMES = (*BUNDLED, *EXTRA)


def photo(name: str) -> np.ndarray:
    """One of `NAMES`."""
    if name in BUNDLED:
        return np.ascontiguousarray(BUNDLED[name]())
    with Image.open(EXTRA[name]) as image:
        return np.asarray(image.convert("RGB"))
