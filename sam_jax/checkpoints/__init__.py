"""Checkpoints: native ones, and where they come from: the package, a download, PyTorch files."""

from typing import TYPE_CHECKING

from sam_jax.lazy_names import lazy_names

if TYPE_CHECKING:
    from sam_jax.checkpoints.native import (
        Checkpoint,
        CheckpointInfo,
        load_checkpoint,
        load_model,
        load_params,
        read_info,
        save_checkpoint,
    )

__all__ = [
    "Checkpoint",
    "CheckpointInfo",
    "load_checkpoint",
    "load_model",
    "load_params",
    "read_info",
    "save_checkpoint",
]

__getattr__ = lazy_names(
    __name__,
    {
        "sam_jax.checkpoints.native": (
            "Checkpoint",
            "CheckpointInfo",
            "load_checkpoint",
            "load_model",
            "load_params",
            "read_info",
            "save_checkpoint",
        ),
    },
)
