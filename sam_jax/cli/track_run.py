"""What `sam-jax track` does: frames in, files out, whatever stops it."""

import json
import os
import re
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import jax.numpy as jnp
import numpy as np

from sam_jax.cli.progress import ProgressBar
from sam_jax.cli.track_prompts import FramePrompt
from sam_jax.errors import InputError
from sam_jax.files import written_aside
from sam_jax.formats.label_png import label_png
from sam_jax.formats.mask_pictures import read_mask
from sam_jax.formats.overlay import draw_overlay
from sam_jax.formats.rle import encode_rle, mask_area, mask_box
from sam_jax.stopping import stop_requests
from sam_jax.version import __version__
from sam_jax.video.frames import VideoSource, open_video
from sam_jax.video.inputs import mask_input, prompt_points
from sam_jax.video.tracked_masks import TrackedMasks
from sam_jax.video.tracker import Tracker
from sam_jax.video.video_files import VideoWriter, pyav

# Of an overlay whose source does not say.
_FRAMES_PER_SECOND = 24.0
_OURS = re.compile(r"\d{5,}\.(png|json)")


class TrackRun:
    """One call of the command."""

    def __init__(
        self,
        video: Path,
        prompts: list[FramePrompt],
        output: Path,
        form: str,
        overlay: bool,
        max_frames: int | None,
    ):
        """Opens the video and reads masks; nothing is written yet.

        Raises:
          InputError: the video or a mask cannot be read, or a prompt is on no frame of it.
        """
        self.path, self.output, self.form, self.overlay = video, output, form, overlay
        self.max_frames = max_frames
        self.video: VideoSource = open_video(video)
        if overlay:
            pyav()
            if min(self.video.size_hw) < 2:
                height, width = self.video.size_hw
                raise InputError(
                    f"frames of {width}x{height} are too small for an overlay; add --no-overlay"
                )
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
        _check_earlier(output, video)

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

    def run(self) -> None:
        """Follows the objects to the end, or until it is stopped; then says what was done.

        Raises:
          InputError: a frame cannot be read, or prompts are left over at the end.
          KeyboardInterrupt: it was asked to stop, and has finished the frame that it was at.
        """
        folder = self.output / "masks"
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if _OURS.fullmatch(old.name):
                old.unlink()
        if (self.output / "results.json").is_file():
            (self.output / "overlay.mp4").unlink(missing_ok=True)
        started, done, ended = time.monotonic(), 0, "an error"
        try:
            with ExitStack() as stack:
                stack.enter_context(self.video)
                total = self._total()
                progress = stack.enter_context(ProgressBar("tracking", "frames", total))
                stop = stack.enter_context(stop_requests())
                for done in self._frames(folder, stack):
                    progress.update(done)
                    if stop.is_set():
                        raise KeyboardInterrupt
            waiting = [one for one in self.prompts if one.frame >= done]
            if waiting:
                _check_frames(waiting, done, self.path)
            ended = "the end of the video"
            if total is not None and done < total:
                ended = f"the end of what can be read: {done} of {total} frames"
                click.echo(f"{self.path} says that it has {total} frames, and has {done}", err=True)
        except KeyboardInterrupt:
            ended = "an interruption"
            raise
        except InputError as error:
            ended = str(error)
            raise
        finally:
            seconds = time.monotonic() - started
            self._summary(done, seconds, ended)

    def _total(self) -> int | None:
        known = [n for n in (self.video.length, self.max_frames) if n is not None]
        return min(known) if known else None

    def _frames(self, folder: Path, stack: ExitStack) -> Any:
        """Yields how many frames are finished, after each."""
        tracker, video = self.tracker, self.video
        exact = self.path.is_dir()  # what a video file says of its length may be wrong
        state = tracker.start(video.size_hw, num_frames=video.length if exact else None)
        writer = None
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
            self._write(folder / f"{index:05d}", found)
            if self.overlay:
                picture = np.asarray(self._drawn(frame, found, here))
                if writer is None:
                    rate = video.frames_per_second or _FRAMES_PER_SECOND
                    size = (picture.shape[0], picture.shape[1])
                    aside = VideoWriter(self.output / "overlay.mp4", rate, size)
                    writer = stack.enter_context(aside)
                writer.write(picture)
            yield index + 1

    def _prompt(self, one: FramePrompt) -> dict[str, Any]:
        if one.mask is not None:
            return {"mask": self.masks[one.frame, one.object]}
        labels = one.labels if one.points else None
        return {"points": one.points or None, "labels": labels, "box": one.box}

    def _write(self, path: Path, found: TrackedMasks) -> None:
        masks = dict(found)
        if self.form == "png":
            nothing = np.zeros(found.size_hw, bool)
            every = (masks.get(i, nothing) for i in range(1, max(masks, default=0) + 1))
            content = label_png(every, found.size_hw)
        else:
            objects = [
                {
                    "object": number,
                    "object_score": float(found.object_scores[i]),
                    "predicted_iou": float(found.scores[i]),
                    "area": int(mask_area(mask)),
                    "bbox": mask_box(mask).tolist(),
                    "segmentation": encode_rle(mask),
                }
                for i, (number, mask) in enumerate(found)
            ]
            record = {"frame": found.frame_index, "objects": objects}
            content = (json.dumps(record) + "\n").encode()
        with written_aside(path.with_suffix(".png" if self.form == "png" else ".json")) as file:
            file.write(content)

    def _drawn(self, frame: np.ndarray, found: TrackedMasks, here: list[FramePrompt]) -> Any:
        points = [point for one in here for point in one.points]
        labels = [label for one in here for label in one.labels]
        masks = dict(found)
        nothing = np.zeros(found.size_hw, bool)
        # In the order of their numbers, so that each keeps its colour.
        every = (masks.get(i, nothing) for i in range(1, max(masks, default=0) + 1))
        return draw_overlay(
            frame,
            every,
            points=np.array(points, float) if points else None,
            labels=np.array(labels) if points else None,
        )

    def _check(self, one: FramePrompt) -> None:
        size, config = self.video.size_hw, self.tracker.config
        if one.mask is not None:
            mask_input(self.masks[one.frame, one.object], size, config)
        else:
            prompt_points(one.points or None, one.labels or None, one.box, size, config)

    def _summary(self, frames: int, seconds: float, ended: str) -> None:
        height, width = self.video.size_hw
        record = {
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
            "frames_per_second": round(frames / seconds, 3) if seconds else None,
            "ended_by": ended,
        }
        with written_aside(self.output / "results.json") as file:
            file.write((json.dumps(record, indent=1) + "\n").encode())
        click.echo(
            f"{self.output / 'masks'}  {frames} frames, {frames / max(seconds, 1e-9):.2f} a second"
        )
        if self.overlay and (self.output / "overlay.mp4").exists():
            click.echo(str(self.output / "overlay.mp4"))
        click.echo(str(self.output / "results.json"))


