"""Many devices: a (data, model) mesh, and where parameters lie on it.

Images of a batch are divided over `data`; the encoder's attention heads and the hidden channels of
its MLPs over `model`, with one sum over devices behind each (Megatron-LM, section 3); prompts over
all devices. What a device does is written for its own part (`jax.shard_map`), so the collectives of
a program are those that stand here and no others, and kernels see ordinary arrays.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sam_jax.errors import InputError
from sam_jax.lazy_names import lazy_names
from sam_jax.models.config import ModelConfig
from sam_jax.types import Params

DATA, MODEL = "data", "model"
ALL = (DATA, MODEL)

# The first rule found in a parameter's path says how its dimensions are divided. Paths are those of
# the tree from `split_heads`; the state of an optimizer repeats them behind names of its own.
PARTITION_RULES: tuple[tuple[str, P], ...] = (
    (r"blocks_\d+/attn/qkv/kernel$", P(None, None, MODEL, None)),
    (r"blocks_\d+/attn/qkv/bias$", P(None, MODEL, None)),
    (r"blocks_\d+/attn/proj/kernel$", P(MODEL, None)),
    (r"blocks_\d+/mlp/lin1/kernel$", P(None, MODEL)),
    (r"blocks_\d+/mlp/lin1/bias$", P(MODEL)),
    (r"blocks_\d+/mlp/lin2/kernel$", P(MODEL, None)),
    # Whatever else there is, on every device; the decoder's few parameters too.
    (r"", P()),
)
_QKV = re.compile(r"(^|/)image_encoder/blocks_\d+/attn/qkv/(kernel|bias)$")


def make_mesh(
    data: SupportsIndex | None = None,
    model: SupportsIndex = 1,
    *,
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
    """A mesh of `data` times `model` devices.

    Args:
      data: parts of a batch of images; as many as the devices allow, if left out.
      model: devices that share one image. It must divide the encoder's heads (12 in ViT-B, 16 in
        ViT-L and ViT-H), which is checked where the mesh meets a model.
      devices: which, each once; all of this process if left out.

    Raises:
      InputError: the devices do not fit, or are none, or a number is no whole one from 1 on.
    """
    found = _checked_devices(jax.local_devices() if devices is None else devices)
    model = _checked_size("model", model)
    if data is None:
        if len(found) % model:
            raise InputError(f"model={model} does not divide the {len(found)} devices; give data=")
        data = len(found) // model
    data = _checked_size("data", data)
    if data * model != len(found):
        raise InputError(
            f"data={data} times model={model} is {data * model} devices and there are "
            f"{len(found)}; choose sizes that multiply to it, or give devices="
        )
    return jax.make_mesh((data, model), ALL, (AxisType.Auto,) * 2, devices=found)


def _checked_size(name: str, size: Any) -> int:
    if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 1:
        raise InputError(f"{name}={size!r} must be a whole number of devices, at least 1")
    return int(size)


def _checked_devices(devices: Any) -> list[jax.Device]:
    found = list(devices) if isinstance(devices, Iterable) else []
    if not found:
        kind = "an empty one" if isinstance(devices, Iterable) else type(devices).__name__
        raise InputError(f"devices must be a list of JAX devices, not {kind}")
    for i, one in enumerate(found):
        if not isinstance(one, jax.Device):
            kind = type(one).__name__
            raise InputError(f"devices[{i}] must be a JAX device, as in jax.devices(), not {kind}")
        if one in found[:i]:
            raise InputError(f"devices has {one} twice; give each device once")
    return found


def with_automatic_axes(mesh: Mesh) -> Mesh:
    """A mesh of the same devices whose axes are of the kind that `make_mesh` gives them.

    `jax.make_mesh` makes them explicit, so that types of arrays would say how they are divided.

    Raises:
      InputError: it is no mesh.
    """
    if not isinstance(mesh, Mesh):
        kind = type(mesh).__name__
        raise InputError(f"mesh must be a Mesh, not {kind}; sharding.make_mesh makes one")
    return Mesh(mesh.devices, mesh.axis_names, (AxisType.Auto,) * mesh.devices.ndim)


def check_mesh(config: ModelConfig, mesh: Mesh | AbstractMesh) -> None:
    """Refuses a mesh over which a model of this configuration cannot be divided.

    Raises:
      InputError: its axes are others than (data, model), or `model` does not divide the encoder's
        heads or hidden channels; the message says what would.
    """
    if tuple(mesh.axis_names) != ALL:
        raise InputError(
            f"the mesh has axes {tuple(mesh.axis_names)}, not {ALL}; sharding.make_mesh makes one"
        )
    vit, model = config.image_encoder, mesh.shape[MODEL]
    if vit.num_heads % model or vit.mlp_dim % model:
        fits = [
            n for n in range(1, vit.num_heads + 1) if not (vit.num_heads % n or vit.mlp_dim % n)
        ]
        raise InputError(
            f"model={model} does not divide the {vit.num_heads} heads and {vit.mlp_dim} hidden "
            f"channels of {config.name}; model may be {', '.join(map(str, fits))}"
        )


def split_heads(config: ModelConfig, params: Params) -> Params:
    """Parameters in which heads can be divided: a view, nothing else changes.

    The columns of the projection to queries, keys and values are 3 x heads x channels; in parts of
    equal size they are no device's heads. Its kernel becomes [C, 3, heads, d], its bias
    [3, heads, d]. `join_heads` goes back.
    """
    heads = config.image_encoder.num_heads
    return _on_qkv(params, lambda x: x.reshape(*x.shape[:-1], 3, heads, -1))


def join_heads(params: Params) -> Params:
    """The inverse of `split_heads`, of whole parameters or of one device's heads."""
    return _on_qkv(params, lambda x: x.reshape(*x.shape[:-3], -1))


