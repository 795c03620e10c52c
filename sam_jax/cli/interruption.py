"""Ctrl-C and SIGTERM in a training run: what is kept, in one line; a second one ends it at once."""

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_STATUS = 130
# Interrupts what the main thread waits for, and does nothing else.
_WAKE = getattr(signal, "SIGURG", None)  # not on Windows
# Seconds after which a run that has not ended says what it waits for.
_PATIENCE = 3.0
WAITING = "stopping after this step, with a checkpoint; a second request ends the run at once"


@contextmanager
def interruptible(folder: Path) -> Iterator[None]:
    """Ends an interrupted run with one line on stderr and status 130.

    A second request ends the process wherever it is, in the compiler or the middle of an update;
    what is being written then is passed over by the next run.

    Args:
      folder: of the run.

    Raises:
      click.Abort: the run was interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _second_ends(folder):
            yield
    except KeyboardInterrupt:
        from sam_jax.train.loop.compile_step import still_compiling

        _say(what_is_kept(folder))
        if still_compiling():  # nothing can end the compiler but the end of the process
            _leave()
        raise click.Abort from None
    finally:
        signal.signal(signal.SIGTERM, old)


def what_is_kept(folder: Path) -> str:
    """The line for a person whose run was interrupted."""
    from sam_jax.train.loop.run_checkpoints import newest_step

    kept = folder / "checkpoints"
    step = newest_step(kept)
    if not step:
        return "interrupted before the first checkpoint; the same command begins again"
    return (
        f"interrupted: the checkpoint of step {step} is kept in {kept}, and the same command goes "
        "on from there"
    )


@contextmanager
def _second_ends(folder: Path) -> Iterator[None]:
    """Python's own handlers wait for the compiler or an update to return; a thread does not."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    woken = None if _WAKE is None else signal.signal(_WAKE, lambda *_: None)
    ended = threading.Event()
    arguments = (reading, ended, lambda: what_is_kept(folder))
    threading.Thread(target=_watch, args=arguments, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        if _WAKE is not None:
            signal.signal(_WAKE, woken)
        signal.set_wakeup_fd(before)
        os.close(writing)


def _watch(reading: int, ended: threading.Event, line: Callable[[], str]) -> None:
    requests, repeated = 0, threading.Event()
    while number := os.read(reading, 1):
        if number[0] not in _NUMBERS:
            continue
        if repeated.is_set():  # our own, not a person's
            repeated.clear()
            continue
        requests += 1
        if requests == 1:
            threading.Thread(target=_follow_up, args=(ended, repeated), daemon=True).start()
        elif not ended.is_set():
            _say(line())
            _leave()
    os.close(reading)


def _follow_up(ended: threading.Event, repeated: threading.Event) -> None:
    """Says what a run that goes on waits for; outside of its updates, asks it again.

    Python drops an exception that is raised in one of its own callbacks, such as the garbage
    collector's, where a signal may find it while an update is traced.
    """
    while not ended.wait(_PATIENCE):
        # A signal that comes just before a wait does not end it; another one does.
        if _WAKE is not None:
            signal.pthread_kill(threading.main_thread().ident or 0, _WAKE)
        if ended.wait(_PATIENCE / 10):
            return
        if signal.getsignal(signal.SIGTERM) is not _interrupt:
            _say(WAITING)
            return
        repeated.set()
        _thread.interrupt_main(signal.SIGTERM)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _say(line: str) -> None:
    click.echo(line, err=True)


def _leave() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_STATUS)
