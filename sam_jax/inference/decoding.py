"""Models of both families, as predictors use them: features of images, and prompts on them."""

from typing import Any

import jax
from jaxtyping import Array, Float

from sam_jax.models.sam.sam import Sam
from sam_jax.models.sam2.config import Sam2Config
from sam_jax.models.sam2.sam2 import Sam2
from sam_jax.models.sam2.values import ImageFeatures
from sam_jax.ops.platform import traced_platform
from sam_jax.types import Params, Prompts

Model = Sam | Sam2
# What the image encoder says of an image, or of a batch of them.
Features = Any


def build_model(config: Any, dtype: Any) -> Model:
    """The model of a configuration of either family."""
    return Sam2(config, dtype) if isinstance(config, Sam2Config) else Sam(config, dtype)


def embedding_of(features: Features) -> Any:
    """The embedding [..., h, w, C] at 1/16 of the resolution; SAM 2 has finer ones beside it."""
    return features.embedding if isinstance(features, ImageFeatures) else features


def decode_prompts(
    model: Model, params: Params, features: Features, prompts: Prompts, multimask: bool = True
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
    method = "decode" if isinstance(model, Sam) else "predict"

    def decode(features, prompts):
        return model.apply(params, features, prompts, multimask, method=method)

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


def _batch_of_one(features: Features) -> Features:
    return jax.tree.map(lambda x: x[None], features)
