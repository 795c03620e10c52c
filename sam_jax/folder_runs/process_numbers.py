"""Which process of a run this one is, without setting up devices: JAX's one private name in use.

`jax.process_index` answers only once the devices of all processes together are set up, and those
are never wanted here: after the processes have met, each goes on alone. JAX has no public way to
ask before, where a TPU pod, Slurm or Open MPI tells it, nor one to make it forget.
"""

from jax._src.distributed import global_state


def joined() -> tuple[int, int]:
    """The number of this process and how many they are, after `jax.distributed.initialize`."""
    return global_state.process_id, global_state.num_processes


def forget() -> None:
    """After `jax.distributed.shutdown`: devices that are set up from now on are this process's.

    JAX keeps the numbers, and would number the devices by them.
    """
    global_state.process_id, global_state.num_processes = 0, 1
