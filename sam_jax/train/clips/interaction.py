"""Interactive training through time: a clip, prompts in some of its frames, memories in between.

SAM 2 section D.2 and its released training code: first the frames whose prompts start an object,
then the others in their order; some of them get clicks where the mask is wrong.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from sam_jax.models.features import ImageFeatures
from sam_jax.models.sam2.config import Sam2Config
from sam_jax.models.sam2.mask_selection import select
from sam_jax.models.sam2.values import Decoded, Memories
from sam_jax.ops.resample import antialiased_matrix, linear_matrix
from sam_jax.train.interactive.losses import LossOptions, mask_terms
from sam_jax.train.interactive.simulation import (
    SimulationOptions,
    correction,
    noisy_box,
    random_pixel,
)
from sam_jax.types import (
    LABEL_ABSENT,
    LABEL_FOREGROUND,
    LABEL_NOT_A_POINT,
    Prompts,
    box_corners,
)

# A method of `Sam2` and its arguments -> what it gives.
Apply = Callable[..., Any]

# The logits of a mask that is given.
_GIVEN_LOGIT = 10.0
_FIRST_SLOTS = 2


@dataclass(frozen=True)
class ClipInteractionOptions:
    """Which frames have prompts, which are corrected, what is minimized; defaults are SAM 2's.

    Attributes:
      mask_probability: [probability] how often a clip's objects start from their true masks, and
        are not corrected; a clip of one frame never does.
      box_probability: [probability] how often an object that does not start from its mask starts
        from a box rather than a click.
      max_conditioning: [frames] frames that have first prompts, at most; the first frame always has
        them.
      max_corrected: [frames] frames that are corrected by clicks, at most; frames with first
        prompts are counted.
      correction_points: [clicks] clicks in each corrected frame.
      from_mask_probability: [probability] how often a click is drawn from the whole object rather
        than from where the prediction is wrong.
      box_noise: [fraction of the box's width or height] limit of the uniform noise of each
        coordinate of a box.
      max_box_noise: [pixels of a 1024-pixel frame] another limit of that noise; the lesser of the
        two counts.
      focal_weight: weight of the focal loss.
      dice_weight: weight of the dice loss.
      iou_weight: weight of the absolute error of the predicted IoU.
      presence_weight: weight of the cross-entropy of the object's presence.
      terms: a table of its own for the terms of the losses; `focal_alpha` and `focal_gamma` alone
        count here.
    """

    mask_probability: float = 0.5
    box_probability: float = 0.5
    max_conditioning: int = 2
    max_corrected: int = 2
    correction_points: int = 7
    from_mask_probability: float = 0.1
    box_noise: float = 0.1
    max_box_noise: float = 20.0
    focal_weight: float = 20.0
    dice_weight: float = 1.0
    iou_weight: float = 1.0
    presence_weight: float = 1.0
    terms: LossOptions = field(default_factory=LossOptions)


# Fields hold whatever `jax.tree.map` puts there.


@struct.dataclass
class ClipLosses:
    """Sums over objects, frames and clicks.

    Attributes:
      total: what is minimized.
      focal: of the mask of least loss.
      dice: likewise.
      iou: absolute error of predicted IoU.
      presence: cross-entropy.
    """

    total: Any
    focal: Any
    dice: Any
    iou: Any
    presence: Any

    def __add__(self, other: "ClipLosses") -> "ClipLosses":
        return jax.tree.map(jnp.add, self, other)


@struct.dataclass
class ClipPlan:
    """What is drawn for a clip before anything is predicted.

    Attributes:
      order: of its frames.
      starts: which frames have prompts to start from.
      corrected: which get clicks.
      from_mask: whether the prompts to start from are true masks.
      from_box: whether each frame's are boxes, if they are no masks.
    """

    order: Any
    starts: Any
    corrected: Any
    from_mask: Any
    from_box: Any


@struct.dataclass
class _Past:
    memory: Any
    pointer: Any
    seen: Any
    conditioning: Any


def plan_clip(key: PRNGKeyArray, frames: int, options: ClipInteractionOptions) -> ClipPlan:
    """Draws which frames of a clip have which prompts."""
    keys = jax.random.split(key, 6)
    index = jnp.arange(frames)
    more = jax.random.randint(keys[0], (), 0, min(options.max_conditioning, frames))
    shuffled = jax.random.permutation(keys[1], index[1:])
    rank = jnp.zeros(frames, jnp.int32).at[shuffled].set(jnp.arange(frames - 1))
    starts = (index == 0) | ((index > 0) & (rank < more))
    from_mask = jax.random.bernoulli(keys[2], options.mask_probability) & (frames > 1)
    # At least those to start from, and then others, up to as many as are drawn.
    wanted = jax.random.randint(keys[3], (), 1, min(options.max_corrected, frames) + 1)
    others = jax.random.uniform(keys[4], (frames,)) + jnp.where(starts, -1.0, 0.0)
    place = jnp.argsort(jnp.argsort(others))
    corrected = (starts | (place < wanted)) & ~from_mask & (options.max_corrected > 0)
    order = jnp.argsort(jnp.where(starts, index, index + frames))
    from_box = jax.random.bernoulli(keys[5], options.box_probability, (frames,))
    return ClipPlan(order, starts, corrected, from_mask, from_box)


def interact_with_clip(
    apply: Apply,
    config: Sam2Config,
    features: ImageFeatures,
    targets: Bool[Array, "T P H W"],
    weights: Float[Array, " P"],
    key: PRNGKeyArray,
    options: ClipInteractionOptions,
) -> tuple[ClipLosses, Float[Array, " T"]]:
    """Goes through one clip as a person and the tracker would, and sums up the losses.

    Args:
      apply: calls a method of `Sam2`, made with `differentiable`.
      config: of the model.
      features: of all frames.
      targets: true masks, empty where an object is hidden.
      weights: of objects; 0 for those that only fill the batch.
      key: decides all that is random.
      options: what is done.

    Returns:
      The losses; and the IoU of each frame's last mask, summed over objects. Where there is nothing
      to be found, finding nothing counts 1.
    """
    frames, objects = targets.shape[:2]
    plan_key, frame_key = jax.random.split(key)
    plan = plan_clip(plan_key, frames, options)
    grid, dim = features.embedding.shape[1:3], config.memory_dim
    past = _Past(
        memory=jnp.zeros((objects, frames, *grid, dim)),
        pointer=jnp.zeros((objects, frames, config.embed_dim)),
        seen=jnp.zeros(frames, bool),
        conditioning=jnp.zeros(frames, bool),
    )

    # Computed again in the backward pass: all frames' activations would not fit.
    @jax.checkpoint
    def one_frame(carry, index):
        past, losses = carry
        here = jax.tree.map(lambda x: x[index], features)
        steps = _Frame(apply, config, here, targets[index], weights, options)
        keys = jax.random.split(jax.random.fold_in(frame_key, index), 2)
        fresh = apply("without_memory", here.embedding)
        fresh = jnp.broadcast_to(fresh, (objects, *fresh.shape))
        # Attention to nothing has no meaning; what it gives is not used.
        remembered = _memories(apply, config, past, index, frames)
        coloured = apply("with_memories", here.embedding, remembered)
        start = plan.starts[index]
        embedding = jnp.where(start, fresh, coloured)
        given = start & plan.from_mask
        pointed, new = steps.with_points(
            embedding, keys[0], start, plan.from_box[index], plan.corrected[index]
        )
        masked = steps.with_mask()
        final = jax.tree.map(lambda a, b: jnp.where(given, a, b), masked, pointed)
        losses = losses + jax.tree.map(lambda x: jnp.where(given, 0.0, x), new)
        logits, pointer, score = final
        probability = jax.nn.sigmoid(_at_input(logits, targets.shape[-1]))
        memory = apply("encode_memory", here.embedding[None], probability, score > 0)
        past = _Past(
            past.memory.at[:, index].set(memory.astype(past.memory.dtype)),
            past.pointer.at[:, index].set(pointer),
            past.seen.at[index].set(True),
            past.conditioning.at[index].set(start | plan.corrected[index]),
        )
        return (past, losses), steps.overlap(logits)

    zero = jnp.zeros(())
    carry = (past, ClipLosses(zero, zero, zero, zero, zero))
    (_, losses), overlap = jax.lax.scan(one_frame, carry, plan.order)
    return losses, jnp.zeros(frames).at[plan.order].set(overlap)


def _memories(apply: Apply, config: Sam2Config, past: _Past, index: Array, frames: int) -> Memories:
    """What a frame looks at; in training also pointers of later conditioning frames."""
    objects = past.pointer.shape[0]
    ago = index - jnp.arange(frames)
    near = (ago >= 1) & (ago < config.num_memories)
    present = past.seen & (past.conditioning | near)
    steps = jnp.where(past.conditioning, 0, jnp.clip(ago, 1, config.num_memories - 1))
    times = apply("frame_times", steps)
    span = min(config.max_pointers, frames)
    pointed = past.seen & (past.conditioning | ((ago >= 1) & (ago < span)))
    when = jnp.broadcast_to(ago / max(span - 1, 1), past.pointer.shape[:2])
    tokens, token_times = apply("pointer_tokens", past.pointer, when)

    def for_all(x):
        return jnp.broadcast_to(x, (objects, *x.shape))

    each = tokens.shape[1] // frames
    return Memories(
        past.memory,
        for_all(times),
        for_all(present),
        tokens,
        token_times,
        for_all(jnp.repeat(pointed, each)),
    )


@dataclass(frozen=True)
class _Frame:
    """One frame's objects: prompts, masks and losses."""

    apply: Apply
    config: Sam2Config
    features: ImageFeatures
    targets: Array
    weights: Array
    options: ClipInteractionOptions

    def with_points(
        self, embedding: Array, key: PRNGKeyArray, start: Array, boxed: Array, corrected: Array
    ) -> tuple[tuple[Array, Array, Array], ClipLosses]:
        """The first prompt, if it starts objects, and the clicks, if it is corrected."""
        options = self.options
        count, room = self.targets.shape[0], options.correction_points
        first_key, click_key = jax.random.split(key)
        points, labels = self._first(jax.random.split(first_key, count), start, boxed)
        points = jnp.pad(points, ((0, 0), (0, room), (0, 0)))
        labels = jnp.pad(labels, ((0, 0), (0, room)), constant_values=LABEL_ABSENT)
        chosen, losses = self._decoded(embedding, points, labels, None)

        def click(carry, slot):
            (logits, pointer, score), points, labels, losses = carry
            full = _at_input(logits, self.targets.shape[-1])
            keys = jax.random.split(jax.random.fold_in(click_key, slot), count)
            place, label = jax.vmap(self._click)(keys, full > 0, self.targets)
            points = points.at[:, slot].set(place)
            labels = labels.at[:, slot].set(label)
            chosen, new = self._decoded(embedding, points, labels, logits)
            return (chosen, points, labels, losses + new), None

        def clicks(carry):
            slots = _FIRST_SLOTS + jnp.arange(room)
            return jax.lax.scan(jax.checkpoint(click), carry, slots)[0]

        carry = (chosen, points, labels, losses)
        if room:
            carry = jax.lax.cond(corrected, clicks, lambda carry: carry, carry)
        return carry[0], carry[3]

    def with_mask(self) -> tuple[Array, Array, Array]:
        """True masks taken as they are; a pointer comes from the decoder."""
        true = self.targets.astype(jnp.float32)
        smaller = jnp.asarray(
            antialiased_matrix(true.shape[-1], 4 * self.features.embedding.shape[0]), jnp.float32
        )
        given = _GIVEN_LOGIT * (2 * true - 1)
        logits = jnp.einsum("hy,pyx,wx->phw", smaller, given, smaller, precision="highest")
        count = true.shape[0]
        embedding = jnp.broadcast_to(
            self.features.embedding, (count, *self.features.embedding.shape)
        )
        prompts = Prompts(
            points=jnp.zeros((count, 1, 1, 2)),
            labels=jnp.full((count, 1, 1), LABEL_NOT_A_POINT, jnp.int32),
            masks=self.apply("mask_prompts", true[:, None]),
        )
        decoded = self.apply("decode_all", embedding, self._batched(), prompts)
        there = true.any(axis=(1, 2))
        chosen = select(decoded, jnp.zeros((count, 1), bool), False)
        pointer = self.apply(
            "object_pointer", chosen.token[:, 0], there & (chosen.object_score[:, 0] > 0)
        )
        return logits, pointer, jnp.where(there, _GIVEN_LOGIT, -_GIVEN_LOGIT)

    def overlap(self, logits: Array) -> Array:
        """IoU with the true masks, summed over objects."""
        found = _at_input(logits, self.targets.shape[-1]) > 0
        both = (found & self.targets).sum(axis=(1, 2))
        either = (found | self.targets).sum(axis=(1, 2))
        iou = jnp.where(either > 0, both / jnp.maximum(either, 1), 1.0)
        return jnp.where(self.weights > 0, iou, 0.0).sum()

    def _first(self, keys: Array, start: Array, boxed: Array) -> tuple[Array, Array]:
        """A click or a box, or the token of a frame without prompts: two slots of each object."""
        size = jnp.array(self.targets.shape[1:])
        options = self.options
        noise = SimulationOptions(
            box_noise=options.box_noise,
            max_box_noise=options.max_box_noise * self.targets.shape[-1] / 1024,
            box_noise_kind="uniform",
        )

        def of_object(key, mask):
            # An object that is hidden is pointed out by a place where it is not.
            there = mask.any()
            point = jnp.stack([random_pixel(key, jnp.where(there, mask, ~mask)), jnp.zeros(2)])
            box, box_labels = box_corners(noisy_box(key, mask, size, noise))
            as_box = boxed & there
            labels = jnp.where(
                as_box,
                box_labels,
                jnp.array([LABEL_FOREGROUND, LABEL_ABSENT]) * jnp.array([there, 1]),
            )
            nothing = jnp.array([LABEL_NOT_A_POINT, LABEL_ABSENT])
            points = jnp.where(start, jnp.where(as_box, box, point), 0.0)
            return points, jnp.where(start, labels, nothing).astype(jnp.int32)

        return jax.vmap(of_object)(keys, self.targets)

    def _click(self, key: PRNGKeyArray, predicted: Array, true: Array) -> tuple[Array, Array]:
        """Where the mask is wrong; now and then anywhere on the object."""
        which, wrong_key, any_key = jax.random.split(key, 3)
        place, label = correction(wrong_key, predicted, true, jnp.array(true.shape))
        # Where there is no object, the background.
        inside = jnp.where(true.any(), true, ~true)
        anywhere = random_pixel(any_key, inside)
        free = jax.random.bernoulli(which, self.options.from_mask_probability)
        place = jnp.where(free, anywhere, place)
        return place, jnp.where(free, true.any().astype(jnp.int32), label)

    def _decoded(
        self, embedding: Array, points: Array, labels: Array, masks: Array | None
    ) -> tuple[tuple[Array, Array, Array], ClipLosses]:
        clicks = (labels >= 0).sum(axis=1)
        # A frame with clicks and no first prompt has no token for that any more.
        empty = (labels[:, 0] == LABEL_NOT_A_POINT) & (clicks > 0)
        labels = labels.at[:, 0].set(jnp.where(empty, LABEL_ABSENT, labels[:, 0]))
        prompts = Prompts(
            points=points[:, None],
            labels=labels[:, None],
            masks=None if masks is None else masks[:, None],
        )
        decoded = self.apply("decode_all", embedding, self._batched(), prompts)
        multimask = clicks <= 1
        chosen = select(decoded, multimask[:, None], False)
        score = chosen.object_score[:, 0]
        pointer = self.apply("object_pointer", chosen.token[:, 0], score > 0)
        losses = self._losses(decoded, multimask)
        return (chosen.logits[:, 0], pointer, score), losses

    def _batched(self) -> ImageFeatures:
        return jax.tree.map(lambda x: x[None], self.features)

    def _losses(self, decoded: Decoded, multimask: Array) -> ClipLosses:
        options = self.options

        @jax.checkpoint
        def of_object(args):
            logits, target = args
            return mask_terms(_at_input(logits, target.shape[-1]), target, options.terms)

        terms = jax.lax.map(of_object, (decoded.logits[:, 0], self.targets))
        there = self.targets.any(axis=(1, 2))
        # The single mask, or the three; and of them the best.
        counts = multimask[:, None] == (jnp.arange(terms.focal.shape[1]) > 0)
        mask_loss = options.focal_weight * terms.focal + options.dice_weight * terms.dice
        best = jnp.argmin(jnp.where(counts, mask_loss, jnp.inf), axis=1, keepdims=True)
        error = jnp.abs(decoded.iou[:, 0] - terms.iou)
        error = jnp.where(counts, error, 0.0).sum(axis=1) / counts.sum(axis=1)
        score = decoded.object_score[:, 0]
        presence = jax.nn.softplus(jnp.where(there, -score, score))

        def summed(values, where):
            return jnp.where((self.weights > 0) & where, self.weights * values, 0.0).sum()

        focal = summed(jnp.take_along_axis(terms.focal, best, axis=1)[:, 0], there)
        dice = summed(jnp.take_along_axis(terms.dice, best, axis=1)[:, 0], there)
        iou = summed(error, there)
        present = summed(presence, True)
        total = (
            options.focal_weight * focal
            + options.dice_weight * dice
            + options.iou_weight * iou
            + options.presence_weight * present
        )
        return ClipLosses(total, focal, dice, iou, present)


def _at_input(logits: Float[Array, "*n low low"], side: int) -> Float[Array, "*n S S"]:
    larger = jnp.asarray(linear_matrix(logits.shape[-1], side), jnp.float32)
    return jnp.einsum("yh,...hw,xw->...yx", larger, logits, larger, precision="highest")
