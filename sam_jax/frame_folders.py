"""Which pictures of a folder are a video's frames, and in which order."""

import re
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from sam_jax.errors import InputError
from sam_jax.images import list_images, read_image
from sam_jax.natural_order import in_order, natural_keys

_JPEG = frozenset(".jpg .jpeg .jpe .jfif".split())
# What names of masks and the like have beside a frame's own: 0_mask, gt-0, labels_0.
_BESIDE = "masks?|segs?|segmentations?|labels?|gt|annotations?|mattes?|alphas?|depths?|overlays?"
_BESIDE_NAME = re.compile(
    rf"(?:(?:{_BESIDE})[-_. ]+)?(.+?)(?:[-_. ]+(?:{_BESIDE}))?", re.IGNORECASE
)
# Pictures of labels have at most as many colors; photos have more.
_LABEL_COLORS = 256


def frame_files(folder: Path) -> list[Path]:
    """The pictures of a folder that are a video's frames, by the numbers in their names.

    Hidden files are left out. Where JPEGs and pictures of other kinds share names, as frames and
    their masks do (7.jpg, 7.png or 7_mask.png), the JPEGs are the frames, and a warning says so.

    Raises:
      InputError: the folder holds no pictures, or it cannot be told which of them are frames.
    """
    files = in_order(list_images(folder))
    jpegs = [path for path in files if path.suffix.lower() in _JPEG]
    others = [path for path in files if path.suffix.lower() not in _JPEG]
    pairs = _pairs(jpegs, others) if jpegs else {}
    if pairs:
        _check_pairs(folder, others, pairs)
        other, jpeg = next(iter(pairs.items()))
        warnings.warn(
            f"{folder} has {len(jpegs)} JPEGs and {len(others)} other pictures of the same names, "
            f"such as {jpeg.name} and {other.name}: the JPEGs are taken as the frames",
            stacklevel=4,
        )
        files = jpegs
    _check_names(folder, files)
    kinds = Counter(path.suffix.lower() for path in files)
    if len({"jpeg" if kind in _JPEG else kind for kind in kinds}) > 1:
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        warnings.warn(
            f"{folder} has pictures of several kinds ({listed}); all are taken as frames",
            stacklevel=4,
        )
    return files


def _pairs(jpegs: list[Path], others: list[Path]) -> dict[Path, Path]:
    """The JPEG that each other picture goes with, for those that have one."""
    by_stem = {path.stem: path for path in jpegs}
    keys = natural_keys([path.stem for path in [*jpegs, *others]])
    by_key = dict(zip(keys, jpegs, strict=False))
    by_number = {numbers: path for path in jpegs if (numbers := _numbers(path.stem))}
    pairs = {}
    for path, key in zip(others, keys[len(jpegs) :], strict=True):
        frame = by_stem.get(path.stem) or by_key.get(key) or by_stem.get(_frame_name(path.stem))
        # frame_7.jpg and mask_7.png
        frame = frame or by_number.get(_numbers(path.stem))
        if frame is not None:
            pairs[path] = frame
    return pairs


def _frame_name(stem: str) -> str:
    """A name without what marks it as a mask's."""
    found = _BESIDE_NAME.fullmatch(stem)
    return found.group(1) if found else stem


def _numbers(stem: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", stem)))


def _check_pairs(folder: Path, others: list[Path], pairs: dict[Path, Path]) -> None:
    """Refuses pairs of which the JPEGs cannot be said to be the frames."""
    other, jpeg = next(iter(pairs.items()))
    alone = [path for path in others if path not in pairs]
    if alone:
        raise InputError(
            f"{folder} mixes kinds of pictures: {other.name} goes with {jpeg.name}, but "
            f"{alone[0].name} with no JPEG; keep only the frames in the folder"
        )
    if _is_grey(read_image(jpeg)) and _is_photo(read_image(other)):
        raise InputError(
            f"{folder} has {jpeg.name} without color and {other.name} with many colors, so it "
            "cannot be told which are the frames; keep only the frames in the folder"
        )


def _check_names(folder: Path, files: list[Path]) -> None:
    """Refuses frames whose results would have one name, and masks among the frames."""
    named = defaultdict(list)
    for path in files:
        named[path.stem].append(path.name)
    for names in named.values():
        if len(names) > 1:
            raise InputError(
                f"{folder} has {' and '.join(names[:3])}, two frames of one name; keep one kind of "
                "picture in the folder"
            )
    for stem, (name,) in named.items():
        frame = _frame_name(stem)
        if frame != stem and frame in named:
            raise InputError(
                f"{folder} has {named[frame][0]} and {name}, which is named as its mask; keep only "
                "the frames in the folder"
            )


def _is_grey(image: np.ndarray) -> bool:
    return bool((image == image[..., :1]).all())


def _is_photo(image: np.ndarray) -> bool:
    return not _is_grey(image) and len(np.unique(image.reshape(-1, 3), axis=0)) > _LABEL_COLORS
