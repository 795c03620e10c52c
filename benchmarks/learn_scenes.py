"""How well a small model segments unseen scenes after a few minutes of training from nothing.

    python benchmarks/learn_scenes.py [--steps 1800] [--scenes 100] [--output DIR]

Trains as examples/learn_scenes.toml says and prints a table: mean IoU on scenes that no run draws,
of the same kind, for one click in the object's center and for its box; the most confident of three
masks, and the best of them. Beside it the same model with random parameters, and what needs no
model: flood fill from the click, and the filled box.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from sam_jax import Segmenter
from sam_jax.data.scenes.scene_set import SceneSet
from sam_jax.evaluate.selection import SelectedImages, Selection
from sam_jax.evaluate.tasks import MODEL, TaskOptions, make_tasks
from sam_jax.train.config import config_from_values, read_values
from sam_jax.train.jobs import random_variables
from sam_jax.train.options import TrainConfig
from sam_jax.train.runs import train_run

RECIPE = Path(__file__).parents[1] / "examples/learn_scenes.toml"
MEASURES = ("click_1", "click_1_oracle", "box", "box_oracle")


def learned(config: TrainConfig, folder: Path, scenes: int) -> dict[str, dict[str, float]]:
    """Mean IoU by measure, of the trained model, an untrained one, and what needs none."""
    model = train_run(config, folder)
    architecture = config.sam
    side = config.data.image_size or architecture.image_size
    options = replace(config.scenes, image_size=side, masks=config.data.max_masks)
    unseen = SceneSet(options, scenes)
    baselines = ("flood-fill", "filled-box")
    found = _means(Segmenter.load(model), unseen, baselines)
    random = Segmenter(architecture, random_variables(architecture, seed=1))
    return {
        "trained": found[MODEL],
        "untrained": _means(random, unseen)[MODEL],
        **{name: found[name] for name in baselines},
    }


def _means(
    segmenter: Segmenter, unseen: SceneSet, baselines: tuple[str, ...] = ()
) -> dict[str, dict[str, float]]:
    tasks = make_tasks(("points", "boxes"), TaskOptions(clicks=(1,), baselines=baselines))
    for image in SelectedImages(unseen, Selection(), segmenter):
        for task in tasks.values():
            task.add(image)
    found: dict[str, dict[str, float]] = {}
    for task in tasks.values():
        for name, means in task.values()["mean_iou"].items():
            found.setdefault(name, {}).update(means)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, help="updates, instead of the recipe's")
    parser.add_argument("--scenes", type=int, default=100, help="to evaluate on")
    parser.add_argument("--output", type=Path, help="folder of the run; the same again goes on")
    args = parser.parse_args()
    changes = [f"optimizer.steps={args.steps}"] if args.steps else []
    config = config_from_values(read_values(str(RECIPE), changes))
    with tempfile.TemporaryDirectory() as temporary:
        rows = learned(config, args.output or Path(temporary) / "run", args.scenes)
    print("| mean IoU | " + " | ".join(name.replace("_", " ") for name in MEASURES) + " |")
    print("|---" * (len(MEASURES) + 1) + "|")
    for name, means in rows.items():
        cells = [f"{means[m]:.3f}" if m in means else "" for m in MEASURES]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
