"""The registry of models: from an official `.pth`, one of our checkpoints, or a stored download."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sam_jax.checkpoints import registry
from sam_jax.checkpoints.native import load_checkpoint
from sam_jax.checkpoints.weight_files import is_torch_source
from sam_jax.compat.sam import Sam
from sam_jax.configs import CONFIGS, SamConfig
from sam_jax.converter import load_converter
from sam_jax.errors import InputError
from sam_jax.models.families import family_of
from sam_jax.segmenter import Segmenter
from sam_jax.types import Params

Checkpoint = str | os.PathLike | None


def build_sam_vit_h(checkpoint: Checkpoint = None, **options: Any) -> Sam:
    """The largest model.

    Args:
      checkpoint: an official `.pth` file, a `.safetensors` file, a checkpoint directory of ours, or
        a name such as "vit_h"; names come before files. None: what `sam-jax download` stored.
      **options: of `Segmenter`: `dtype` to compute in, `image_batch`, `prompt_batch`.

    Raises:
      InputError: there is none, it is damaged, or it is another model.
    """
    return _build("vit_h", checkpoint, options)


build_sam = build_sam_vit_h


def build_sam_vit_l(checkpoint: Checkpoint = None, **options: Any) -> Sam:
    """The middle model; see `build_sam_vit_h`."""
    return _build("vit_l", checkpoint, options)


def build_sam_vit_b(checkpoint: Checkpoint = None, **options: Any) -> Sam:
    """The smallest of the official models; see `build_sam_vit_h`."""
    return _build("vit_b", checkpoint, options)


def build_sam_tiny(checkpoint: Checkpoint = None, **options: Any) -> Sam:
    """The small model inside the package, which is there without a checkpoint.

    See `build_sam_vit_h`. It brings thresholds of its own along for `SamAutomaticMaskGenerator`,
    as the original's are too high for it.
    """
    return _build("tiny", checkpoint, options)


def load_sam(checkpoint: str | os.PathLike, **options: Any) -> Sam:
    """A model of whatever architecture the checkpoint has; see `build_sam_vit_h`."""
    config, params, known = _read(checkpoint)
    return Sam(Segmenter(config, params, **{**known, **options}))


sam_model_registry: dict[str, Callable[..., Sam]] = {
    "default": build_sam,
    "vit_h": build_sam_vit_h,
    "vit_l": build_sam_vit_l,
    "vit_b": build_sam_vit_b,
    "tiny": build_sam_tiny,
}


def _build(name: str, checkpoint: Checkpoint, options: dict[str, Any]) -> Sam:
    path = registry.checkpoint_path(name) if checkpoint is None else checkpoint
    config, params, known = _read(path)
    wanted = CONFIGS[name]
    # A checkpoint of ours may carry a name and an input size of its own.
    if replace(config, name=name, image_size=wanted.image_size) != wanted:
        raise InputError(
            f"{path} holds a {_described(config)} model, not {_described(wanted)}; "
            f"{_remedy(config)}"
        )
    return Sam(Segmenter(config, params, **{**known, **options}))


def _read(checkpoint: str | os.PathLike) -> tuple[SamConfig, Params, dict[str, Any]]:
    """Configuration, parameters, and what a checkpoint of ours says of them beside that."""
    known: dict[str, Any] = {}
    path = registry.named_checkpoint(checkpoint) or Path(checkpoint)
    if is_torch_source(path):
        config, params, _, _ = load_converter().read_source(path)
    else:
        loaded = load_checkpoint(checkpoint)
        config, params = loaded.config, loaded.params
        known = {"fingerprint": loaded.fingerprint, "generate_defaults": loaded.generate}
    family = family_of(config)
    if family.config is not SamConfig:
        raise InputError(
            f"{path} is {config.name}, a model of {family.title}; give it to sam_jax.Segmenter or "
            "sam_jax.Tracker"
        )
    return config, params, known


def _described(config: SamConfig) -> str:
    vit = config.image_encoder
    return f"{config.name} ({vit.depth} blocks of {vit.embed_dim} channels)"


def _remedy(config: SamConfig) -> str:
    if config.name in sam_model_registry:
        return f'build it with sam_model_registry["{config.name}"]'
    return "load it with sam_jax.compat.load_sam"
