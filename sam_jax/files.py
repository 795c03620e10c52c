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
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.part")
    try:
        with open(temporary, "xb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
