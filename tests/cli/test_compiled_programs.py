"""Compiled programs are kept for the next run, and can never stop one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sam_jax.cli.compiled_programs import compiled_folder, keep_compiled_programs

ROOT = Path(__file__).parents[2]
FOLDER, SECONDS = "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


@pytest.fixture
def segment(checkpoint):
    """A process of `sam-jax segment` that keeps whatever it compiles."""

    def run(**environment):
        given = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
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


def test_programs_are_kept_and_looked_up_and_damaged_ones_do_no_harm(segment, tmp_path):
    cache = tmp_path / "mine"
    first = segment(SAM_JAX_CACHE=str(cache))
    assert (first.returncode, first.stderr) == (0, "")
    entries = {path.name.split("-")[0]: path for path in cache.rglob("*-cache")}
    assert {"jit_encode", "jit__decode"} <= set(entries)
    encode = entries["jit_encode"]
    assert encode.parent.parent == cache / "compiled"
    encode.write_bytes(encode.read_bytes()[:1000])
    again = segment(SAM_JAX_CACHE=str(cache))
    assert (again.returncode, again.stderr, again.stdout) == (0, "", first.stdout)
    # JAX can be told to fail where it would only compile again: the entry was read, then.
    strict = segment(SAM_JAX_CACHE=str(cache), JAX_RAISE_PERSISTENT_CACHE_ERRORS="1")
    assert strict.returncode == 1 and "decompress" in strict.stderr


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
