"""A small model that starts from nothing learns to segment scenes it has not seen."""

import importlib
import sys
from pathlib import Path

import pytest

from sam_jax.train.config import config_from_values, read_values


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    yield importlib.import_module("learn_scenes")
    sys.modules.pop("learn_scenes", None)


@pytest.mark.exhaustive
def test_it_learns_in_minutes(script, tmp_path):
    config = config_from_values(read_values(str(script.RECIPE)))
    found = script.learned(config, tmp_path / "run", scenes=100)
    trained = found["trained"]
    # docs/training.md has 0.357 and 0.532. Another processor rounds otherwise, and after so many
    # updates that is another model: runs of like recipes differed by 0.02 here.
    assert trained["click_1"] > 0.32 and trained["box"] > 0.47, found
    for name in ("click_1", "click_1_oracle", "box"):
        assert trained[name] > found["untrained"][name] + 0.15, found
    assert trained["click_1"] > found["flood-fill"]["click_1"] + 0.03, found
