"""Training on embeddings: each image is encoded once, and only the decoder runs in a step."""

import hashlib
import json
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from sam_jax.configs import config_to_json
from sam_jax.data.batches import TrainingBatch, normalized_images
from sam_jax.data.samples import Sample
from sam_jax.data.transforms import FrameOptions, framed
from sam_jax.embeddings import ImageEmbedding
from sam_jax.errors import InputError
from sam_jax.models.sam import Sam
from sam_jax.train.loop import Batches
from sam_jax.train.tasks import EmbeddedBatch
from sam_jax.types import Params


class EmbeddingCache:
    """Embeddings of images in the frame, by their pixels and the encoder; in memory or a folder."""

    def __init__(self, model: Sam, variables: Callable[[], Params], folder: Path | None = None):
        """Encodes nothing yet.

        Args:
          model: without drop path.
          variables: for it, called when an image has to be encoded; on the host, they are on the
            device while that lasts.
          folder: where embeddings are kept; None keeps them in memory.
        """
        self._model, self._variables, self._folder = model, variables, folder
        self._memory: dict[str, np.ndarray] = {}

    @cached_property
    def fingerprint(self) -> str:
        """Of the image encoder: its parameters, configuration and compute type."""
        config = {**config_to_json(self._model.config), "dtype": np.dtype(self._model.dtype).name}
        total = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
        params = flatten_dict(self._variables()["params"]["image_encoder"], sep="/")
        for name, values in sorted(params.items()):
            total.update(f"\n{name} ".encode() + np.asarray(values, "<f4").tobytes())
        return total.hexdigest()

    def features(self, batch: TrainingBatch) -> np.ndarray:
        """What the encoder makes of each image of a batch, float32 [B, h, w, C].

        Raises:
          OSError: the folder cannot be written to.
        """
        return np.stack([self._of_image(batch, i) for i in range(len(batch.images))])

    def _of_image(self, batch: TrainingBatch, i: int) -> np.ndarray:
        image, size_hw = np.asarray(batch.images[i]), np.asarray(batch.sizes_hw[i])
        content = hashlib.sha256(f"{self.fingerprint} {size_hw.tolist()}\n".encode())
        content.update(np.ascontiguousarray(image).data)
        name = content.hexdigest()
        if self._folder is None:
            if name not in self._memory:
                self._memory[name] = self._encode(batch, i)
            return self._memory[name]
        path = self._folder / f"{name}.npz"
        try:
            kept = ImageEmbedding.load(path)
            if kept.fingerprint == self.fingerprint:
                return np.asarray(kept.features)
        except InputError:
            pass  # not there, or damaged: it is made again
        features = self._encode(batch, i)
        size = (int(size_hw[0]), int(size_hw[1]))
        ImageEmbedding(features, size, self.fingerprint).save(path)  # type: ignore[arg-type]
        return features

    def _encode(self, batch: TrainingBatch, i: int) -> np.ndarray:
        one = jax.tree.map(lambda x: np.asarray(x[i : i + 1]), batch)
        variables = self._variables()
        only = {"params": {"image_encoder": variables["params"]["image_encoder"]}}
        return np.asarray(self._compiled(only, one)[0], np.float32)

    @cached_property
    def _compiled(self) -> Any:
        config = self._model.config

        def encode(variables, batch):
            images = normalized_images(batch, config.pixel_mean, config.pixel_std)
            return self._model.apply(variables, images, method="encode_image")

        return jax.jit(encode)


def embed_samples(
    cache: EmbeddingCache, samples: Iterable[Sample], frame: FrameOptions, seed: int = 0
) -> EmbeddedBatch:
    """All samples of a small set as one batch; the encoder runs once an image.

    Args:
      cache: with the encoder.
      samples: images with masks.
      frame: how they come into the model's frame.
      seed: of the choice of masks, and of jitter and flips.

    Raises:
      RecordError: a sample cannot be used.
    """
    rng = np.random.default_rng(seed)
    rows = [framed(sample, frame, rng) for sample in samples]
    batch = TrainingBatch(**{name: np.stack([row[name] for row in rows]) for name in rows[0]})
    return embedded(cache, batch)


def embedded(cache: EmbeddingCache, batch: TrainingBatch) -> EmbeddedBatch:
    """A batch with embeddings in the place of its images."""
    return EmbeddedBatch(cache.features(batch), batch.masks, batch.weights)


class EmbeddedBatches:
    """Batches whose images are encoded, each once; otherwise those that they are made from."""

    def __init__(
        self, batches: Batches, model: Sam, variables: Callable[[], Params], folder: Path | None
    ):
        """See `EmbeddingCache`."""
        self._batches = batches
        self._cache = EmbeddingCache(model, variables, folder)

    def __next__(self) -> EmbeddedBatch:
        """The next batch, encoded."""
        return embedded(self._cache, next(self._batches))

    def get_state(self) -> dict[str, Any]:
        """That of the batches."""
        return self._batches.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Sets that of the batches."""
        self._batches.set_state(state)

    def skipped(self) -> dict[str, int]:
        """Those of the batches."""
        return self._batches.skipped()
