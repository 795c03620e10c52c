"""Encoder and decoder over a mesh of devices, each device's program written for its own part.

See `sharding` for how images, prompts and parameters are divided.
"""

from typing import cast

from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from sam_jax.inference.decoding import decode_prompts
from sam_jax.models.families import Model
from sam_jax.models.features import ImageFeatures
from sam_jax.sharding import ALL, DATA, MODEL, join_heads, over, partition_specs
from sam_jax.types import Params, Prompts


def encode_images(
    model: Model, mesh: Mesh, params: Params, images: Float[Array, "B H W 3"]
) -> ImageFeatures:
    """`encode_image` over a mesh: images over `data`, heads and MLPs over `model`.

    Along `data` nothing is exchanged; along `model`, two sums over devices in each block.

    Args:
      model: the architecture.
      mesh: from `make_mesh`.
      params: from `place_params`.
      images: as for `encode_image`; as many as `data`, or a multiple.
    """
    part = model.clone(model_axis=MODEL) if mesh.shape[MODEL] > 1 else model

    def encode(params, images):
        return part.apply(join_heads(params), images, method="encode_image")

    run = over(mesh, encode, (partition_specs(params), P(DATA)), P(DATA))
    return cast(ImageFeatures, run(params, images))


def decode(
    model: Model,
    mesh: Mesh,
    params: Params,
    features: ImageFeatures,
    prompts: Prompts,
    multimask: bool = True,
    *,
    by_image: bool = False,
) -> tuple[Float[Array, "B P M four_h four_w"], Float[Array, "B P M"]]:
    """`inference.decoding.decode_prompts` over all devices of a mesh; they exchange nothing.

    Args:
      model: the architecture.
      mesh: from `make_mesh`.
      params: from `place_params`.
      features: of B images, from `encode_images`.
      prompts: as for `decode_prompts`.
      multimask: three masks a prompt, or one; static.
      by_image: divide the images, which must be a multiple of the devices, instead of the prompts
        of each, which otherwise must be.
    """

    def one(params, features, prompts):
        return decode_prompts(model, params, features, prompts, multimask)

    divided = P(ALL) if by_image else P(None, ALL)
    # The decoder uses none of the parameters that are divided: each device passes its own part by.
    specs = (partition_specs(params), P(ALL) if by_image else P(), divided)
    return over(mesh, one, specs, divided)(params, features, prompts)
