"""The values that pass from one part to the next, as pytrees."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Bool, Float, Int

from sam_jax.errors import InputError
from sam_jax.one_line import one_line

# On the host or on a device.
ArrayLike = jax.Array | np.ndarray

# Flax variables: {"params": {...}, "constants": {...}}, plain nested dicts of arrays.
Params = dict[str, Any]

# What a prompt token stands for. The first four are rows of the prompt encoder's table.
LABEL_BACKGROUND = 0
LABEL_FOREGROUND = 1
LABEL_BOX_TOP_LEFT = 2
LABEL_BOX_BOTTOM_RIGHT = 3
# The original's learned "not a point" token: it takes part in attention.
LABEL_NOT_A_POINT = -1
# Fills a batch up to a common shape: masked out of attention, so it changes nothing.
LABEL_ABSENT = -2
# Logits of SAM 2 that are given back as a mask prompt are cut here, on either side of 0.
FEEDBACK_LIMIT = 32.0

# Names of the types that models compute in: NumPy's, JAX's, PyTorch's and common short ones.
_COMPUTE_DTYPES = {
    **dict.fromkeys(("float32", "fp32", "f32", "float", "single"), jnp.float32),
    **dict.fromkeys(("bfloat16", "bf16"), jnp.bfloat16),
}


def box_corners(
    boxes: Float[ArrayLike, "*P 4"],
) -> tuple[Float[ArrayLike, "*P 2 2"], Int[ArrayLike, "*P 2"]]:
    """Boxes x0 y0 x1 y1 as points: their two corners, and the labels of these."""
    xp = jnp if isinstance(boxes, jax.Array) else np
    labels = xp.array([LABEL_BOX_TOP_LEFT, LABEL_BOX_BOTTOM_RIGHT], xp.int32)
    prompts = boxes.shape[:-1]
    return boxes.reshape(*prompts, 2, 2), xp.broadcast_to(labels, (*prompts, 2))


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, Python's or NumPy's; truth values are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.bool)


def compute_dtype(value: Any, name: str = "dtype") -> Any:
    """The type that a model computes in, `jnp.float32` or `jnp.bfloat16`, from any way to say it.

    Args:
      value: a name ("bfloat16", "bf16", "fp32"), or a type of NumPy's, JAX's or PyTorch's.
      name: of the option, for the error.

    Raises:
      InputError: it is another type, or no type.
    """
    known = value if isinstance(value, str) else getattr(value, "name", None)
    known = known if isinstance(known, str) else getattr(value, "__name__", str(value))
    found = _COMPUTE_DTYPES.get(known.strip().lower().removeprefix("torch."))
    if found is None:
        shown = " ".join(known.split())
        shown = shown if len(shown) <= 60 else f"of type {type(value).__name__}"
        raise InputError(f"{name} {shown} is neither float32 nor bfloat16; give one of them")
    return found


@struct.dataclass
class Prompts:
    """What to segment, in the model's own frame: pixels of the resized and padded image.

    B images, P prompts an image, N points a prompt. Whatever is not given is None; what is given
    shares B and P.

    Attributes:
      points: (x, y), where (0, 0) is the center of the first pixel.
      labels: 1 foreground, 0 background, 2 and 3 a box's corners, -1 the learned "not a point"
        token, -2 an absent point, which takes no part in anything.
      boxes: x0 y0 x1 y1.
      masks: logits at a quarter of the padded image's resolution.
      mask_present: which prompts have a mask; None means all of them. Read only with `masks`.
    """

    points: Float[ArrayLike, "B P N 2"] | None = None
    labels: Int[ArrayLike, "B P N"] | None = None
    boxes: Float[ArrayLike, "B P 4"] | None = None
    masks: Float[ArrayLike, "B P h w"] | None = None
    mask_present: Bool[ArrayLike, "B P"] | None = None

    __repr__ = one_line
