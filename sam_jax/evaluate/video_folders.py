"""Scores of folders with masks of videos against folders with the true ones."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from sam_jax.errors import InputError
from sam_jax.evaluate.mask_folders import (
    FrameMasks,
    MaskFolder,
    MaskTrack,
    is_one_video,
    open_mask_folder,
)
from sam_jax.evaluate.video_metrics import ObjectFrames, ObjectScore
from sam_jax.evaluate.video_scores import VideoScores
from sam_jax.natural_order import natural_keys

# What several datasets give to pixels of no object, or nobody knows of which.
VOID = "255"
# How many of the things that are missing an error names.
_NAMED = 8


@dataclass(frozen=True)
class _Pair:
    """A track, its predictions (None: there are none), and the frames to score."""

    true: MaskTrack
    predicted: MaskTrack | None
    frames: tuple[str, ...]

    @cached_property
    def predicted_frames(self) -> dict[str, str]:
        """The names of predictions by those of the annotations: the same, or the same number.

        00005 goes with 5 where neither has a namesake.
        """
        there = () if self.predicted is None else self.predicted.frames
        pairs = {frame: frame for frame in set(self.frames) & set(there)}
        keys = natural_keys([*self.frames, *there])
        theirs = _by_key(keys[len(self.frames) :], there)
        for key, names in _by_key(keys[: len(self.frames)], self.frames).items():
            others = theirs.get(key, [])
            if len(names) == len(others) == 1:
                pairs[names[0]] = others[0]
        return pairs

    @property
    def missing(self) -> list[str]:
        return [frame for frame in self.frames if frame not in self.predicted_frames]


def _by_key(keys: Sequence[Any], names: Sequence[str]) -> dict[Any, list[str]]:
    found: dict[Any, list[str]] = {}
    for key, name in zip(keys, names, strict=True):
        found.setdefault(key, []).append(name)
    return found


@dataclass(frozen=True)
class _Found:
    """Scores of a pair by object, and what `VideoScores` has of it besides."""

    scores: dict[str, ObjectScore]
    left_out: tuple[str, ...]
    unknown: tuple[str, ...]


def score_folders(
    predictions: Path,
    annotations: Path,
    videos: Sequence[str] | None = None,
    *,
    missing: Literal["error", "empty"] = "error",
    skip_first_and_last: bool = True,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VideoScores:
    """J, F and J&F of all objects of the videos, as `sav_benchmark` of SAM 2 counts them.

    Annotated frames are scored, less the first and the last one of a video (SA-V: of an object);
    predictions for others are not read. An object's frames count from the first of these on that
    has it in either mask. Objects that no scored frame shows do not count.

    In DAVIS's layout 255 is an object if it is the only one of its video, as in DAVIS 2016;
    elsewhere it is background, as DAVIS 2017 reads it. Predicted objects go by their number.

    Args:
      predictions: a folder in the same layout as the annotations; where that is DAVIS's, also one
        with what `sam-jax track` wrote of each video, or of the one that there is. Frames go by
        their names, whose numbers may have zeros in front on one side.
      annotations: as `mask_folders.open_mask_folder` takes them.
      videos: score only these; all if None.
      missing: what to do where predictions are missing: "error", as `sav_benchmark` does, or count
        their masks as "empty". A number that does not occur in DAVIS's layout is never an error.
      skip_first_and_last: leave out the first annotated frame, whose masks are the prompt, and the
        last.
      threads: how many work at once; one for each core if None.
      progress: called with the number of frames that are done, and of all: in any of the threads,
        never in two at once.

    Raises:
      InputError: a folder cannot be used, the layouts differ, videos or predictions are missing, a
        file is damaged, sizes differ, or no object can be scored.
    """
    wanted = None if videos is None else tuple(videos)
    true = open_mask_folder(Path(annotations), wanted)
    only = true.videos[0] if len(true.videos) == 1 else None
    if only is None and is_one_video(Path(predictions)):
        raise InputError(
            f"{predictions} has the masks of one video, and {true.root} has several; list the one "
            "video to score"
        )
    predicted = open_mask_folder(Path(predictions), wanted, only)
    _check_videos(true, predicted, wanted, missing == "empty")
    pairs = [
        pair
        for video in true.videos
        for pair in _pairs(true, predicted, video, skip_first_and_last)
    ]
    files = [f"{pair.true.key}/{frame}.png" for pair in pairs for frame in pair.missing]
    if files and missing != "empty":
        raise InputError(f"{predicted.root} has no {_listed(files, 'masks')}")
    objects: dict[str, dict[str, ObjectScore]] = {}
    left_out: list[str] = []
    tracks = (track for video in predicted.videos for track in predicted.tracks(video))
    unknown = sorted({track.key for track in tracks} - {pair.true.key for pair in pairs})
    steps = _Steps(sum(len(pair.frames) for pair in pairs), progress)
    pool = ThreadPoolExecutor(threads or os.cpu_count())
    try:
        for pair, found in zip(pairs, pool.map(partial(_score, steps=steps), pairs), strict=True):
            if found.scores:
                objects.setdefault(pair.true.video, {}).update(found.scores)
            left_out += found.left_out
            unknown += found.unknown
    finally:
        steps.stop()
        pool.shutdown(cancel_futures=True)
    if not objects:
        raise InputError(f"{true.root} has no object in a frame that is scored")
    return VideoScores(str(true.layout), objects, tuple(left_out), tuple(unknown), len(files))


def _check_videos(
    true: MaskFolder, predicted: MaskFolder, wanted: tuple[str, ...] | None, may_miss: bool
) -> None:
    """Holds what two folders have against each other, and against a list of videos.

    Raises:
      InputError: videos are missing, or there are predictions for others, or layouts differ.
    """
    if wanted is not None and (absent := sorted(set(wanted) - set(true.videos))):
        raise InputError(f"{true.root} has no {_listed(absent, 'videos')}; mend the list of videos")
    if true.layout is None:
        raise InputError(
            f"{true.root} holds no masks: {_listed(list(true.videos), 'empty videos')}"
        )
    if not may_miss and (absent := sorted(set(true.videos) - set(predicted.videos))):
        raise InputError(f"{predicted.root} has no {_listed(absent, 'videos')}")
    if others := sorted(set(predicted.videos) - set(true.videos)):
        raise InputError(
            f"{true.root} has no {_listed(others, 'videos')}, which {predicted.root} has; "
            "list the videos to score"
        )
    if predicted.layout not in (None, true.layout):
        raise InputError(
            f"{predicted.root} is laid out as {predicted.layout}, {true.root} as {true.layout}; "
            "write the predictions in the layout of the annotations"
        )


def _pairs(true: MaskFolder, predicted: MaskFolder, video: str, skip: bool) -> Iterator[_Pair]:
    there = predicted.tracks(video) if video in predicted.videos else ()
    by_name = {track.name: track for track in there}
    for track in true.tracks(video):
        frames = track.frames[1:-1] if skip else track.frames
        yield _Pair(track, by_name.get(track.name), frames)


class _Steps:
    """Counts frames over all threads, and lets them end early."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None):
        self._total, self._progress = total, progress
        self._done = 0
        self._end: Exception | None = None
        self._lock = threading.Lock()

    def add(self) -> None:
        """Counts a frame.

        Raises:
          CancelledError: nobody waits for more.
          Exception: what `progress` raised, in every thread.
        """
        with self._lock:
            if self._end is not None:
                raise self._end
            self._done += 1
            try:
                if self._progress is not None:
                    self._progress(self._done, self._total)
            except Exception as error:
                self._end = error
                raise

    def stop(self) -> None:
        """Ends what still counts, at its next frame."""
        with self._lock:
            self._end = self._end or CancelledError()


