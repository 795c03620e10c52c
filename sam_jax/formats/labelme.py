"""labelme's annotations: a JSON file an image, its masks as bitmaps or polygons."""

import base64
import os
from pathlib import Path
from typing import Any

from sam_jax.files import written_aside
from sam_jax.formats.labelled import LabelledMask, labelled_masks
from sam_jax.formats.png import mask_png
from sam_jax.formats.polygons import mask_to_polygons
from sam_jax.formats.sa1b import Sa1bImage, json_bytes
from sam_jax.version import __version__

# The release whose form this is; it has masks as shapes.
_LABELME_VERSION = "5.4.0"
LABELME_BEGINNING = b'{"sam_jax":'


def write_labelme(
    path: str | os.PathLike,
    image: Sa1bImage,
    *,
    image_path: str | None = None,
    polygons: bool = False,
    simplify: float = 0.0,
) -> None:
    """Writes an image's masks for labelme; the file appears whole or not at all.

    A mask becomes one shape of type "mask", a bitmap of its box, which keeps holes and parts as
    they are. As polygons, each connected part is a shape, and the parts of a mask share a
    `group_id`; holes are joined to the outline around them by a line that is walked both ways.

    Args:
      path: of the JSON file; a file that is there is replaced.
      image: `label` ("object" where there is none), `segmentation` and `predicted_iou`, which goes
        into the shape's description, of the records are used.
      image_path: of the image, as seen from the JSON file's folder; the image's name if left out.
      polygons: polygons instead of bitmaps.
      simplify: how far polygons may be from the mask's outline, in pixels.

    Raises:
      InputError: a record is wrong.
      OSError: the file cannot be written; what was there before is left.
    """
    shapes: list[dict[str, Any]] = []
    for index, each in enumerate(labelled_masks(image)):
        shapes += _polygons(each, index, simplify) if polygons else [_bitmap(each)]
    height, width = image.size_hw
    content: dict[str, Any] = {
        "sam_jax": __version__,
        "version": _LABELME_VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image.file_name if image_path is None else Path(image_path).as_posix(),
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    with written_aside(path) as file:
        file.write(json_bytes(content))


def _bitmap(each: LabelledMask) -> dict[str, Any]:
    x, y, width, height = each.box
    # Both corners are pixels of the box.
    points = [[x, y], [x + width - 1, y + height - 1]]
    bitmap = base64.b64encode(mask_png(each.cut_out)).decode("ascii")
    return {**_shape(each, "mask", points, None), "mask": bitmap}


def _polygons(each: LabelledMask, index: int, simplify: float) -> list[dict[str, Any]]:
    found = mask_to_polygons(each.mask, simplify=simplify)
    group = index if len(found) > 1 else None
    rings = ([list(pair) for pair in zip(ring[::2], ring[1::2], strict=True)] for ring in found)
    return [_shape(each, "polygon", points, group) for points in rings]


def _shape(
    each: LabelledMask, kind: str, points: list[list[Any]], group: int | None
) -> dict[str, Any]:
    score = "" if each.score is None else f"predicted IoU {each.score:.3f}"
    return {
        "label": each.label,
        "points": points,
        "group_id": group,
        "description": score,
        "shape_type": kind,
        "flags": {},
    }
