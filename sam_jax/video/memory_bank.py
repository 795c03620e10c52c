"""One object's memories: which are looked at, and which make room for new ones.

Slots have no axis of objects here; `jax.vmap` and `jax.lax.map` add it.
"""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sam_jax.models.sam2.sam2 import Sam2
from sam_jax.models.sam2.values import Memories
from sam_jax.types import Params
from sam_jax.video.state import EMPTY, NOT_TRACKED, Bank, Pointers, Slots


def find(frames: Int[Array, " S"], wanted: Int[Array, ""]) -> tuple[Array, Array]:
    """The slot of a frame, and whether there is one."""
    same = frames == wanted
    return jnp.argmax(same), same.any()


def slot_for(
    frames: Int[Array, " S"], wanted: Int[Array, ""], keep_first: bool = False
) -> Int[Array, ""]:
    """Where a frame is written: over itself, else into an empty slot, else over the furthest away.

    Args:
      frames: of the slots.
      wanted: the frame to be written.
      keep_first: never write over the earliest frame.
    """
    distance = jnp.abs(frames - wanted)
    if keep_first:
        distance = jnp.where(frames == frames.min(), -1, distance)
    distance = jnp.where(frames == EMPTY, jnp.iinfo(jnp.int32).max - 1, distance)
    return jnp.argmax(jnp.where(frames == wanted, jnp.iinfo(jnp.int32).max, distance))


def memories(
    model: Sam2,
    params: Params,
    bank: Bank,
    frame: Int[Array, ""],
    direction: Int[Array, ""],
    pointer_frames: Int[Array, ""],
) -> Memories:
    """What a frame looks at (SAM 2 section C.1; the original's `SAM2Base`).

    All conditioning frames; of the recent ones those one to `num_memories - 1` steps before, in the
    direction of tracking; pointers of conditioning frames that are no later than this one, and of
    recent ones up to `pointer_frames - 1` steps before.

    Args:
      model: the architecture.
      params: its variables.
      bank: of one object.
      frame: its index.
      direction: 1 forward, -1 backward.
      pointer_frames: the lesser of `max_pointers` and the video's length.
    """
    config = model.config
    conditioning, recent = bank.conditioning, bank.recent
    steps = jnp.arange(1, config.num_memories, dtype=jnp.int32)
    same = recent.frame[None] == (frame - direction * steps)[:, None]
    features = jnp.concatenate([conditioning.memory, recent.memory[jnp.argmax(same, axis=1)]])
    present = jnp.concatenate([conditioning.frame != EMPTY, same.any(axis=1)])
    all_steps = jnp.concatenate([jnp.zeros_like(conditioning.frame), steps])
    times: Any = model.apply(params, all_steps, method="frame_times")

    old = bank.recent_pointers
    frames = jnp.concatenate([conditioning.frame, old.frame])
    ago = (frame - frames) * direction
    first = jnp.arange(frames.shape[0]) < conditioning.frame.shape[0]
    seen = (frames != EMPTY) & jnp.where(first, ago >= 0, (ago >= 1) & (ago < pointer_frames))
    longest = jnp.maximum(pointer_frames - 1, 1).astype(jnp.float32)
    ago = jnp.where(seen, ago, 0).astype(jnp.float32) / longest
    pointers = jnp.concatenate([bank.conditioning_pointers, old.pointer])
    described: Any = model.apply(params, pointers, ago, method="pointer_tokens")
    tokens, when = described
    seen = jnp.repeat(seen, tokens.shape[0] // seen.shape[0])
    return Memories(features, times, present, tokens, when, seen)


def remember_tracked(
    bank: Bank,
    frame: Int[Array, ""],
    direction: Int[Array, ""],
    memory: Float[Array, "h w M"],
    logits: Float[Array, "low low"],
    pointer: Float[Array, " C"],
) -> Bank:
    """The bank with a frame that was tracked."""
    recent, old = bank.recent, bank.recent_pointers
    slot, place = slot_for(recent.frame, frame), slot_for(old.frame, frame)
    return replace(
        bank,
        recent=_written(recent, slot, frame, memory, logits, direction),
        recent_pointers=Pointers(
            old.frame.at[place].set(frame), old.pointer.at[place].set(pointer)
        ),
    )


def remember_prompted(
    bank: Bank,
    frame: Int[Array, ""],
    memory: Float[Array, "h w M"],
    logits: Float[Array, "low low"],
    pointer: Float[Array, " C"],
    score: Float[Array, ""],
    direction: Int[Array, ""],
) -> Bank:
    """The bank with a frame that has prompts, which is no tracked frame any more."""
    slot = slot_for(bank.conditioning.frame, frame, keep_first=True)
    recent, old = bank.recent, bank.recent_pointers
    return replace(
        bank,
        conditioning=_written(bank.conditioning, slot, frame, memory, logits, direction),
        conditioning_pointers=bank.conditioning_pointers.at[slot].set(pointer),
        conditioning_scores=bank.conditioning_scores.at[slot].set(score),
        recent=replace(recent, frame=jnp.where(recent.frame == frame, EMPTY, recent.frame)),
        recent_pointers=replace(old, frame=jnp.where(old.frame == frame, EMPTY, old.frame)),
    )


def earlier_mask(bank: Bank, frame: Int[Array, ""]) -> tuple[Array, Bool[Array, ""], Array]:
    """What is known of a frame already: its mask, whether there is one, how it was tracked.

    Returns:
      logits [low, low]; a bool; and a direction, `NOT_TRACKED` for a frame that has prompts but has
      not been passed since.
    """
    slot, prompted = find(bank.conditioning.frame, frame)
    place, tracked = find(bank.recent.frame, frame)
    logits = jnp.where(prompted, bank.conditioning.logits[slot], bank.recent.logits[place])
    direction = jnp.where(
        prompted,
        bank.conditioning.direction[slot],
        jnp.where(tracked, bank.recent.direction[place], NOT_TRACKED),
    )
    return logits, prompted | tracked, direction


def _written(
    slots: Slots, slot: Array, frame: Any, memory: Array, logits: Array, direction: Any
) -> Slots:
    return Slots(
        frame=slots.frame.at[slot].set(frame),
        memory=slots.memory.at[slot].set(memory.astype(slots.memory.dtype)),
        logits=slots.logits.at[slot].set(logits),
        direction=slots.direction.at[slot].set(direction),
    )
