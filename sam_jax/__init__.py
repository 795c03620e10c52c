"""Segment Anything as pure functions in JAX.

The public names are loaded when first used, so that importing the package, or asking the command
line for help, does not wait for JAX.
"""

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from sam_jax.errors import CheckpointError, InputError
from sam_jax.lazy_names import lazy_names
from sam_jax.version import __version__

if TYPE_CHECKING:
    from sam_jax.automatic.options import PRESETS, GenerateOptions
    from sam_jax.automatic.records import GeneratedMasks
    from sam_jax.checkpoints.native import (
        load_checkpoint,
        load_model,
        load_params,
        save_checkpoint,
    )
    from sam_jax.configs import CONFIGS, TINY, VIT_B, VIT_H, VIT_L, SamConfig
    from sam_jax.embeddings import EmbeddingBatch, ImageEmbedding, stack_embeddings
    from sam_jax.formats.mask_pictures import read_mask
    from sam_jax.image_inputs import prepare_image, prepare_images
    from sam_jax.images import read_image
    from sam_jax.inference.program_cache import cache_compiled_programs
    from sam_jax.models.features import ImageFeatures
    from sam_jax.models.sam.sam import Sam
    from sam_jax.models.sam2.config import SAM2_CONFIGS, Sam2Config
    from sam_jax.models.sam2.sam2 import Sam2
    from sam_jax.postprocess import MaskPrediction
    from sam_jax.preprocess import mask_to_logits
    from sam_jax.segmenter import Segmenter
    from sam_jax.sharding import make_mesh
    from sam_jax.types import Prompts
    from sam_jax.video.frames import open_video
    from sam_jax.video.tracked_masks import TrackedMasks
    from sam_jax.video.tracker import Tracker

_HOMES = {
    "sam_jax.automatic.options": ("PRESETS", "GenerateOptions"),
    "sam_jax.automatic.records": ("GeneratedMasks",),
    "sam_jax.checkpoints.native": (
        "load_checkpoint",
        "load_model",
        "load_params",
        "save_checkpoint",
    ),
    "sam_jax.inference.program_cache": ("cache_compiled_programs",),
    "sam_jax.configs": ("CONFIGS", "TINY", "VIT_B", "VIT_H", "VIT_L", "SamConfig"),
    "sam_jax.embeddings": ("EmbeddingBatch", "ImageEmbedding", "stack_embeddings"),
    "sam_jax.formats.mask_pictures": ("read_mask",),
    "sam_jax.image_inputs": ("prepare_image", "prepare_images"),
    "sam_jax.images": ("read_image",),
    "sam_jax.models.features": ("ImageFeatures",),
    "sam_jax.models.sam.sam": ("Sam",),
    "sam_jax.models.sam2.sam2": ("Sam2",),
    "sam_jax.postprocess": ("MaskPrediction",),
    "sam_jax.preprocess": ("mask_to_logits",),
    "sam_jax.models.sam2.config": ("SAM2_CONFIGS", "Sam2Config"),
    "sam_jax.segmenter": ("Segmenter",),
    "sam_jax.sharding": ("make_mesh",),
    "sam_jax.types": ("Prompts",),
    "sam_jax.video.frames": ("open_video",),
    "sam_jax.video.tracked_masks": ("TrackedMasks",),
    "sam_jax.video.tracker": ("Tracker",),
}
__all__ = [
    "CONFIGS",
    "PRESETS",
    "SAM2_CONFIGS",
    "TINY",
    "VIT_B",
    "VIT_H",
    "VIT_L",
    "CheckpointError",
    "EmbeddingBatch",
    "GenerateOptions",
    "GeneratedMasks",
    "ImageEmbedding",
    "ImageFeatures",
    "InputError",
    "MaskPrediction",
    "Prompts",
    "Sam",
    "Sam2",
    "Sam2Config",
    "SamConfig",
    "Segmenter",
    "TrackedMasks",
    "Tracker",
    "__version__",
    "cache_compiled_programs",
    "load_checkpoint",
    "load_model",
    "load_params",
    "make_mesh",
    "mask_to_logits",
    "open_video",
    "prepare_image",
    "prepare_images",
    "read_image",
    "read_mask",
    "save_checkpoint",
    "stack_embeddings",
]


_public = lazy_names(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    """Imports the module that holds a public name."""
    if name == "TEST":
        warnings.warn(
            "sam_jax.TEST goes in the next release; it is sam_jax.configs.TEST",
            DeprecationWarning,
            stacklevel=2,
        )
        return importlib.import_module("sam_jax.configs").TEST
    return _public(name)


def __dir__() -> list[str]:
    return sorted(__all__)
