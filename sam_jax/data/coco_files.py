"""Where a COCO dataset keeps its JSON file and its pictures: both are found by what files hold.

Programs that label pictures agree on the content of the JSON file, and on little else: its name,
its place, and what `file_name` is relative to differ.
"""

import json
import mmap
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from sam_jax.data.folders import files_below
from sam_jax.errors import InputError
from sam_jax.images import IMAGE_SUFFIXES

# So many names, evenly spaced, tell where pictures are.
_LOOKED_FOR = 100
# More JSON files than this in one folder are one for each picture, not one for all.
_JSON_FILES = 200
_PAIRED_JSON_FILES = 20
_SUBFOLDERS = 100
_NAMED = 6
# A file of instances may have 450 MB, so it is recognized without being parsed.
_KEYS = tuple(re.compile(rb'"' + key + rb'"\s*:\s*\[') for key in (b"images", b"annotations"))
_MASKS, _BOXES = (re.compile(rb'"' + key + rb'"\s*:') for key in (b"segmentation", b"bbox"))
_NO_OBJECTS = re.compile(rb'"annotations"\s*:\s*\[\s*\]')
_NAME = re.compile(rb'"(?:file_name|coco_url)"\s*:\s*("(?:[^"\\]|\\.)*")')
# Of the same images as instances_*.json, which are those of COCO's own that hold all objects.
_BESIDE_INSTANCES = ("person_keypoints_", "stuff_")


class Place(NamedTuple):
    """Where pictures are: a folder, and how many leading parts of their names lie outside it."""

    folder: Path
    outside: int


@dataclass(frozen=True)
class FoundAnnotations:
    """What a search for a COCO file found.

    Attributes:
      instances: COCO files with masks, of pictures that are in the dataset's folder; the nearest.
      elsewhere: COCO files with masks whose pictures are not in the dataset's folder.
      boxes: COCO files of such pictures that have boxes, and no masks.
      seen: all JSON files that were looked at.
    """

    instances: list[Path]
    elsewhere: list[Path]
    boxes: list[Path]
    seen: list[Path]


def find_inside(folder: Path) -> FoundAnnotations:
    """COCO files in a folder or the folders in it, by their content."""
    subfolders = sorted(_entries(folder, os.DirEntry.is_dir))
    # Folders of pictures may be many; of annotations there is one.
    subfolders.sort(key=lambda each: each.name != "annotations")
    return _found(folder, [folder, *subfolders[:_SUBFOLDERS]], above=False)


def find_above(folder: Path) -> FoundAnnotations:
    """COCO files of the pictures in a folder that lie above it, or in `annotations` above it."""
    # The parent of "." is "." otherwise, and that of "..".
    named = folder if folder.name not in ("", "..") else folder.resolve()
    above = named.parent
    places = [above, above / "annotations", above.parent / "annotations"]
    return _found(folder, places, above=True)


def named(paths: Sequence[Path], base: Path) -> str:
    """Some of the paths, relative to a folder where they are in it, for a message."""
    shown = [str(each.relative_to(base) if each.is_relative_to(base) else each) for each in paths]
    more = f" and {len(shown) - _NAMED:,} more" if len(shown) > _NAMED else ""
    return ", ".join(shown[:_NAMED]) + more


def picture_folders(folder: Path, annotations: Path) -> list[Path]:
    """Folders that the pictures of a COCO file are usually in, the likeliest first.

    Args:
      folder: the dataset's.
      annotations: the COCO file.
    """
    split = annotations.stem.removeprefix("instances_")
    folders = [folder / split, folder / "images" / split, folder / "images", folder]
    if annotations.parent.resolve().is_relative_to(folder.resolve()):
        folders += [annotations.parent / "images", annotations.parent]
    return folders


def find_place(
    names: Sequence[str], folders: Sequence[Path], named_so: bool = False
) -> tuple[Place | None, bool]:
    """The place that has most of some names, and whether it has all of these.

    A name may begin outside the folder: "images/a.jpg" is also looked for as "a.jpg", unless two
    names would be the same then.

    Args:
      names: of all pictures.
      folders: to look in; of two that have equally many, the first.
      named_so: "images/a.jpg" is looked for as "a.jpg" only in folders of the name "images".
    """
    some = spaced(names, _LOOKED_FOR)
    parts = [_parts(name) for name in some]
    best, most = None, 0
    for outside in range(max(map(len, parts), default=0)):
        shorter = [shortened(name, outside) for name in some]
        if outside and not _differ(names, outside):
            break
        for folder in dict.fromkeys(folders):
            own = folder.resolve().name
            count = sum(
                (folder / name).is_file()
                for name, each in zip(shorter, parts, strict=True)
                if not (named_so and outside) or each[:-1][outside - 1 : outside] == (own,)
            )
            if count > most:
                best, most = Place(folder, outside), count
        if most == len(some):
            break
    return best, most == len(some)


