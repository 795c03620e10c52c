"""COCO instances for training: one JSON file of all annotations, and a folder of images.

The file is read once to find where each image's annotations stand in it. They are read again, and
their masks decoded, when their image's turn comes: what is kept, and handed to worker processes, is
a few numbers an annotation.
"""

import json
import os
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from sam_jax.data.coco_files import find_each, find_place, from_url, is_file_name, shortened
from sam_jax.data.fingerprints import fingerprint
from sam_jax.data.samples import BROKEN_ANNOTATIONS, CANNOT_READ, NOT_LISTED, Sample, blaming
from sam_jax.errors import InputError
from sam_jax.formats.sa1b import (
    checked_id,
    checked_name,
    checked_size,
    entry,
    naming,
    parse_json,
    unused_id,
)

# So many of the images that annotations are of, and that are not listed, are named.
_NAMED = 5
_SPACE = re.compile(r"[ \t\n\r]*")
_LISTS = ("images", "annotations")
# File name, and height and width.
_Info = tuple[str, tuple[int, int]]
_UTF8_MARK = "\xef\xbb\xbf"


class _Objects(NamedTuple):
    """The images; where objects that are no crowds stand in the file; which image each is in."""

    infos: list[_Info]
    spans: Int64[np.ndarray, "objects 2"]
    image_of: Int64[np.ndarray, " objects"]
    left_out: Counter[str]
    # What is wrong with the first entry that is broken, and with those of images not listed, if
    # any is.
    problems: dict[str, str]
    has_masks: bool


class CocoInstances:
    """Images of a COCO file that have annotations other than of crowds.

    Entries that cannot be used are left out, and the others are used.

    Attributes:
      left_out: how many entries of the file these were, by reason.
      has_masks: whether any object has a segmentation; files for detection have boxes alone.
    """

    def __init__(
        self,
        annotations: str | os.PathLike,
        folders: Sequence[str | os.PathLike],
        below: str | os.PathLike | None = None,
    ) -> None:
        """Reads the file once, and finds the images.

        Args:
          annotations: the JSON file.
          folders: that its file names may be in; the one that has most of some images, with as
            little as need be of the beginning of their names left out.
          below: a folder; images that are in none of the others are looked for in all folders
            inside it.

        Raises:
          InputError: the file cannot be read, is no such JSON, or has no objects that can be used
            and are no crowds; or none of its images is there, or one is there several times.
        """
        self._annotations = Path(annotations)
        with naming(f"COCO file {os.fspath(annotations)!r}"):
            infos, spans, image_of, left_out, problems, has_masks = _objects(self._annotations)
            self._problems = [
                f"{count:,} {reason} ({problems[reason]})" for reason, count in left_out.items()
            ]
            if not len(spans):
                raise InputError(
                    f"none of its objects can be used: {'; '.join(self._problems)}"
                    if self._problems
                    else "it has no objects, or only crowds"
                )
        self.left_out = dict(left_out)
        self.has_masks = has_masks
        # The annotations of an image after each other, in the file's order.
        order = np.argsort(image_of, kind="stable")
        self._spans = spans[order]
        kept, self._first = np.unique(image_of[order], return_index=True)
        names = [infos[number][0] for number in kept]
        self._names = np.array([os.fsencode(name) for name in names], np.bytes_)
        self._sizes = np.array([infos[number][1] for number in kept], np.int64)
        self._images, files = self._found(
            names, [Path(folder) for folder in folders], None if below is None else Path(below)
        )
        # Where each is in the folder.
        self._files = np.array([os.fsencode(file) for file in files], np.bytes_)

    @property
    def description(self) -> str:
        """What it is, and of how many images."""
        text = (
            f"{len(self):,} images with {len(self._spans):,} objects of {self._annotations}, "
            f"in {self._images}"
        )
        if unusable := sum(self.left_out.values()):
            text += f"; {unusable:,} entries that cannot be used are left out"
        return ": ".join([text, "; ".join(self._problems)] if self._problems else [text])

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """The image's file name."""
        return os.fsdecode(self._names[index])

    def __getitem__(self, index: int) -> Sample:
        """Reads a sample; raises RecordError where it cannot be used."""
        name = self.name(index)
        behind = self._first[index + 1] if index + 1 < len(self) else len(self._spans)
        with blaming(CANNOT_READ, name):
            image = (self._images / os.fsdecode(self._files[index])).read_bytes()
            with open(self._annotations, "rb") as file:
                texts = []
                for begin, end in self._spans[self._first[index] : behind].tolist():
                    file.seek(begin)
                    texts.append(file.read(end - begin))
        with blaming(BROKEN_ANNOTATIONS, name):
            masks = [_segmentation(parse_json(text)) for text in texts]
        height, width = self._sizes[index].tolist()
        return Sample(name, image, (height, width), masks)

    def fingerprint(self) -> str:
        """Changes with names, sizes and places of the images and their annotations."""
        return fingerprint(self._images, self._files, self._sizes, self._spans)

    def _found(
        self, names: list[str], folders: list[Path], below: Path | None
    ) -> tuple[Path, list[str]]:
        """The folder of the images, and their paths in it."""
        place, all_there = find_place(names, folders)
        if place is not None and (all_there or below is None):
            return place.folder, [shortened(name, place.outside) for name in names]
        if below is not None and (found := find_each(names, place, below)):
            # When their turn comes they are skipped, as damaged ones are.
            if missing := [name for name in names if name not in found]:
                self._problems.append(f"{len(missing):,} images are not there ({missing[0]})")
            return below, [found.get(name, name) for name in names]
        looked = ", ".join(map(str, dict.fromkeys(folders)))
        raise InputError(
            f"the images of {self._annotations} are not there: looked for {names[0]} and others in "
            f"{looked}" + ("" if below is None else f" and all folders in {below}")
        )


