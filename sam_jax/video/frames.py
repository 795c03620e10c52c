"""The frames of a video, one at a time: from a file, a folder of pictures, arrays, a camera."""

import os
import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import UInt8

from sam_jax.errors import InputError
from sam_jax.frame_folders import frame_files
from sam_jax.images import read_image
from sam_jax.video.picture_files import PictureFile, is_picture_file
from sam_jax.video.video_files import VideoFile

Frame = UInt8[np.ndarray, "height width 3"] | None
# A frame and its time in seconds, None where that is unknown.
TimedFrame = tuple[Frame, float | None]


class CutVideoWarning(UserWarning):
    """A video file was cut short: frames at its end are missing."""


class VideoSource:
    """Frames as uint8 [height, width, 3] RGB arrays of one size; None for one that was dropped.

    Iterating opens the source anew, where it can be; a generator or camera gives its frames once.
    Only the frame in use is in memory.

    A file that was cut short gives the frames that are there, and a `CutVideoWarning` after the
    last one.

    Attributes:
      size_hw: height and width of all frames.
      frames_per_second: where the source says.
      length: how many frames there are, where that is known without decoding them all; what a
        video file says of itself may be wrong.
      can_restart: whether it can be iterated again.
      names: of the frames of a folder, their files' names without suffix; else None.
      frame_times: of a file, the seconds at which each frame so far is shown, by the file's own
        clock, which need not begin at 0 (None: the file does not say); None for other sources.
      cut: after the last frame, what is missing of a file that was cut short, in one line; else
        None.
    """

    def __init__(
        self,
        opened: "_Opened",
        frames_per_second: float | None = None,
        length: int | None = None,
        names: tuple[str, ...] | None = None,
    ):
        """Looks at the first frame; see `open_video`."""
        self.frames_per_second = frames_per_second
        self.length = length
        self.names = names
        self.can_restart = opened.can_restart
        self.frame_times: list[float | None] | None = [] if opened.has_times else None
        self.cut: str | None = None
        self._opened = opened
        self._waiting = opened.frames()
        self._first: list[TimedFrame] = []
        for frame, time in self._waiting:
            self._first.append((frame, time))
            if frame is not None:
                self.size_hw = (frame.shape[0], frame.shape[1])
                break
        else:
            raise InputError(opened.cut() or f"{opened.name} has no frames")

    def __iter__(self) -> Iterator[Frame]:
        if self.can_restart and not self._first:
            self._waiting = self._opened.frames()
        ahead, self._first = self._first, []
        if self.frame_times is not None:
            self.frame_times = []
        self.cut = None
        index = 0
        for source in (ahead, self._waiting):
            for frame, time in source:
                if frame is not None and frame.shape[:2] != self.size_hw:
                    raise InputError(
                        f"frame {index} of {self._opened.name} is {frame.shape[1]}x"
                        f"{frame.shape[0]}, but those before are "
                        f"{self.size_hw[1]}x{self.size_hw[0]}"
                    )
                if self.frame_times is not None:
                    self.frame_times.append(time)
                yield frame
                index += 1
        self.cut = self._opened.cut()
        if self.cut is not None:
            warnings.warn(self.cut, CutVideoWarning, stacklevel=2)

    def close(self) -> None:
        """Closes what is open."""
        close = getattr(self._waiting, "close", None)
        if close is not None:
            close()

    def __reduce__(self) -> Any:
        """Refuses to be pickled or copied: what is open stays in its process."""
        raise pickle.PicklingError(
            f"an open video cannot be pickled or copied ({self._opened.name}); give open_video the "
            "same source again in the other process"
        )

    def __enter__(self) -> "VideoSource":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_video(source: object) -> VideoSource:
    """Opens anything that holds a video.

    Args:
      source: a file: a video (mp4, mov, webm, mkv, avi, ...), which needs the package av, or an
        animated GIF, WebP or PNG, or a TIFF, whose pages are the frames; a folder of pictures, by
        the numbers in their names (see `frame_folders.frame_files`); an array [T, H, W, 3] or
        [T, H, W] of a kind that `images.read_image` takes; or an iterable of what it takes, in
        which None stands for a frame that a camera dropped.

    Raises:
      InputError: it is missing, unreadable or empty, av is not installed, or it cannot be told
        which pictures of a folder are frames. While it is iterated: a frame is damaged or has
        another size, with its index.
    """
    if isinstance(source, str | os.PathLike):
        return _open_path(source)
    if hasattr(source, "__array__") and not isinstance(source, list | tuple):
        frames = np.asarray(source)
        if frames.ndim not in (3, 4) or not len(frames):
            raise InputError(f"an array of frames is [T, H, W, 3], not of shape {frames.shape}")
        return VideoSource(
            _Opened("the array", lambda: _untimed(map(read_image, frames)), True),
            length=len(frames),
        )
    if not isinstance(source, Iterable):
        raise InputError(
            "a video is a file, a folder, an array or an iterable of frames, "
            f"not {type(source).__name__}"
        )
    given: Any = source
    restarts = isinstance(source, list | tuple)
    length = len(given) if restarts else None
    return VideoSource(
        _Opened("the video", lambda: _untimed(_read(given)), restarts), length=length
    )


def _open_path(source: str | os.PathLike) -> VideoSource:
    if not os.fspath(source):  # which would be the current folder
        raise InputError("the video's path is empty; give a video file or a folder of pictures")
    path = Path(source)
    if _is_dir(path):
        files = frame_files(path)
        return VideoSource(
            _Opened(str(path), lambda: _untimed(map(read_image, files)), True),
            length=len(files),
            names=tuple(file.stem for file in files),
        )
    if not path.exists():
        raise InputError(f"{path} does not exist; give a video file or a folder of pictures")
    if not path.is_file():  # opening a pipe would wait for ever
        raise InputError(f"{path} is no file; give frames from elsewhere as an iterable")
    file: VideoFile | PictureFile
    has_times = True
    if is_picture_file(path):
        file = PictureFile(path)
        has_times = file.has_times
        if file.remark is not None:
            warnings.warn(file.remark, stacklevel=3)
    else:
        file = VideoFile(path)
    opened = _Opened(str(path), file.frames, True, has_times, lambda: file.cut)
    return VideoSource(opened, file.frames_per_second, file.length)


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:  # a name that is too long
        raise InputError(f"{str(path)[:100]} cannot be opened: {error.strerror}") from None


def _read(frames: Iterable[Any]) -> Iterator[Frame]:
    for index, frame in enumerate(frames):
        if frame is None:
            yield None
            continue
        try:
            yield read_image(frame)
        except InputError as error:
            raise InputError(f"frame {index}: {error}") from None


def _untimed(frames: Iterable[Frame]) -> Iterator[TimedFrame]:
    return ((frame, None) for frame in frames)


@dataclass(frozen=True)
class _Opened:
    """A way to the frames of one source.

    `cut` says, after the last frame, what is missing of it.
    """

    name: str
    frames: Callable[[], Iterator[TimedFrame]]
    can_restart: bool
    has_times: bool = False
    cut: Callable[[], str | None] = lambda: None
