"""Interactive training: prompts in turn, each an answer to the last prediction.

SAM appendix A: a first prompt, eight points from where the prediction is wrong, and two passes
without a new point, one at a random place and one at the end: eleven decodings of images that are
encoded once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from sam_jax.ops.resample import linear_matrix
from sam_jax.train.interactive.losses import (
    Losses,
    LossOptions,
    MaskTerms,
    actual_iou,
    combined,
    mask_terms,
)
from sam_jax.train.interactive.simulation import (
    FIRST_SLOTS,
    SimulationOptions,
    correction,
    first_prompt,
    pixels_inside,
)
from sam_jax.types import LABEL_ABSENT, Prompts

# An image's prompts, which masks are wanted (see `Sam.decode`), a key for dropout -> logits, IoU.
Decode = Callable[[Prompts, bool | None, PRNGKeyArray], tuple[Array, Array]]


@dataclass(frozen=True)
class InteractiveOptions:
    """What the passes are.

    Attributes:
      simulation: how prompts are drawn.
      losses: what is minimized.
      single_first: whether the single mask is trained on the first prompt too, beside the three
        (paper: no; it is not asked for then). Users ask for it.
      detach_feedback: whether logits that are fed back carry no gradient to the pass that made them
        (paper: silent; SAM 2 lets them).
    """

    simulation: SimulationOptions = SimulationOptions()
    losses: LossOptions = LossOptions()
    single_first: bool = False
    detach_feedback: bool = False


@struct.dataclass
class Interaction:
    """What the passes gave.

    Attributes:
      losses: summed over objects and passes (paper: silent on sum or mean; SAM 2 sums).
      iou: of the mask that the model was most sure of, after each pass, summed over objects.
    """

    losses: Losses
    iou: Float[Array, "*images passes"]


@struct.dataclass
class _Judged:
    terms: MaskTerms
    point: Float[Array, "... 2"]
    label: Array
    best: Array


def interact(
    decode: Decode,
    targets: Bool[Array, "P H W"],
    weights: Float[Array, " P"],
    size_hw: Int[Array, " 2"],
    key: PRNGKeyArray,
    options: InteractiveOptions,
) -> Interaction:
    """Simulates a person who corrects the masks of one image's objects, and sums up the losses.

    Of a batch, by `jax.vmap`, each image with a key of its own: what is drawn for it then depends
    neither on the others nor on the device.

    Args:
      decode: the model on an image that is encoded already; low-resolution logits [P, M, h, w] and
        predicted IoU [P, M].
      targets: true masks in the model's frame, False in the padding.
      weights: of objects; 0 for those that only fill a batch.
      size_hw: of the image in the frame; what is predicted in the padding has losses, but is
        neither clicked nor part of a mask's IoU.
      key: decides all that is random.
      options: what the passes are.
    """
    simulation = options.simulation
    order_key, first_key, judge_key, dropout_key = jax.random.split(key, 4)
    count = weights.shape[0]
    draw = jax.vmap(lambda key, mask: first_prompt(key, mask, size_hw, simulation))
    coords, labels = draw(jax.random.split(first_key, count), targets)
    room = simulation.correction_points
    coords = jnp.pad(coords, ((0, 0), (0, room), (0, 0)))
    labels = jnp.pad(labels, ((0, 0), (0, room)), constant_values=LABEL_ABSENT)

    def one_pass(coords, labels, masks, multimask, number):
        logits, predicted = decode(
            Prompts(points=coords, labels=labels, masks=masks),
            multimask,
            jax.random.fold_in(dropout_key, number),
        )
        keys = jax.random.split(jax.random.fold_in(judge_key, number), count)

        def judge(logits, predicted):
            judged = _judge(keys, logits, predicted, targets, size_hw, options.losses)
            return judged, combined(judged.terms, predicted, weights, options.losses)

        if multimask is None:
            _, of_single = judge(logits[:, :1], predicted[:, :1])
            logits, predicted = logits[:, 1:], predicted[:, 1:]
        judged, losses = judge(logits, predicted)
        if multimask is None:
            losses = losses + of_single
        feedback = jnp.take_along_axis(logits, judged.best[:, None, None, None], axis=1)[:, 0]
        if options.detach_feedback:
            feedback = jax.lax.stop_gradient(feedback)
        iou = jnp.take_along_axis(judged.terms.iou, judged.best[:, None], axis=-1)[:, 0]
        iou = jnp.where(weights > 0, iou, 0.0).sum()
        return losses, iou, feedback, judged.point, judged.label

    # A single prompt is ambiguous: three masks. Later ones have a mask among them: the single one.
    all_masks = None if options.single_first else True
    losses, first_iou, *state = one_pass(coords, labels, None, all_masks, 0)

    # Decoded again in the backward pass: eleven decodings' activations would not fit.
    @jax.checkpoint
    def later_pass(carry, step):
        losses, coords, labels, masks, point, label = carry
        number, slot = step
        # A slot out of range: nothing is written, and the pass has no new point.
        coords = coords.at[:, slot].set(point, mode="drop")
        labels = labels.at[:, slot].set(label, mode="drop")
        new, iou, *state = one_pass(coords, labels, masks, False, number)
        return (losses + new, coords, labels, *state), iou

    slots = _slots(order_key, room, simulation.mask_only_passes)
    steps = (jnp.arange(1, len(slots) + 1, dtype=jnp.int32), slots)
    (losses, *_), later_iou = jax.lax.scan(later_pass, (losses, coords, labels, *state), steps)
    return Interaction(losses, jnp.concatenate([first_iou[None], later_iou]))


def _slots(key: PRNGKeyArray, points: int, mask_only: int) -> Array:
    """Where each later pass writes its point; beyond the slots for those that have none.

    One of these is last; a second one comes before one of the points, drawn uniformly.
    """
    nowhere = FIRST_SLOTS + points
    slots = FIRST_SLOTS + jnp.arange(points, dtype=jnp.int32)
    if mask_only == 2:
        without = jax.random.randint(key, (), 0, max(points, 1), jnp.int32)
        passes = jnp.arange(points + 1, dtype=jnp.int32)
        slots = FIRST_SLOTS + passes - (passes > without).astype(jnp.int32)
        slots = jnp.where(passes == without, nowhere, slots)
    return slots if mask_only == 0 else jnp.append(slots, nowhere)


def _judge(
    keys: Key[Array, " P"],
    logits: Float[Array, "P M h w"],
    predicted: Float[Array, "P M"],
    targets: Bool[Array, "P H W"],
    size_hw: Int[Array, " 2"],
    options: LossOptions,
) -> _Judged:
    """Compares masks with the true ones at full resolution, one object at a time.

    All objects at once would be gigabytes of upscaled logits.
    """
    rows, columns = (
        jnp.asarray(linear_matrix(low, full), jnp.float32)
        for low, full in zip(logits.shape[-2:], targets.shape[-2:], strict=True)
    )

    inside = pixels_inside(targets.shape[1:], size_hw)

    @jax.checkpoint
    def one_object(args: Any) -> _Judged:
        key, logits, predicted, target = args
        highest = jax.lax.Precision.HIGHEST
        full = jnp.einsum("yh,mhw,xw->myx", rows, logits, columns, precision=highest)
        # The one that a person would be shown, which need not be the best.
        best = jnp.argmax(predicted)
        point, label = correction(key, full[best] > 0, target, size_hw)
        terms = mask_terms(full, target, options)
        iou = jax.lax.stop_gradient(actual_iou(jnp.where(inside, full, -1.0), target))
        return _Judged(replace(terms, iou=iou), point, label, best)

    return jax.lax.map(one_object, (keys, logits, predicted, targets))
