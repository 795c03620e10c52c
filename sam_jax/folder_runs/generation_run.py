"""A run of automatic mask generation over images: which are finished, and doing the others."""

import errno
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam_jax.errors import InputError
from sam_jax.folder_runs.generated_files import EarlierResult, settings_text, write_image
from sam_jax.folder_runs.image_list import ImageFile
from sam_jax.folder_runs.index import FolderResult
from sam_jax.folder_runs.reading import ReadImage, Reading, content_id
from sam_jax.folder_runs.saved_embeddings import load_embedding
from sam_jax.progress import Progress, Tell, silent
from sam_jax.version import __version__

if TYPE_CHECKING:
    from sam_jax.automatic.options import GenerateOptions
    from sam_jax.segmenter import Segmenter

EMBEDDINGS_USED = "embeddings used"


@dataclass
class GenerationRun:
    """What is done to every image, and how it went so far.

    Attributes:
      segmenter: the model.
      checkpoint: what the JSON files say of it.
      options: which masks are generated.
      output: the folder to write to.
      endings: of the names of the pictures to draw, and what they show.
      embeddings: the folder of saved embeddings, if there is one.
      earlier: what there is of each image.
      read_with: how images are read, where it is not the default.
      progress: of the images.
      tell: gets lines for a person.
      failed: gets the reason of each image that cannot be done, when it is known.
      failures: the images that could not be done, and why.
      report: how many candidates there were, how many of them each filter dropped, and how many
        embeddings were used.
      index: what the index says of the images that were done.
    """

    segmenter: "Segmenter"
    checkpoint: Mapping[str, str]
    options: "GenerateOptions"
    output: Path
    endings: Mapping[str, str]
    embeddings: Path | None
    earlier: Mapping[ImageFile, EarlierResult]
    read_with: Mapping[str, Any] = field(default_factory=dict)
    progress: Progress = silent
    tell: Tell = silent
    failed: Callable[[InputError], None] = silent
    failures: dict[ImageFile, InputError] = field(default_factory=dict)
    report: Counter[str] = field(default_factory=Counter)
    index: dict[ImageFile, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Grids of points cannot be typed.
        self._options = {k: v for k, v in vars(self.options).items() if k != "point_grids"}
        self._settings = settings_text(
            self.checkpoint["fingerprint"], self.checkpoint["dtype"], self._options
        )

    def unfinished(self) -> list[ImageFile]:
        """The images that are to be done; takes as long as reading the files of the others."""
        left = []
        self.progress("checking", 0, len(self.earlier))
        for number, image in enumerate(self.earlier, 1):
            left += [] if self._is_finished(image) else [image]
            self.progress("checking", number, len(self.earlier))
        return left

    def _is_finished(self, image: ImageFile) -> bool:
        """Whether everything asked for is there, made of this file with this model and options."""
        earlier = self.earlier[image]
        return (
            earlier.settings == self._settings
            and earlier.has_pictures(self.pictures(image))
            # Last, as it reads the file.
            and earlier.made_from == self._made_from(content_id(image), self._embedding(image))
        )

    def do(self, images: Iterable[tuple[ImageFile, Reading]], count: int) -> None:
        """Does images as they are read; those that cannot be done go to `failures`.

        Args:
          images: each with what was read of it, or with the reason why it cannot be read.
          count: how many they are.

        Raises:
          InputError: files cannot be written.
        """
        total = len(self.earlier)
        finished = total - count
        self.progress("generating", 0, count)
        try:
            for number, (image, reading) in enumerate(images, 1):
                finished += self._tried(image, reading)
                self.progress("generating", number, count)
        except OSError as error:
            raise InputError(
                f"cannot write to {self.output}: {error.strerror or error}; {finished} of {total} "
                "images are finished, so mend it and go on with --resume"
            ) from error
        except KeyboardInterrupt:
            self.tell(
                f"interrupted: {finished} of {total} images are finished, go on with --resume"
            )
            raise

    def _tried(self, image: ImageFile, reading: Reading) -> bool:
        """Does an image, if it can be done; whether it could.

        Raises:
          OSError: files cannot be written.
        """
        try:
            self._do_one(image, reading)
            return True
        except InputError as error:
            failure = error
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            failure = InputError(f"{image}: the name is too long for its results; shorten it")
        self.failures[image] = failure
        self.failed(failure)
        return False

    def result(self, tried: int) -> FolderResult:
        """What became of all images, of which so many were tried."""
        finished = (image for image in self.earlier if image not in self.failures)
        return FolderResult(
            tried,
            {image.name: self._index_entry(image) for image in finished},
            {image.name: str(error) for image, error in self.failures.items()},
            dict(self.report),
        )

    def _index_entry(self, image: ImageFile) -> dict[str, Any]:
        if image in self.index:
            return self.index[image]
        earlier = self.earlier[image]
        return _index_entry(image, earlier.masks, earlier.made_from)

    def pictures(self, image: ImageFile) -> dict[str, str]:
        """Names of the pictures to draw of an image, and what each shows."""
        return {image.stem + ending: shows for ending, shows in self.endings.items()}

    def _do_one(self, image: ImageFile, reading: Reading) -> None:
        if isinstance(reading, InputError):
            raise reading
        earlier, pictures = self.earlier[image], self.pictures(image)
        # Asked for once: `sam-jax encode` may be at work there.
        embedding = self._embedding(image)
        made_from = self._made_from(reading.sha256, embedding)
        known = self._known_masks(image, made_from)
        records, report = known or self._generate(image, reading, embedding)
        kept = {name: shows for name, shows in earlier.pictures.items() if shows and known}
        entry = {
            "version": __version__,
            "checkpoint": self.checkpoint,
            "options": self._options,
            "made_from": made_from,
            "report": report,
            "files": dict(sorted({**kept, **pictures}.items())),
        }
        replaced = None if known else earlier
        write_image(self.output, image, reading.pixels, records, entry, pictures, replaced)
        self.index[image] = _index_entry(image, len(records), made_from)

    def _made_from(self, image_sha256: str | None, embedding: Path | None) -> dict[str, Any]:
        """What identifies the files that an image's masks are made from, and how it was read."""
        # An embedding that cannot be read is not none.
        embedding_sha256 = None if embedding is None else content_id(embedding) or "unreadable"
        made_from = {"image_sha256": image_sha256, "embedding_sha256": embedding_sha256}
        return {**made_from, **self.read_with}

    def _embedding(self, image: ImageFile) -> Path | None:
        path = self.embeddings and self.embeddings / f"{image.name}.npz"
        return path if path is not None and path.exists() else None

    def _known_masks(
        self, image: ImageFile, made_from: Mapping[str, Any]
    ) -> tuple[Sequence[dict[str, Any]], Any] | None:
        """Masks and report of an image that lacks only pictures."""
        earlier = self.earlier[image]
        if earlier.settings != self._settings or earlier.made_from != made_from:
            return None
        from sam_jax.formats.sa1b import read_sa1b

        try:
            result = read_sa1b(self.output / f"{image.stem}.json")
            report = result.extra["sam_jax"]["report"]
        except (InputError, KeyError):
            return None
        # As they were generated: the file is then the same as if it were written now.
        return [{k: v for k, v in each.items() if k != "id"} for each in result.records], report

    def _generate(
        self, image: ImageFile, reading: ReadImage, embedding: Path | None
    ) -> tuple[Sequence[dict[str, Any]], dict[str, int]]:
        pixels, sha256 = reading.pixels, reading.sha256
        source: Any = pixels
        if embedding:
            source = load_embedding(embedding, pixels.shape[:2], sha256, self.read_with)
        try:
            masks = self.segmenter.generate_masks(source, **vars(self.options))
        except InputError as error:
            raise InputError(f"{embedding or image}: {error}") from error
        self.report.update(masks.report)
        self.report[EMBEDDINGS_USED] += embedding is not None
        # What has no pixel has no place in any format, and must not count in ids and labels.
        records = [record for record in masks.records("coco_rle") if record["area"]]
        return records, masks.report


def _index_entry(
    image: ImageFile, masks: int, made_from: Mapping[str, Any]
) -> dict[str, str | int | None]:
    sha256 = made_from["image_sha256"]
    return {"result": f"{image.stem}.json", "masks": masks, "image_sha256": sha256}