def _check_frames(prompts: list[FramePrompt], length: int, video: Path) -> None:
    beyond = [one for one in prompts if one.frame >= length]
    if beyond:
        raise InputError(
            f"there is no frame {beyond[0].frame}: {video} has {length}, from 0 to {length - 1}"
        )


def _read_mask(prompt: FramePrompt) -> np.ndarray:
    assert prompt.mask is not None
    return read_mask(prompt.mask, prompt.mask_label)


def _is_ours(path: Path) -> bool:
    """Whether a results.json is of this command."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and {"sam_jax", "video", "ended_by"} <= set(record)


def _check_earlier(output: Path, video: Path) -> None:
    """Refuses to remove what this command has not written, or what it is to read."""
    folder = output / "masks"
    if video.resolve() in (folder.resolve(), (output / "overlay.mp4").resolve()):
        raise InputError(f"{video} would be written over; choose another --output")
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"{folder} is not a folder; choose another --output")
    for name in ("results.json", "overlay.mp4"):
        if (output / name).is_dir():
            raise InputError(f"{output / name} is a folder; choose another --output")
    ours = _is_ours(output / "results.json")
    for name in ("masks", "overlay.mp4", "results.json"):
        there = output / name
        empty = there.is_dir() and not any(there.iterdir())
        if there.exists() and not ours and not empty:
            raise InputError(
                f"{there} is there and no result of this command; choose another --output"
            )
