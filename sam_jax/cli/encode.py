"""`sam-jax encode`: images to embeddings, kept for later prompts."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sam_jax.cli.folder_run import images_of, raise_failures, reading_ahead, remove_leftovers
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

if TYPE_CHECKING:
    import numpy as np

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
@click.option("--resume", is_flag=True, help="Skip images whose embedding is there already.")
@click.option(
    "--batch-size",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Images at once; more is faster on an accelerator.",
)
@dtype_option
def encode(
    source: Path, output: Path, checkpoint: str | None, resume: bool, batch_size: int, dtype: str
) -> None:
    """Encodes IMAGE, or every image directly inside DIR, so that prompts on it are quick.

    Use the files with `sam-jax segment IMAGE --embedding F` or `ImageEmbedding.load`. Images that
    cannot be read are listed, the others are done, and the exit status is 2.
    """
    images = images_of(source)
    path = find_checkpoint(checkpoint)
    check_output_folder(output)
    segmenter = load_segmenter(path, dtype)
    mention_default(checkpoint)
    left = [
        image
        for image in images
        if not (resume and _is_done(_embedding_path(output, image), segmenter.fingerprint))
    ]
    remove_leftovers(output, [_embedding_path(output, image).name for image in left])
    failures = _encode_all(segmenter, left, output, batch_size)
    done, skipped = len(left) - len(failures), len(images) - len(left)
    if len(images) == 1 and failures:
        raise failures[0]
    already = f", {skipped} were there already" if skipped else ""
    click.echo(f"{output}: {done} of {len(images)} images encoded{already}")
    raise_failures(failures, len(images), "encoded")


def _encode_all(
    segmenter: "Segmenter", images: Sequence[Path], output: Path, batch_size: int
) -> list[InputError]:
    failures: list[InputError] = []
    with ProgressBar("encoding", "images", len(images)) as progress:
        done = 0
        for batch in _batches(images, batch_size, failures):
            embeddings = segmenter.encode([pixels for _, pixels in batch])
            assert isinstance(embeddings, list)
            for (image, _), embedding in zip(batch, embeddings, strict=True):
                _save(embedding, _embedding_path(output, image))
            done += len(batch)
            progress.update(done + len(failures))
    return failures


def _save(embedding: "ImageEmbedding", path: Path) -> None:
    try:
        embedding.save(path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; run it again with --resume"
        ) from error


def _batches(
    images: Sequence[Path], size: int, failures: list[InputError]
) -> Iterator[list[tuple[Path, "np.ndarray"]]]:
    """Images read, so many at a time; why others cannot be is appended to `failures`."""
    batch: list[tuple[Path, np.ndarray]] = []
    with reading_ahead(images) as readings:
        for image, pixels in readings:
            if isinstance(pixels, InputError):
                failures.append(pixels)
            else:
                batch.append((image, pixels))
            if len(batch) == size:
                yield batch
                batch = []
    if batch:
        yield batch


def _embedding_path(output: Path, image: Path) -> Path:
    """Named with the image's suffix: a.jpg and a.png may stand in one folder."""
    return output / f"{image.name}.npz"


def _is_done(path: Path, fingerprint: str) -> bool:
    """Whether an embedding by this model is there; another's, or a damaged one, is made again."""
    from sam_jax.embeddings import ImageEmbedding

    try:
        return path.is_file() and ImageEmbedding.load(path).fingerprint == fingerprint
    except InputError:
        return False
