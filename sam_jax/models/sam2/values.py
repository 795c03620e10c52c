"""The values that pass between SAM 2's parts, as pytrees."""

from flax import struct
from jaxtyping import Array, Bool, Float

from sam_jax.one_line import one_line


@struct.dataclass
class Decoded:
    """All that the decoder says of each prompt; `mask_selection` makes a choice of it.

    Attributes:
      logits: float32, the single mask and then the three of an ambiguous prompt.
      iou: float32, predicted, of each mask.
      tokens: of each mask, from which object pointers are made.
      object_score: float32, above 0 where the object is in the picture.
    """

    logits: Float[Array, "B P masks four_h four_w"]
    iou: Float[Array, "B P masks"]
    tokens: Float[Array, "B P masks C"]
    object_score: Float[Array, "B P"]

    __repr__ = one_line


@struct.dataclass
class Selected:
    """One mask for each prompt.

    Attributes:
      logits: of the mask; `ABSENT` where the object is not there.
      iou: predicted.
      token: for the object pointer.
      object_score: above 0 where the object is there.
    """

    logits: Float[Array, "B P h w"]
    iou: Float[Array, "B P"]
    token: Float[Array, "B P C"]
    object_score: Float[Array, "B P"]

    __repr__ = one_line


@struct.dataclass
class Memories:
    """What an object's frame looks at.

    Attributes:
      features: memories of past frames.
      times: positions in time of each frame.
      present: which frames count.
      pointers: object pointers, each divided into tokens.
      pointer_times: positions in time of each token.
      pointer_present: which tokens count.
    """

    features: Float[Array, "*B frames h w M"]
    times: Float[Array, "*B frames M"]
    present: Bool[Array, "*B frames"]
    pointers: Float[Array, "*B tokens M"]
    pointer_times: Float[Array, "*B tokens M"]
    pointer_present: Bool[Array, "*B tokens"]

    __repr__ = one_line
