"""PyTorch checkpoints -> sam_jax checkpoints, and back; the only place that knows torch names.

The public names are loaded when first used: what measures the PyTorch packages imports this one,
and must not carry JAX along.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convert.conversion import convert_checkpoint, export_checkpoint, read_source

# By this `sam_jax.converter` tells our package from others of the name, without running either.
OWNER = "sam-jax"

__all__ = ["convert_checkpoint", "export_checkpoint", "read_source"]


def __getattr__(name: str) -> Any:
    """Imports the module that holds the public names."""
    if name not in __all__:
        raise AttributeError(f"module 'convert' has no attribute {name!r}")
    from convert import conversion

    return getattr(conversion, name)