def _on_qkv(params: Params, change: Any) -> Params:
    def one(path, leaf):
        return change(leaf) if _QKV.search(_slashed(path)) else leaf

    return jax.tree_util.tree_map_with_path(one, params)


def _slashed(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def partition_specs(tree: Any) -> Any:
    """How each array of a tree is divided, by `PARTITION_RULES`.

    Args:
      tree: parameters from `split_heads`, or anything that holds such trees, like an optimizer's
        state; arrays or `jax.ShapeDtypeStruct`.

    Raises:
      ValueError: an array has fewer dimensions than its rule.
    """

    def spec(path, leaf):
        name = _slashed(path)
        found = next(spec for pattern, spec in PARTITION_RULES if re.search(pattern, name))
        if len(found) > np.ndim(leaf):
            raise ValueError(f"{name} has shape {np.shape(leaf)} and cannot be divided as {found}")
        return found

    return jax.tree_util.tree_map_with_path(spec, tree)


def shardings(tree: Any, mesh: Mesh) -> Any:
    """The `NamedSharding` of each array of a tree, as for `partition_specs`.

    Raises:
      InputError: an axis of the mesh does not divide a dimension.
    """

    def sharding(path, leaf, spec):
        for size, axis in zip(np.shape(leaf), spec, strict=False):
            if axis is not None and size % mesh.shape[axis]:
                raise InputError(
                    f"{_slashed(path)} has shape {np.shape(leaf)}: {axis}={mesh.shape[axis]} does "
                    f"not divide {size}"
                )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, tree, partition_specs(tree))


def place_params(config: ModelConfig, params: Params, mesh: Mesh) -> Params:
    """Parameters divided over `model`, the same along `data`, as encoders take them.

    Raises:
      InputError: the mesh does not fit the configuration (`check_mesh`).
    """
    check_mesh(config, mesh)
    params = split_heads(config, params)
    return jax.device_put(params, shardings(params, mesh))


def over(mesh: Mesh, function: Any, in_specs: Any, out_specs: Any) -> Any:
    """The function of each device's part, as one of the whole (`jax.shard_map`)."""
    # Unchecked: Pallas kernels do not say along which axes their results differ.
    return jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )


# Where they were before there was `inference`.
__getattr__ = lazy_names(__name__, {"sam_jax.inference.mesh_programs": ("encode_images", "decode")})
