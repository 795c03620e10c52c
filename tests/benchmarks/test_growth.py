"""The growth script's command line; its measurements take too long for a test."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "growth.py"


@pytest.mark.parametrize("rounds", ["0", "-1", "few"])
def test_no_readings_are_refused_before_the_work(rounds, monkeypatch, capsys, tmp_path):
    output = tmp_path / "images"
    words = ["growth.py", "--curve", "devices", "--rounds", rounds, "--output", str(output)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 2 and "is no positive number" in capsys.readouterr().err
    assert not output.exists()
