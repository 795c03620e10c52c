"""What is trained: a model, its loss on a part of a batch, and what is reported of it."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from sam_jax.data.batches import TrainingBatch, normalized_images, unpack_masks
from sam_jax.models.sam import Sam
from sam_jax.train.interactive import InteractiveOptions, interact
from sam_jax.train.step import Loss, Summed
from sam_jax.types import Params, Prompts


def interactive_loss(model: Sam, options: InteractiveOptions) -> Loss:
    """The loss of interactive training (SAM appendix A): images encoded once, masks corrected.

    Args:
      model: with drop path and dropout as wanted.
      options: what the passes are.
    """

    def loss(params: Params, constants: Params, batch: TrainingBatch, key: PRNGKeyArray) -> Summed:
        encode_key, passes_key = jax.random.split(key)
        variables = {"params": params, **constants}
        config = model.config
        images = normalized_images(batch, config.pixel_mean, config.pixel_std)
        features = model.apply(
            variables, images, rngs={"dropout": encode_key}, method="encode_image"
        )

        def decode(prompts: Prompts, multimask: bool, key: PRNGKeyArray) -> Any:
            return model.apply(
                variables, features, prompts, multimask, rngs={"dropout": key}, method="decode"
            )

        found = interact(decode, unpack_masks(batch.masks), batch.weights, passes_key, options)
        losses = found.losses
        metrics = {
            "focal": losses.focal,
            "dice": losses.dice,
            "iou_error": losses.iou,
            "iou": found.iou,
        }
        weight = (batch.weights > 0).sum().astype(jnp.float32)
        return Summed(losses.total, weight, metrics)

    return loss
