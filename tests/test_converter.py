"""Other modules named `convert`: found without running them, and told in one line.

Each case runs in a child process, whose Python path is what the case is about.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LOAD = """
from sam_jax.converter import load_converter
try:
    print("loaded", load_converter().OWNER)
except ValueError as error:
    print(error)
"""


def run(folder, code, path=(ROOT,)):
    """What a script in a folder prints; the folder comes first on Python's path."""
    (folder / "script.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    done = subprocess.run(
        # -S: what else is installed, perhaps sam-jax too, has no part in it.
        [sys.executable, "-S", folder / "script.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def assert_told(line, file):
    assert "\n" not in line
    assert f"the module {file} hides sam-jax's own package `convert` ({ROOT / 'convert'})" in line
    assert line.endswith("rename it, or run from another folder")


def users_file(folder):
    (folder / "convert.py").write_text("raise RuntimeError('it was run')")
    return folder / "convert.py"


def users_package(folder):
    (folder / "convert").mkdir()
    (folder / "convert" / "__init__.py").write_text("print('it was run')")
    return folder / "convert"


def users_package_with_our_files(folder):
    """Another copy of ours, perhaps of another version, is not what belongs to this sam_jax."""
    shutil.copytree(ROOT / "convert", folder / "convert")
    return folder / "convert"


def compiled_module(folder):
    import py_compile

    (folder / "source.py").write_text("raise RuntimeError('it was run')")
    py_compile.compile(str(folder / "source.py"), cfile=str(folder / "convert.pyc"))
    return folder / "convert.pyc"


@pytest.mark.parametrize(
    "make", [users_file, users_package, users_package_with_our_files, compiled_module]
)
def test_a_module_that_hides_ours_is_told_and_not_run(tmp_path, make):
    file = make(tmp_path)
    assert_told(run(tmp_path, LOAD), file)


def test_a_module_that_the_program_has_loaded_is_told(tmp_path):
    (tmp_path / "convert.py").write_text("value = 3")
    assert_told(run(tmp_path, f"import convert\n{LOAD}"), tmp_path / "convert.py")


def test_a_module_made_in_memory_is_told(tmp_path):
    made = "import sys, types\nsys.modules['convert'] = types.ModuleType('convert')\n"
    assert "called convert that this program made hides" in run(tmp_path, made + LOAD)


def test_a_plain_folder_does_no_harm_before_ours_and_is_told_where_it_wins(tmp_path):
    (tmp_path / "convert").mkdir()
    (tmp_path / "convert" / "notes.txt").write_text("")
    assert run(tmp_path, LOAD) == "loaded sam-jax"
    # As with editable installs, whose finder comes after the folders of the path.
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sam_jax").symlink_to(ROOT / "sam_jax")
    line = run(tmp_path, LOAD, path=[tmp_path / "site"])
    assert f"the module {tmp_path / 'convert'} hides" in line and "\n" not in line


def installed(tmp_path):
    """A folder like site-packages, with sam_jax and its convert."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sam_jax").symlink_to(ROOT / "sam_jax")
    shutil.copytree(ROOT / "convert", tmp_path / "site" / "convert")
    (tmp_path / "here").mkdir()
    return tmp_path / "site"


def test_another_distribution_that_overwrote_ours_is_named(tmp_path):
    site = installed(tmp_path)
    assert run(tmp_path / "here", LOAD, path=[site]) == "loaded sam-jax"
    (site / "convert" / "__init__.py").write_text("raise RuntimeError('it was run')")
    record = site / "unit_convert-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: unit-convert\nVersion: 1.0\n")
    (record / "RECORD").write_text("convert/__init__.py,,\n")
    line = run(tmp_path / "here", LOAD, path=[site])
    assert line.startswith("sam-jax's own package `convert` was overwritten by another one of")
    assert "unit-convert" in line and "install sam-jax again" in line and "\n" not in line


def test_a_convert_that_is_gone_is_told(tmp_path):
    site = installed(tmp_path)
    shutil.rmtree(site / "convert")
    line = run(tmp_path / "here", LOAD, path=[site])
    assert f"`convert` is not in {site}; install sam-jax again" in line


def test_inference_and_every_front_end_work_or_say_so_beside_a_users_convert(tmp_path):
    file = users_file(tmp_path)
    code = """
import sam_jax
from sam_jax import compat
from sam_jax.cli.main import main
import sam_jax.train.loop.loop, sam_jax.train.tuning.tune, sam_jax.train.mae.pretrain
params = sam_jax.load_params("tiny")
sam = compat.sam_model_registry["tiny"]()
for do in (sam.state_dict, lambda: compat.load_sam("model.pth")):
    try: do(); print("no error")
    except sam_jax.InputError as error: print(error)
for args in (
    ["convert", "model.pth", "out"], ["convert", "tiny", "out.pth"], ["info", "model.pth"],
    ["download", "vit_b", "--url", "http://127.0.0.1:9/x"], ["bench", "--model", "vit_b"],
):
    try: main(args)
    except SystemExit as end: assert end.code == 2, args
main(["info", "tiny"])
"""
    (tmp_path / "model.pth").write_bytes(b"PK\x03\x04")
    (tmp_path / "cli.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "cli.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SAM_JAX_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert_told(lines[0], file)
    assert_told(lines[1], file)
    assert "model        Segment Anything (SAM 1), tiny" in lines
    errors = done.stderr.splitlines()
    assert len(errors) == 5, done.stderr
    for line in errors:
        assert_told(line.removeprefix("error: "), file)
    assert not (tmp_path / "cache").exists()
