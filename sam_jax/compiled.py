"""A model, its parameters and its compiled functions, in the frame of the model's own input."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from sam_jax.models.sam import Sam, decode_prompts
from sam_jax.preprocess import ImagePrompts
from sam_jax.prompt_batches import PromptBatch, batch_prompts, power_of_two
from sam_jax.types import Params, Prompts


@dataclass(frozen=True, eq=False)
class CompiledModel:
    """Runs a model on any number of prepared images and prompts, in few shapes.

    Nothing is compiled twice for one architecture and one bucket of shapes, however many of these
    there are.

    Attributes:
      model: the architecture.
      params: its variables, on the device.
      image_batch: images encoded at once, at most.
      prompt_batch: prompts decoded at once, at most.
    """

    model: Sam
    params: Params
    image_batch: int
    prompt_batch: int

    def encode(self, inputs: Iterable[Float32[np.ndarray, "side side 3"]]) -> list[jax.Array]:
        """Features, float32 [h, w, C], of each input.

        Args:
          inputs: normalised and padded images (`preprocess.prepare_image`), of one size. They are
            taken one batch at a time, so they need not exist all at once.
        """
        waiting = iter(inputs)
        features: list[jax.Array] = []
        while batch := list(islice(waiting, power_of_two(self.image_batch, up=False))):
            # Powers of two: few shapes to compile, no padding images.
            while batch:
                count = power_of_two(len(batch), up=False)
                features += _encode(self.model, self.params, np.stack(batch[:count]))
                batch = batch[count:]
        return features

    def decode(
        self,
        features: Sequence[jax.Array],
        prompts: Sequence[ImagePrompts],
        multimask: bool,
        *,
        on_device: bool = False,
    ) -> list[tuple[Any, Any]]:
        """Scores [P, M] and low-resolution logits [P, M, s, s], float32, for each image's prompts.

        Args:
          features: of each image, from `encode`; their sizes may differ.
          prompts: of each image, in the frame of its padded input; there may be none.
          multimask: three masks a prompt, or one.
          on_device: give JAX arrays, instead of NumPy arrays that may be read-only.
        """
        xp = jnp if on_device else np
        pieces: list[list[Any]] = [[] for _ in features]
        for batch in batch_prompts(prompts, [one.shape for one in features], self.prompt_batch):
            scores, logits = map(xp.asarray, self._decode_batch(features, batch, multimask))
            for slot, (image, count) in enumerate(batch.pieces):
                pieces[image].append((scores[slot, :count], logits[slot, :count]))
        masks = self.model.config.num_multimask_outputs if multimask else 1
        for one, parts in zip(features, pieces, strict=True):
            if not parts:
                shape = (0, masks, 4 * one.shape[0], 4 * one.shape[1])
                parts.append((xp.zeros(shape[:2], np.float32), xp.zeros(shape, np.float32)))
        return [
            parts[0] if len(parts) == 1 else tuple(map(xp.concatenate, zip(*parts, strict=True)))
            for parts in pieces
        ]

    def _decode_batch(
        self, features: Sequence[jax.Array], batch: PromptBatch, multimask: bool
    ) -> tuple[jax.Array, jax.Array]:
        images = [image for image, _ in batch.pieces]
        # Slots that only fill the batch look at the first image; what they give is thrown away.
        images += images[:1] * (batch.points.shape[0] - len(images))
        seen = tuple(features[image] for image in images)
        prompts = Prompts(batch.points, batch.labels, None, batch.masks, batch.mask_present)
        return _decode(self.model, bool(multimask), self.params, seen, prompts)


# Parameters are arguments, so that no model's weights end up in another's program.


def _encode(model: Sam, params: Params, images: np.ndarray) -> tuple[jax.Array, ...]:
    return _encoder(jax.default_backend())(model, params, images)


@cache
def _encoder(platform: str) -> Callable[..., tuple[jax.Array, ...]]:
    def encode(model: Sam, params: Params, images: jax.Array) -> tuple[jax.Array, ...]:
        features = cast(jax.Array, model.apply(params, images, method="encode_image"))
        return tuple(features.astype(jnp.float32))

    # By default XLA orders a CPU's steps as if many could run at once, which the encoder's cannot:
    # it is no faster that way, and takes twice the memory.
    in_order = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    return jax.jit(
        encode, static_argnums=0, compiler_options=in_order if platform == "cpu" else None
    )


@partial(jax.jit, static_argnums=(0, 1))
def _decode(model: Sam, multimask: bool, params: Params, features: tuple, prompts: Prompts):
    logits, scores = decode_prompts(model, params, jnp.stack(features), prompts, multimask)
    return scores, logits
