"""What fine-tuning changed in a model: low-rank updates, and adapters as files."""

from typing import TYPE_CHECKING

from sam_jax.lazy_names import lazy_names

if TYPE_CHECKING:
    from sam_jax.adapters.adapter_files import load_adapter, merge_adapter, save_adapter

__all__ = ["load_adapter", "merge_adapter", "save_adapter"]

__getattr__ = lazy_names(
    __name__,
    {
        "sam_jax.adapters.adapter_files": (
            "load_adapter",
            "merge_adapter",
            "save_adapter",
        ),
    },
)
