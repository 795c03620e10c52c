"""One run at a time in a folder: locks that a killed run has no more."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from sam_jax.errors import InputError
from sam_jax.files import try_lock

_LOCK = ".sam-jax.lock"
_TAKEN = "another run is writing to {}; wait for its end, or choose another --output"


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