def find_each(names: Sequence[str], place: Place | None, folder: Path) -> dict[str, str]:
    """Pictures' paths relative to a folder, wherever in it they are; without those not there.

    Args:
      names: of the pictures, as the COCO file has them.
      place: that has some of them; those that are there are taken from there.
      folder: searched with all folders in it.

    Raises:
      InputError: a picture lies in several folders, so that nobody can tell which is meant; or a
        folder cannot be listed.
    """
    paths: dict[str, list[str]] = defaultdict(list)
    for path in files_below(folder, _pictures):
        paths[os.path.basename(path)].append(path)
    found = {}
    for name in names:
        if place is not None:
            there = place.folder / shortened(name, place.outside)
            if there.is_file():
                found[name] = os.path.relpath(there, folder)
                continue
        parts = _parts(name)
        alike = [(_common_end(parts, Path(each).parts), each) for each in paths[parts[-1]]]
        longest = max((length for length, _ in alike), default=0)
        same = sorted(each for length, each in alike if length == longest)
        if len(same) > 1:
            raise InputError(
                f"{name} is there {len(same)} times, as {', '.join(same[:_NAMED])} in {folder}; "
                "give the folder of one of them as data.path (DATASET)"
            )
        if same:
            found[name] = same[0]
    return found


def shortened(name: str, outside: int) -> str:
    """A name without so many leading parts; its last part stays. 0 leaves it as it is."""
    if not outside:
        return name
    parts = _parts(name)
    return os.path.join(*parts[min(outside, len(parts) - 1) :])


def spaced(names: Sequence[str], count: int) -> list[str]:
    """At most about so many of the names, evenly spaced."""
    return list(names[:: max(1, len(names) // count)])


def _parts(name: str) -> tuple[str, ...]:
    """Folders and name; some programs divide them as Windows does."""
    return PurePosixPath(name.replace("\\", "/")).parts or ("",)


def _differ(names: Sequence[str], outside: int) -> bool:
    return len({shortened(name, outside) for name in names}) == len(set(names))


def _common_end(one: Sequence[str], other: Sequence[str]) -> int:
    """How many of the last parts of two paths are the same."""
    pairs = list(zip(reversed(one), reversed(other), strict=False))
    return next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))


def _pictures(names: Iterable[str]) -> list[str]:
    return [
        name
        for name in names
        if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
    ]


def _found(folder: Path, places: Iterable[Path], above: bool) -> FoundAnnotations:
    found = FoundAnnotations([], [], [], [])
    for place in dict.fromkeys(places):
        candidates = _json_files(place)
        found.seen.extend(candidates)
        names = {each.name for each in candidates}
        for path in candidates:
            if any(
                path.name.startswith(prefix)
                and f"instances_{path.name.removeprefix(prefix)}" in names
                for prefix in _BESIDE_INSTANCES
            ):
                continue
            kind, pictures = _content(path)
            if kind is None or not pictures:
                continue
            if not _are_in(pictures, folder, path, above):
                if kind is _MASKS:
                    found.elsewhere.append(path)
            elif kind is _MASKS:
                found.instances.append(path)
            else:
                found.boxes.append(path)
    # instances_train.json is what the folder train is for, where several have pictures in it.
    own = [each for each in found.instances if _split(each) == folder.resolve().name]
    return FoundAnnotations(
        own if len(own) == 1 else found.instances, found.elsewhere, found.boxes, found.seen
    )


def _split(annotations: Path) -> str:
    return annotations.stem.removeprefix("instances_")


def _are_in(names: Sequence[str], folder: Path, annotations: Path, above: bool) -> bool:
    """Whether any of the names is of a picture in the folder.

    A file above may be of other folders beside this one, where pictures have the same names.
    """
    inside = ["/".join(p for p in _parts(name) if p not in ("/", "..")) for name in names]
    place, _ = find_place(inside, picture_folders(folder, annotations), named_so=above)
    if place is not None:
        return True
    wanted = {_parts(name)[-1] for name in inside if not above or len(_parts(name)) == 1}
    try:
        return any(os.path.basename(each) in wanted for each in files_below(folder, _pictures))
    except InputError:
        return False


def _json_files(folder: Path) -> list[Path]:
    """JSON files in a folder that may be of many pictures; those of one picture come to many."""
    try:
        names = set(os.listdir(folder))
    except OSError:
        return []
    stems = {os.path.splitext(name)[0] for name in _pictures(names)}
    files = [
        folder / name
        for name in sorted(names)
        if name.lower().endswith(".json") and not name.startswith(".")
    ]
    if len(files) > _PAIRED_JSON_FILES:
        files = [each for each in files if each.stem not in stems]
    return [each for each in files[:_JSON_FILES] if each.is_file()]


def _content(path: Path) -> tuple[re.Pattern[bytes] | None, list[str]]:
    """Whether a file looks like COCO with masks or with boxes, and names of some of its images."""
    try:
        with open(path, "rb") as file:
            text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # not to be read, or empty
        return None, []
    with text:
        if text[:64].removeprefix(b"\xef\xbb\xbf").lstrip()[:1] != b"{":
            return None, []
        if not all(key.search(text) for key in _KEYS):
            return None, []
        kind = next((each for each in (_MASKS, _BOXES) if each.search(text)), None)
        if kind is None and _NO_OBJECTS.search(text):
            kind = _MASKS  # its reader says that it has none
        names = []
        for match in _NAME.finditer(text):
            try:
                names.append(from_url(json.loads(match[1])))
            except ValueError:
                continue
            if len(names) == _LOOKED_FOR:
                break
        return kind, [name for name in names if is_file_name(name)]


def is_file_name(name: str) -> bool:
    """Whether a file can have this name at all."""
    try:
        return bool(name) and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def from_url(name: str) -> str:
    """The folder and name of a picture on COCO's server, which LVIS gives; others as they are."""
    return "/".join(name.split("/")[-2:]) if name.startswith(("http://", "https://")) else name


def _entries(folder: Path, wanted) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(each) for each in entries if wanted(each) and each.name[0] != "."]
    except OSError:
        return []
