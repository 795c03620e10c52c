"""The files of generated masks: what is there already, and what appears as each image is finished.

An image is finished when its JSON file is there. It is written after the image's other files, and
says in its entry "sam_jax" by which model and options it was made, from which image and embedding,
and what these files are. Pictures carry a mark, so that those of a run that was killed before the
JSON are told from the user's own.
"""

import io
import json
import os
import re
import shutil
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam_jax.errors import InputError
from sam_jax.files import part_name
from sam_jax.folder_runs.generated_exports import remove_exports
from sam_jax.folder_runs.image_list import ImageFile
from sam_jax.folder_runs.index import MASKS_INDEX, is_index

if TYPE_CHECKING:
    import numpy as np


LABELS, OVERLAY = "_labels.png", "_overlay.jpg"
OVERLAY_WITH_IDS = "overlay with ids"

_JPEG_QUALITY = 90
# Among a picture's first bytes, as a JPEG comment or PNG text: whose it is, and what it shows.
_MARK = "sam-jax generate: {}."
_MARKED = re.compile(rb"sam-jax generate: ([a-z ]+)\.")
_MARK_WITHIN = 256
# Signature and header: what comes before any other chunk.
_PNG_HEADER_BYTES = 33
# How every file of write_sa1b begins: one of them that was cut short is known by it. The files of
# the SA-1B dataset have spaces there.
_IMAGE_BEGINNING = b'{"image":{"image_id":'


@dataclass(frozen=True)
class EarlierResult:
    """What an earlier run left of an image.

    Attributes:
      settings: the model and options its masks were made by (`settings_text`); None if there are
        none to keep.
      made_from: what identifies the files that they were made from.
      pictures: names of the image's other files that are there, and what each shows; nothing where
        that is not sure.
      masks: how many there are.
    """

    settings: str | None = None
    made_from: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)
    masks: int = 0

    def has_pictures(self, pictures: Mapping[str, str]) -> bool:
        """Whether pictures that show this are there."""
        return all(self.pictures.get(name) == shows for name, shows in pictures.items())


def settings_text(fingerprint: str, dtype: str, options: Mapping[str, Any]) -> str:
    """What decides which masks an image has, as text to compare."""
    deciding = {name: value for name, value in options.items() if name != "points_per_batch"}
    settings = {"fingerprint": fingerprint, "dtype": dtype, "options": deciding}
    # One string for thousands of images.
    return sys.intern(json.dumps(settings, sort_keys=True))


def check_names(images: Sequence[ImageFile], output: Path, instances: Sequence[str]) -> None:
    """Refuses images whose files would take each other's names.

    Raises:
      InputError: two images have one stem, or an image's JSON has the name of a file of instances.
    """
    stems = Counter(image.stem for image in images)
    stem, count = stems.most_common(1)[0]
    if count > 1:
        same = " and ".join(image.name for image in images if image.stem == stem)
        raise InputError(
            f"{same} would both be written to {output / stem}.json; rename one, or move it to "
            "another folder"
        )
    for name in instances:
        if name.endswith(".json") and Path(name).stem in stems:
            raise InputError(
                f"an image named {Path(name).stem} takes the name of {name}; rename it"
            )


def earlier_result(
    output: Path, image: ImageFile, resume: bool, endings: Iterable[str]
) -> EarlierResult:
    """What there is of an image.

    Args:
      output: the folder.
      image: the image's file.
      resume: whether its masks may be kept.
      endings: of the names of the pictures to draw.

    Raises:
      InputError: the JSON file, or one of the name of a picture to draw, is no result of this
        command, so it must not be replaced.
    """
    record = _earlier_record(output / f"{image.stem}.json", resume)
    ours = record.get("sam_jax", {})
    listed = ours.get("files")
    pictures = _earlier_pictures(output, image, listed if isinstance(listed, dict) else {})
    for name in (image.stem + ending for ending in endings):
        if name not in pictures and os.path.lexists(output / name):
            raise _not_ours(output / name)
    try:
        checkpoint, made_from = ours["checkpoint"], dict(ours["made_from"])
        settings = settings_text(checkpoint["fingerprint"], checkpoint["dtype"], ours["options"])
        of_this_name = record["image"]["file_name"] == image.name
        masks = len(record["annotations"])
    except (TypeError, KeyError, ValueError):
        return EarlierResult(pictures=pictures)
    kept = settings if resume and of_this_name else None
    return EarlierResult(kept, made_from, pictures, masks)


def _earlier_record(path: Path, resume: bool) -> dict[str, Any]:
    """What is in an image's JSON file; nothing, if there is none or it is damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        record = json.loads(content)
        is_ours = isinstance(record["sam_jax"], dict)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        # Whole files of others are kept; of ours, a failing disk may have left a part.
        cut_short = isinstance(error, ValueError) and content.startswith(_IMAGE_BEGINNING)
        if not content.strip(b"\0") or (resume and cut_short):
            return {}
        is_ours = False
    if not is_ours:
        raise _not_ours(path)
    return record


def _earlier_pictures(output: Path, image: ImageFile, listed: Mapping[str, Any]) -> dict[str, str]:
    """The image's pictures that are there, marked as ours or listed in its JSON file."""
    pictures = {}
    # The names are what they would be: nothing else is ever replaced or removed.
    for name in (image.stem + LABELS, image.stem + OVERLAY):
        try:
            with open(output / name, "rb") as file:
                beginning = file.read(_MARK_WITHIN)
        except OSError:
            continue
        mark = _MARKED.search(beginning)
        # A run that was killed may have put a picture there that the JSON does not list, or lists
        # as the one before.
        shows = mark[1].decode() if mark else ""
        if mark or name in listed or not beginning.strip(b"\0"):
            pictures[name] = shows if shows == listed.get(name) else ""
    return pictures


