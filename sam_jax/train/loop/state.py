"""What an update changes, and what the parts of a batch add up to."""

from typing import Any

from flax import struct
from jaxtyping import Array, Float, Int, UInt32

from sam_jax.one_line import one_line
from sam_jax.types import Params


@struct.dataclass
class TrainState:
    """All that an update changes, and what decides its random numbers.

    Attributes:
      step: updates made.
      params: what is trained, float32.
      opt_state: the optimizer's.
      constants: variables that no optimizer reaches.
      key: data of the random key of the run; every step folds its number into it.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: Any
    constants: Params
    key: UInt32[Array, " words"]

    __repr__ = one_line


@struct.dataclass
class Summed:
    """What a part of a batch gives: sums, which add up to the whole batch's.

    Attributes:
      loss: what is minimized, summed over objects (or images).
      weight: how many there are; the gradient is that of the whole loss over the whole weight.
      metrics: sums to be reported, divided by the weight likewise.
    """

    loss: Float[Array, ""]
    weight: Float[Array, ""]
    metrics: dict[str, Any]
