"""Draws how `tiny` learned: the IoU of each pass over the updates of its runs.

    python examples/tiny/curve.py RUN/? --output docs/images/tiny_training.png

Beside the picture it writes the numbers, as JSON. Needs Matplotlib.
"""

import argparse
import json
from pathlib import Path
from typing import Any

PASSES = ("first prompt", "one correction", "two corrections")


def read_runs(folders: list[Path]) -> list[dict[str, Any]]:
    """The metrics of runs, one after the other, with updates counted on."""
    records: list[dict[str, Any]] = []
    for number, folder in enumerate(folders, start=1):
        before = records[-1]["update"] if records else 0
        for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            found = json.loads(line)
            iou = [round(value, 4) for value in found["iou"]]
            records.append({"run": number, "update": before + found["step"], "iou": iou})
    return records


def draw(records: list[dict[str, Any]], path: Path) -> None:
    """A line for each pass, and a rule where a run begins."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    for number, name in enumerate(PASSES):
        # Not a number, and so a gap, where a run has fewer passes.
        iou = [r["iou"][number] if number < len(r["iou"]) else float("nan") for r in records]
        axes.plot([r["update"] for r in records], iou, label=name, linewidth=1.2)
    for one, next_one in zip(records, records[1:], strict=False):
        if one["run"] != next_one["run"]:
            axes.axvline(one["update"], color="0.7", linewidth=0.8, zorder=0)
    axes.set(xlabel="updates of 8 scenes", ylabel="IoU of the most confident mask", ylim=(0, None))
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    records = read_runs(arguments.runs)
    draw(records, arguments.output)
    lines = ",\n".join(json.dumps(record) for record in records)
    arguments.output.with_suffix(".json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
