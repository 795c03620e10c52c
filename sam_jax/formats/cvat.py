"""CVAT's XML, "CVAT for images 1.1", with masks as its `mask` elements."""

import os
import shutil
from collections.abc import Iterable
from tempfile import TemporaryFile
from xml.sax.saxutils import escape, quoteattr

from sam_jax.errors import InputError
from sam_jax.files import written_aside
from sam_jax.formats.labelled import LabelledMask, labelled_masks
from sam_jax.formats.rle import mask_to_counts
from sam_jax.formats.sa1b import Sa1bImage

CVAT_BEGINNING = b'<?xml version="1.0" encoding="utf-8"?>\n<!-- Written by sam_jax'


def write_cvat(path: str | os.PathLike, images: Iterable[Sa1bImage]) -> None:
    """Writes one file of annotations for many images; it appears whole or not at all.

    Masks are kept exactly, with holes and parts: each is the lengths of its runs within its box,
    row by row, outside first. CVAT takes the file as "CVAT 1.1" into a task with images of these
    names and with these labels.

    Args:
      path: of the XML file; a file that is there is replaced.
      images: taken once and one at a time; `label` ("object" where there is none) and
        `segmentation` of the records are used.

    Raises:
      InputError: a record is wrong, or an image's name cannot stand in XML.
      OSError: the file cannot be written; what was there before is left.
    """
    labels: dict[str, None] = {}
    count = 0
    # What comes first in the file, the labels, is known last.
    with written_aside(path) as file, TemporaryFile() as body:
        for number, image in enumerate(images):
            height, width = image.size_hw
            if not image.file_name.isprintable():
                raise InputError(f"the name {image.file_name!r} cannot stand in XML; rename it")
            name = quoteattr(image.file_name)
            head = f'  <image id="{number}" name={name} width="{width}" height="{height}">\n'
            body.write(head.encode())
            for each in labelled_masks(image):
                labels[each.label] = None
                body.write(_element(each).encode())
            body.write(b"  </image>\n")
            count += 1
        file.write(CVAT_BEGINNING + b" -->\n<annotations>\n  <version>1.1</version>\n")
        file.write(_meta(count, labels).encode())
        body.seek(0)
        shutil.copyfileobj(body, file)
        file.write(b"</annotations>\n")


def _meta(count: int, labels: Iterable[str]) -> str:
    entries = "".join(
        f"<label><name>{escape(label)}</name><type>mask</type><attributes></attributes></label>"
        for label in labels
    )
    return (
        f"  <meta><task><size>{count}</size><mode>annotation</mode>"
        f"<labels>{entries}</labels></task></meta>\n"
    )


def _element(each: LabelledMask) -> str:
    x, y, width, height = each.box
    # Of the transposed mask, columns are rows.
    counts = ", ".join(map(str, mask_to_counts(each.cut_out.T).tolist()))
    return (
        f'    <mask label={quoteattr(each.label)} source="auto" occluded="0" rle="{counts}" '
        f'left="{x}" top="{y}" width="{width}" height="{height}" z_order="0"></mask>\n'
    )
