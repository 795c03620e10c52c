"""Simulated prompts: what a person would click, drawn on the device under a key (SAM appendix A).

Coordinates are (x, y) pixels of the model's frame, where (0, 0) is the center of the first pixel;
true masks are [height, width] of that frame, padding included and False there.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from sam_jax.types import (
    LABEL_ABSENT,
    LABEL_BACKGROUND,
    LABEL_FOREGROUND,
    box_corners,
)

# A first prompt is a point, or the two corners of a box.
FIRST_SLOTS = 2


@dataclass(frozen=True)
class SimulationOptions:
    """How prompts are drawn.

    Attributes:
      box_probability: [probability] how often the first prompt is a box rather than a point (paper:
        one half).
      box_noise: [fraction of the box's width or height] standard deviation of the noise of each
        coordinate of a box (paper: 0.1).
      max_box_noise: [pixels] limit of that noise (paper: 20, presumably of the 1024-pixel frame).
      box_noise_kind: distribution of the noise (paper: "random", with a standard deviation).
        "gaussian" is clamped to the limit, as in Meta's later code; "uniform" reaches to the lesser
        of `box_noise` and the limit on either side, as in SAM 2.
      correction_points: [points] points that follow the first prompt (paper: 8).
      mask_only_passes: [passes] passes without a new point (paper: 2, one at a random place and one
        at the end; SAM 2: 0). With 1 it is the one at the end.
    """

    box_probability: float = 0.5
    box_noise: float = 0.1
    max_box_noise: float = 20.0
    box_noise_kind: Literal["gaussian", "uniform"] = "gaussian"
    correction_points: int = 8
    mask_only_passes: Literal[0, 1, 2] = 2


def random_pixel(key: PRNGKeyArray, region: Bool[Array, "height width"]) -> Float[Array, " 2"]:
    """(x, y) of a pixel drawn uniformly from a region; (0, 0) where the region is empty."""
    in_rows = jnp.cumsum(region.sum(axis=1, dtype=jnp.int32))
    # The n-th pixel of the region: which row it is in, and which of that row's it is.
    wanted = jax.random.randint(key, (), 0, jnp.maximum(in_rows[-1], 1), jnp.int32)
    y = jnp.searchsorted(in_rows, wanted, side="right").astype(jnp.int32)
    y = jnp.minimum(y, region.shape[0] - 1)
    before = jnp.where(y > 0, in_rows[y - 1], 0)
    in_columns = jnp.cumsum(region[y].astype(jnp.int32))
    x = jnp.searchsorted(in_columns, wanted - before, side="right").astype(jnp.int32)
    found = in_rows[-1] > 0
    return jnp.where(found, jnp.stack([x, y]), 0).astype(jnp.float32)


def pixels_inside(
    frame_hw: tuple[int, ...], size_hw: Int[Array, " 2"]
) -> Bool[Array, "height width"]:
    """Which pixels of a frame are the image's, and no padding."""
    y, x = (jnp.arange(length, dtype=jnp.int32) for length in frame_hw)
    return (y < size_hw[0])[:, None] & (x < size_hw[1])[None]


def tight_box(mask: Bool[Array, "height width"]) -> Float[Array, " 4"]:
    """x0 y0 x1 y1 of a mask's outermost pixels; zeros where it is empty."""
    rows, columns = mask.any(axis=1), mask.any(axis=0)
    height, width = mask.shape
    box = jnp.stack(
        [
            jnp.argmax(columns),
            jnp.argmax(rows),
            width - 1 - jnp.argmax(columns[::-1]),
            height - 1 - jnp.argmax(rows[::-1]),
        ]
    )
    return jnp.where(rows.any(), box, 0).astype(jnp.float32)


def noisy_box(
    key: PRNGKeyArray,
    mask: Bool[Array, "height width"],
    size_hw: Int[Array, " 2"],
    options: SimulationOptions,
) -> Float[Array, " 4"]:
    """The box of a mask with noise on each coordinate, within the image and never turned over.

    Where the noise would leave a box without area, it is the tight one, as in Meta's later code.
    """
    box = tight_box(mask)
    size = jnp.tile(box[2:] - box[:2] + 1, 2)
    limit = options.max_box_noise
    if options.box_noise_kind == "gaussian":
        noise = options.box_noise * size * jax.random.normal(key, (4,), jnp.float32)
        noise = jnp.clip(noise, -limit, limit)
    else:
        reach = jnp.minimum(options.box_noise * size, limit)
        noise = reach * jax.random.uniform(key, (4,), jnp.float32, -1.0, 1.0)
    edge = jnp.tile(size_hw[::-1] - 1, 2).astype(jnp.float32)
    moved = jnp.clip(box + noise, 0.0, edge)
    usable = jnp.all(moved[2:] > moved[:2])
    return jnp.where(usable, moved, box)


def first_prompt(
    key: PRNGKeyArray,
    mask: Bool[Array, "height width"],
    size_hw: Int[Array, " 2"],
    options: SimulationOptions,
) -> tuple[Float[Array, "slots 2"], Int[Array, " slots"]]:
    """A point of the object or a box around it: coordinates and labels of two slots.

    Returns:
      A box's corners; or a point and a slot that is absent.
    """
    kind_key, place_key = jax.random.split(key)
    point = random_pixel(place_key, mask)
    pointed = jnp.stack([point, jnp.zeros(2, jnp.float32)])
    boxed, box_labels = box_corners(noisy_box(place_key, mask, size_hw, options))
    is_box = jax.random.bernoulli(kind_key, jnp.float32(options.box_probability))
    labels = jnp.where(
        is_box,
        box_labels,
        jnp.array([LABEL_FOREGROUND, LABEL_ABSENT], jnp.int32),
    )
    return jnp.where(is_box, boxed, pointed), labels.astype(jnp.int32)


def correction(
    key: PRNGKeyArray,
    predicted: Bool[Array, "height width"],
    mask: Bool[Array, "height width"],
    size_hw: Int[Array, " 2"],
) -> tuple[Float[Array, " 2"], Int[Array, ""]]:
    """A point drawn uniformly from where a prediction is wrong in the image, and its label.

    Nobody clicks into the padding, whatever is predicted there. Foreground where the prediction
    lacks the object, background where it has too much. Where it is right everywhere the paper is
    silent; as in SAM 2, that is a point of the background then, or of the object where there is no
    background.
    """
    inside = pixels_inside(mask.shape, size_hw)
    wrong = (predicted != mask) & inside
    background = ~mask & inside
    region = jnp.where(wrong.any(), wrong, jnp.where(background.any(), background, mask))
    point = random_pixel(key, region)
    x, y = point.astype(jnp.int32)
    return point, jnp.where(mask[y, x], LABEL_FOREGROUND, LABEL_BACKGROUND).astype(jnp.int32)
