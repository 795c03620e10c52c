"""COCO instances: the masks of many images in one JSON file, as RLE or polygons."""

import os
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool

from sam_jax.errors import InputError
from sam_jax.files import written_aside
from sam_jax.formats.polygons import mask_to_polygons, polygons_to_mask
from sam_jax.formats.rle import Rle, encode_rle, mask_area, mask_box
from sam_jax.formats.sa1b import (
    Sa1bImage,
    checked_fields,
    checked_id,
    checked_list,
    checked_name,
    checked_segmentation,
    checked_size,
    entry,
    json_bytes,
    naming,
    read_json,
    unused_id,
)
from sam_jax.one_line import one_line

# What records have beyond COCO's own keys; each is written and read where it is there.
_OWN_FIELDS = ("predicted_iou", "stability_score", "crop_box", "point_coords")

# So many images that annotations are of, and that are not listed, are named.
_NAMED = 5

_BEGINNING = (
    b'{"info":{},"licenses":[],"categories":[{"id":1,"name":"object","supercategory":"object"}],'
    b'"annotations":['
)


@dataclass(frozen=True)
class CocoImage:
    """An image of a COCO file and its masks.

    Attributes:
      file_name: the image's.
      size_hw: its height and width in pixels.
      image_id: its number in the file.
      records: its annotations in the file's order: `id`, `category_id`, `iscrowd`, `segmentation`
        as compressed RLE, `area`, `bbox`, and what `write_coco` adds where it is there.
    """

    file_name: str
    size_hw: tuple[int, int]
    image_id: int
    records: list[dict[str, Any]] = field(default_factory=list)

    __repr__ = one_line


def write_coco(
    path: str | os.PathLike,
    images: Iterable[Sa1bImage],
    *,
    polygons: bool = False,
    simplify: float = 0.0,
) -> None:
    """Writes one COCO file of instances for many images; it appears whole or not at all.

    Images and annotations are numbered from 1 in their order, whatever their own numbers; the one
    category is 1, "object". `area` and `bbox` are computed from the mask, as pycocotools does.
    `predicted_iou`, `stability_score`, `crop_box` and `point_coords` are kept where a record has
    them. Masks without a pixel are left out (their stability score is no number).

    Args:
      path: of the JSON file; directories are made, and a file that is there is replaced.
      images: taken once and one at a time, so they may be read as they are written; only names and
        sizes stay in memory. A record's `segmentation` may have any form `write_sa1b` takes.
      polygons: polygons (see `mask_to_polygons`) instead of RLE.
      simplify: how far polygons may be from the mask's outline, in pixels.

    Raises:
      InputError: an entry of a record is wrong or of another size than its image; the message says
        which; `simplify` is given without `polygons`, or is no distance.
      OSError: the file cannot be written; what was there before is left.
    """
    if simplify and not polygons:
        raise InputError("simplify is for polygons; ask for those, or leave it out")
    infos: list[bytes] = []
    count = 0
    with written_aside(path) as file:
        file.write(_BEGINNING)
        for image in images:
            height, width = image.size_hw
            info = {"id": len(infos) + 1, "file_name": image.file_name}
            infos.append(json_bytes({**info, "width": width, "height": height}))
            for index, record in enumerate(image.records):
                with naming(f"record {index} of image {image.file_name!r}"):
                    rle, mask = checked_segmentation(entry(record, "segmentation"), image.size_hw)
                    if not mask.any():
                        continue
                    fields = checked_fields(record, [key for key in _OWN_FIELDS if key in record])
                annotation = {
                    "id": count + 1,
                    "image_id": len(infos),
                    "category_id": 1,
                    "iscrowd": 0,
                    "area": mask_area(mask),
                    "bbox": mask_box(mask),
                    "segmentation": _whole_polygons(mask, simplify) if polygons else rle,
                    **fields,
                }
                file.write(b",\n" * (count > 0) + json_bytes(annotation))
                count += 1
        file.write(b'],"images":[' + b",\n".join(infos) + b"]}")


def read_coco(path: str | os.PathLike) -> list[CocoImage]:
    """Reads a COCO file of instances, by whomever it was written.

    Polygons are drawn by `polygons_to_mask`; where they are not along pixel edges, pycocotools may
    decide differently about pixels on the outline. Areas and boxes are the file's; those that are
    whole numbers are integers.

    Returns:
      The images in the file's order, each with its masks, also those that have none.

    Raises:
      InputError: the file cannot be read, is cut short or no JSON, or an entry is missing or wrong;
        the message names the file and the entry.
    """
    with naming(f"COCO file {os.fspath(path)!r}"):
        content = read_json(path)
        images: dict[int, CocoImage] = {}
        ids: set[int] = set()
        for index, image in enumerate(checked_list(content, "images")):
            with naming(f"images[{index}]"):
                image_id = unused_id(image, ids)
                images[image_id] = CocoImage(checked_name(image), checked_size(image), image_id)
        ids = set()
        for index, annotation in enumerate(checked_list(content, "annotations")):
            with naming(f"annotations[{index}]"):
                number = unused_id(annotation, ids)
                image_id = checked_id(entry(annotation, "image_id"))
                if image_id not in images:
                    raise InputError(_unknown_images(content["annotations"], ids_listed=images))
                record = _record(annotation, images[image_id].size_hw)
                images[image_id].records.append({"id": number, **record})
        return list(images.values())


def _unknown_images(annotations: list[Any], ids_listed: Container[int]) -> str:
    """What is wrong with annotations, counted and named, whose image the file does not list."""
    ids = [each.get("image_id") for each in annotations if isinstance(each, dict)]
    unknown = [each for each in ids if isinstance(each, int | float) and each not in ids_listed]
    different = list(dict.fromkeys(unknown))
    named = ", ".join(map(str, different[:_NAMED])) + ", ..." * (len(different) > _NAMED)
    text = f"there is no image with the image_id {named}"
    return text if len(unknown) == 1 else f"{text} ({len(unknown):,} such annotations)"


def _whole_polygons(mask: Bool[np.ndarray, "height width"], simplify: float) -> list[list[int]]:
    """Corners are whole numbers, and shorter as such: 12 and not 12.0."""
    return [list(map(int, polygon)) for polygon in mask_to_polygons(mask, simplify=simplify)]


def _record(annotation: Any, size_hw: tuple[int, int]) -> dict[str, Any]:
    category_id = checked_id(entry(annotation, "category_id"))
    iscrowd = annotation.get("iscrowd", 0)
    if iscrowd not in (0, 1):
        raise InputError("iscrowd is 0 or 1")
    segmentation = entry(annotation, "segmentation")
    if isinstance(segmentation, list):
        with naming("segmentation"):
            rle: Rle = encode_rle(polygons_to_mask(segmentation, size_hw))
    else:
        rle, _ = checked_segmentation(segmentation, size_hw)
    names = ["area", "bbox", *(key for key in _OWN_FIELDS if key in annotation)]
    return {
        "category_id": category_id,
        "iscrowd": int(iscrowd),
        "segmentation": rle,
        **checked_fields(annotation, names),
    }
