"""What the processes of a run know of each other: their images, their results, who is gone."""

import os
import shutil
from pathlib import Path

import pytest

from sam_jax.errors import InputError
from sam_jax.folder_runs import hosts as hosts_module
from sam_jax.folder_runs.hosts import Share
from sam_jax.folder_runs.locks import lock_file, own_folder


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_each_image_is_one_processs(count):
    for number in (0, 1, 2, 7, 8, 9):
        images = [Path(f"{i}.png") for i in range(number)]
        shares = [Share(Path(), index, count).of(images) for index in range(count)]
        assert sorted(sum(shares, [])) == sorted(images)
        sizes = [len(share) for share in shares]
        assert max(sizes) - min(sizes) <= 1


def test_images_go_round_the_processes():
    images = list("abcdefg")
    assert [Share(Path(), index, 3).of(images) for index in range(3)] == [
        ["a", "d", "g"],
        ["b", "e"],
        ["c", "f"],
    ]


def test_an_empty_folder_that_another_has_removed_already_is_no_error(tmp_path):
    with own_folder(tmp_path / "out"):
        shutil.rmtree(tmp_path / "out")
    assert not os.path.lexists(tmp_path / "out")


def test_processes_of_other_runs_and_other_folders_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(hosts_module, "_VISIBLE_SECONDS", 0.0)
    share = Share(tmp_path, 0, 2, "these options")
    lock_file(tmp_path, 0).write_text("these options")
    with pytest.raises(InputError, match="nothing of process 1 is in .*all processes share"):
        hosts_module._check_others(share)
    lock_file(tmp_path, 1).write_text("others")
    with pytest.raises(InputError, match="process 1 was started with other options"):
        hosts_module._check_others(share)
    # One that has ended already, with nothing left to do.
    lock_file(tmp_path, 1).unlink()
    Share(tmp_path, 1, 2, "these options").hand_in({})
    hosts_module._check_others(share)


def test_process_0_waits_only_for_the_living(tmp_path, monkeypatch):
    monkeypatch.setattr(hosts_module, "_SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(hosts_module, "_LOOK_SECONDS", 0.05)
    results = [{"tried": number} for number in range(3)]
    Share(tmp_path, 1, 3).hand_in(results[1])
    lock_file(tmp_path, 2).write_text("of a process that is gone")
    with pytest.raises(InputError, match="^process 2 ended without finishing its part"):
        Share(tmp_path, 0, 3).hand_in(results[0])
    for number in (1, 2):
        Share(tmp_path, number, 3).hand_in(results[number])
    assert Share(tmp_path, 0, 3).hand_in(results[0]) == results
    assert not list(tmp_path.glob("*.done"))
