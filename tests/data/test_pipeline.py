"""Batches without end: in an order that a seed decides, split between processes, taken up again."""

import contextlib
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from small_datasets import SIZES, Faulty, Squares, edit, write_folder, write_instances, write_tar

from sam_jax.data.batches import TrainingBatch, unpack_masks
from sam_jax.data.layouts import open_dataset
from sam_jax.data.pipeline import training_batches
from sam_jax.data.samples import (
    BROKEN_ANNOTATIONS,
    BROKEN_IMAGE,
    CANNOT_READ,
    NO_MASK,
    SIZES_DIFFER,
)
from sam_jax.data.transforms import FrameOptions
from sam_jax.errors import InputError

ROOT = Path(__file__).parents[2]
OPTIONS = FrameOptions(64, 3)
AUGMENTED = FrameOptions(64, 3, scale_range=(0.5, 2.0), flip=0.5)


def fields(batch):
    return {name: getattr(batch, name) for name in ("images", "sizes_hw", "masks", "weights")}


def assert_same(first, second):
    for name, value in fields(first).items():
        np.testing.assert_array_equal(value, fields(second)[name])


def numbers(batch):
    """Which of `Squares` a batch holds."""
    return (batch.images[:, 0, 0, 0].astype(int) - 1).tolist()


def take(count, *args, **options):
    with training_batches(*args, **options) as batches:
        return list(itertools.islice(batches, count))


def test_a_batch_has_what_training_takes():
    (batch,) = take(1, Squares(7), FrameOptions(64, 6), batch_size=4)
    assert isinstance(batch, TrainingBatch)
    assert {name: (type(v), v.shape, v.dtype.name) for name, v in fields(batch).items()} == {
        "images": (np.ndarray, (4, 64, 64, 3), "uint8"),
        "sizes_hw": (np.ndarray, (4, 2), "int32"),
        "masks": (np.ndarray, (4, 6, 64, 8), "uint8"),
        "weights": (np.ndarray, (4, 6), "float32"),
    }
    assert (batch.weights == [1, 1, 1, 1, 0, 0]).all()
    masks = np.asarray(unpack_masks(jnp.asarray(batch.masks)))
    for index, (height, width) in enumerate(batch.sizes_hw.tolist()):
        assert max(height, width) == 64
        assert masks[index, :4].any(axis=(1, 2)).all()
        assert not masks[index, :, height:].any() and not masks[index, :, :, width:].any()
        assert masks[index, :, :height, :width].any()


def test_every_epoch_has_each_record_once_and_another_order():
    seen = np.concatenate([numbers(batch) for batch in take(27, Squares(9), OPTIONS, batch_size=2)])
    epochs = seen.reshape(6, 9)
    assert (np.sort(epochs) == np.arange(9)).all()
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 6


def test_the_seed_decides_everything():
    first, again, other = (
        take(6, Squares(7), AUGMENTED, batch_size=3, seed=seed) for seed in (5, 5, 6)
    )
    for one, two in zip(first, again, strict=True):
        assert_same(one, two)
    assert [numbers(batch) for batch in first] != [numbers(batch) for batch in other]


def test_an_image_is_augmented_differently_each_epoch():
    batches = take(10, Squares(1), AUGMENTED, batch_size=1)
    assert len({tuple(batch.sizes_hw[0]) for batch in batches}) > 5


