"""`sam-jax generate`: everything in an image, or in every image of a folder."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sam_jax.cli.distributed_options import Hosts, check_folder, distributed_options
from sam_jax.cli.generation_options import (
    EXPORT_NAMES,
    checked_simplify,
    chosen_options,
    generation_options,
)
from sam_jax.cli.image_options import (
    ImageFile,
    check_page,
    images_of,
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
from sam_jax.errors import InputError
from sam_jax.folder_runs.generated_exports import EXPORTS, check_exports, write_export
from sam_jax.folder_runs.generated_files import (
    LABELS,
    OVERLAY,
    OVERLAY_WITH_IDS,
    check_names,
    earlier_result,
)
from sam_jax.folder_runs.generation import EMBEDDINGS_USED, GenerationRun
from sam_jax.folder_runs.hosts import Share, inputs_of_all, own_share
from sam_jax.folder_runs.index import (
    MASKS_INDEX,
    FolderResult,
    check_index,
    together,
    write_index,
)
from sam_jax.folder_runs.reading import (
    names_and_sizes,
    raise_failures,
    read_with_id,
    reading_ahead,
    remove_leftovers,
    show_failures,
)

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
    images = images_of(source, recursive, output)
    reading_options = read_with(page, scale)
    exports = [kind for kind in EXPORTS if kind in formats]
    of_all = [EXPORTS[kind] for kind in exports] + ([MASKS_INDEX] if source.is_dir() else [])
    check_names(images, output, of_all)
    path = find_checkpoint(checkpoint)
    options = chosen_options(preset, knobs, path)
    _check_output(output, source, bool(endings))
    given = {k: str(v) for k, v in vars(options).items()}
    task: list[Any] = ["generate", dtype, endings, of_all, simplify, given, reading_options]
    if hosts is not None:
        task += [*inputs_of_all(path, images), embeddings and _sizes_there(embeddings, images)]
    written: list[Path] = []
    with own_share(output, hosts, task) as share:
        mine = share.of(images)
        check_exports(output, exports)
        if source.is_dir():
            check_index(output / MASKS_INDEX)
        earlier = {image: earlier_result(output, image, resume, endings) for image in mine}
        _remove_leftovers(output, mine, images, share.index == 0)
        # A single image is read first: it takes less time than loading the model.
        single = None
        if not source.is_dir():
            single = iter([(images[0], read_with_id(images[0], reading_options))])
        segmenter = load_segmenter(path, dtype)
        mention_default(checkpoint)
        described = _described(segmenter, checkpoint or path.name, dtype)
        run = GenerationRun(
            segmenter, described, options, output, endings, embeddings, earlier, reading_options
        )
        left = run.unfinished() if resume else mine
        try:
            ahead = nullcontext(single) if single else reading_ahead(left, reading_options)
            with ahead as reading:
                run.do(reading if left else (), len(left))
            result = run.result(len(left))
            parts = share.hand_in(vars(result))
            if parts:
                result = together(parts)
                index = output / MASKS_INDEX if source.is_dir() else None
                written = _write_of_all(output, exports, index, images, result, distance)
        except InputError:
            show_failures(run.failures.values())
            raise
    done = [*run.pictures(images[0]), f"{images[0].stem}.json"]
    _print_result(result, share, source, done, written, embeddings is not None)
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


def _sizes_there(embeddings: Path, images: Sequence[ImageFile]) -> list[tuple[str, int | None]]:
    return names_and_sizes(embeddings / f"{image.name}.npz" for image in images)


def _check_output(output: Path, source: Path, pictures: bool) -> None:
    check_output_folder(output)
    if pictures and source.is_dir() and output.is_dir() and output.samefile(source):
        raise InputError(
            "the next run would take pictures in the folder of the images for images; choose "
            "another --output"
        )


def _remove_leftovers(
    output: Path, mine: Sequence[ImageFile], images: Sequence[ImageFile], first: bool
) -> None:
    others = set(images) - set(mine)
    names = [f"{image.stem}.json" for image in mine]
    names += [*EXPORTS.values(), MASKS_INDEX] if first else []
    remove_leftovers(output, names, [f"{image.stem}.json" for image in others])


def _described(segmenter: "Segmenter", name: str, dtype: str) -> dict[str, str]:
    model = segmenter.config.name
    return {"name": name, "model": model, "fingerprint": segmenter.fingerprint, "dtype": dtype}


def _write_of_all(
    output: Path,
    kinds: Sequence[str],
    index: Path | None,
    images: Sequence[ImageFile],
    result: FolderResult,
    simplify: float,
) -> list[Path]:
    """Writes what is of all images together; the files and folders of the formats."""
    finished = [image for image in images if image.name in result.images]
    try:
        written = [write_export(output, kind, finished, simplify) for kind in kinds if finished]
        if index:
            write_index(index, images, result)
    except OSError as error:
        raise InputError(
            f"cannot write to {output}: {error.strerror or error}; the images are finished, so "
            "mend it and go on with --resume"
        ) from error
    return written


def _print_result(
    result: FolderResult,
    share: Share,
    source: Path,
    files: Sequence[str],
    instances: Sequence[Path],
    with_embeddings: bool,
) -> None:
    if source.is_dir():
        click.echo(f"{share}: {result.counts('done')}")
    elif not result.failed:
        already = "" if result.tried else "  was there already"
        for name in files:
            click.echo(f"{share.folder / name}{already}")
    for path in instances:
        click.echo(path)
    _print_report(result, with_embeddings)


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
