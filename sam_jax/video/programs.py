"""The compiled programs of tracking: a frame encoded, an object prompted, all objects followed.

Each is a pure function of parameters and arrays; shapes depend on the bucket of objects and of
points alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sam_jax.models.features import ImageFeatures
from sam_jax.models.sam2.mask_selection import ABSENT, select
from sam_jax.models.sam2.sam2 import Sam2
from sam_jax.ops.holes import fill_small_holes
from sam_jax.ops.platform import traced_platform
from sam_jax.ops.resample import antialiased_matrix, linear_matrix
from sam_jax.types import FEEDBACK_LIMIT, LABEL_ABSENT, LABEL_NOT_A_POINT, Params, Prompts
from sam_jax.video.memory_bank import (
    earlier_mask,
    find,
    memories,
    remember_prompted,
    remember_tracked,
)
from sam_jax.video.state import EMPTY, NOT_TRACKED, Bank, Followed

# The logits of a mask that is given.
GIVEN_LOGIT = 10.0


@dataclass(frozen=True)
class TrackingRules:
    """What the original's builders call post-processing; it is on unless they are told otherwise.

    Attributes:
      dynamic_multimask: see `mask_selection.single_masks`.
      binarize_prompted: memories of frames with prompts are of their masks, not of probabilities.
      fill_hole_area: holes up to so many low-resolution pixels are filled; 0 for none.
    """

    dynamic_multimask: bool = True
    binarize_prompted: bool = True
    fill_hole_area: int = 8


@partial(jax.jit, static_argnums=0)
def encode_frame(model: Sam2, params: Params, image: Float[Array, "H W 3"]) -> ImageFeatures:
    """Features of one normalized frame, without a batch axis."""
    features = _apply(model, params, image[None], method="encode_image")
    return jax.tree.map(lambda x: x[0], features)


@partial(jax.jit, static_argnums=(0, 1))
def prompt_with_points(
    model: Sam2,
    rules: TrackingRules,
    params: Params,
    own: Bank,
    features: ImageFeatures,
    frame: Int[Array, ""],
    points: Float[Array, "N 2"],
    labels: Int[Array, " N"],
    pointer_frames: Int[Array, ""],
) -> tuple[Bank, Followed]:
    """Clicks, or a box as two points, on one object in one frame.

    A frame that was tracked is corrected: it looks at its memories. One that was not is segmented
    by itself, as a picture. A mask that is known of it is given back either way.

    Args:
      model: the architecture.
      rules: of tracking.
      params: variables.
      own: the object's part of the bank, from `object_bank`.
      features: of the frame.
      frame: the frame's index.
      points: in the frame of the model's input.
      labels: as in `Prompts`.
      pointer_frames: see `memory_bank.memories`.
    """
    before, known, direction = earlier_mask(own, frame)

    def with_memories():
        turn = jnp.where(direction == NOT_TRACKED, 1, direction)
        seen = memories(model, params, own, frame, turn, pointer_frames)
        shared = _apply(model, params, features.embedding, method="before_memories")
        return _apply(model, params, shared, seen, method="with_memories_of_one")

    def alone():
        return _apply(model, params, features.embedding, method="without_memory")

    embedding = jax.lax.cond(direction != NOT_TRACKED, with_memories, alone)
    prompts = Prompts(
        points=points[None, None],
        labels=labels[None, None],
        masks=jnp.clip(before, -FEEDBACK_LIMIT, FEEDBACK_LIMIT)[None, None],
        mask_present=known[None, None],
    )
    multimask = (labels != LABEL_ABSENT).sum() <= 1
    decoded = _decode(model, params, rules, features, embedding, prompts, multimask)
    logits, score, pointer, iou = decoded
    logits = fill_small_holes(logits, rules.fill_hole_area)
    new = _with_prompted(
        model, rules, params, own, features, frame, logits, score, pointer, direction
    )
    return new, Followed(logits, score, iou)


@partial(jax.jit, static_argnums=(0, 1))
def prompt_with_mask(
    model: Sam2,
    rules: TrackingRules,
    params: Params,
    own: Bank,
    features: ImageFeatures,
    frame: Int[Array, ""],
    mask: Float[Array, "H W"],
) -> tuple[Bank, Followed]:
    """A mask of one object in one frame, which is taken as it is.

    Args:
      model: the architecture.
      rules: of tracking.
      params: variables.
      own: the object's part of the bank, from `object_bank`.
      features: of the frame.
      frame: the frame's index.
      mask: 0 and 1, at the resolution of the input.
    """
    low = model.config.mask_input_size
    smaller = jnp.asarray(antialiased_matrix(mask.shape[0], low), jnp.float32)
    given = GIVEN_LOGIT * (2 * mask - 1)
    logits = jnp.einsum("hy,yx,wx->hw", smaller, given, smaller, precision="highest")
    prompts = Prompts(
        points=jnp.zeros((1, 1, 1, 2), jnp.float32),
        labels=jnp.full((1, 1, 1), LABEL_NOT_A_POINT, jnp.int32),
        masks=_apply(model, params, mask[None, None], method="mask_prompts"),
    )
    # Only for the pointer; the embedding has not even the vector for no memory here.
    _, _, pointer, _ = _decode(
        model, params, rules, features, features.embedding, prompts, jnp.asarray(False)
    )
    there = (mask > 0).any()
    nobody = _apply(model, params, pointer, jnp.asarray(False), method="object_pointer")
    pointer = jnp.where(there, pointer, nobody)
    score = jnp.where(there, jnp.float32(GIVEN_LOGIT), jnp.float32(-GIVEN_LOGIT))
    _, _, direction = earlier_mask(own, frame)
    logits = fill_small_holes(logits, rules.fill_hole_area)
    new = _with_prompted(
        model, rules, params, own, features, frame, logits, score, pointer, direction
    )
    return new, Followed(logits, score, jnp.ones((), jnp.float32))


@partial(jax.jit, static_argnums=(0, 1))
def follow(
    model: Sam2,
    rules: TrackingRules,
    params: Params,
    bank: Bank,
    features: ImageFeatures,
    frame: Int[Array, ""],
    direction: Int[Array, ""],
    pointer_frames: Int[Array, ""],
) -> tuple[Bank, Followed]:
    """All objects in a frame: those with prompts there as they are, the others tracked.

    Args:
      model: the architecture.
      rules: of tracking.
      params: variables.
      bank: of all objects; those that have no conditioning frame are not there.
      features: of the frame.
      frame: its index.
      direction: 1 forward, -1 backward.
      pointer_frames: see `memory_bank.memories`.
    """
    config = model.config
    low = config.mask_input_size
    shared = _apply(model, params, features.embedding, method="before_memories")
    prompts = Prompts(
        points=jnp.zeros((1, 1, 1, 2), jnp.float32),
        labels=jnp.full((1, 1, 1), LABEL_NOT_A_POINT, jnp.int32),
    )

    def track(own: Bank) -> tuple[Array, ...]:
        seen = memories(model, params, own, frame, direction, pointer_frames)
        embedding = _apply(model, params, shared, seen, method="with_memories_of_one")
        multimask = jnp.asarray(True)
        logits, score, pointer, iou = _decode(
            model, params, rules, features, embedding, prompts, multimask
        )
        probabilities = jax.nn.sigmoid(_at_input(model, logits))
        memory = _apply(
            model,
            params,
            features.embedding[None],
            probabilities[None],
            (score > 0)[None],
            method="encode_memory",
        )[0]
        shown = fill_small_holes(logits, rules.fill_hole_area)
        return memory.astype(own.recent.memory.dtype), shown, score, pointer, iou

    def prompted(own: Bank) -> tuple[Array, ...]:
        slot, _ = find(own.conditioning.frame, frame)
        return (
            jnp.zeros(own.recent.memory.shape[1:], own.recent.memory.dtype),
            own.conditioning.logits[slot],
            own.conditioning_scores[slot],
            own.conditioning_pointers[slot],
            jnp.ones((), jnp.float32),
        )

    def absent(own: Bank) -> tuple[Array, ...]:
        memory, _, score, pointer, iou = prompted(own)
        logits = jnp.full((low, low), ABSENT, jnp.float32)
        return memory, logits, jnp.full_like(score, ABSENT), pointer, jnp.zeros_like(iou)

    exists = (bank.conditioning.frame != EMPTY).any(axis=1)
    has_prompts = (bank.conditioning.frame == frame).any(axis=1)
    kind = jnp.where(exists, jnp.where(has_prompts, 1, 0), 2)

    def one(args: tuple[Array, Bank]) -> tuple[Array, ...]:
        return jax.lax.switch(args[0], (track, prompted, absent), args[1])

    new = _for_each(one, (kind, bank))
    memory, logits, score, pointer, iou = new

    def remembered(kind, own, memory, logits, pointer):
        tracked = remember_tracked(own, frame, direction, memory, logits, pointer)
        passed = replace(
            own.conditioning,
            direction=jnp.where(
                own.conditioning.frame == frame, direction, own.conditioning.direction
            ),
        )
        with_prompts = replace(own, conditioning=passed)
        return jax.tree.map(
            lambda a, b, c: jnp.where(kind == 0, a, jnp.where(kind == 1, b, c)),
            tracked,
            with_prompts,
            own,
        )

    bank = jax.vmap(remembered)(kind, bank, memory, logits, pointer)
    return bank, Followed(logits, score, iou)


@jax.jit
def object_bank(bank: Bank, which: Int[Array, ""]) -> Bank:
    """One object's part of the bank, without the axis of objects: the same for every bucket."""
    return jax.tree.map(lambda x: x[which], bank)