def _not_ours(path: Path) -> InputError:
    return InputError(f"{path} exists and is no result of this command; choose another --output")


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot read {path}: {error.strerror}; choose another --output")


def _draw_pictures(
    pictures: Mapping[str, str],
    pixels: "np.ndarray",
    records: Sequence[dict[str, Any]],
) -> dict[str, bytes]:
    """The content of the files that are asked for; masks are decoded one at a time."""
    from sam_jax.formats.label_png import label_png
    from sam_jax.formats.overlay import draw_overlay
    from sam_jax.formats.rle import decode_rle

    def masks() -> Iterator["np.ndarray"]:
        return (decode_rle(record["segmentation"]) for record in records)

    contents = {}
    for name, shows in pictures.items():
        mark = _MARK.format(shows)
        if name.endswith(LABELS):
            contents[name] = _with_png_text(label_png(masks(), pixels.shape[:2]), mark)
        else:
            # As in the JSON, and as the values of the label PNG.
            ids = [str(number) for number in range(1, len(records) + 1)]
            texts = ids if shows == OVERLAY_WITH_IDS else []
            file = io.BytesIO()
            overlay = draw_overlay(pixels, masks(), texts=texts)
            overlay.save(file, format="JPEG", quality=_JPEG_QUALITY, comment=mark)
            contents[name] = file.getvalue()
    return contents


def _with_png_text(content: bytes, text: str) -> bytes:
    chunk = b"tEXtSoftware\0" + text.encode()
    sizes = (len(chunk) - 4).to_bytes(4), zlib.crc32(chunk).to_bytes(4)
    return content[:_PNG_HEADER_BYTES] + sizes[0] + chunk + sizes[1] + content[_PNG_HEADER_BYTES:]


def write_image(
    output: Path,
    image: ImageFile,
    pixels: "np.ndarray",
    records: Sequence[dict[str, Any]],
    entry: Mapping[str, Any],
    pictures: Mapping[str, str],
    replaced: EarlierResult | None,
) -> None:
    """Writes an image's files; what earlier runs made of its other masks is removed.

    Args:
      output: the folder.
      image: the image's file.
      pixels: what was read of it.
      records: its masks.
      entry: what the JSON holds under "sam_jax".
      pictures: names of the files to draw, and what each shows.
      replaced: what an earlier run left, unless its masks are the same.

    Raises:
      OSError: they cannot be written; none is half-written then, and none finished that is not.
    """
    from sam_jax.formats.sa1b import write_sa1b

    contents = _draw_pictures(pictures, pixels, records)
    name = f"{image.stem}.json"

    def remove_outdated() -> None:
        if replaced is not None:
            _remove_outdated(output, name, replaced, contents)

    with _appearing_in_turn(output, name, remove_outdated) as aside:
        for picture, content in contents.items():
            (aside / Path(picture).name).write_bytes(content)
        write_sa1b(
            aside / Path(name).name,
            records,
            file_name=image.name,
            size_hw=pixels.shape[:2],
            extra={"sam_jax": entry},
        )


def _remove_outdated(
    output: Path, name: str, replaced: EarlierResult, pictures: Collection[str]
) -> None:
    """Removes the files that must go before an image has other masks.

    In this order, what is left is true wherever a run is killed.
    """
    there = (output / name).exists()
    if there:
        remove_exports(output)
        with suppress(OSError):
            if is_index(output / MASKS_INDEX):
                (output / MASKS_INDEX).unlink()
    for picture in replaced.pictures:
        (output / picture).unlink(missing_ok=True)
    # Without pictures, the new JSON takes the place of the old one at once.
    if there and (pictures or replaced.pictures):
        (output / name).unlink(missing_ok=True)


@contextmanager
def _appearing_in_turn(
    folder: Path, last: str, remove_outdated: Callable[[], None]
) -> Iterator[Path]:
    """A folder to fill; its files move to where `last` lies when the block ends, `last` at the end.

    Files of `folder` that are outdated then are removed before.
    """
    # Named for its file, so that a later run knows what one that was killed has left.
    place, name = (folder / last).parent, Path(last).name
    aside = place / part_name(name)
    aside.mkdir(parents=True)
    try:
        yield aside
        remove_outdated()
        others = [file.name for file in aside.iterdir() if file.name != name]
        for new in (*others, name):
            os.replace(aside / new, place / new)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        while place != folder:  # folders that stay empty
            with suppress(OSError):
                place.rmdir()
            place = place.parent
