"""What was measured, as values for JSON and as tables for people."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sam_jax.bench.readings import Summary, ratio, summary

# What the table calls a task, and the unit of its readings.
TITLES = {
    "encoder": ("image encoder", "s"),
    "prompts-64": ("64 prompts", "s"),
    "prompt-1": ("1 prompt", "s"),
    "generate": ("generate", "s"),
    "first-mask": ("first mask from a cold start", "s"),
    "memory": ("peak memory of encoding", "GB"),
    "device-memory": ("peak memory of the accelerator", "GB"),
}


@dataclass(frozen=True)
class Measured:
    """The readings of a task.

    Attributes:
      task: a key of `TITLES`.
      readings: by package; ours come first. Those of one round have the same place.
      notes: more that belongs to them, JSON values by name.
    """

    task: str
    readings: Mapping[str, Sequence[float]]
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def ratio(self, package: str) -> Summary:
        """Our readings over a package's."""
        ours = next(iter(self.readings.values()))
        return ratio(ours, self.readings[package])

    def as_json(self) -> dict[str, Any]:
        """All readings with their summaries and ratios."""
        values = {}
        for package, readings in self.readings.items():
            entry = {"readings": list(readings), **dataclasses.asdict(summary(readings))}
            values[package] = {**entry, "ours_over_it": dataclasses.asdict(self.ratio(package))}
        return {"unit": TITLES[self.task][1], "packages": values, **self.notes}


def table(measured: Sequence[Measured]) -> list[str]:
    """Lines of a Markdown table: a row for each task and package."""
    lines = [
        "| | package | median | least to greatest | ours over it | in single rounds |",
        "|---|---|---|---|---|---|",
    ]
    for one in measured:
        title, unit = TITLES[one.task]
        for place, (package, readings) in enumerate(one.readings.items()):
            found = summary(readings)
            spread = f"{found.least:.3f} to {found.greatest:.3f}" if len(readings) > 1 else ""
            cells = [f"{title}, {unit}", package, f"{found.median:.3f}", spread, "", ""]
            if place:
                over = one.ratio(package)
                cells[4] = f"{over.median:.2f}"
                if len(readings) > 1:
                    cells[5] = f"{over.least:.2f} to {over.greatest:.2f}"
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def stage_table(stages: Mapping[str, Sequence[Mapping[str, float]]]) -> list[str]:
    """Lines of a Markdown table: medians of the stages up to a first mask, for each package.

    Args:
      stages: seconds of each stage, one mapping a round, by package.
    """
    names = list(next(iter(stages.values()))[0])
    lines = ["| median, s | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for package, rounds in stages.items():
        medians = [summary([one[name] for one in rounds]).median for name in names]
        lines.append(f"| {package} | " + " | ".join(f"{m:.3f}" for m in medians) + " |")
    return lines
