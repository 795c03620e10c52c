"""Encoder and decoder over a mesh of devices, each device's program written for its own part.

See `sharding` for how images, prompts and parameters are divided.
"""

from typing import cast

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from sam_jax.inference.decoding import decode_prompts
from sam_jax.models.sam.sam import Sam
from sam_jax.sharding import ALL, DATA, MODEL, join_heads, over, partition_specs
from sam_jax.types import Params, Prompts


def encode_images(
    model: Sam, mesh: Mesh, params: Params, images: Float[Array, "B H W 3"]
) -> Float[Array, "B h w C"]:
    """`Sam.encode_image` over a mesh: images over `data`, heads and MLPs over `model`.

    Along `data` nothing is exchanged; along `model`, two sums over devices in each block.

    Args:
      model: the architecture.
      mesh: from `make_mesh`.
      params: from `place_params`.
      images: as for `Sam.encode_image`; as many as `data`, or a multiple.
    """
    part = model.clone(model_axis=MODEL) if mesh.shape[MODEL] > 1 else model

    def encode(params, images):
        return part.apply(join_heads(params), images, method="encode_image")

    run = over(mesh, encode, (partition_specs(params), P(DATA)), P(DATA))
    return cast(jax.Array, run(params, images))


def decode(
    model: Sam,
    mesh: Mesh,
    params: Params,
    image_embedding: Float[Array, "B h w C"],
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
      image_embedding: as for `Sam.decode`.
      prompts: likewise.
      multimask: three masks a prompt, or one; static.
      by_image: divide the images, which must be a multiple of the devices, instead of the prompts
        of each, which otherwise must be.
    """

    def one(params, image_embedding, prompts):
        return decode_prompts(model, params, image_embedding, prompts, multimask)

    divided = P(ALL) if by_image else P(None, ALL)
    # The decoder uses none of the parameters that are divided: each device passes its own part by.
    specs = (partition_specs(params), P(ALL) if by_image else P(), divided)
    return over(mesh, one, specs, divided)(params, image_embedding, prompts)
