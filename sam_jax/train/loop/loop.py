"""The loop around the update: from the last whole checkpoint to the last step.

What a run computes depends on its configuration alone. Killed at any moment and started again, it
goes on from its newest checkpoint, with the same random numbers and the same batches, and ends with
the same parameters, bit for bit.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh

from sam_jax.errors import InputError
from sam_jax.files import try_lock, written_aside
from sam_jax.stopping import StopRequests, stop_requests
from sam_jax.train.loop.compile_step import about_seconds, compiled
from sam_jax.train.loop.memory import check_compiled, check_estimate, memory_errors
from sam_jax.train.loop.optimizer import OptimizerOptions, learning_rate, make_optimizer
from sam_jax.train.loop.placement import (
    batch_sharding,
    check_batch_size,
    compile_update,
    state_shardings,
    whole,
)
from sam_jax.train.loop.run_checkpoints import RunCheckpoints, newest_step
from sam_jax.train.loop.run_log import RunLog
from sam_jax.train.loop.schedule import schedule_text
from sam_jax.train.loop.state import TrainState
from sam_jax.train.loop.step import Loss, initial_state, make_update
from sam_jax.train.options import RunOptions
from sam_jax.train.paths import comparable, kept
from sam_jax.types import Params

# Updates between which several processes ask each other whether one was asked to stop.
_AGREED_EVERY = 8
# Seconds that a run which was asked to stop waits for a batch, to end after its update.
_READING_PATIENCE = 1.0


@runtime_checkable
class Batches(Protocol):
    """This process's part of every batch, without end."""

    def __next__(self) -> Any:
        """The next one: a pytree of arrays whose first axis is the image's."""

    def get_state(self) -> dict[str, Any]:
        """Where it stands, as JSON values."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to where it stood."""

    def skipped(self) -> dict[str, int]:
        """Records that could not be used so far, by reason."""

    def close(self) -> None:
        """Ends what reads ahead."""


@dataclass(frozen=True)
class Job:
    """What a loop trains.

    Attributes:
      variables: to start from; called once, where there is no checkpoint, on each process.
      loss: see `step.Loss`.
      batches: the input.
      batch_size: images in a batch, of all processes.
      depth: blocks of the encoder.
      export: writes the variables of a finished run to a path.
      batch_shapes: of a whole batch, `jax.ShapeDtypeStruct`.
      memory: what can be changed to save memory, from `memory.advice`.
      picture: of variables and this process's part of a batch; None for none.
    """

    variables: Callable[[], Params]
    loss: Loss
    batches: Batches
    batch_size: int
    depth: int
    export: Callable[[Params, Path], Any]
    batch_shapes: Any
    memory: Sequence[str] = ()
    picture: Callable[[Params, Any], np.ndarray] | None = None


def run_job(
    job: Job,
    optimizer_options: OptimizerOptions,
    options: RunOptions,
    mesh: Mesh,
    folder: Path,
    begin: Callable[[], None],
    echo: Callable[[str], None],
) -> Path:
    """Trains to the end and writes the model to `folder`/model.

    Args:
      job: what is trained.
      optimizer_options: how, and for how many steps.
      options: checkpoints, metrics, pictures.
      mesh: from `sharding.make_mesh`.
      folder: of the run; checkpoints in it are gone on from.
      begin: called before anything is written there, when everything fits together; `run_folder`'s.
      echo: takes lines for a person.

    Returns:
      The path of the model.

    Raises:
      InputError: the loss or a gradient was not finite; the message names the batch, which is kept
        beside the last good checkpoint. Or the mesh does not divide the batch, or memory does not
        suffice.
      KeyboardInterrupt: the run was asked to stop, and what it had done is in a checkpoint.
    """
    with closing(job.batches):
        return _run_job(job, optimizer_options, options, mesh, folder, begin, echo)


