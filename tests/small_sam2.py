"""A small SAM 2 model with values of its own, for tests that need no original."""

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from sam_jax.models.sam2.config import SAM2_TEST
from sam_jax.models.sam2.sam2 import variable_shapes
from sam_jax.types import Params


def small_variables(seed: int = 0) -> Params:
    """Variables for `SAM2_TEST`; activations keep their order of magnitude."""
    rng = np.random.default_rng(seed)

    def values(path: str, shape: tuple[int, ...]) -> np.ndarray:
        drawn = rng.standard_normal(shape, np.float32)
        if path.endswith(("scale", "gamma")):
            return 1 + 0.1 * drawn
        if path.endswith("kernel"):
            return drawn * np.float32(np.prod(shape[:-1]) ** -0.5)
        return drawn if "token" in path or "gaussian" in path else 0.2 * drawn

    shapes = flatten_dict(variable_shapes(SAM2_TEST), sep="/")
    flat = {path: values(path, leaf.shape) for path, leaf in shapes.items()}
    return unflatten_dict(flat, sep="/")
