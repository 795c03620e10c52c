"""The families of models, SAM and SAM 2: what each is configured by, and the variables it needs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sam_jax.configs import SamConfig, check_config
from sam_jax.errors import CheckpointError
from sam_jax.models.sam.sam import variable_shapes
from sam_jax.models.sam2.config import ModelConfig, Sam2Config, check_sam2_config
from sam_jax.models.sam2.sam2 import variable_shapes as sam2_variable_shapes
from sam_jax.types import Params

__all__ = ["FAMILIES", "SAM", "SAM2", "Family", "ModelConfig", "family_named", "family_of"]


@dataclass(frozen=True)
class Family:
    """One family of models.

    Attributes:
      name: in the config.json of checkpoints.
      config: the class of its configurations.
      check: refuses configurations that describe no model (`CheckpointError`).
      variable_shapes: the tree of variables that a configuration's model needs.
    """

    name: str
    config: type
    check: Callable[[Any], None]
    variable_shapes: Callable[[Any], Params]


SAM = Family("sam", SamConfig, check_config, variable_shapes)
SAM2 = Family("sam2", Sam2Config, check_sam2_config, sam2_variable_shapes)
FAMILIES = {family.name: family for family in (SAM, SAM2)}


def family_of(config: ModelConfig) -> Family:
    """The family of a configuration."""
    return SAM2 if isinstance(config, Sam2Config) else SAM


def family_named(name: object) -> Family:
    """The family of that name.

    Raises:
      CheckpointError: there is none.
    """
    if not isinstance(name, str) or name not in FAMILIES:
        known = " and ".join(map(repr, FAMILIES))
        raise CheckpointError(
            f"it holds a model of the family {str(name)[:40]!r}; this sam_jax reads {known}"
        )
    return FAMILIES[name]
