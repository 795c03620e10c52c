"""Procedural scenes: cluttered pictures with exact masks of their objects, drawn on the device.

A scene is a function of a key. It has objects of named kinds, whose parts, parts of parts and
wholes are masks of their own; a background in one to three regions; one light with shadows; and a
camera. Masks are exactly the pixels in which a thing is in front: wholes share none, and parts lie
in their wholes.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from sam_jax.data.scenes.blueprints import SLOTS, kind_tables
from sam_jax.data.scenes.camera import Camera, photograph
from sam_jax.data.scenes.layout import (
    BACKGROUND_OBJECTS,
    WARP_CELLS,
    Chances,
    Primitives,
    draw_objects,
    draw_primitives,
    lerp,
    log_lerp,
)
from sam_jax.data.scenes.object_kinds import (
    BACKGROUNDS,
    HELD_OUT_KINDS,
    KIND_NAMES,
    KINDS,
    TRAINING_KINDS,
)
from sam_jax.data.scenes.rendering import Light, Visibility, radiance, visibility
from sam_jax.data.scenes.textures import smooth_fields, texture_atlas
from sam_jax.errors import InputError

__all__ = ["HELD_OUT_KINDS", "KIND_NAMES", "TRAINING_KINDS", "Scene", "SceneOptions", "scene"]

# What a mask is of.
WHOLE, PART, SUBPART, STUFF = 0, 1, 2, 3
# The smallest and the largest mask that is trained on, as fractions of the frame and of the image:
# 16 pixels of 256x256; the paper drops masks of more than 90 %.
SMALLEST = 16 / 256**2
LARGEST = 0.9
# A part that is nearly all one sees of its whole is the same mask to a viewer.
SAME = 0.95


@dataclass(frozen=True)
class SceneOptions:
    """What scenes look like.

    Attributes:
      image_size: [pixels] side of the frame, a multiple of 64.
      masks: [masks] masks of a scene, at most; where there are more, a random choice.
      objects: [objects] objects in a scene, at most, besides its background.
      primitives: [outlines] outlines that are drawn, at most, those of parts and background
        included; objects beyond are left out whole.
      kinds: names of kinds of objects; the default is all that are trained on.
      least_aspect: [shorter side / longer side] least aspect of the image; it is drawn from this to
        1. 1 for squares only.
      difficulty: from 0 to 1: scales blur, noise, compression and how often contrast is low.
      group: [probability] how often like objects come in numbers.
      dominant: [probability] how often, in a scene without such a group, one object fills much of
        the image.
      low_contrast: [probability] how often objects of a species have colors close to the
        backdrop's.
      same_material: [probability] how often objects of a species are made of the backdrop's own
        material.
      shadow: [probability] how often a scene has cast shadows.
      translucent: [probability] how often objects of a species let through what is behind them.
      horizon: [probability] how often the background has ground below a horizon.
      side: [probability] how often the background is divided by an edge from top to bottom.
      grey: [probability] how often the picture has no color.
      stuff: [probability] how often regions of the background are among the masks; always where
        there are fewer than three others.

    Raises:
      InputError: a value is out of its range.
    """

    image_size: int = 256
    masks: int = 24
    objects: int = 20
    primitives: int = 96
    kinds: tuple[str, ...] = TRAINING_KINDS
    least_aspect: float = 0.6
    difficulty: float = 0.5
    group: float = 0.35
    dominant: float = 0.5
    low_contrast: float = 0.2
    same_material: float = 0.05
    shadow: float = 0.8
    translucent: float = 0.04
    horizon: float = 0.45
    side: float = 0.25
    grey: float = 0.06
    stuff: float = 0.6

    def __post_init__(self):
        if self.image_size < 64 or self.image_size % 64:
            raise InputError(f"image_size is {self.image_size}: give a multiple of 64")
        for name in ("masks", "objects"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: give at least 1")
        if self.primitives < SLOTS + BACKGROUND_OBJECTS:
            least = SLOTS + BACKGROUND_OBJECTS
            raise InputError(f"primitives is {self.primitives}: give at least {least}")
        unknown = [name for name in self.kinds if name not in KIND_NAMES]
        if unknown or not self.kinds:
            raise InputError(
                f"kinds has {', '.join(unknown) or 'no names'}: choose from {', '.join(KIND_NAMES)}"
            )
        if not 0.25 <= self.least_aspect <= 1:
            raise InputError(f"least_aspect is {self.least_aspect}: give 0.25 to 1")
        for name in ("difficulty", *Chances._fields, "grey", "stuff"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}: give 0 to 1")


class Scene(NamedTuple):
    """One picture with masks.

    Attributes:
      image: RGB; 0 beyond the image.
      size_hw: the image's height and width inside the frame, from its top left.
      masks: visible pixels of P things.
      weights: 1 for masks to learn from; 0 for those that are too small or too large, the same as
        another, or not there.
      levels: what each mask is of: `WHOLE`, `PART`, `SUBPART` or `STUFF`.
    """

    image: Array
    size_hw: Array
    masks: Array
    weights: Array
    levels: Array


def draw_light(key: PRNGKeyArray) -> Light:
    """From above as a rule, warm or cold, hard or soft."""
    u = jax.random.uniform(key, (5,))
    turn = jnp.radians(lerp(-160.0, -20.0, u[0]))
    height = jnp.radians(lerp(20.0, 65.0, u[1]))
    direction = jnp.stack(
        [jnp.cos(turn) * jnp.cos(height), jnp.sin(turn) * jnp.cos(height), jnp.sin(height)]
    )
    warmth = 0.25 * (u[2] - 0.4)
    share = lerp(0.45, 0.9, u[3])
    colour = jnp.array([1.0, 0.0, -1.0]) * warmth + 1
    return Light(direction, 1.5 * share * colour, 1.3 * (1 - share) * (2 - colour))


def draw_camera(key: PRNGKeyArray, options: SceneOptions) -> Camera:
    """Settings that a casual photographer might have had; worse with difficulty."""
    u = jax.random.uniform(key, (20,))
    hard = options.difficulty
    pixels = options.image_size / 256
    blurred = u[0] < 0.35 * hard
    shaken = u[1] < 0.12 * hard
    way = 2 * jnp.pi * u[2]
    noisy = hard * u[5] ** 3
    return Camera(
        blur=pixels**0.5 * (0.35 + 0.25 * u[3]) + jnp.where(blurred, 2.0 * u[4] * pixels, 0),
        motion=jnp.where(shaken, pixels * 8 * u[6], 0) * jnp.stack([jnp.cos(way), jnp.sin(way)]),
        shrink=jnp.where(u[7] < 0.4 * hard, lerp(0.4, 1.0, u[8]), 1.0),
        shot_noise=0.08 * noisy,
        read_noise=0.001 + 0.012 * noisy,
        noise_grain=u[9],
        gains=jnp.exp(0.12 * (jnp.stack([u[10], 0.5 * jnp.ones(()), u[11]]) - 0.5))
        * log_lerp(0.6, 1.7, u[12]),
        gamma=log_lerp(0.8, 1.25, u[13]),
        contrast=u[14] * 0.8,
        sharpening=jnp.where(u[15] < 0.3, u[16], 0.0),
        grey=u[17] < options.grey,
        jpeg_quality=jnp.where(u[18] < 0.3, 101.0, lerp(98.0, 98 - 75 * hard, u[19] ** 1.5)),
    )


def illumination(key: PRNGKeyArray, side: int) -> Float[Array, "S S 1"]:
    """Light that changes over the picture: a slope, patches of shade now and then, dark corners."""
    grid_key, number_key = jax.random.split(key)
    u = jax.random.uniform(number_key, (5,))
    slope, patches = smooth_fields(grid_key, (1, 5), 1, side)[:, 0]
    patches = jax.nn.sigmoid((4 + 12 * u[0]) * patches)
    dappled = jnp.where(u[1] < 0.15, 0.2 + 0.5 * u[2], 0.0)
    place = (jnp.arange(side) + 0.5) / side - 0.5
    corners = place[:, None] ** 2 + place**2
    logarithm = 0.35 * u[3] * slope - 1.4 * u[4] ** 3 * corners
    return (jnp.exp(logarithm) * (1 - dappled * patches))[..., None]


def candidate_masks(
    key: PRNGKeyArray,
    seen: Visibility,
    primitives: Primitives,
    options: SceneOptions,
    size_hw: Int[Array, " 2"],
) -> tuple[Bool[Array, "P S S"], Float[Array, " P"], Int[Array, " P"]]:
    """Masks of a random choice of things that are neither too small nor too large.

    Returns:
      Masks, weights, levels.
    """
    side = options.image_size
    limit = options.primitives
    place = jnp.arange(side)
    within = (place[:, None] < size_hw[0]) & (place < size_hw[1])
    pixels = jnp.zeros(limit, jnp.int32).at[seen.front].add(within)
    numbers = jnp.arange(limit)
    real = numbers < primitives.number
    owners = jnp.stack([primitives.object, primitives.part, primitives.part_of_part])
    owners = jnp.where(real, owners, -1)
    # A thing is named by its first primitive; alike[l, i, j]: i and j are of one thing at level l.
    alike = (owners[:, :, None] == owners[:, None, :]) & (owners >= 0)[:, :, None]
    area = (alike * pixels).sum(axis=2)
    first = jnp.argmax(alike, axis=2) == numbers
    big_enough = area >= max(SMALLEST * side**2, 4)
    small_enough = area <= LARGEST * size_hw.prod()
    distinct = area < SAME * jnp.concatenate([jnp.full((1, limit), jnp.inf), area[:2]])
    background = primitives.object < BACKGROUND_OBJECTS
    is_stuff = jnp.stack([background, jnp.zeros(limit, bool), jnp.zeros(limit, bool)])
    valid = first & big_enough & small_enough & distinct & ~(background & ~is_stuff)
    u = jax.random.uniform(key, (4, limit))
    # Where there is little else, the background is worth learning from.
    others = (valid & ~is_stuff).sum()
    valid = valid & (~is_stuff | (u[3, 0] < options.stuff) | (others < 3))
    # Wholes before parts, mostly.
    order = u[:3] + jnp.array([[0.5], [0.1], [0.0]])
    order = jnp.where(valid, order, -1.0).reshape(-1)
    order = jnp.pad(order, (0, max(0, options.masks - order.size)), constant_values=-1.0)
    _, chosen = jax.lax.top_k(order, options.masks)
    # What only fills up is no thing of its own, and has no weight.
    valid = jnp.pad(valid.reshape(-1), (0, order.size - valid.size))[chosen]
    chosen = jnp.minimum(chosen, 3 * limit - 1)
    level, number = chosen // limit, chosen % limit
    members = alike[level, number]
    masks = jax.vmap(lambda of: of[seen.front])(members & valid[:, None])
    levels = jnp.where(is_stuff.reshape(-1)[chosen], STUFF, level)
    return masks & within, valid.astype(jnp.float32), levels.astype(jnp.int32)


def scene(key: PRNGKeyArray, options: SceneOptions) -> Scene:
    """The scene of a key; to be jitted with `options` static, and mapped over keys.

    Args:
      key: scene i of a seed has `jax.random.fold_in(jax.random.key(seed), i)`.
      options: what scenes look like.
    """
    keys = jax.random.split(key, 10)
    side = options.image_size
    kinds = tuple(kind for kind in KINDS if kind.name in options.kinds)
    tables = kind_tables(kinds + BACKGROUNDS)
    chances = Chances(**{name: getattr(options, name) for name in Chances._fields})
    hard = 2 * options.difficulty
    chances = chances._replace(
        low_contrast=min(hard * chances.low_contrast, 1.0),
        same_material=min(hard * chances.same_material, 1.0),
    )
    u = jax.random.uniform(keys[0], (2,))
    short = jnp.round(side * lerp(options.least_aspect, 1.0, u[0])).astype(jnp.int32)
    size_hw = jnp.where(u[1] < 0.35, jnp.stack([side, short]), jnp.stack([short, side]))
    size_hw = size_hw.astype(jnp.int32)
    extent = size_hw[::-1] / side
    light = draw_light(keys[1])
    objects = draw_objects(keys[2], options.objects, tables, extent, chances)
    # A few objects cannot have more outlines than this.
    most = objects.kind.shape[0] * SLOTS
    options = replace(options, primitives=min(options.primitives, most))
    primitives = draw_primitives(
        keys[3], objects, tables, options.primitives, light.direction[:2], chances
    )
    fields = smooth_fields(keys[4], WARP_CELLS, 2, side)
    seen = visibility(primitives, fields)
    masks, weights, levels = candidate_masks(keys[5], seen, primitives, options, size_hw)
    atlas = texture_atlas(keys[6], side // 2)
    grain = jax.random.normal(keys[7], (side, side))
    picture = radiance(seen, primitives, fields, atlas, grain, light)
    picture = picture * illumination(keys[8], side)
    # A camera sets its exposure by what it sees, though not entirely.
    picture = picture * (0.22 / jnp.maximum(picture.mean(), 0.01)) ** 0.7
    camera_key, noise_key = jax.random.split(keys[9])
    image = photograph(noise_key, picture, draw_camera(camera_key, options))
    place = jnp.arange(side)
    within = (place[:, None] < size_hw[0]) & (place < size_hw[1])
    image = jnp.where(within[..., None], jnp.round(image), 0).astype(jnp.uint8)
    return Scene(image, size_hw, masks, weights, levels)
