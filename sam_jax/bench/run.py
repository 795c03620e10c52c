"""What a comparison runs: readings of our package and of its rivals, in turn."""

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam_jax.files import written_aside
from sam_jax.progress import Progress, silent

if TYPE_CHECKING:
    from sam_jax.bench.packages import Package
    from sam_jax.bench.report import Measured

OURS = "sam_jax"
FORMAT_VERSION = 1
# Within one process; the other tasks take a process for every reading.
IN_PROCESS = ("encoder", "prompts-64", "prompt-1", "generate")


class BenchRun:
    """One comparison: its packages, and the readings of each task."""

    def __init__(
        self,
        model: str,
        dtype: str,
        rounds: int,
        rivals: tuple[str, ...],
        accelerator: bool,
        photo: Path | None,
    ):
        """Measures nothing yet.

        Args:
          model: a name in `configs.CONFIGS`.
          dtype: "float32" or "bfloat16".
          rounds: readings of each task and package.
          rivals: names in `sam_jax.bench.rivals.RIVALS`; what they need is installed.
          accelerator: let PyTorch use a GPU, where it has one.
          photo: for `generate` and the first mask.
        """
        self.model, self.dtype, self.rounds, self.rivals = model, dtype, rounds, rivals
        self.accelerator, self.photo = accelerator, photo
        self.devices: dict[str, str] = {}
        self.tasks: tuple[str, ...] = ()

    def count(self, tasks: Sequence[str]) -> int:
        """How many readings `run` takes, warming up included."""
        packages = 1 + len(self.rivals)
        counts = {"memory": packages, "first-mask": self.rounds * (packages + 1)}
        return sum(counts.get(task, (1 + self.rounds) * len(self._of_task(task))) for task in tasks)

    def run(self, tasks: Sequence[str], progress: Progress = silent) -> list["Measured"]:
        """Measures: first in processes of their own, while little else is in memory.

        Args:
          tasks: what to measure.
          progress: of the readings.
        """
        self.tasks = tuple(tasks)
        total = self.count(tasks)
        steps = iter(range(1, total + 1))
        progress("measuring", 0, total)

        def done() -> None:
            progress("measuring", next(steps), total)

        measured = []
        if "memory" in tasks:
            measured += self._memory(done)
        if "first-mask" in tasks:
            measured.append(self._first_mask(done))
        in_process = [task for task in IN_PROCESS if task in tasks]
        if in_process:
            measured = self._in_process(in_process, done) + measured
        return measured

    def _of_task(self, task: str) -> tuple[str, ...]:
        """The packages that do a task; transformers' `generate` is another algorithm."""
        rivals = [name for name in self.rivals if (task, name) != ("generate", "transformers")]
        return (OURS, *rivals)

    def _memory(self, done: Callable[[], None]) -> list["Measured"]:
        from sam_jax.bench.report import Measured

        peaks: dict[str, dict[str, float]] = {}
        for name in self._of_task("memory"):
            peaks[name] = self._child(name, "memory")
            done()
        measured = []
        for task, place in (("memory", "host"), ("device-memory", "device")):
            found = {name: [peak[place]] for name, peak in peaks.items() if place in peak}
            if OURS in found:
                measured.append(Measured(task, found))
        return measured

    def _first_mask(self, done: Callable[[], None]) -> "Measured":
        from sam_jax.bench.readings import in_turn
        from sam_jax.bench.report import Measured

        stages: dict[str, list[dict[str, float]]] = {}
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            weights = self._written_weights(folder)

            def reading(label: str, package: str, cache: Callable[[], Path]) -> float:
                # Like any user's call, but that every program is kept however quick to compile.
                environment = {
                    "JAX_COMPILATION_CACHE_DIR": str(cache()),
                    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
                }
                found = self._child(
                    package,
                    "first-mask",
                    environment,
                    weights=weights[package],
                    photo=str(self.photo),
                    point=self._point(),
                    started=time.time(),
                )
                stages.setdefault(label, []).append(found)
                return sum(s for stage, s in found.items() if not stage.endswith("again"))

            caches: list[Path] = []

            def empty() -> Path:
                caches.append(Path(tempfile.mkdtemp(dir=folder)))
                return caches[-1]

            def filled() -> Path:
                return caches[-1]  # by the reading just before, of the same round

            both = {f"{OURS}, empty cache": empty, f"{OURS}, filled cache": filled}
            sources: dict[str, Callable[[], float]] = {
                label: partial(reading, label, OURS, cache) for label, cache in both.items()
            }
            sources |= {rival: partial(reading, rival, rival, empty) for rival in self.rivals}
            readings = in_turn(sources, self.rounds, done)
        return Measured("first-mask", readings, {"stages": stages})

    def _written_weights(self, folder: Path) -> dict[str, str]:
        """What each package loads the model from: ours first, the original gets the same."""
        from sam_jax.bench.children import OURS_MODULE, RIVALS_MODULE, run_child

        arguments = {"model": self.model, "folder": str(folder)}
        weights = {OURS: run_child(OURS_MODULE, "write-weights", arguments)}
        for name in self.rivals:
            more = {**arguments, "name": name, "checkpoint": weights[OURS]}
            weights[name] = run_child(RIVALS_MODULE, "write-weights", more)
        return weights

    def _point(self) -> list[float]:
        """A point inside the photo, however its camera was held."""
        from PIL import Image

        assert self.photo is not None
        with Image.open(self.photo) as photo:
            return [min(photo.size) / 2] * 2

    def _child(
        self, package: str, task: str, environment: Any = None, **arguments: Any
    ) -> dict[str, float]:
        from sam_jax.bench.children import OURS_MODULE, RIVALS_MODULE, run_child

        arguments |= {"model": self.model, "dtype": self.dtype}
        if package == OURS:
            return run_child(OURS_MODULE, task, arguments, environment)
        arguments |= {"name": package, "accelerator": self.accelerator}
        return run_child(RIVALS_MODULE, task, arguments, environment)

    def _in_process(self, tasks: Sequence[str], done: Callable[[], None]) -> list["Measured"]:
        from sam_jax.bench.packages import TASKS
        from sam_jax.bench.readings import in_turn, seconds
        from sam_jax.bench.report import Measured

        packages = self._packages("generate" in tasks)
        self.devices = {name: package.device for name, package in packages.items()}
        results: dict[str, dict[str, Any]] = {task: {} for task in tasks}
        sources: dict[tuple[str, str], Callable[[], float]] = {}
        for task in tasks:
            for name in self._of_task(task):
                # Compiles and allocates, and keeps what is to be compared.
                results[task][name] = TASKS[task](packages[name])
                done()
                sources[task, name] = partial(seconds, partial(TASKS[task], packages[name]))
        readings = in_turn(sources, self.rounds, done)
        return [
            Measured(
                task,
                {name: readings[task, name] for name in self._of_task(task)},
                _masks(packages[OURS], results[task]) if task == "generate" else {},
            )
            for task in tasks
        ]

    def _packages(self, generate: bool) -> dict[str, "Package"]:
        from sam_jax.bench.ours import Ours
        from sam_jax.images import read_image

        photo = read_image(self.photo) if self.photo is not None else None
        ours = Ours(self.model, self.dtype, photo)
        packages: dict[str, Package] = {OURS: ours}
        for name in self.rivals:
            from sam_jax.bench.rivals import RIVALS as CLASSES

            extra: dict[str, Any] = {}
            if generate and name == "original":
                # The same weights, photo and options: the same masks are to come out.
                extra = {
                    "variables": ours.segmenter.params,
                    "photo": photo,
                    "generate_options": ours.generate_options(),
                }
            packages[name] = CLASSES[name](self.model, self.dtype, self.accelerator, **extra)
        return packages


def write_readings(
    path: Path, run: BenchRun, measured: Sequence["Measured"], machine: Mapping[str, Any]
) -> None:
    """Writes all readings of a run to a JSON file.

    Args:
      path: of the file.
      run: that was measured.
      measured: by it.
      machine: what it was measured on.

    Raises:
      OSError: it cannot be written.
    """
    arguments = {
        "model": run.model,
        "dtype": run.dtype,
        "rounds": run.rounds,
        "tasks": list(run.tasks),
        "against": list(run.rivals),
        "image": None if run.photo is None else run.photo.name,
    }
    values = {
        "format_version": FORMAT_VERSION,
        "arguments": arguments,
        "machine": machine,
        "devices": run.devices,
        "tasks": {one.task: one.as_json() for one in measured},
    }
    with written_aside(path) as file:
        file.write(json.dumps(values, indent=1).encode())


def _masks(ours: Any, records: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """How many masks each package found, and how many of ours the others found, too."""
    from sam_jax.bench.agreement import same_masks

    return {
        "options": ours.generate_options(),
        "masks": {name: len(found) for name, found in records.items()},
        "same_as_ours": {
            name: same_masks(records[OURS], found)
            for name, found in records.items()
            if name != OURS
        },
    }
