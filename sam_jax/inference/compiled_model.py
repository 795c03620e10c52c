"""A model, its parameters and its compiled functions, in the frame of the model's own input."""

import copy
import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property, partial
from itertools import islice
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float32

from sam_jax.forks import refuse_forked
from sam_jax.inference import mesh_programs
from sam_jax.inference.decoding import decode_prompts
from sam_jax.inference.prompt_batches import PromptBatch, batch_prompts, power_of_two, share
from sam_jax.models.families import Model
from sam_jax.models.features import ImageFeatures
from sam_jax.one_line import one_line
from sam_jax.preprocess import ImagePrompts
from sam_jax.sharding import ALL, DATA, over
from sam_jax.types import LABEL_ABSENT, Params, Prompts


@dataclass(frozen=True, eq=False)
class CompiledModel:
    """Runs a model on any number of prepared images and prompts, in few shapes.

    Nothing is compiled twice for one architecture and one bucket of shapes, however many of these
    there are.

    Attributes:
      model: the architecture.
      params: its variables, on the device; with a mesh, from `sharding.place_params`.
      image_batch: images that a device encodes at once, at most.
      prompt_batch: prompts that a device decodes at once, at most.
      mesh: devices that share the work (`sharding.make_mesh`). What comes out lies on the first of
        them, as if it had done it all.
    """

    model: Model
    params: Params
    image_batch: int
    prompt_batch: int
    mesh: Mesh | None = None

    __repr__ = one_line

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: no device, which belongs to its process."""
        if self.mesh is not None:
            raise pickle.PicklingError(
                "a model on a mesh of devices cannot be pickled, as they belong to this process; "
                "pickle its checkpoint's path and build it with make_mesh in the other process"
            )
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __deepcopy__(self, memo: dict[int, Any]) -> "CompiledModel":
        """A copy on the same devices."""
        return replace(self, params=copy.deepcopy(self.params, memo))

    @cached_property
    def device(self) -> jax.Device:
        """Where it runs, or the first of the mesh: the default device while anything is traced."""
        if self.mesh is not None:
            return self.mesh.devices.flat[0]
        devices = jax.tree.leaves(self.params)[0].devices()
        return min(devices, key=lambda device: device.id)

    def encode(self, inputs: Iterable[Float32[np.ndarray, "side side 3"]]) -> list[ImageFeatures]:
        """ImageFeatures, float32, of each input: an embedding [h, w, C], and finer ones.

        Args:
          inputs: normalized and padded images (`prepare_image`), of one size. They are
            taken one batch at a time, so they need not exist all at once.
        """
        refuse_forked()
        waiting = iter(inputs)
        features: list[ImageFeatures] = []
        across = 1 if self.mesh is None else self.mesh.shape[DATA]
        while batch := list(islice(waiting, across * power_of_two(self.image_batch, up=False))):
            # Powers of two: few shapes to compile, and no padding images, or fewer than `across`.
            while batch:
                count = across * power_of_two(max(1, len(batch) // across), up=False)
                with jax.default_device(self.device):
                    features += self._encode_batch(batch[:count], count)
                batch = batch[count:]
        return features

    def _encode_batch(self, batch: list[np.ndarray], count: int) -> Sequence[ImageFeatures]:
        if self.mesh is None:
            encode = _encoder(self.device.platform)
            return encode(self.model, self.params, jax.device_put(np.stack(batch)))
        # What only fills the batch is the first image again, and is thrown away.
        images = np.stack(batch + batch[:1] * (count - len(batch)))
        placed = jax.device_put(images, NamedSharding(self.mesh, P(DATA)))
        encode = _encoder(self.device.platform, self.mesh)
        per_image = [_parts(one) for one in encode(self.model, self.params, placed)]
        in_order = [one for of_device in zip(*per_image, strict=True) for one in of_device]
        return [jax.device_put(one, self.device) for one in in_order[: len(batch)]]

    def decode(
        self,
        features: Sequence[ImageFeatures],
        prompts: Sequence[ImagePrompts],
        multimask: bool,
        *,
        on_device: bool = False,
    ) -> list[tuple[Any, Any]]:
        """Low-resolution logits [P, M, s, s] and scores [P, M], float32, for each image's prompts.

        Args:
          features: of each image, from `encode`; their sizes may differ, and the devices that
            made them.
          prompts: of each image, in the frame of its padded input; there may be none.
          multimask: three masks a prompt, or one.
          on_device: give JAX arrays, instead of NumPy arrays that may be read-only.
        """
        refuse_forked()
        xp = jnp if on_device else np
        pieces: list[list[Any]] = [[] for _ in features]
        embeddings = [one.embedding for one in features]
        shapes = [one.shape for one in embeddings]
        devices = 1 if self.mesh is None else self.mesh.size
        for batch in batch_prompts(prompts, shapes, self.prompt_batch, devices):
            with jax.default_device(self.device):
                found = self._decode_batch(features, batch, multimask)
            if self.mesh is not None and on_device:
                found = jax.device_put(found, self.device)
            found = found if on_device else jax.device_get(found)
            for slot, (image, count) in enumerate(batch.pieces):
                pieces[image].append(tuple(_slot(one, slot, count) for one in found))
        masks = self.model.config.num_multimask_outputs if multimask else 1
        for one, parts in zip(embeddings, pieces, strict=True):
            if not parts:
                shape = (0, masks, 4 * one.shape[0], 4 * one.shape[1])
                empty = np.zeros(shape, np.float32), np.zeros(shape[:2], np.float32)
                with jax.default_device(self.device):
                    parts.append(jax.device_put(empty) if on_device else empty)
        return [
            parts[0] if len(parts) == 1 else tuple(map(xp.concatenate, zip(*parts, strict=True)))
            for parts in pieces
        ]

    def _decode_batch(
        self, features: Sequence[ImageFeatures], batch: PromptBatch, multimask: bool
    ) -> tuple[jax.Array, jax.Array]:
        images = [image for image, _ in batch.pieces]
        # Slots that only fill the batch look at the first image; what they give is thrown away.
        images += images[:1] * (batch.points.shape[0] - len(images))
        seen = tuple(features[image] for image in images)
        prompts = Prompts(batch.points, batch.labels, None, batch.masks, batch.mask_present)
        if self.mesh is not None:
            return self._decode_over_mesh(seen, prompts, bool(multimask))
        seen, prompts = jax.device_put((tuple(map(self.with_params, seen)), prompts))
        return _decode(self.model, bool(multimask), self.params, seen, prompts)

    def with_params(self, features: ImageFeatures) -> ImageFeatures:
        """ImageFeatures that other devices made, where the parameters are.

        What `jax.jit` places by itself stays as it is, and so does all of it with a mesh.
        """
        return jax.tree.map(self._with_params, features)

    def _with_params(self, features: jax.Array) -> jax.Array:
        if self.mesh is not None or isinstance(features, (np.ndarray, jax.core.Tracer)):
            return features
        own = jax.tree.leaves(self.params)[0].sharding
        if not features.committed or features.devices() == own.device_set:
            return features
        return jax.device_put(features, own) if own.is_fully_replicated else features

    def _decode_over_mesh(
        self, features: tuple[ImageFeatures, ...], prompts: Prompts, multimask: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Divides images or each image's prompts, as `prompt_batches.share` says."""
        assert self.mesh is not None and prompts.labels is not None
        devices = list(self.mesh.devices.flat)
        images, count = prompts.labels.shape[:2]
        each_image, each_prompt = share(images, count, len(devices))
        by_image = each_image < images
        if by_image:
            # Devices that only fill the mesh look at the first image.
            padded = features + features[:1] * (each_image * len(devices) - images)
            slots = [padded[i::each_image] for i in range(each_image)]
            filled = _filled(prompts, 0, len(padded))
        else:
            slots = [(one,) * len(devices) for one in features]
            filled = _filled(prompts, 1, each_prompt * len(devices))
        divided = NamedSharding(self.mesh, P(ALL) if by_image else P(None, ALL))
        return _decode_over(
            self.model,
            self.mesh,
            multimask,
            by_image,
            self.params,
            tuple(_one_for_each(self.mesh, slot) for slot in slots),
            jax.device_put(filled, divided),
        )