def _run_job(
    job: Job,
    optimizer_options: OptimizerOptions,
    options: RunOptions,
    mesh: Mesh,
    folder: Path,
    begin: Callable[[], None],
    echo: Callable[[str], None],
) -> Path:
    check_batch_size(job.batch_size, options.accumulate, mesh)
    shapes = jax.eval_shape(job.variables)
    optimizer = make_optimizer(optimizer_options, shapes["params"], job.depth)

    def start() -> TrainState:
        return initial_state(job.variables(), optimizer, options.seed)

    state_shapes = jax.eval_shape(start)
    where = state_shardings(state_shapes, mesh)
    update = compile_update(
        make_update(job.loss, optimizer, mesh, options.accumulate), state_shapes, mesh
    )
    kept = folder / "checkpoints"
    if newest_step(kept) < optimizer_options.steps:
        echo(schedule_text(optimizer_options))
        echo(f"compiling the step (about {about_seconds(state_shapes)} s)")
        # Traced before anything is written; `trace` does not do it again.
        traced = update.trace(state_shapes, job.batch_shapes)
        check_estimate(traced, state_shapes, where, mesh, job.memory, echo)
    begin()
    checkpoints = RunCheckpoints(kept, options.keep, options.keep_every or None)
    first, state = _begun(job, checkpoints, _with_shardings(state_shapes, where), echo)
    if state is None:
        state = jax.device_put(start(), where)
    log = RunLog(folder, first, optimizer_options.steps, echo)
    rate = learning_rate(optimizer_options)
    try:
        with stop_requests() as stop, memory_errors(job.memory):
            if first < optimizer_options.steps:
                with _ends_within(stop, 0.0):
                    traced = update.trace(state_shapes, job.batch_shapes)
                    program = compiled(traced.lower())
                check_compiled(program, mesh, job.memory)
                loop = _Loop(job, options, program, checkpoints, log, mesh, folder, rate, first)
                state = loop.run(state, first, optimizer_options.steps, stop)
    except BaseException:
        # Nothing is written any more when the caller learns of it: it may start the run again. What
        # goes wrong with that is no news to one who is told of another fault, or of the same.
        with suppress(InputError):
            checkpoints.wait()
        log.close()
        raise
    log.close()
    checkpoints.close()
    model = folder / "model"
    variables = whole({"params": state.params, **state.constants}, mesh)
    if jax.process_index() == 0:
        job.export(variables, model)
    return model


def _begun(
    job: Job, checkpoints: RunCheckpoints, shapes: Any, echo: Callable[[str], None]
) -> tuple[int, Any]:
    """Updates that were made before, and the state after them; 0 and None at the start."""
    found, broken = checkpoints.restore(shapes)
    for step in broken:
        echo(f"the checkpoint of step {step} was cut short and is left out")
    if found is None:
        return 0, None
    first, state, data_state = found
    if len(data_state) != jax.process_count():
        raise InputError(
            f"{checkpoints.directory.parent} is a run of {len(data_state)} processes; go on with "
            "as many"
        )
    job.batches.set_state(data_state[jax.process_index()])
    echo(f"going on from step {first}")
    return first, state


def _ends_within(stop: StopRequests, seconds: float) -> AbstractContextManager[None]:
    """For waiting: one of several processes must not leave, as the others would wait for it."""
    return stop.end_within(seconds) if jax.process_count() == 1 else nullcontext()


