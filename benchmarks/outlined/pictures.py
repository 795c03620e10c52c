"""Photographs of other packages, with objects that were outlined by hand: a dataset to evaluate on.

Only files of those packages are read; none is imported.
"""

import hashlib
import io
import json
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from sam_jax.data.samples import Sample
from sam_jax.errors import InputError
from sam_jax.formats.polygons import polygons_to_mask
from sam_jax.formats.rle import encode_rle
from sam_jax.images import read_image

OUTLINES = Path(__file__).with_name("outlines.json")

Ring = list[list[float]]


@dataclass(frozen=True)
class Outline:
    """One object: what is inside any of its polygons, and in none of its holes.

    Attributes:
      name: what it is.
      polygons: (x, y) in pixels; pixel (0, 0) covers 0..1 by 0..1.
      holes: the same; they may reach beyond the polygons.
    """

    name: str
    polygons: list[Ring]
    holes: list[Ring]

    def mask(self, size_hw: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
        """The pixels whose center is in the object."""
        inside, outside = (
            polygons_to_mask([np.ravel(ring).tolist() for ring in rings], size_hw)
            for rings in (self.polygons, self.holes)
        )
        return inside & ~outside


@dataclass(frozen=True)
class Picture:
    """A photograph that some package has, and what is outlined in it.

    Attributes:
      name: what a person finds it by.
      distribution: what to install; None for a picture that no package has.
      file: its path in the package's folder, or in a folder of extra images.
      by: who made it.
      license: its own, where one is known.
      sha256: of the file.
      size_hw: height and width.
      objects: the outlines.
    """

    name: str
    distribution: str | None
    package: str | None
    file: str
    by: str
    licence: str
    sha256: str
    size_hw: tuple[int, int]
    objects: tuple[Outline, ...]

    def find(self, extra_images: Path | None = None) -> Path | None:
        """Its file, or None where the package is not installed, or no folder given.

        Raises:
          InputError: the package or folder is there, but not the file.
        """
        if self.package is None:
            folders = [] if extra_images is None else [os.fspath(extra_images)]
        else:
            spec = find_spec(self.package)
            folders = list((spec and spec.submodule_search_locations) or [])
        paths = [Path(folder) / self.file for folder in folders]
        for path in paths:
            if path.is_file():
                return path
        if paths:
            raise InputError(f"{self.name}: there is no picture at {paths[0]}")
        return None

    def read(self, path: Path) -> UInt8[np.ndarray, "height width 3"]:
        """The picture, RGB.

        Raises:
          InputError: it is not the one that was outlined.
        """
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise InputError(f"{self.name}: {path} is not the picture that was outlined")
        file = io.BytesIO(content)
        if path.suffix != ".npz":
            return read_image(Image.open(file))
        with np.load(file) as arrays:
            return read_image(arrays["data"])


def outlined_pictures() -> list[Picture]:
    """All that were outlined, wherever their photographs are."""
    return [_picture(entry) for entry in json.loads(OUTLINES.read_text("utf-8"))["pictures"]]


def _picture(entry: dict[str, Any]) -> Picture:
    width, height = entry.pop("size")
    objects = tuple(
        Outline(one["name"], one["polygons"], one.get("holes", [])) for one in entry.pop("objects")
    )
    return Picture(**entry, size_hw=(height, width), objects=objects)


class OutlinedPictures:
    """The pictures that are here, as a `sam_jax.data.samples.Dataset`.

    Attributes:
      pictures: in the order of the samples.
      missing: of every picture of a package that is not installed, what to install.
    """

    def __init__(self, extra_images: Path | None = None):
        """Finds them.

        Args:
          extra_images: a folder with the pictures that no package has; without, they are left out.

        Raises:
          InputError: a package or that folder is there, but not the picture in it.
        """
        self.pictures: list[Picture] = []
        self.missing: list[str] = []
        self._paths: list[Path] = []
        for picture in outlined_pictures():
            path = picture.find(extra_images)
            if path is not None:
                self.pictures.append(picture)
                self._paths.append(path)
            elif picture.distribution is not None:
                self.missing.append(
                    f"{picture.name} is left out: pip install {picture.distribution}"
                )

    @property
    def description(self) -> str:
        """How many of what."""
        return f"{len(self)} photographs with objects outlined by hand"

    def __len__(self) -> int:
        return len(self.pictures)

    def name(self, index: int) -> str:
        """Of a picture."""
        return self.pictures[index].name

    def __getitem__(self, index: int) -> Sample:
        """A picture with its masks.

        Raises:
          InputError: it is not the picture that was outlined.
        """
        picture = self.pictures[index]
        masks = [encode_rle(one.mask(picture.size_hw)) for one in picture.objects]
        return Sample(picture.name, picture.read(self._paths[index]), picture.size_hw, masks)
