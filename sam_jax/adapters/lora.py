"""Low-rank updates of kernels (LoRA; Hu et al. 2021, arXiv 2106.09685), as functions on trees.

A kernel W of the model stays as it is; W + alpha / rank * down @ up takes its place, where `down`
and `up` are narrow and all that is trained. The model knows nothing of it: it is given the sum.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, PRNGKeyArray

from sam_jax.errors import InputError
from sam_jax.sharding import MODEL, partition_specs
from sam_jax.types import Params

# The thirds of the encoder's fused projection, in their order.
_THIRDS = ("q", "k", "v")
_FUSED = re.compile(r"(^|/)attn/qkv/kernel$")
DOWN, UP = "down", "up"


@dataclass(frozen=True)
class LoraOptions:
    """Which kernels get an update, and of what rank.

    Attributes:
      rank: of the update; at least 1.
      alpha: the update is scaled by alpha / rank, so that another rank needs no other learning
        rate.
      targets: what of a fused projection to queries, keys and values is updated (the LoRA paper's
        choice: q and v). Other kernels are updated whole.
      patterns: regular expressions, searched in paths such as
        image_encoder/blocks_0/attn/qkv/kernel; kernels that match any are updated.
    """

    rank: int = 4
    alpha: float = 4.0
    targets: tuple[Literal["q", "k", "v"], ...] = ("q", "v")
    patterns: tuple[str, ...] = (r"^image_encoder/blocks_\d+/attn/qkv/kernel$",)


def init_lora(key: PRNGKeyArray, params: Params, options: LoraOptions) -> Params:
    """Updates that change nothing yet: `down` is random, `up` is zero.

    Args:
      key: decides `down`, normal with variance 1 / inputs.
      params: the tree under "params", arrays or their shapes, plain or from
        `sharding.split_heads`.
      options: which kernels, and the rank.

    Returns:
      A tree like that of `params` with {"down": [parts, inputs, rank], "up": [parts, rank,
      outputs]} in the place of each kernel, float32; parts are the targets of a fused projection,
      1 for other kernels.

    Raises:
      InputError: the rank is below 1, a target is none, or a pattern is no regular expression or
        matches no kernel.
    """
    if options.rank < 1 or not options.targets or set(options.targets) - set(_THIRDS):
        raise InputError(
            f"LoRA needs a rank of at least 1 and targets of q, k and v, not rank {options.rank} "
            f"and {list(options.targets)}"
        )
    flat = flatten_dict(params, sep="/")
    found: dict[str, Any] = {}
    for number, path in enumerate(adapted(params, options)):
        shapes = lora_shapes(path, flat[path].shape, options)
        normal = jax.random.normal(jax.random.fold_in(key, number), shapes[DOWN])
        found[f"{path}/{DOWN}"] = normal / jnp.sqrt(shapes[DOWN][1])
        found[f"{path}/{UP}"] = jnp.zeros(shapes[UP])
    return unflatten_dict(found, sep="/")


def adapted(params: Params, options: LoraOptions) -> list[str]:
    """Paths of the kernels that the patterns match, sorted.

    Raises:
      InputError: a pattern is no regular expression, or matches no kernel.
    """
    kernels = sorted(path for path in flatten_dict(params, sep="/") if path.endswith("/kernel"))
    found: set[str] = set()
    for pattern in options.patterns:
        try:
            matching = {path for path in kernels if re.search(pattern, path)}
        except re.error as error:
            raise InputError(f"LoRA: {pattern!r} is no regular expression: {error}") from None
        if not matching:
            raise InputError(f"LoRA: {pattern!r} matches no kernel; {kernels[0]} is one")
        found |= matching
    return sorted(found)


def lora_shapes(
    path: str, shape: tuple[int, ...], options: LoraOptions
) -> dict[str, tuple[int, ...]]:
    """The shapes of `down` and `up` for a kernel of this path and shape, plain or split."""
    inputs, parts, outputs = _viewed(path, shape)
    count = len(options.targets) if parts > 1 else 1
    return {DOWN: (count, inputs, options.rank), UP: (count, options.rank, outputs)}


def merge_lora(
    params: Params, lora: Params, options: LoraOptions, model_axis: str | None = None
) -> Params:
    """Parameters with the updates added to their kernels.

    Args:
      params: the tree under "params", plain or from `sharding.split_heads`; what has no update is
        passed on as it is.
      lora: from `init_lora`, or trained.
      options: those that it was made with.
      model_axis: the axis of a mesh along which this device has its part of the parameters, inside
        `jax.shard_map`; updates are whole on every device.
    """
    flat, updates = flatten_dict(params, sep="/"), flatten_dict(lora, sep="/")
    specs = flatten_dict(partition_specs(params), sep="/") if model_axis else {}
    for name in updates:
        path, kind = name.rsplit("/", 1)
        if kind != DOWN:
            continue
        kernel = flat[path]
        count = jax.lax.axis_size(model_axis) if model_axis else 1
        whole = tuple(
            size * count if axis == MODEL else size
            for size, axis in zip(kernel.shape, _padded(specs.get(path, ()), kernel), strict=True)
        )
        down, up = jnp.asarray(updates[name]), jnp.asarray(updates[f"{path}/{UP}"])
        delta = _delta(path, whole, down, up, options)
        for axis, (size, all_) in enumerate(zip(kernel.shape, whole, strict=True)):
            if size != all_:
                start = jax.lax.axis_index(model_axis) * size
                delta = jax.lax.dynamic_slice_in_dim(delta, start, size, axis)
        flat[path] = kernel + delta
    return unflatten_dict(flat, sep="/")


def _padded(spec: Any, kernel: Any) -> tuple[Any, ...]:
    return (*spec, *(None,) * (len(kernel.shape) - len(spec)))


def _delta(
    path: str,
    shape: tuple[int, ...],
    down: Float[Array, "parts inputs rank"],
    up: Float[Array, "parts rank outputs"],
    options: LoraOptions,
) -> Array:
    inputs, parts, outputs = _viewed(path, shape)
    # Highest precision: a merged kernel must be what training multiplied with, on any device.
    product = jnp.einsum("pir,pro->ipo", down, up, precision=jax.lax.Precision.HIGHEST)
    if parts > 1:
        thirds = jnp.asarray([_THIRDS.index(target) for target in options.targets])
        product = jnp.zeros((inputs, parts, outputs)).at[:, thirds].set(product)
    return (options.alpha / options.rank) * product.reshape(shape)


def _viewed(path: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """A kernel as inputs x parts x outputs; the heads of a split one are outputs again."""
    if _FUSED.search(path):
        return shape[0], 3, math.prod(shape[1:]) // 3
    return math.prod(shape[:-1]), 1, shape[-1]
