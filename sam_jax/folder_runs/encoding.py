"""A run of the image encoder over a folder: an embedding file of each image."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam_jax.errors import InputError
from sam_jax.folder_runs.hosts import Share, inputs_of_all
from sam_jax.folder_runs.image_list import ImageFile
from sam_jax.folder_runs.index import (
    EMBEDDINGS_INDEX,
    FolderResult,
    check_index,
    is_index,
    joined,
    write_index,
)
from sam_jax.folder_runs.leftovers import remove_leftovers
from sam_jax.folder_runs.reading import ReadImage, content_id, reading_ahead
from sam_jax.progress import Progress, Tell, silent

if TYPE_CHECKING:
    from sam_jax.embeddings import ImageEmbedding
    from sam_jax.segmenter import Segmenter


@dataclass(frozen=True)
class Encoding:
    """How each image of a run is encoded.

    Attributes:
      dtype: the name of the type to compute in; files say it, and `resume` compares it.
      batch_size: images that are read and encoded together.
      read_with: options of `read_image`, where they are not the default.
      resume: leave out images whose embedding is there, made of the same file in the same way.
      index: whether the run ends with an index of all embeddings.
    """

    dtype: str = "float32"
    batch_size: int = 1
    read_with: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False
    index: bool = True

    def task(self, checkpoint: Path, images: Sequence[ImageFile]) -> list[Any]:
        """What must be the same for all processes of a run, for `own_share`.

        Raises:
          CheckpointError: the checkpoint says nothing of itself that can be read.
        """
        options = [self.dtype, self.batch_size, dict(self.read_with)]
        return ["encode", *options, *inputs_of_all(checkpoint, images)]

    def described(self) -> dict[str, str]:
        """What an embedding's file says of how it was made."""
        read_with = {name: str(value) for name, value in self.read_with.items()}
        return {"dtype": self.dtype, **read_with}


def encode_images(
    load: Callable[[], "Segmenter"],
    images: Sequence[ImageFile],
    share: Share,
    encoding: Encoding,
    *,
    progress: Progress = silent,
    tell: Tell = silent,
    failed: Callable[[InputError], None] = silent,
) -> FolderResult:
    """Encodes a process's share of the images; process 0 then waits for the others.

    Args:
      load: gives the model; called once, when the folder has been looked at. Its `image_batch`
        bounds what the device encodes at once.
      images: of all processes.
      share: what this process does, and the folder to write to (`own_share`).
      encoding: how.
      progress: of the images.
      tell: gets lines for a person.
      failed: gets the reason of each image that cannot be read, when it is known.

    Returns:
      What became of the images: of all in process 0, elsewhere of this process's own.

    Raises:
      InputError: the index is no result of such a run, an embedding cannot be written, or another
        process has ended before its part was finished.
    """
    index = share.folder / EMBEDDINGS_INDEX
    if encoding.index:
        check_index(index)
    result = _Encoder(load(), share, encoding, progress, failed).do(images)
    if share.index == 0:
        remove_leftovers(share.folder, [index.name])
    parts = share.hand_in(vars(result), tell)
    if not parts:
        return result
    result = joined(parts)
    if encoding.index:
        write_index(index, images, result)
    return result


@dataclass
class _Encoder:
    """What `encode_images` does, and with what."""

    segmenter: "Segmenter"
    share: Share
    encoding: Encoding
    progress: Progress
    failed: Callable[[InputError], None]

    def do(self, images: Sequence[ImageFile]) -> FolderResult:
        """Encodes this process's share of the images, but those that are done."""
        mine = self.share.of(images)
        done = {image: self._done_from(image) for image in mine}
        left = [image for image, sha256 in done.items() if sha256 is None]
        others = set(images) - set(mine)
        remove_leftovers(
            self.share.folder,
            [_embedding_name(image) for image in left],
            [_embedding_name(image) for image in others],
        )
        if left:
            self._remove_outdated_index()
        encoded, failures = self._encode_all(left)
        made_from = {**{image: sha256 for image, sha256 in done.items() if sha256}, **encoded}
        return FolderResult(
            len(left),
            {
                image.name: {"result": _embedding_name(image), "image_sha256": sha256}
                for image, sha256 in made_from.items()
            },
            {image.name: str(error) for image, error in failures.items()},
        )

    def _done_from(self, image: ImageFile) -> str | None:
        """The SHA-256 of the image if the embedding of it by this model is there, undamaged."""
        from sam_jax.embeddings import load_with_about

        path = self.share.folder / _embedding_name(image)
        if not self.encoding.resume or not path.is_file():
            return None
        try:
            embedding, about = load_with_about(path)
        except InputError:
            return None
        sha256 = content_id(image)
        made_with = {"fingerprint": self.segmenter.fingerprint, **self.encoding.described()}
        wanted = {**made_with, "image_sha256": sha256}
        return sha256 if {"fingerprint": embedding.fingerprint, **about} == wanted else None

    def _remove_outdated_index(self) -> None:
        """What is written from here on, it does not know."""
        path = self.share.folder / EMBEDDINGS_INDEX
        with suppress(FileNotFoundError):
            if is_index(path):
                path.unlink()

    def _encode_all(
        self, images: Sequence[ImageFile]
    ) -> tuple[dict[ImageFile, str], dict[ImageFile, InputError]]:
        """The SHA-256 of each image's file that is encoded, and why others cannot be."""
        encoded: dict[ImageFile, str] = {}
        failures: dict[ImageFile, InputError] = {}
        self.progress("encoding", 0, len(images))
        for batch in self._batches(images, failures):
            embeddings = self.segmenter.encode([reading.pixels for _, reading in batch])
            assert isinstance(embeddings, list)
            for (image, reading), embedding in zip(batch, embeddings, strict=True):
                about = {"image_sha256": reading.sha256, **self.encoding.described()}
                _save(embedding, self.share.folder / _embedding_name(image), about)
                encoded[image] = reading.sha256
            self.progress("encoding", len(encoded) + len(failures), len(images))
        return encoded, failures

    def _batches(
        self, images: Sequence[ImageFile], failures: dict[ImageFile, InputError]
    ) -> Iterator[list[tuple[ImageFile, ReadImage]]]:
        """Images read, so many at a time; why others cannot be goes to `failures`."""
        batch: list[tuple[ImageFile, ReadImage]] = []
        with reading_ahead(images, self.encoding.read_with) as readings:
            for image, reading in readings:
                if isinstance(reading, InputError):
                    failures[image] = reading
                    self.failed(reading)
                else:
                    batch.append((image, reading))
                if len(batch) == self.encoding.batch_size:
                    yield batch
                    batch = []
        if batch:
            yield batch


def _save(embedding: "ImageEmbedding", path: Path, about: Mapping[str, str]) -> None:
    try:
        embedding.save(path, about)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; run it again with --resume"
        ) from error


def _embedding_name(image: ImageFile) -> str:
    """Named with the image's suffix: a.jpg and a.png may stand in one folder."""
    return f"{image.name}.npz"
