"""Files: written so that no half is seen under a final name, known by content, locked."""

import errno
import hashlib
import os
import secrets
import shutil
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sam_jax.errors import InputError

_PIECE_BYTES = 16 << 20


@contextmanager
def written_aside(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A binary file to write; it takes the name `path` only when the block ends without an error.

    Missing parent directories are made. An error inside the block leaves whatever was at `path`
    before as it was. A link stays, and what it leads to is written; so is a pipe or a device, such
    as /dev/null, but piece by piece.

    Raises:
      OSError: the directory cannot be written to, or the disk is full.
    """
    path = Path(path)
    if is_stream(path):
        with open(path, "wb") as file:
            yield file
        return
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not `tempfile`: its files are private to the user, whatever the umask says.
    temporary = path.with_name(part_name(path.name))
    try:
        with open(temporary, "xb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def written_together(folder: Path) -> Iterator[Path]:
    """A folder to fill; its files move into `folder` when the block ends without an error.

    They are all complete before the first one appears, and replace files of their names; so do
    those in folders inside it. The .json files beside each other, which list the others, appear
    last.

    Raises:
      InputError: the folder cannot be written to, or the disk is full; `folder` is then as before.
    """
    made = not folder.exists()
    aside = folder / f".{secrets.token_hex(8)}.part"
    try:
        aside.mkdir(parents=True)
        try:
            yield aside
            found = (path for path in aside.rglob("*") if path.is_file())
            names = sorted(file.relative_to(aside) for file in found)
            names.sort(key=lambda name: len(name.parts) == 1 and name.suffix == ".json")
            for name in names:
                if (folder / name).is_dir():
                    raise InputError(f"{folder / name} is a folder; choose another name or folder")
            for name in names:
                if len(name.parts) > 1:
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(aside / name, folder / name)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
            if made and not any(folder.iterdir()):
                folder.rmdir()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot write to {folder}: {reason}; nothing was changed") from error


def is_stream(path: Path) -> bool:
    """Whether there is something that takes bytes but is no regular file: a pipe, a device."""
    return path.exists() and not path.is_file() and not path.is_dir()


def part_name(name: str) -> str:
    """A hidden name to write a file of this name under, at most 128 bytes long."""
    return f".{name_start(name)}.{secrets.token_hex(8)}.part"


def name_start(name: str) -> str:
    """The first 100 bytes of a name, in whole characters: what a part's name tells of it."""
    return os.fsencode(name)[:100].decode(errors="ignore")


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal.

    Raises:
      OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def directory_checksums(directory: Path) -> dict[str, str]:
    """The CRC-32, in hexadecimal, of every file under a directory, by its path there.

    Raises:
      OSError: a file cannot be read.
    """
    files = sorted(file for file in directory.rglob("*") if file.is_file())
    with ThreadPoolExecutor() as threads:
        checksums = list(threads.map(_crc32, files))
    names = [file.relative_to(directory).as_posix() for file in files]
    return dict(zip(names, checksums, strict=True))


def _crc32(file: Path) -> str:
    checksum = 0
    with open(file, "rb") as opened:
        while piece := opened.read(_PIECE_BYTES):
            checksum = zlib.crc32(piece, checksum)
    return f"{checksum:08x}"


def try_lock(file: BinaryIO, shared: bool = False) -> bool:
    """Takes a file's lock, unless it is taken; the system releases it however this process ends.

    True where the file system has no locks, as some network file systems: work that is done twice
    at once there is no worse than without asking.

    Args:
      file: open for writing; for reading if shared.
      shared: others may have it shared at the same time (on Windows, they may not).

    Raises:
      OSError: anything but that the lock is taken.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(file, kind | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            raise
    return True
