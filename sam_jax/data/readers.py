"""Processes that read a stream's samples ahead of time.

Each has a pipe of its own, of which the training process keeps only the reading end: a process that
is killed in the middle of a sample, by whomever, is an end of the pipe's data and no endless wait.
"""

import multiprocessing
import os
import pickle
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import util
from multiprocessing.connection import Connection
from typing import Any

from sam_jax.errors import InputError

# Samples that a process has ready, beside the one that is in its pipe.
_AHEAD = 2
# Seconds that a process has to end by itself.
_PATIENCE = 5.0
_REQUESTS = (signal.SIGINT, signal.SIGTERM)


class ReaderProcesses:
    """Reads samples `first`, `first` + 1 and so on; process i of n has every n-th.

    They are started at once, by spawning: what makes the stream is pickled.
    """

    def __init__(self, make_stream: Callable[[], Sequence[Any]], first: int, count: int):
        """Starts the processes.

        Args:
          make_stream: called in each process.
          first: the first sample's place in the stream.
          count: how many processes.
        """
        context = multiprocessing.get_context("spawn")
        self._next = 0
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        for number in range(count):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(
                target=_read,
                args=(theirs, make_stream, first + number, count),
                name=f"reader {number}",
                daemon=True,
            )
            with _requests_blocked():
                process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        # Python ends daemonic processes by a signal that these leave to the training process, and
        # waits for them: at its exit they must be told before.
        self._end = util.Finalize(self, _end, (self._pipes, self._processes), exitpriority=10)

    def __next__(self) -> Any:
        """The next sample.

        Raises:
          InputError: the process that had it was killed.
        """
        number = self._next % len(self._pipes)
        try:
            sample, error, where = pickle.loads(self._pipes[number].recv_bytes())
        except (EOFError, OSError):
            self._processes[number].join(_PATIENCE)
            how = self._processes[number].exitcode
            raise InputError(
                f"a process that reads data was killed (exit status {how}); start the same command "
                "again, with fewer data.workers if memory ran out"
            ) from None
        if error is not None:
            error.add_note(f"in a process that reads data:\n{where}")
            raise error
        self._next += 1
        return sample

    def close(self) -> None:
        """Ends the processes."""
        self._end()


@contextmanager
def _requests_blocked() -> Iterator[None]:
    """Processes that are started meanwhile never get what asks the training process to end.

    Ctrl-C, and a cluster's SIGTERM, reach all processes of a group: the training process ends its
    readers itself, when it has written its checkpoint.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _REQUESTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(pipes: list[Connection], processes: list[Any]) -> None:
    for pipe in pipes:
        pipe.close()
    for process in processes:
        process.join(_PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()


def _read(pipe: Connection, make_stream: Callable[[], Sequence[Any]], first: int, step: int):
    """What a process does, until nobody takes what it reads."""
    for number in _REQUESTS:  # where they cannot be blocked
        signal.signal(number, signal.SIG_IGN)
    import jax

    # Should anything compute here, it must not take the accelerator.
    jax.config.update("jax_platforms", "cpu")
    ready: queue.Queue[bytes] = queue.Queue(_AHEAD)
    threading.Thread(target=_send, args=(pipe, ready), daemon=True).start()
    position = first
    try:
        stream = make_stream()
        while True:
            ready.put(pickle.dumps((stream[position], None, ""), pickle.HIGHEST_PROTOCOL))
            position += step
    except Exception as error:
        ready.put(_pickled_error(error))
        threading.Event().wait()  # until that was taken and the pipe closed


def _pickled_error(error: Exception) -> bytes:
    where = traceback.format_exc()
    try:
        content = pickle.dumps((None, error, where))
        pickle.loads(content)
    except Exception:
        return pickle.dumps((None, RuntimeError(repr(error)), where))
    return content


def _send(pipe: Connection, ready: "queue.Queue[bytes]") -> None:
    """Sends what is ready, and ends the process when the other end is closed."""
    try:
        while True:
            pipe.send_bytes(ready.get())
    finally:
        os._exit(0)
