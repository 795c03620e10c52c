"""Prompts from the image's own frame into the model's frame; images are `image_inputs`' part.

The image's frame: pixels of the original picture, points as (x, y), boxes as x0 y0 x1 y1, sizes as
(height, width). The model's frame: the picture scaled so that its longest side has
`config.image_size` pixels, zero-padded at the bottom and right to a square. All of it is NumPy:
inputs are checked where a wrong value can still be named.
"""

from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Float, Float32, Float64, Int32
from PIL import Image

from sam_jax.errors import InputError, warn_caller
from sam_jax.image_inputs import prepare_image, resize_image
from sam_jax.images import MAX_PIXELS
from sam_jax.models.config import ModelConfig
from sam_jax.models.input_frame import InputFrame
from sam_jax.one_line import one_line
from sam_jax.types import LABEL_ABSENT, LABEL_BACKGROUND, LABEL_FOREGROUND

__all__ = [
    "ImagePrompts",
    "check_prompts",
    "mask_to_logits",
    "prepare_image",
    "resize_image",
    "scale_factors_xy",
    "scale_prompts",
]

# Where a mask given by `mask_to_logits` is certain. The mask branch was trained on the model's own
# logits, which are of this order; SAM 2 writes given masks as +-10 too.
_CERTAIN_LOGIT = 10.0
# Lists that hold one list many times are small themselves, but would fill the memory as an array.
_MAX_LIST_VALUES = 10_000_000
# The axes of one prompt of each kind; None is of any length.
_AXES = {"points": (None, 2), "labels": (None,), "boxes": (4,), "masks": (None, None)}


@dataclass(frozen=True, eq=False)
class ImagePrompts:
    """The prompts for one image: P prompts of N points each; whatever is not given is None.

    Attributes:
      points: (x, y).
      labels: 1 foreground, 0 background, -2 (`LABEL_ABSENT`) where a prompt has fewer than N
        points; the point there is (0, 0) and takes no part in anything.
      boxes: x0 y0 x1 y1.
      masks: logits at the decoder's resolution, for the padded square.

    Coordinates are float64 in the image's frame and float32 in the model's: like the original, they
    are rounded once, after scaling.
    """

    points: Float[np.ndarray, "P N 2"] | None = None
    labels: Int32[np.ndarray, "P N"] | None = None
    boxes: Float[np.ndarray, "P 4"] | None = None
    masks: Float32[np.ndarray, "P s s"] | None = None

    __repr__ = one_line

    @property
    def num_prompts(self) -> int:
        """P, or 0 where nothing is given."""
        given = (self.points, self.boxes, self.masks)
        return next((len(array) for array in given if array is not None), 0)


def without_empty(given: dict[str, Any]) -> dict[str, Any] | None:
    """Prompts of an image without those that are empty, or None where all of them are.

    Empty are boxes [0, 4], points [0, N, 2], masks [0, s, s] and lists of nothing. Points [0, 2]
    are, beside boxes or masks, no clicks; where only some of the rest is empty, numbers of prompts
    differ, and that is left for `check_prompts` to say.

    Args:
      given: `points`, `labels`, `boxes` and `masks`, each as for `check_prompts`.
    """
    if given["points"] is None and _is_empty(given["labels"], _AXES["labels"]):
        given = {**given, "labels": None}
    there = {name: value for name, value in given.items() if value is not None}
    empty = {name for name, value in there.items() if _is_empty(value, _AXES[name])}
    if there and empty == set(there):
        return None
    clicks = {name for name in ("points", "labels") if name in there}
    if "points" in clicks and clicks == empty and len(_shape(given["points"])) < 3:
        return {**given, "points": None, "labels": None}
    return given


def _is_empty(value: object, axes: tuple[int | None, ...]) -> bool:
    """Whether an array has no prompts; `axes` are those of one prompt, None of any length."""
    shape = _shape(value)
    if not shape or shape[0]:
        return False
    # A single prompt's points and labels may have no length, too.
    fits = (axes, axes[1:]) if axes[0] is None else (axes,)
    return len(shape) == 1 or any(
        len(shape) == 1 + len(one)
        and all(wanted in (None, length) for wanted, length in zip(one, shape[1:], strict=True))
        for one in fits
    )


def _shape(value: object) -> tuple[int, ...]:
    """Of an array or an empty list; of anything else ()."""
    if isinstance(value, list | tuple):
        return () if value else (0,)
    shape = getattr(value, "shape", ())
    return tuple(shape) if isinstance(shape, tuple) else ()