@dataclass
class _Loop:
    job: Job
    options: RunOptions
    update: Any
    checkpoints: RunCheckpoints
    log: RunLog
    mesh: Mesh
    folder: Path
    rate: Callable[[Any], Any]
    saved: int  # step of the newest checkpoint

    def run(self, state: Any, first: int, total: int, stop: StopRequests) -> Any:
        options = self.options
        before: tuple[int, Any, Any] | None = None
        for step in range(first + 1, total + 1):
            place = self.job.batches.get_state()
            try:
                with _ends_within(stop, _READING_PATIENCE):
                    part = next(self.job.batches)
            except KeyboardInterrupt:
                self._keep(step - 1, state, place, before)
                raise
            batch = jax.tree.map(self._placed, part)
            if options.picture_every and (step - 1) % options.picture_every == 0:
                self._draw(step - 1, state, part)
            if before is None:
                self.log.start()
            state, metrics = self.update(state, batch)
            # One step late, so that the device never waits for the host.
            if before is not None:
                self._check(*before)
            before = (step, metrics, part)
            self.log.add(metrics, self.job.batch_size)
            # Asked once a step: a request that comes later ends the next one, with its checkpoint.
            stopping = _one_asks(stop.is_set(), step)
            last = step == total or stopping
            if step % options.log_every == 0 or last:
                self._check(*before)
                self._write(step)
            elif self.log.is_due():
                self._check(*before)
                self.log.show(step)
            if step % options.checkpoint_every == 0 or last:
                self._check(*before)
                self.checkpoints.save(step, state, _of_all(self.job.batches.get_state()))
                self.saved = step
                stopping |= stop.is_set() and jax.process_count() == 1
            self.checkpoints.poll()
            if stopping and step < total:
                self.checkpoints.wait()
                raise KeyboardInterrupt
        return state

    def _keep(self, step: int, state: Any, place: Any, before: Any) -> None:
        """Writes what was done since the newest checkpoint."""
        if step > self.saved:
            self._check(*before)
            if self.log.waiting:
                self._write(step)
            self.checkpoints.save(step, state, _of_all(place))
        self.checkpoints.wait()

    def _write(self, step: int) -> None:
        skipped = sum(self.job.batches.skipped().values())
        self.log.write(step, float(self.rate(step - 1)), skipped)

    def _draw(self, step: int, state: Any, part: Any) -> None:
        if self.job.picture is None:
            return
        variables = whole({"params": state.params, **state.constants}, self.mesh)
        if jax.process_index() == 0:
            self.log.picture(step, self.job.picture(variables, part))

    def _placed(self, part: Any) -> Any:
        sharding = batch_sharding(self.mesh)
        return jax.make_array_from_process_local_data(sharding, np.asarray(part))

    def _check(self, step: int, metrics: dict[str, Any], part: Any) -> None:
        if bool(metrics["finite"]):
            return
        self.checkpoints.wait()
        values = {name: np.asarray(x).tolist() for name, x in metrics.items() if name != "finite"}
        # Each process has a part of the batch.
        number = f"_process_{jax.process_index()}" if jax.process_count() > 1 else ""
        path = self.folder / f"bad_batch_{step}{number}.npz"
        leaves = jax.tree_util.tree_flatten_with_path(part)[0]
        arrays = {
            jax.tree_util.keystr(name, simple=True, separator="."): np.asarray(x)
            for name, x in leaves
        }
        with written_aside(path) as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        raise InputError(
            f"step {step}: the loss or its gradient is not finite ({values}); batch {step} is kept "
            f"in {path}, and the checkpoints before it are good: look at the batch, or go "
            "on from them with a lower optimizer.learning_rate and --change-recipe"
        )


def _one_asks(asked: bool, step: int) -> bool:
    """Whether a process was asked to stop; all of them learn it at the same step."""
    if jax.process_count() == 1:
        return asked
    # Now and then only: the host waits for the devices here.
    if step % _AGREED_EVERY:
        return False
    from jax.experimental.multihost_utils import process_allgather

    return bool(process_allgather(np.array(asked)).any())


def _of_all(data_state: dict[str, Any]) -> list[dict[str, Any]]:
    """Of every process, in order."""
    if jax.process_count() == 1:
        return [data_state]
    from jax.experimental.multihost_utils import process_allgather

    text = json.dumps(data_state).encode()
    length = int(process_allgather(np.array(len(text))).max())
    texts = process_allgather(np.frombuffer(text.ljust(length), np.uint8))
    return [json.loads(row.tobytes()) for row in texts]


def _with_shardings(shapes: Any, where: Any) -> Any:
    def one(shape, sharding):
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)

    return jax.tree.map(one, shapes, where)


@contextmanager
def run_folder(
    folder: Path, values: dict[str, Any], changed: Callable[[dict, dict], list[str]]
) -> Iterator[Callable[[], None]]:
    """Makes a run's folder, or finds the same run in it, and keeps other processes out.

    Args:
      folder: of the run.
      values: its configuration, JSON values.
      changed: names of what differs between two configurations and must not.

    Returns:
      What keeps the configuration there, for `run_job`. A run that ends before that leaves nothing.

    Raises:
      InputError: another run is at work there, or was, with another configuration.
    """
    made, values = not folder.exists(), kept(values, folder)
    folder.mkdir(parents=True, exist_ok=True)
    number, path = jax.process_index(), folder / "config.json"
    lock_path = folder / f".sam-jax.{number}.lock"
    with open(lock_path, "ab") as lock:
        if not try_lock(lock):
            raise InputError(f"another run is writing to {folder}; wait for it, or give --output")
        if path.is_file():
            try:
                earlier = dict(json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError):
                raise InputError(f"{path} is damaged; give another --output") from None
            names = changed(*comparable(earlier, values))
            if names:
                raise InputError(
                    f"{folder} has a run with another configuration ({', '.join(names)}); give "
                    "another --output, or the same configuration to go on (--change-recipe allows "
                    "other optimizer, losses and simulation)"
                )

        def keep() -> None:
            if number == 0:
                with written_aside(path) as file:
                    file.write((json.dumps(values, indent=2) + "\n").encode())

        try:
            yield keep
        finally:
            if not path.exists():
                with suppress(OSError):
                    lock_path.unlink()
                    if made:
                        folder.rmdir()
