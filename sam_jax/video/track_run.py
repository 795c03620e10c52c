"""A run over a video: frames in, files out, whatever stops it."""

import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from sam_jax.errors import InputError
from sam_jax.formats.mask_pictures import read_mask
from sam_jax.formats.overlay import draw_overlay
from sam_jax.progress import Progress, Tell, silent
from sam_jax.stopping import stop_requests
from sam_jax.version import __version__
from sam_jax.video.frame_prompts import FramePrompt
from sam_jax.video.frames import CutVideoWarning, VideoSource, open_video
from sam_jax.video.inputs import mask_input, prompt_points
from sam_jax.video.track_files import (
    MASKS,
    RESULTS,
    Overlay,
    check_earlier,
    masks_by_number,
    remove_earlier,
    write_masks,
    write_results,
)
from sam_jax.video.tracked_masks import TrackedMasks
from sam_jax.video.tracker import Tracker


@dataclass(frozen=True)
class TrackedFrames:
    """What a run has done.

    Attributes:
      frames: how many are finished.
      seconds: what they took.
      written: the folder of masks, the overlay if there is one, and the results.
    """

    frames: int
    seconds: float
    written: tuple[Path, ...]


class TrackRun:
    """Objects followed through one video.

    Attributes:
      done: what `run` has done, whatever ended it; None before.
    """

    done: TrackedFrames | None = None

    def __init__(
        self,
        video: Path,
        prompts: list[FramePrompt],
        output: Path,
        form: str,
        overlay: bool,
        max_frames: int | None = None,
        tell: Tell = silent,
    ):
        """Opens the video and reads masks; nothing is written yet.

        Args:
          video: a video file, a folder of pictures, or an animated picture.
          prompts: in the order of their frames.
          output: the folder to write to.
          form: of the masks: "png", or "rle" for JSON files.
          overlay: whether to draw the masks on the frames, too.
          max_frames: after so many it ends.
          tell: gets lines for a person.

        Raises:
          InputError: the video or a mask cannot be read, or a prompt is on no frame of it.
        """
        self.path, self.output, self.form = video, output, form
        self.max_frames = max_frames
        self.video: VideoSource = open_video(video)
        self.overlay = Overlay(output, self.video.frames_per_second, tell) if overlay else None
        if self.overlay is not None:
            self.overlay.check_size(self.video.size_hw)
        # What a video file says of its length may be wrong.
        exact = video.is_dir()
        if exact and self.video.length is not None:
            _check_frames(prompts, self.video.length, video)
        late = [one.frame for one in prompts if max_frames is not None and one.frame >= max_frames]
        if late:
            raise InputError(
                f"a prompt is on frame {late[0]}, and --max-frames {max_frames} ends before"
            )
        self.prompts = prompts
        self.masks = {(one.frame, one.object): _read_mask(one) for one in prompts if one.mask}
        check_earlier(output, video)

    def load(self, path: Path, name: str, dtype: str, overlapping: bool) -> None:
        """Loads the model and holds all prompts against it and the frames' size.

        Raises:
          CheckpointError: it is no SAM 2 model.
          InputError: a prompt cannot be used.
        """
        count = len({one.object for one in self.prompts})
        self.tracker = Tracker.load(
            path, dtype=jnp.dtype(dtype), overlapping=overlapping, max_objects=count
        )
        self.checkpoint = {"name": name, "model": self.tracker.config.name, "dtype": dtype}
        for one in self.prompts:
            where = f"object {one.object} in frame {one.frame}: "
            try:
                self._check(one)
            except InputError as error:
                raise InputError(f"{where}{error}") from None

    def run(self, progress: Progress = silent) -> None:
        """Follows the objects to the end, or until it is stopped; `done` is what was done.

        Args:
          progress: of the frames.

        Raises:
          InputError: a frame cannot be read, the video was cut short, or prompts are left over at
            the end. What was done until then is written.
          KeyboardInterrupt: it was asked to stop, and has finished the frame that it was at.
        """
        remove_earlier(self.output)
        (self.output / MASKS).mkdir(parents=True, exist_ok=True)
        total = self._total()
        # So that whatever ends this, a later call knows what is here.
        names = self.video.names
        planned = [] if names is None else list(names[:total])
        write_results(self.output, self._record(0, planned, None, "nothing yet, or it was killed"))
        started, done, ended = time.monotonic(), 0, "an error"
        try:
            with ExitStack() as stack:
                # That the file was cut short is said below.
                stack.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore", CutVideoWarning)
                stack.enter_context(self.video)
                if self.overlay is not None:
                    stack.enter_context(self.overlay)
                progress("tracking", 0, total)
                stop = stack.enter_context(stop_requests())
                for done in self._frames():
                    progress("tracking", done, total)
                    if stop.is_set():
                        raise KeyboardInterrupt
            if self.video.cut is not None:
                raise InputError(
                    f"{self.video.cut}; the masks of these frames are in {self.output / MASKS}"
                )
            waiting = [one for one in self.prompts if one.frame >= done]
            if waiting:
                _check_frames(waiting, done, self.path)
            ended = "the end of the video"
        except KeyboardInterrupt:
            ended = "an interruption"
            raise
        except InputError as error:
            ended = str(error)
            raise
        finally:
            self._finish(done, time.monotonic() - started, ended)

    def _total(self) -> int | None:
        known = [n for n in (self.video.length, self.max_frames) if n is not None]
        return min(known) if known else None

    def _frames(self) -> Iterator[int]:
        """Yields how many frames are finished, after each."""
        tracker, video = self.tracker, self.video
        exact = self.path.is_dir()  # what a video file says of its length may be wrong
        state = tracker.start(video.size_hw, num_frames=video.length if exact else None)
        for index, frame in enumerate(video):
            if self.max_frames is not None and index >= self.max_frames:
                return
            here = [one for one in self.prompts if one.frame == index]
            assert frame is not None  # files and folders drop none
            seen: Any = frame
            if here or state.objects:
                seen = tracker.encode(frame)
            if any(one.object in state.objects for one in here):
                # What is known of an object is brought to this frame, and then corrected.
                state, _ = tracker.step(state, seen)
            for one in here:
                given = self._prompt(one)
                state = tracker.prompt(state, seen, one.object, frame_index=index, **given)
            found_in = seen if state.objects else None
            state, found = tracker.step(state, found_in, frame_index=index)
            name = self._name(index)
            write_masks(self.output, name, found, self.form)
            if self.overlay is not None:
                self.overlay.write(name, np.asarray(self._drawn(frame, found, here)))
            yield index + 1

    def _name(self, index: int) -> str:
        """What the files of a frame are called."""
        return f"{index:05d}" if self.video.names is None else self.video.names[index]

    def _prompt(self, one: FramePrompt) -> dict[str, Any]:
        if one.mask is not None:
            return {"mask": self.masks[one.frame, one.object]}
        labels = one.labels if one.points else None
        return {"points": one.points or None, "labels": labels, "box": one.box}

    def _drawn(self, frame: np.ndarray, found: TrackedMasks, here: list[FramePrompt]) -> Any:
        points = [point for one in here for point in one.points]
        labels = [label for one in here for label in one.labels]
        return draw_overlay(
            frame,
            masks_by_number(found),  # so that each object keeps its color
            points=np.array(points, float) if points else None,
            labels=np.array(labels) if points else None,
        )

    def _check(self, one: FramePrompt) -> None:
        size, config = self.video.size_hw, self.tracker.config
        if one.mask is not None:
            mask_input(self.masks[one.frame, one.object], size, config)
        else:
            prompt_points(one.points or None, one.labels or None, one.box, size, config)

    def _record(
        self, frames: int, names: list[str], speed: float | None, ended: str
    ) -> dict[str, Any]:
        height, width = self.video.size_hw
        times = self.video.frame_times
        return {
            "sam_jax": __version__,
            "video": {"file": self.path.name, "height": height, "width": width},
            "checkpoint": self.checkpoint,
            "prompts": [
                {
                    "object": one.object,
                    "frame": one.frame,
                    "points": one.points,
                    "labels": one.labels,
                    "box": one.box,
                    "mask": str(one.mask) if one.mask else None,
                }
                for one in self.prompts
            ],
            "frames": frames,
            "frame_names": names,
            "frame_times": None if times is None else times[:frames],
            "clip_frames_per_second": self.video.frames_per_second,
            "run_frames_per_second": speed,
            "ended_by": ended,
        }

    def _finish(self, frames: int, seconds: float, ended: str) -> None:
        names = [self._name(index) for index in range(frames)]
        speed = round(frames / seconds, 3) if seconds else None
        write_results(self.output, self._record(frames, names, speed, ended))
        written = [self.output / MASKS, self.output / RESULTS]
        if self.overlay is not None and self.overlay.path.exists():
            written.insert(1, self.overlay.path)
        self.done = TrackedFrames(frames, seconds, tuple(written))


def _check_frames(prompts: list[FramePrompt], length: int, video: Path) -> None:
    beyond = [one for one in prompts if one.frame >= length]
    if beyond:
        raise InputError(
            f"there is no frame {beyond[0].frame}: {video} has {length}, from 0 to {length - 1}"
        )


def _read_mask(prompt: FramePrompt) -> np.ndarray:
    assert prompt.mask is not None
    return read_mask(prompt.mask, prompt.mask_label)