def check_prompts(
    points: object,
    labels: object,
    boxes: object,
    masks: object,
    *,
    size_hw: tuple[int, int],
    mask_size: int,
) -> ImagePrompts:
    """Turns prompts as people write them into arrays in the image's own frame.

    Each argument may be nested lists, NumPy or JAX arrays, or None; all that are given have the
    same number of prompts P. The leading axis may be left out for a single prompt. Nothing given
    is changed.

    Args:
      points: [P, N, 2] or [N, 2], (x, y) with 0 <= x <= width and 0 <= y <= height; or a list of
        [N_i, 2], one for each prompt, which is filled up with absent points. Beside boxes, some
        of those may be empty.
      labels: like points without the last axis; 1 foreground, 0 background. None: all foreground.
      boxes: [P, 4] or [4], x0 y0 x1 y1 within the same bounds, x0 < x1 and y0 < y1.
      masks: [P, mask_size, mask_size] or [mask_size, mask_size] logits, such as an earlier
        result's. Warns where they look like a picture of a mask instead.
      size_hw: (height, width) of the image.
      mask_size: the side that masks must have, `config.mask_input_size`.

    Raises:
      InputError: nothing is given, or something has the wrong shape, type, range or number.
    """
    if points is None and boxes is None and masks is None:
        if labels is not None:
            raise InputError("labels are given without points")
        raise InputError("no prompt is given: give points, boxes or masks")
    checked_points, checked_labels = None, None
    if points is not None:
        checked_points, checked_labels = _check_points(points, labels, size_hw, boxes is not None)
    elif labels is not None:
        raise InputError("labels are given without points")
    checked_boxes = None if boxes is None else _check_boxes(boxes, size_hw)
    checked_masks = None if masks is None else _check_masks(masks, mask_size)
    given = {"points": checked_points, "boxes": checked_boxes, "masks": checked_masks}
    counts = {name: len(array) for name, array in given.items() if array is not None}
    if len(set(counts.values())) > 1:
        described = " but ".join(f"{name} for {count}" for name, count in counts.items())
        raise InputError(
            f"prompts do not match: {described} prompts; all that are given share one number"
        )
    return ImagePrompts(checked_points, checked_labels, checked_boxes, checked_masks)


def scale_prompts(
    prompts: ImagePrompts, size_hw: tuple[int, int], frame: InputFrame
) -> ImagePrompts:
    """Moves points and boxes from the image's frame to the model's, as the original does.

    Each axis has its own factor (new size over old size, in float64). The half pixel that the
    original adds to them later is left to the model.
    """
    factors_xy = scale_factors_xy(size_hw, frame)
    points, boxes = prompts.points, prompts.boxes
    if points is not None:
        points = (points * factors_xy).astype(np.float32)
    if boxes is not None:
        boxes = (boxes * np.tile(factors_xy, 2)).astype(np.float32)
    return replace(prompts, points=points, boxes=boxes)


def scale_factors_xy(size_hw: tuple[int, int], frame: InputFrame) -> Float64[np.ndarray, " 2"]:
    """By how much x and y grow from the image's frame to the model's."""
    height, width = size_hw
    new_height, new_width = frame.image_hw(size_hw)
    return np.array([new_width / width, new_height / height])


def mask_to_logits(mask: object, config: ModelConfig) -> Float32[np.ndarray, "s s"]:
    """Turns a picture of a mask into logits that can be given as a mask prompt.

    The mask is scaled like its image, padded to the square, and averaged down to the decoder's
    resolution; a pixel covered by the fraction c becomes 10 * (2c - 1), so edges keep their place
    between pixels. Padding is -10. An object too thin to cover half of any low-resolution pixel
    is strengthened until one is covered, or the model would see nothing.

    Args:
      mask: [height, width] of the image, boolean or holding only 0 and 1 (or only 0 and 255).
      config: the model's configuration; the result is [s, s] with s = `config.mask_input_size`.

    Raises:
      InputError: the mask has another shape or other values, or is empty.
    """
    array = _numbers(mask, "mask")
    if array is None or array.ndim != 2 or array.size == 0:
        found = "values of unequal lengths" if array is None else f"shape {array.shape}"
        raise InputError(f"mask must be one [height, width] array, not {found}")
    if array.size > MAX_PIXELS:
        raise InputError(f"mask of shape {array.shape} is larger than any image that is read")
    inside = array != 0
    if not inside.any():
        raise InputError("mask is empty: no pixel is inside")
    if array.dtype != bool and not _two_valued(array):
        raise InputError(
            f"mask must be boolean or hold only 0 and 1, not values from {array.min():g} to "
            f"{array.max():g}; logits are given as they are"
        )
    height, width = config.frame.image_hw(inside.shape)
    picture = Image.fromarray(inside.astype(np.float32))  # 8 bits would lose single pixels
    padded = np.zeros((config.image_size, config.image_size), np.float32)
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    padded[:height, :width] = np.asarray(resized)
    side = config.mask_input_size
    coverage = np.asarray(Image.fromarray(padded).resize((side, side), Image.Resampling.BOX))
    if coverage.max() <= 0.5:
        coverage = coverage / coverage.max()
    return (_CERTAIN_LOGIT * (2 * coverage - 1)).astype(np.float32)


