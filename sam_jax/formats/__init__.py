"""Masks as files and pictures: RLE, polygons, PNG, overlays, and other programs' annotations.

Everything that is listed in `__all__` is imported from here; it is loaded when first used.

Encodings: `encode_rle` and `decode_rle` (COCO), `mask_to_polygons` and `polygons_to_mask`,
`encode_brush` (Label Studio), `mask_area`, `mask_box`.
Pictures: `mask_png`, `label_map`, `draw_overlay`.
Readers: `read_sa1b`, `read_coco`, `read_label_png` with `masks_of_labels`.
Writers: `write_sa1b`, `write_coco`, `write_yolo`, `write_labelme`, `write_label_studio`,
`write_cvat`, which take an image's masks as an `Sa1bImage`; `write_label_png`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sam_jax.formats.coco import CocoImage, read_coco, write_coco
    from sam_jax.formats.cvat import write_cvat
    from sam_jax.formats.label_png import (
        label_map,
        masks_of_labels,
        read_label_png,
        write_label_png,
    )
    from sam_jax.formats.label_studio import encode_brush, write_label_studio
    from sam_jax.formats.labelme import write_labelme
    from sam_jax.formats.overlay import draw_overlay
    from sam_jax.formats.png import mask_png
    from sam_jax.formats.polygons import mask_to_polygons, polygons_to_mask
    from sam_jax.formats.rle import Rle, decode_rle, encode_rle, mask_area, mask_box
    from sam_jax.formats.sa1b import Sa1bImage, read_sa1b, write_sa1b
    from sam_jax.formats.yolo import write_yolo

_HOMES = {
    "coco": ("CocoImage", "read_coco", "write_coco"),
    "cvat": ("write_cvat",),
    "label_png": ("label_map", "masks_of_labels", "read_label_png", "write_label_png"),
    "label_studio": ("encode_brush", "write_label_studio"),
    "labelme": ("write_labelme",),
    "overlay": ("draw_overlay",),
    "png": ("mask_png",),
    "polygons": ("mask_to_polygons", "polygons_to_mask"),
    "rle": ("Rle", "decode_rle", "encode_rle", "mask_area", "mask_box"),
    "sa1b": ("Sa1bImage", "read_sa1b", "write_sa1b"),
    "yolo": ("write_yolo",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CocoImage",
    "Rle",
    "Sa1bImage",
    "decode_rle",
    "draw_overlay",
    "encode_brush",
    "encode_rle",
    "label_map",
    "mask_area",
    "mask_box",
    "mask_png",
    "mask_to_polygons",
    "masks_of_labels",
    "polygons_to_mask",
    "read_coco",
    "read_label_png",
    "read_sa1b",
    "write_coco",
    "write_cvat",
    "write_label_png",
    "write_label_studio",
    "write_labelme",
    "write_sa1b",
    "write_yolo",
]


def __getattr__(name: str) -> Any:
    """Imports the module that holds a public name."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'sam_jax.formats' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"sam_jax.formats.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
