"""The families of models: what others must know of each stands here, or on its configuration.

Nobody else asks which family a model is of. A configuration says how images get into the model
(`ModelConfig.frame`) and what the encoder returns (`feature_shapes`); a model has the methods
`encode_image(images) -> ImageFeatures` and `decode(features, prompts, multimask) -> (logits,
scores)`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp

from sam_jax.errors import CheckpointError
from sam_jax.models.config import ModelConfig
from sam_jax.models.sam.config import SamConfig, check_config
from sam_jax.models.sam.sam import Sam, variable_shapes
from sam_jax.models.sam2.config import Sam2Config, check_sam2_config
from sam_jax.models.sam2.sam2 import Sam2
from sam_jax.models.sam2.sam2 import variable_shapes as sam2_variable_shapes
from sam_jax.types import FEEDBACK_LIMIT, Params

# A module of any family.
Model = Any


@dataclass(frozen=True)
class Family:
    """One family of models.

    Attributes:
      name: in the config.json of checkpoints.
      title: for people.
      config: the class of its configurations.
      check: refuses configurations that describe no model (`CheckpointError`).
      build: the module of a configuration, with a compute type.
      variable_shapes: the tree of variables that a configuration's model needs.
      feedback_limit: logits that are given back as a mask prompt are cut at plus and minus this;
        None where they are not.
      generate_defaults: options of automatic generation whose default is another than SAM's.
      tracks: whether its models follow objects through video (`Tracker`).
      over_mesh: whether its encoder can be divided over a mesh of devices.
    """

    name: str
    title: str
    config: type[ModelConfig]
    check: Callable[[Any], None]
    build: Callable[[Any, Any], Model]
    variable_shapes: Callable[[Any], Params]
    feedback_limit: float | None = None
    generate_defaults: Mapping[str, Any] = field(default_factory=dict)
    tracks: bool = False
    over_mesh: bool = False


FAMILIES: dict[str, Family] = {}


def register_family(family: Family) -> None:
    """Makes a family known to everything that loads, runs or saves models.

    Raises:
      ValueError: its name, or the class of its configurations, is taken.
    """
    for known in FAMILIES.values():
        if known.name == family.name or known.config is family.config:
            raise ValueError(f"family {family.name!r} is registered already, as {known.name!r}")
    FAMILIES[family.name] = family


register_family(
    Family(
        "sam",
        "Segment Anything (SAM 1)",
        SamConfig,
        check_config,
        Sam,
        variable_shapes,
        over_mesh=True,
    )
)
register_family(
    Family(
        "sam2",
        "Segment Anything 2 (SAM 2)",
        Sam2Config,
        check_sam2_config,
        Sam2,
        sam2_variable_shapes,
        feedback_limit=FEEDBACK_LIMIT,
        generate_defaults={"pred_iou_thresh": 0.8},
        tracks=True,
    )
)


def family_of(config: ModelConfig) -> Family:
    """The family of a configuration.

    Raises:
      TypeError: it is of none that is registered.
    """
    for family in FAMILIES.values():
        if isinstance(config, family.config):
            return family
    raise TypeError(f"{type(config).__name__} is a configuration of no registered family")


def build_model(config: ModelConfig, dtype: Any = jnp.float32) -> Model:
    """The model of a configuration of any family.

    Args:
      config: the architecture.
      dtype: compute type, float32 or bfloat16.
    """
    return family_of(config).build(config, dtype)


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
