"""Batches of procedural scenes: endless for training, a fixed set for evaluation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Integer

from sam_jax.data.batches import TrainingBatch, pack_masks
from sam_jax.data.scenes.scenes import SceneOptions, scene
from sam_jax.errors import InputError


def scene_batch(
    seed: int | Integer[Array, ""],
    indices: Int[Array | np.ndarray, " B"],
    options: SceneOptions,
    wanted: Bool[Array | np.ndarray, " B"] | None = None,
    at_once: int = 1,
) -> TrainingBatch:
    """Scenes of a seed as a training batch; to be jitted with `options` and `at_once` static.

    Every scene is a function of the seed and its index alone, wherever it is drawn: over many
    devices, map this over the indices (`jax.shard_map`).

    Args:
      seed: of all scenes.
      indices: which of them.
      options: what scenes look like.
      wanted: False for scenes that only fill the batch, whose masks all have weight 0.
      at_once: how many scenes are drawn together. CPUs are fastest with one after the other, which
        skips work that a scene does not need; accelerators with all.
    """
    seed_key = jax.random.key(seed)

    def packed(index):
        drawn = scene(jax.random.fold_in(seed_key, index), options)
        return drawn.image, drawn.size_hw, pack_masks(drawn.masks), drawn.weights

    indices = jnp.asarray(indices)
    together = None if at_once == 1 else at_once
    images, sizes_hw, masks, weights = jax.lax.map(packed, indices, batch_size=together)
    if wanted is not None:
        weights = weights * jnp.asarray(wanted)[:, None]
    return TrainingBatch(images, sizes_hw, masks, weights)


_drawn = jax.jit(scene_batch, static_argnames=("options", "at_once"))


class SceneBatches:
    """An iterator of training batches; scene i of a seed is the same whatever the batches are.

    `get_state` and `set_state` pass its position as values of JSON, so that a run that was cut off
    goes on with the very scenes it would have had.

    Args:
      options: what scenes look like.
      seed: of all scenes, from 0 to 4294967295.
      batch_size: scenes in a batch of one process.
      start: index of the first scene.
      stop: the index after the last, for a fixed set; a last batch that is not full is filled up
        with scenes whose weights are 0. None for no end.
      at_once: see `scene_batch`; None for what suits the default device.
      process_index: which part of every batch this is, where several processes share them.
      process_count: how many processes do.

    Raises:
      InputError: a value is out of its range.
    """

    def __init__(
        self,
        options: SceneOptions,
        seed: int,
        batch_size: int,
        start: int = 0,
        stop: int | None = None,
        at_once: int | None = None,
        process_index: int = 0,
        process_count: int = 1,
    ):
        if not 0 <= seed < 1 << 32:
            raise InputError(f"seed is {seed}: give 0 to 4294967295")
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}: give at least 1")
        if start < 0 or (stop is not None and stop < start):
            raise InputError(f"scenes {start} to {stop} are none: give 0 <= start <= stop")
        if at_once is None:
            at_once = 1 if jax.default_backend() == "cpu" else batch_size
        self.options = options
        self.seed = seed
        self.batch_size = batch_size
        self.position = start
        self.stop = stop
        self._ahead = process_index * batch_size
        self._stride = process_count * batch_size
        self._draw = partial(_drawn, options=options, at_once=at_once)

    def __iter__(self) -> "SceneBatches":
        return self

    def __next__(self) -> TrainingBatch:
        if self.stop is not None and self.position >= self.stop:
            raise StopIteration
        indices = self.position + self._ahead + np.arange(self.batch_size)
        wanted = indices < (np.inf if self.stop is None else self.stop)
        batch = self._draw(np.uint32(self.seed), indices.astype(np.int32), wanted=wanted)
        self.position += self._stride
        if self.stop is not None:
            self.position = min(self.position, self.stop)
        return batch

    def get_state(self) -> dict[str, int]:
        """The seed, and how many scenes lie behind, as values of JSON."""
        return {"seed": self.seed, "position": self.position}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes on from where `get_state` was called.

        Raises:
          InputError: the state is of another seed, or no such state.
        """
        if set(state) != {"seed", "position"} or state["seed"] != self.seed:
            raise InputError(f"a state of seed {self.seed} is wanted: this is {state}")
        self.position = state["position"]

    def skipped(self) -> dict[str, int]:
        """Records that could not be used, by reason: none, ever."""
        return {}

    def close(self) -> None:
        """Does nothing: nothing is drawn ahead."""
