"""The files below a folder, each once however links lead to it."""

import os
from collections.abc import Callable, Iterable, Iterator
from functools import cache

from sam_jax.errors import InputError


def files_below(
    folder: str | os.PathLike[str], select: Callable[[Iterable[str]], list[str]]
) -> Iterator[str]:
    """Files in a folder and those inside it, as paths relative to it, in no order.

    Links to files and folders are followed, but no folder is entered twice and no file given twice.
    Hidden folders are left out.

    Args:
      folder: where to look.
      select: which of the names in one folder are wanted.

    Raises:
      InputError: a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"cannot list {error.filename}: {error.strerror}") from error

    visited: set[str] = set()
    links: dict[str, str] = {}
    for root, folders, names in os.walk(os.fspath(folder), onerror=refuse, followlinks=True):
        real = os.path.realpath(root)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        # The same tree is gone through in the same order wherever it lies.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = os.path.relpath(root, folder)
        for name in select(names):
            path = os.path.normpath(os.path.join(inside, name))
            if os.path.islink(os.path.join(root, name)):
                target = os.path.realpath(os.path.join(root, name))
                links[target] = min(path, links.get(target, path))
            else:
                yield path

    @cache
    def selected(real: str) -> frozenset[str]:
        return frozenset(select(os.listdir(real)))

    for target, path in links.items():
        parent, name = os.path.split(target)
        if parent not in visited or name not in selected(parent):
            yield path
