"""Locks that the system keeps; writing files aside is tested where files are written."""

import errno
import os

import pytest

from sam_jax.files import try_lock


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