@jax.jit
def with_object_bank(bank: Bank, which: Int[Array, ""], own: Bank) -> Bank:
    """The bank with one object's part replaced."""
    return jax.tree.map(lambda all_, one: all_.at[which].set(one), bank, own)


@jax.jit
def forget(bank: Bank, which: Int[Array, ""]) -> Bank:
    """The bank without one object."""

    def emptied(slots: Any) -> Any:
        return replace(slots, frame=slots.frame.at[which].set(EMPTY))

    return replace(
        bank,
        conditioning=emptied(bank.conditioning),
        recent=emptied(bank.recent),
        recent_pointers=emptied(bank.recent_pointers),
    )


def _apply(model: Sam2, params: Params, *args: Any, method: str) -> Any:
    return model.apply(params, *args, method=method)


def _for_each(function: Callable, objects: Any) -> Any:
    """Over the axis of objects: on a CPU in turn, what is not there taking no time."""
    if traced_platform() == "cpu":
        return jax.lax.map(function, objects)
    return jax.vmap(function)(objects)


def _decode(
    model: Sam2,
    params: Params,
    rules: TrackingRules,
    features: ImageFeatures,
    embedding: Float[Array, "h w C"],
    prompts: Prompts,
    multimask: Array,
) -> tuple[Array, Array, Array, Array]:
    """Logits, object score, pointer and predicted IoU of one prompt."""
    batch = jax.tree.map(lambda x: x[None], features)
    decoded = _apply(model, params, embedding[None], batch, prompts, method="decode_all")
    chosen = select(decoded, multimask[None, None], rules.dynamic_multimask)
    score = chosen.object_score[0, 0]
    pointer = _apply(model, params, chosen.token[0, 0], score > 0, method="object_pointer")
    return chosen.logits[0, 0], score, pointer, chosen.iou[0, 0]


def _at_input(model: Sam2, logits: Float[Array, "low low"]) -> Float[Array, "H W"]:
    """Low-resolution logits at the resolution of the input."""
    matrix = linear_matrix(logits.shape[0], model.config.image_size)
    larger = jnp.asarray(matrix, jnp.float32)
    return jnp.einsum("yh,hw,xw->yx", larger, logits, larger, precision="highest")


def _with_prompted(
    model: Sam2,
    rules: TrackingRules,
    params: Params,
    own: Bank,
    features: ImageFeatures,
    frame: Array,
    logits: Array,
    score: Array,
    pointer: Array,
    direction: Array,
) -> Bank:
    larger = _at_input(model, logits)
    mask = (larger > 0).astype(jnp.float32) if rules.binarize_prompted else jax.nn.sigmoid(larger)
    memory = _apply(
        model,
        params,
        features.embedding[None],
        mask[None],
        (score > 0)[None],
        method="encode_memory",
    )
    return remember_prompted(own, frame, memory[0], logits, pointer, score, direction)
