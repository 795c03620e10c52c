"""Training on embeddings: each image is encoded once, and only the decoder runs in a step."""

import hashlib
import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from sam_jax.configs import config_to_json
from sam_jax.data.batches import EmbeddedBatch, TrainingBatch, normalized_images
from sam_jax.embeddings import ImageEmbedding
from sam_jax.errors import InputError
from sam_jax.models.features import ImageFeatures
from sam_jax.models.sam.sam import Sam
from sam_jax.train.loop.loop import Batches
from sam_jax.types import Params


class EmbeddedBatches:
    """Batches whose images are encoded, each once; otherwise those that they are made from.

    Embeddings are kept in a folder, named for the pixels in the frame and the encoder, so that runs
    share them and another encoder finds none of them.
    """

    def __init__(
        self,
        batches: Batches,
        model: Sam,
        variables: Callable[[], Params],
        folder: Path,
        echo: Callable[[str], None] = lambda line: None,
    ):
        """Encodes nothing yet.

        Args:
          batches: of `TrainingBatch`.
          model: without drop path.
          variables: for it, plain, on the host: the encoder's are on the device only while an image
            is encoded.
          folder: where embeddings are kept; it is made when there is one.
          echo: takes a line for a person, when the first image is encoded.
        """
        self._batches, self._model = batches, model
        self._variables, self._folder = variables, folder
        self._echo: Callable[[str], None] | None = echo

    def __next__(self) -> EmbeddedBatch:
        """The next batch, encoded.

        Raises:
          InputError: the folder cannot be written to.
        """
        batch = next(self._batches)
        # Of one type, whether they were kept or are new: another one is another program.
        features = [self._of_image(batch, i) for i in range(len(batch.images))]
        stacked = jax.tree.map(lambda *one: np.stack(one).astype(np.float32), *features)
        return EmbeddedBatch(stacked, batch.sizes_hw, batch.masks, batch.weights)

    def shapes(self, batch: Any) -> Any:
        """An `EmbeddedBatch` of shapes, from the shapes of the batch that it is made from."""
        found = jax.eval_shape(self._encode_batch, self._variables(), batch)
        features: Any = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), found)
        return EmbeddedBatch(features, batch.sizes_hw, batch.masks, batch.weights)

    def get_state(self) -> dict[str, Any]:
        """That of the batches."""
        return self._batches.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Sets that of the batches."""
        self._batches.set_state(state)

    def skipped(self) -> dict[str, int]:
        """Those of the batches."""
        return self._batches.skipped()

    def close(self) -> None:
        """Closes the batches."""
        self._batches.close()

    @cached_property
    def _fingerprint(self) -> str:
        """Of the image encoder: its parameters, configuration and compute type."""
        config = {**config_to_json(self._model.config), "dtype": np.dtype(self._model.dtype).name}
        total = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
        params = flatten_dict(self._variables()["params"]["image_encoder"], sep="/")
        for name, values in sorted(params.items()):
            total.update(f"\n{name} ".encode() + np.asarray(values, "<f4").tobytes())
        return total.hexdigest()

    def _of_image(self, batch: TrainingBatch, i: int) -> ImageFeatures:
        image, size_hw = np.asarray(batch.images[i]), np.asarray(batch.sizes_hw[i])
        content = hashlib.sha256(f"{self._fingerprint} {size_hw.tolist()}\n".encode())
        content.update(np.ascontiguousarray(image).data)
        path = self._folder / f"{content.hexdigest()}.npz"
        try:
            kept = ImageEmbedding.load(path)
            if kept.fingerprint == self._fingerprint:
                return jax.device_get(ImageFeatures(kept.features, kept.finer))
        except InputError:
            pass  # not there, or damaged: it is made again
        if self._echo is not None:
            self._echo(f"encoding each image once; embeddings are kept in {self._folder}")
            self._echo = None
        features = self._encode(batch, i)
        height, width = size_hw.tolist()
        try:
            kept = ImageEmbedding(
                features.embedding, (height, width), self._fingerprint, features.finer
            )
            kept.save(path)
        except OSError as error:
            raise InputError(
                f"tune.cached_embeddings: cannot write to {self._folder}: "
                f"{error.strerror or error}; make room there, or name another folder"
            ) from error
        return jax.device_get(features)

    def _encode_batch(self, variables: Params, batch: TrainingBatch) -> ImageFeatures:
        config = self._model.config
        images = normalized_images(batch, config)
        features: Any = self._model.apply(variables, images, method="encode_image")
        return features

    def _encode(self, batch: TrainingBatch, i: int) -> ImageFeatures:
        one = jax.tree.map(lambda x: np.asarray(x[i : i + 1]), batch)
        encoder = self._variables()["params"]["image_encoder"]
        found = self._compiled({"params": {"image_encoder": encoder}}, one)
        return jax.tree.map(lambda x: x[0], found)

    @cached_property
    def _compiled(self) -> Any:
        return jax.jit(self._encode_batch)
