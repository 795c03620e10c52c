"""Fine-tunes a model on a real photo: coins, some to learn from, others to be tested on.

python examples/fine_tune.py --method decoder

About a minute on two CPU cores. Needs more than the library: pip install "sam-jax[train]"
scikit-image
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import sam_jax
from sam_jax.formats.overlay import draw_overlay, side_by_side
from sam_jax.formats.rle import encode_rle
from sam_jax.formats.sa1b import write_sa1b
from sam_jax.train.config import config_from_values
from sam_jax.train.runs import train_run


def coins() -> tuple[np.ndarray, np.ndarray]:
    """The photo, and the number of its coin (0: none) for every pixel."""
    try:
        from skimage import data, filters, measure, morphology, segmentation
    except ImportError:
        raise SystemExit("the photo is scikit-image's: pip install scikit-image") from None
    from scipy.ndimage import binary_fill_holes

    photo = data.coins()
    # Seeds that are surely background or coin grow up to the edges between them.
    seeds = np.where(photo < 30, 1, 0) + np.where(photo > 150, 2, 0)
    grown = binary_fill_holes(segmentation.watershed(filters.sobel(photo), seeds) == 2)
    labels = measure.label(morphology.opening(grown, morphology.disk(3)))
    return np.repeat(photo[..., None], 3, axis=2), labels
