"""Which of the decoder's masks is meant (SAM 2 section C.1; the original's predictors)."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sam_jax.models.sam2.values import Decoded, Selected

# The logits of a mask whose object is not in the picture.
ABSENT = -1024.0
# A single mask is kept where its area hardly depends on the threshold.
STABILITY_DELTA = 0.05
STABILITY_THRESHOLD = 0.98


def single_masks(
    decoded: Decoded, dynamic: bool
) -> tuple[Float[Array, "B P h w"], Float[Array, "B P"]]:
    """Logits and predicted IoU of the single mask of each prompt.

    Args:
      decoded: what the decoder says.
      dynamic: put the best of the three in the place of a single mask that is not stable, as the
        original's builders set by default.
    """
    logits, iou = decoded.logits[:, :, 0], decoded.iou[:, :, 0]
    if not dynamic:
        return logits, iou
    # Numbers of pixels, which float32 holds exactly.
    inner = (logits > STABILITY_DELTA).sum(axis=(-2, -1), dtype=jnp.float32)
    outer = (logits > -STABILITY_DELTA).sum(axis=(-2, -1), dtype=jnp.float32)
    stability = jnp.where(outer > 0, inner / jnp.maximum(outer, 1), 1.0)
    stable = stability >= STABILITY_THRESHOLD
    best_logits, best_iou = _best_of_three(decoded)[:2]
    return (
        jnp.where(stable[..., None, None], logits, best_logits),
        jnp.where(stable, iou, best_iou),
    )


def select(decoded: Decoded, multimask: Bool[Array, "B P"], dynamic: bool) -> Selected:
    """The mask that is followed through a video.

    Args:
      decoded: what the decoder says.
      multimask: where the best of three is meant; elsewhere, the single one.
      dynamic: see `single_masks`.
    """
    single, single_iou = single_masks(decoded, dynamic)
    best, best_iou, best_token = _best_of_three(decoded)
    logits = jnp.where(multimask[..., None, None], best, single)
    # The single mask's own token, whichever mask stands in for it.
    token = jnp.where(multimask[..., None], best_token, decoded.tokens[:, :, 0])
    score = decoded.object_score
    logits = jnp.where((score > 0)[..., None, None], logits, ABSENT)
    return Selected(logits, jnp.where(multimask, best_iou, single_iou), token, score)


def _best_of_three(decoded: Decoded) -> tuple[Array, Array, Array]:
    best = 1 + jnp.argmax(decoded.iou[:, :, 1:], axis=-1)

    def take(x):
        index = best.reshape(*best.shape, *(1,) * (x.ndim - 2))
        return jnp.take_along_axis(x, index, axis=2)[:, :, 0]

    return take(decoded.logits), take(decoded.iou), take(decoded.tokens)
