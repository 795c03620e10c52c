"""Puts a trained `tiny` into the package: half precision, thresholds for `generate`, hashes.

    python examples/tiny/ship.py RUN/model

The thresholds are those that suit this model (docs/model_card_tiny.md). How many updates it had is
read from the folders of its runs, beside the model's own.
"""

import argparse
import json
from pathlib import Path

import jax.numpy as jnp

from sam_jax.checkpoints.native import load_checkpoint, save_checkpoint
from sam_jax.configs import TINY
from sam_jax.files import file_sha256

WEIGHTS = Path(__file__).parents[2] / "sam_jax" / "weights"
# Its scores are lower than those of the official models, which the usual thresholds are for.
GENERATE = {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.7, "min_mask_region_area": 100}


def updates_of(runs: Path) -> list[int]:
    """The last update of each run, in order."""
    logs = [folder / "metrics.jsonl" for folder in sorted(runs.iterdir()) if folder.is_dir()]
    last = [log.read_text(encoding="utf-8").splitlines()[-1] for log in logs if log.is_file()]
    return [json.loads(line)["step"] for line in last]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    arguments = parser.parse_args()
    trained = load_checkpoint(arguments.model)
    if trained.config != TINY:
        parser.error(f"{arguments.model} has another configuration than sam_jax.TINY")
    source = {
        "trained_with": "examples/tiny/train.sh",
        "updates": updates_of(arguments.model.parent),
    }
    save_checkpoint(
        WEIGHTS / TINY.name,
        TINY,
        trained.params,
        source,
        dtype=jnp.float16,
        overwrite=True,
        generate=GENERATE,
    )
    files = sorted(path for path in WEIGHTS.rglob("*") if path.is_file())
    lines = [
        f"{file_sha256(path)}  {path.relative_to(WEIGHTS).as_posix()}\n"
        for path in files
        if path.name != "SHA256SUMS"
    ]
    (WEIGHTS / "SHA256SUMS").write_text("".join(lines), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
