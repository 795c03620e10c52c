"""Compiling the update once, with a word on how long it takes, and in a way that can be ended."""

import threading
from typing import Any

import jax

# For each array of trained parameters and each of the others: about what `tiny`'s decoder takes on
# two CPU cores that do nothing else.
_SECONDS_PER_TRAINED, _SECONDS_PER_OTHER = 0.42, 0.07
# By this name others know that the compiler is still at work.
THREAD = "compiling the step"


def about_seconds(state: Any) -> int:
    """Roughly how long it takes to trace and compile an update on two cores, in seconds.

    By the number of arrays: each has its own layer, and what is trained also has a gradient.

    Args:
      state: a `TrainState`, arrays or their shapes.
    """
    trained, others = (len(jax.tree.leaves(x)) for x in (state.params, state.constants))
    return round(_SECONDS_PER_TRAINED * trained + _SECONDS_PER_OTHER * others) + 1


def compiled(lowered: Any) -> Any:
    """The update as a program.

    The compiler does not listen to Ctrl-C: it works in a thread, and this one can be interrupted.

    Args:
      lowered: the update (`jax.stages.Lowered`).
    """
    found: list[Any] = []
    raised: list[BaseException] = []

    def call() -> None:
        try:
            found.append(lowered.compile())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call, name=THREAD, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.5)
    if raised:
        raise raised[0]
    return found[0]


def still_compiling() -> bool:
    """Whether a compiler is still at work that nobody waits for."""
    return any(thread.name == THREAD for thread in threading.enumerate())
