"""A run of tasks over a dataset, and its results as files."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sam_jax.errors import InputError
from sam_jax.evaluate.selection import EvaluatedImage, SelectedImages
from sam_jax.evaluate.tasks import Task
from sam_jax.files import written_together
from sam_jax.progress import Progress, silent
from sam_jax.version import __version__

FORMAT_VERSION = 1

# Name of the image, number of the object in it, and its area in pixels.
EvaluatedObject = tuple[str, int, int]


def evaluate_images(
    images: SelectedImages, tasks: Mapping[str, Task], progress: Progress = silent
) -> list[EvaluatedObject]:
    """Gives every image to all tasks; what was evaluated, in the order of the tasks' values.

    Raises:
      InputError: no image can be used.
    """
    objects = []
    progress("evaluating", 0, images.total)
    for done, image in enumerate(images, 1):
        for task in tasks.values():
            task.add(image)
        objects += _about_objects(image)
        progress("evaluating", done, images.total)
    if not objects:
        raise InputError(f"no image can be evaluated: {'; '.join(images.messages)}")
    return objects


def _about_objects(image: EvaluatedImage) -> list[EvaluatedObject]:
    return [
        (image.name, number, area) for number, area in zip(image.objects, image.areas, strict=True)
    ]


def write_results(
    folder: Path,
    images: SelectedImages,
    objects: Sequence[EvaluatedObject],
    tasks: Mapping[str, Task],
    about: Mapping[str, Any],
) -> None:
    """Writes results.json, results.csv with every object, and the tasks' pictures.

    Args:
      folder: to write to; what earlier results list as their pictures goes.
      images: that were evaluated.
      objects: of them.
      tasks: by name.
      about: what else results.json says, such as the dataset and the checkpoint.

    Raises:
      OSError: they cannot be written.
    """
    pictures = {name: image for task in tasks.values() for name, image in task.pictures().items()}
    values = {
        "format_version": FORMAT_VERSION,
        "sam_jax": __version__,
        **about,
        "images": images.taken,
        "objects": len(objects),
        "images_left_out": dict(images.skipped),
        "objects_left_out_for_area": images.small_objects,
        "tasks": {name: task.values() for name, task in tasks.items()},
        "pictures": sorted(pictures),
    }
    earlier = _pictures_of(folder)
    with written_together(folder) as aside:
        (aside / "results.json").write_text(json.dumps(values, indent=1))
        (aside / "results.csv").write_bytes(_table(objects, tasks))
        for name, picture in pictures.items():
            picture.save(aside / name)
    # They would be taken for pictures of these results.
    for name in earlier - set(pictures):
        (folder / name).unlink(missing_ok=True)


def _pictures_of(folder: Path) -> set[str]:
    """Names of the pictures that earlier results in a folder list."""
    try:
        names = json.loads((folder / "results.json").read_text())["pictures"]
        return {name for name in names if Path(name).name == name and name.endswith(".png")}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _table(objects: Sequence[EvaluatedObject], tasks: Mapping[str, Task]) -> bytes:
    """A line for each object, with its values in all tasks."""
    columns: dict[str, list[float]] = {}
    for task in tasks.values():
        columns |= task.columns()
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "object", "area", *columns])
    numbers = ([f"{value:.6f}" for value in column] for column in columns.values())
    for about, *found in zip(objects, *numbers, strict=True):
        writer.writerow([*about, *found])
    # A file name may hold bytes that are no text.
    return text.getvalue().encode("utf-8", "surrogateescape")
