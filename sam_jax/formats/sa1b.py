"""SA-1B's JSON, one file an image: its masks as COCO RLE, and how each was found.

A record is a dictionary as the mask generator makes it: `segmentation`, `area`, `bbox`,
`predicted_iou`, `stability_score`, `crop_box`, `point_coords`. What is checked here of records and
files of JSON holds for `coco` too.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool

from sam_jax.errors import InputError
from sam_jax.files import written_aside
from sam_jax.formats.rle import MAX_PIXELS, Rle, decode_rle, encode_rle
from sam_jax.one_line import one_line

# Beyond it floats skip whole numbers; nothing measured in pixels comes near.
_LARGEST = 1e15
_LARGEST_ID = (1 << 63) - 1


@dataclass(frozen=True)
class Sa1bImage:
    """What an SA-1B file holds.

    Attributes:
      file_name: the image's.
      size_hw: its height and width in pixels.
      image_id: its number in the dataset.
      records: its masks; `segmentation` is compressed RLE, `id` the number in the file.
      extra: what else is in the file, by key.
    """

    file_name: str
    size_hw: tuple[int, int]
    image_id: int
    records: list[dict[str, Any]]
    extra: dict[str, Any] = field(default_factory=dict)

    __repr__ = one_line


def write_sa1b(
    path: str | os.PathLike,
    records: Iterable[Any],
    *,
    file_name: str,
    size_hw: tuple[int, int],
    image_id: int = 0,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Writes an image's masks as the SA-1B dataset does; the file appears whole or not at all.

    Masks without a pixel are left out: their stability score is no number, which JSON does not
    have. Annotations keep the records' `id` if all have one, else they are numbered from 1. Other
    keys of records than the module names are not written.

    Args:
      path: of the JSON file; directories are made, and a file that is there is replaced.
      records: dicts, taken one at a time; `segmentation` is compressed RLE, run lengths as a list,
        or a boolean array [height, width]. Numbers may be NumPy's.
      file_name: the image's.
      size_hw: its height and width.
      image_id: its number.
      extra: further entries beside "image" and "annotations", of what JSON can hold.

    Raises:
      InputError: a record lacks an entry, holds a wrong one, NaN for example, or is of another size
        than the image; two have the same id; `extra` is no JSON or takes a name of the format.
      OSError: the file cannot be written; what was there before is left.
    """
    for key in ("image", "annotations"):
        if extra and key in extra:
            raise InputError(f"{key!r} in extra is an entry of the format; choose another name")
    height, width = checked_size({"height": size_hw[0], "width": size_hw[1]})
    image: dict[str, Any] = {"image_id": checked_id(image_id), "width": width, "height": height}
    image["file_name"] = checked_name({"file_name": file_name})
    annotations = []
    for index, record in enumerate(records):
        with naming(f"record {index}"):
            rle, mask = checked_segmentation(entry(record, "segmentation"), (height, width))
            if mask.any():
                own_id = {"id": checked_id(record["id"])} if "id" in record else {}
                annotations.append(
                    {**own_id, "segmentation": rle, **checked_fields(record, FIELDS)}
                )
    if not all("id" in annotation for annotation in annotations):
        annotations = [{**each, "id": number} for number, each in enumerate(annotations, 1)]
    ids = {annotation["id"] for annotation in annotations}
    if len(ids) < len(annotations):
        raise InputError("two records have the same id; leave the ids out to have them numbered")
    content = json_bytes({"image": image, "annotations": annotations, **(extra or {})})
    with written_aside(path) as file:
        file.write(content)


def read_sa1b(path: str | os.PathLike) -> Sa1bImage:
    """Reads a file that `write_sa1b` wrote, or one of the SA-1B dataset.

    Boxes and areas that are whole numbers are integers, whatever the file has (`213.0`); scores and
    points are floats. Unknown keys of an image or an annotation are not kept.

    Raises:
      InputError: the file cannot be read, is cut short or no JSON, or an entry is missing or wrong;
        the message names the file and the entry.
    """
    with naming(f"SA-1B file {os.fspath(path)!r}"):
        content = read_json(path)
        image = entry(content, "image")
        with naming("image"):
            size_hw = checked_size(image)
            file_name, image_id = checked_name(image), checked_id(entry(image, "image_id"))
        records: list[dict[str, Any]] = []
        ids: set[int] = set()
        for index, annotation in enumerate(checked_list(content, "annotations")):
            with naming(f"annotations[{index}]"):
                number = unused_id(annotation, ids)
                rle, _ = checked_segmentation(entry(annotation, "segmentation"), size_hw)
                fields = checked_fields(annotation, FIELDS)
                records.append({"id": number, "segmentation": rle, **fields})
        extra = {key: content[key] for key in content if key not in ("image", "annotations")}
        return Sa1bImage(file_name, size_hw, image_id, records, extra)


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Errors about what is given, raised in the block, say where it stands."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def read_json(path: str | os.PathLike) -> Any:
    """What a JSON file holds.

    Raises:
      InputError: it cannot be read, is no JSON in UTF-8, or holds NaN or infinity, which are none.
    """
    if not Path(path).is_file():  # opening a pipe would wait for ever
        raise InputError("there is no such file")
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"it cannot be read: {error.strerror}") from error
    return parse_json(content)


