"""Candidate masks on the host: a few numbers and the runs of each."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int, Int64

from sam_jax.automatic.runs import Runs
from sam_jax.one_line import one_line


@dataclass(frozen=True, eq=False)
class Candidates:
    """n masks in the image's frame.

    Attributes:
      predicted_iou: what the model predicts of each mask's quality.
      stability_score: see `GenerateOptions`; not a number for a mask of no pixel.
      boxes: x0 y0 x1 y1 of its outermost pixels, all inside it.
      crops: x0 y0 x1 y1 of the part of the image it was found in, x1 and y1 not included.
      points: (x, y) of the points it was asked with, [number, 2] each.
      runs: its pixels.
    """

    predicted_iou: Float32[np.ndarray, " n"]
    stability_score: Float32[np.ndarray, " n"]
    boxes: Int64[np.ndarray, "n 4"]
    crops: Int64[np.ndarray, "n 4"]
    points: list[Float64[np.ndarray, "_ 2"]]
    runs: list[Runs]

    __repr__ = one_line

    def __len__(self) -> int:
        return len(self.runs)

    def take(self, indices: Int[np.ndarray, " kept"] | Sequence[int]) -> "Candidates":
        """Those of the indices, in their order."""
        chosen = np.asarray(indices, np.int64).reshape(-1)
        return Candidates(
            **{field.name: _take(getattr(self, field.name), chosen) for field in fields(Candidates)}
        )


def concatenated(parts: Sequence[Candidates]) -> Candidates:
    """All of them, in their order."""
    if not parts:
        return no_candidates()
    columns: dict[str, Any] = {}
    for field in fields(Candidates):
        values = [getattr(part, field.name) for part in parts]
        if isinstance(values[0], list):
            columns[field.name] = [item for value in values for item in value]
        else:
            columns[field.name] = np.concatenate(values)
    return Candidates(**columns)


def no_candidates() -> Candidates:
    """None at all."""
    none = np.zeros(0, np.float32)
    boxes = np.zeros((0, 4), np.int64)
    return Candidates(none, none, boxes, boxes, [], [])


def _take(values: Any, chosen: Int64[np.ndarray, " kept"]) -> Any:
    if isinstance(values, list):
        return [values[i] for i in chosen]
    return values[chosen]
