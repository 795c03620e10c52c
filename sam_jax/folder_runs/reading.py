"""Work on every image of a folder: read while the device computes, failures told at the end."""

import os
import re
import shutil
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from sam_jax.cli.image_options import ImageFile
from sam_jax.errors import InputError
from sam_jax.files import file_sha256, name_start, try_lock

if TYPE_CHECKING:
    import numpy as np

# Images that are read, or being read, while another is worked on.
_WAITING = 2
_LOCK = ".sam-jax.lock"
_TAKEN = "another run is writing to {}; wait for its end, or choose another --output"


@dataclass(frozen=True)
class ReadImage:
    """An image's pixels, uint8 [height, width, 3], and the SHA-256 of the file they are from."""

    pixels: "np.ndarray"
    sha256: str


# Or why an image cannot be read.
Reading = ReadImage | InputError


def lock_file(folder: Path, part: int | None = None) -> Path:
    """What a run holds locked in the folder it writes to; `part` is of a run of many processes."""
    return folder / (_LOCK if part is None else f".sam-jax.{part}.lock")


def done_file(folder: Path, part: int) -> Path:
    """What the process that did a part leaves for process 0."""
    return folder / f".sam-jax.{part}.done"


@contextmanager
def own_folder(folder: Path, part: int | None = None) -> Iterator[BinaryIO]:
    """Makes a folder to write to, and keeps other runs out of it until the block ends.

    What a run that was killed left locked is free again. A folder that stays empty goes.

    Args:
      folder: to write to.
      part: of a run of many processes, each of which has one; None keeps all of them out.

    Returns:
      The lock's file, open to append to.

    Raises:
      InputError: another run has it.
      OSError: it cannot be made or written to.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = lock_file(folder, part)
    try:
        with open(path, "ab") as file:
            if not try_lock(file) or not _is_at(path, file.fileno()):
                raise InputError(_TAKEN.format(folder))
            try:
                # After this one is locked: of two kinds that start at once, one at least sees it.
                if part is None:
                    keep_out_parts(folder)
                else:
                    _keep_out(lock_file(folder))
                yield file
            finally:
                # Before it is free: later, it might be the next run's already.
                with suppress(OSError):
                    path.unlink()
    finally:
        if sys.platform == "win32":  # Where no open file can be removed.
            with suppress(OSError):
                path.unlink()
        if made:
            # It stays if anything is in it. Another that began with this one may have removed it.
            with suppress(OSError):
                folder.rmdir()


def keep_out_parts(folder: Path, first: int = 0) -> None:
    """Refuses a folder where a process does a part of this number or a later one.

    What processes that were killed have left there goes.

    Raises:
      InputError: there is one.
    """
    matches = (re.fullmatch(r"\.sam-jax\.(\d+)\.(lock|done)", name) for name in os.listdir(folder))
    found = [(int(match[1]), folder / match[0]) for match in matches if match]
    later = [path for number, path in found if number >= first]
    # Results last: they go only if nobody waits for them.
    for path in sorted(later, key=lambda path: path.suffix == ".done"):
        if path.suffix == ".lock":
            _keep_out(path)
        else:
            path.unlink(missing_ok=True)


def _keep_out(path: Path) -> None:
    """Refuses a folder where a run has this lock; one that was killed has it no more."""
    with suppress(FileNotFoundError), open(path, "rb") as file:
        # Shared, so that the processes of one run do not see each other looking.
        if not try_lock(file, shared=True):
            raise InputError(_TAKEN.format(path.parent))
        path.unlink()


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file has its name still: a run that ended since may have removed it."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


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


def remove_leftovers(folder: Path, names: Iterable[str], others: Iterable[str] = ()) -> None:
    """Removes what runs that were killed left beside files of these names, half-written.

    They are named as `written_aside` names them; some are folders. What might be beside one of
    the `others`, which another process may be writing, stays.

    Args:
      folder: where they are.
      names: of files in it or, with the way there, in folders inside it.
      others: likewise.
    """

    def start(name: str) -> tuple[Path, str]:
        path = folder / name
        return path.parent, name_start(path.name)

    starts = {start(name) for name in names} - {start(name) for name in others}
    hidden = re.compile(r"\.(.+)\.[0-9a-f]{16}\.part", re.DOTALL)
    places = {place for place, _ in starts}
    for path in (path for place in places if place.is_dir() for path in place.iterdir()):
        match = hidden.fullmatch(path.name)
        if match and (path.parent, match[1]) in starts:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def show_failures(failures: Iterable[InputError]) -> None:
    """Lists on stderr why images failed."""
    for failure in failures:
        click.echo(f"failed: {failure}", err=True)


def raise_failures(failures: Sequence[InputError], total: int, done: str) -> None:
    """Lists what failed, where something did, and ends the command with one line.

    Args:
      failures: why images failed.
      total: how many images there were.
      done: what the others are, such as "encoded".

    Raises:
      InputError: there are failures; of a single image, its own.
    """
    if failures and total == 1:
        raise failures[0]
    show_failures(failures)
    if failures:
        raise InputError(
            f"{len(failures)} of {total} images could not be {done}; mend or remove them, "
            "and run it again with --resume"
        )
