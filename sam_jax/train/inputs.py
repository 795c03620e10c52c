"""A run's input: batches of a dataset or of procedural scenes, or one batch again and again."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import jax

from sam_jax.data.layouts import open_dataset
from sam_jax.data.pipeline import training_batches
from sam_jax.data.scenes.batches import SceneBatches
from sam_jax.data.scenes.scenes import SceneOptions
from sam_jax.data.transforms import FrameOptions
from sam_jax.errors import InputError
from sam_jax.train.loop.loop import Batches
from sam_jax.train.options import SCENES, DataOptions


def open_batches(
    options: DataOptions,
    scenes: SceneOptions,
    image_size: int,
    seed: int,
    echo: Callable[[str], None],
) -> Batches:
    """This process's part of every batch.

    Args:
      options: what of.
      scenes: what procedural scenes look like, if it is these.
      image_size: side of the model's frame in pixels, where the options do not say another.
      seed: of order and augmentation.
      echo: is told what was found.

    Raises:
      InputError: there is no such dataset, or it cannot be read.
    """
    batch_size = options.batch_size // jax.process_count()
    image_size = options.image_size or image_size
    if options.path == SCENES:
        echo(f"procedural scenes of {len(scenes.kinds)} kinds of object")
        drawn = SceneBatches(
            replace(scenes, image_size=image_size, masks=options.max_masks),
            seed,
            batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        return OneBatch(drawn) if options.overfit else drawn
    frame = FrameOptions(
        image_size=image_size,
        max_masks=options.max_masks,
        max_area=options.max_mask_area,
        scale_range=(options.jitter[0], options.jitter[1]) if options.jitter else None,
        flip=0.5 if options.flip else 0.0,
    )
    dataset = open_dataset(options.path, options.annotations or None)
    echo(dataset.description)
    batches = training_batches(
        dataset,
        frame,
        batch_size=batch_size,
        seed=seed,
        workers=0 if options.overfit else options.workers,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    if not options.overfit:
        return batches
    # Entries left out when the dataset was opened are none of its length.
    before = sum(batches.skipped().values())
    repeated = OneBatch(batches)
    # Counted again in every epoch: at least one too many only where there was more than one.
    usable = len(dataset) + before - sum(repeated.skipped().values())
    if usable < options.overfit:
        raise InputError(
            f"data.overfit {options.overfit}: {options.path} has fewer images that can be used"
        )
    return repeated


class OneBatch:
    """The first batch again and again, to see whether a model can learn at all."""

    def __init__(self, batches: Batches):
        """Takes the first of these."""
        with closing(batches):
            self._batch = next(batches)
            self._skipped = batches.skipped()

    def __next__(self) -> Any:
        """The batch."""
        return self._batch

    def get_state(self) -> dict[str, Any]:
        """Nothing: it stands still."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Does nothing."""

    def skipped(self) -> dict[str, int]:
        """Records that could not be used, by reason."""
        return self._skipped

    def close(self) -> None:
        """Does nothing."""
