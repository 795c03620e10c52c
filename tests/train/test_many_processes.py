"""Runs of several processes, each with devices of its own, which meet through `jax.distributed`."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
# A process of the toy run: FOLDER SPEC PORT INDEX.
PROCESS = f"""
import sys
sys.path.insert(0, {str(FOLDER)!r})
import jax
folder, spec, port, index = sys.argv[1:]
jax.distributed.initialize(
    f"localhost:{{port}}", 2, int(index), heartbeat_timeout_seconds=10
)
import toy_run
try:
    toy_run.main(folder, spec)
except toy_run.InputError as error:
    print(f"error: {{error}}", file=sys.stderr)
    jax.distributed.shutdown()
    sys.exit(1)
except KeyboardInterrupt:
    jax.distributed.shutdown()
    sys.exit(130)
"""


def free_port():
    with socket.create_server(("localhost", 0)) as server:
        return str(server.getsockname()[1])


def run_pair(folder, specs=("", "")):
    """Both processes' exit status and what they said."""
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS", None)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(folder), spec, port, str(index)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        for index, spec in enumerate(specs)
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], said


def finished(folder):
    codes, said = run_pair(folder)
    assert codes == [0, 0], said
    return np.load(folder / "model.npy")


def steps(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    return finished(folder), folder


@pytest.mark.slow
def test_two_processes_train_what_one_does_and_one_writes(unbroken, tmp_path):
    model, folder = unbroken
    command = [sys.executable, FOLDER / "toy_run.py", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    # Sums over two devices are in another order.
    np.testing.assert_allclose(model, np.load(tmp_path / "model.npy"), atol=1e-5)
    assert steps(folder) == steps(tmp_path)


@pytest.mark.slow
def test_a_request_to_one_process_ends_both_with_a_checkpoint(unbroken, tmp_path):
    codes, said = run_pair(tmp_path, ("", "term:3"))
    assert codes == [130, 130], said
    kept = [int(path.stem) for path in (tmp_path / "checkpoints").glob("*.sealed")]
    assert 3 < max(kept) < 23
    np.testing.assert_array_equal(finished(tmp_path), unbroken[0])
    assert max(steps(tmp_path)) == 23 and len(set(steps(tmp_path))) == len(steps(tmp_path))


@pytest.mark.slow
def test_each_process_keeps_its_part_of_a_bad_batch(tmp_path):
    codes, said = run_pair(tmp_path, ("bad:12", ""))
    assert codes == [1, 1], said
    kept = [np.load(tmp_path / f"bad_batch_12_process_{index}.npz") for index in (0, 1)]
    infinite = [all(np.isinf(part[name]).all() for name in part.files) for part in kept]
    assert infinite == [True, False]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed by a signal")
def test_a_process_that_is_killed_ends_the_other_and_both_go_on(unbroken, tmp_path):
    codes, _ = run_pair(tmp_path, ("", "step:18"))
    assert codes[1] == -signal.SIGKILL and codes[0] != 0
    np.testing.assert_array_equal(finished(tmp_path), unbroken[0])
