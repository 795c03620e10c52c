"""Locks that the system keeps; files that are none. Others are tested where they are written."""

import errno
import os
import stat
import threading

import pytest

from sam_jax.files import try_lock, written_aside


def test_a_lock_is_one_holders_and_free_when_its_file_is_closed(tmp_path):
    with open(tmp_path / "lock", "ab") as first, open(tmp_path / "lock", "ab") as second:
        assert try_lock(first)
        assert not try_lock(second)
        first.close()
        assert try_lock(second)


def test_without_locks_nothing_is_taken(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def failing(number):
        def flock(*_):
            raise OSError(number, os.strerror(number))

        return flock

    with open(tmp_path / "lock", "ab") as file:
        for number in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            monkeypatch.setattr(fcntl, "flock", failing(number))
            assert try_lock(file)
        monkeypatch.setattr(fcntl, "flock", failing(errno.EIO))
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            try_lock(file)


def test_a_pipe_is_written_to_and_stays(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    found = []
    reader = threading.Thread(target=lambda: found.append(path.read_bytes()), daemon=True)
    reader.start()
    with written_aside(path) as file:
        file.write(b"content")
    reader.join(30)
    assert found == [b"content"] and stat.S_ISFIFO(path.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


@pytest.mark.parametrize("there", [True, False])
def test_what_a_link_leads_to_is_written(tmp_path, there):
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    if there:
        target.write_bytes(b"before")
    with pytest.raises(ValueError, match="stopped"), written_aside(link):
        raise ValueError("stopped")
    assert not there or target.read_bytes() == b"before"
    with written_aside(link) as file:
        file.write(b"content")
    assert link.is_symlink() and target.read_bytes() == b"content"
    assert sorted(os.listdir(tmp_path)) == ["link", "target"]


def test_a_device_stays_a_device(tmp_path):
    link = tmp_path / "null"
    link.symlink_to(os.devnull)
    with written_aside(link) as file:
        file.write(b"content")
    assert link.is_symlink() and stat.S_ISCHR(os.stat(os.devnull).st_mode)
