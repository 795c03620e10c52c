"""`sam-jax evaluate`: a model on a dataset with masks, as the paper evaluates it."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sam_jax.cli.loading import (
    checkpoint_option,
    dtype_option,
    find_checkpoint,
    load_segmenter,
    mention_default,
)
from sam_jax.cli.output_files import FILE, check_output_folder
from sam_jax.cli.progress import Steps
from sam_jax.errors import InputError

if TYPE_CHECKING:
    from sam_jax.evaluate.selection import SelectedImages
    from sam_jax.evaluate.tasks import Task

# As in `evaluate.tasks`, which brings JAX.
TASKS = ("points", "boxes", "proposals", "edges")
# The others ask thousands of points an image.
DEFAULT_TASKS = ("points", "boxes")
BASELINES = ("flood-fill", "random-walker", "filled-box", "grabcut")


def _numbers(ctx: click.Context, option: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 1:
        raise click.BadParameter(f"{text!r} is not a list of whole numbers from 1, such as 1,3,9")
    return tuple(numbers)


@click.command(short_help="IoU and recall on a dataset, as in the paper.")
@click.argument("dataset", type=FILE)
@click.option(
    "--annotations",
    type=FILE,
    metavar="FILE",
    help="The JSON file of COCO instances, where DATASET has several or none; relative to the "
    "working directory.",
)
@checkpoint_option
@dtype_option
@click.option(
    "--task",
    "task_names",
    type=click.Choice(TASKS),
    multiple=True,
    help="What to evaluate; may be repeated.  [default: points, boxes]",
)
@click.option(
    "--clicks",
    default="1,2,3,5,9",
    show_default=True,
    callback=_numbers,
    metavar="N,N,...",
    help="After how many clicks to measure.",
)
@click.option(
    "--first-click",
    type=click.Choice(["centre", "random"]),
    default="centre",
    show_default=True,
    help="Where the first click is in an object.",
)
@click.option(
    "--baseline",
    "baselines",
    type=click.Choice(BASELINES),
    multiple=True,
    help="What needs no model, for comparison; may be repeated.",
)
@click.option(
    "--max-images", type=click.IntRange(1), metavar="N", help="Only N images, chosen at random."
)
@click.option(
    "--max-masks",
    type=click.IntRange(1),
    metavar="N",
    help="Of each image only N objects, chosen at random.",
)
@click.option(
    "--min-area",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="PX",
    help="Leave out objects of fewer pixels.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of all chance.")
@click.option(
    "--output",
    type=FILE,
    metavar="DIR",
    help="Also write results.json, results.csv with every object, and pictures there.",
)
def evaluate(
    dataset: Path,
    annotations: Path | None,
    checkpoint: str | None,
    dtype: str,
    task_names: tuple[str, ...],
    clicks: tuple[int, ...],
    first_click: str,
    baselines: tuple[str, ...],
    max_images: int | None,
    max_masks: int | None,
    min_area: int,
    seed: int,
    output: Path | None,
) -> None:
    """Measures how well masks agree with those of DATASET: IoU, boundary F, recall.

    DATASET is a folder of SA-1B (images with a JSON file each), its tar files, or COCO instances;
    or scenes, or scenes:held-out, procedural scenes that no run is trained on, the latter of kinds
    of object that training never has. Masks are compared at the image's own size.

    points: clicks on every object, the first in its center, each further one in the greatest error
    that is left. After the first click the most confident of three masks counts; click 1 oracle is
    the best of them. boxes: the object's own box, the most confident of three masks and the best of
    them; refined is after the most confident mask was given back together with the box. Both also
    with the boundary F-measure of DAVIS.

    proposals: average recall of at most 1,000 masks of everything in an image, from 64 by 64 points
    and without filters, also by the size of objects as COCO divides them.

    edges: ODS, OIS, AP and R50 of edges from masks of 16 by 16 points against the boundaries of all
    objects of an image; edges of what is not annotated count as wrong.
    """
    from sam_jax.data.layouts import open_dataset
    from sam_jax.evaluate.results import evaluate_images, write_results
    from sam_jax.evaluate.selection import SelectedImages, Selection
    from sam_jax.evaluate.tasks import TaskOptions, make_tasks

    if output is not None:
        check_output_folder(output)
    chosen = TaskOptions(clicks, first_click == "random", seed, tuple(dict.fromkeys(baselines)))
    tasks = make_tasks(task_names or DEFAULT_TASKS, chosen)
    for option, given in (("--max-masks", max_masks is not None), ("--min-area", min_area > 1)):
        if "edges" in tasks and given:
            raise InputError(f"the task edges needs all objects of an image; leave out {option}")
    selection = Selection(max_images, max_masks, min_area, seed)
    opened = open_dataset(dataset, annotations)
    path = find_checkpoint(checkpoint)
    mention_default(checkpoint)
    segmenter = load_segmenter(path, dtype)
    click.echo(opened.description)
    images = SelectedImages(opened, selection, segmenter)
    with Steps("images") as steps:
        objects = evaluate_images(images, tasks, steps.update)
    _show(images, len(objects), tasks)
    if output is not None:
        about = {
            "dataset": str(dataset),
            "annotations": None if annotations is None else str(annotations),
            "checkpoint": checkpoint or path.name,
            "fingerprint": segmenter.fingerprint,
            "dtype": dtype,
            "options": asdict(chosen) | asdict(selection),
        }
        write_results(output, images, objects, tasks, about)
        click.echo(f"written to {output}")


def _show(images: "SelectedImages", objects: int, tasks: "Mapping[str, Task]") -> None:
    if skipped := images.skipped.total():
        reasons = ", ".join(f"{count} {reason}" for reason, count in images.skipped.items())
        click.echo(f"{skipped} images left out: {reasons}; {'; '.join(images.messages)}", err=True)
    if images.small_objects:
        click.echo(f"{images.small_objects} objects left out for their area", err=True)
    click.echo(f"{objects} objects in {images.taken} images")
    for name, task in tasks.items():
        click.echo(f"\n{name}")
        for line in task.lines():
            click.echo(line)
