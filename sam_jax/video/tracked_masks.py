"""The masks of one frame's objects, at the frame's own size when they are asked for."""

from collections.abc import Iterator
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from flax import struct
from jaxtyping import Bool, Float, Float32

from sam_jax.one_line import one_line
from sam_jax.ops.resample import linear_matrix

# What the logits of all but the strongest object are cut down to where masks may not overlap.
_SUPPRESSED = -10.0


@struct.dataclass
class TrackedMasks:
    """Masks of n objects in one frame.

    Attributes:
      logits: float32 [n, low, low], low-resolution logits.
      object_scores: float32 [n], above 0 where the object is in the picture.
      scores: float32 [n], predicted IoU; 1 where the mask is the answer to a prompt.
      object_ids: of each.
      frame_index: of the frame.
      size_hw: height and width of the frame.
      threshold: a pixel belongs to an object where its logit is above this.
      overlapping: whether a pixel may belong to several; else it is the strongest one's.
      dropped: whether there was no frame to look at; then no object is in it.
    """

    logits: np.ndarray
    object_scores: np.ndarray
    scores: np.ndarray
    object_ids: tuple[Any, ...] = struct.field(pytree_node=False)
    frame_index: int = struct.field(pytree_node=False)
    size_hw: tuple[int, int] = struct.field(pytree_node=False)
    threshold: float = struct.field(pytree_node=False, default=0.0)
    overlapping: bool = struct.field(pytree_node=False, default=True)
    dropped: bool = struct.field(pytree_node=False, default=False)

    __repr__ = one_line

    @cached_property
    def masks(self) -> Bool[np.ndarray, "n H W"]:
        """All masks at the frame's size, bool [n, H, W]."""
        return self.full_logits() > self.threshold

    def mask(self, object_id: Any) -> Bool[np.ndarray, "H W"]:
        """One object's mask at the frame's size.

        Raises:
          KeyError: there is no such object in this frame.
        """
        if object_id not in self.object_ids:
            raise KeyError(f"no object {object_id!r}; there are {list(self.object_ids)}")
        return self.masks[self.object_ids.index(object_id)]

    def full_logits(self) -> Float32[np.ndarray, "n H W"]:
        """Logits at the frame's size, as the original's video predictor gives them."""
        low = np.asarray(self.logits)
        rows, columns = _matrices(self.size_hw, low.shape[-1])
        full = rows @ low @ columns.T
        if self.overlapping or len(full) < 2:
            return full
        strongest = full.argmax(axis=0) == np.arange(len(full))[:, None, None]
        return np.where(strongest, full, np.minimum(full, np.float32(_SUPPRESSED)))

    def __iter__(self) -> Iterator[tuple[Any, np.ndarray]]:
        """Each object's identity and mask."""
        return iter(zip(self.object_ids, self.masks, strict=True))


@lru_cache(maxsize=8)
def _matrices(
    size_hw: tuple[int, int], low: int
) -> tuple[Float[np.ndarray, "H low"], Float[np.ndarray, "W low"]]:
    rows, columns = (linear_matrix(low, size).astype(np.float32) for size in size_hw)
    return rows, columns
