"""How many parameters a model has."""

import math
from typing import Any

import jax

from sam_jax.models.families import ModelConfig, family_of


def count_parameters(config: ModelConfig) -> dict[str, int]:
    """Numbers of parameters by part; the frozen random frequencies are "constants"."""
    shapes = family_of(config).variable_shapes(config)

    def count(tree: Any) -> int:
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))

    parts = {part: count(tree) for part, tree in shapes["params"].items()}
    return {**parts, "constants": count(shapes["constants"])}
