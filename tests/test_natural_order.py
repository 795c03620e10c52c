"""Names come in the order of the numbers in them."""

import random
from pathlib import Path

import pytest

from sam_jax.natural_order import in_order, names_in_order


@pytest.mark.parametrize(
    "names",
    [
        ["0", "9", "10", "100"],
        ["t0.25", "t0.5", "t1", "t2.0", "t10"],
        ["0.0", "0.04", "0.08", "0.1", "0.12"],
        ["-10", "-2", "-1.5", "0", "3"],
        ["t-1", "t0", "t1"],
        ["t_-2", "t_-1", "t_0"],
        ["frame-1", "frame-2", "frame-10"],
        ["2024-01-01_12-30-58", "2024-01-01_12-31-02", "2024-01-02_00-00-00"],
        ["2024.01.09", "2024.01.10", "2024.02.01"],
        ["1305031102.175304", "1305031102.975304", "1305031103.011690"],
        ["01", "1", "001a", "2"],
        ["shot1.9", "shot1.10", "shot1.11", "shot2.1"],
        ["shot1.99", "shot1.100"],
        ["frame_1_640x480", "frame_2_640x480", "frame_10_640x480"],
        ["a", "b1", "b2", "b10", "c"],
        ["bild 3 ü", "bild 20 ü", "bild ü 1"],
        ["٣", "٧", "٢٠"],
    ],
)
def test_numbers_count_as_numbers(names):
    for seed in range(5):
        mixed = random.Random(seed).sample(names, len(names))
        assert names_in_order(mixed) == names
        files = [Path("folder", f"{name}.png") for name in mixed]
        assert [path.stem for path in in_order(files)] == names
