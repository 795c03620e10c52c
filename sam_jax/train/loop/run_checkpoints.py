"""Checkpoints of a training run: everything that the rest of the run depends on.

    checkpoints/STEP/state    the `TrainState`, by Orbax
    checkpoints/STEP/data     the input's position, JSON
    checkpoints/STEP.sealed   the CRC-32 of every file, written when they are complete

Orbax writes in the background and renames a checkpoint into place when it is done. A checkpoint
without a seal, or whose files are not those that were sealed, was cut short: it is passed over, and
the one before is used.
"""

import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from sam_jax.errors import InputError
from sam_jax.files import directory_checksums, written_aside


def newest_step(directory: Path) -> int:
    """The step of the newest checkpoint that was written to its end; 0 if there is none."""
    steps = (path.stem for path in directory.glob("*.sealed"))
    return max((int(step) for step in steps if step.isdigit()), default=0)


class RunCheckpoints:
    """Those of one run, in its folder."""

    def __init__(self, directory: Path, keep: int = 2, keep_every: int | None = None):
        """Opens or makes the folder.

        Args:
          directory: of the checkpoints alone.
          keep: so many of the newest stay; at least 2, so that one that was cut short has one
            before it.
          keep_every: also those of steps that are multiples of this stay.
        """
        self.directory = directory.absolute()
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=max(keep, 2), keep_period=keep_every, cleanup_tmp_directories=True
            ),
        )
        self._unsealed: int | None = None
        # What fails in Orbax's threads fails in `wait` too: each of them need not tell it.
        for logger in _LOGGERS:
            logger.addFilter(_not_of_orbax)

    def save(self, step: int, state: Any, data_state: list[dict[str, Any]]) -> None:
        """Begins to write a checkpoint; the arrays may be donated as soon as this returns.

        Args:
          step: updates made.
          state: a `TrainState`.
          data_state: the input's position in every process, JSON values.
        """
        self.wait()
        with self._writing():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(data_state)
                ),
                force=True,
            )
        self._unsealed = step

    def poll(self) -> None:
        """Seals a checkpoint whose writing has ended since; costs nothing otherwise."""
        if self._unsealed is not None and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Until everything is written and sealed.

        Raises:
          InputError: that failed; what was sealed before is as it was.
        """
        unsealed, self._unsealed = self._unsealed, None  # what failed is not sealed another time
        with self._writing():
            self._manager.wait_until_finished()
            if unsealed is not None and jax.process_index() == 0:
                self._seal(unsealed)

    def close(self) -> None:
        """Waits, and ends the background threads.

        Raises:
          InputError: see `wait`.
        """
        try:
            self.wait()
            self._manager.close()
        finally:
            for logger in _LOGGERS:
                logger.removeFilter(_not_of_orbax)

    def restore(
        self, shapes: Any
    ) -> tuple[tuple[int, Any, list[dict[str, Any]]] | None, list[int]]:
        """The newest checkpoint that is whole.

        Args:
          shapes: the state as `jax.ShapeDtypeStruct` with shardings.

        Returns:
          Its step, state and input's position, None where there is none; and the steps of newer
          ones that were cut short, which are removed.

        Raises:
          InputError: all that there are were whole once, and are damaged; or several have no seal.
        """
        broken: list[int] = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            if self._is_whole(step):
                self._remove(broken)
                found = self._manager.restore(
                    step,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardRestore(shapes), data=ocp.args.JsonRestore()
                    ),
                )
                return (step, found["state"], found["data"]), broken
            broken.append(step)
        damaged = [step for step in broken if self._seal_of(step).exists()]
        if damaged:
            raise InputError(
                f"none of the checkpoints in {self.directory} is whole, and steps {damaged} are "
                "damaged; remove them to begin anew"
            )
        if len(broken) > 1:
            # Two are never written at a time: these were sealed, and came here without their seals.
            raise InputError(
                f"the checkpoints in {self.directory}, of steps {broken}, are without their seals "
                "(STEP.sealed), which tell whether they are whole; copy these files too, or remove "
                "the checkpoints to begin anew"
            )
        self._remove(broken)
        return None, broken

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Says in one line what goes wrong with the disk."""
        try:
            yield
        except (OSError, ValueError) as error:  # TensorStore's are ValueErrors
            reason = str(error).splitlines()[0]  # at its end is what the system said
            raise InputError(
                f"a checkpoint cannot be written to {self.directory} ({reason[-200:]}); make room "
                "there, and start the run again: it goes on from the checkpoint before"
            ) from error

    def _remove(self, steps: list[int]) -> None:
        for step in steps:
            self._manager.delete(step)
            self._seal_of(step).unlink(missing_ok=True)

    def _seal_of(self, step: int) -> Path:
        return self.directory / f"{step}.sealed"

    def _seal(self, step: int) -> None:
        record = directory_checksums(self.directory / str(step))
        with written_aside(self._seal_of(step)) as file:
            file.write(json.dumps(record, indent=1).encode())
        kept = {str(step) for step in self._manager.all_steps()}
        for seal in self.directory.glob("*.sealed"):
            if seal.stem not in kept:
                seal.unlink()

    def _is_whole(self, step: int) -> bool:
        try:
            sealed = json.loads(self._seal_of(step).read_bytes())
            return sealed == directory_checksums(self.directory / str(step))
        except (OSError, ValueError):
            return False


# asyncio tells what failed in a task that nobody waited for, because another had failed before it.
_LOGGERS = [logging.getLogger("absl"), logging.getLogger("asyncio")]


def _not_of_orbax(record: logging.LogRecord) -> bool:
    frames = traceback.walk_tb(record.exc_info[2]) if record.exc_info else ()
    paths = [record.pathname, *(frame.f_code.co_filename for frame, _ in frames)]
    return not any("orbax" in Path(path).parts for path in paths)