def _objects(path: Path) -> _Objects:
    text = _text(path)
    infos: dict[int, _Info] = {}
    used: set[int] = set()
    spans, image_ids = array("q"), array("q")
    found = dict.fromkeys(_LISTS, 0)
    left_out: Counter[str] = Counter()
    problems: dict[str, str] = {}
    has_masks = False
    for key, begin, end, value in _elements(text):
        try:
            if key == "images":
                # Again, as UTF-8: names may be in any alphabet.
                value = parse_json(text[begin:end].encode("latin-1"))
                info = _file_name(value), checked_size(value)
                infos[unused_id(value, used)] = info
            elif not _is_crowd(value):
                image_ids.append(checked_id(entry(value, "image_id")))
                spans.extend([begin, end])
                has_masks = has_masks or bool(value.get("segmentation"))
        except InputError as error:
            problems.setdefault(BROKEN_ANNOTATIONS, f"{key}[{found[key]}]: {error}")
            left_out[BROKEN_ANNOTATIONS] += 1
        found[key] += 1
    numbers = {image_id: number for number, image_id in enumerate(infos)}
    image_of = np.array([numbers.get(image_id, -1) for image_id in image_ids], np.int64)
    listed = image_of >= 0
    if not listed.all():
        problems[NOT_LISTED] = _not_listed(sorted(set(image_ids) - numbers.keys()))
        left_out[NOT_LISTED] += int((~listed).sum())
    kept = np.array(spans, np.int64).reshape(-1, 2)[listed]
    return _Objects(list(infos.values()), kept, image_of[listed], left_out, problems, has_masks)


def _not_listed(image_ids: list[int]) -> str:
    if len(image_ids) == 1:
        return f"image {image_ids[0]}, which is not listed"
    more = f" and {len(image_ids) - _NAMED:,} more" if len(image_ids) > _NAMED else ""
    return f"images {', '.join(map(str, image_ids[:_NAMED]))}{more}, which are not listed"


def _segmentation(annotation: Any) -> Any:
    """None, which is no mask, where there is none: the image's other objects can be used."""
    return annotation.get("segmentation") if isinstance(annotation, dict) else None


def _file_name(image: Any) -> str:
    if isinstance(image, dict) and "file_name" not in image and "coco_url" in image:
        image = {"file_name": image["coco_url"]}
    name = checked_name(image)
    if "\0" in name:
        raise InputError("file_name holds a zero character, which no file has in its name")
    if not is_file_name(name):
        raise InputError("file_name is no text that a file can have as its name")
    return from_url(name)


def _is_crowd(annotation: Any) -> bool:
    if not isinstance(annotation, dict):
        raise InputError(f"this is a {type(annotation).__name__}, not an object with keys")
    return annotation.get("iscrowd", 0) not in (0, False)


def _text(path: Path) -> str:
    """The file's bytes as characters: places in the text are places in the file."""
    if not path.is_file():  # opening a pipe would wait for ever
        raise InputError("there is no such file")
    try:
        return path.read_bytes().decode("latin-1")
    except OSError as error:
        raise InputError(f"it cannot be read: {error.strerror}") from error


def _elements(text: str) -> Iterator[tuple[str, int, int, Any]]:
    """The elements of the lists of images and annotations, and where each begins and ends.

    Raises:
      InputError: the text is no JSON of that kind.
    """
    decode = json.JSONDecoder().raw_decode
    try:
        at = _behind(text, len(_UTF8_MARK) if text.startswith(_UTF8_MARK) else 0, "{")
        missing = set(_LISTS)
        while text[at : at + 1] != "}":
            key, at = decode(text, at)
            at = _behind(text, _after_space(text, at), ":")
            if key in missing:
                missing.remove(key)
                at = _behind(text, at, "[")
                while text[at : at + 1] != "]":
                    value, end = decode(text, at)
                    yield key, at, end, value
                    at = _behind_comma(text, end, "]")
                at += 1
            else:
                _, at = decode(text, at)
            at = _behind_comma(text, at, "}")
    except RecursionError as error:
        raise InputError("its lists are nested too deeply") from error
    except json.JSONDecodeError as error:
        raise InputError(f"it is no JSON, or damaged or cut short: {error}") from error
    if missing:
        raise InputError(f"{' and '.join(sorted(missing))}: missing; this is no file of instances")


def _behind(text: str, at: int, character: str) -> int:
    """Where the next thing begins behind this character, which must be next."""
    at = _after_space(text, at)
    if text[at : at + 1] != character:
        raise json.JSONDecodeError(f"Expecting {character!r}", text, at)
    return _after_space(text, at + 1)


def _behind_comma(text: str, at: int, closing: str) -> int:
    """The same, where this character closes the list or object instead and is not passed."""
    at = _after_space(text, at)
    return at if text[at : at + 1] == closing else _behind(text, at, ",")


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()
