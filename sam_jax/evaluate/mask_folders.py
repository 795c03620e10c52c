"""Folders with the masks of videos, as DAVIS and SA-V lay them out.

DAVIS (also MOSE, LVOS, YouTube-VOS): `<video>/<frame>.png`, one PNG for all objects; a pixel's
value, or the index of its color in the palette, is the object's number, 0 the background.

SA-V: `<video>/<object>/<frame>.png`, one PNG for each object, which is where the value is not 0;
objects may overlap.

What `sam-jax track` wrote of a video counts as DAVIS's: `<video>/masks/<frame>.png`, beside its
results.json.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from sam_jax.errors import InputError
from sam_jax.formats.label_png import read_label_png
from sam_jax.natural_order import names_in_order

DAVIS = "DAVIS"
SA_V = "SA-V"

# Where datasets keep their annotations, beside the frames. DAVIS has them in several sizes; results
# are reported for the first of these.
_ANNOTATIONS = ("Annotations_6fps", "Annotations")
_SIZES = ("480p", "1080p", "Full-Resolution")
_SUFFIX = ".png"
# What `sam-jax track` writes.
_TRACKED, _RESULTS = "masks", "results.json"


@dataclass(frozen=True)
class FrameMasks:
    """The objects of one frame.

    Attributes:
      size_hw: height and width.
      masks: bool [height, width] by the name of the object, of those that are to be seen.
    """

    size_hw: tuple[int, int]
    masks: dict[str, Bool[np.ndarray, "height width"]]

    def mask(self, name: str) -> Bool[np.ndarray, "height width"]:
        """An object's mask; empty where it is not to be seen."""
        found = self.masks.get(name)
        return np.zeros(self.size_hw, bool) if found is None else found


@dataclass(frozen=True)
class MaskTrack:
    """The PNG files of a video, all its objects' (DAVIS) or one object's (SA-V).

    Attributes:
      folder: where the files are.
      video: the name of the video.
      name: of the one object; None where the files hold all.
      frames: names of the frames in the order of their numbers, without .png.
    """

    folder: Path
    video: str
    name: str | None
    frames: tuple[str, ...]

    @property
    def key(self) -> str:
        """The folder's path from the one that holds all videos."""
        return self.video if self.name is None else f"{self.video}/{self.name}"

    def read(self, frame: str) -> FrameMasks:
        """The masks of a frame.

        Raises:
          InputError: the file is missing, damaged, holds colors, or several objects where it is
            one object's.
        """
        path = self.folder / f"{frame}{_SUFFIX}"
        labels = read_label_png(path, palette=True)
        values = [int(value) for value in np.flatnonzero(np.bincount(labels.ravel())) if value]
        if self.name is not None and len(values) > 1:
            raise InputError(
                f"{path} holds several objects, {_some([str(value) for value in values])}; in a "
                "folder of an object each PNG has only its mask"
            )
        names = [str(value) if self.name is None else self.name for value in values]
        height, width = labels.shape
        masks = {name: labels == value for name, value in zip(names, values, strict=True)}
        return FrameMasks((height, width), masks)

    def __iter__(self) -> Iterator[tuple[str, FrameMasks]]:
        """Each frame's name and masks, one at a time."""
        return ((frame, self.read(frame)) for frame in self.frames)


@dataclass(frozen=True)
class MaskFolder:
    """Masks of videos.

    Attributes:
      root: the folder that has one for each video.
      layout: `DAVIS` or `SA_V`; None where no video has any masks.
      videos: names of the videos, sorted.
      is_one_video: whether the root is the folder of the one video.
    """

    root: Path
    layout: str | None
    videos: tuple[str, ...]
    is_one_video: bool = False

    def tracks(self, video: str) -> tuple[MaskTrack, ...]:
        """What there is of a video: one track (DAVIS), or one for each object (SA-V), sorted.

        Raises:
          InputError: the video's folder cannot be listed.
        """
        folder = _masks_of(self.root if self.is_one_video else self.root / video)
        if self.layout == SA_V:
            return tuple(
                MaskTrack(folder / name, video, name, _frames(folder / name))
                for name in _subfolders(folder)
            )
        return (MaskTrack(folder, video, None, _frames(folder)),)


def open_mask_folder(
    path: Path, videos: tuple[str, ...] | None = None, only_video: str | None = None
) -> MaskFolder:
    """Finds which layout a folder has.

    Args:
      path: the folder that has one for each video, or one above it that a dataset comes with:
        with Annotations_6fps or Annotations in it, and in these DAVIS's 480p.
      videos: look only at these; those that are missing are left out.
      only_video: the name of the one video that there is, where the path may also be what
        `sam-jax track` wrote of it.

    Raises:
      InputError: it is missing, holds no videos, or videos of both layouts.
    """
    root = _root(path)
    if only_video is not None and is_one_video(root):
        return MaskFolder(root, _layout(root), (only_video,), is_one_video=True)
    found = _subfolders(root)
    if not found:
        raise InputError(f"{root} holds no videos: each has a folder with PNG files of masks")
    if videos is not None:
        found = tuple(sorted(set(found) & set(videos)))
    layouts = {layout: video for video in found if (layout := _layout(root / video)) is not None}
    if len(layouts) > 1:
        raise InputError(
            f"{root} mixes layouts: {layouts[DAVIS]} has PNG files, {layouts[SA_V]} folders of "
            "objects; give one kind at a time"
        )
    return MaskFolder(root, next(iter(layouts), None), found)


def read_video_list(path: Path) -> tuple[str, ...]:
    """Names of videos from a text file, one a line, as datasets list their parts.

    Raises:
      InputError: it cannot be read, or a line is no name of a folder.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InputError(f"cannot read the list of videos {path}: {reason}") from error
    names = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    for name in names:
        if Path(name).name != name or name == "..":
            raise InputError(f"{path}: {name!r} is no name of a video; give one name a line")
    if not names:
        raise InputError(f"{path} lists no videos; give one name a line")
    return names


def _root(path: Path) -> Path:
    for names in (_ANNOTATIONS, _SIZES):
        path = next((path / name for name in names if (path / name).is_dir()), path)
    return path


def is_one_video(folder: Path) -> bool:
    """Whether a folder is what `sam-jax track` wrote of one video."""
    return (folder / _TRACKED).is_dir() and (folder / _RESULTS).is_file()


def _masks_of(video: Path) -> Path:
    return video / _TRACKED if is_one_video(video) else video


def _layout(video: Path) -> str | None:
    video = _masks_of(video)
    has_frames, has_folders = bool(_frames(video)), bool(_subfolders(video))
    if has_frames and has_folders:
        raise InputError(f"{video} has both PNG files and folders; give it one of the two layouts")
    if has_frames:
        return DAVIS
    return SA_V if has_folders else None


def _frames(folder: Path) -> tuple[str, ...]:
    return tuple(
        names_in_order(
            entry.name.removesuffix(_SUFFIX)
            for entry in _entries(folder)
            if entry.name.endswith(_SUFFIX) and not entry.is_dir()
        )
    )


def _subfolders(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in _entries(folder) if entry.is_dir()))


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"cannot list {folder}: {error.strerror or error}") from error


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
