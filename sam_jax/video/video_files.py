"""Video files, read and written by PyAV."""

import os
import secrets
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import UInt8

from sam_jax.errors import InputError

# Best first: what browsers play, then what every build can write.
_ENCODERS = ("libx264", "libopenh264", "mpeg4")


def pyav() -> Any:
    """The package av.

    Raises:
      InputError: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise InputError(
            'video files need the package av; run `pip install "sam-jax[video]"`, or give a folder '
            "of pictures"
        ) from None
    av.logging.set_level(av.logging.PANIC)  # what is wrong is said once, by us
    return av


def _lenient(av: Any) -> dict[str, str]:
    """What makes PyAV before 19 open files whose titles are no UTF-8; later ones always do."""
    return {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


class VideoFile:
    """A file with a video in it.

    Attributes:
      path: of the file.
      frames_per_second: on average; None where the file does not say.
      length: as the file says, which may be wrong; None where it does not.
    """

    def __init__(self, path: Path):
        """Reads what the file says of itself.

        Raises:
          InputError: it cannot be read, or holds no video.
        """
        self.path = path
        with self._container() as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate
            self.frames_per_second = float(rate) if rate else None
            self.length = int(stream.frames) or None

    def frames(self) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """All frames, upright, RGB.

        Raises:
          InputError: one is damaged; with its index.
        """
        index = 0
        with self._container() as container:
            av = pyav()
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            try:
                for frame in container.decode(stream):
                    image = frame.to_ndarray(format="rgb24")
                    # Phones hold the picture as the sensor saw it, and note how it was held.
                    turns = round(getattr(frame, "rotation", 0) / 90) % 4
                    yield np.ascontiguousarray(np.rot90(image, turns))
                    index += 1
            except av.error.FFmpegError as error:
                reason = error.strerror or type(error).__name__
                raise InputError(f"{self.path} is damaged at frame {index}: {reason}") from None
        if self.length is not None and index < self.length // 2:
            raise InputError(
                f"{self.path} breaks off after frame {index - 1} of {self.length}; it is damaged"
            )

    def _container(self) -> Any:
        av = pyav()
        try:
            # A relative name with a colon would be another protocol's.
            container = av.open(str(self.path.absolute()), **_lenient(av))
        except (OSError, av.error.FFmpegError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise InputError(f"{self.path} cannot be read as a video: {reason}") from None
        if not container.streams.video:
            container.close()
            raise InputError(f"{self.path} has no video in it")
        return container


class VideoWriter:
    """Writes frames to an MP4 file that browsers play.

    The file takes its name when the block ends, also by an exception: what was written until then
    is a whole video. A block that wrote no frame leaves no file.
    """

    def __init__(self, path: str | os.PathLike, frames_per_second: float, size_hw: tuple[int, int]):
        """Makes the file, aside.

        Args:
          path: of the file; one that is there is replaced.
          frames_per_second: of the video.
          size_hw: of the frames. An odd last row or column is left out, for the codec's sake.

        Raises:
          InputError: av is not installed, or the frames are smaller than 2x2.
        """
        av = pyav()
        self._height, self._width = (length - length % 2 for length in size_hw)
        if min(self._height, self._width) < 2:
            raise InputError(f"frames of {size_hw[1]}x{size_hw[0]} are too small for a video")
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._aside = self._path.with_name(f".{secrets.token_hex(8)}.part.mp4")
        self._container = av.open(str(self._aside.absolute()), "w")
        name = next(one for one in _ENCODERS if one in av.codecs_available)
        rate = Fraction(frames_per_second).limit_denominator(1001)
        self._stream = self._container.add_stream(name, rate=max(rate, Fraction(1, 1001)))
        self._stream.width, self._stream.height = self._width, self._height
        self._stream.pix_fmt = "yuv420p"
        self._written = 0
        self._av = av

    def write(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Appends a frame."""
        image = np.ascontiguousarray(frame[: self._height, : self._width])
        picture = self._av.VideoFrame.from_ndarray(image, format="rgb24")
        for packet in self._stream.encode(picture):
            self._container.mux(packet)
        self._written += 1

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._written:
                for packet in self._stream.encode():
                    self._container.mux(packet)
            self._container.close()
            if self._written:
                os.replace(self._aside, self._path)
        finally:
            self._aside.unlink(missing_ok=True)
