"""Batches of crops from a folder of images, for pre-training."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from sam_jax.data.crops import random_crop
from sam_jax.data.fingerprints import fingerprint
from sam_jax.data.folders import files_below
from sam_jax.errors import InputError
from sam_jax.images import IMAGE_SUFFIXES, read_image

# Crops that are made ahead, in batches.
_BATCHES_AHEAD = 2


class ImageFolder:
    """Crops of the images below a folder, without end; an epoch has each image once.

    The order is another in every epoch, and so are the crops; both depend on the seed alone, not
    on how many processes share the images. Images that cannot be read are left out.

    Attributes:
      images: how many there are.
      unreadable: the images that could not be read so far, and why; those that are read ahead
        count.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        image_size: int,
        batch_size: int,
        *,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
        threads: int = 16,
    ):
        """Lists the images; reads none yet.

        Args:
          directory: searched with all folders in it.
          image_size: side of the crops in pixels.
          batch_size: crops of one batch of this process.
          seed: decides order and crops; from 0 to 2**32 - 1, the same in all processes.
          process_index: of this process.
          process_count: how many share the images.
          threads: that read images.

        Raises:
          InputError: Grain is not installed, the folder cannot be read, or holds no image or fewer
            than there are processes.
        """
        grain = _grain()
        self._directory = Path(directory)
        self._names = _list_below(self._directory)
        self._image_size = image_size
        self._about = {"images": len(self._names), "seed": seed, "processes": process_count}
        self._fingerprint = fingerprint(self._directory, self._names)
        self.images = len(self._names)
        self.unreadable: dict[str, str] = {}
        if self.images < process_count:
            raise InputError(
                f"{self.images} images in {str(directory)!r} are too few for {process_count} "
                "processes; use fewer processes"
            )
        # Crops before the division: no two processes then draw the same random numbers.
        crops = grain.MapDataset.source(self._names).seed(seed).shuffle().random_map(self._crop)
        share = crops[process_index::process_count].repeat()
        options = grain.ReadOptions(
            num_threads=threads, prefetch_buffer_size=_BATCHES_AHEAD * batch_size
        )
        batches = share.to_iter_dataset(options).batch(batch_size, drop_remainder=True)
        self._batches = iter(batches)

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "batch size size 3"]]:
        return self

    def __next__(self) -> UInt8[np.ndarray, "batch size size 3"]:
        """The next batch.

        Raises:
          InputError: no image can be read.
        """
        return next(self._batches)

    def skipped(self) -> dict[str, int]:
        """How many images could not be read so far."""
        return {"unreadable": len(self.unreadable)} if self.unreadable else {}

    def get_state(self) -> dict[str, Any]:
        """Where the next batch begins, as JSON values."""
        return {
            **self._about,
            "fingerprint": self._fingerprint,
            "unreadable": dict(self.unreadable),
            "reader": self._batches.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from a state of `get_state` with exactly the batches that were to come.

        Raises:
          InputError: the state is of other images, or another seed or number of processes.
        """
        for name, value in self._about.items():
            if state.get(name) != value:
                raise InputError(
                    f"{str(self._directory)!r} cannot go on where it stopped: {name} was "
                    f"{state.get(name)} and is {value} now"
                )
        # States that were saved before had neither.
        if state.get("fingerprint", self._fingerprint) != self._fingerprint:
            raise InputError(
                f"{str(self._directory)!r} cannot go on where it stopped: images were renamed or "
                "changed in size; bring them back, or begin anew"
            )
        self.unreadable = dict(state.get("unreadable", {}))
        self._batches.set_state(state["reader"])

    def close(self) -> None:
        """Ends the threads that read; there are no batches behind it."""
        self._batches.close()

    def _crop(self, name: str, rng: np.random.Generator) -> UInt8[np.ndarray, "size size 3"] | None:
        try:
            image = read_image(self._directory / name)
        except InputError as error:
            self.unreadable[name] = str(error)
            if len(self.unreadable) == self.images:
                raise InputError(
                    f"none of the {self.images} images in {str(self._directory)!r} can be read; "
                    f"one of them: {error}"
                ) from error
            return None
        return random_crop(image, rng, self._image_size)


def _list_below(directory: Path) -> list[str]:
    """Image files in a folder and its folders, sorted, relative to it; hidden ones are left out."""

    def images(names: Iterable[str]) -> list[str]:
        return [
            name
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES
        ]

    found = list(files_below(directory, images))
    if not found:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"no images in {str(directory)!r}: looked for {suffixes}")
    return sorted(found)


def _grain() -> Any:
    try:
        import grain
    except ImportError:
        raise InputError('training data is read with Grain; pip install "sam-jax[train]"') from None
    return grain
