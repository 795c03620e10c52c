"""Whether data are those that a run began with, as far as that is cheap to see."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sam_jax.errors import InputError

# To ask for the size of every file of eleven million would take longer than an epoch's first hour.
_SIZED = 1000


def check_resumed(state: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Refuses to go on where a stream of other data was.

    Args:
      state: that was saved; what it does not say, as those of earlier releases, is not compared.
      about: what this stream is of; "fingerprint" is that of its files.

    Raises:
      InputError: they differ, with what differs.
    """
    for name, value in about.items():
        if state.get(name, value) == value:
            continue
        if name == "fingerprint":
            raise InputError(
                "the data are not those that were begun with: files were renamed or changed in "
                "size; bring them back, or begin anew"
            )
        raise InputError(
            f"the saved place in the data is of {name} {state[name]}, this is of {value}; go on "
            "with what was begun, or begin anew"
        )


def fingerprint(folder: Path, names: Sequence[str] | np.ndarray, *arrays: np.ndarray) -> str:
    """Of names and arrays, and of the sizes of a thousand of the files, evenly spaced.

    Args:
      folder: that the files are in; its own name does not matter.
      names: of the files.
      arrays: what else there is to tell them by.
    """
    total = hashlib.sha256()
    for name in names:
        total.update(os.fsencode(name) + b"\n")
    for array in arrays:
        total.update(np.ascontiguousarray(array).tobytes())
    for name in names[:: max(1, len(names) // _SIZED)]:
        try:
            size = (folder / os.fsdecode(name)).stat().st_size
        except OSError:
            size = -1
        total.update(b"%d\n" % size)
    return total.hexdigest()[:16]