def _check_points(
    points: object, labels: object, size_hw: tuple[int, int], with_boxes: bool
) -> tuple[Float[np.ndarray, "P N 2"], Int32[np.ndarray, "P N"]]:
    shape = "[N, 2] or [P, N, 2] (x, y), or a list of [N, 2]"
    per_prompt, single = _split_prompts(points, "points", 2, shape)
    per_prompt = [_as_float(some) for some in per_prompt]
    if not any(len(some) for some in per_prompt):
        raise InputError("points are empty; give at least one [x, y], or leave points out")
    for index, some in enumerate(per_prompt):
        where = "points" if single else f"points[{index}]"
        if len(some) == 0 and not with_boxes:
            raise InputError(f"{where} is empty; a prompt without a box needs a point or more")
        _check_inside(some, where + "[{}]", size_hw)
    label_lists = [np.full(len(some), LABEL_FOREGROUND, np.int32) for some in per_prompt]
    if labels is not None:
        label_lists = _check_labels(labels, [len(some) for some in per_prompt], single)
    longest = max(len(some) for some in per_prompt)
    padded_points = np.zeros((len(per_prompt), longest, 2))
    padded_labels = np.full((len(per_prompt), longest), LABEL_ABSENT, np.int32)
    for index, (some, its_labels) in enumerate(zip(per_prompt, label_lists, strict=True)):
        padded_points[index, : len(some)] = some
        padded_labels[index, : len(some)] = its_labels
    return padded_points, padded_labels


def _check_labels(labels: object, lengths: list[int], single: bool) -> list[np.ndarray]:
    per_prompt, labels_single = _split_prompts(labels, "labels", 0, "like points: [N] or [P, N]")
    if labels_single != single or len(per_prompt) != len(lengths):
        prompts = "one prompt without a prompt axis" if single else f"{len(lengths)} prompts"
        found = "[N]" if labels_single else f"[P, N] for {len(per_prompt)}"
        raise InputError(f"labels are {found}, but points are {prompts}; give one label a point")
    for index, (some, length) in enumerate(zip(per_prompt, lengths, strict=True)):
        where = "labels" if single else f"labels[{index}]"
        if len(some) != length:
            raise InputError(f"{where} has {len(some)} labels for {length} points")
        known = (some == LABEL_FOREGROUND) | (some == LABEL_BACKGROUND)
        if not known.all():
            first = int(np.argmin(known))
            found = f"{where}[{first}] is {float(some[first]):g}"
            raise InputError(f"{found}; a label is 1 (foreground) or 0 (background)")
    return [some.astype(np.int32) for some in per_prompt]


def _check_boxes(boxes: object, size_hw: tuple[int, int]) -> Float[np.ndarray, "P 4"]:
    array = _rectangular(boxes, "boxes", "[4] or [P, 4] (x0, y0, x1, y1)")
    if array.ndim not in (1, 2) or array.shape[-1] != 4:
        _wrong_shape("boxes", "[4] or [P, 4] (x0, y0, x1, y1)", array)
    if array.size == 0:
        raise InputError("boxes are empty; give at least one, or leave boxes out")
    where = "boxes[{}]" if array.ndim == 2 else "boxes"
    array = _as_float(array.reshape(-1, 4))
    for index, corners in enumerate(array):
        _check_inside(corners.reshape(2, 2), "a corner of " + where.format(index), size_hw)
    wrong = (array[:, 0] >= array[:, 2]) | (array[:, 1] >= array[:, 3])
    if wrong.any():
        index = int(np.argmax(wrong))
        raise InputError(
            f"{where.format(index)} is {_show(array[index])}, reversed or empty; a box is "
            "x0, y0, x1, y1 with x0 < x1 and y0 < y1"
        )
    return array


