"""How surfaces look: colors, textures and gloss of the primitives of a scene."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from sam_jax.data.scenes.blueprints import PAINTS, SLOTS
from sam_jax.data.scenes.textures import TILES

MATERIAL_DRAWS = 40
# Hues of natural and made things: browns and oranges, greens, blues.
COMMON_HUES = (0.07, 0.10, 0.28, 0.58)


class Material(NamedTuple):
    """Surfaces over [primitives].

    Attributes:
      tints: linear RGB of two colors that a texture mixes, [primitives, 2, 3].
      amplitude: of each color's own texture, on the logarithm of light, [primitives, 2, 3].
      tiles: of the atlas: the first color's, the second's, the mixture's, [primitives, 3].
      origin: point of the plane where texture coordinates are 0.
      shift: which part of the tiles is there, in periods.
      axes: texture periods over the plane, as a matrix [primitives, 2, 2].
      finer: how much finer the second texture is, and the mixture.
      sharpness, threshold: of the mixture.
      bump: relief of the first texture.
      relief, edge: of the primitive, as in `blueprints.Part`.
      gloss, shine: strength and exponent of highlights.
      bulge: how much texture spreads in the middle, as on a ball.
      recedes: 1 for the ground in perspective, and the height of its horizon, [primitives, 2].
      grain: noise of single pixels on the logarithm of light.
      gradient: change of the logarithm of light over the object, along x and y.
    """

    tints: Array
    amplitude: Array
    tiles: Array
    origin: Array
    shift: Array
    axes: Array
    finer: Array
    sharpness: Array
    threshold: Array
    bump: Array
    relief: Array
    edge: Array
    gloss: Array
    shine: Array
    bulge: Array
    recedes: Array
    grain: Array
    gradient: Array


def rgb_from_hsv(hue: Array, saturation: Array, value: Array) -> Array:
    """Colors of 0 to 1; the hue is in turns."""
    ramp = jnp.abs((hue[..., None] + jnp.array([1.0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1
    return value[..., None] * (1 + saturation[..., None] * (jnp.clip(ramp, 0, 1) - 1))


def natural_colour(u: Float[Array, "*rows 6"], scene_hue: Float[Array, ""]) -> Array:
    """Linear RGB: mostly muted, of common hues or near the scene's own."""
    common = jnp.array(COMMON_HUES)[jnp.floor(u[..., 1] * 3.999).astype(jnp.int32)]
    near = 0.12 * (u[..., 2] - 0.5)
    hue = jnp.where(
        u[..., 0] < 0.45,
        scene_hue + near,
        jnp.where(u[..., 0] < 0.85, common + near, u[..., 2]),
    )
    vivid = u[..., 5] < 0.12
    saturation = jnp.where(vivid, 0.9 * u[..., 3] ** 0.7, 0.7 * u[..., 3] ** 1.6)
    value = 0.12 + 0.84 * u[..., 4]
    return rgb_from_hsv(hue % 1, saturation, value) ** 2.2


