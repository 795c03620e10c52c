"""How well a mask is kept through a video: J, F and J&F of DAVIS, counted as SAM 2 counts them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from sam_jax.errors import InputError
from sam_jax.evaluate.boundaries import boundary_f

__all__ = ["ObjectFrames", "ObjectScore", "boundary_f", "region_similarity", "score_object"]


@dataclass(frozen=True)
class ObjectScore:
    """Of one object: means over the frames that count.

    Attributes:
      j: region similarity, 0 to 1.
      f: boundary F-measure, 0 to 1.
      frames: how many frames count.
    """

    j: float
    f: float
    frames: int

    @property
    def j_and_f(self) -> float:
        """The mean of both."""
        return (self.j + self.f) / 2


def region_similarity(
    predicted: Bool[np.ndarray, "height width"], true: Bool[np.ndarray, "height width"]
) -> float:
    """J of one frame: intersection over union, and 1 where both masks are empty."""
    union = np.count_nonzero(predicted | true)
    return np.count_nonzero(predicted & true) / union if union else 1.0


class ObjectFrames:
    """Takes the frames of one object in order and scores them.

    Frames count from the first one on that has the object in either mask. From then on a frame
    where both are empty counts as 1: the object is gone, and was not seen.
    """

    def __init__(self) -> None:
        self._j: list[float] = []
        self._f: list[float] = []
        self._is_true = False

    def add(
        self,
        predicted: Bool[np.ndarray, "height width"],
        true: Bool[np.ndarray, "height width"],
    ) -> None:
        """Takes the next frame."""
        is_predicted, is_true = bool(predicted.any()), bool(true.any())
        self._is_true |= is_true
        if is_predicted or is_true:
            self._j.append(region_similarity(predicted, true))
            self._f.append(boundary_f(predicted, true))
        elif self._j:
            self._j.append(1.0)
            self._f.append(1.0)

    def score(self) -> ObjectScore | None:
        """Means over the frames so far; None where the object is in no true mask of them."""
        if not self._is_true:
            return None
        return ObjectScore(float(np.mean(self._j)), float(np.mean(self._f)), len(self._j))


def score_object(
    predicted: np.ndarray, true: np.ndarray, skip_first_and_last: bool = True
) -> ObjectScore:
    """J and F of one object over the annotated frames of a video.

    As `sav_benchmark` of SAM 2: frames count from the first one on, after the skipped one, that has
    the object in either mask. DAVIS 2017 counts all but the skipped ones, which is the same for
    objects that the second frame shows.

    Args:
      predicted: bool [frames, height, width].
      true: bool [frames, height, width], the annotated frames in order.
      skip_first_and_last: leave out the first frame, whose mask is the prompt, and the last one, as
        DAVIS does with prompts of the first frame.

    Raises:
      InputError: the masks are not bool or not of one shape, or the object is in no true mask of
        the frames that are left.
    """
    for name, masks in (("predicted", predicted), ("true", true)):
        if masks.dtype != bool or masks.ndim != 3:
            raise InputError(
                f"the {name} masks are {masks.dtype} of shape {masks.shape}; "
                "give bool of shape [frames, height, width]"
            )
    if predicted.shape != true.shape:
        raise InputError(
            f"predicted masks have shape {predicted.shape}, true ones {true.shape}; "
            "give both for the same frames, at the size of the video"
        )
    frames = ObjectFrames()
    for index in range(len(true))[1:-1] if skip_first_and_last else range(len(true)):
        frames.add(predicted[index], true[index])
    score = frames.score()
    if score is None:
        raise InputError("no frame that is scored has the object in its true mask")
    return score
