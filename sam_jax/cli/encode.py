"""`sam-jax encode`: images to embeddings, kept for later prompts."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sam_jax.cli.distributed_options import check_folder, distributed_options
from sam_jax.cli.failures import raise_failures, show_failures
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
from sam_jax.folder_runs.encoding import Encoding, encode_images
from sam_jax.folder_runs.hosts import own_share
from sam_jax.folder_runs.image_list import images_of
from sam_jax.folder_runs.index import EMBEDDINGS_INDEX, check_index
from sam_jax.folder_runs.meeting import Hosts

if TYPE_CHECKING:
    from sam_jax.segmenter import Segmenter


@click.command(short_help="Embeddings of images, for prompts later.")
@click.argument("source", metavar="IMAGE|DIR", type=FILE)
@click.option(
    "--output",
    type=FILE,
    required=True,
    metavar="DIR",
    help="Folder to write to: photo.jpg becomes photo.jpg.npz.",
)
@checkpoint_option
@click.option(
    "--resume",
    is_flag=True,
    help="Skip images whose embedding is there, made of the same file by this model and type.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Images at once; more is faster on an accelerator.",
)
@recursive_option
@page_option
@scale_option
@dtype_option
@distributed_options
def encode(
    source: Path,
    output: Path,
    checkpoint: str | None,
    resume: bool,
    batch_size: int,
    recursive: bool,
    page: int | None,
    scale: Any,
    dtype: str,
    hosts: Hosts | None,
) -> None:
    """Encodes IMAGE, or every image of DIR, so that prompts on it are quick.

    Use the files with `sam-jax segment IMAGE --embedding F` or `ImageEmbedding.load`. Images that
    cannot be read are listed, the others are done, and the exit status is 2. Of a folder,
    index_of_embeddings.json lists all.
    """
    check_folder(source, hosts)
    check_page(page, source)
    images = images_of(source, recursive, output, note)
    path = find_checkpoint(checkpoint)
    check_output_folder(output)
    is_folder = source.is_dir()
    encoding = Encoding(dtype, batch_size, read_with(page, scale), resume, is_folder)
    if is_folder:
        check_index(output / EMBEDDINGS_INDEX)  # before the other processes are waited for
    task = [] if hosts is None else encoding.task(path, images)
    failures: list[InputError] = []

    def load() -> "Segmenter":
        segmenter = load_segmenter(path, dtype, image_batch=batch_size)
        mention_default(checkpoint)
        return segmenter

    try:
        with own_share(output, hosts, task) as share, Steps("images") as steps:
            result = encode_images(
                load,
                images,
                share,
                encoding,
                progress=steps.update,
                tell=steps.note,
                failed=failures.append,
            )
    except InputError:
        show_failures(failures)
        raise
    if result.total == 1 and result.failed:
        raise result.failures()[0]
    click.echo(f"{share}: {result.counts('encoded')}")
    raise_failures(result.failures(), result.total, "encoded")
