"""Peak memory of automatic generation as the grid grows: 16, 32 and 64 points a side.

    python benchmarks/generate_memory.py [--model tiny|vit_b] [--image PHOTO]

Each grid runs in a process of its own. What counts is the growth from grid to grid, beside what the
RLE of the masks takes that pass the filters. With --loose nearly all do, as no setting that anybody
uses lets them. ViT-B has random weights, and always loose filters.

The second peak is of a process whose C library gives freed memory back at once (glibc). By default
it keeps some for later, the more the longer a process lives, which is no growth of what is in use.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

PHOTO = Path(__file__).parents[1] / "examples" / "photos" / "coffee.jpg"
GRIDS = (16, 32, 64)
# For the model in the package about what the released defaults are for the released models.
USUAL = {"pred_iou_thresh": 0.3, "stability_score_thresh": 0.6}
LOOSE = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 0.9}


def measure(model: str, image: str, points_per_side: int, loose: bool) -> None:
    import jax
    import numpy as np

    from sam_jax import VIT_B, Segmenter
    from sam_jax.models.sam.sam import variable_shapes

    if model == "vit_b":
        rng = np.random.default_rng(0)
        params = jax.tree.map(
            lambda leaf: 0.05 * rng.standard_normal(leaf.shape, np.float32), variable_shapes(VIT_B)
        )
        segmenter = Segmenter(VIT_B, params)
    else:
        segmenter = Segmenter.load(model)
    masks = segmenter.generate_masks(
        image,
        points_per_side=points_per_side,
        **(LOOSE if loose or model == "vit_b" else USUAL),
    )
    runs = sum(len(runs.rle["counts"]) for runs in masks.candidates.runs)
    report = masks.report
    passed = report["kept"] + report["duplicates in a crop"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak": peak, "passed": passed, "kept": len(masks), "runs": runs}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny", choices=["tiny", "vit_b"])
    parser.add_argument("--image", default=str(PHOTO))
    parser.add_argument("--loose", action="store_true", help="let nearly every mask pass")
    parser.add_argument("--points-per-side", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.points_per_side:
        measure(arguments.model, arguments.image, arguments.points_per_side, arguments.loose)
        return
    print(f"{arguments.model}, {arguments.image}")
    print("points a side | pass the filters | kept | their RLE, MB | peak, MB | peak, returning")
    returning = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072"}
    for grid in GRIDS:
        command = [sys.executable, __file__, "--model", arguments.model, "--image", arguments.image]
        command += ["--loose"] if arguments.loose else []
        peaks = []
        for settings in ({}, returning):
            done = subprocess.run(
                [*command, "--points-per-side", str(grid)],
                env={**os.environ, **settings},
                check=True,
                capture_output=True,
                text=True,
            )
            found = json.loads(done.stdout.splitlines()[-1])
            peaks.append(f"{found['peak'] / 1e6:.0f}")
        numbers = [
            str(grid),
            str(found["passed"]),
            str(found["kept"]),
            f"{found['runs'] / 1e6:.2f}",
        ]
        print(" | ".join([*numbers, *peaks]), flush=True)


if __name__ == "__main__":
    main()
