"""Candidates made of given masks, for tests of what comes after the model."""

import numpy as np

from sam_jax.automatic.candidates import Candidates
from sam_jax.automatic.runs import runs_of_mask
from sam_jax.formats.rle import mask_box


def candidates_of(masks, scores=None, crops=None):
    """Candidates of bool masks [n, height, width]; `crops` are x0 y0 x1 y1 of each."""
    masks = np.asarray(masks, bool)
    count, height, width = masks.shape
    whole = (0, 0, width, height)
    boxes = mask_box(masks)
    boxes[:, 2:] = np.maximum(boxes[:, :2] + boxes[:, 2:] - 1, 0)
    return Candidates(
        np.linspace(1, 0.5, count, dtype=np.float32) if scores is None else np.float32(scores),
        np.ones(count, np.float32),
        boxes.astype(np.int64),
        np.array([whole] * count if crops is None else crops, np.int64).reshape(-1, 4),
        [np.array([[float(i), 0.0]]) for i in range(count)],
        [runs_of_mask(mask, whole, (height, width)) for mask in masks],
    )


def blobs(rng, count, size_hw, smooth=3.0):
    """Random masks of a few regions each, with holes and islands."""
    from scipy.ndimage import gaussian_filter

    noise = rng.standard_normal((count, *size_hw))
    fields = np.stack([gaussian_filter(one, smooth) for one in noise])
    return (
        fields
        > np.quantile(fields, rng.uniform(0.3, 0.8, count), axis=(1, 2)).diagonal()[:, None, None]
    )
