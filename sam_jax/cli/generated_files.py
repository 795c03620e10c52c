"""The files of generated masks: what is there already, and what appears as each image is finished.

An image is finished when its JSON file is there. It is written after the image's other files, and
says in its entry "sam_jax" by which model and options it was made and what these files are.
"""

import errno
import io
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam_jax.cli.progress import ProgressBar
from sam_jax.errors import InputError
from sam_jax.files import part_name

if TYPE_CHECKING:
    import numpy as np

    from sam_jax.formats.sa1b import Sa1bImage

LABELS, OVERLAY = "_labels.png", "_overlay.jpg"
OVERLAY_WITH_IDS = "overlay with ids"
INSTANCES = {"coco-rle": "instances_rle.json", "polygon": "instances_polygon.json"}

_JPEG_QUALITY = 90
# How every file of write_sa1b begins: one of them that was cut short is known by it. The files of
# the SA-1B dataset have spaces there.
_IMAGE_BEGINNING = b'{"image":{"image_id":'
# And every file of write_coco, which is too large to be read for knowing it.
_INSTANCES_BEGINNING = b'{"info":{},"licenses":[],"categories":[{"id":1,"name":"object"'


@dataclass(frozen=True)
class EarlierResult:
    """What an earlier run left of an image.

    Attributes:
      settings: the model and options its masks were made by (`settings_text`); None if there are
        none to keep.
      pictures: names of the image's other files, and what each shows.
    """

    settings: str | None = None
    pictures: Mapping[str, str] = field(default_factory=dict)

    def has_pictures(self, output: Path, pictures: Mapping[str, str]) -> bool:
        """Whether pictures that show this were made, and are still there."""
        return all(
            self.pictures.get(name) == shows and (output / name).is_file()
            for name, shows in pictures.items()
        )


def settings_text(fingerprint: str, dtype: str, options: Mapping[str, Any]) -> str:
    """What decides which masks an image has, as text to compare."""
    deciding = {name: value for name, value in options.items() if name != "points_per_batch"}
    settings = {"fingerprint": fingerprint, "dtype": dtype, "options": deciding}
    # One string for thousands of images.
    return sys.intern(json.dumps(settings, sort_keys=True))


def check_names(images: Sequence[Path], output: Path, instances: Sequence[str]) -> None:
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
        if Path(name).stem in stems:
            raise InputError(
                f"an image named {Path(name).stem} takes the name of {name}; rename it"
            )


def earlier_result(output: Path, image: Path, resume: bool) -> EarlierResult:
    """What is in an image's JSON file, if there is one.

    Args:
      output: the folder.
      image: the image's file.
      resume: whether its masks may be kept.

    Raises:
      InputError: the file is no result of this command, so it must not be replaced.
    """
    path = output / f"{image.stem}.json"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return EarlierResult()
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        record = json.loads(content)
        ours = record["sam_jax"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        # Whole files of others are kept; of ours, a failing disk may have left a part.
        cut_short = isinstance(error, ValueError) and content.startswith(_IMAGE_BEGINNING)
        if not content.strip(b"\0") or (resume and cut_short):
            return EarlierResult()
        raise _not_ours(path) from None
    if not isinstance(ours, dict):
        raise _not_ours(path)
    try:
        checkpoint, options, files = ours["checkpoint"], ours["options"], ours["files"]
        settings = settings_text(checkpoint["fingerprint"], checkpoint["dtype"], options)
        of_this_image = record["image"]["file_name"] == image.name
        # The names are what they would be: nothing else is ever replaced or removed.
        names = [image.stem + ending for ending in (LABELS, OVERLAY)]
        pictures = {name: files[name] for name in names if isinstance(files.get(name), str)}
    except (TypeError, KeyError, AttributeError):
        return EarlierResult()
    return EarlierResult(settings if resume and of_this_image else None, pictures)


def check_instances(output: Path, kinds: Sequence[str]) -> None:
    """Refuses to replace a file of instances that is not an earlier result.

    Raises:
      InputError: there is one.
    """
    for kind in kinds:
        path = output / INSTANCES[kind]
        try:
            with open(path, "rb") as file:
                beginning = file.read(len(_INSTANCES_BEGINNING))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _unreadable(path, error) from None
        if beginning.strip(b"\0") and beginning != _INSTANCES_BEGINNING:
            raise _not_ours(path)


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
        if name.endswith(LABELS):
            contents[name] = label_png(masks(), pixels.shape[:2])
        else:
            # As in the JSON, and as the values of the label PNG.
            ids = [str(number) for number in range(1, len(records) + 1)]
            texts = ids if shows == OVERLAY_WITH_IDS else []
            file = io.BytesIO()
            overlay = draw_overlay(pixels, masks(), texts=texts)
            overlay.save(file, format="JPEG", quality=_JPEG_QUALITY)
            contents[name] = file.getvalue()
    return contents


def write_image(
    output: Path,
    image: Path,
    pixels: "np.ndarray",
    records: Sequence[dict[str, Any]],
    entry: Mapping[str, Any],
    pictures: Mapping[str, str],
    replaced: EarlierResult | None,
) -> None:
    """Writes an image's files; pictures that an earlier run made of other masks are removed.

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
    with _appearing_in_turn(output, f"{image.stem}.json", replaced) as aside:
        for name, content in contents.items():
            (aside / name).write_bytes(content)
        write_sa1b(
            aside / f"{image.stem}.json",
            records,
            file_name=image.name,
            size_hw=pixels.shape[:2],
            extra={"sam_jax": entry},
        )


@contextmanager
def _appearing_in_turn(folder: Path, last: str, replaced: EarlierResult | None) -> Iterator[Path]:
    """A folder to fill; its files move into `folder` when the block ends, `last` after the others.

    As `last` vouches for the others, one of other masks goes before they change.
    """
    # Named for its file, so that a later run knows what one that was killed has left.
    aside = folder / part_name(last)
    aside.mkdir(parents=True)
    try:
        yield aside
        others = [file.name for file in aside.iterdir() if file.name != last]
        for name in (*others, last):
            if (folder / name).is_dir():
                raise IsADirectoryError(errno.EISDIR, f"{name} is a folder there")
        if replaced and (others or replaced.pictures):
            (folder / last).unlink(missing_ok=True)
            for name in replaced.pictures:
                (folder / name).unlink(missing_ok=True)
        for name in (*others, last):
            os.replace(aside / name, folder / name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_instances(output: Path, kind: str, images: Sequence[Path], simplify: float) -> Path:
    """One COCO file of all finished images, of which one is in memory at a time.

    Raises:
      InputError: an image's JSON file is damaged.
      OSError: the file cannot be written.
    """
    from sam_jax.formats.coco import write_coco
    from sam_jax.formats.sa1b import read_sa1b

    path = output / INSTANCES[kind]

    def results(tell: Callable[[int], None]) -> Iterator["Sa1bImage"]:
        for number, image in enumerate(images, 1):
            file = output / f"{image.stem}.json"
            try:
                yield read_sa1b(file)
            except InputError as error:
                raise InputError(f"{error}; remove {file} and go on with --resume") from None
            tell(number)

    with ProgressBar(f"writing {path.name}", "images", len(images)) as progress:
        found = results(progress.update)
        write_coco(path, found, polygons=kind == "polygon", simplify=simplify)
    return path
