"""Random variables under which a model does the work that it does under trained ones."""

from typing import Any

import jax
import numpy as np

from sam_jax.configs import SamConfig
from sam_jax.models.sam.sam import variable_shapes
from sam_jax.types import Params


def random_variables(config: SamConfig, seed: int = 0) -> Params:
    """Variables of a model whose masks cover about half of an image, in blocks and not in noise.

    Trained masks are of one piece or a few. Noise from pixel to pixel would make whatever lists the
    runs of a mask slow, and a comparison with it worth nothing.
    """
    rng = np.random.default_rng(seed)

    def fill(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        values = rng.standard_normal(leaf.shape, np.float32)
        if name.endswith("scale"):
            return 1 + np.float32(0.1) * values
        if not name.endswith("kernel"):
            # A predicted IoU of 0.5 on average: a threshold at or below zero filters nothing.
            middle = 0.5 if name.endswith("iou_prediction_head/layers_2/bias") else 0.0
            return np.float32(middle) + np.float32(0.1) * values
        if "output_upscaling" in name:
            # [in, 2, 2, out]: the same for all four pixels that a token or pixel becomes.
            values = np.broadcast_to(values[:, :1, :1], leaf.shape)
            return values * np.float32(leaf.shape[0] ** -0.5)
        if "output_hypernetworks_mlps" in name:
            # They weigh channels that GELU has made positive: a sum of zero keeps masks from being
            # the whole image, or nothing.
            values = values - values.mean(axis=-1, keepdims=True)
        fan_in = np.prod(leaf.shape[:-1]) if leaf.ndim == 4 else leaf.shape[-2]
        return values * np.float32(fan_in**-0.5)

    return jax.tree_util.tree_map_with_path(fill, variable_shapes(config))
