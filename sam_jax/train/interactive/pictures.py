"""Pictures of a run: what the model makes of a first prompt, beside what is true."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from sam_jax.data.batches import TrainingBatch, normalized_images, unpack_masks
from sam_jax.formats.overlay import draw_overlay, side_by_side
from sam_jax.models.sam.sam import Sam
from sam_jax.ops.resample import linear_matrix
from sam_jax.sharding import join_heads
from sam_jax.train.interactive.simulation import SimulationOptions, first_prompt
from sam_jax.types import LABEL_ABSENT, LABEL_BOX_TOP_LEFT, Params, Prompts

IMAGES = 4
_WIDTH = 512


def first_prompt_pictures(
    model: Sam, options: SimulationOptions
) -> Callable[[Params, TrainingBatch], UInt8[np.ndarray, "height width 3"]]:
    """A function that draws the first images of a batch, the truth left and the model's mask right.

    Args:
      model: without drop path and dropout.
      options: how the prompt is drawn.

    Returns:
      A function of variables as `sharding.split_heads` makes them and a batch of NumPy arrays.
    """

    @jax.jit
    def answer(variables: Any, batch: Any) -> Any:
        variables = join_heads(variables)
        config = model.config
        images = normalized_images(batch, config)
        features = model.apply(variables, images, method="encode_image")
        # The object of greatest weight; any, among equals.
        masks: Any = unpack_masks(batch.masks[:, :1])
        keys = jax.random.split(jax.random.key(0), masks.shape[0])
        draw_prompt = jax.vmap(lambda key, mask, size: first_prompt(key, mask, size, options))
        points, labels = draw_prompt(keys, masks[:, 0], batch.sizes_hw)
        prompts = Prompts(points=points[:, None], labels=labels[:, None])
        decoded: Any = model.apply(variables, features, prompts, True, method="decode")
        logits, scores = decoded
        best = jnp.argmax(scores[:, 0], axis=-1)
        logits = jnp.take_along_axis(logits[:, 0], best[:, None, None, None], axis=1)[:, 0]
        rows, columns = (
            jnp.asarray(linear_matrix(low, full), jnp.float32)
            for low, full in zip(logits.shape[1:], masks.shape[2:], strict=True)
        )
        found = jnp.einsum("yh,bhw,xw->byx", rows, logits, columns) > 0
        return masks[:, 0], found, points, labels

    def draw(variables: Params, batch: Any) -> UInt8[np.ndarray, "height width 3"]:
        few = jax.tree.map(lambda x: np.asarray(x[:IMAGES]), batch)
        true, found, points, labels = jax.device_get(answer(variables, few))
        lines = []
        for i in range(len(few.images)):
            height, width = few.sizes_hw[i]
            image = few.images[i, :height, :width]
            prompt: dict[str, Any]
            if labels[i, 0] == LABEL_BOX_TOP_LEFT:
                prompt = {"boxes": points[i].reshape(1, 4)}
            else:
                there = labels[i] != LABEL_ABSENT
                prompt = {"points": points[i][there], "labels": labels[i][there]}
            pair = [
                draw_overlay(image, masks[i, None, :height, :width], **prompt)
                for masks in (true, found)
            ]
            lines.append(side_by_side(pair, max_side=_WIDTH))
        return _stacked(lines)

    return draw


def _stacked(pictures: list[Image.Image]) -> UInt8[np.ndarray, "height width 3"]:
    width = max(picture.width for picture in pictures)
    height = sum(picture.height for picture in pictures)
    whole = Image.new("RGB", (width, height))
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height
    return np.asarray(whole)
