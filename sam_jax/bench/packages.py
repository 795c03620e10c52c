"""The tasks that packages are compared in, and what each package has to be able to do."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

# Points a side of the grid that `generate` asks.
POINTS_PER_SIDE = 32


@runtime_checkable
class Package(Protocol):
    """One package's model, ready to run; every call returns when its results are there.

    Attributes:
      name: as in the table.
      device: where it runs.
    """

    name: str
    device: str

    def encode(self) -> Any:
        """Embeds `random_input`."""

    def decode(self, count: int) -> Any:
        """Low-resolution logits, three masks each, of `random_points(count)` on that embedding."""

    def generate(self) -> list[dict[str, Any]]:
        """Records of all masks of a photo, its encoding included."""


# Tasks that run within one process, by their names on the command line.
TASKS: Mapping[str, Callable[[Package], Any]] = {
    "encoder": lambda package: package.encode(),
    "prompts-64": lambda package: package.decode(64),
    "prompt-1": lambda package: package.decode(1),
    "generate": lambda package: package.generate(),
}


def random_input(side: int) -> Float32[np.ndarray, "1 {side} {side} 3"]:
    """A normalized image."""
    return np.random.default_rng(0).standard_normal((1, side, side, 3), np.float32)


def random_points(count: int, side: int) -> Float32[np.ndarray, "{count} 1 2"]:
    """One point for each prompt, (x, y) in the model's frame."""
    return np.random.default_rng(1).uniform(0, side, (count, 1, 2)).astype(np.float32)
