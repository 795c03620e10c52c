"""What a dataset's path means: SA-1B's files, its tar shards, COCO instances, or scenes."""

import os
from pathlib import Path

from sam_jax.data.coco import CocoInstances
from sam_jax.data.sa1b import Sa1bFolder, Sa1bTars, holds_pairs
from sam_jax.data.samples import Dataset
from sam_jax.errors import InputError


def open_dataset(path: str | os.PathLike, annotations: str | os.PathLike | None = None) -> Dataset:
    """Opens a dataset of images and masks, and recognises by its files what it is.

    - Images with a JSON file of the same name beside them, as SA-1B has when it is unpacked, in the
      folder or those inside it.
    - Tar files of such pairs, as SA-1B is released in: one, or a folder of them.
    - COCO instances: a JSON file given as `annotations`, or the one at
      annotations/instances_*.json.
    - "scenes" or "scenes:held-out": procedural scenes that no run is trained on (`scene_set`), of
      the kinds of object that training has, or of those it never has. A folder of that name needs
      its absolute path.

    Its `description` says what was found.

    Args:
      path: a folder, or a tar file. With COCO instances the folder of images, or the one above it.
      annotations: the JSON file of COCO instances; only for those.

    Raises:
      InputError: it is missing, or nothing of that is in it.
    """
    if str(path).partition(":")[0] == "scenes":
        # Procedural scenes bring JAX, which readers of files do without.
        from sam_jax.data.scene_set import scene_set

        if annotations is not None:
            raise InputError("procedural scenes have their own masks: leave annotations out")
        return scene_set(str(path))
    path = Path(path)
    if not path.exists():
        raise InputError(f"there is no dataset at {path}")
    if annotations is not None:
        return _coco(path, Path(annotations))
    if path.suffix == ".json":
        raise InputError(f"{path} is a file of annotations; give the folder of images as well")
    if path.is_file():
        return Sa1bTars([path])
    instances = sorted(path.glob("annotations/instances_*.json"))
    if len(instances) > 1:
        names = ", ".join(each.name for each in instances)
        raise InputError(f"{path} has {names}; say which of them its annotations are")
    if instances:
        return _coco(path, instances[0])
    if shards := sorted(path.glob("*.tar")):
        return Sa1bTars(shards)
    if holds_pairs(path):
        return Sa1bFolder(path)
    raise InputError(
        f"{path} is no dataset that is known: neither images with a JSON file of the same name "
        "beside them (SA-1B), nor tar shards of those, nor annotations/instances_*.json (COCO)"
    )


def _coco(path: Path, annotations: Path) -> CocoInstances:
    split = annotations.stem.removeprefix("instances_")
    return CocoInstances(
        annotations, [path / split, path / "images" / split, path / "images", path]
    )