def _score(pair: _Pair, steps: _Steps) -> _Found:
    if not pair.frames:
        return _Found({}, (pair.true.key,), ())
    objects: dict[str, ObjectFrames] = {}
    known: set[str] = set()
    for frame in pair.frames:
        true = pair.true.read(frame)
        known |= set(true.masks)
        predicted = FrameMasks(true.size_hw, {})
        if pair.predicted is not None and frame in pair.predicted_frames:
            predicted = pair.predicted.read(pair.predicted_frames[frame])
        if predicted.size_hw != true.size_hw:
            raise InputError(
                f"{pair.true.key}/{frame}.png: the prediction has {_size(predicted)} pixels, the "
                f"annotation {_size(true)}; write predictions at the size of the annotations"
            )
        for name in {**objects, **true.masks, **predicted.masks}:
            objects.setdefault(name, ObjectFrames()).add(predicted.mask(name), true.mask(name))
        steps.add()
    scores = {name: score for name, frames in objects.items() if (score := frames.score())}
    if pair.true.name is not None:
        return _Found(scores, () if scores else (pair.true.key,), ())
    for frame in set(pair.true.frames) - set(pair.frames):
        known |= set(pair.true.read(frame).masks)
    names = known - {VOID} if len(known) > 1 else known
    return _Found(
        {name: scores[name] for name in sorted(names & set(scores), key=int)},
        _full_names(pair, names - set(scores)),
        _full_names(pair, set(objects) - known),
    )


def _full_names(pair: _Pair, names: set[str]) -> tuple[str, ...]:
    return tuple(f"{pair.true.key}/{name}" for name in sorted(names, key=int))


def _size(frame: FrameMasks) -> str:
    height, width = frame.size_hw
    return f"{width}x{height}"


def _listed(names: Sequence[str], what: str) -> str:
    named = ", ".join(names[:_NAMED])
    return named if len(names) <= _NAMED else f"{named} ... ({len(names)} {what} in all)"
