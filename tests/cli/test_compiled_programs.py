"""Compiled programs are kept for the next run, and can never stop one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sam_jax.inference import program_cache as compiled_programs
from sam_jax.inference.program_cache import (
    compiled_folder,
    forget_damaged,
    keep_compiled_programs,
)

ROOT = Path(__file__).parents[2]
QUICK = "JAX_DISABLE_MOST_OPTIMIZATIONS"
FOLDER, SECONDS = "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


@pytest.fixture
def segment(checkpoint):
    """A process of `sam-jax segment` that keeps whatever it compiles."""

    def run(**environment):
        given = {k: v for k, v in os.environ.items() if not k.startswith("JAX_") or k == QUICK}
        given |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", SECONDS: "0"}
        code = "from sam_jax.cli.main import main; main()"
        arguments = ["segment", "photo.png", "--point", "30,20", "--checkpoint", str(checkpoint)]
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            env={**given, **environment},
            check=False,
        )

    return run


@pytest.mark.slow
def test_programs_are_kept_and_looked_up_and_damaged_ones_are_replaced(segment, tmp_path):
    cache = tmp_path / "mine"
    first = segment(SAM_JAX_CACHE=str(cache))
    assert (first.returncode, first.stderr) == (0, "")
    entries = {path.name.split("-")[0]: path for path in cache.rglob("*-cache")}
    assert {"jit_encode", "jit__decode"} <= set(entries)
    encode = entries["jit_encode"]
    assert encode.parent.parent == cache / "compiled"
    encode.write_bytes(encode.read_bytes()[:1000])
    # JAX can be told to fail where it would only compile again: the entry is read, then.
    strict = segment(SAM_JAX_CACHE=str(cache), JAX_RAISE_PERSISTENT_CACHE_ERRORS="1")
    assert strict.returncode == 1 and "decompress" in strict.stderr
    again = segment(SAM_JAX_CACHE=str(cache))
    assert (again.returncode, again.stderr, again.stdout) == (0, "", first.stdout)
    assert encode.stat().st_size > 1000
    strict = segment(SAM_JAX_CACHE=str(cache), JAX_RAISE_PERSISTENT_CACHE_ERRORS="1")
    assert (strict.returncode, strict.stderr, strict.stdout) == (0, "", first.stdout)


def test_only_entries_that_the_warning_names_are_removed(monkeypatch, tmp_path):
    monkeypatch.setenv("SAM_JAX_CACHE", str(tmp_path))
    folder = compiled_folder()
    folder.mkdir(parents=True)
    for name in ("jit_f-0-cache", "jit_f-1-cache", "jit_f_g-0-cache"):
        (folder / name).touch()
    warning = "Error reading persistent compilation cache entry for 'jit_f': Error: cut short"
    monkeypatch.setenv(FOLDER, str(tmp_path / "the user's"))
    assert forget_damaged(warning) and len([*folder.iterdir()]) == 3
    monkeypatch.setenv(FOLDER, str(folder))
    assert not forget_damaged("Something else") and len([*folder.iterdir()]) == 3
    assert forget_damaged(warning)
    assert [path.name for path in folder.iterdir()] == ["jit_f_g-0-cache"]


def test_what_was_not_used_for_long_goes_where_there_is_too_much(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "jax")
    monkeypatch.setenv("SAM_JAX_CACHE", str(tmp_path))
    monkeypatch.setenv(SECONDS, "0")
    monkeypatch.setattr(compiled_programs, "_MAX_BYTES", 1000)
    folder = compiled_folder()
    folder.mkdir(parents=True)
    (folder.parent / "another").mkdir()
    read, old, new = folder / "read", folder.parent / "another" / "old", folder / "new"
    # Of the two that were written first, one was read again since.
    for path, size, times in ((read, 100, (300, 100)), (old, 600, (200, 200)), (new, 300, None)):
        path.write_bytes(bytes(size))
        os.utime(path, times)

    def kept():
        monkeypatch.delenv(FOLDER, raising=False)
        keep_compiled_programs()
        return {path for path in (read, old, new) if path.exists()}

    assert kept() == {read, old, new}
    new.write_bytes(bytes(301))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_MAX_SIZE", "5")
    assert kept() == {read, old, new}  # JAX's affair
    monkeypatch.delenv("JAX_COMPILATION_CACHE_MAX_SIZE")
    assert kept() == {read, new}
    new.write_bytes(bytes(901))
    assert kept() == set()


@pytest.mark.slow
def test_a_folder_that_cannot_be_used_does_no_harm(segment, tmp_path):
    (tmp_path / "file").touch()
    done = segment(SAM_JAX_CACHE=str(tmp_path / "file"))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_users_own_choice_stays(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "jax")
    monkeypatch.setenv(FOLDER, "chosen")
    monkeypatch.delenv(SECONDS, raising=False)
    keep_compiled_programs()
    assert os.environ[FOLDER] == "chosen" and SECONDS not in os.environ


def test_a_program_that_uses_jax_already_is_left_alone(monkeypatch):
    monkeypatch.delenv(FOLDER)
    keep_compiled_programs()
    assert FOLDER not in os.environ


def test_another_processor_has_another_folder(monkeypatch, tmp_path):
    here = compiled_folder()
    assert here == compiled_folder()
    monkeypatch.setattr("platform.machine", lambda: "another")
    assert compiled_folder() != here and compiled_folder().parent == here.parent
