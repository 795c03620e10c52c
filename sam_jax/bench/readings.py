"""Readings taken in turn, and the few numbers that stand for many."""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Summary:
    """The middle of some readings, the least and the greatest."""

    median: float
    least: float
    greatest: float


def summary(values: Sequence[float]) -> Summary:
    """Median and spread of at least one reading."""
    return Summary(statistics.median(values), min(values), max(values))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Summary:
    """Our readings over another's of the same rounds.

    Its median is our median over theirs; least and greatest are of the ratios within each round,
    where both had the same company on the machine.
    """
    within = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    middle = statistics.median(ours) / statistics.median(theirs)
    return Summary(middle, min(within), max(within))


def seconds(call: Callable[[], Any]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def in_turn(
    sources: Mapping[Name, Callable[[], float]],
    rounds: int,
    done: Callable[[], None] = lambda: None,
) -> dict[Name, list[float]]:
    """Readings of several sources: in every round, one of each.

    Args:
      sources: by name; each call gives a reading.
      rounds: how many.
      done: called after each reading.
    """
    readings: dict[Name, list[float]] = {name: [] for name in sources}
    for _ in range(rounds):
        for name, read in sources.items():
            readings[name].append(read())
            done()
    return readings
