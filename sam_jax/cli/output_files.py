"""Files on the command line: a folder that is checked first, and files that appear together."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def written_together(folder: Path) -> Iterator[Path]:
    """A folder to fill; its files move into `folder` when the block ends without an error.

    They are all complete before the first one appears, and replace files of their names. A .json
    file, which lists the others, appears last.

    Raises:
      InputError: the folder cannot be written to, or the disk is full; `folder` is then as before.
    """
    made = not folder.exists()
    aside = folder / f".{secrets.token_hex(8)}.part"
    try:
        aside.mkdir(parents=True)
        try:
            yield aside
            finished = sorted(aside.iterdir(), key=lambda file: file.suffix == ".json")
            for file in finished:
                if (folder / file.name).is_dir():
                    raise InputError(f"{folder / file.name} is a folder; choose another --output")
            for file in finished:
                os.replace(file, folder / file.name)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
            if made and not any(folder.iterdir()):
                folder.rmdir()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot write to {folder}: {reason}; nothing was changed") from error
