"""Requests to stop: noted at once, answered between two pieces of work."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class StopRequests(threading.Event):
    """Set by Ctrl-C and SIGTERM."""

    def __init__(self) -> None:
        super().__init__()
        self._patience: float | None = None

    @contextmanager
    def end_within(self, seconds: float) -> Iterator[None]:
        """A request ends the block if it takes so much longer: for work that may be left undone.

        Args:
          seconds: 0 ends it at once.

        Raises:
          KeyboardInterrupt: it was asked to stop.
        """
        self._patience = seconds
        try:
            if self.is_set():
                if not seconds:
                    raise KeyboardInterrupt
                self._end_later()
            yield
        finally:
            self._patience = None
            if self.is_set() and _CLOCK is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def request(self, number: int, frame: Any) -> None:
        """Handles Ctrl-C and SIGTERM."""
        second = self.is_set()
        self.set()
        if second:
            raise KeyboardInterrupt
        if self._patience is not None:
            self._end_later()

    def overdue(self, number: int, frame: Any) -> None:
        """Handles the clock."""
        if self._patience is not None:
            raise KeyboardInterrupt

    def _end_later(self) -> None:
        if _CLOCK is not None:
            # Again and again: Python drops what is raised in a callback of its garbage collector.
            signal.setitimer(signal.ITIMER_REAL, self._patience or 0.001, 1.0)
        elif not self._patience:  # otherwise a second request ends it
            raise KeyboardInterrupt


_CLOCK = getattr(signal, "SIGALRM", None)  # not on Windows


@contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """An event that Ctrl-C and SIGTERM set; a second request ends things at once.

    In other threads than the main one nothing sets it.
    """
    event = StopRequests()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    handlers: dict[int, Any] = {signal.SIGINT: event.request, signal.SIGTERM: event.request}
    if _CLOCK is not None:
        handlers[_CLOCK] = event.overdue
    old = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield event
    finally:
        if _CLOCK is not None and event.is_set():
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in old.items():
            signal.signal(number, handler)
