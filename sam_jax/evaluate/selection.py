"""Which images and objects of a dataset are evaluated; what cannot be used is counted."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from sam_jax.data.samples import Dataset, RecordError, check_sizes, decoded_image, mask_counts
from sam_jax.formats.rle import decode_rle

# Why an image is left out although it can be read.
NO_OBJECT = "no object to evaluate"
# How many of the messages about what is left out are kept.
_NAMED = 3


@dataclass(frozen=True)
class Selection:
    """What to take of a dataset.

    Attributes:
      max_images: so many images at random; all of them, in order, if None.
      max_masks: of an image so many objects at random; all if None.
      min_area: objects of fewer pixels are left out, empty ones always.
      seed: of what is random. An image's objects do not depend on other images.
    """

    max_images: int | None = None
    max_masks: int | None = None
    min_area: int = 1
    seed: int = 0


class EvaluatedImage:
    """An image with the objects to evaluate.

    Attributes:
      name: what a person finds it by.
      index: its number in the dataset.
      pixels: RGB.
      objects: the numbers of its objects in the annotations.
      areas: their pixels.
    """

    def __init__(
        self,
        name: str,
        index: int,
        pixels: UInt8[np.ndarray, "height width 3"],
        objects: Sequence[int],
        counts: Sequence[Int64[np.ndarray, " _"]],
        segmenter: Any,
    ):
        """Encodes nothing yet; `counts` are the objects' run lengths."""
        self.name, self.index, self.pixels = name, index, pixels
        self.objects = list(objects)
        self.areas = [int(runs[1::2].sum()) for runs in counts]
        self.segmenter = segmenter
        self._counts = counts

    @cached_property
    def embedding(self) -> Any:
        """The image's embedding by the segmenter, made once."""
        return self.segmenter.encode(self.pixels)

    def mask(self, place: int) -> Bool[np.ndarray, "height width"]:
        """The mask of the object at this place in `objects`."""
        mask = decode_rle({"size": self.pixels.shape[:2], "counts": self._counts[place]})
        # Row by row, as predictions are: comparing the two is many times faster.
        return np.ascontiguousarray(mask)


class SelectedImages:
    """Reads the images of a selection, one at a time.

    Attributes:
      total: how many there are at most.
      taken: how many there were so far.
      skipped: how many images were left out so far, by reason.
      messages: of the first few, what was wrong.
      small_objects: how many objects were left out so far for their area.
    """

    def __init__(self, dataset: Dataset, selection: Selection, segmenter: Any):
        self._dataset, self._selection, self._segmenter = dataset, selection, segmenter
        self.total = min(len(dataset), selection.max_images or len(dataset))
        self.taken = 0
        self.skipped: Counter[str] = Counter()
        self.messages: list[str] = []
        self.small_objects = 0

    def __iter__(self) -> Iterator[EvaluatedImage]:
        """Those that can be used; others in their place while there are more."""
        order: Any = range(len(self._dataset))
        if self._selection.max_images is not None:
            order = np.random.default_rng(self._selection.seed).permutation(len(self._dataset))
        for index in order:
            if self.taken == self.total:
                return
            try:
                image = self._read(int(index))
            except RecordError as error:
                self.skipped[error.reason] += 1
                self.messages = [*self.messages, str(error)][:_NAMED]
                continue
            self.taken += 1
            yield image

    def _read(self, index: int) -> EvaluatedImage:
        selection = self._selection
        sample = self._dataset[index]
        check_sizes(sample)
        counts = [mask_counts(sample, number) for number in range(len(sample.segmentations))]
        pixels = np.asarray(decoded_image(sample))
        least = max(1, selection.min_area)
        objects = [number for number, runs in enumerate(counts) if runs[1::2].sum() >= least]
        if not objects:
            raise RecordError(NO_OBJECT, f"{sample.name}: no object of {least} pixels or more")
        self.small_objects += len(counts) - len(objects)
        if selection.max_masks is not None and len(objects) > selection.max_masks:
            rng = np.random.default_rng([selection.seed, index])
            chosen = rng.choice(len(objects), selection.max_masks, replace=False)
            objects = [objects[place] for place in sorted(chosen.tolist())]
        kept = [counts[number] for number in objects]
        return EvaluatedImage(sample.name, index, pixels, objects, kept, self._segmenter)
