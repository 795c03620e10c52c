"""What can be done without a model: the same clicks and boxes, answered by colors alone."""

from collections.abc import Iterator, Sequence
from importlib import import_module
from types import ModuleType

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from scipy import ndimage

from sam_jax.errors import InputError
from sam_jax.types import LABEL_FOREGROUND

# Of the distance between colors in RGB, 0..255: the chosen one, then the others.
TOLERANCES = (32.0, 16.0, 64.0)

# Longest side of what these work on: both take time that grows faster than the image.
_WALKER_SIDE = 256
_GRABCUT_SIDE = 512
# How strictly the random walker keeps to edges (its authors' beta), scikit-image's default.
_BETA = 130.0
_OBJECT, _BESIDE = 1, 2
_GRABCUT_ROUNDS = 5

# By baseline what it imports and what is installed for that.
_PACKAGES = {
    "grabcut": ("cv2", "opencv-python-headless"),
    "random-walker": ("skimage.segmentation", "scikit-image"),
}


def check_installed(baseline: str) -> None:
    """Refuses, before long work, a baseline of which a package is missing.

    Args:
      baseline: "flood-fill", "random-walker", "filled-box" or "grabcut".

    Raises:
      InputError: with the package's name.
    """
    if baseline in _PACKAGES:
        _package(baseline)


class FloodFill:
    """The connected region around the first click whose colors are near the clicked one.

    Further clicks are not used. Offers a mask for each of `TOLERANCES`.
    """

    def __init__(self, image: UInt8[np.ndarray, "height width 3"]):
        self._image = image.astype(np.float32)

    def answer(
        self,
        objects: Sequence[int],
        points: Float[np.ndarray, "objects clicks 2"],
        labels: Int[np.ndarray, "objects clicks"],
    ) -> Iterator[Sequence[Bool[np.ndarray, "height width"]]]:
        """See `interactive.ClickMethod`."""
        for x, y in points[:, 0].astype(int):
            away = np.sqrt(((self._image - self._image[y, x]) ** 2).sum(axis=-1))
            masks = []
            for tolerance in TOLERANCES:
                parts, _ = ndimage.label(away <= tolerance)
                masks.append(parts == parts[y, x])
            yield masks


class RandomWalker:
    """Grady's random walker (PAMI 2006): what a walk reaches a click on the object from first.

    The border of the image is taken to be beside the object, or a first click alone would have
    nothing to be told apart from.
    """

    def __init__(self, image: UInt8[np.ndarray, "height width 3"]):
        """Scales the image to 256 pixels at most.

        Raises:
          InputError: scikit-image is not installed.
        """
        self._segmentation = _package("random-walker")
        self._size_hw = (image.shape[0], image.shape[1])
        self._image = _scaled(image, _WALKER_SIDE).astype(np.float64) / 255

    def answer(
        self,
        objects: Sequence[int],
        points: Float[np.ndarray, "objects clicks 2"],
        labels: Int[np.ndarray, "objects clicks"],
    ) -> Iterator[Sequence[Bool[np.ndarray, "height width"]]]:
        """See `interactive.ClickMethod`."""
        for clicks, kinds in zip(points, labels, strict=True):
            inside = self._probability(self._seeds(clicks, kinds)).astype(np.float32)
            whole = Image.fromarray(inside).resize(self._size_hw[::-1], Image.Resampling.BILINEAR)
            yield [np.asarray(whole) > 0.5]

    def _seeds(
        self, clicks: Float[np.ndarray, "clicks 2"], kinds: Int[np.ndarray, " clicks"]
    ) -> Int[np.ndarray, "height width"]:
        """Each click as a square of three pixels; the later ones over the earlier."""
        height, width = self._image.shape[:2]
        seeds = np.full((height, width), _BESIDE, np.int32)
        seeds[1:-1, 1:-1] = 0
        scale_xy = np.array([width, height]) / self._size_hw[::-1]
        for (x, y), kind in zip(((clicks + 0.5) * scale_xy).astype(int), kinds, strict=True):
            square = np.s_[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
            seeds[square] = _OBJECT if kind == LABEL_FOREGROUND else _BESIDE
        return seeds

    def _probability(
        self, seeds: Int[np.ndarray, "height width"]
    ) -> Float[np.ndarray, "height width"]:
        """Of each pixel, that it is of the object."""
        if {0, _OBJECT, _BESIDE} - set(np.unique(seeds).tolist()):
            return (seeds == _OBJECT).astype(np.float64)  # nothing left to decide
        probabilities = self._segmentation.random_walker(
            self._image, seeds, beta=_BETA, mode="bf", return_full_prob=True, channel_axis=-1
        )
        return probabilities[0]


def fill_box(
    image: UInt8[np.ndarray, "height width 3"], box: Float[np.ndarray, " 4"]
) -> Bool[np.ndarray, "height width"]:
    """All pixels of a box, x0 y0 x1 y1 of its outermost pixels."""
    mask = np.zeros(image.shape[:2], bool)
    x0, y0, x1, y1 = box.astype(int)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def grabcut(
    image: UInt8[np.ndarray, "height width 3"], box: Float[np.ndarray, " 4"]
) -> Bool[np.ndarray, "height width"]:
    """GrabCut (Rother et al. 2004) from a box, x0 y0 x1 y1, on an image of 512 pixels at most.

    Where nothing is outside the box there is nothing to learn from: the box then.

    Raises:
      InputError: OpenCV is not installed.
    """
    cv2 = _package("grabcut")
    small = _scaled(image, _GRABCUT_SIDE)
    scale_xy = np.array(small.shape[1::-1]) / np.array(image.shape[1::-1])
    inside = fill_box(small, box * np.tile(scale_xy, 2))
    if inside.all():
        return fill_box(image, box)
    mask = np.where(inside, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    cv2.setRNGSeed(0)  # it begins with clusters at random
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(small, mask, None, *models, _GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK)
    found = Image.fromarray(np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD)))
    return np.asarray(found.resize(image.shape[1::-1], Image.Resampling.NEAREST))


def _scaled(
    image: UInt8[np.ndarray, "height width 3"], side: int
) -> UInt8[np.ndarray, "low_height low_width 3"]:
    """The image with its longest side at most so long."""
    factor = min(1.0, side / max(image.shape))
    height, width = (max(1, round(length * factor)) for length in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def _package(baseline: str) -> ModuleType:
    module, package = _PACKAGES[baseline]
    try:
        return import_module(module)
    except ImportError:
        raise InputError(f"{baseline} needs {package}: pip install {package}") from None
