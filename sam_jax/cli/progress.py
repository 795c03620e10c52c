"""How far long work is: a bar on a terminal, a line now and then elsewhere."""

import sys
from types import TracebackType
from typing import Any

import click

# Elsewhere than on a terminal: a line for every tenth, or for so much where the total is unknown.
_LINES = 10
_UNKNOWN_STEP = 100_000_000


class ProgressBar:
    """Shows on stderr how much is done, in bytes or in things that can be counted."""

    def __init__(self, description: str, unit: str, total: int | None = None):
        """Shows nothing yet; `unit` is "B" for bytes, or the plural of what is counted."""
        self.description, self.unit, self.total = description, unit, total
        self._bar: Any = None
        self._last_step = 0
        if sys.stderr.isatty():
            from tqdm import tqdm

            in_bytes = unit == "B"
            unit_text = unit if in_bytes else f" {unit}"
            self._bar = tqdm(
                desc=description, total=total, unit=unit_text, unit_scale=in_bytes, leave=in_bytes
            )

    def update(self, done: int, total: int | None = None) -> None:
        """Shows that so much is done altogether, which may be less than before."""
        self.total = total or self.total
        if self._bar is not None:
            self._bar.total = self.total
            self._bar.update(done - self._bar.n)
            return
        step = done * _LINES // self.total if self.total else done // _UNKNOWN_STEP
        if step > self._last_step:
            click.echo(f"{self.description}: {self._amount(done)}", err=True)
        self._last_step = step

    def note(self, text: str) -> None:
        """Shows a line of text."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            click.echo(text, err=True)

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _amount(self, done: int) -> str:
        if self.unit != "B":
            return f"{done} of {self.total} {self.unit}" if self.total else f"{done} {self.unit}"
        megabytes = f"{done / 1e6:.1f}"
        return f"{megabytes} of {self.total / 1e6:.1f} MB" if self.total else f"{megabytes} MB"


class Steps:
    """Bars one after another, for functions that take a `sam_jax.progress.Progress`."""

    def __init__(self, unit: str):
        """Shows nothing yet; `unit` is as for `ProgressBar`."""
        self._unit = unit
        self._bar: ProgressBar | None = None

    def update(self, what: str, done: int, total: int | None) -> None:
        """Shows that so much of this is done; what was done before has ended."""
        if self._bar is None or self._bar.description != what:
            self.close()
            self._bar = ProgressBar(what, self._unit, total)
        self._bar.update(done, total)

    def note(self, text: str) -> None:
        """Shows a line of text."""
        note(text) if self._bar is None else self._bar.note(text)

    def close(self) -> None:
        """Ends the bar that is shown."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> "Steps":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def note(text: str) -> None:
    """Shows a line of text on stderr."""
    click.echo(text, err=True)
