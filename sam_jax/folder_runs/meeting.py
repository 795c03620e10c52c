"""How the processes of a run find each other, and part again."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sam_jax.errors import InputError

# By which JAX's own time limit is later than ours.
_AFTER_OUR_LIMIT = 60


@dataclass(frozen=True)
class Hosts:
    """How the processes of a run find each other, in the words of `jax.distributed.initialize`.

    Attributes:
      coordinator_address: HOST:PORT of process 0; None where JAX knows all three by itself.
      num_processes: how many they are.
      process_id: which of them this one is, from 0.
      initialization_timeout: seconds until all must be there.
    """

    coordinator_address: str | None
    num_processes: int | None
    process_id: int | None
    initialization_timeout: int


@contextmanager
def together(hosts: Hosts | None) -> Iterator[None]:
    """For as long as the block lasts, `jax.devices()` are those of all processes.

    Args:
      hosts: how they find each other; None for this process alone.

    Raises:
      InputError: they do not.
    """
    if hosts is None:
        yield
        return
    meet(hosts)
    import jax

    yield
    # Not behind an error: the others may never come to their end then.
    jax.distributed.shutdown()


def meet(hosts: Hosts) -> tuple[int, int]:
    """Waits for all processes; which of them this one is, and how many they are."""
    import jax

    from sam_jax.folder_runs import process_numbers

    if hosts.process_id == 0 and hosts.coordinator_address is not None:
        _check_port(hosts.coordinator_address)
    # JAX ends the process at its own time limit, with a trace: ours is earlier.
    limit = hosts.initialization_timeout + _AFTER_OUR_LIMIT

    def initialize() -> None:
        jax.distributed.initialize(
            hosts.coordinator_address,
            hosts.num_processes,
            hosts.process_id,
            initialization_timeout=limit,
            shutdown_timeout_seconds=limit,
        )

    try:
        _within(hosts, initialize)
    except InputError:
        raise
    except (ValueError, RuntimeError) as error:
        raise InputError(_why_not(error, hosts)) from error
    return process_numbers.joined()


def _check_port(address: str) -> None:
    """Refuses a port that is taken; JAX 0.10 may end in a segmentation fault there."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    port = int(address.rpartition(":")[2])
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=both).close()
    except OSError as error:
        raise InputError(
            f"process 0 cannot listen at port {port} ({os.strerror(error.errno or 0)}); choose "
            "another in --coordinator-address, the same for all processes"
        ) from error


def leave(hosts: Hosts) -> None:
    """Waits until all processes are ready; from then on this one is alone in its JAX.

    Else JAX would end all of them when one is gone, Orbax would wait for all of them at every
    load, and devices would be compiled for that are another machine's.
    """
    import jax

    from sam_jax.folder_runs import process_numbers

    try:
        _within(hosts, jax.distributed.shutdown)
    except RuntimeError as error:
        raise InputError(f"the other processes are gone again ({_first_line(error)})") from error
    process_numbers.forget()


def _within(hosts: Hosts, function: Callable[[], None]) -> None:
    """Calls what cannot be interrupted, and goes on without it after the time limit."""
    raised: list[BaseException] = []

    def call() -> None:
        try:
            function()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call, name="meet", daemon=True)
    thread.start()
    thread.join(hosts.initialization_timeout)
    if thread.is_alive():
        where = f" at {hosts.coordinator_address}" if hosts.coordinator_address else ""
        count = f"{hosts.num_processes} " if hosts.num_processes else ""
        raise InputError(
            f"the {count}processes have not met{where} within {hosts.initialization_timeout} "
            "seconds; start all of them, with the same options but --process-id, or raise "
            "--initialization-timeout"
        )
    if raised:
        raise raised[0]


def _why_not(error: Exception, hosts: Hosts) -> str:
    if hosts.coordinator_address is None and "should be defined" in str(error):
        return (
            "--distributed: this is no TPU pod, nor under Slurm or Open MPI, so JAX does not know "
            "the processes; give --coordinator-address, --num-processes and --process-id"
        )
    return f"--distributed: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
