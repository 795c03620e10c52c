"""How well a model segments real photographs, whose objects were outlined by hand.

    python benchmarks/outlined_objects.py [--checkpoint tiny] [--extra-images DIR]
        [--json FILE] [--sheet FILE.png]

The photographs are in other packages (`benchmarks/outlined/README.md`); those of packages that are
not installed are left out, and said so. Prints mean IoU over the objects after clicks and from the
object's box, as `sam-jax evaluate` measures it, beside what can be had without a model. The first
click is in the object's center; "random click" is the mean of five others, anywhere in the object.
Best of three is of the masks of a model, or of flood fill's three tolerances. Under the table is
how well the predicted IoU of all masks after the first click ranks them.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from outlined.pictures import OutlinedPictures
from outlined.sheet import Sheet
from scipy.stats import spearmanr

from sam_jax import Segmenter
from sam_jax.errors import InputError
from sam_jax.evaluate.clicks import centre_point
from sam_jax.evaluate.interactive import mask_iou
from sam_jax.evaluate.selection import EvaluatedImage, SelectedImages, Selection
from sam_jax.evaluate.tables import MODEL, table_lines
from sam_jax.evaluate.tasks import BASELINES, TaskOptions, make_tasks
from sam_jax.files import written_aside

CLICKS = (1, 3, 5)
RANDOM_CLICKS = 5
COLUMNS = {
    "click_1": "1 click",
    "click_1_oracle": "1 click, best of three",
    "random_click": "random click",
    "click_3": "3 clicks",
    "click_5": "5 clicks",
    "box": "box",
    "box_oracle": "box, best of three",
}

# Values of all objects by method and measure.
Found = dict[str, dict[str, list[float]]]


def measured(images: SelectedImages, data: OutlinedPictures, sheet: Sheet | None) -> dict[str, Any]:
    """IoU of every object by method and measure, their names, and the rank correlation."""
    first = TaskOptions(CLICKS, baselines=tuple(BASELINES))
    random = [TaskOptions((1,), True, seed, ("flood-fill",)) for seed in range(RANDOM_CLICKS)]
    tasks = list(make_tasks(("points", "boxes"), first).values())
    drawn = [make_tasks(("points",), options)["points"] for options in random]
    names, predicted, real = [], [], []
    for image in images:
        for task in (*tasks, *drawn):
            task.add(image)
        of_image = [data.pictures[image.index].objects[number].name for number in image.objects]
        names += [(image.name, name) for name in of_image]
        scores, ious = _three_masks(image)
        predicted += scores
        real += ious
        if sheet is not None:
            sheet.add(image, of_image)
    found: Found = {}
    for column, values in {**tasks[0].columns(), **tasks[1].columns()}.items():
        method, measure, *other = column.split()
        if not other:
            found.setdefault(method, {})[measure] = values
    columns = [task.columns() for task in drawn]
    for method in (MODEL, "flood-fill"):
        each = np.array([of_task[f"{method} click_1"] for of_task in columns])
        found[method]["random_click"] = each.mean(axis=0).tolist()
    ranked = float(spearmanr(predicted, real).statistic)
    return {"objects": names, "found": found, "rank_correlation": ranked}


def _three_masks(image: EvaluatedImage) -> tuple[list[float], list[float]]:
    """Predicted and real IoU of all masks after a click in the center."""
    truths = [image.mask(place) for place in range(len(image.objects))]
    points = np.array([[centre_point(truth)] for truth in truths], np.float32)
    labels = np.ones(points.shape[:2], np.int32)
    prediction = image.segmenter.predict(image.embedding, points=points, labels=labels)
    real = [
        mask_iou(prediction.mask(place, index), truth)
        for place, truth in enumerate(truths)
        for index in range(prediction.scores.shape[1])
    ]
    return np.ravel(prediction.scores).tolist(), real


def lines(found: Found) -> list[str]:
    """A table of means: a row for each method."""
    rows = [
        [name, *(float(np.mean(of[one])) if one in of else None for one in COLUMNS)]
        for name, of in found.items()
    ]
    return table_lines(["mean IoU", *COLUMNS.values()], rows)


def _values(results: dict[str, Any], segmenter: Segmenter, checkpoint: str) -> dict[str, Any]:
    found: Found = results["found"]
    means = {
        name: {measure: float(np.mean(values)) for measure, values in of.items()}
        for name, of in found.items()
    }
    objects = [
        {
            "picture": picture,
            "object": name,
            "iou": {
                method: {measure: values[place] for measure, values in of.items()}
                for method, of in found.items()
            },
        }
        for place, (picture, name) in enumerate(results["objects"])
    ]
    return {
        "checkpoint": checkpoint,
        "fingerprint": segmenter.fingerprint,
        "mean_iou": means,
        "rank_correlation": results["rank_correlation"],
        "objects": objects,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", default="tiny", help="a name or a checkpoint directory")
    parser.add_argument("--extra-images", type=Path, metavar="DIR", help="truck.jpg, groceries.jpg")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all values there")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="also draw every object")
    args = parser.parse_args()
    try:
        data = OutlinedPictures(args.extra_images)
        for line in data.missing:
            print(line, file=sys.stderr)
        segmenter = Segmenter.load(args.checkpoint)
        sheet = None if args.sheet is None else Sheet()
        images = SelectedImages(data, Selection(), segmenter)
        results = measured(images, data, sheet)
    except InputError as error:
        parser.error(str(error))
    print(f"{len(results['objects'])} objects in {images.taken} photographs\n")
    print("\n".join(lines(results["found"])))
    print(f"\nSpearman correlation of predicted and real IoU: {results['rank_correlation']:.3f}")
    if args.json is not None:
        values = _values(results, segmenter, args.checkpoint)
        args.json.write_text(json.dumps(values, indent=1) + "\n")
    if sheet is not None:
        with written_aside(args.sheet) as file:
            sheet.picture().save(file, "PNG")


if __name__ == "__main__":
    main()
