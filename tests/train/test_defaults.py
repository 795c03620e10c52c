"""What a configuration of tuning leaves out suits a CPU; what it says stays."""

import pytest

from sam_jax.train import defaults
from sam_jax.train.config import config_from_values

TUNE = {
    "model": {"name": "tiny", "checkpoint": "tiny"},
    "data": {"path": "photos"},
    "tune": {"method": "decoder"},
}


def test_tuning_takes_few_passes_and_masks():
    config = config_from_values(TUNE)
    assert (config.data.batch_size, config.data.max_masks) == (4, 4)
    assert (config.simulation.correction_points, config.simulation.mask_only_passes) == (1, 0)
    assert (config.optimizer.steps, config.optimizer.schedule) == (100, "cosine")
    assert (config.model.dtype, config.model.drop_path) == ("float32", 0.0)


def test_what_is_given_stays():
    given = {
        **TUNE,
        "data": {"path": "photos", "max_masks": 64, "workers": 3},
        "simulation": {"correction_points": 8},
        "optimizer": {"decay_steps": [50]},
    }
    config = config_from_values(given)
    assert (config.data.max_masks, config.data.workers, config.data.batch_size) == (64, 3, 4)
    assert config.simulation.correction_points == 8
    assert (config.optimizer.schedule, config.optimizer.decay_steps) == ("step", (50,))


def test_without_the_table_the_papers_numbers_stay():
    config = config_from_values({name: TUNE[name] for name in ("model", "data")})
    assert (config.data.batch_size, config.data.max_masks) == (256, 64)
    assert (config.simulation.correction_points, config.optimizer.steps) == (8, 90_000)


@pytest.mark.parametrize("cores, expected", [(1, 0), (2, 1), (4, 3), (64, 8)])
def test_readers_are_fewer_than_cores(monkeypatch, cores, expected):
    monkeypatch.setattr(defaults.os, "sched_getaffinity", lambda _: set(range(cores)))
    assert defaults.reader_processes() == expected
    assert config_from_values(TUNE).data.workers == expected
