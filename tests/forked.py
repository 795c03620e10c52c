"""Child processes that have everything imported when they begin, which takes longer than a toy run.

`Forks(script)` starts one process that imports a script and waits; each child is a fork of it, with
nothing of JAX started, calls the script's `command` with words of its own, and ends as any process.
"""

import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path


class Child:
    """A running fork, as `subprocess.Popen` has it."""

    def __init__(self, answers, outputs):
        self._answers, self._outputs = answers, outputs
        self.pid = int(answers.readline())
        self.returncode = None
        os.set_blocking(answers.fileno(), False)

    def poll(self):
        """The exit status, minus the signal that ended it, or None while it runs."""
        if self.returncode is None and (line := self._answers.readline()):
            self.returncode = int(line)
            os.set_blocking(self._answers.fileno(), True)
        return self.returncode

    def communicate(self, timeout=100):
        """Waits for the end; what it wrote to stdout and stderr."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("a forked child", timeout)
            time.sleep(0.01)
        return [path.read_text() for path in self._outputs]

    def send_signal(self, number):
        """To the fork, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)


class Forks:
    """A process of which children are forked, one at a time."""

    def __init__(self, script):
        self._folder = tempfile.TemporaryDirectory()
        # Programs are compiled once for all forks, and not in the folder that all tests share: what
        # is killed while it writes there would leave a part of one.
        compiled = {"JAX_COMPILATION_CACHE_DIR": f"{self._folder.name}/compiled"}
        at_once = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **compiled, **at_once},
        )

    def start(self, *words):
        """A child that calls `command(*words)`; the one before must have ended."""
        outputs = [Path(self._folder.name, name) for name in ("stdout", "stderr")]
        request = {"words": [*map(str, words)], "outputs": [*map(str, outputs)]}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Child(self._process.stdout, outputs)

    def run(self, *words):
        """As `subprocess.run` with captured text."""
        child = self.start(*words)
        outputs = child.communicate()
        return subprocess.CompletedProcess(words, child.returncode, *outputs)

    def close(self):
        """Ends the process that waits."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()


def _become(outputs):
    """Gives this process files for its stdout and stderr, and nothing to read."""
    for number, path in ((0, os.devnull), (1, outputs[0]), (2, outputs[1])):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)


def _serve(script):
    sys.path.insert(0, str(Path(script).parent))
    command = runpy.run_path(script)["command"]
    while line := sys.stdin.readline():
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            _become(request["outputs"])
            return command(*request["words"])
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
