"""Images that could not be done, told at the end of a run."""

from collections.abc import Iterable, Sequence

import click

from sam_jax.errors import InputError


def show_failures(failures: Iterable[InputError]) -> None:
    """Lists on stderr why images failed."""
    for failure in failures:
        click.echo(f"failed: {failure}", err=True)


def raise_failures(failures: Sequence[InputError], total: int, done: str) -> None:
    """Lists what failed, where something did, and ends the command with one line.

    Args:
      failures: why images failed.
      total: how many images there were.
      done: what the others are, such as "encoded".

    Raises:
      InputError: there are failures; of a single image, its own.
    """
    if failures and total == 1:
        raise failures[0]
    show_failures(failures)
    if failures:
        raise InputError(
            f"{len(failures)} of {total} images could not be {done}; mend or remove them, "
            "and run it again with --resume"
        )
