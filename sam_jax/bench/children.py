"""Measurements that need a process of their own: peak memory, and the first mask from a cold start.

This module is also what runs in such a process, for our own package; `bench.rival_children` is for
the others. Nothing heavy is imported before a task starts: loading it is part of what is measured.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sam_jax.errors import InputError

ROOT = Path(__file__).parents[2]
OURS_MODULE = "sam_jax.bench.children"
RIVALS_MODULE = "sam_jax.bench.rival_children"
# How a process ends that was given what it cannot use; its last line says why.
_REFUSED = 2


def run_child(
    module: str,
    task: str,
    arguments: Mapping[str, Any],
    environment: Mapping[str, str | None] | None = None,
) -> Any:
    """What a task of a module gives in a fresh Python process.

    Args:
      module: its name; it calls `serve` when run.
      task: a name that it serves.
      arguments: JSON values, by name.
      environment: variables to set, or to take away where the value is None.

    Raises:
      InputError: the task raised it, or the system ended the process, most likely for want of
        memory.
      RuntimeError: the task failed; with the end of what it said.
    """
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    changes = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), **(environment or {})}
    variables = {**os.environ, **changes}
    # -P: a `convert.py` in the current folder is not ours.
    command = [sys.executable, "-P", "-m", module, task, json.dumps(dict(arguments))]
    done = subprocess.run(
        command,
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == -9:
        raise InputError(
            "the system ended a measuring process, most likely because memory ran out; "
            "choose a smaller --model, or leave a package out with --against"
        )
    if done.returncode == _REFUSED:
        raise InputError(json.loads(done.stdout.splitlines()[-1]))
    if done.returncode:
        raise RuntimeError(f"{module} {task} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def serve(tasks: Mapping[str, Callable[..., Any]]) -> None:
    """Runs the task that `run_child` asks for and prints what it gives as JSON, or its refusal."""
    try:
        found = tasks[sys.argv[1]](**json.loads(sys.argv[2]))
    except InputError as error:
        print(json.dumps(str(error)))
        sys.exit(_REFUSED)
    print(json.dumps(found))


def peak_memory_gb() -> float:
    """The most memory that this process has held at once, in GB.

    Raises:
      InputError: the system does not tell.
    """
    status = Path("/proc/self/status")
    if status.exists():
        # Not `getrusage`: its peak is inherited from the process that started this one.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    try:
        import resource
    except ImportError:
        raise InputError("this system does not tell peak memory; leave out --task memory") from None
    # In bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9


class Stages:
    """Seconds of each stage since a start."""

    def __init__(self, started: float):
        """`started` is the start by `time.time`, which processes share."""
        self.started = self._last = started
        self.seconds: dict[str, float] = {}

    def end(self, name: str) -> None:
        """The stage of this name ends, and the next one begins."""
        now = time.time()
        self.seconds[name] = now - self._last
        self._last = now


def memory(model: str, dtype: str) -> dict[str, float]:
    """Peak memory in GB of encoding an image twice; the accelerator's too, where there is one."""
    import jax

    from sam_jax.bench.ours import Ours

    ours = Ours(model, dtype)
    ours.encode()
    ours.encode()
    found = {"host": peak_memory_gb()}
    statistics = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        found["device"] = statistics["peak_bytes_in_use"] / 1e9
    return found


def write_weights(model: str, folder: str) -> str:
    """A checkpoint of a model: the shipped one, or one with random weights, in a folder."""
    from sam_jax.bench.weights import random_variables
    from sam_jax.checkpoints import native as checkpoints
    from sam_jax.checkpoints import registry
    from sam_jax.configs import CONFIGS, TINY

    if model == TINY.name:
        return str(registry.checkpoint_path(model))
    path = Path(folder) / "checkpoint"
    checkpoints.save_checkpoint(path, CONFIGS[model], random_variables(CONFIGS[model]))
    return str(path)


def first_mask(
    model: str, weights: str, dtype: str, photo: str, point: list[float], started: float
) -> dict[str, float]:
    """Seconds of every stage from the start of Python to a first mask, and of a second one.

    Args:
      model: its name; the checkpoint knows it, other packages' weights do not.
      weights: the checkpoint.
      dtype: compute type.
      photo: a file.
      point: (x, y) in pixels of the photo.
      started: when the process was asked for, by `time.time`.
    """
    stages = Stages(started)
    stages.end("start")
    import jax
    import jax.numpy as jnp

    from sam_jax.segmenter import Segmenter

    jax.devices()
    stages.end("import")
    segmenter = Segmenter.load(weights, dtype=jnp.dtype(dtype))
    jax.block_until_ready(segmenter.params)
    stages.end("load")
    for again in ("", " again"):
        embedding: Any = segmenter.encode(photo)
        jax.block_until_ready(embedding.features)
        stages.end(f"encode{again}")
        prediction: Any = segmenter.predict(embedding, points=[point])
        _ = prediction.masks  # made when looked at
        stages.end(f"mask{again}")
    return stages.seconds


if __name__ == "__main__":
    from sam_jax.bench.machine import machine

    serve(
        {
            "machine": machine,
            "memory": memory,
            "write-weights": write_weights,
            "first-mask": first_mask,
        }
    )
