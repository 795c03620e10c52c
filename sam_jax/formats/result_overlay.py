"""The picture of a prediction: its masks, their scores, and what was asked."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from sam_jax.formats.overlay import draw_overlay, side_by_side

# A strip of candidates is shown smaller than one picture: its markers and text are drawn larger.
_STRIP_EMPHASIS = 1.6


def draw_prediction(
    pixels: UInt8[np.ndarray, "height width 3"],
    mask_of: Callable[[int, int], Bool[np.ndarray, "height width"]],
    scores: Float[np.ndarray, "P M"],
    *,
    prompts: Sequence[Mapping[str, Any]],
    objects: Sequence[str] | None,
    best_only: bool,
) -> Image.Image:
    """Draws the best mask of each prompt, or a strip of pictures, one a candidate.

    Args:
      pixels: the image, RGB.
      mask_of: makes the mask of a prompt and a candidate.
      scores: predicted IoU.
      prompts: for each, `points`, `labels` and `box`, where there are any.
      objects: a name for each prompt.
      best_only: one picture.
    """
    drawn = _drawn(prompts)
    names = [f"{name} " for name in objects] if objects else [""] * len(scores)
    best = [int(index) for index in np.argmax(scores, axis=1)]
    if best_only or scores.shape[1] == 1:
        texts = [f"{name}{scores[p, best[p]]:.2f}" for p, name in enumerate(names)]
        masks = (mask_of(prompt, index) for prompt, index in enumerate(best))
        return draw_overlay(pixels, masks, texts=texts, **drawn)
    panels = []
    for index in range(scores.shape[1]):
        texts = [
            f"{name}{index}   {scores[p, index]:.2f}" + ("   best" if best[p] == index else "")
            for p, name in enumerate(names)
        ]
        masks = (mask_of(prompt, index) for prompt in range(len(scores)))
        panels.append(draw_overlay(pixels, masks, texts=texts, emphasis=_STRIP_EMPHASIS, **drawn))
    return side_by_side(panels)


def _drawn(prompts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    points: list[Any] = []
    labels: list[int] = []
    for prompt in prompts:
        own = prompt.get("points")
        own = [] if own is None else np.asarray(own, float).reshape(-1, 2).tolist()
        said = prompt.get("labels")
        points += own
        labels += [1] * len(own) if said is None else [int(label) for label in np.ravel(said)]
    return {
        "points": np.array(points, float) if points else None,
        "labels": np.array(labels) if points else None,
        "boxes": [prompt.get("box") for prompt in prompts],
    }
