"""One folder run over many processes: who they are, which images each does, when all are done.

The processes meet through `jax.distributed` before the first image and part again at once: each
then computes on its own devices as if it were alone, so none waits for another or falls with it.
From there on they know of each other through small hidden files in the output folder, which they
share: a lock that its owner touches every few seconds, and what a process did, once it has ended.
"""

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sam_jax.errors import InputError
from sam_jax.files import written_aside
from sam_jax.folder_runs.image_list import ImageFile
from sam_jax.folder_runs.leftovers import remove_leftovers
from sam_jax.folder_runs.locks import done_file, keep_out_parts, lock_file, own_folder
from sam_jax.folder_runs.meeting import Hosts, leave, meet
from sam_jax.folder_runs.reading import names_and_sizes
from sam_jax.progress import Tell, silent

Item = TypeVar("Item")

_BEAT_SECONDS = 5.0
# A process that is not heard of for so long is gone. Network file systems show a change late.
_SILENCE_SECONDS = 60.0
_VISIBLE_SECONDS = 30.0
_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Share:
    """What one process does of a folder run.

    Attributes:
      folder: that all processes write to.
      index: of this process, from 0.
      count: how many they are.
      task: what tells their run from others.
    """

    folder: Path
    index: int = 0
    count: int = 1
    task: str = ""

    def __str__(self) -> str:
        """Whose results a line tells of: process 0 speaks for all."""
        return f"{self.folder}" + (f": process {self.index} of {self.count}" if self.index else "")

    def of(self, images: Sequence[Item]) -> list[Item]:
        """This process's images: each is one process's, and always the same one's.

        Round-robin, so that what an earlier run has left to do is spread evenly.
        """
        return list(images[self.index :: self.count])

    def hand_in(
        self, result: Mapping[str, Any], tell: Tell = silent
    ) -> list[Mapping[str, Any]] | None:
        """Leaves what this process did, as JSON holds it; process 0 gets what all did.

        Args:
          result: of this process.
          tell: gets a line where process 0 waits for others.

        Returns:
          The results in the order of the processes, in process 0; elsewhere None.

        Raises:
          InputError: a process has ended before its part was finished.
          OSError: the folder cannot be written to.
        """
        if self.index > 0:
            with written_aside(done_file(self.folder, self.index)) as file:
                file.write(json.dumps({"task": self.task, "result": result}).encode())
            return None
        others = self._wait_for_others(tell)
        missing = [number for number in range(1, self.count) if number not in others]
        if missing:
            which = " and ".join(f"process {number}" for number in missing)
            raise InputError(
                f"{which} ended without finishing its part of {self.folder}, so there is no index; "
                "start all processes again with --resume"
            )
        return [result, *(others[number] for number in range(1, self.count))]

    def _wait_for_others(self, tell: Tell) -> dict[int, Mapping[str, Any]]:
        waiting, results = set(range(1, self.count)), {}
        last_seen: dict[int, tuple[int, float]] = {}
        if waiting:
            tell(f"process 0 has done its part and waits for {len(waiting)} more")
        while waiting:
            for number in sorted(waiting):
                # Before the look for its result: it leaves that, then goes.
                alive = self._is_alive(number, last_seen)
                path = done_file(self.folder, number)
                if path.exists():
                    results[number] = json.loads(path.read_bytes())["result"]
                    path.unlink()
                elif alive:
                    continue
                waiting.remove(number)
            if waiting:
                time.sleep(_LOOK_SECONDS)
        return results

    def _is_alive(self, number: int, last_seen: dict[int, tuple[int, float]]) -> bool:
        """Whether a process has touched its lock lately, by this machine's clock."""
        try:
            # Opening it asks the file system's server, where looking alone may not.
            with open(lock_file(self.folder, number), "rb") as file:
                stamp = os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return False
        now = time.monotonic()
        if number not in last_seen or last_seen[number][0] != stamp:
            last_seen[number] = stamp, now
        return now - last_seen[number][1] < _SILENCE_SECONDS


def inputs_of_all(checkpoint: Path, images: Sequence[ImageFile]) -> list[Any]:
    """What tells a checkpoint and images from others, for `own_share`; reads none of them whole.

    Raises:
      CheckpointError: it says nothing of itself that can be read.
    """
    from sam_jax.checkpoints.native import read_info

    return [read_info(checkpoint).fingerprint, names_and_sizes(images)]


@contextmanager
def own_share(folder: Path, hosts: Hosts | None, task: Sequence[Any]) -> Iterator[Share]:
    """Makes a folder to write to and keeps other runs out of it, until the block ends.

    With hosts, it waits for the other processes, which do the other images.

    Args:
      folder: to write to.
      hosts: how they find each other; None for one process that does everything.
      task: what must be the same for all of them, as JSON holds it.

    Raises:
      InputError: another run has the folder; or the processes do not find each other, are not of
        one run, or do not share the folder.
      OSError: it cannot be made or written to.
    """
    if hosts is None:
        with own_folder(folder):
            yield Share(folder)
        return
    with ExitStack() as stack:
        # As early as can be: of two processes with one id, JAX would end one with a trace.
        if hosts.process_id is not None:
            text = _task_text(task, hosts.num_processes)
            stack.enter_context(_own_part(folder, hosts.process_id, text))
        index, count = meet(hosts)
        text = _task_text(task, count)
        if hosts.process_id is None:
            stack.enter_context(_own_part(folder, index, text))
        # Not before they have met: a process that is started again when the others are at work
        # would take away what it has done. Not after `leave`: another would take it for new.
        done_file(folder, index).unlink(missing_ok=True)
        leave(hosts)
        share = Share(folder, index, count, text)
        _check_others(share)
        if index == 0:
            keep_out_parts(folder, count)
        yield share


@contextmanager
def _own_part(folder: Path, number: int, text: str) -> Iterator[None]:
    """Has the files of a part alone, shows there what it is of, and that this process is alive."""
    path, ended = lock_file(folder, number), threading.Event()

    def beat() -> None:
        while not ended.wait(_BEAT_SECONDS):
            # A server that is away for a moment: the next beat may be heard.
            with suppress(OSError):
                os.utime(path)

    with own_folder(folder, number) as file:
        remove_leftovers(folder, [done_file(folder, number).name])
        file.truncate(0)
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())  # So that other machines see it.
        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _task_text(task: Sequence[Any], count: int | None) -> str:
    return hashlib.sha256(json.dumps([count, *task]).encode()).hexdigest()


def _check_others(share: Share) -> None:
    """Refuses a run of which a part is of another, or in another folder."""
    limit = time.monotonic() + _VISIBLE_SECONDS
    for number in range(share.count):
        while (found := _text_of(share.folder, number)) is None:
            if time.monotonic() > limit:
                raise InputError(
                    f"nothing of process {number} is in {share.folder}: it has ended, as it says "
                    "itself, or --output is not a folder that all processes share"
                )
            time.sleep(_LOOK_SECONDS)
        if found != share.task:
            raise InputError(
                f"process {number} was started with other options than process {share.index}, or "
                "sees another checkpoint or other images; start all with the same command"
            )


def _text_of(folder: Path, number: int) -> str | None:
    with suppress(FileNotFoundError):
        return lock_file(folder, number).read_text() or None
    with suppress(FileNotFoundError):
        return json.loads(done_file(folder, number).read_bytes())["task"]
    return None
