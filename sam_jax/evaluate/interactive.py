"""How well masks follow clicks and boxes: SAM sections 7.1 and D.1, and the boxes of section 7.4.

All of it in the image's own frame, against masks of its own size, for some objects of one image at
a time: what is in memory goes by their number, which the caller bounds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from sam_jax.evaluate.boundaries import boundary_f
from sam_jax.evaluate.clicks import centre_point, error_click, random_point
from sam_jax.formats.rle import mask_box
from sam_jax.types import LABEL_FOREGROUND

# The paper reports these.
CLICKS = (1, 2, 3, 5, 9)

Mask = Bool[np.ndarray, "height width"]


@runtime_checkable
class Predictor(Protocol):
    """What of a `Segmenter` is evaluated."""

    def predict(
        self,
        embedding: Any,
        *,
        points: Any = None,
        labels: Any = None,
        boxes: Any = None,
        masks: Any = None,
        multimask: bool = True,
    ) -> Any:
        """A `MaskPrediction`; see `Segmenter.predict`."""


@runtime_checkable
class ClickMethod(Protocol):
    """Makes masks from clicks on the objects of one image."""

    def answer(
        self,
        objects: Sequence[int],
        points: Float[np.ndarray, "objects clicks 2"],
        labels: Int[np.ndarray, "objects clicks"],
    ) -> Iterator[Sequence[Bool[np.ndarray, "height width"]]]:
        """Masks for each of some objects: the one chosen, then others that are offered.

        Called once for every number of clicks, in order, and with fewer objects as they are done.

        Args:
          objects: which of the objects; the same number for the same object in every call.
          points: (x, y) of all clicks so far.
          labels: 1 on the object, 0 beside it.
        """


@dataclass(frozen=True)
class ClickScores:
    """How each object was found after a number of clicks.

    Attributes:
      clicks: the numbers of clicks.
      iou: of the mask that the method chose.
      oracle: IoU of the best of the masks offered after the first click.
      boundary_f: of the mask that the method chose.
    """

    clicks: tuple[int, ...]
    iou: Float[np.ndarray, "objects numbers"]
    oracle: Float[np.ndarray, " objects"]
    boundary_f: Float[np.ndarray, "objects numbers"]


@dataclass(frozen=True)
class BoxScores:
    """How each object was found, prompted with its box.

    Attributes:
      iou: of the most confident mask.
      oracle: IoU of the best of the three masks.
      refined: IoU after the most confident mask was given back together with the box.
      boundary_f: of the most confident mask.
      refined_boundary_f: of the mask whose IoU is `refined`.
    """

    iou: Float[np.ndarray, " objects"]
    oracle: Float[np.ndarray, " objects"]
    refined: Float[np.ndarray, " objects"]
    boundary_f: Float[np.ndarray, " objects"]
    refined_boundary_f: Float[np.ndarray, " objects"]


class SegmenterClicks:
    """The paper's way with a model: three masks for the first click, then one, going on from it.

    To every further click the low-resolution logits of the mask before are given back; to the
    second, those of the most confident of the three.
    """

    def __init__(self, segmenter: Predictor, embedding: Any):
        self._segmenter, self._embedding = segmenter, embedding
        self._logits: dict[int, Float32[np.ndarray, "s s"]] = {}

    def answer(
        self,
        objects: Sequence[int],
        points: Float[np.ndarray, "objects clicks 2"],
        labels: Int[np.ndarray, "objects clicks"],
    ) -> Iterator[Sequence[Bool[np.ndarray, "height width"]]]:
        """The most confident mask first; see `ClickMethod`."""
        first = points.shape[1] == 1
        prediction = self._segmenter.predict(
            self._embedding,
            points=points,
            labels=labels,
            masks=None if first else np.stack([self._logits[one] for one in objects]),
            multimask=first,
        )
        for place, one in enumerate(objects):
            best = int(np.argmax(prediction.scores[place]))
            self._logits[one] = prediction.logits[place, best]
            yield _best_first(prediction, place, best)


def click_scores(
    method: ClickMethod,
    truths: Sequence[Mask],
    clicks: tuple[int, ...] = CLICKS,
    rng: np.random.Generator | None = None,
) -> ClickScores:
    """Clicks on objects of an image, each time into the greatest error that is left.

    An object whose mask is right in every pixel gets no more clicks; its scores stay 1.

    Args:
      method: what makes the masks.
      truths: the objects' masks, none empty.
      clicks: after how many clicks to measure.
      rng: draws the first click uniformly from the object; without, it is the object's center.
    """
    last = max(clicks)
    count = len(truths)
    points = np.zeros((count, last, 2), np.float32)
    labels = np.zeros((count, last), np.int32)
    labels[:, 0] = LABEL_FOREGROUND
    for place, truth in enumerate(truths):
        points[place, 0] = centre_point(truth) if rng is None else random_point(truth, rng)
    iou, outline = np.zeros((2, count, last))
    oracle = np.zeros(count)
    unfinished = list(range(count))
    for n in range(1, last + 1):
        if not unfinished:
            break
        answers = method.answer(unfinished, points[unfinished, :n], labels[unfinished, :n])
        clicked = []
        for one, masks in zip(unfinished, answers, strict=True):
            found = [mask_iou(mask, truths[one]) for mask in masks]
            iou[one, n - 1 :] = found[0]
            outline[one, n - 1 :] = boundary_f(masks[0], truths[one])
            if n == 1:
                oracle[one] = max(found)
            click = error_click(masks[0], truths[one]) if n < last else None
            if click is not None:
                points[one, n], labels[one, n] = click
                clicked.append(one)
        unfinished = clicked
    measured = [n - 1 for n in clicks]
    return ClickScores(tuple(clicks), iou[:, measured], oracle, outline[:, measured])


def box_scores(segmenter: Predictor, embedding: Any, truths: Sequence[Mask]) -> BoxScores:
    """Prompts a model with the boxes of objects of an image, and once more with box and mask.

    As section 7.4 does with a detector's boxes, but with the objects' own.

    Args:
      segmenter: the model.
      embedding: of the image.
      truths: the objects' masks, none empty.
    """
    boxes = np.stack([tight_box(truth) for truth in truths])
    iou, oracle, refined, outline, refined_outline = np.zeros((5, len(truths)))
    prediction = segmenter.predict(embedding, boxes=boxes, multimask=True)
    logits = []
    for place, truth in enumerate(truths):
        best = int(np.argmax(prediction.scores[place]))
        logits.append(prediction.logits[place, best])
        masks = _best_first(prediction, place, best)
        found = [mask_iou(mask, truth) for mask in masks]
        iou[place], oracle[place] = found[0], max(found)
        outline[place] = boundary_f(masks[0], truth)
    prediction = segmenter.predict(embedding, boxes=boxes, masks=np.stack(logits), multimask=False)
    for place, truth in enumerate(truths):
        mask = prediction.mask(place, 0)
        refined[place] = mask_iou(mask, truth)
        refined_outline[place] = boundary_f(mask, truth)
    return BoxScores(iou, oracle, refined, outline, refined_outline)


def tight_box(mask: Bool[np.ndarray, "height width"]) -> Float32[np.ndarray, " 4"]:
    """x0 y0 x1 y1 of a mask's outermost pixels, as boxes are in training.

    A mask of a single row or column has one a pixel wide: a box without area is no prompt.
    """
    x, y, width, height = mask_box(mask).tolist()
    return np.array([x, y, x + max(width - 1, 1), y + max(height - 1, 1)], np.float32)


def mask_iou(
    mask: Bool[np.ndarray, "height width"], truth: Bool[np.ndarray, "height width"]
) -> float:
    """Intersection over union; 1 for two empty masks, which are the same."""
    union = np.count_nonzero(mask | truth)
    return np.count_nonzero(mask & truth) / union if union else 1.0


def _best_first(prediction: Any, place: int, best: int) -> list[Mask]:
    others = [index for index in range(prediction.scores.shape[1]) if index != best]
    return [prediction.mask(place, index) for index in (best, *others)]
