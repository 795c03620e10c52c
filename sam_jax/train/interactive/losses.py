"""Mask and IoU losses (SAM section 3 and appendix A).

The paper gives the weights, 20 to 1 for focal and dice, and that of several masks the one of least
loss counts. What it leaves open is an option here, with SAM 2's published choice as the default.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

# Added to both sides of the dice fraction, as SAM 2 does: no mask for no object is right.
DICE_SMOOTHING = 1.0


@dataclass(frozen=True)
class LossOptions:
    """What the losses weigh, and what the paper does not say of them.

    Attributes:
      focal_weight: weight of the focal loss (paper: 20).
      dice_weight: weight of the dice loss (paper: 1).
      iou_weight: weight of the squared error of the predicted IoU (paper: 1).
      focal_alpha: weight of foreground pixels in the focal loss, background has the rest; negative
        for no weights (paper: silent; SAM 2: 0.25).
      focal_gamma: how much pixels that are right already are discounted (paper: silent; SAM 2: 2).
      others_weight: [fraction] where a prompt has several masks, the weight of the mean loss over
        all of them; the mask of least loss has the rest (paper: 0). A little keeps the other masks
        useful, which matters where training is short.
      iou_of: where a prompt has several masks, whose predicted IoU is trained: "chosen", the mask
        of least loss, or "all" (paper: silent; SAM 2 takes all).
    """

    focal_weight: float = 20.0
    dice_weight: float = 1.0
    iou_weight: float = 1.0
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    others_weight: float = 0.0
    iou_of: Literal["chosen", "all"] = "chosen"


@struct.dataclass
class MaskTerms:
    """How masks compare with their object's true mask, each [*masks].

    Attributes:
      focal: focal loss, averaged over pixels.
      dice: dice loss.
      iou: intersection over union of the mask and the true one; carries no gradient.
    """

    focal: Float[Array, "*masks"]
    dice: Float[Array, "*masks"]
    iou: Float[Array, "*masks"]


@struct.dataclass
class Losses:
    """Sums over objects; `total` is what is minimized before it is normalized.

    Attributes:
      total: the weighted sum of the others.
      focal: of the chosen mask of every object, mixed with the others' where they have a share.
      dice: likewise.
      iou: squared error of the predicted IoU.
    """

    total: Float[Array, "*images"]
    focal: Float[Array, "*images"]
    dice: Float[Array, "*images"]
    iou: Float[Array, "*images"]

    def __add__(self, other: "Losses") -> "Losses":
        return jax.tree.map(jnp.add, self, other)


def focal_loss(
    logits: Float[Array, "*masks height width"],
    target: Bool[Array, "*#masks height width"],
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Array, "*masks"]:
    """Sigmoid focal loss, averaged over pixels (Lin et al. 2017, as SAM 2 normalizes it).

    Args:
      logits: of masks.
      target: true masks.
      alpha: weight of foreground pixels, 1 - alpha of background; negative for no weights.
      gamma: the exponent.
    """
    logits = logits.astype(jnp.float32)
    # The log-probability of being right, stable for logits of any size.
    right = jax.nn.log_sigmoid(jnp.where(target, logits, -logits))
    if gamma == 0:
        return _weighted(-right, target, alpha).mean(axis=(-2, -1))
    # Where it rounds to 0, so does the loss; a power below 1 has no slope there.
    wrong = jnp.maximum(-jnp.expm1(right), jnp.finfo(jnp.float32).tiny)
    return _weighted(-right * wrong**gamma, target, alpha).mean(axis=(-2, -1))


def _weighted(loss: Array, target: Array, alpha: float) -> Array:
    if alpha < 0:
        return loss
    weights = jnp.where(target, jnp.float32(alpha), jnp.float32(1 - alpha))
    return loss * jax.lax.broadcast_to_rank(weights, loss.ndim)


def dice_loss(
    logits: Float[Array, "*masks height width"], target: Bool[Array, "*#masks height width"]
) -> Float[Array, "*masks"]:
    """One minus the dice coefficient of probabilities and true masks, smoothed (SAM 2's form)."""
    probability = jax.nn.sigmoid(logits.astype(jnp.float32))
    both = jnp.where(target, probability, 0.0).sum(axis=(-2, -1))
    sizes = probability.sum(axis=(-2, -1)) + target.sum(axis=(-2, -1), dtype=jnp.float32)
    return 1 - (2 * both + DICE_SMOOTHING) / (sizes + DICE_SMOOTHING)


def actual_iou(
    logits: Float[Array, "*masks height width"], target: Bool[Array, "*#masks height width"]
) -> Float[Array, "*masks"]:
    """Intersection over union of thresholded logits and true masks; 0 where both are empty."""
    mask = logits > 0
    target = jax.lax.broadcast_to_rank(target, mask.ndim)
    both = (mask & target).sum(axis=(-2, -1), dtype=jnp.float32)
    either = (mask | target).sum(axis=(-2, -1), dtype=jnp.float32)
    return both / jnp.maximum(either, 1.0)


def mask_terms(
    logits: Float[Array, "*masks height width"],
    target: Bool[Array, "*#masks height width"],
    options: LossOptions,
) -> MaskTerms:
    """Every mask against its object's true one, at the true one's resolution."""
    return MaskTerms(
        focal_loss(logits, target, options.focal_alpha, options.focal_gamma),
        dice_loss(logits, target),
        jax.lax.stop_gradient(actual_iou(logits, target)),
    )


def combined(
    terms: MaskTerms,
    predicted_iou: Float[Array, "*objects M"],
    weights: Float[Array, "*objects"],
    options: LossOptions,
) -> Losses:
    """The losses of one decoding, summed over objects; of an object's masks the best alone counts.

    Args:
      terms: of M masks for each object.
      predicted_iou: by the model.
      weights: of objects; 0 for those that only fill a batch, which get no gradient.
      options: weights of the terms.
    """
    mask_loss = options.focal_weight * terms.focal + options.dice_weight * terms.dice
    best = jnp.argmin(mask_loss, axis=-1, keepdims=True)

    def chosen(values: Float[Array, "*objects M"]) -> Float[Array, "*objects"]:
        return jnp.take_along_axis(values, best, axis=-1)[..., 0]

    def mixed(values: Float[Array, "*objects M"]) -> Float[Array, "*objects"]:
        if options.others_weight == 0:
            return chosen(values)
        return chosen(values) + options.others_weight * (values.mean(axis=-1) - chosen(values))

    error = jnp.square(predicted_iou.astype(jnp.float32) - terms.iou)
    error = chosen(error) if options.iou_of == "chosen" else error.mean(axis=-1)

    def total(values: Float[Array, "*objects"]) -> Float[Array, ""]:
        return jnp.where(weights > 0, weights * values, 0.0).sum()

    focal, dice, iou = total(mixed(terms.focal)), total(mixed(terms.dice)), total(error)
    weighted: Any = (
        options.focal_weight * focal + options.dice_weight * dice + options.iou_weight * iou
    )
    return Losses(weighted, focal, dice, iou)
