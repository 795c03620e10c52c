"""A toy run under the command's care that is held up: python interrupted_run.py FOLDER [PLACE].

PLACE is "compile", "step", "long step", "read" or "save": there it writes FOLDER.held and does not
listen for a while, but for "read", which waits until it is interrupted.
"""

import hashlib
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))

import toy_run

from sam_jax.cli.interruption import interruptible
from sam_jax.cli.main import main
from sam_jax.train.loop import compile_step, loop
from sam_jax.train.loop.run_checkpoints import RunCheckpoints

HELD_AT = 8  # between the checkpoints of steps 5 and 10


def deaf(seconds):
    """As the compiler and an update are: Python's handlers of signals do not run meanwhile."""
    started = time.monotonic()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000)
    each = time.monotonic() - started
    hashlib.pbkdf2_hmac("sha256", b"", b"", int(200_000 * seconds / each))


class Held:
    """Calls a function, and holds the N-th call up."""

    def __init__(self, function, marker, number, wait):
        self.function, self.marker, self.number, self.wait = function, marker, number, wait
        self.calls = 0

    def __call__(self, *args):
        self.calls += 1
        if self.calls == self.number:
            self.marker.touch()
            self.wait()
        return self.function(*args)


class HeldProgram:
    def __init__(self, lowered, marker, seconds):
        self.compile = Held(lowered.compile, marker, 1, lambda: deaf(seconds))


def hold(place, marker):
    compiled = compile_step.compiled
    if place == "compile":
        loop.compiled = lambda lowered: compiled(HeldProgram(lowered, marker, 60))
    elif place in ("step", "long step"):
        seconds = 1 if place == "step" else 60
        loop.compiled = lambda lowered: Held(
            compiled(lowered), marker, HELD_AT, lambda: deaf(seconds)
        )
        loop.check_compiled = lambda *_: None
        save = RunCheckpoints.save
        RunCheckpoints.save = lambda self, *args: (save(self, *args), self.wait())
    elif place == "read":
        read = toy_run.ToyBatches.__next__
        held = Held(read, marker, HELD_AT, lambda: time.sleep(60))
        toy_run.ToyBatches.__next__ = lambda self: held(self)
    elif place == "save":
        save = RunCheckpoints.save
        held = Held(save, marker, 1, lambda: deaf(1))
        RunCheckpoints.save = lambda *args: held(*args)


@main.command(name="toy")
def toy():
    """The run."""
    folder = Path(sys.argv[1])
    with interruptible(folder):
        toy_run.main(folder)


def command(folder, place=None):
    sys.argv[1:] = [folder]
    if place:
        hold(place, Path(f"{folder}.held"))
    main(["toy"])


if __name__ == "__main__":
    command(*sys.argv[1:])
