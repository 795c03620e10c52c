"""`sam-jax encode`: images to embeddings, kept for later prompts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sam_jax.cli.distributed_options import Hosts, check_folder, distributed_options
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
from sam_jax.cli.progress import ProgressBar
from sam_jax.errors import InputError
from sam_jax.folder_runs.hosts import inputs_of_all, own_share
from sam_jax.folder_runs.index import (
    EMBEDDINGS_INDEX,
    FolderResult,
    check_index,
    is_index,
    together,
    write_index,
)
from sam_jax.folder_runs.reading import (
    ReadImage,
    content_id,
    raise_failures,
    reading_ahead,
    remove_leftovers,
    show_failures,
)

if TYPE_CHECKING:
    from sam_jax.embeddings import ImageEmbedding
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
    images = images_of(source, recursive, output)
    options = read_with(page, scale)
    path = find_checkpoint(checkpoint)
    check_output_folder(output)
    index = output / EMBEDDINGS_INDEX
    if source.is_dir():
        check_index(index)
    task: list[Any] = ["encode", dtype, batch_size, options]
    if hosts is not None:
        task += inputs_of_all(path, images)
    with own_share(output, hosts, task) as share:
        mine = share.of(images)
        segmenter = load_segmenter(path, dtype)
        mention_default(checkpoint)
        result = _encode_share(segmenter, mine, images, output, resume, batch_size, dtype, options)
        if share.index == 0:
            remove_leftovers(output, [index.name])
        try:
            parts = share.hand_in(vars(result))
        except InputError:
            show_failures(result.failures())
            raise
        if parts:
            result = together(parts)
            if source.is_dir():
                write_index(index, images, result)
    if result.total == 1 and result.failed:
        raise result.failures()[0]
    click.echo(f"{share}: {result.counts('encoded')}")
    raise_failures(result.failures(), result.total, "encoded")


def _encode_share(
    segmenter: "Segmenter",
    mine: Sequence[ImageFile],
    images: Sequence[ImageFile],
    output: Path,
    resume: bool,
    batch_size: int,
    dtype: str,
    options: Mapping[str, Any],
) -> FolderResult:
    """Encodes this process's images, `mine` of all, but those that are done."""
    made_with = {"fingerprint": segmenter.fingerprint, "dtype": dtype, **_as_text(options)}
    done = {image: _done_from(output, image, made_with) if resume else None for image in mine}
    left = [image for image, sha256 in done.items() if sha256 is None]
    others = set(images) - set(mine)
    remove_leftovers(
        output,
        [_embedding_name(image) for image in left],
        [_embedding_name(image) for image in others],
    )
    if left:
        _remove_outdated_index(output)
    encoded, failures = _encode_all(segmenter, left, output, batch_size, dtype, options)
    made_from = {**{image: sha256 for image, sha256 in done.items() if sha256}, **encoded}
    return FolderResult(
        len(left),
        {
            image.name: {"result": _embedding_name(image), "image_sha256": sha256}
            for image, sha256 in made_from.items()
        },
        {image.name: str(error) for image, error in failures.items()},
    )


def _remove_outdated_index(output: Path) -> None:
    """What is written from here on, it does not know."""
    path = output / EMBEDDINGS_INDEX
    with suppress(FileNotFoundError):
        if is_index(path):
            path.unlink()


def _encode_all(
    segmenter: "Segmenter",
    images: Sequence[ImageFile],
    output: Path,
    batch_size: int,
    dtype: str,
    options: Mapping[str, Any],
) -> tuple[dict[ImageFile, str], dict[ImageFile, InputError]]:
    """The SHA-256 of each image's file that is encoded, and why others cannot be."""
    encoded: dict[ImageFile, str] = {}
    failures: dict[ImageFile, InputError] = {}
    with ProgressBar("encoding", "images", len(images)) as progress:
        for batch in _batches(images, batch_size, failures, options):
            embeddings = segmenter.encode([reading.pixels for _, reading in batch])
            assert isinstance(embeddings, list)
            for (image, reading), embedding in zip(batch, embeddings, strict=True):
                about = {"image_sha256": reading.sha256, "dtype": dtype, **_as_text(options)}
                _save(embedding, output / _embedding_name(image), about)
                encoded[image] = reading.sha256
            progress.update(len(encoded) + len(failures))
    return encoded, failures


def _save(embedding: "ImageEmbedding", path: Path, about: Mapping[str, str]) -> None:
    try:
        embedding.save(path, about)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; run it again with --resume"
        ) from error


def _batches(
    images: Sequence[ImageFile],
    size: int,
    failures: dict[ImageFile, InputError],
    options: Mapping[str, Any],
) -> Iterator[list[tuple[ImageFile, ReadImage]]]:
    """Images read, so many at a time; why others cannot be goes to `failures`."""
    batch: list[tuple[ImageFile, ReadImage]] = []
    with reading_ahead(images, options) as readings:
        for image, reading in readings:
            if isinstance(reading, InputError):
                failures[image] = reading
            else:
                batch.append((image, reading))
            if len(batch) == size:
                yield batch
                batch = []
    if batch:
        yield batch


def _as_text(options: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in options.items()}


def _embedding_name(image: ImageFile) -> str:
    """Named with the image's suffix: a.jpg and a.png may stand in one folder."""
    return f"{image.name}.npz"


def _done_from(output: Path, image: ImageFile, made_with: Mapping[str, str]) -> str | None:
    """The SHA-256 of the image if the embedding of it by this model is there, undamaged."""
    from sam_jax.embeddings import load_with_about

    path = output / _embedding_name(image)
    if not path.is_file():
        return None
    try:
        embedding, about = load_with_about(path)
    except InputError:
        return None
    sha256 = content_id(image)
    wanted = {**made_with, "image_sha256": sha256}
    return sha256 if {"fingerprint": embedding.fingerprint, **about} == wanted else None