@pytest.mark.parametrize("records", [12, 13])
def test_processes_share_the_records_between_them(records):
    of_process = [
        [
            number
            for batch in take(
                26, Squares(records), OPTIONS, batch_size=2, process_index=index, process_count=2
            )
            for number in numbers(batch)
        ]
        for index in range(2)
    ]
    stream = np.ravel(of_process, order="F")
    assert len(stream) == 104
    epochs = stream[: 104 // records * records].reshape(-1, records)
    assert (np.sort(epochs) == np.arange(records)).all()
    # What one process would read, in turn.
    alone = [numbers(batch) for batch in take(52, Squares(records), OPTIONS, batch_size=2)]
    np.testing.assert_array_equal(stream, np.ravel(alone))


def test_processes_draw_numbers_of_their_own():
    sizes = [
        [
            tuple(batch.sizes_hw[0])
            for batch in take(
                8, Squares(1), AUGMENTED, batch_size=1, process_index=index, process_count=2
            )
        ]
        for index in range(2)
    ]
    assert sizes[0] != sizes[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_training_goes_on_exactly_where_it_was(workers):
    dataset = Squares(7, unusable=[2, 5])
    settings = {"batch_size": 3, "seed": 1}
    expected = take(8, dataset, AUGMENTED, **settings)
    with training_batches(dataset, AUGMENTED, workers=workers, **settings) as batches:
        for batch in expected[:4]:  # in the middle of the third epoch
            assert_same(next(batches), batch)
        state = json.loads(json.dumps(batches.get_state()))
        skipped = batches.skipped()
        ahead = next(batches)
    assert_same(ahead, expected[4])
    assert not multiprocessing.active_children()
    with training_batches(dataset, AUGMENTED, workers=workers, **settings) as batches:
        batches.set_state(state)
        assert batches.get_state() == state and batches.skipped() == skipped
        for batch in expected[4:]:
            assert_same(next(batches), batch)


def test_an_iterator_can_be_set_back():
    with training_batches(Squares(7, [2]), AUGMENTED, batch_size=3) as batches:
        next(batches)
        state, expected = batches.get_state(), [next(batches) for _ in range(3)]
        batches.set_state(state)
        assert batches.get_state() == state
        for batch in expected:
            assert_same(next(batches), batch)


def test_a_place_in_other_data_is_refused():
    settings = {"batch_size": 2, "seed": 1, "process_count": 2}
    state = training_batches(Squares(7), OPTIONS, **settings).get_state()
    for change, name in [
        ({"seed": 2}, "seed"),
        ({"process_index": 1}, "process_index"),
        ({"process_count": 3}, "process_count"),
    ]:
        with pytest.raises(InputError, match=f"of {name} "):
            training_batches(Squares(7), OPTIONS, **{**settings, **change}).set_state(state)
    with pytest.raises(InputError, match="records 7, this is of 8"):
        training_batches(Squares(8), OPTIONS, **settings).set_state(state)


@pytest.mark.parametrize("kind", ["folder", "shard", "coco"])
@pytest.mark.parametrize("change", ["name", "size"])
def test_changed_data_are_noticed(tmp_path, kind, change):
    folder = write_folder(tmp_path / "data")

    def batches():
        if kind == "shard":
            return training_batches(
                open_dataset(write_tar(tmp_path / "a.tar", folder)), OPTIONS, batch_size=2
            )
        path = write_instances(tmp_path / "i.json", folder) if kind == "coco" else None
        return training_batches(open_dataset(folder, path), OPTIONS, batch_size=2)

    state = json.loads(json.dumps(batches().get_state()))
    batches().set_state(state)
    if change == "name":
        for ending in ("jpg", "json"):
            (folder / f"sa_3.{ending}").rename(folder / f"sa_33.{ending}")
        edit(folder / "sa_33.json", lambda content: content["image"].update(file_name="sa_33.jpg"))
    else:
        (folder / "sa_3.jpg").write_bytes((folder / "sa_3.jpg").read_bytes()[:-1])
    with pytest.raises(InputError, match="renamed or changed in size"):
        batches().set_state(state)


@pytest.mark.parametrize("workers", [0, 2])
def test_unusable_records_are_counted_and_left_out(tmp_path, workers):
    folder = write_folder(tmp_path / "data", SIZES + SIZES[:3])
    (folder / "sa_1.jpg").write_bytes((folder / "sa_1.jpg").read_bytes()[:-500])
    (folder / "sa_2.json").write_text("{")
    edit(folder / "sa_3.json", lambda content: content["image"].update(width=34))
    edit(folder / "sa_4.json", lambda content: content.update(annotations=[]))
    (folder / "sa_5.jpg").write_bytes((folder / "sa_6.jpg").read_bytes())
    dataset = open_dataset(folder)
    (folder / "sa_6.jpg").unlink()
    with training_batches(dataset, OPTIONS, batch_size=4, workers=workers) as batches:
        shapes = [tuple(size) for _ in range(5) for size in next(batches).sizes_hw.tolist()]
        # Twenty usable ones are five epochs of four; the last may have come before the last of
        # what is left out.
        counts = batches.skipped()
    assert set(shapes) == {(27, 64), (38, 64), (64, 42), (64, 64)}
    assert set(counts) == {BROKEN_IMAGE, BROKEN_ANNOTATIONS, SIZES_DIFFER, NO_MASK, CANNOT_READ}
    assert 4 * 6 <= sum(counts.values()) <= 5 * 6


def test_counts_are_the_same_with_and_without_workers():
    dataset = Squares(9, unusable=[0, 3, 4])
    states = []
    for workers in (0, 3):
        with training_batches(dataset, OPTIONS, batch_size=2, workers=workers) as batches:
            for _ in range(4):
                next(batches)
            states.append(batches.get_state())
    assert states[0] == states[1]
    assert 1 <= states[0]["skipped"][NO_MASK] <= 6


@pytest.mark.parametrize("workers", [0, 1])
def test_a_dataset_without_a_usable_record_ends_training(workers):
    dataset = Squares(15, unusable=range(15))
    with training_batches(dataset, OPTIONS, batch_size=2, workers=workers) as batches:
        with pytest.raises(InputError, match="30 records .*: square [0-9]+: no mask") as caught:
            next(batches)
    assert str(caught.value).count("; square") == 2 and len(str(caught.value).splitlines()) == 1


def test_one_usable_record_is_enough():
    batches = take(3, Squares(15, unusable=range(14)), OPTIONS, batch_size=2)
    assert [numbers(batch) for batch in batches] == [[14, 14]] * 3


@pytest.mark.parametrize("workers", [0, 1])
def test_faults_of_ours_are_not_taken_for_unusable_records(workers):
    with training_batches(Faulty(3), OPTIONS, batch_size=1, workers=workers) as batches:
        with pytest.raises(TypeError, match="a fault of ours"):
            next(batches)


def test_a_shard_gives_the_batches_of_its_folder(tmp_path):
    folder = write_folder(tmp_path / "data")
    shard = write_tar(tmp_path / "shards" / "a.tar", folder)
    for one, two in zip(
        take(4, open_dataset(folder), AUGMENTED, batch_size=3),
        take(4, open_dataset(shard), AUGMENTED, batch_size=3),
        strict=True,
    ):
        assert_same(one, two)


def test_epochs_are_counted_over_all_processes():
    with training_batches(Squares(8), OPTIONS, batch_size=3, process_count=2) as batches:
        assert batches.epochs == 0
        next(batches)
        assert batches.epochs == 0.75


@pytest.mark.parametrize(
    "settings",
    [{"batch_size": 0}, {"workers": -1}, {"seed": -1}, {"process_index": 2, "process_count": 2}],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(InputError):
        training_batches(Squares(3), OPTIONS, **{"batch_size": 1, **settings})


def test_an_empty_dataset_is_refused():
    with pytest.raises(InputError, match="empty"):
        training_batches(Squares(0), OPTIONS, batch_size=1)


def test_without_grain_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(InputError, match=r'pip install "sam-jax\[train\]"'):
        training_batches(Squares(3), OPTIONS, batch_size=1)


# Prints the workers' numbers, then takes batches without end; ends as a command does.
ALONE = """
import multiprocessing, sys
sys.path.insert(0, sys.argv[1])
from small_datasets import Squares
from sam_jax.data.pipeline import training_batches
from sam_jax.data.transforms import FrameOptions
from sam_jax.errors import InputError
if __name__ == "__main__":
    # Samples are larger than a pipe holds: a worker that is killed is most often sending one.
    with training_batches(
        Squares(5), FrameOptions(512, 2), batch_size=1, workers=int(sys.argv[2])
    ) as batches:
        next(batches)
        print(*(each.pid for each in multiprocessing.active_children()), flush=True)
        sys.stdin.readline()
        try:
            for _ in range(int(sys.argv[3])):
                next(batches)
        except InputError as error:
            print(error, flush=True)
    print("ended", flush=True)
"""


@contextlib.contextmanager
def training(tmp_path, workers, batches=10**9):
    """A process of `ALONE` before its second batch, and its workers' numbers."""
    script = tmp_path / "alone.py"
    script.write_text(ALONE)
    with subprocess.Popen(
        [sys.executable, script, Path(__file__).parent, str(workers), str(batches)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        start_new_session=True,
    ) as process:
        try:
            yield process, [int(number) for number in process.stdout.readline().split()]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed by a signal")
def test_workers_end_with_a_training_process_that_is_killed(tmp_path):
    with training(tmp_path, 1) as (process, _):
        process.send_signal(signal.SIGKILL)
        # All that have its output open have ended, or this raises.
        process.communicate(timeout=60)


@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed by a signal")
@pytest.mark.parametrize("killed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_worker_ends_training_with_one_line(tmp_path, killed):
    with training(tmp_path, killed + 1) as (process, workers):
        assert len(workers) == killed + 1
        time.sleep(1)  # until each holds a sample that the pipe has no room for
        for worker in workers[:killed]:
            os.kill(worker, signal.SIGKILL)
        output, _ = process.communicate("go on\n", timeout=60)
        assert process.returncode == 0
    said = output.splitlines()
    assert said[-1] == "ended" and len(said) == 2
    assert "was killed (exit status -9); start the same command again, with fewer" in said[0]


@pytest.mark.skipif(sys.platform == "win32", reason="workers are asked by a signal")
@pytest.mark.parametrize(
    "request_", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_workers_read_on_when_they_are_asked_to_end(tmp_path, request_):
    with training(tmp_path, 2, batches=40) as (process, workers):
        for worker in workers:
            os.kill(worker, request_)
        output, _ = process.communicate("go on\n", timeout=60)
        assert process.returncode == 0 and output == "ended\n"


def test_batches_can_be_closed_twice():
    batches = training_batches(Squares(5), OPTIONS, batch_size=1, workers=1)
    next(batches)
    assert multiprocessing.active_children()
    for _ in range(2):
        batches.close()
        assert not multiprocessing.active_children()
