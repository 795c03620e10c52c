"""Work on every image of a folder: read while the device computes, failures told at the end."""

import re
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sam_jax.errors import InputError
from sam_jax.files import name_start

if TYPE_CHECKING:
    import numpy as np

# Images that are read, or being read, while another is worked on.
_WAITING = 2


def images_of(source: Path) -> list[Path]:
    """The images directly inside a folder, sorted by name; or the one file that it is.

    Raises:
      InputError: the folder cannot be read, or holds no image.
    """
    from sam_jax.images import list_images

    return list_images(source) if source.is_dir() else [source]


@contextmanager
def reading_ahead(
    images: Sequence[Path],
) -> Iterator[Iterator[tuple[Path, "np.ndarray | InputError"]]]:
    """An iterator over each image with its pixels, or with the reason why it cannot be read.

    A thread reads the next images while the caller works; few of them are in memory at a time.
    """
    reader = ThreadPoolExecutor(1, thread_name_prefix="read-images")
    try:
        yield _read_in_order(reader, images)
    finally:
        # Not waited for: after an error or Ctrl-C nobody wants what is still being read.
        reader.shutdown(wait=False, cancel_futures=True)


def _read_in_order(
    reader: ThreadPoolExecutor, images: Sequence[Path]
) -> Iterator[tuple[Path, "np.ndarray | InputError"]]:
    waiting: deque[tuple[Path, Future]] = deque()
    for image in images:
        waiting.append((image, reader.submit(_read, image)))
        if len(waiting) > _WAITING:
            yield _first(waiting)
    while waiting:
        yield _first(waiting)


def _first(waiting: deque[tuple[Path, Future]]) -> tuple[Path, "np.ndarray | InputError"]:
    image, future = waiting.popleft()
    return image, future.result()


def _read(image: Path) -> "np.ndarray | InputError":
    from sam_jax.images import read_image

    try:
        return read_image(image)
    except InputError as error:
        return error


def remove_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Removes what runs that were killed left beside files of these names, half-written.

    They are named as `written_aside` names them; some are folders.
    """
    starts = {name_start(name) for name in names}
    hidden = re.compile(r"\.(.+)\.[0-9a-f]{16}\.part", re.DOTALL)
    for path in folder.iterdir() if folder.is_dir() else ():
        match = hidden.fullmatch(path.name)
        if match and match[1] in starts:
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
