"""What a dataset's path means: SA-1B's files, its tar shards, COCO instances, or scenes."""

import os
from pathlib import Path

from sam_jax.data.coco import CocoInstances
from sam_jax.data.coco_files import (
    FoundAnnotations,
    find_above,
    find_inside,
    named,
    picture_folders,
)
from sam_jax.data.sa1b import Sa1bFolder, Sa1bTars, holds_pairs
from sam_jax.data.samples import Dataset
from sam_jax.errors import InputError

_SAY_WHICH = "data.annotations (--annotations)"


def open_dataset(path: str | os.PathLike, annotations: str | os.PathLike | None = None) -> Dataset:
    """Opens a dataset of images and masks, and recognizes by its files what it is.

    - COCO instances: a JSON file given as `annotations`, or the one that is found by its content:
      in the folder, in a folder inside it, or above it (there or in `annotations`). Images are in
      the folder or anywhere inside it.
    - Tar files of images with a JSON file of the same name each, as SA-1B is released in: one, or
      a folder of them.
    - Such pairs of files, as SA-1B has when it is unpacked, in the folder or those inside it.
    - "scenes" or "scenes:held-out": procedural scenes that no run is trained on (`scene_set`), of
      the kinds of object that training has, or of those it never has. A folder of that name needs
      its absolute path.

    Its `description` says what was found.

    Args:
      path: a folder, or a tar file. With COCO instances the folder of images, or the one above it.
      annotations: the JSON file of COCO instances; only for those.

    Raises:
      InputError: it is missing, or nothing of that is in it, or several COCO files are.
    """
    if str(path).partition(":")[0] == "scenes":
        # Procedural scenes bring JAX, which readers of files do without.
        from sam_jax.data.scenes.scene_set import scene_set

        if annotations is not None:
            raise InputError("procedural scenes have their own masks: leave annotations out")
        return scene_set(str(path))
    path = Path(path)
    if not path.exists():
        raise InputError(f"there is no dataset at {path}")
    if annotations is not None:
        return _coco(path, _given(path, Path(annotations)))
    if path.suffix.lower() == ".json":
        raise InputError(
            f"{path} is a file of annotations; give the folder of images, and the file as "
            f"{_SAY_WHICH}"
        )
    if path.is_file():
        return Sa1bTars([path])
    return _opened(path)


def _opened(folder: Path) -> Dataset:
    inside = find_inside(folder)
    if inside.instances:
        return _coco(folder, _the_one(folder, inside.instances))
    if shards := sorted(folder.glob("*.tar")):
        return Sa1bTars(shards)
    if holds_pairs(folder):
        return Sa1bFolder(folder)
    above = find_above(folder)
    if above.instances:
        return _coco(folder, _the_one(folder, above.instances))
    if inside.elsewhere:
        # Its error says where images were looked for.
        return _coco(folder, _the_one(folder, inside.elsewhere))
    raise InputError(_nothing_found(folder, inside, above))


def _coco(path: Path, annotations: Path) -> CocoInstances:
    found = CocoInstances(
        annotations, picture_folders(path, annotations), path if path.is_dir() else None
    )
    if not found.has_masks:
        raise InputError(_no_masks(str(annotations)))
    return found


def _given(folder: Path, annotations: Path) -> Path:
    """The file, where it is there; else a path that was taken from the wrong folder is refused."""
    inside = folder / annotations
    if not annotations.is_absolute() and not annotations.exists() and inside.is_file():
        raise InputError(
            f"COCO file {str(annotations)!r}: there is no such file, but {str(inside)!r} is there; "
            "paths on the command line are relative to the working directory, those in a TOML file "
            "to the file's folder"
        )
    return annotations


def _the_one(folder: Path, files: list[Path]) -> Path:
    if len(files) > 1:
        raise InputError(
            f"{folder} has {named(files, folder)}; say which of them its annotations are with "
            f"{_SAY_WHICH}, or give the folder of one of them"
        )
    return files[0]


def _no_masks(files: str) -> str:
    return (
        f"{files} has boxes but no masks: segmentation is missing or empty in every annotation; "
        "export the labels with polygons or RLE"
    )


def _nothing_found(folder: Path, inside: FoundAnnotations, above: FoundAnnotations) -> str:
    if boxes := inside.boxes or above.boxes:
        return _no_masks(named(boxes, folder))
    text = (
        f"{folder} is no dataset that is known: neither a COCO file of instances, nor images with "
        "a JSON file of the same name beside them (SA-1B), nor tar shards of those"
    )
    if inside.seen:
        text += f"; its JSON files ({named(inside.seen, folder)}) are of another kind"
    return f"{text}; if its COCO file is elsewhere, name it with {_SAY_WHICH}"
