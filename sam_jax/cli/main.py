"""The `sam-jax` command: its subcommands, and how errors reach a person.

JAX and the models are imported inside the subcommands, so that help and mistyped options answer at
once.
"""

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from sam_jax.cli.bench import bench
from sam_jax.cli.convert import convert
from sam_jax.cli.download import download
from sam_jax.cli.encode import encode
from sam_jax.cli.evaluate import evaluate
from sam_jax.cli.evaluate_video import evaluate_video
from sam_jax.cli.generate import generate
from sam_jax.cli.info import info
from sam_jax.cli.memory_hints import is_out_of_memory, out_of_memory
from sam_jax.cli.merge import merge
from sam_jax.cli.pretrain import pretrain
from sam_jax.cli.segment import segment
from sam_jax.cli.track import track
from sam_jax.cli.train import train
from sam_jax.errors import InputError
from sam_jax.inference.program_cache import DAMAGED, forget_damaged, keep_compiled_programs
from sam_jax.version import __version__

USER_ERROR = 2
INTERRUPTED = 130


class CommandLine(click.Group):
    """A group of commands where whatever a user can cause ends in one line on stderr."""

    # Name and arguments of the command that was called last.
    _called: tuple[str | None, Sequence[str]] = (None, ())

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Notes which command is called, for messages."""
        name, command, rest = super().resolve_command(ctx, args)
        self._called = (name, tuple(rest))
        return name, command, rest

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> Any:
        """Runs a command and ends the process with its status.

        0 for success, 1 where a check did not hold (`convert --verify`), 2 for an error that the
        user can mend, 130 when interrupted.
        """
        extra["standalone_mode"] = False
        with quiet_libraries():
            try:
                status = super().main(args, prog_name, **extra)
            except click.Abort:
                sys.exit(INTERRUPTED)
            except Exception as error:
                message = user_message(error, *self._called)
                if message is None:
                    raise
                click.echo(f"error: {message}", err=True)
                sys.exit(USER_ERROR)
        sys.exit(status if isinstance(status, int) else 0)


def user_message(
    error: Exception, command: str | None = None, arguments: Sequence[str] = ()
) -> str | None:
    """What to tell the user of an error; None if it is no user's, but a defect of ours.

    Args:
      error: that ended a command.
      command: its name.
      arguments: that it was called with.
    """
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, click.UsageError):
        where = f" (see: {error.ctx.command_path} --help)" if error.ctx else ""
        return _one_line(error.format_message()).rstrip(".") + where
    if isinstance(error, click.ClickException):
        return _one_line(error.format_message())
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    if is_out_of_memory(error):
        return out_of_memory(error, command, arguments)
    text = _one_line(str(error))
    if "Unable to initialize backend" in text:
        return f"{text[:300]}; check JAX_PLATFORMS and the installed accelerator support"
    return None


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keeps the libraries' logs off the terminal; our own warnings become one line each."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    shown: set[str] = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        text = _one_line(str(message))
        if not forget_damaged(text) and text not in shown:
            shown.add(text)
            click.echo(f"warning: {text}", err=True)

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", category=UserWarning, module=r"(sam_jax|convert)\b")
            warnings.filterwarnings("always", DAMAGED, UserWarning)
            warnings.showwarning = show
            yield
    finally:
        logging.disable(before)


def _one_line(text: str) -> str:
    return " ".join(text.split())


@click.group(
    cls=CommandLine,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="sam-jax", message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Segment Anything in JAX: click on a photo, get the object."""
    keep_compiled_programs()
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for command in (
    segment,
    generate,
    encode,
    convert,
    download,
    info,
    train,
    pretrain,
    merge,
    evaluate,
    evaluate_video,
    track,
    bench,
):
    main.add_command(command)

if __name__ == "__main__":
    main()