def _check_masks(masks: object, mask_size: int) -> Float32[np.ndarray, "P s s"]:
    shape = f"[{mask_size}, {mask_size}] or [P, {mask_size}, {mask_size}] logits"
    array = _rectangular(masks, "masks", shape)
    if array.ndim not in (2, 3) or array.shape[-2:] != (mask_size, mask_size):
        hint = "mask_to_logits turns a mask of the image into one"
        if array.ndim == 4:
            hint = "choose one mask of each prompt"
        raise InputError(f"masks must be {shape}, not shape {array.shape}; {hint}")
    if array.size == 0:
        raise InputError("masks are empty; give at least one, or leave masks out")
    where = "masks[{}]" if array.ndim == 3 else "masks"
    array = array.reshape(-1, mask_size, mask_size)
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such
        logits = array.astype(np.float32)
    for index, mask in enumerate(logits):
        if not np.isfinite(mask).all():
            raise InputError(f"{where.format(index)} holds NaN or infinite logits")
    pictures = [index for index, mask in enumerate(logits) if _two_valued(mask)]
    if pictures:
        warn_caller(
            f"{where.format(pictures[0])} looks like a picture of a mask, but mask prompts are "
            "logits; use mask_to_logits, or the logits of an earlier result"
        )
    return logits


def _two_valued(mask: np.ndarray) -> bool:
    """Whether a mask is a picture: 0 and 1, or 0 and 255, and nothing else."""
    return any(bool(((mask == 0) | (mask == one)).all()) for one in (1, 255))


def _check_inside(
    points_xy: Float[np.ndarray, "N 2"], where: str, size_hw: tuple[int, int]
) -> None:
    """Both borders belong to the image: detectors' boxes end at (width, height)."""
    height, width = size_hw
    inside = ((points_xy >= 0) & (points_xy <= (width, height))).all(axis=1)  # NaN is outside
    if inside.all():
        return
    index = int(np.argmin(inside))
    point = points_xy[index]
    problem = "; coordinates must be finite numbers"
    if np.isfinite(point).all():
        problem = f", outside the image of width {width} and height {height}"
    raise InputError(f"{where.format(index)} is (x, y) = {_show(point)}{problem}")


def _split_prompts(
    value: object, name: str, last_axis: int, shape: str
) -> tuple[list[np.ndarray], bool]:
    """One array for each prompt, and whether the prompt axis was left out.

    `last_axis` is the length of the axis behind the points' axis; 0 where there is none.
    """
    trailing = (last_axis,) if last_axis else ()
    whole = _numbers(value, name)
    if whole is None:
        assert isinstance(value, list | tuple)
        items = [_rectangular(item, f"{name}[{index}]", shape) for index, item in enumerate(value)]
    elif whole.shape[1:] == trailing and whole.ndim == 1 + len(trailing):
        return [whole], True
    elif whole.ndim >= 2 or whole.shape == (0,):
        items = list(whole)
    else:
        _wrong_shape(name, shape, whole)
    for index, item in enumerate(items):
        if item.shape == (0,):  # an empty list has no axis behind the first
            items[index] = item.reshape(0, *trailing)
        elif item.shape[1:] != trailing or item.ndim != 1 + len(trailing):
            if whole is None:
                _wrong_shape(f"{name}[{index}]", shape, item)
            _wrong_shape(name, shape, whole)
    return items, False


def _as_float(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such
        return array.astype(np.float64)


def _rectangular(value: object, name: str, shape: str) -> np.ndarray:
    array = _numbers(value, name)
    if array is None:
        raise InputError(f"{name} must be {shape}, not lists of unequal lengths")
    return array


def _numbers(value: object, name: str) -> np.ndarray | None:
    """The value as an array of real numbers, or None for lists of unequal lengths."""
    count, inner = 1, value
    for _ in range(64):  # as deep as NumPy goes; a list may hold itself
        if not isinstance(inner, list | tuple) or not inner:
            break
        count, inner = count * len(inner), inner[0]
        if count > _MAX_LIST_VALUES:
            limit = _MAX_LIST_VALUES // 1_000_000
            raise InputError(f"{name} lists over {limit} million values; give a NumPy array")
    try:
        array = np.asarray(value)
    except Exception as error:  # unequal lengths, nesting without end, a foreign __array__
        if isinstance(value, list | tuple) and isinstance(error, ValueError):
            return None
        raise InputError(f"{name} cannot be read as numbers ({type(error).__name__})") from error
    if array.dtype.kind in "buif" or array.dtype.name == "bfloat16":
        return array
    others = {"U": "text", "S": "bytes", "O": "other objects", "c": "complex numbers"}
    found = others.get(array.dtype.kind, array.dtype)
    raise InputError(f"{name} must hold real numbers, not {found} ({type(value).__name__})")


def _wrong_shape(name: str, shape: str, found: np.ndarray) -> NoReturn:
    raise InputError(f"{name} must be {shape}, not shape {found.shape}")


def _show(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.10g}" for value in values) + ")"
