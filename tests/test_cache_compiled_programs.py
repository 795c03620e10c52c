"""One call keeps compiled programs for the next Python process, as the command does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sam_jax import InputError, cache_compiled_programs
from sam_jax.inference import program_cache as compiled_programs

ROOT = Path(__file__).parents[1]
# Compiles one program before the call and one after it, and says what was read from the cache.
PROGRAM = """
import sys
import jax, jax.numpy as jnp
import sam_jax

def before(x): return jnp.sin(x) @ x + 1
def after(x): return jnp.cos(x) @ x + 2

jax.jit(before)(jnp.ones((3, 3))).block_until_ready()
read = []
jax.monitoring.register_event_listener(
    lambda event, **_: read.append(event.rsplit("/", 1)[-1]) if "cache_hits" in event else None
)
print(sam_jax.cache_compiled_programs(*sys.argv[1:]))
jax.jit(after)(jnp.ones((3, 3))).block_until_ready()
print(len(read))
"""


def run(*arguments, **environment):
    given = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "SAM_JAX"))}
    given |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    given["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:__main__", "-c", PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**given, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    folder, hits = done.stdout.split("\n")[:2]
    return Path(folder), int(hits), done.stderr


def test_the_next_process_reads_what_one_compiled_and_damaged_entries_are_replaced(tmp_path):
    default, hits, _ = run(SAM_JAX_CACHE=str(tmp_path / "cache"))
    assert hits == 0 and default.parent == tmp_path / "cache" / "compiled"
    # A folder that is asked for comes before one that JAX was told to use.
    folder, hits, _ = run(tmp_path / "mine", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "told"))
    assert hits == 0 and folder.parent == tmp_path / "mine"
    assert run(tmp_path / "mine")[:2] == (folder, 1)
    [entry] = folder.glob("jit_after-*-cache")
    entry.write_bytes(entry.read_bytes()[:100])
    assert run(tmp_path / "mine") == (folder, 0, "")
    assert entry.stat().st_size > 1000


def test_a_folder_that_jax_was_told_to_use_stays(tmp_path):
    told = tmp_path / "told"
    assert run(JAX_COMPILATION_CACHE_DIR=str(told))[0] == told


def test_only_programs_are_removed_from_a_folder_of_the_users(tmp_path):
    folder = tmp_path / "some processor"
    folder.mkdir()
    for name in ("jit_f-0-cache", "letter.txt"):
        (folder / name).write_bytes(bytes(100))
    compiled_programs._remove_least_used(tmp_path, 50, "*-cache")
    assert [path.name for path in folder.iterdir()] == ["letter.txt"]


def test_a_folder_without_a_name_is_refused():
    with pytest.raises(InputError, match="folder's name is empty"):
        cache_compiled_programs("")


def test_a_folder_that_cannot_be_made_is_said_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file cannot keep programs: Not a directory") as caught:
        cache_compiled_programs(tmp_path / "file")
    assert "\n" not in str(caught.value)
