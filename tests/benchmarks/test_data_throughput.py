"""The measurement of the data pipeline runs, on two photos."""

import importlib
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    yield importlib.import_module("data_throughput")
    sys.modules.pop("data_throughput", None)


def test_it_tells_images_a_second(script, monkeypatch):
    monkeypatch.setattr(script, "SIZE_HW", (150, 225))
    args = "--workers 0 --images 2 --masks 3 --max-masks 2 --batch-size 1 --rounds 1".split()
    done = CliRunner().invoke(script.main, args, catch_exceptions=False)
    assert done.exit_code == 0 and done.output.startswith("2 images of ")
    assert re.search(r"^0 workers: [0-9.]+ images a second .* ms of CPU time", done.output, re.M)
