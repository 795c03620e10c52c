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
        self._at_once = False

    @contextmanager
    def end_at_once(self) -> Iterator[None]:
        """A request raises in the block, or before it: for work that may be left half done.

        Raises:
          KeyboardInterrupt: it was asked to stop.
        """
        self._at_once = True
        try:
            if self.is_set():
                raise KeyboardInterrupt
            yield
        finally:
            self._at_once = False

    def _request(self, number: int, frame: Any) -> None:
        second = self.is_set()
        self.set()
        if second or self._at_once:
            raise KeyboardInterrupt


@contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """An event that Ctrl-C and SIGTERM set; a second request ends things at once.

    In other threads than the main one nothing sets it.
    """
    event = StopRequests()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    old = {number: signal.signal(number, event._request) for number in numbers}
    try:
        yield event
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
