"""The options that split a folder run over processes."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sam_jax.errors import InputError
from sam_jax.folder_runs.meeting import Hosts

_SPLIT = "Split DIR between processes"


def distributed_options(command: Callable, purpose: str = _SPLIT) -> Callable:
    """Adds `--distributed` and its companions; the command gets them as `hosts`, or None.

    Args:
      command: a function, to become a click command.
      purpose: what the processes do, for the help.
    """

    @functools.wraps(command)
    def with_hosts(
        *args: Any,
        distributed: bool,
        coordinator_address: str | None,
        num_processes: int | None,
        process_id: int | None,
        initialization_timeout: int,
        **others: Any,
    ) -> Any:
        hosts = Hosts(coordinator_address, num_processes, process_id, initialization_timeout)
        return command(*args, hosts=_checked(hosts, distributed), **others)

    for option in reversed(
        (
            click.option(
                "--distributed",
                is_flag=True,
                help=f"{purpose}, on any number of machines that share --output; start each with "
                "the same command. TPU pods, Slurm and Open MPI need no more.",
            ),
            click.option(
                "--coordinator-address",
                metavar="HOST:PORT",
                help="With --distributed elsewhere: the machine of process 0, and a free port.",
            ),
            click.option(
                "--num-processes",
                type=click.IntRange(1),
                help="With --distributed elsewhere: how many processes there are.",
            ),
            click.option(
                "--process-id",
                type=click.IntRange(0),
                help="With --distributed elsewhere: which of them this one is, from 0.",
            ),
            click.option(
                "--initialization-timeout",
                type=click.IntRange(1),
                default=300,
                show_default=True,
                metavar="SECONDS",
                help="How long the processes wait for each other at the start.",
            ),
        )
    ):
        with_hosts = option(with_hosts)
    return with_hosts


training_options = functools.partial(
    distributed_options, purpose="Train on the devices of many processes"
)


def _checked(hosts: Hosts, distributed: bool) -> Hosts | None:
    names = ("coordinator_address", "num_processes", "process_id")
    given = {name: getattr(hosts, name) for name in names if getattr(hosts, name) is not None}
    if not distributed:
        if given:
            typed = ", ".join("--" + name.replace("_", "-") for name in given)
            raise InputError(f"{typed} is for many processes; add --distributed")
        return None
    if 0 < len(given) < len(names):
        raise InputError(
            "give --coordinator-address, --num-processes and --process-id together, or none of "
            "them where JAX knows them: on a TPU pod, under Slurm and Open MPI"
        )
    if given:
        _, colon, port = given["coordinator_address"].rpartition(":")
        if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise InputError(
                f"--coordinator-address is HOST:PORT, not {given['coordinator_address']!r}"
            )
        if given["process_id"] >= given["num_processes"]:
            raise InputError(
                f"--process-id counts from 0: with --num-processes {given['num_processes']} the "
                f"last is {given['num_processes'] - 1}, not {given['process_id']}"
            )
    return hosts


def check_folder(source: Path, hosts: Hosts | None) -> None:
    """Refuses to split a single image.

    Raises:
      InputError: `source` is no folder, and there are many processes.
    """
    if hosts is not None and not source.is_dir():
        raise InputError("--distributed splits the images of a folder; leave it out for one image")
