"""Low-resolution logits to masks in the image's own frame.

The original resizes twice: low-resolution logits to the padded input, then its unpadded part to the
image. Both steps are linear and act on each axis alone, so one small matrix an axis does both.
"""

from collections.abc import Iterator
from functools import cached_property, lru_cache

import numpy as np
from flax import struct
from jaxtyping import Bool, Float

from sam_jax.errors import InputError
from sam_jax.ops.resample import linear_matrix
from sam_jax.preprocess import resized_hw
from sam_jax.types import ArrayLike

# Full-size logits exist for this many pixels at a time.
BLOCK_PIXELS = 1 << 22
# `MaskPrediction.masks` refuses to build more than this at once.
MAX_MASK_BYTES = 4 << 30


def mask_matrices(
    size_hw: tuple[int, int], image_size: int, low_res_size: int, stretches: bool = False
) -> tuple[Float[np.ndarray, "height low"], Float[np.ndarray, "width low"]]:
    """The two matrices that take low-resolution logits to the image's own frame.

    Args:
      size_hw: the image's height and width.
      image_size: side of the padded model input.
      low_res_size: side of the low-resolution logits, which cover the padded input.
      stretches: whether the image fills the input (SAM 2); then there is one step.

    Returns:
      float32 `rows` and `columns`; `rows @ logits @ columns.T` equals the original's
      `postprocess_masks`. For any array library, on any device.
    """
    if stretches:
        rows, columns = (linear_matrix(low_res_size, full).astype(np.float32) for full in size_hw)
        return rows, columns
    to_input = linear_matrix(low_res_size, image_size)
    rows, columns = (
        (linear_matrix(valid, full) @ to_input[:valid]).astype(np.float32)
        for valid, full in zip(resized_hw(size_hw, image_size), size_hw, strict=True)
    )
    return rows, columns


# A person clicks on one image many times; the matrices depend on its size alone.
_cached_matrices = lru_cache(maxsize=16)(mask_matrices)


def upscale_logits(
    logits: Float[ArrayLike, "*batch low low"],
    rows: Float[ArrayLike, "height low"],
    columns: Float[ArrayLike, "width low"],
) -> Float[ArrayLike, "*batch height width"]:
    """Full-size logits by the matrices of `mask_matrices`; NumPy in, NumPy out, JAX likewise.

    On TPU and GPU ask JAX for highest matmul precision where a pixel at the edge matters.
    """
    return rows @ logits @ columns.T


@struct.dataclass
class MaskPrediction:
    """Masks for every prompt of one image.

    Full-size masks are made when asked for: `scores` and `logits` are small, `masks` is not.

    Attributes:
      scores: float32 [P, M], the predicted IoU of each mask.
      logits: float32 [P, M, h, w], low-resolution logits of the model's input; one of them can be
        given back as `masks=`.
      size_hw: the image's own height and width.
      image_size: side of the model's input.
      threshold: a pixel belongs to a mask where its logit is above this.
      stretches: whether the image fills the input (SAM 2) or is padded (SAM).
      unlimited: what masks are made of, where `logits` were cut (SAM 2: at 32 and -32).
    """

    scores: np.ndarray
    logits: np.ndarray
    size_hw: tuple[int, int] = struct.field(pytree_node=False)
    image_size: int = struct.field(pytree_node=False)
    threshold: float = struct.field(pytree_node=False)
    stretches: bool = struct.field(pytree_node=False, default=False)
    unlimited: np.ndarray | None = None

    @cached_property
    def masks(self) -> Bool[np.ndarray, "P M H W"]:
        """All masks at the image's own size, bool [P, M, H, W].

        Raises:
          InputError: together they would take more than 4 GiB; take them one at a time from `mask`.
        """
        prompts, masks = self.scores.shape
        height, width = self.size_hw
        if prompts * masks * height * width > MAX_MASK_BYTES:
            raise InputError(
                f"{prompts * masks} masks of {width}x{height} pixels take more than "
                f"{MAX_MASK_BYTES >> 30} GiB; take them one at a time with .mask(prompt, index)"
            )
        out = np.empty((prompts, masks, height, width), bool)
        for prompt in range(prompts):
            for index in range(masks):
                self._fill_mask(out[prompt, index], prompt, index)
        return out

    def mask(self, prompt: int, index: int) -> Bool[np.ndarray, "H W"]:
        """One mask at the image's own size, bool [H, W]."""
        out = np.empty(self.size_hw, bool)
        self._fill_mask(out, prompt, index)
        return out

    def best(self) -> Iterator[tuple[int, int]]:
        """For each prompt, (prompt, index of its mask with the highest predicted IoU)."""
        for prompt, index in enumerate(np.argmax(np.asarray(self.scores), axis=1)):
            yield prompt, int(index)

    def _fill_mask(self, out: Bool[np.ndarray, "H W"], prompt: int, index: int) -> None:
        source = self.logits if self.unlimited is None else self.unlimited
        logits = np.asarray(source[prompt, index])
        rows, columns = _cached_matrices(
            self.size_hw, self.image_size, logits.shape[-1], self.stretches
        )
        across = logits @ columns.T
        step = max(1, BLOCK_PIXELS // self.size_hw[1])
        for start in range(0, self.size_hw[0], step):
            block = rows[start : start + step] @ across
            np.greater(block, self.threshold, out=out[start : start + step])
