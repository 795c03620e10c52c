"""Paths that a run's configuration names: what they are relative to, and when two are the same.

A path in a TOML file is relative to the folder of that file, a path on the command line to the
working directory. A run's folder keeps absolute paths, so that it is the same run wherever the
command is called from.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sam_jax.checkpoints.registry import official_name, shipped_names

# Keys that name a file or folder. Where a table or key is of another kind of run, it is not there.
PATH_KEYS = (
    ("data", "path"),
    ("data", "annotations"),
    ("model", "checkpoint"),
    ("model", "mae"),
    ("tune", "cached_embeddings"),
)
# What is drawn as training goes is no folder.
_DRAWN = ("scenes", "clips")
# In config.json: where the run's folder was, beside its configuration.
_FOLDER = "folder"


def relative_to(values: dict[str, Any], folder: str) -> dict[str, Any]:
    """Values whose relative paths are those from a folder; `~` is the user's home.

    Names of models, and data that are drawn, stay as they are.

    Args:
      values: tables of a configuration, unchecked; changed in place.
      folder: empty for the working directory.
    """
    for table, key, path in _paths(values):
        table[key] = os.path.join(folder, os.path.expanduser(path))
    return values


def kept(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A configuration as a run's folder keeps it: with absolute paths, and the folder's own.

    Args:
      values: a whole configuration.
      folder: of the run.
    """
    copy = {name: dict(x) if isinstance(x, dict) else x for name, x in values.items()}
    for table, key, path in _paths(copy):
        table[key] = os.path.abspath(path)
    return {**copy, _FOLDER: os.path.abspath(folder)}


def comparable(earlier: dict[str, Any], now: dict[str, Any]) -> tuple[dict, dict]:
    """Two configurations from `kept`, so that a path is the same in both where it means the same.

    Paths mean the same that are the same, or that were moved together with the run's folder.
    Folders of earlier versions have paths as they were given: these are taken from the working
    directory.

    Args:
      earlier: of the run's folder.
      now: of the call that would go on with it.
    """
    earlier = {name: dict(x) if isinstance(x, dict) else x for name, x in earlier.items()}
    now = dict(now)
    then_in, now_in = earlier.pop(_FOLDER, None), now.pop(_FOLDER)
    for table, key, path in _paths(earlier):
        table[key] = path = os.path.abspath(path)
        if not isinstance(then_in, str):
            continue
        moved = os.path.normpath(os.path.join(now_in, os.path.relpath(path, then_in)))
        if moved in [other for _, _, other in _paths(now)]:
            table[key] = moved
    return earlier, now


def _paths(values: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Tables, their keys that name a path, and the path."""
    for name, key in PATH_KEYS:
        table = values.get(name)
        path = table.get(key) if isinstance(table, dict) else None
        if isinstance(table, dict) and isinstance(path, str) and path and not _is_name(key, path):
            yield table, key, path


def _is_name(key: str, value: str) -> bool:
    if key == "checkpoint":
        return value in shipped_names() or official_name(value) is not None
    return key == "path" and value.partition(":")[0] in _DRAWN
