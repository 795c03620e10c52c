"""Files on the command line: paths as options, and an output folder that is checked first."""

import os
from pathlib import Path
from typing import Any

import click

from sam_jax.errors import InputError


class _NamedPath(click.Path):
    """A path that is not empty: that would be the current folder."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("is empty", param, ctx)
        return super().convert(value, param, ctx)


# What reads or writes it says what is wrong with it; click would know only whether it is readable.
FILE = _NamedPath(path_type=Path, readable=False)


def check_output_folder(folder: Path) -> None:
    """Refuses, before long work, a folder that cannot be made or written to.

    Raises:
      InputError: with the reason.
    """
    existing = folder.absolute()
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir():
        raise InputError(f"{existing} is not a folder; choose another --output")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{existing} cannot be written to; choose another --output")
