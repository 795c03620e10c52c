"""The architectures of all families as frozen values, and their JSON form."""

import dataclasses
import types
import typing
from typing import Any

from sam_jax.errors import CheckpointError
from sam_jax.models.config import ModelConfig
from sam_jax.models.mae.config import (
    MAE_CONFIGS,
    MAE_TEST,
    MAE_VIT_B,
    MAE_VIT_H,
    MAE_VIT_L,
    MaeConfig,
    check_mae_config,
)
from sam_jax.models.sam.config import (
    CONFIGS,
    TEST,
    TINY,
    VIT_B,
    VIT_H,
    VIT_L,
    HybridEncoderConfig,
    ImageEncoderConfig,
    SamConfig,
    check_config,
)
from sam_jax.models.sam2.config import (
    SAM2_CONFIGS,
    HieraConfig,
    Sam2Config,
    check_sam2_config,
)

__all__ = [
    "CONFIGS",
    "MAE_CONFIGS",
    "MAE_TEST",
    "MAE_VIT_B",
    "MAE_VIT_H",
    "MAE_VIT_L",
    "SAM2_CONFIGS",
    "TEST",
    "TINY",
    "VIT_B",
    "VIT_H",
    "VIT_L",
    "HieraConfig",
    "HybridEncoderConfig",
    "ImageEncoderConfig",
    "MaeConfig",
    "ModelConfig",
    "Sam2Config",
    "SamConfig",
    "check_config",
    "check_mae_config",
    "check_sam2_config",
    "config_from_json",
    "config_to_json",
]


def config_to_json(config: Any) -> dict[str, Any]:
    """The configuration as nested dicts of JSON values."""
    return dataclasses.asdict(config)


def config_from_json(values: Any, cls: Any = SamConfig) -> Any:
    """The configuration, of a class, that `config_to_json` wrote.

    Raises:
      CheckpointError: a key is missing or unknown, or a value has the wrong type.
    """
    return _dataclass_from_json(cls, values, "config")


def _dataclass_from_json(cls: Any, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise CheckpointError(f"{where} must be a JSON object, not {type(values).__name__}")
    hints = typing.get_type_hints(cls)
    if values.keys() != hints.keys():
        missing = sorted(hints.keys() - values.keys())
        unknown = sorted(values.keys() - hints.keys(), key=str)
        raise CheckpointError(f"{where}: missing keys {missing}, unknown keys {unknown}")
    fields = {
        key: _value_from_json(hint, values[key], f"{where}.{key}") for key, hint in hints.items()
    }
    return cls(**fields)


def _value_from_json(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, types.UnionType):
        # Of several classes, the one whose first key is there.
        kinds = typing.get_args(hint)
        given = value if isinstance(value, dict) else {}
        matching = [kind for kind in kinds if dataclasses.fields(kind)[0].name in given]
        hint = (matching or kinds)[0]
    if dataclasses.is_dataclass(hint):
        return _dataclass_from_json(hint, value, where)
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        if not isinstance(value, (list, tuple)):
            raise CheckpointError(f"{where} must be a list, not {value!r}")
        length = len(typing.get_args(hint))
        if typing.get_args(hint)[-1] is not Ellipsis and len(value) != length:
            raise CheckpointError(f"{where} must be a list of {length}, not {value!r}")
        return tuple(_value_from_json(item, v, f"{where}[{i}]") for i, v in enumerate(value))
    accepted = (int, float) if hint is float else hint
    if not isinstance(value, accepted) or isinstance(value, bool) != (hint is bool):
        raise CheckpointError(f"{where} must be {hint.__name__}, not {value!r}")
    return hint(value)
