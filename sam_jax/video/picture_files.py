"""Files of several pictures as videos: animated GIF, WebP and PNG, TIFF with pages."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from sam_jax.errors import InputError
from sam_jax.images import IMAGE_SUFFIXES, read_image
from sam_jax.video.declared_size import missing_bytes
from sam_jax.video.video_files import TimedFrame

_GIF, _PNG, _TIFF, _JPEG = (b"GIF8",), (b"\x89PNG\r\n\x1a\n",), (b"II*\0", b"MM\0*"), (b"\xff\xd8",)
_FORMATS = ("GIF", "PNG", "WEBP", "TIFF", "JPEG")
_STILL = ("JPEG", "MPO")


def is_picture_file(path: Path) -> bool:
    """Whether a file is a picture, or several, by its first bytes.

    Raises:
      InputError: it cannot be opened.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror}") from None
    if start.startswith(_JPEG):  # which a raw stream of Motion JPEG begins with, too
        return path.suffix.lower() in IMAGE_SUFFIXES
    webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    return webp or start.startswith((*_GIF, *_PNG, *_TIFF))


class PictureFile:
    """A file of one or more pictures, which are the frames.

    Attributes:
      path: of the file.
      pages: how many pictures there are.
      has_times: whether the file says how long each is shown.
      frames_per_second: while the first picture is shown; None where the file does not say.
      length: the same as `pages`.
      cut: after the last frame, one line about what is missing where the file was cut short, else
        None.
    """

    def __init__(self, path: Path):
        """Reads what the file says of itself.

        Raises:
          InputError: it cannot be read.
        """
        self.path = path
        self.cut: str | None = None
        try:
            with Image.open(path, formats=_FORMATS) as image:
                # Of phones' JPEGs the further pictures are previews, depths or another eye's.
                pages = 1 if image.format in _STILL else int(getattr(image, "n_frames", 1))
                # A picture for programs that do not know animated PNG.
                self._first = int(getattr(image, "default_image", False) and pages > 1)
                self.pages = pages - self._first
                self._is_tiff = image.format == "TIFF"
                image.seek(self._first)
                image.load()  # which WebP needs to know how long the first picture is shown
                shown = float(image.info.get("duration", 0) or 0)
        except Exception as error:  # Pillow raises a dozen types for damaged files
            raise self._unreadable(error) from None
        self.length = self.pages
        self.frames_per_second = 1000 / shown if shown > 0 and self.pages > 1 else None
        self.has_times = self.frames_per_second is not None

    @property
    def remark(self) -> str | None:
        """What a person who gives the file as a video may not expect; None for an animation."""
        if self.pages > 1 and not self._is_tiff:
            return None
        what = f"{self.pages} pages, which are" if self.pages > 1 else "one picture, which is"
        return f"{self.path} has {what} taken as the frames of a video"

    def frames(self) -> Iterator[TimedFrame]:
        """All pictures, RGB, alpha dropped, with the time at which each is shown.

        Raises:
          InputError: one is damaged; with its index.
        """
        self.cut = None
        index, milliseconds, ends_early = 0, 0.0, False
        with self._opened() as image:
            while index < self.pages and not ends_early:
                try:
                    image.seek(self._first + index)
                    picture = image.copy()  # by itself, no longer one of several
                except Exception as error:
                    ends_early = index > 0 and self._lacks_its_end(error)
                    if not ends_early:
                        reason = " ".join(str(error).split())[:200]
                        raise InputError(
                            f"{self.path} is damaged at frame {index}: {reason}"
                        ) from None
                else:
                    yield read_image(picture), milliseconds / 1000 if self.has_times else None
                    milliseconds += float(image.info.get("duration", 0) or 0)
                    index += 1
        if ends_early or self._lacks_its_end(None):
            self.cut = (
                f"{self.path} is cut short: {index} of {self.pages} pictures could be read, and "
                "the end of the file is missing"
            )

    def _opened(self) -> Any:
        try:
            return Image.open(self.path, formats=_FORMATS)
        except Exception as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> InputError:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        with suppress(OSError):
            if missing := missing_bytes(self.path):
                reason = f"it is cut short, and at least {missing} bytes are missing"
        return InputError(f"{self.path} cannot be read as a video: {reason}")

    def _lacks_its_end(self, error: Exception | None) -> bool:
        """Whether the file ends without its last mark; with an error, of a TIFF, which has none."""
        with open(self.path, "rb") as file:
            start = file.read(4)
            file.seek(-min(self.path.stat().st_size, 4096), 2)
            end = file.read()
        if start in _GIF:
            return not end.rstrip(b"\0").endswith(b";")
        if start == _PNG[0][:4]:
            return b"IEND" not in end[-64:]
        if start == b"RIFF":
            return missing_bytes(self.path) > 0
        return start in _TIFF and error is not None
