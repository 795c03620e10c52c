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
from sam_jax.video.declared_size import missing_bytes

# A frame, and its time in seconds, None where that is unknown.
TimedFrame = tuple[UInt8[np.ndarray, "height width 3"], float | None]

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
            "video files need the package av (PyAV): run `pip install 'sam-jax[video]'`, or give a "
            "folder of pictures"
        ) from None
    av.logging.set_level(av.logging.PANIC)  # what is wrong is said once, by us
    return av


def has_pyav() -> bool:
    """Whether video files can be read and written."""
    try:
        pyav()
    except InputError:
        return False
    return True


def _lenient(av: Any) -> dict[str, str]:
    """What makes PyAV before 19 open files whose titles are no UTF-8; later ones always do."""
    return {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


class VideoFile:
    """A file with a video in it.

    Attributes:
      path: of the file.
      frames_per_second: on average; None where the file does not say.
      length: as the file says, which may be wrong; None where it does not.
      cut: after the last frame, one line about what is missing where the file was cut short, else
        None.
    """

    def __init__(self, path: Path):
        """Reads what the file says of itself.

        Raises:
          InputError: it cannot be read, or holds no video.
        """
        self.path = path
        self.cut: str | None = None
        with self._container() as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate
            self.frames_per_second = float(rate) if rate else None
            self.length = int(stream.frames) or None

    def frames(self) -> Iterator[TimedFrame]:
        """All frames, upright, RGB, with the time at which each is shown, where the file says.

        Raises:
          InputError: one is damaged; with its index.
        """
        index, packets = 0, _Packets()
        self.cut = None
        with self._container() as container:
            av = pyav()
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            indexed = _indexed_bytes(container, stream)
            try:
                for packet in packets.whole(container, stream):
                    for frame in packet.decode():
                        unsure = packets.may_lack_frames_before(frame, self.length)
                        if unsure and self._is_cut(packets, indexed):
                            continue
                        image = frame.to_ndarray(format="rgb24")
                        # Phones hold the picture as the sensor saw it, and note how it was held.
                        turns = round(getattr(frame, "rotation", 0) / 90) % 4
                        yield np.ascontiguousarray(np.rot90(image, turns)), frame.time
                        index += 1
            except av.error.FFmpegError as error:
                reason = error.strerror or type(error).__name__
                if not (packets.at_end and self._is_cut(packets, indexed)):
                    raise InputError(f"{self.path} is damaged at frame {index}: {reason}") from None
        if self._is_cut(packets, indexed):
            of = f" of {self.length}" if self.length else ""
            missing = self._missing(indexed)
            lost = f"at least {missing} bytes are missing" if missing else "it ends inside a frame"
            self.cut = f"{self.path} is cut short: {index}{of} frames could be read, and {lost}"

    def _is_cut(self, packets: "_Packets", indexed: int) -> bool:
        return packets.last_is_cut or self._missing(indexed) > 0

    def _missing(self, indexed: int) -> int:
        try:
            return max(missing_bytes(self.path), indexed - self.path.stat().st_size)
        except OSError:  # it went away while it was read
            return 0

    def _container(self) -> Any:
        av = pyav()
        try:
            # A relative name with a colon would be another protocol's.
            container = av.open(str(self.path.absolute()), **_lenient(av))
        except (OSError, av.error.FFmpegError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            if missing := self._missing(0):
                raise InputError(
                    f"{self.path} is cut short and cannot be read as a video: at least {missing} "
                    "bytes are missing; get the whole file"
                ) from None
            raise InputError(f"{self.path} cannot be read as a video: {reason}") from None
        if not container.streams.video:
            container.close()
            raise InputError(f"{self.path} has no video in it")
        return container


class _Packets:
    """The packets of a stream, less a last one that the end of the file has cut.

    Attributes:
      at_end: whether all of the file was read.
      last_is_cut: whether the last packet was left out.
    """

    def __init__(self) -> None:
        self.at_end = self.last_is_cut = False
        self._count, self._last_dts = 0, None

    def may_lack_frames_before(self, frame: Any, length: int | None) -> bool:
        """Whether, in a file that was cut, frames that are shown before this one may be missing.

        Packets are in the order of decoding: a frame may come before others that are shown earlier.
        A missing packet is decoded after the last one that is there, and shown no earlier.
        """
        if not self.at_end or (length is not None and self._count >= length):
            return False
        return None not in (frame.pts, self._last_dts) and frame.pts > self._last_dts

    def whole(self, container: Any, stream: Any) -> Iterator[Any]:
        """The packets, and at the end the empty one that makes the decoder give what it holds."""
        held = None
        for packet in container.demux(stream):
            if packet.size == 0 and packet.dts is None:
                self.at_end = True
                # Elsewhere the flag is no reason not to decode: decoders know better.
                self.last_is_cut = held is not None and bool(held.is_corrupt)
                held = None if self.last_is_cut else held
            if held is not None:
                self._count, self._last_dts = self._count + 1, held.dts
                yield held
            held = packet
        if held is not None:
            yield held


def _indexed_bytes(container: Any, stream: Any) -> int:
    """Where the last frame ends by the index of an MP4 or QuickTime file; 0 if unknown.

    A box of media data may say that it goes on to the end of the file, wherever that is.
    """
    entries = getattr(stream, "index_entries", ())  # PyAV before 17 has none
    if "mov" not in container.format.name:
        return 0
    return max((entry.pos + entry.size for entry in entries), default=0)


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
