"""Prompts of several images as a few batches of common shapes, so that little is compiled.

Every axis is padded up to a power of two. What only fills a batch is masked out of attention, so it
changes no result.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from sam_jax.one_line import one_line
from sam_jax.preprocess import ImagePrompts
from sam_jax.types import LABEL_ABSENT, box_corners

# A box and two clicks, or four clicks, before another shape is compiled.
MIN_POINTS = 4


@dataclass(frozen=True)
class PromptBatch:
    """Prompts for one call of the decoder, in the model's frame.

    Attributes:
      pieces: for each slot of the image axis that is used, which image it looks at and how many of
        its prompts are real.
      points: of every prompt, boxes as their two corners.
      labels: see `types.Prompts`; -2 where there is nothing.
      masks: mask prompts, or None when no prompt of the batch has one.
      mask_present: which prompts have one, or None likewise.
    """

    pieces: list[tuple[int, int]]
    points: Float[np.ndarray, "B P N 2"]
    labels: Int[np.ndarray, "B P N"]
    masks: Float[np.ndarray, "B P s s"] | None
    mask_present: Bool[np.ndarray, "B P"] | None

    __repr__ = one_line


def power_of_two(n: int, *, up: bool = True) -> int:
    """The nearest power of two at or above n >= 1; with `up=False`, at or below."""
    return 1 << ((n - 1).bit_length() if up else n.bit_length() - 1)


def share(images: int, prompts: int, devices: int) -> tuple[int, int]:
    """What a device does of images with so many prompts each: images, and prompts of each.

    Devices divide the images or each image's prompts, whichever leaves a device less to do.
    """
    by_image = -(-images // devices), prompts
    by_prompt = images, -(-prompts // devices)
    return min(by_prompt, by_image, key=math.prod)


def batch_prompts(
    prompts: Sequence[ImagePrompts],
    feature_shapes: Sequence[tuple[int, ...]],
    limit: int,
    devices: int = 1,
) -> Iterator[PromptBatch]:
    """Lays out the prompts of all images as batches, in order.

    An image with more prompts than fit is cut; neighbors with fewer share a batch, as long as
    their embeddings have one shape.

    Args:
      prompts: of each image.
      feature_shapes: of each image's embedding.
      limit: prompts that a device has of a batch at most, with those that only fill it.
      devices: that divide each batch as `share` says.
    """
    group: list[tuple[int, ImagePrompts]] = []
    for image, image_prompts in enumerate(prompts):
        for piece in _cut(image_prompts, power_of_two(limit * devices, up=False)):
            longest = max([piece.num_prompts, *(p.num_prompts for _, p in group)])
            each = share(power_of_two(len(group) + 1), power_of_two(longest), devices)
            same = not group or feature_shapes[group[0][0]] == feature_shapes[image]
            if group and (math.prod(each) > limit or not same):
                yield _pad_together(group)
                group = []
            group.append((image, piece))
    if group:
        yield _pad_together(group)


def _cut(prompts: ImagePrompts, limit: int) -> Iterator[ImagePrompts]:
    for start in range(0, prompts.num_prompts, limit):
        part = slice(start, start + limit)
        yield ImagePrompts(
            *(
                None if array is None else array[part]
                for array in (prompts.points, prompts.labels, prompts.boxes, prompts.masks)
            )
        )


def _pad_together(group: list[tuple[int, ImagePrompts]]) -> PromptBatch:
    tokens = [_tokens(prompts) for _, prompts in group]
    batch = power_of_two(len(group))
    count = power_of_two(max(prompts.num_prompts for _, prompts in group))
    length = power_of_two(max(MIN_POINTS, *(labels.shape[1] for _, labels in tokens)))
    points = np.zeros((batch, count, length, 2), np.float32)
    labels = np.full((batch, count, length), LABEL_ABSENT, np.int32)
    side = next((p.masks.shape[-1] for _, p in group if p.masks is not None), None)
    masks = None if side is None else np.zeros((batch, count, side, side), np.float32)
    present = None if side is None else np.zeros((batch, count), bool)
    for slot, ((_, prompts), (xy, label)) in enumerate(zip(group, tokens, strict=True)):
        points[slot, : xy.shape[0], : xy.shape[1]] = xy
        labels[slot, : xy.shape[0], : xy.shape[1]] = label
        if prompts.masks is not None and masks is not None and present is not None:
            masks[slot, : prompts.num_prompts] = prompts.masks
            present[slot, : prompts.num_prompts] = True
    pieces = [(image, prompts.num_prompts) for image, prompts in group]
    return PromptBatch(pieces, points, labels, masks, present)


def _tokens(
    prompts: ImagePrompts,
) -> tuple[Float[np.ndarray, "P N 2"], Int[np.ndarray, "P N"]]:
    """Points and the corners of boxes as one list for each prompt."""
    points = np.zeros((prompts.num_prompts, 0, 2), np.float32)
    labels = np.zeros((prompts.num_prompts, 0), np.int32)
    if prompts.points is not None and prompts.labels is not None:
        points, labels = prompts.points, prompts.labels
    if prompts.boxes is not None:
        corners, corner_labels = box_corners(prompts.boxes)
        points = np.concatenate([points, corners], axis=1)
        labels = np.concatenate([labels, corner_labels], axis=1)
    return points, labels
