"""The images of a run, read while the device computes, and what identifies each file."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam_jax.errors import InputError
from sam_jax.files import file_sha256
from sam_jax.folder_runs.image_list import ImageFile

if TYPE_CHECKING:
    import numpy as np

# Images that are read, or being read, while another is worked on.
_WAITING = 2


@dataclass(frozen=True)
class ReadImage:
    """An image's pixels, uint8 [height, width, 3], and the SHA-256 of the file they are from."""

    pixels: "np.ndarray"
    sha256: str


# Or why an image cannot be read.
Reading = ReadImage | InputError


def content_id(file: Path | ImageFile) -> str | None:
    """The SHA-256 of a file's content; None where there is no regular file that can be read."""
    path = Path(file)
    try:
        # Opening a pipe would wait for ever.
        return file_sha256(path) if path.is_file() else None
    except OSError:
        return None


def names_and_sizes(files: Iterable[Path | ImageFile]) -> list[tuple[str, int | None]]:
    """The name of each file and its bytes; None where there is none, or it cannot be looked at."""

    def size(file: Path | ImageFile) -> int | None:
        try:
            return Path(file).stat().st_size
        except OSError:
            return None

    return [(file.name, size(file)) for file in files]


@contextmanager
def reading_ahead(
    images: Sequence[ImageFile], options: Mapping[str, Any]
) -> Iterator[Iterator[tuple[ImageFile, Reading]]]:
    """An iterator over each image with what was read of it, or with why it cannot be read.

    A thread reads the next images while the caller works; few of them are in memory at a time.

    Args:
      images: to read.
      options: of `read_image`.
    """
    reader = ThreadPoolExecutor(1, thread_name_prefix="read-images")
    try:
        yield _read_in_order(reader, images, options)
    finally:
        # Not waited for: after an error or Ctrl-C nobody wants what is still being read.
        reader.shutdown(wait=False, cancel_futures=True)


def _read_in_order(
    reader: ThreadPoolExecutor, images: Sequence[ImageFile], options: Mapping[str, Any]
) -> Iterator[tuple[ImageFile, Reading]]:
    waiting: deque[tuple[ImageFile, Future]] = deque()
    for image in images:
        waiting.append((image, reader.submit(_read, image, options)))
        if len(waiting) > _WAITING:
            yield _first(waiting)
    while waiting:
        yield _first(waiting)


def _first(waiting: deque[tuple[ImageFile, Future]]) -> tuple[ImageFile, Reading]:
    image, future = waiting.popleft()
    return image, future.result()


def _read(image: ImageFile, options: Mapping[str, Any]) -> Reading:
    try:
        return read_with_id(image, options)
    except InputError as error:
        return error


def read_with_id(image: ImageFile, options: Mapping[str, Any]) -> ReadImage:
    """An image's pixels and what identifies its file.

    Args:
      image: to read.
      options: of `read_image`.

    Raises:
      InputError: it cannot be read.
    """
    from sam_jax.images import read_image

    # First, so that of a file that is replaced in between, a later run sees that it was.
    sha256 = content_id(image)
    pixels = read_image(image, **options)
    if sha256 is None:
        raise InputError(f"image {str(image)!r} appeared just now; run it again with --resume")
    return ReadImage(pixels, sha256)
