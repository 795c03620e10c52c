"""Clips of a folder of videos with masks, as DAVIS lays them out, for training SAM 2."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sam_jax.data.fingerprints import check_resumed, fingerprint
from sam_jax.data.scenes.clips import ClipBatch
from sam_jax.errors import InputError
from sam_jax.formats.label_png import read_label_png
from sam_jax.frame_folders import frame_files
from sam_jax.images import read_image
from sam_jax.natural_order import in_order

# Draws of a window before one without any object is taken as it is.
_TRIES = 20


class ClipFolderBatches:
    """Windows of random videos, without end; the n-th of a seed is always the same.

    Masks are PNGs whose values are objects (0 for none, 255 for what counts as none); pictures are
    stretched to the square, as SAM 2 takes them. Objects are those that are in a window's first
    frame.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        image_size: int,
        frames: int,
        objects: int,
        seed: int,
        batch_size: int,
        process_index: int = 0,
        process_count: int = 1,
    ):
        """Lists the videos.

        Args:
          path: of a folder with JPEGImages/VIDEO/FRAME.jpg and Annotations/VIDEO/FRAME.png, or with
            such folders for a resolution below each (480p).
          image_size: side of the frames, in pixels.
          frames: of a clip; videos with fewer annotated ones are left out.
          objects: of a clip, at most.
          seed: of all that is drawn.
          batch_size: clips in a batch of one process.
          process_index: which part of every batch this is.
          process_count: how many processes share them.

        Raises:
          InputError: there are no such folders, or no video with enough frames.
        """
        self.image_size, self.frames, self.objects = image_size, frames, objects
        self.seed, self.batch_size, self.position = seed, batch_size, 0
        self._ahead, self._stride = process_index * batch_size, process_count * batch_size
        self._skipped = 0
        root = Path(path)
        pictures, masks = _below(root / "JPEGImages"), _below(root / "Annotations")
        if pictures is None or masks is None:
            raise InputError(
                f"{root} has no JPEGImages and Annotations with a folder for each video in them"
            )
        self.videos: list[list[tuple[Path, Path]]] = []
        for folder in sorted(path for path in masks.iterdir() if path.is_dir()):
            if not (pictures / folder.name).is_dir():
                self._skipped += 1
                continue
            named = {path.stem: path for path in frame_files(pictures / folder.name)}
            pairs = [
                (named[mask.stem], mask)
                for mask in in_order(list(folder.glob("*.png")))
                if mask.stem in named
            ]
            if len(pairs) >= frames:
                self.videos.append(pairs)
            else:
                self._skipped += 1
        if not self.videos:
            raise InputError(f"{root} has no video with {frames} frames that have masks")
        files = [path for video in self.videos for pair in video for path in pair]
        names = [str(path.relative_to(root)) for path in files]
        self._about = {"seed": seed, "fingerprint": fingerprint(root, names)}

    def __next__(self) -> ClipBatch:
        """The next one.

        Raises:
          InputError: a picture or its masks cannot be read.
        """
        first = self.position + self._ahead
        clips = [self._clip(first + i) for i in range(self.batch_size)]
        self.position += self._stride
        images, masks, weights = (np.stack(parts) for parts in zip(*clips, strict=True))
        return ClipBatch(images, np.packbits(masks, axis=-1), weights)

    def get_state(self) -> dict[str, Any]:
        """How many clips lie behind, and of which videos, as values of JSON."""
        return {**self._about, "position": self.position}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from where `get_state` was called.

        Raises:
          InputError: the state is of other videos, or of another seed.
        """
        check_resumed(state, self._about)
        self.position = state["position"]

    def skipped(self) -> dict[str, int]:
        """Videos that have no pictures or too few frames."""
        return {"too few frames": self._skipped} if self._skipped else {}

    def close(self) -> None:
        """Nothing reads ahead."""

    def _clip(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self.seed, index])
        for _ in range(_TRIES):
            video = self.videos[rng.integers(len(self.videos))]
            start = int(rng.integers(len(video) - self.frames + 1))
            window = video[start : start + self.frames]
            labels = self._labels(window[0][1])
            present = [value for value in np.unique(labels).tolist() if value not in (0, 255)]
            if present:
                break
        chosen = rng.permutation(present)[: self.objects] if present else np.zeros(0, int)
        side = self.image_size
        images = np.zeros((self.frames, side, side, 3), np.uint8)
        masks = np.zeros((self.frames, self.objects, side, side), bool)
        for i, (picture, mask) in enumerate(window):
            stretched = Image.fromarray(read_image(picture)).resize((side, side))
            images[i] = np.asarray(stretched)
            values = self._labels(mask)
            for slot, value in enumerate(chosen):
                masks[i, slot] = values == value
        weights = masks[0].any(axis=(1, 2)).astype(np.float32)
        return images, masks, weights

    def _labels(self, path: Path) -> np.ndarray:
        labels = Image.fromarray(read_label_png(path, palette=True).astype(np.int32))
        side = self.image_size
        return np.asarray(labels.resize((side, side), Image.Resampling.NEAREST))


def _below(folder: Path) -> Path | None:
    """The folder of videos: this one, or the only one in it that holds folders."""
    if not folder.is_dir():
        return None
    inner = [path for path in folder.iterdir() if path.is_dir()]
    if len(inner) == 1 and any(path.is_dir() for path in inner[0].iterdir()):
        return inner[0]
    return folder if inner else None
