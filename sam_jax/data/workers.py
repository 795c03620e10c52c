"""Processes that read samples: what they do first, and what is done when one of them dies.

Grain starts them and passes on what they send.
"""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import Future, wait
from multiprocessing.process import BaseProcess
from typing import Any

from sam_jax.errors import InputError

# How often it is looked whether all workers are there, and how long closing waits when not.
_LOOK_EVERY_S = 1.0
# The training process decides when its workers end; a terminal or a cluster asks all of them.
_NOT_FOR_WORKERS = (signal.SIGINT, signal.SIGTERM)


class WorkerSamples:
    """Samples of worker processes, in order; an error where one of these has died."""

    def __init__(self, dataset: Any, options: Any) -> None:
        """Starts them with the first sample.

        Args:
          dataset: Grain's, whose samples they read.
          options: Grain's options for processes.
        """
        _mark_flag_as_parsed()
        others = set(multiprocessing.active_children())
        self._is_other = others.__contains__
        self._workers: set[BaseProcess] = set()
        self._samples = iter(dataset.mp_prefetch(options, _begin_worker))
        self._coming: Future[Any] | None = None
        self._broken = False

    def __next__(self) -> Any:
        """The next sample.

        Raises:
          InputError: a worker has died.
        """
        # A worker that is killed while it sends leaves a message that never ends. Whoever reads it
        # waits for ever, so that it is not this thread, and not one that Python waits for.
        if self._coming is None:
            self._coming = _in_thread(self._samples.__next__)
        while not wait([self._coming], _LOOK_EVERY_S).done:
            self._look()
        coming, self._coming = self._coming, None
        try:
            return coming.result()
        except RuntimeError as error:
            # Grain's words where it has noticed first.
            if "terminated unexpectedly" not in str(error):
                raise
            raise self._died() from error

    def close(self) -> None:
        """Ends the workers."""
        if not self._broken:
            self._samples.close()
            return
        for worker in self._workers:
            worker.kill()
        # A message that never ends holds up what closes its worker too, now or when Python exits.
        # A thread that waits for it already has the lock, so that nothing else waits then: one for
        # each worker, which Grain 0.2.18 does not give out.
        each = [self._samples, *getattr(self._samples, "_iterators_in_use", [])]
        wait([_in_thread(samples.close) for samples in each if samples is not None], _LOOK_EVERY_S)

    def _look(self) -> None:
        children = multiprocessing.active_children()
        self._workers.update(each for each in children if not self._is_other(each))
        if any(worker.exitcode for worker in self._workers):
            raise self._died()

    def _died(self) -> InputError:
        self._broken = True
        return InputError(
            "a process that reads data was killed; start the same command again, with fewer "
            "data.workers if memory ran out"
        )


def _in_thread(call: Any) -> "Future[Any]":
    future: Future[Any] = Future()

    def settle() -> None:
        # Processes started here inherit this: they are safe before they have begun.
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_FOR_WORKERS)
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=settle, name="samples-of-workers", daemon=True).start()
    return future


def _mark_flag_as_parsed() -> None:
    """Lets Grain 0.2.18 start workers in a program whose flags are not Abseil's.

    It asks for a flag of its own there, and Abseil refuses before flags are parsed (Grain's issue
    1355). The flag keeps its default.
    """
    from absl import flags

    name = "grain_enable_multiprocess_worker_profiling"
    if name in flags.FLAGS:
        flags.FLAGS[name].present = max(1, flags.FLAGS[name].present)


def _begin_worker(index: int, count: int) -> None:
    """What a worker process does first."""
    import jax

    # Should anything compute there, it must not take the accelerator.
    jax.config.update("jax_platforms", "cpu")
    for request in _NOT_FOR_WORKERS:
        signal.signal(request, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, however that ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
