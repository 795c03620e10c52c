"""What converting needs to know of each family; nobody else asks which family a model is of."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convert.sam import table as sam
from convert.sam.reference import build_original
from convert.sam.stages import sam_stages
from convert.sam.variants import huggingface_heads, infer_config
from convert.sam2 import table as sam2
from convert.sam2.reference import build_original_sam2
from convert.sam2.stages import sam2_stages
from convert.sam2.variants import detect_sam2_naming, infer_sam2_config
from convert.tables import HUGGING_FACE, Entry, Shape
from sam_jax.models.config import ModelConfig
from sam_jax.models.families import family_of

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Conversion:
    """How one family's files are read and written, and compared with the original.

    Attributes:
      recognizes: whether tensors of these names are of this family.
      detect_naming: which of the namings they follow (`CheckpointError` if none).
      infer_config: the configuration, from the tensors' shapes, their naming and the file.
      entries: every tensor of a configuration, with its place, names and layout.
      from_huggingface: Hugging Face's tensors as the entries name them.
      to_huggingface: the other way round.
      build_original: the original's PyTorch model of a configuration.
      stages: the original's values and ours after every stage.
    """

    recognizes: Callable[[Iterable[str]], bool]
    detect_naming: Callable[[Iterable[str]], str]
    infer_config: Callable[[Mapping[str, Shape], str, Path], ModelConfig]
    entries: Callable[[Any], list[Entry]]
    from_huggingface: Callable[[Tensors], Tensors]
    to_huggingface: Callable[[Tensors], Tensors]
    build_original: Callable[[Any], Any]
    stages: Callable[..., tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]


def _infer_sam_config(shapes: Mapping[str, Shape], naming: str, file: Path) -> ModelConfig:
    heads = huggingface_heads(file) if naming == HUGGING_FACE else None
    return infer_config(shapes, naming, heads)


def _as_they_are(tensors: Tensors) -> Tensors:
    return tensors


_SAM = Conversion(
    sam.is_sam,
    sam.detect_naming,
    _infer_sam_config,
    sam.entries,
    _as_they_are,
    _as_they_are,
    build_original,
    sam_stages,
)
# By the family's name; of tensors that several recognize, the first is meant.
CONVERSIONS: dict[str, Conversion] = {
    "sam2": Conversion(
        sam2.is_sam2,
        detect_sam2_naming,
        lambda shapes, naming, file: infer_sam2_config(shapes, naming),
        sam2.entries,
        sam2.points_apart,
        sam2.points_together,
        build_original_sam2,
        sam2_stages,
    ),
    "sam": _SAM,
}


def conversion_of(config: ModelConfig) -> Conversion:
    """The conversion of a configuration's family."""
    return CONVERSIONS[family_of(config).name]


def conversion_of_tensors(names: Iterable[str]) -> Conversion:
    """The conversion of the family that tensors are of; where none is recognized, SAM's.

    SAM's `detect_naming` then says what is missing.
    """
    names = list(names)
    return next((one for one in CONVERSIONS.values() if one.recognizes(names)), _SAM)
