"""What is found out about masks of videos: scores of objects, and their means."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from sam_jax.evaluate.video_metrics import ObjectScore


@dataclass(frozen=True)
class MeanScore:
    """Means over objects.

    Attributes:
      j: region similarity, 0 to 1.
      f: boundary F-measure, 0 to 1.
      objects: how many.
    """

    j: float
    f: float
    objects: int

    @property
    def j_and_f(self) -> float:
        """The mean of both."""
        return (self.j + self.f) / 2


@dataclass(frozen=True)
class VideoScores:
    """What `score_folders` found.

    Attributes:
      layout: `mask_folders.DAVIS` or `SA_V`.
      objects: scores by the name of the video and that of the object.
      left_out: objects, as video/object, that no scored frame has in its true mask; videos without
        scored frames.
      unknown: objects that are only among the predictions; they cost nothing.
      missing: how many predicted masks are missing and count as empty.
    """

    layout: str
    objects: Mapping[str, Mapping[str, ObjectScore]]
    left_out: tuple[str, ...]
    unknown: tuple[str, ...]
    missing: int

    @property
    def videos(self) -> dict[str, MeanScore]:
        """Means over the objects of each video."""
        return {video: _mean(found.values()) for video, found in self.objects.items()}

    @property
    def overall(self) -> MeanScore:
        """Means over all objects, however many of them a video has."""
        return _mean(score for found in self.objects.values() for score in found.values())


def _mean(scores: Iterable[ObjectScore]) -> MeanScore:
    found = [(score.j, score.f) for score in scores]
    j, f = np.mean(found, axis=0).tolist()
    return MeanScore(j, f, len(found))
