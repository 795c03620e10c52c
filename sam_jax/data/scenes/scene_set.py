"""Procedural scenes as a dataset: a fixed number of them, to evaluate on as on any folder."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np

from sam_jax.data.samples import Sample
from sam_jax.data.scenes.batches import SceneBatches
from sam_jax.data.scenes.object_kinds import HELD_OUT_KINDS
from sam_jax.data.scenes.scenes import SceneOptions
from sam_jax.errors import InputError
from sam_jax.formats.rle import encode_rle

# Beyond all images of any run: what is evaluated was never trained on, whatever a run's seed.
FIRST_SCENE = 2**31 - 2**20
SEED = 1
SCENES = 500


@dataclass(frozen=True)
class SceneSet:
    """Scenes `first` to `first + count` of a seed, each with its masks of weight 1.

    Attributes:
      options: what scenes look like.
      count: how many.
      seed: of all scenes.
      first: index of the first scene; by default beyond all that training draws.
    """

    options: SceneOptions = field(default_factory=SceneOptions)
    count: int = SCENES
    seed: int = SEED
    first: int = FIRST_SCENE

    @property
    def description(self) -> str:
        """What it is, and of how many images."""
        kinds = "held-out " if self.options.kinds == HELD_OUT_KINDS else ""
        return f"{self.count} procedural scenes of {len(self.options.kinds)} {kinds}kinds of object"

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        """The scene's number in the set."""
        return f"scene {index}"

    def __getitem__(self, index: int) -> Sample:
        """Draws a scene; image and masks have the size that it has within its frame."""
        scenes = SceneBatches(self.options, self.seed, 1, start=self.first + index)
        batch = jax.device_get(next(scenes))
        height, width = (int(size) for size in batch.sizes_hw[0])
        masks = np.unpackbits(batch.masks[0][batch.weights[0] > 0], axis=-1).astype(bool)
        return Sample(
            self.name(index),
            np.ascontiguousarray(batch.images[0, :height, :width]),
            (height, width),
            [encode_rle(mask) for mask in masks[:, :height, :width]],
        )


# Names of sets, in the place of a dataset's path.
SCENE_SETS: dict[str, Any] = {
    "scenes": SceneSet,
    "scenes:held-out": partial(SceneSet, SceneOptions(kinds=HELD_OUT_KINDS)),
}


def scene_set(name: str) -> SceneSet:
    """The set of a name.

    Raises:
      InputError: there is none.
    """
    if name not in SCENE_SETS:
        raise InputError(f"there are no scenes {name!r}: give {' or '.join(SCENE_SETS)}")
    return SCENE_SETS[name]()