def _slot(array: Any, slot: int, count: int) -> Any:
    """The results of an image's prompts; on a device, without an index that is sent there."""
    if isinstance(array, np.ndarray):
        return array[slot, :count]
    one = jax.lax.index_in_dim(array, slot, keepdims=False)
    return jax.lax.slice_in_dim(one, 0, count)


def _parts(features: ImageFeatures) -> list[ImageFeatures]:
    """What each device along `data` holds of arrays that are divided along their first axes."""

    def in_order(array: jax.Array) -> list[jax.Array]:
        parts = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
        return [parts[start] for start in sorted(parts)]

    leaves, structure = jax.tree.flatten(features)
    parts = zip(*map(in_order, leaves), strict=True)
    return [jax.tree.unflatten(structure, one) for one in parts]


def _one_for_each(mesh: Mesh, features: Sequence[ImageFeatures]) -> ImageFeatures:
    """One image's features for each device, as arrays of which each holds its own."""

    def placed(*arrays: jax.Array) -> jax.Array:
        own = jax.device_put(list(arrays), list(mesh.devices.flat))
        shape = (mesh.size * arrays[0].shape[0], *arrays[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, NamedSharding(mesh, P(ALL)), own)

    return jax.tree.map(placed, *features)


def _one_by_one(features: ImageFeatures) -> tuple[ImageFeatures, ...]:
    """The images of a batch."""
    leaves, structure = jax.tree.flatten(features)
    return tuple(jax.tree.unflatten(structure, one) for one in zip(*leaves, strict=True))


def _stacked(*features: ImageFeatures) -> ImageFeatures:
    return jax.tree.map(lambda *one: jnp.stack(one), *features)


def _filled(prompts: Prompts, axis: int, size: int) -> Prompts:
    """More images (axis 0) or prompts (axis 1), all of whose points are absent."""

    def fill(array: np.ndarray, value: int = 0) -> np.ndarray:
        widths = [(0, 0)] * array.ndim
        widths[axis] = (0, size - array.shape[axis])
        return np.pad(array, widths, constant_values=value)

    labels = fill(cast(np.ndarray, prompts.labels), LABEL_ABSENT)
    return replace(jax.tree.map(fill, prompts), labels=labels)


# Parameters are arguments, so that no model's weights end up in another's program.


@cache
def _encoder(platform: str, mesh: Mesh | None = None) -> Callable[..., tuple[ImageFeatures, ...]]:
    def encode(model: Model, params: Params, images: jax.Array) -> tuple[ImageFeatures, ...]:
        if mesh is None:
            features: Any = model.apply(params, images, method="encode_image")
            features = jax.tree.map(lambda x: x.astype(jnp.float32), features)
            return _one_by_one(features)
        features = mesh_programs.encode_images(model, mesh, params, images)
        features = jax.tree.map(lambda x: x.astype(jnp.float32), features)
        # The first image of each device, the second of each, ...: nothing moves.
        return over(mesh, _one_by_one, P(DATA), P(DATA))(features)

    # By default XLA orders a CPU's steps as if many could run at once, which the encoder's cannot:
    # it is no faster that way, and takes twice the memory.
    in_order = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    return jax.jit(
        encode, static_argnums=0, compiler_options=in_order if platform == "cpu" else None
    )


@partial(jax.jit, static_argnums=(0, 1))
def _decode(model: Model, multimask: bool, params: Params, features: tuple, prompts: Prompts):
    batch = _stacked(*features)
    return decode_prompts(model, params, batch, prompts, multimask)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _decode_over(
    model: Model,
    mesh: Mesh,
    multimask: bool,
    by_image: bool,
    params: Params,
    features: tuple,
    prompts: Prompts,
):
    stack = over(mesh, _stacked, P(ALL), P(ALL) if by_image else P())
    return mesh_programs.decode(
        model, mesh, params, stack(*features), prompts, multimask, by_image=by_image
    )
