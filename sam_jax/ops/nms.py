"""Non-maximum suppression: of boxes that overlap, only the best stays.

As torchvision's `nms`, which the original calls: greedy, best score first, equal scores in the
order given, and a box goes when its overlap with a better one that stays is above the threshold.
Boxes without area overlap nothing.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


def box_overlap(
    box: Float[Array | np.ndarray, " 4"], boxes: Float[Array | np.ndarray, "n 4"]
) -> Float[Array | np.ndarray, " n"]:
    """Intersection over union of one box and many, x0 y0 x1 y1; not a number where both are empty.

    Areas are plain products of sides: a box of pixels x0 to x1 counts x1 - x0 columns, as in the
    original.
    """
    xp = jnp if isinstance(boxes, jax.Array) else np
    sides = xp.minimum(box[None, 2:], boxes[:, 2:]) - xp.maximum(box[None, :2], boxes[:, :2])
    sides = xp.maximum(sides, 0)
    shared = sides[:, 0] * sides[:, 1]
    area = (box[2] - box[0]) * (box[3] - box[1])
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return shared / (area + areas - shared)


def nms_reference(
    boxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, " n"], threshold: float
) -> Int[np.ndarray, " kept"]:
    """Indices of the boxes that stay, best first; in NumPy, one box at a time."""
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    with np.errstate(invalid="ignore"):
        while order.size:
            kept.append(int(order[0]))
            overlap = box_overlap(boxes[order[0]], boxes[order])
            stays = ~(overlap > float32_below(threshold))
            stays[0] = False
            order = order[stays]
    return np.array(kept, np.int64)


def nms(
    boxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, " n"], threshold: float
) -> Int[np.ndarray, " kept"]:
    """Indices of the boxes that stay, best first; compiled, for a power of two of boxes.

    Memory grows with n, not with its square; time with n times the boxes that stay.

    Args:
      boxes: x0 y0 x1 y1.
      scores: of any scale, without NaN.
      threshold: overlap above which the worse of two goes, from 0 to 1.
    """
    count = len(boxes)
    if not count:
        return np.zeros(0, np.int64)
    order = np.argsort(-scores, kind="stable")
    room = max(64, 1 << (count - 1).bit_length())
    padded = np.zeros((room, 4), np.float32)
    padded[:count] = boxes[order]
    keep = _keep(*jax.device_put((padded, np.int32(count), float32_below(threshold))))
    return order[jax.device_get(keep)[:count]]


def float32_below(threshold: float) -> np.float32:
    """The largest float32 not above the threshold: torchvision compares float32 with float64."""
    rounded = np.float32(threshold)
    return rounded if float(rounded) <= threshold else np.nextafter(rounded, np.float32(-np.inf))


@jax.jit
def _keep(
    boxes: Float[Array, "n 4"], count: Int[Array, ""], threshold: Float[Array, ""]
) -> Bool[Array, " n"]:
    """Which boxes stay; they are given best first, and only `count` of them are real."""
    places = jnp.arange(boxes.shape[0], dtype=jnp.int32)

    def some_left(state):
        return jnp.any(state[0])

    def keep_best(state):
        left, kept = state
        best = jnp.argmax(left).astype(jnp.int32)
        left &= ~(box_overlap(boxes[best], boxes) > threshold) & (places != best)
        return left, kept.at[best].set(True)

    none = jnp.zeros(boxes.shape[0], bool)
    return jax.lax.while_loop(some_left, keep_best, (places < count, none))[1]
