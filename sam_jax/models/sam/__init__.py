"""SAM 1, and the small model that is shipped: configuration, image encoders and the whole."""

from typing import TYPE_CHECKING

from sam_jax.lazy_names import lazy_names

if TYPE_CHECKING:
    from sam_jax.models.sam.sam import Sam

__all__ = ["Sam"]

__getattr__ = lazy_names(
    __name__,
    {
        "sam_jax.models.sam.sam": ("Sam",),
    },
)