def parse_json(content: bytes) -> Any:
    """What the content of a JSON file holds.

    Raises:
      InputError: it is no JSON in UTF-8, or holds NaN or infinity, which are none.
    """
    try:
        return json.loads(content.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except InputError:
        raise
    except UnicodeDecodeError as error:
        raise InputError("it is no text in UTF-8") from error
    except RecursionError as error:
        raise InputError("its lists are nested too deeply") from error
    except ValueError as error:
        raise InputError(f"it is no JSON, or damaged or cut short: {error}") from error


def json_bytes(value: Any) -> bytes:
    """A value as compact JSON; NumPy's numbers and arrays may be in it.

    Raises:
      InputError: something in it is not for JSON: NaN and infinity, other objects.
    """
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"), default=_without_numpy)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"JSON cannot hold it: {error}") from error
    return text.encode("ascii")


def entry(container: Any, key: str) -> Any:
    """The value of a key.

    Raises:
      InputError: there is no such key, or the container has no keys.
    """
    if not isinstance(container, Mapping):
        raise InputError(f"this is a {type(container).__name__}, not an object with keys")
    if key not in container:
        raise InputError(f"{key} is missing")
    return container[key]


def checked_list(container: Any, key: str) -> list[Any]:
    """The list of a key, or an InputError."""
    value = entry(container, key)
    if not isinstance(value, list):
        raise InputError(f"{key} is a {type(value).__name__}, not a list")
    return value


def checked_size(image: Any) -> tuple[int, int]:
    """(height, width) of an image's entry, or an InputError."""
    height, width = _whole(entry(image, "height")), _whole(entry(image, "width"))
    if height is None or width is None or height < 1 or width < 1:
        raise InputError("width and height are whole numbers from 1 on")
    if height * width > MAX_PIXELS:
        raise InputError(f"{width}x{height} pixels are more than any image has that is read")
    return height, width


def checked_name(image: Any) -> str:
    """The file name of an image's entry, or an InputError."""
    name = entry(image, "file_name")
    if not isinstance(name, str):
        raise InputError(f"file_name is a {type(name).__name__}, not text")
    return name


def checked_id(value: Any) -> int:
    """The whole number that an id is, or an InputError."""
    number = _whole(value)
    if number is None:
        raise InputError("an id is a whole number of at most 64 bits")
    return number


def unused_id(container: Any, used: set[int]) -> int:
    """The `id` of an entry, which is added to those used, or an InputError if it is there."""
    number = checked_id(entry(container, "id"))
    if number in used:
        raise InputError(f"the id {number} is there twice")
    used.add(number)
    return number


def checked_segmentation(
    segmentation: Any, size_hw: tuple[int, int]
) -> tuple[Rle, Bool[np.ndarray, "height width"]]:
    """A mask as compressed RLE and as an array, of RLE in any form or a boolean array.

    Raises:
      InputError: it is neither, or of another size than the image.
    """
    if isinstance(segmentation, np.ndarray):
        if segmentation.dtype != bool or segmentation.ndim != 2:
            raise InputError("the segmentation is no boolean array [height, width]")
        mask = segmentation
    else:
        with naming("segmentation"):
            size = entry(segmentation, "size")
            sides = size if isinstance(size, list | tuple) else []
            if len(sides) != 2 or any(_whole(side) is None for side in sides):
                raise InputError("size is a list of two whole numbers, height and width")
            mask = decode_rle(segmentation)
    if mask.shape != size_hw:
        (height, width), (image_height, image_width) = mask.shape, size_hw
        raise InputError(
            f"the segmentation is of {width}x{height} pixels, the image of "
            f"{image_width}x{image_height}"
        )
    # Compressed text stays as it is: packing a large mask takes longer than reading it.
    if not isinstance(segmentation, np.ndarray) and isinstance(segmentation["counts"], str):
        return {"size": list(size_hw), "counts": segmentation["counts"]}, mask
    return encode_rle(mask), mask


def checked_fields(record: Any, names: Iterable[str]) -> dict[str, Any]:
    """These entries of a record (of `FIELDS`) as plain numbers and lists, or an InputError."""
    fields = {}
    for name in names:
        value = entry(record, name)
        with naming(name):
            fields[name] = FIELDS[name](value)
    return fields


def _number(value: Any) -> int | float:
    value = _without_numpy(value) if isinstance(value, np.generic) else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"there is a {type(value).__name__} where a number is due")
    # NaN fails, and whole numbers of any length compare.
    if not abs(value) <= _LARGEST:
        raise InputError(f"there is NaN or a number beyond {_LARGEST:g}")
    return value


def _numbers(value: Any, length: int, kind: str) -> list[int | float]:
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(value, list | tuple) or len(value) != length:
        raise InputError(f"{kind} is a list of {length} numbers")
    return [_number(each) for each in value]


def _pixels(value: Any) -> int | float:
    number = _number(value)
    return int(number) if number == int(number) else number


def _area(value: Any) -> int | float:
    area = _pixels(value)
    if area < 0:
        raise InputError("an area is not negative")
    return area


def _box(value: Any) -> list[int | float]:
    box = [_pixels(each) for each in _numbers(value, 4, "a box")]
    if box[2] < 0 or box[3] < 0:
        raise InputError("width and height of a box are not negative")
    return box


def _score(value: Any) -> float:
    return float(_number(value))


def _points(value: Any) -> list[list[float]]:
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(value, list | tuple):
        raise InputError("points are a list of x, y pairs")
    return [[float(each) for each in _numbers(point, 2, "a point")] for point in value]


FIELDS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "bbox": _box,
        "area": _area,
        "predicted_iou": _score,
        "stability_score": _score,
        "crop_box": _box,
        "point_coords": _points,
    }
)


def _whole(value: Any) -> int | None:
    """A number without a fraction as int, which some programs write as 5.0; else None."""
    value = _without_numpy(value) if isinstance(value, np.generic) else value
    if isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST:
        return int(value)
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST_ID
    return value if whole else None


def _without_numpy(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"there is a {type(value).__name__} in it")


def _refuse_constant(constant: str) -> None:
    raise InputError(f"it holds {constant}, which is no JSON")
