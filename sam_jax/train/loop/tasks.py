"""What is trained: a model, its loss on a part of a batch, and what is reported of it."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PRNGKeyArray

from sam_jax.data.batches import (
    EmbeddedBatch,
    TrainingBatch,
    normalized_images,
    unpack_masks,
)
from sam_jax.models.sam.sam import Sam
from sam_jax.sharding import join_heads
from sam_jax.train.interactive.passes import InteractiveOptions, interact
from sam_jax.train.loop.state import Summed
from sam_jax.train.loop.step import Loss
from sam_jax.types import Params, Prompts


def interactive_loss(model: Sam, options: InteractiveOptions) -> Loss:
    """The loss of interactive training (SAM appendix A): images encoded once, masks corrected.

    It takes parameters as `sharding.split_heads` makes them.

    Args:
      model: with drop path and dropout as wanted, and the mesh's axis if the encoder is divided.
      options: what the passes are.
    """
    from_features = embedded_loss(model, options)

    def loss(
        params: Params, constants: Params, batch: TrainingBatch, keys: Key[Array, " B"]
    ) -> Summed:
        config = model.config
        variables = join_heads({"params": params, **constants})
        draw_keys = jax.vmap(jax.random.split)(keys)[:, 0]
        shape = (config.image_encoder.depth, 2)
        draws = jax.vmap(lambda key: jax.random.uniform(key, shape, jnp.float32))(draw_keys)
        images = normalized_images(batch, config)
        features: Any = model.apply(variables, images, draws, method="encode_image")
        embedded = EmbeddedBatch(features, batch.sizes_hw, batch.masks, batch.weights)
        return from_features(params, constants, embedded, keys)

    return loss


def embedded_loss(model: Sam, options: InteractiveOptions) -> Loss:
    """The loss of `interactive_loss` where images are encoded already; its numbers, too.

    Parameters need not have the image encoder's.

    Args:
      model: with dropout as wanted.
      options: what the passes are.
    """

    def loss(
        params: Params, constants: Params, batch: EmbeddedBatch, keys: Key[Array, " B"]
    ) -> Summed:
        variables = join_heads({"params": params, **constants})
        pass_keys = jax.vmap(jax.random.split)(keys)[:, 1]

        def of_image(embedding, size_hw, masks, weights, key):
            def decode(prompts: Prompts, multimask: bool | None, key: PRNGKeyArray) -> Any:
                inputs = jax.tree.map(lambda x: x[None], (embedding, prompts))
                decoded = model.apply(
                    variables, *inputs, multimask, rngs={"dropout": key}, method="decode"
                )
                return jax.tree.map(lambda x: x[0], decoded)

            return interact(decode, unpack_masks(masks), weights, size_hw, key, options)

        found = jax.vmap(of_image)(
            batch.features, batch.sizes_hw, batch.masks, batch.weights, pass_keys
        )
        losses, iou = jax.tree.map(lambda x: x.sum(axis=0), (found.losses, found.iou))
        metrics = {
            "focal": losses.focal,
            "dice": losses.dice,
            "iou_error": losses.iou,
            "iou": iou,
        }
        return Summed(losses.total, (batch.weights > 0).sum().astype(jnp.float32), metrics)

    return loss
