"""What is known of the objects that are followed: arrays of fixed sizes, as pytrees.

O objects, of which some may be free; S slots, of which some may be empty.
"""

from typing import Any

import jax
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from sam_jax.models.sam2.config import Sam2Config
from sam_jax.one_line import one_line, short

# Stands for the frame of a slot that is empty.
EMPTY = -(1 << 30)
# How a conditioning frame has been reached since: not at all, or in which direction.
FORWARD, BACKWARD, NOT_TRACKED = 1, -1, 0


@struct.dataclass
class Slots:
    """Frames of each object.

    Attributes:
      frame: its index, `EMPTY` for a slot that holds nothing.
      memory: from the memory encoder.
      logits: the mask, at low resolution.
      direction: `FORWARD` or `BACKWARD` once it was tracked, `NOT_TRACKED` before.
    """

    frame: Int[Array, "O S"]
    memory: Float[Array, "O S h w M"]
    logits: Float[Array, "O S low low"]
    direction: Int[Array, "O S"]

    __repr__ = one_line


@struct.dataclass
class Pointers:
    """Object pointers, which are small and remembered for longer.

    Attributes:
      frame: as in `Slots`.
      pointer: from the mask decoder's token.
    """

    frame: Int[Array, "O S"]
    pointer: Float[Array, "O S C"]

    __repr__ = one_line


@struct.dataclass
class Bank:
    """All that is remembered.

    Attributes:
      conditioning: frames with prompts.
      conditioning_pointers: of the same slots.
      conditioning_scores: whether the object was there: above 0.
      recent: frames that were tracked.
      recent_pointers: of tracked frames, in slots of their own.
    """

    conditioning: Slots
    conditioning_pointers: Float[Array, "O S C"]
    conditioning_scores: Float[Array, "O S"]
    recent: Slots
    recent_pointers: Pointers

    __repr__ = one_line


@struct.dataclass
class TrackerState:
    """A video so far, as a value: older ones stay valid.

    Attributes:
      bank: arrays, of a size that depends on the bucket of objects alone.
      object_ids: of each slot of the bucket; None for a free one.
      frame_size: (height, width) of the frames.
      frame_index: of the last frame that was stepped to; -1 before the first.
      num_frames: of the whole video; 0 where it is not known.
      model: the model's name.
    """

    bank: Bank
    object_ids: tuple[Any, ...] = struct.field(pytree_node=False)
    frame_size: tuple[int, int] = struct.field(pytree_node=False)
    frame_index: int = struct.field(pytree_node=False, default=-1)
    num_frames: int = struct.field(pytree_node=False, default=0)
    model: str = struct.field(pytree_node=False, default="")

    @property
    def objects(self) -> tuple[Any, ...]:
        """The identities of the objects that are followed."""
        return tuple(one for one in self.object_ids if one is not None)

    def __repr__(self) -> str:
        memory = getattr(getattr(self.bank, "conditioning", None), "memory", None)
        return (
            f"TrackerState(objects={short(self.objects)}, frame_index={self.frame_index}, "
            f"num_frames={self.num_frames}, frame_size={self.frame_size}, model={self.model!r}, "
            f"memory={short(memory)}, bank={short(self.bank)})"
        )


@struct.dataclass
class Followed:
    """What a frame's objects look like.

    Attributes:
      logits: low-resolution masks.
      object_score: above 0 where the object is in the picture.
      iou: predicted, of frames that were tracked; 1 where the mask is an answer to a prompt.
    """

    logits: Float[Array, "*O low low"]
    object_score: Float[Array, "*O"]
    iou: Float[Array, "*O"]

    __repr__ = one_line


def empty_bank(
    config: Sam2Config, objects: int, conditioning: int, recent: int, memory_dtype: Any
) -> Bank:
    """A bank that remembers nothing.

    Args:
      config: of the model.
      objects: slots for objects.
      conditioning: slots for each one's frames with prompts.
      recent: slots for each one's tracked frames.
      memory_dtype: of memories.
    """
    # Made on the host and sent as a whole, which `jax.transfer_guard` allows.
    full: Any = np.full
    zeros: Any = np.zeros
    memory_type = np.dtype(memory_dtype)
    grid, low = config.grid_size, config.mask_input_size

    def slots(count: int) -> Slots:
        return Slots(
            frame=full((objects, count), EMPTY, np.int32),
            memory=zeros((objects, count, grid, grid, config.memory_dim), memory_type),
            logits=zeros((objects, count, low, low), np.float32),
            direction=full((objects, count), NOT_TRACKED, np.int32),
        )

    kept = max(recent, config.max_pointers)
    bank = Bank(
        conditioning=slots(conditioning),
        conditioning_pointers=zeros((objects, conditioning, config.embed_dim), np.float32),
        conditioning_scores=zeros((objects, conditioning), np.float32),
        recent=slots(recent),
        recent_pointers=Pointers(
            frame=full((objects, kept), EMPTY, np.int32),
            pointer=zeros((objects, kept, config.embed_dim), np.float32),
        ),
    )
    return jax.device_put(bank)
