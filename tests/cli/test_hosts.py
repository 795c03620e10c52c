"""Folder runs over processes: each does its part, and the folder is as one process leaves it.

Here they are two, on one machine; each starts, compiles and writes as it would on its own.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from generated_folder import ARGS, names, snapshot
from PIL import Image

from sam_jax.errors import InputError
from sam_jax.folder_runs import hosts as hosts_module
from sam_jax.folder_runs.hosts import Share
from sam_jax.folder_runs.index import EMBEDDINGS_INDEX, MASKS_INDEX
from sam_jax.folder_runs.locks import done_file, lock_file, own_folder

ROOT = Path(__file__).parents[2]
OUT = Path("out")
# A process that is killed is missed sooner than where file systems are slow.
# Nor does splitting a list need what training needs.
START = """
import sys
sys.modules["grain"] = None
from sam_jax.cli.main import main
from sam_jax.folder_runs import hosts
hosts._BEAT_SECONDS, hosts._SILENCE_SECONDS = 0.2, 4.0
main()
"""


@pytest.fixture
def make_photos(folder):
    def make(count):
        Path("photos").mkdir()
        rng = np.random.default_rng(0)
        for number in range(count):
            pixels = rng.integers(0, 256, (61, 90, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"photos/{number:02}.png")

    return make


@pytest.fixture
def start(checkpoint):
    """Starts processes of their own, which are gone when the test is."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        # As a shell has it, where JAX is not imported yet.
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }

    with ExitStack() as stack:

        def call(command, *args, **more_environment):
            words = [command, "photos", "--checkpoint", checkpoint, "--output", OUT, *args]
            process = subprocess.Popen(
                [sys.executable, "-c", START, *map(str, words)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**environment, **more_environment},
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield call


def free_port():
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


def addresses(count=2, port=None):
    port = port or free_port()
    for number in range(count):
        words = f"--coordinator-address localhost:{port} --num-processes {count}"
        yield ["--distributed", *words.split(), "--process-id", number]


def ended(process):
    output, errors = process.communicate(timeout=120)
    return process.returncode, output.splitlines(), errors.splitlines()


def assert_same_folders(one, other):
    assert sorted(os.listdir(one)) == sorted(os.listdir(other))
    for name in os.listdir(one):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.slow
def test_two_processes_leave_what_one_does(make_photos, start, failing, checkpoint):
    make_photos(7)
    for name in ("02.png", "05.png"):
        Path("photos", name).write_bytes(b"")
    args = ("--format", "coco-rle", "--format", "png")
    alone = failing("photos", *args, "--output", "whole")
    processes = [start("generate", *ARGS, *args, *words) for words in addresses()]
    (status0, out0, errors0), (status1, out1, errors1) = map(ended, processes)
    assert_same_folders(OUT, Path("whole"))
    assert status0 == status1 == 2
    # Process 0 tells of all images what one process does, but for the folder's name.
    assert "\n".join(out0) == alone.stdout.strip().replace("whole", "out")
    failed = [line for line in alone.stderr.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 2 and [line for line in errors0 if "failed: " in line] == failed
    assert errors0[-1].startswith("error: 2 of 7 images could not be done")
    assert out1[0] == "out: process 1 of 2: 2 of 3 images done, 1 failed"
    assert errors1[-2:] == [failed[1], errors0[-1].replace("2 of 7", "1 of 3")]
    index = json.loads((OUT / MASKS_INDEX).read_text())
    assert [entry["file_name"] for entry in index["images"]] == [
        f"0{i}.png" for i in (0, 1, 3, 4, 6)
    ]
    assert [entry["file_name"] for entry in index["failed"]] == ["02.png", "05.png"]
    assert [entry["masks"] for entry in index["images"]] == [5] * 5


def finished(parts=(0, 1)):
    """Names of the finished images' files, of the parts of these processes."""
    stems = {name[:2] for name in names(OUT) if name[:2].isdigit() and name.endswith(".json")}
    return {name for name in names(OUT) if name[:2] in stems and int(name[:2]) % 2 in parts}


@pytest.mark.parametrize(
    "killed",
    [pytest.param(1, marks=pytest.mark.slow), pytest.param(0, marks=pytest.mark.exhaustive)],
)
def test_after_a_kill_the_other_ends_its_part_and_resume_the_rest(
    make_photos, start, generate, refused, killed
):
    make_photos(30)
    args = ("--format", "coco-rle", "--overlay", "--resume")
    generate("photos", *args, "--output", "whole")
    processes = [start("generate", *ARGS, *args, *words) for words in addresses()]
    survivor, victim = processes[1 - killed], processes[killed]
    while not OUT.is_dir() or len(finished([killed])) < 4:
        assert victim.poll() is None, victim.stderr.read()
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    status, output, errors = ended(survivor)
    victim.wait()
    assert len(finished([1 - killed])) == 30 and 4 <= len(finished([killed])) < 30
    if killed == 1:
        assert status == 2 and not output
        expected = "error: process 1 ended without finishing its part of out"
        assert (
            errors[-1].startswith(expected)
            and "start all processes again with --resume" in errors[-1]
        )
    else:
        # Its own part is all it knows of.
        assert status == 0 and output[0] == "out: process 1 of 2: 15 of 15 images done"
    assert not {MASKS_INDEX, "instances_rle.json"} & set(os.listdir(OUT))
    before = {path: stamp for path, stamp in snapshot(OUT).items() if path.name in finished()}
    assert {path: path.read_bytes() for path in before} == {
        path: Path("whole", path.name).read_bytes() for path in before
    }
    processes = [start("generate", *ARGS, *args, *words) for words in addresses()]
    (status0, out0, errors0), (status1, _, errors1) = map(ended, processes)
    assert (status0, status1) == (0, 0), errors0 + errors1
    count = len(before) // 2
    assert out0[0] == f"out: {30 - count} of 30 images done, {count} were there already"
    assert snapshot(OUT).items() >= before.items()
    assert_same_folders(OUT, Path("whole"))


@pytest.mark.slow
def test_slurm_tells_the_processes_itself(make_photos, start, run, checkpoint):
    make_photos(5)
    run("encode", "photos", "--checkpoint", checkpoint, "--output", "whole")
    step = {
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_NTASKS": "2",
        "JAX_COORDINATOR_PORT": str(free_port()),
    }
    ids = [{"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(2)]
    processes = [start("encode", "--distributed", **step, **own) for own in ids]
    (status0, out0, errors0), (status1, out1, _) = map(ended, processes)
    assert (status0, status1) == (0, 0), errors0
    assert out0 == ["out: 5 of 5 images encoded"]
    assert out1 == ["out: process 1 of 2: 2 of 2 images encoded"]
    assert_same_folders(OUT, Path("whole"))
    index = json.loads((OUT / EMBEDDINGS_INDEX).read_text())
    assert [entry["result"] for entry in index["images"]] == [f"0{i}.png.npz" for i in range(5)]


def test_who_does_not_come_is_not_waited_for_for_ever(make_photos, start):
    make_photos(1)
    first, second = (
        start("generate", *words, "--initialization-timeout", 2)
        # Without the other at all, with nothing at the address, and where nothing tells.
        for words in (next(addresses()), [*addresses(port=1)][1])
    )
    nowhere = start("generate", "--distributed")
    for process in (first, second):
        status, output, errors = ended(process)
        assert status == 2 and not output and len(errors) == 1
        assert errors[0].startswith("error: the 2 processes have not met at localhost:")
        assert "within 2 seconds; start all of them" in errors[0]
    status, _, errors = ended(nowhere)
    assert status == 2 and len(errors) == 1
    assert errors[0].startswith("error: --distributed: this is no TPU pod")
    # The one that made the folder takes it away again, if it is the last to leave.
    assert not OUT.exists() or not os.listdir(OUT)


def test_a_taken_port_is_one_line(make_photos, refused):
    make_photos(1)
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused("photos", *next(addresses(port=port)))
    assert line.startswith(f"process 0 cannot listen at port {port} (Address already in use)")


def test_options_that_do_not_fit_are_one_line(make_photos, refused):
    make_photos(1)
    cases = {
        "--process-id 0": "--process-id is for many processes; add --distributed",
        "--distributed --process-id 0": "give --coordinator-address, --num-processes and",
        "--distributed --num-processes 2 --process-id 0": "give --coordinator-address,",
        "--num-processes 0": "--num-processes",
        "--distributed --process-id -1": "--process-id",
        "--distributed --initialization-timeout 0": "--initialization-timeout",
    }
    for words, message in cases.items():
        assert message in refused("photos", *words.split())
    both = ("--distributed", "--num-processes", "2", "--process-id")
    assert "the last is 1, not 2" in refused("photos", *both, "2", "--coordinator-address", "a:1")
    for address in ("a", "a:", ":x", "a:0", "a:70000", "a:²"):
        line = refused("photos", *both, "0", "--coordinator-address", address)
        assert line.startswith("--coordinator-address is HOST:PORT, not ")
    line = refused("photo.png", *both, "0", "--coordinator-address", "a:1")
    assert line.startswith("--distributed splits the images of a folder")


def test_runs_of_both_kinds_keep_each_other_out(make_photos, refused):
    make_photos(1)
    out, words = ("--output", OUT), [*addresses()]
    taken = "another run is writing to out; wait for its end"
    OUT.mkdir()
    with own_folder(OUT, 1):
        assert refused("photos", *out).startswith(taken)
        # Nor are there two processes of one number.
        assert refused("photos", *out, *words[1]).startswith(taken)
        done_file(OUT, 2).write_text("waited for")
        assert refused("photos", *out).startswith(taken)
        with own_folder(OUT, 0):  # The other part of the same run.
            pass
    with own_folder(OUT):
        for each in words:
            assert refused("photos", *out, *each).startswith(taken)


def test_what_killed_processes_left_goes(make_photos, generate):
    make_photos(1)
    OUT.mkdir()
    lock_file(OUT, 3).write_text("of a killed process")
    done_file(OUT, 12).write_text("that nobody waits for")
    generate("photos", "--output", OUT)
    assert sorted(os.listdir(OUT)) == ["00.json", MASKS_INDEX]


@pytest.fixture
def no_meeting(monkeypatch):
    """What a process shows of its run, of each that is started; none of them meets another."""
    shown = []

    def meet(hosts):
        shown.append(lock_file(OUT, hosts.process_id).read_text())
        raise InputError("nobody comes")

    monkeypatch.setattr(hosts_module, "meet", meet)
    return shown


@pytest.mark.parametrize("command", ["generate", "encode"])
def test_other_weights_or_images_of_the_same_names_are_another_run(
    make_photos, run, no_meeting, checkpoint, other_checkpoint, command
):
    make_photos(2)
    Path("elsewhere").mkdir()
    named_alike = Path("elsewhere", checkpoint.name)
    shutil.copytree(other_checkpoint, named_alike)
    options = ["--output", OUT, *[*addresses()][1]]
    if command == "generate":
        Path("embeddings").mkdir()
        Path("embeddings/00.png.npz").write_bytes(b"one")
        options += [*ARGS, "--embeddings", "embeddings"]

    def shown(path):
        assert run.refused(command, "photos", "--checkpoint", path, *options) == "nobody comes"
        return no_meeting.pop()

    first = shown(checkpoint)
    assert shown(checkpoint) == first != shown(named_alike)
    if command == "generate":
        Path("embeddings/00.png.npz").write_bytes(b"another")
        first, before = shown(checkpoint), first
        assert first != before
    Image.new("RGB", (90, 61)).save("photos/01.png")
    assert shown(checkpoint) != first


def test_what_a_process_has_done_stays_until_it_meets_the_others(make_photos, refused, no_meeting):
    make_photos(2)
    Share(OUT, 1, 2, "this run").hand_in({"tried": 1})
    words = [*addresses()][1]
    assert refused("photos", "--output", OUT, *words) == "nobody comes"
    assert json.loads(done_file(OUT, 1).read_text())["result"] == {"tried": 1}


@pytest.mark.slow
def test_a_checkpoint_is_loaded_without_the_other_processes(checkpoint):
    """As on a TPU pod, where JAX knows all hosts' devices whatever we do."""
    code = f"""
import sys, jax
number = int(sys.argv[1])
jax.distributed.initialize("localhost:{free_port()}", 2, number, initialization_timeout=60)
assert jax.process_count() == 2
jax.distributed.shutdown()
from sam_jax import Segmenter
if number == 1:
    Segmenter.load({str(checkpoint)!r})
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [[sys.executable, "-c", code, str(number)] for number in range(2)]
    processes = [subprocess.Popen(each, env=environment) for each in words]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
