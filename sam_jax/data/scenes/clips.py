"""Procedural clips: textured objects that move, turn, hide each other, leave and come back.

A clip is a function of a key. Masks are exactly the pixels in which an object is in front.
"""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Integer, PRNGKeyArray, UInt8

from sam_jax.data.batches import pack_masks
from sam_jax.data.fingerprints import check_resumed
from sam_jax.errors import InputError
from sam_jax.one_line import one_line

# Waves that a texture is the sum of, and those that an outline's radius is.
_WAVES = 10
_LOBES = 4
# Of an object that is seen in the first frame, at least, as a part of the picture.
_SMALLEST = 0.004

_HostOrDevice = Array | np.ndarray


@dataclass(frozen=True)
class ClipOptions:
    """What clips look like.

    Attributes:
      image_size: [pixels] side of the frames, a multiple of 8.
      frames: [frames] length of a clip.
      objects: [objects] objects in a clip that have masks.
      passers: [objects] objects that cross the picture in front of the others and have no masks.
      speed: [fraction of the side] how far an object moves between frames, at most.
      turn: [radians] how far an object turns between frames, at most.
      leaving: [probability] how often an object leaves the picture and comes back.
      alike: [probability] how often an object has another's colors and texture.
      noise: [gray levels of 255] standard deviation of the camera's noise.
    """

    image_size: int = 128
    frames: int = 8
    objects: int = 3
    passers: int = 1
    speed: float = 0.06
    turn: float = 0.15
    leaving: float = 0.25
    alike: float = 0.3
    noise: float = 4.0

    def __post_init__(self):
        """Refuses values out of their range.

        Raises:
          InputError: with the value.
        """
        if self.image_size < 32 or self.image_size % 8:
            raise InputError(f"image_size is {self.image_size}: give a multiple of 8 from 32 on")
        for name, least in (("frames", 1), ("objects", 1), ("passers", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}: give at least {least}")
        for name in ("leaving", "alike"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}: give 0 to 1")
        for name in ("speed", "turn", "noise"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}: give at least 0")


@struct.dataclass
class ClipBatch:
    """Clips with true masks of the same objects in every frame.

    Attributes:
      images: RGB.
      masks: of P objects, packed eight pixels to a byte as `batches.TrainingBatch.masks`; empty
        where an object is hidden or gone.
      weights: of objects; 0 for those that only fill the batch, or are not in the first frame.
    """

    images: UInt8[_HostOrDevice, "B T S S 3"]
    masks: UInt8[_HostOrDevice, "B T P S S_eighth"]
    weights: Float[_HostOrDevice, "B P"]

    __repr__ = one_line


def draw_clip(key: PRNGKeyArray, options: ClipOptions) -> tuple[Array, Array, Array]:
    """One clip.

    Args:
      key: decides all of it.
      options: static.

    Returns:
      images uint8 [T, S, S, 3], masks bool [T, P, S, S], weights [P]: 1 for objects that are large
      enough in the first frame.
    """
    count = options.objects + options.passers
    keys = jax.random.split(key, 6)
    outlines = _outlines(keys[0], count)
    textures = jax.vmap(_texture)(jax.random.split(keys[1], count + 1))
    # Distractors: what another object is made of.
    like = jax.random.bernoulli(keys[2], options.alike, (count,))
    source = jnp.where(like, jnp.roll(jnp.arange(count), 1), jnp.arange(count))
    textures = jax.tree.map(lambda x: jnp.concatenate([x[source], x[-1:]]), textures)
    paths = _paths(keys[3], options, count)
    side = options.image_size
    grid = (jnp.arange(side) + 0.5) / side
    points = jnp.stack(jnp.meshgrid(grid, grid, indexing="xy"), axis=-1)
    background = _painted(jax.tree.map(lambda x: x[-1], textures), points)

    def frame(moment):
        place, angle, noise_key = moment
        image = background
        front = jnp.full((side, side), -1)

        # One after the other, the nearest last.
        def paint(i, painted):
            image, front = painted
            cosine, sine = jnp.cos(angle[i]), jnp.sin(angle[i])
            turned = (points - place[i]) @ jnp.array([[cosine, -sine], [sine, cosine]])
            inside = _inside(jax.tree.map(lambda x: x[i], outlines), turned)
            own = _painted(jax.tree.map(lambda x: x[i], textures), turned)
            return jnp.where(inside[..., None], own, image), jnp.where(inside, i, front)

        image, front = jax.lax.fori_loop(0, count, paint, (image, front))
        noise = options.noise * jax.random.normal(noise_key, image.shape)
        masks = front[None] == jnp.arange(options.objects)[:, None, None]
        return jnp.clip(image + noise, 0, 255).astype(jnp.uint8), masks

    noise_keys = jax.random.split(keys[4], options.frames)
    images, masks = jax.lax.map(frame, (*paths, noise_keys))
    weights = (masks[0].mean(axis=(1, 2)) >= _SMALLEST).astype(jnp.float32)
    return images, masks, weights


@partial(jax.jit, static_argnums=2)
def clip_batch(
    seed: Integer[Array, ""], indices: Int[Array, " B"], options: ClipOptions
) -> ClipBatch:
    """Clips of a seed; clip i is the same whatever the batch is."""
    key = jax.random.key(seed)

    def one(index):
        images, masks, weights = draw_clip(jax.random.fold_in(key, index), options)
        return images, pack_masks(masks), weights

    return ClipBatch(*jax.lax.map(one, indices))


class ClipBatches:
    """An endless iterator of batches, each process with its part; see `SceneBatches`."""

    def __init__(
        self,
        options: ClipOptions,
        seed: int,
        batch_size: int,
        process_index: int = 0,
        process_count: int = 1,
    ):
        """Draws nothing yet."""
        self.options, self.seed, self.batch_size = options, seed, batch_size
        self._about = {"seed": seed, "options": asdict(options)}
        self.position = 0
        self._ahead = process_index * batch_size
        self._stride = process_count * batch_size

    def __next__(self) -> ClipBatch:
        """The next one."""
        indices = self.position + self._ahead + np.arange(self.batch_size)
        self.position += self._stride
        return clip_batch(jnp.uint32(self.seed), jnp.asarray(indices, jnp.int32), self.options)

    def get_state(self) -> dict[str, Any]:
        """How many clips lie behind, and what they are drawn by, as values of JSON."""
        return {**self._about, "position": self.position}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from where `get_state` was called.

        Raises:
          InputError: the state is of another seed, or of clips drawn otherwise.
        """
        check_resumed(state, self._about)
        self.position = state["position"]

    def skipped(self) -> dict[str, int]:
        """No clip is ever unusable."""
        return {}

    def close(self) -> None:
        """Nothing reads ahead."""


def _outlines(key: PRNGKeyArray, count: int) -> tuple[Array, Array, Array, Array]:
    """Of each object: mean radius, stretch, and heights and phases of the waves along its rim."""
    keys = jax.random.split(key, 4)
    size = 0.06 * 3.5 ** jax.random.uniform(keys[0], (count,))
    stretch = 2.2 ** jax.random.uniform(keys[1], (count,), minval=-1.0)
    lobes = jnp.arange(1, _LOBES + 1)
    heights = jax.random.uniform(keys[2], (count, _LOBES), maxval=0.35) / lobes
    return size, stretch, heights, jax.random.uniform(keys[3], (count, _LOBES), maxval=2 * jnp.pi)


def _inside(
    outline: tuple[Array, Array, Array, Array], points: Float[Array, "h w 2"]
) -> Bool[Array, "h w"]:
    size, stretch, heights, phases = outline
    x, y = points[..., 0] * stretch, points[..., 1] / stretch
    angle = jnp.arctan2(y, x)[..., None] * jnp.arange(2, _LOBES + 2)
    rim = 1 + (heights * jnp.sin(angle + phases)).sum(axis=-1)
    return jnp.hypot(x, y) < size * rim


def _texture(key: PRNGKeyArray) -> tuple[Array, Array, Array, Array]:
    """A color, and waves of all directions and lengths, weaker where they are shorter."""
    keys = jax.random.split(key, 5)
    colour = jax.random.uniform(keys[0], (3,), minval=30.0, maxval=225.0)
    length = 2.0 ** jax.random.uniform(keys[1], (_WAVES,), minval=0.5, maxval=5.5)
    direction = jax.random.uniform(keys[2], (_WAVES, 2), maxval=2 * jnp.pi)
    waves = length[:, None] * jnp.stack([jnp.cos(direction[:, 0]), jnp.sin(direction[:, 0])], -1)
    # Light more than color.
    strength = jax.random.normal(keys[3], (_WAVES, 1))
    strength = strength + 0.3 * jax.random.normal(keys[4], (_WAVES, 3))
    strength = 25.0 * strength / (1 + length[:, None] / 8)
    return colour, waves, direction[:, 1], strength


def _painted(
    texture: tuple[Array, Array, Array, Array], points: Float[Array, "h w 2"]
) -> Float[Array, "h w 3"]:
    colour, waves, phases, strength = texture
    return colour + jnp.sin(2 * jnp.pi * points @ waves.T + phases) @ strength


def _paths(key: PRNGKeyArray, options: ClipOptions, count: int) -> tuple[Array, Array]:
    """Place [T, count, 2] and angle [T, count] of each object in each frame."""
    keys = jax.random.split(key, 6)
    time = jnp.arange(options.frames)[:, None, None]
    start = jax.random.uniform(keys[0], (count, 2), minval=0.15, maxval=0.85)
    velocity = options.speed * jax.random.uniform(keys[1], (count, 2), minval=-1.0)
    sway = 0.5 * options.speed * jax.random.normal(keys[2], (count, 2))
    place = start + velocity * time + sway * jnp.sin(time * 0.9)
    # Out of the picture and back, within the clip.
    leaves = jax.random.bernoulli(keys[3], options.leaving, (count, 1))
    away = jnp.sin(jnp.pi * time / max(options.frames - 1, 1)) ** 2
    place = place + jnp.where(leaves, jnp.sign(start - 0.5) * away * jnp.array([1.1, 0.0]), 0.0)
    # Those that pass by cross the whole picture.
    passing = jnp.arange(count)[:, None] >= options.objects
    across = jnp.array([1.6, 0.0]) * (time / max(options.frames - 1, 1) - 0.5)
    crossing = jnp.stack([jnp.full(count, 0.5), start[:, 1]], axis=-1) + across
    place = jnp.where(passing, crossing, place)
    turn = options.turn * jax.random.uniform(keys[4], (count,), minval=-1.0)
    angle = jax.random.uniform(keys[5], (count,), maxval=2 * jnp.pi) + turn * time[:, :, 0]
    return place, angle
