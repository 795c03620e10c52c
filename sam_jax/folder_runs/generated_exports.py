"""The generated masks of all images together, for COCO's tools and other programs."""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sam_jax.errors import InputError
from sam_jax.folder_runs.image_list import ImageFile
from sam_jax.progress import Progress, silent

if TYPE_CHECKING:
    from sam_jax.formats.sa1b import Sa1bImage

# The file or folder of each format.
EXPORTS = {
    "coco-rle": "instances_rle.json",
    "polygon": "instances_polygon.json",
    "yolo": "yolo",
    "labelme": "labelme",
    "label-studio": "label_studio.json",
    "cvat": "cvat.xml",
}
# How files of ours begin, which are too large to be read for knowing them.
_COCO_BEGINNING = b'{"info":{},"licenses":[],"categories":[{"id":1,"name":"object"'


def check_exports(output: Path, kinds: Sequence[str]) -> None:
    """Refuses to replace what is not an earlier result.

    Raises:
      InputError: there is such a file or folder, or it cannot be read.
    """
    for kind in kinds:
        path = output / EXPORTS[kind]
        try:
            if not _is_ours(path, kind):
                raise InputError(
                    f"{path} exists and is no result of this command; choose another --output"
                )
        except FileNotFoundError:
            continue
        except OSError as error:
            raise InputError(
                f"cannot read {path}: {error.strerror}; choose another --output"
            ) from None


def remove_exports(output: Path) -> None:
    """Removes earlier results of all images, which other masks of one of them would belie."""
    for kind in EXPORTS:
        path = output / EXPORTS[kind]
        with suppress(OSError):
            if not _is_ours(path, kind):
                continue
            if kind == "yolo":
                # The folder stays ours: people put their images there.
                shutil.rmtree(path / "labels", ignore_errors=True)
            elif kind == "labelme":
                for file in path.rglob("*.json"):
                    file.unlink()
            else:
                path.unlink()


def _is_ours(path: Path, kind: str) -> bool:
    """Whether it is an earlier result, or one that a failing disk left empty.

    Raises:
      OSError: it is not there, or cannot be read.
    """
    if kind == "yolo":
        from sam_jax.formats.yolo import is_yolo_folder

        path.lstat()
        return is_yolo_folder(path)
    if kind == "labelme":
        return path.lstat() is not None and all(
            file.is_dir() or _begins(file, b'{"sam_jax":') for file in path.rglob("*")
        )
    if kind == "label-studio":
        from sam_jax.formats.label_studio import LABEL_STUDIO_BEGINNING

        return _begins(path, LABEL_STUDIO_BEGINNING)
    if kind == "cvat":
        from sam_jax.formats.cvat import CVAT_BEGINNING

        return _begins(path, CVAT_BEGINNING)
    return _begins(path, _COCO_BEGINNING)


def _begins(path: Path, beginning: bytes) -> bool:
    with open(path, "rb") as file:
        found = file.read(len(beginning))
    return not found.strip(b"\0") or found == beginning


def write_export(
    output: Path,
    kind: str,
    images: Sequence[ImageFile],
    simplify: float = 0.0,
    progress: Progress = silent,
) -> Path:
    """The masks of all finished images in one format; one image is in memory at a time.

    Args:
      output: the folder of the images' JSON files; the export goes there, too.
      kind: a key of `EXPORTS`.
      images: that are finished.
      simplify: how far polygons may be from the mask's outline, in pixels.
      progress: of the images.

    Returns:
      The file or folder that is written.

    Raises:
      InputError: an image's JSON file is damaged, or two images would be written to one file.
      OSError: it cannot be written.
    """
    path = output / EXPORTS[kind]
    _write(path, kind, images, _results(output, images, path.name, progress), simplify)
    return path


def _write(
    path: Path,
    kind: str,
    images: Sequence[ImageFile],
    results: Iterable["Sa1bImage"],
    simplify: float,
) -> None:
    from sam_jax.formats.coco import write_coco
    from sam_jax.formats.cvat import write_cvat
    from sam_jax.formats.label_studio import write_label_studio
    from sam_jax.formats.labelme import write_labelme
    from sam_jax.formats.yolo import write_yolo

    if kind == "yolo":
        write_yolo(path, results, simplify=simplify)
    elif kind == "labelme":
        for image, result in zip(images, results, strict=True):
            file = path / f"{image.stem}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            seen_from_there = os.path.relpath(image, file.parent)
            write_labelme(file, result, image_path=seen_from_there)
    elif kind == "label-studio":
        write_label_studio(path, results)
    elif kind == "cvat":
        write_cvat(path, results)
    else:
        polygons = kind == "polygon"
        write_coco(path, results, polygons=polygons, simplify=simplify if polygons else 0.0)


def _results(
    output: Path, images: Sequence[ImageFile], export: str, progress: Progress
) -> Iterator["Sa1bImage"]:
    from sam_jax.formats.sa1b import read_sa1b

    progress(f"writing {export}", 0, len(images))
    for number, image in enumerate(images, 1):
        file = output / f"{image.stem}.json"
        try:
            yield read_sa1b(file)
        except InputError as error:
            raise InputError(f"{error}; remove {file} and go on with --resume") from None
        progress(f"writing {export}", number, len(images))
