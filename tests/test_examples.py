"""Every example runs as a person would run it, and says what it should."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SAYS = {
    "points_and_boxes.py": "after a background click",
    "ragged_batch.py": "prompt 1",
    "automatic_masks.py": "masks written to",
    "saved_embeddings.py": "the same masks: True",
    "pure_functions.py": "step 4",
    "fine_tune.py": "after: mean IoU",
}
# What of an example is enough to see that it runs, and what it needs beside the library.
ARGUMENTS = {"fine_tune.py": ["--steps", "2"]}
NEEDS = {"fine_tune.py": ("grain", "skimage")}
SLOW = {"fine_tune.py"}


@pytest.fixture
def examples(monkeypatch, tmp_path):
    """A folder of the examples' own: they may write files."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in SAYS]
)
def test_example_runs(name, examples, monkeypatch, capsys):
    for package in NEEDS.get(name, ()):
        pytest.importorskip(package)
    monkeypatch.setattr(sys, "argv", [name, *ARGUMENTS.get(name, [])])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    assert SAYS[name] in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("many_devices.py", "--model", "2"), ("4 parts of a batch, 2 devices", "masks in all")),
        (("pmap.py",), ("device 0: predicted IoU", "device 7: predicted IoU")),
    ],
)
def test_example_runs_on_eight_devices(words, says, examples):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, f"examples/{words[0]}", *words[1:]],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(text in done.stdout for text in says)
