"""`sam-jax generate`: everything in an image, or in every image of a folder."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sam_jax.cli.distributed_options import check_folder, distributed_options
from sam_jax.cli.failures import raise_failures, show_failures
from sam_jax.cli.generation_options import (
    EXPORT_NAMES,
    checked_simplify,
    chosen_options,
    generation_options,
)
from sam_jax.cli.image_options import (
    check_page,
    page_option,
    read_with,
    recursive_option,
    scale_option,
)
from sam_jax.cli.loading import (
    checkpoint_option,
    dtype_option,
    find_checkpoint,
    load_segmenter,
    mention_default,
)
from sam_jax.cli.output_files import FILE, check_output_folder
from sam_jax.cli.progress import Steps, note
from sam_jax.errors import InputError
from sam_jax.folder_runs.generated_exports import EXPORTS
from sam_jax.folder_runs.generated_files import LABELS, OVERLAY, OVERLAY_WITH_IDS, check_names
from sam_jax.folder_runs.generation import Generation, generate_images
from sam_jax.folder_runs.generation_run import EMBEDDINGS_USED
from sam_jax.folder_runs.hosts import own_share
from sam_jax.folder_runs.image_list import ImageFile, images_of
from sam_jax.folder_runs.index import FolderResult
from sam_jax.folder_runs.meeting import Hosts

if TYPE_CHECKING:
    from sam_jax.automatic.options import GenerateOptions
    from sam_jax.segmenter import Segmenter


@click.command(short_help="Masks of everything in images.")
@click.argument("source", metavar="IMAGE|DIR", type=FILE)
@click.option(
    "--output",
    type=FILE,
    default=Path("sam-jax-generated"),
    show_default=True,
    metavar="DIR",
    help="Folder to write to: photo.jpg becomes photo.json. Earlier results are replaced.",
)
@checkpoint_option
@dtype_option
@click.option(
    "--format",
    "formats",
    type=click.Choice(["sa1b", "png", *EXPORT_NAMES]),
    multiple=True,
    default=["sa1b"],
    help="What to write; may be repeated. sa1b: a JSON for each image, as in the SA-1B dataset; "
    "always written. png: photo_labels.png, where a pixel's value is its mask's id. For all images "
    "together, coco-rle and polygon: COCO files, instances_rle.json and instances_polygon.json; "
    "yolo and labelme: folders of that name; label-studio: label_studio.json; cvat: cvat.xml.  "
    "[default: sa1b]",
)
@click.option(
    "--simplify",
    type=float,
    metavar="PX",
    help="How far polygons (of polygon and yolo) may be from the mask's outline. Raising it leaves "
    "fewer corners.  [default: 0, exact]",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Skip images that are finished, with these options, and are the same files still.",
)
@click.option(
    "--overlay/--no-overlay",
    default=None,
    help="Draw the masks on the image, photo_overlay.jpg. Without either: for a single IMAGE.",
)
@click.option("--ids", is_flag=True, help="Write each mask's id on it in the overlay.")
@click.option(
    "--embeddings",
    type=FILE,
    metavar="DIR",
    help="Use what `sam-jax encode` wrote there with the same checkpoint; images without an "
    "embedding are encoded.",
)
@recursive_option
@page_option
@scale_option
@distributed_options
@generation_options
def generate(
    source: Path,
    output: Path,
    checkpoint: str | None,
    dtype: str,
    preset: str,
    formats: tuple[str, ...],
    simplify: float | None,
    resume: bool,
    overlay: bool | None,
    ids: bool,
    embeddings: Path | None,
    recursive: bool,
    page: int | None,
    scale: Any,
    hosts: Hosts | None,
    **knobs: Any,
) -> None:
    """Finds everything in IMAGE, or in every image of DIR.

    An image's JSON file is written last and says that the image is finished; with --resume a run
    that was stopped goes on where it was. Images that cannot be read are listed, the others are
    done, and the exit status is 2. Of a folder, index_of_masks.json lists all.
    """
    options = chosen_options(preset, knobs)
    endings = {LABELS: "labels"} if "png" in formats else {}
    if overlay or (overlay is None and not source.is_dir()):
        endings[OVERLAY] = OVERLAY_WITH_IDS if ids else "overlay"
    distance = checked_simplify(simplify, formats)
    _check_combination(options, ids and OVERLAY not in endings, embeddings)
    check_folder(source, hosts)
    check_page(page, source)
    images = images_of(source, recursive, output, note)
    path = find_checkpoint(checkpoint)
    generation = Generation(
        chosen_options(preset, knobs, path),
        dtype,
        checkpoint or path.name,
        endings,
        [kind for kind in EXPORTS if kind in formats],
        distance,
        embeddings,
        read_with(page, scale),
        resume,
        index=source.is_dir(),
    )
    check_names(images, output, generation.files_of_all)
    _check_output(output, source, bool(endings))
    task = [] if hosts is None else generation.task(path, images)
    failures: list[InputError] = []

    def load() -> "Segmenter":
        segmenter = load_segmenter(path, dtype)
        mention_default(checkpoint)
        return segmenter

    try:
        with own_share(output, hosts, task) as share, Steps("images") as steps:
            done = generate_images(
                load,
                images,
                share,
                generation,
                progress=steps.update,
                tell=steps.note,
                failed=failures.append,
            )
    except InputError:
        show_failures(failures)
        raise
    result = done.result
    if source.is_dir():
        click.echo(f"{share}: {result.counts('done')}")
    elif not result.failed:
        _print_files(images[0], output, endings, bool(result.tried))
    for file in done.written:
        click.echo(file)
    _print_report(result, embeddings is not None)
    raise_failures(result.failures(), result.total, "done")


def _check_combination(
    options: "GenerateOptions",
    ids_without_overlay: bool,
    embeddings: Path | None,
) -> None:
    if ids_without_overlay:
        raise InputError("--ids writes on the overlay; add --overlay")
    if embeddings is None:
        return
    if options.crop_n_layers or options.tile_size:
        raise InputError(
            "--embeddings are of whole images; crop layers and tiles are encoded one by one, so "
            "leave out one of the two"
        )
    if not embeddings.is_dir():
        raise InputError(
            f"--embeddings: there is no folder {embeddings}; make it with `sam-jax encode`"
        )


def _check_output(output: Path, source: Path, pictures: bool) -> None:
    check_output_folder(output)
    if pictures and source.is_dir() and output.is_dir() and output.samefile(source):
        raise InputError(
            "the next run would take pictures in the folder of the images for images; choose "
            "another --output"
        )


def _print_files(image: ImageFile, output: Path, endings: Iterable[str], tried: bool) -> None:
    for ending in (*endings, ".json"):
        click.echo(f"{output / (image.stem + ending)}{'' if tried else '  was there already'}")


def _print_report(result: FolderResult, with_embeddings: bool) -> None:
    report = dict(result.report)
    used, done = report.pop(EMBEDDINGS_USED, 0), result.tried - len(result.failed)
    if with_embeddings and done:
        click.echo(f"embeddings used for {used} of {done} images")
    width = len(str(report.get("candidates", 0)))
    for name, count in report.items():
        if count or name in ("candidates", "kept"):
            click.echo(f"{count:>{width + 2}} {name}")
    if report and not report["kept"]:
        _, most = max((n, name) for name, n in report.items() if name != "candidates")
        click.echo(f"no mask is left; most candidates were {most}", err=True)
