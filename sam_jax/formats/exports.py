"""Masks of images in the forms of other programs, by the name of the form."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from sam_jax.errors import InputError
from sam_jax.formats.coco import write_coco
from sam_jax.formats.cvat import write_cvat
from sam_jax.formats.label_studio import write_label_studio
from sam_jax.formats.labelme import write_labelme
from sam_jax.formats.sa1b import Sa1bImage
from sam_jax.formats.yolo import write_yolo


@dataclass(frozen=True)
class Export:
    """A form of another program.

    Attributes:
      ending: of the name of an image's file or folder.
      write: takes its path, the image, and how far polygons may be from the outline.
    """

    ending: str
    write: Callable[[Path, Sa1bImage, float], None]


EXPORTS: Mapping[str, Export] = MappingProxyType(
    {
        "coco-rle": Export("_instances_rle.json", lambda path, image, _: write_coco(path, [image])),
        "polygon": Export(
            "_instances_polygon.json",
            lambda path, image, simplify: write_coco(
                path, [image], polygons=True, simplify=simplify
            ),
        ),
        "yolo": Export(
            "_yolo", lambda path, image, simplify: write_yolo(path, [image], simplify=simplify)
        ),
        "labelme": Export("_labelme.json", lambda path, image, _: write_labelme(path, image)),
        "label-studio": Export(
            "_label_studio.json", lambda path, image, _: write_label_studio(path, [image])
        ),
        "cvat": Export("_cvat.xml", lambda path, image, _: write_cvat(path, [image])),
    }
)


def write_exports(
    folder: str | os.PathLike,
    stem: str,
    image: Sa1bImage,
    formats: Iterable[str],
    *,
    simplify: float = 0.0,
) -> dict[str, str]:
    """Writes an image's masks in several forms.

    Args:
      folder: to write to.
      stem: what the names of files begin with.
      image: its records, with a `label` where a mask has a name.
      formats: keys of `EXPORTS`.
      simplify: how far polygons may be from the outline, in pixels.

    Returns:
      The name of the file or folder of each form.

    Raises:
      InputError: there is no such form, or a record is wrong.
      OSError: a file cannot be written.
    """
    names = {kind: stem + checked_export(kind).ending for kind in formats}
    for kind, name in names.items():
        EXPORTS[kind].write(Path(folder) / name, image, simplify)
    return names


def checked_export(kind: str) -> Export:
    """The form of this name, or an InputError."""
    if kind not in EXPORTS:
        raise InputError(f"there is no format {kind!r}; formats are {', '.join(EXPORTS)}")
    return EXPORTS[kind]
