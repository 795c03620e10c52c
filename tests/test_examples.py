"""Every example runs as a person would run it, and says what it should."""

import runpy
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
    "many_devices.py": "masks in all",
    "pmap.py": "device 0: predicted IoU",
    "fine_tune.py": "after: mean IoU",
}
# What of an example is enough to see that it runs, and what it needs beside the library.
ARGUMENTS = {"fine_tune.py": ["--steps", "2"]}
NEEDS = {"fine_tune.py": ("grain", "skimage")}


@pytest.mark.parametrize("name", SAYS)
def test_example_runs(name, monkeypatch, capsys, tmp_path):
    for package in NEEDS.get(name, ()):
        pytest.importorskip(package)
    # In a folder of its own: an example may write files.
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *ARGUMENTS.get(name, [])])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    assert SAYS[name] in capsys.readouterr().out
