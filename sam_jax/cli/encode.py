"""`sam-jax encode`: images to embeddings, kept for later prompts."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sam_jax.cli.folder_run import (
    ReadImage,
    content_id,
    images_of,
    own_folder,
    raise_failures,
    reading_ahead,
    remove_leftovers,
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
    with own_folder(output):
        segmenter = load_segmenter(path, dtype)
        mention_default(checkpoint)
        made_with = {"fingerprint": segmenter.fingerprint, "dtype": dtype}
        left = [image for image in images if not (resume and _is_done(output, image, made_with))]
        remove_leftovers(output, [_embedding_path(output, image).name for image in left])
        failures = _encode_all(segmenter, left, output, batch_size, dtype)
    done, skipped = len(left) - len(failures), len(images) - len(left)
    if len(images) == 1 and failures:
        raise failures[0]
    already = f", {skipped} were there already" if skipped else ""
    click.echo(f"{output}: {done} of {len(images)} images encoded{already}")
    raise_failures(failures, len(images), "encoded")


def _encode_all(
    segmenter: "Segmenter", images: Sequence[Path], output: Path, batch_size: int, dtype: str
) -> list[InputError]:
    failures: list[InputError] = []
    with ProgressBar("encoding", "images", len(images)) as progress:
        done = 0
        for batch in _batches(images, batch_size, failures):
            embeddings = segmenter.encode([reading.pixels for _, reading in batch])
            assert isinstance(embeddings, list)
            for (image, reading), embedding in zip(batch, embeddings, strict=True):
                about = {"image_sha256": reading.sha256, "dtype": dtype}
                _save(embedding, _embedding_path(output, image), about)
            done += len(batch)
            progress.update(done + len(failures))
    return failures


def _save(embedding: "ImageEmbedding", path: Path, about: Mapping[str, str]) -> None:
    try:
        embedding.save(path, about)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; run it again with --resume"
        ) from error


def _batches(
    images: Sequence[Path], size: int, failures: list[InputError]
) -> Iterator[list[tuple[Path, ReadImage]]]:
    """Images read, so many at a time; why others cannot be is appended to `failures`."""
    batch: list[tuple[Path, ReadImage]] = []
    with reading_ahead(images) as readings:
        for image, reading in readings:
            if isinstance(reading, InputError):
                failures.append(reading)
            else:
                batch.append((image, reading))
            if len(batch) == size:
                yield batch
                batch = []
    if batch:
        yield batch


def _embedding_path(output: Path, image: Path) -> Path:
    """Named with the image's suffix: a.jpg and a.png may stand in one folder."""
    return output / f"{image.name}.npz"


def _is_done(output: Path, image: Path, made_with: Mapping[str, str]) -> bool:
    """Whether the embedding of this very image by this model is there, undamaged."""
    from sam_jax.embeddings import load_with_about

    path = _embedding_path(output, image)
    if not path.is_file():
        return False
    try:
        embedding, about = load_with_about(path)
    except InputError:
        return False
    wanted = {**made_with, "image_sha256": content_id(image)}
    return {"fingerprint": embedding.fingerprint, **about} == wanted
