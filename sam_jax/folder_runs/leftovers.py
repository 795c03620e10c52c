"""What runs that were killed left half-written."""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from sam_jax.files import name_start


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
