"""JAX does not survive a fork: what was started before it waits for threads that are not there."""

import os

_started_in: int | None = None


def refuse_forked() -> None:
    """Notes the process that uses JAX first, and stops one that was forked from it.

    Raises:
      RuntimeError: this process was forked after JAX was in use, and would wait forever.
    """
    global _started_in
    if _started_in is None:
        _started_in = os.getpid()
    elif _started_in != os.getpid():
        raise RuntimeError(
            "this process was forked after JAX was in use, and JAX would hang here; start it with "
            'multiprocessing.get_context("spawn"), or use sam_jax only after the fork'
        )
