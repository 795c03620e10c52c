"""Writing files so that no half of one is ever seen under its final name."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def written_aside(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A binary file to write; it takes the name `path` only when the block ends without an error.

    Missing parent directories are made. An error inside the block leaves whatever was at `path`
    before as it was.

    Raises:
      OSError: the directory cannot be written to, or the disk is full.
    """
    path = Path(path)
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


def part_name(name: str) -> str:
    """A hidden name to write a file of this name under, at most 128 bytes long."""
    return f".{name_start(name)}.{secrets.token_hex(8)}.part"


def name_start(name: str) -> str:
    """The first 100 bytes of a name, in whole characters: what a part's name tells of it."""
    return os.fsencode(name)[:100].decode(errors="ignore")
