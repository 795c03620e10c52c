"""Everything in every image of a folder: masks as files, and what is of all images together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam_jax.errors import InputError
from sam_jax.folder_runs.generated_exports import EXPORTS, check_exports, write_export
from sam_jax.folder_runs.generated_files import EarlierResult, check_names, earlier_result
from sam_jax.folder_runs.generation_run import GenerationRun
from sam_jax.folder_runs.hosts import Share, inputs_of_all
from sam_jax.folder_runs.image_list import ImageFile
from sam_jax.folder_runs.index import MASKS_INDEX, FolderResult, check_index, joined, write_index
from sam_jax.folder_runs.leftovers import remove_leftovers
from sam_jax.folder_runs.reading import names_and_sizes, read_with_id, reading_ahead
from sam_jax.progress import Progress, Tell, silent

if TYPE_CHECKING:
    from sam_jax.automatic.options import GenerateOptions
    from sam_jax.segmenter import Segmenter


@dataclass(frozen=True)
class Generation:
    """What is made of each image of a run, and of all together.

    Attributes:
      options: which masks are generated.
      dtype: the name of the type to compute in; files say it, and `resume` compares it.
      checkpoint: what files call the model.
      endings: of the names of the pictures to draw (`LABELS`, `OVERLAY`), and what they show.
      exports: keys of `EXPORTS`: the masks of all images for other programs.
      simplify: how far polygons may be from a mask's outline, in pixels.
      embeddings: a folder with saved embeddings, which are used where an image has one.
      read_with: options of `read_image`, where they are not the default.
      resume: leave out images that are finished, and made of the same file in the same way.
      index: whether the run ends with an index of all images.
    """

    options: "GenerateOptions"
    dtype: str = "float32"
    checkpoint: str = ""
    endings: Mapping[str, str] = field(default_factory=dict)
    exports: Sequence[str] = ()
    simplify: float = 0.0
    embeddings: Path | None = None
    read_with: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False
    index: bool = True

    @property
    def files_of_all(self) -> list[str]:
        """Names of the files and folders that are of all images together."""
        return [EXPORTS[kind] for kind in self.exports] + ([MASKS_INDEX] if self.index else [])

    def task(self, checkpoint: Path, images: Sequence[ImageFile]) -> list[Any]:
        """What must be the same for all processes of a run, for `own_share`.

        Raises:
          CheckpointError: the checkpoint says nothing of itself that can be read.
        """
        names = [f"{image.name}.npz" for image in images]
        there = self.embeddings and names_and_sizes(self.embeddings / name for name in names)
        return [
            "generate",
            self.dtype,
            dict(self.endings),
            self.files_of_all,
            self.simplify,
            {name: str(value) for name, value in vars(self.options).items()},
            dict(self.read_with),
            *inputs_of_all(checkpoint, images),
            there,
        ]


@dataclass(frozen=True)
class Generated:
    """What a run has done.

    Attributes:
      result: what became of the images: of all in process 0, elsewhere of this process's own.
      written: files and folders that are of all images together.
    """

    result: FolderResult
    written: Sequence[Path] = ()


def generate_images(
    load: Callable[[], "Segmenter"],
    images: Sequence[ImageFile],
    share: Share,
    generation: Generation,
    *,
    progress: Progress = silent,
    tell: Tell = silent,
    failed: Callable[[InputError], None] = silent,
) -> Generated:
    """Generates the masks of a process's share of the images; process 0 waits for the others.

    Args:
      load: gives the model; called once, when the folder and a single image have been looked at.
      images: of all processes.
      share: what this process does, and the folder to write to (`own_share`).
      generation: what is made.
      progress: of the images.
      tell: gets lines for a person.
      failed: gets the reason of each image that cannot be done, when it is known.

    Raises:
      InputError: two images would have one result, a file of the folder is no result of such a
        run, files cannot be written, or another process has ended before its part was finished.
    """
    output, mine = share.folder, share.of(images)
    check_names(images, output, generation.files_of_all)
    check_exports(output, generation.exports)
    if generation.index:
        check_index(output / MASKS_INDEX)
    earlier = {
        image: earlier_result(output, image, generation.resume, generation.endings)
        for image in mine
    }
    _remove_leftovers(output, mine, images, share.index == 0)
    # A single image is read first: it takes less time than loading the model.
    single = None
    if len(images) == 1 and not generation.index:
        single = read_with_id(images[0], generation.read_with)
    run = _new_run(load(), output, generation, earlier)
    run.progress, run.tell, run.failed = progress, tell, failed
    left = run.unfinished() if generation.resume else mine
    if single is not None:
        run.do([(image, single) for image in left], len(left))
    else:
        with reading_ahead(left, generation.read_with) as readings:
            run.do(readings, len(left))
    result = run.result(len(left))
    parts = share.hand_in(vars(result), tell)
    if not parts:
        return Generated(result)
    result = joined(parts)
    return Generated(result, _write_of_all(output, generation, images, result, progress))


def _new_run(
    segmenter: "Segmenter",
    output: Path,
    generation: Generation,
    earlier: Mapping[ImageFile, EarlierResult],
) -> GenerationRun:
    checkpoint = {
        "name": generation.checkpoint,
        "model": segmenter.config.name,
        "fingerprint": segmenter.fingerprint,
        "dtype": generation.dtype,
    }
    return GenerationRun(
        segmenter,
        checkpoint,
        generation.options,
        output,
        generation.endings,
        generation.embeddings,
        earlier,
        generation.read_with,
    )


def _remove_leftovers(
    output: Path, mine: Sequence[ImageFile], images: Sequence[ImageFile], first: bool
) -> None:
    others = set(images) - set(mine)
    names = [f"{image.stem}.json" for image in mine]
    names += [*EXPORTS.values(), MASKS_INDEX] if first else []
    remove_leftovers(output, names, [f"{image.stem}.json" for image in others])


def _write_of_all(
    output: Path,
    generation: Generation,
    images: Sequence[ImageFile],
    result: FolderResult,
    progress: Progress,
) -> list[Path]:
    """Writes what is of all images together; the files and folders of the formats."""
    finished = [image for image in images if image.name in result.images]
    written = []
    try:
        for kind in generation.exports if finished else ():
            written.append(write_export(output, kind, finished, generation.simplify, progress))
        if generation.index:
            write_index(output / MASKS_INDEX, images, result)
    except OSError as error:
        raise InputError(
            f"cannot write to {output}: {error.strerror or error}; the images are finished, so "
            "mend it and go on with --resume"
        ) from error
    return written
