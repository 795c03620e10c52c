"""Where the package `convert` is loaded, when PyTorch files are to be read or written."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

from sam_jax.errors import InputError


def load_converter() -> Any:
    """Our package `convert`.

    Raises:
      InputError: another module of that name stands before it on Python's path.
    """
    loaded = sys.modules.get("convert")
    spec = None if loaded else importlib.util.find_spec("convert")
    file = getattr(loaded or spec, "__file__" if loaded else "origin", None)
    # Told by a file of ours beside it, so that somebody else's module is not even run.
    if file is None or not Path(file).with_name("restricted_pickle.py").is_file():
        raise InputError(
            f"the module {file or 'convert'} hides sam-jax's own package `convert`; "
            "rename it, or run from another folder"
        )
    import convert

    return convert
