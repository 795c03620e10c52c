"""Where the package `convert` is loaded, when PyTorch files are to be read or written.

`convert` is a top-level name that others use too: a script `convert.py`, a folder `convert/`, the
package of another distribution. Which one Python would load is found out without running it.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import sys
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from sam_jax.errors import InputError

# Stands in our convert/__init__.py, and in nobody else's.
_MARK = b'OWNER = "sam-jax"'
_AGAIN = "install sam-jax again (pip install --force-reinstall --no-deps sam-jax)"


def load_converter() -> Any:
    """Our package `convert`.

    Raises:
      InputError: another module of that name stands before it on Python's path or has overwritten
        it, or it is not installed.
    """
    problem = converter_conflict()
    if problem is not None:
        raise InputError(problem)
    return importlib.import_module("convert")


def converter_conflict() -> str | None:
    """What is in the way of our package `convert`, in one line; None where nothing is.

    Nothing is imported: the module that Python would load is only looked for.
    """
    ours = Path(__file__).parents[1] / "convert"
    there = (ours / "__init__.py").is_file()
    found = _places()
    is_ours = found is not None and any(_same(place, ours) for place in found)
    if found is None or (is_ours and not there):
        return f"sam-jax's package `convert` is not in {ours.parent}; {_AGAIN}"
    if not is_ours:
        named = found[0] if found else "called convert that this program made"
        remedy = "rename it, or run from another folder" if there else _AGAIN
        return f"the module {named} hides sam-jax's own package `convert` ({ours}); {remedy}"
    if _MARK not in (ours / "__init__.py").read_bytes():
        others = _owners(ours / "__init__.py")
        by = f" of {' and '.join(others)}" if others else ""
        return (
            f"sam-jax's own package `convert` was overwritten by another one{by} in {ours}; "
            f"uninstall that, and {_AGAIN}"
        )
    return None


def _places() -> list[Path] | None:
    """Where the module `convert` is, or would be loaded from; None where there is none.

    A package is its directories, a module its file; a module that was made in memory has none.
    """
    if sys.modules.get("convert") is not None:
        module = sys.modules["convert"]
        file, portions = getattr(module, "__file__", None), getattr(module, "__path__", None)
    else:
        spec: ModuleSpec | None = None
        with suppress(ValueError):  # a None among the loaded modules, which blocks the name
            spec = importlib.util.find_spec("convert")
        if spec is None:
            return None
        file = spec.origin if spec.has_location else None
        portions = spec.submodule_search_locations
    if file is not None and Path(file).stem != "__init__":
        return [Path(file)]
    if file is not None:
        return [Path(file).parent]
    return [Path(portion) for portion in portions or ()]


def _same(place: Path, ours: Path) -> bool:
    with suppress(OSError):
        return os.path.samefile(place, ours)
    return place == ours


def _owners(file: Path) -> list[str]:
    """The other installed distributions that have this file."""
    names = set()
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name and name.lower().replace("_", "-") != "sam-jax":
            for part in distribution.files or ():
                if part.as_posix() == "convert/__init__.py" and _same(
                    Path(str(part.locate())), file
                ):
                    names.add(name)
    return sorted(names)