def draw_materials(
    key: PRNGKeyArray,
    *,
    species: Int[Array, " primitives"],
    slot: Int[Array, " primitives"],
    paint: Int[Array, " primitives"],
    object_index: Int[Array, " primitives"],
    backdrop: int,
    borrows: Bool[Array, " species"],
    blends: Bool[Array, " species"],
    objects: int,
) -> Material:
    """Materials of primitives, all but where they lie.

    Args:
      key: random.
      species: of each primitive's object; like objects have like materials.
      slot: of the part; parts that share a slot and a species share a material.
      paint: index into `blueprints.PAINTS`.
      object_index: for what varies from object to object.
      backdrop: the backdrop's species.
      borrows: species made of the very material of the backdrop.
      blends: species whose colors are close to the backdrop's.
      objects: how many there are.
    """
    species_key, own_key = jax.random.split(key)
    shape = (borrows.shape[0], SLOTS + 1, MATERIAL_DRAWS)
    table = jax.random.uniform(species_key, shape)
    table = jnp.where(borrows[:, None, None], table[backdrop], table)
    # The last row is the object's own material, which its parts share unless they have another.
    u = table[species, jnp.where(paint == PAINTS.index("same"), SLOTS, slot)]
    # A column of the table that no color uses.
    scene_hue = jnp.array(COMMON_HUES)[jnp.floor(table[backdrop, 0, 39] * 3.999).astype(jnp.int32)]
    first = natural_colour(u[:, 0:6], scene_hue)
    second = natural_colour(u[:, 6:12], scene_hue)
    # The second color is often a shade of the first.
    shade = first * jnp.exp(1.6 * (u[:, 12:13] - 0.5))
    second = jnp.where(u[:, 13:14] < 0.6, 0.75 * shade + 0.25 * second, second)
    ground = natural_colour(table[backdrop, SLOTS, 0:6], scene_hue)
    similar = 0.12 + 0.3 * u[:, 14:15]
    is_close = (blends[species] & (paint == PAINTS.index("same")))[:, None]
    first = jnp.where(is_close, ground * (1 - similar) + first * similar, first)
    second = jnp.where(is_close, ground * (1 - similar) + second * similar, second)
    dark, pale = 0.01 + 0.05 * u[:, 0:3], 0.5 + 0.45 * u[:, 0:3] ** 0.5
    is_dark, is_pale = (paint == PAINTS.index(name) for name in ("dark", "pale"))
    tints = jnp.stack([first, second], axis=1)
    tints = jnp.where(is_dark[:, None, None], dark[:, None], tints)
    tints = jnp.where(is_pale[:, None, None], pale[:, None], tints)
    v = jax.random.normal(own_key, (objects, 4))[object_index]
    tints = tints * jnp.exp(0.12 * v[:, None, :1] + 0.04 * v[:, None, 1:])
    # Texture is mostly light and dark, with some color.
    colours = 1 + 0.5 * (u[:, 15:21].reshape(-1, 2, 3) - 0.5)
    plain = u[:, 21] < 0.35
    strength = jnp.where(plain, 0.04, 0.06 + 0.45 * u[:, 22] ** 2)
    # The first tiles, noise as in nature, are taken most.
    tiles = jnp.floor(u[:, 23:26] ** 1.6 * (TILES - 1e-3)).astype(jnp.int32)
    periods = 0.4 * 9 ** u[:, 26]
    angle = 2 * jnp.pi * u[:, 27]
    turn = jnp.stack([jnp.cos(angle), jnp.sin(angle), -jnp.sin(angle), jnp.cos(angle)], axis=-1)
    uniform = (u[:, 28] < 0.5) | is_dark | is_pale
    glossy = u[:, 29] < 0.4
    zeros = jnp.zeros_like(periods)
    material = Material(
        tints=tints,
        amplitude=strength[:, None, None] * colours,
        tiles=tiles,
        origin=jnp.stack([zeros, zeros], axis=-1),
        shift=3 * v[:, :2],
        axes=periods[:, None, None] * turn.reshape(-1, 2, 2),
        finer=1 + u[:, 30:32],
        sharpness=1 + 11 * u[:, 32] ** 2,
        threshold=jnp.where(uniform, 9.0, 2.4 * (u[:, 33] - 0.5)),
        bump=jnp.where((u[:, 34] < 0.4) & ~plain, 0.8 * u[:, 35] ** 2, 0.0),
        relief=zeros,
        edge=zeros,
        gloss=jnp.where(glossy, 0.9 * u[:, 36], 0.03),
        shine=4 * 30 ** u[:, 37],
        bulge=zeros,
        recedes=jnp.stack([zeros, zeros], axis=-1),
        grain=0.10 * u[:, 38] ** 3,
        gradient=0.5 * v[:, 2:4],
    )
    return material
