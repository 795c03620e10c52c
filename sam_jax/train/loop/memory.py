"""How much memory an update takes, and what to change where that is too much.

Before anything is compiled, the traced update tells what must be there at the same time; the
compiler then has the exact number for its own buffers.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal
from jax.sharding import Mesh

from sam_jax.errors import InputError

# Their results are made where they are used, by every compiler.
_FUSED = frozenset(
    "abs add add_any and broadcast_in_dim ceil clamp convert_element_type copy div eq erf exp "
    "expm1 floor ge gt integer_pow iota is_finite le log log1p logistic lt max min mul ne neg not "
    "or pow reshape rsqrt select_n sign sqrt square squeeze stop_gradient sub tanh transpose "
    "xor".split()
)
# Of what there is: a CPU's program was seen to take 1.2 to 1.7 times the estimate, a TPU's 0.7.
_MAY_BE_TOO_MUCH, _SURELY_TOO_MUCH = 0.6, 1.5
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def advice(
    batch_size: int, accumulate: int, max_masks: int = 1, dtype: str = "", remat: bool = True
) -> list[str]:
    """What a configuration can change to save memory, in words.

    Args:
      batch_size: of the run; and so are all others.
      accumulate: parts of a batch.
      max_masks: of an image.
      dtype: that the model computes in; empty where that makes no difference.
      remat: whether the encoder's blocks are computed again.
    """
    found = []
    if batch_size > 1:
        found.append(f"lower data.batch_size (now {batch_size})")
    if max_masks > 1:
        found.append(f"lower data.max_masks (now {max_masks})")
    if accumulate < batch_size:
        found.append(f"raise run.accumulate (now {accumulate})")
    if not remat:
        found.append("set model.remat = true")
    if dtype == "float32":
        found.append('set model.dtype = "bfloat16"')
    return [*found, "take a smaller model"]


def check_estimate(
    traced: Any, state: Any, where: Any, mesh: Mesh, ways: Sequence[str], echo: Callable
) -> None:
    """Refuses an update that cannot fit on its devices, and warns of one that may not.

    Args:
      traced: the update (`jax.stages.Traced`).
      state: shapes of the training state.
      where: their shardings.
      mesh: the devices.
      ways: what can be changed, from `advice`.
      echo: takes a warning.

    Raises:
      InputError: it needs far more than there is.
    """
    there = device_bytes(mesh)
    if there is None:
        return
    shard = jax.tree.map(
        lambda x, s: math.prod(s.shard_shape(x.shape)) * x.dtype.itemsize, state, where
    )
    needed = sum(jax.tree.leaves(shard)) + peak_bytes(_of_one_device(traced.jaxpr.jaxpr))
    text = f"an update takes about {_gb(needed)} of memory{_each(mesh)}, of {_gb(there)} there are"
    if needed > _SURELY_TOO_MUCH * there:
        raise InputError(f"{text}: {_joined(ways)}")
    if needed > _MAY_BE_TOO_MUCH * there:
        echo(f"{text}: it may not fit; if it does not, {_joined(ways)}")


def check_compiled(compiled: Any, mesh: Mesh, ways: Sequence[str]) -> None:
    """Refuses an update whose buffers, as they were compiled, do not fit on a device.

    Args:
      compiled: the update (`jax.stages.Compiled`).
      mesh: the devices.
      ways: what can be changed, from `advice`.

    Raises:
      InputError: they do not.
    """
    there, found = device_bytes(mesh), compiled.memory_analysis()
    if there is None or found is None:
        return
    needed = (
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes
        + found.temp_size_in_bytes
    )
    if needed > there:
        raise InputError(
            f"an update takes {_gb(needed)} of memory{_each(mesh)}, of {_gb(there)} there are: "
            f"{_joined(ways)}"
        )


@contextmanager
def memory_errors(ways: Sequence[str]) -> Iterator[None]:
    """Says what to change where memory runs out.

    Args:
      ways: what can be changed, from `advice`.

    Raises:
      InputError: in the place of the error that says that memory ran out.
    """
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            raise InputError(f"training ran out of memory: {_joined(ways)}") from error
        raise


def device_bytes(mesh: Mesh) -> int | None:
    """Memory of one device of a mesh, the least that one of this process has; None if unknown.

    Devices that a CPU plays share the machine's memory, or what a container may have of it.
    """
    own = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
    if own[0].platform == "cpu":
        limits = [_physical_bytes(), *map(_number_in, _CGROUP_LIMITS)]
        known = [limit for limit in limits if limit]
        return min(known) // len(own) if known else None
    stats = [device.memory_stats() or {} for device in own]
    return min((one.get("bytes_limit", 0) for one in stats), default=0) or None


def peak_bytes(jaxpr: Any) -> int:
    """The most that a program's intermediate values take at a time, beside what goes in.

    In the order of the program, without what is fused into its single use.
    """
    last: dict[Any, int] = {}
    uses: dict[Any, int] = {}
    for index, eqn in enumerate(jaxpr.eqns):
        for var in _variables(eqn.invars):
            last[var], uses[var] = index, uses.get(var, 0) + 1
    for var in _variables(jaxpr.outvars):
        last[var] = len(jaxpr.eqns)
    live, peak, alive = 0, 0, {}
    for index, eqn in enumerate(jaxpr.eqns):
        inner = max((peak_bytes(sub) for sub in _inner(eqn)), default=0)
        free = eqn.primitive.name in _FUSED
        for var in eqn.outvars:
            size = 0 if free and uses.get(var, 0) <= 1 else _bytes(var.aval)
            live += size
            alive[var] = size
        peak = max(peak, live + inner)
        for var in {*_variables(eqn.invars), *eqn.outvars}:
            if last.get(var, index) == index:
                live -= alive.pop(var, 0)
    return peak


def _of_one_device(jaxpr: Any) -> Any:
    """The part that is written for one device, where there is one."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "shard_map":
            return eqn.params["jaxpr"]
        for inner in _inner(eqn):
            found = _of_one_device(inner)
            if found is not inner:
                return found
    return jaxpr


def _inner(eqn: Any) -> Iterator[Any]:
    for value in eqn.params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            one = getattr(one, "jaxpr", one)
            if hasattr(one, "eqns"):
                yield one


def _variables(found: Sequence[Any]) -> Iterator[Any]:
    return (var for var in found if not isinstance(var, Literal))


def _bytes(aval: Any) -> int:
    shape, dtype = getattr(aval, "shape", ()), getattr(aval, "dtype", None)
    return math.prod(shape) * (np.dtype(dtype).itemsize if _is_plain(dtype) else 8)


def _is_plain(dtype: Any) -> bool:
    try:
        return dtype is not None and np.dtype(dtype).itemsize > 0
    except TypeError:  # of a random key
        return False


def _physical_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0


def _number_in(path: str) -> int:
    try:
        text = Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0


def _each(mesh: Mesh) -> str:
    return " on each device" if mesh.devices.size > 1 else ""


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB"


def _joined(ways: Sequence[str]) -> str:
    return f"{', '.join(ways[:-1])}, or {ways[-1]}" if len(ways) > 1 else ways[0]
