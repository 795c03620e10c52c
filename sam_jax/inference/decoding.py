"""Prompts decoded as is fastest on a platform, for models of all families."""

import jax
from jaxtyping import Array, Float

from sam_jax.models.families import Model
from sam_jax.models.features import ImageFeatures
from sam_jax.ops.platform import traced_platform
from sam_jax.types import Params, Prompts


def decode_prompts(
    model: Model, params: Params, features: ImageFeatures, prompts: Prompts, multimask: bool = True
) -> tuple[Float[Array, "B P M four_h four_w"], Float[Array, "B P M"]]:
    """Mask logits and predicted IoU, as is fastest on `ops.platform.traced_platform`.

    A CPU decodes one prompt after the other: all that a prompt needs then stays in its cache, which
    halves the time, and memory does not grow with the prompts.

    Args:
      model: the architecture.
      params: its variables.
      features: of B images, from `encode_image`.
      prompts: in the frame of the model's input, at least one of points, boxes and masks.
      multimask: three masks a prompt, or one; static.

    Raises:
      ValueError: the prompts are empty.
    """

    def decode(features, prompts):
        return model.apply(params, features, prompts, multimask, method="decode")

    def decode_image(image):
        features, prompts = image

        def decode_one(prompt):
            alone = jax.tree.map(lambda x: x[None, None], prompt)
            return jax.tree.map(lambda x: x[0, 0], decode(_batch_of_one(features), alone))

        return jax.lax.map(decode_one, prompts)

    images, count = jax.tree.leaves(prompts)[0].shape[:2]
    if traced_platform() != "cpu" or images * count == 1:
        return decode(features, prompts)
    return jax.lax.map(decode_image, (features, prompts))


def _batch_of_one(features: ImageFeatures) -> ImageFeatures:
    return jax.tree.map(lambda x: x[None], features)
