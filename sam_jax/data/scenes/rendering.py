"""Drawing a scene: first which primitive each pixel shows, then how that looks.

The first pass paints primitives from the back to the front, each in a window just large enough, and
keeps two of them for every pixel: the one in front, whose pixel it is, and the one behind it that
shows where the front one's edge runs through the pixel. Masks follow from the front one alone. The
second pass shades both for all pixels at once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sam_jax.data.scenes.layout import Primitives
from sam_jax.data.scenes.outlines import displaced, outside, own_frame, relative_radius
from sam_jax.data.scenes.textures import sampled

# Sides of windows as parts of the frame's.
WINDOWS = (8, 4, 2, 1)


class Visibility(NamedTuple):
    """What each pixel shows, over [S, S].

    Attributes:
      front: the primitive whose pixel it is.
      behind: the one that is mixed in.
      cover: how much of the pixel is the front one's.
      light, light_behind: 1 in full light, less in shadow.
    """

    front: Array
    behind: Array
    cover: Array
    light: Array
    light_behind: Array


class Light(NamedTuple):
    """The light of a scene, from one direction and from all around.

    Attributes:
      direction: x, y, z of a unit vector to the light; z points at the viewer.
      color: of the directed light, linear RGB.
      ambient: of the light from all around.
    """

    direction: Array
    colour: Array
    ambient: Array


def power(base: Array, exponent: Array) -> Array:
    """A power of what is at least 0; unlike `**`, CPUs compute many at a time."""
    return jnp.exp(exponent * jnp.log(jnp.maximum(base, 1e-6)))


def pixel_centres(start: Array | int, count: int, side: int) -> Array:
    """Coordinates of pixels from `start` on, as fractions of the frame's side."""
    return (start + jnp.arange(count) + 0.5) / side


def painted(
    state: Visibility,
    index: Int[Array, ""],
    primitives: Primitives,
    fields: Float[Array, "fields 2 S S"],
    window: int,
) -> Visibility:
    """One primitive over the picture so far, in a window of so many pixels around it."""
    side = fields.shape[-1]
    outline, radius = jax.tree.map(lambda a: a[index], (primitives.outline, primitives.radius))
    corner = jnp.round(outline.center * side - window / 2).astype(jnp.int32)
    column, row = jnp.clip(corner, 0, side - window)

    def here(image):
        return jax.lax.dynamic_slice(image, (row, column), (window, window))

    seen = Visibility(*(here(image) for image in state))
    x, y = jnp.meshgrid(
        pixel_centres(column, window, side), pixel_centres(row, window, side), indexing="xy"
    )
    shape = (*fields.shape[:2], window, window)
    near = jax.lax.dynamic_slice(fields, (0, 0, row, column), shape)
    x, y = displaced(outline.warp, x, y, near)

    def distance(x, y):
        along, across = own_frame(outline, x, y)
        return outside(relative_radius(along, across, lambda k: radius[k]), outline.hole)

    from_edge = distance(x, y)
    inside = from_edge < 0
    on = primitives.drawn_on[index]
    clipped = on >= 0
    inside = inside & (~clipped | (seen.front >= on))
    down, right = jnp.gradient(from_edge)
    slope = jnp.sqrt(down**2 + right**2) + 1e-6
    cover = jnp.clip(0.5 - from_edge / (slope * primitives.softness[index]), 0, 1)
    cover = jnp.where(inside, jnp.maximum(cover, 0.5), jnp.minimum(cover, 0.499))
    cover = jnp.where(clipped & (seen.front < on), 0, cover)
    cover = cover * primitives.opacity[index]
    offset_x, offset_y, softness, darkness = primitives.shadow[index]
    in_shadow = distance(x - offset_x, y - offset_y)
    shade = jnp.clip(0.5 - 0.5 * in_shadow / softness, 0, 1)
    shade = 1 - darkness * shade * shade * (3 - 2 * shade)
    edge = cover < 1
    # Painted on a part: what shows behind that part's edge still does.
    kept = clipped & ~edge
    thin = ~inside & (cover > 0) & (seen.cover >= 1)
    result = Visibility(
        front=jnp.where(inside, index, seen.front),
        behind=jnp.where(inside, jnp.where(kept, seen.behind, seen.front), seen.behind),
        cover=jnp.where(inside, jnp.where(kept, seen.cover, cover), seen.cover),
        light=jnp.where(inside, jnp.where(clipped, seen.light, 1.0), seen.light * shade),
        light_behind=jnp.where(
            inside, jnp.where(kept, seen.light_behind, seen.light), seen.light_behind * shade
        ),
    )
    result = result._replace(
        behind=jnp.where(thin, index, result.behind),
        cover=jnp.where(thin, 1 - cover, result.cover),
        light_behind=jnp.where(thin, 1.0, result.light_behind),
    )
    return Visibility(
        *(
            jax.lax.dynamic_update_slice(image, part, (row, column))
            for image, part in zip(state, result, strict=True)
        )
    )


def visibility(primitives: Primitives, fields: Float[Array, "fields 2 S S"]) -> Visibility:
    """What each pixel shows; primitive 0 fills the frame."""
    side = fields.shape[-1]
    windows = [side // part for part in WINDOWS]
    # Two pixels more, for the soft edge.
    needed = 2 * primitives.reach * side + 4
    size = jnp.searchsorted(jnp.array(windows[:-1]), needed)
    lit, none = jnp.ones((side, side)), jnp.zeros((side, side), jnp.int32)

    def paint(index, state):
        branches = [
            lambda state, window=window: painted(state, index, primitives, fields, window)
            for window in windows
        ]
        return jax.lax.switch(size[index], branches, state)

    start = Visibility(none, none, lit, lit, lit)
    return jax.lax.fori_loop(1, primitives.number, paint, start)


def shaded(
    index: Int[Array, "S S"],
    lit: Float[Array, "S S"],
    primitives: Primitives,
    fields: Float[Array, "fields 2 S S"],
    atlas: Float[Array, "tiles T T"],
    grain: Float[Array, "S S"],
    light: Light,
) -> Float[Array, "S S 3"]:
    """Linear light from the surface of a given primitive at every pixel."""
    side = index.shape[0]
    outline = jax.tree.map(lambda a: a[index], primitives.outline)
    material = jax.tree.map(lambda a: a[index], primitives.material)
    steps = pixel_centres(0, side, side)
    x, y = jnp.meshgrid(steps, steps, indexing="xy")
    x, y = displaced(outline.warp, x, y, fields)
    flat = primitives.radius.reshape(-1)

    def lookup(k):
        return flat[index * primitives.radius.shape[1] + k]

    def relative(x, y):
        return relative_radius(*own_frame(outline, x, y), lookup)

    step = 1 / side
    middle = relative(x, y)
    slope_x, slope_y = relative(x + step, y) - middle, relative(x, y + step) - middle
    slope = jnp.sqrt(slope_x**2 + slope_y**2) + 1e-6
    # Across the profile: -1 and 1 at the edges; a ring's profile is that of its rim.
    half = (1 - outline.hole) / 2
    profile = jnp.where(outline.hole > 0, (middle - outline.hole - half) / half, middle)
    profile = jnp.clip(profile, -1, 1)
    steep = jnp.sign(profile) * power(jnp.abs(profile), material.edge)
    steep = material.relief * steep / jnp.sqrt(1.1 - profile**2)
    normal_x, normal_y = steep * slope_x / slope, steep * slope_y / slope
    # Texture coordinates: the object's, spread in the middle of a ball, or receding.
    spread = 1 + material.bulge * (jnp.clip(middle, 0, 1) ** 2)
    px, py = x - material.origin[..., 0], y - material.origin[..., 1]
    far = 0.35 / (0.1 + jnp.maximum(y - material.recedes[..., 1], 0))
    away = material.recedes[..., 0] > 0
    px, py = jnp.where(away, px * far, px * spread), jnp.where(away, 2.5 * far, py * spread)
    axes = material.axes
    u = axes[..., 0, 0] * px + axes[..., 0, 1] * py + material.shift[..., 0]
    v = axes[..., 1, 0] * px + axes[..., 1, 1] * py + material.shift[..., 1]
    first = sampled(atlas, material.tiles[..., 0], u, v)
    # Towards the light, along the texture's own axes: where it rises there, it faces away.
    reach = 0.012
    to_light = light.direction[0] * axes[..., 0] + light.direction[1] * axes[..., 1]
    ahead = sampled(
        atlas, material.tiles[..., 0], u + reach * to_light[..., 0], v + reach * to_light[..., 1]
    )
    relief = jnp.clip(material.bump * (first - ahead), -0.7, 0.7)
    finer = material.finer
    second = sampled(atlas, material.tiles[..., 1], u * finer[..., 0], v * finer[..., 0])
    choice = sampled(atlas, material.tiles[..., 2], u * finer[..., 1] / 3, v * finer[..., 1] / 3)
    mixed = jax.nn.sigmoid(2 * material.sharpness * (choice - material.threshold))[..., None]
    log_first = material.amplitude[..., 0, :] * first[..., None]
    log_second = material.amplitude[..., 1, :] * second[..., None]
    surface = material.tints[..., 0, :] * jnp.exp(log_first) * (1 - mixed)
    surface = surface + material.tints[..., 1, :] * jnp.exp(log_second) * mixed
    along, across = own_frame(outline, x, y)
    ramp = material.gradient[..., 0] * along + material.gradient[..., 1] * across
    ramp = jnp.where(primitives.object[index] < 3, 0.0, jnp.clip(ramp, -0.6, 0.6))
    surface = surface * jnp.exp(ramp + material.grain * grain)[..., None]
    length = jnp.sqrt(normal_x**2 + normal_y**2 + 1)
    facing = normal_x * light.direction[0] + normal_y * light.direction[1] + light.direction[2]
    facing = facing / length
    diffuse = jnp.maximum(facing + relief, 0) * lit
    # Halfway between the light and the viewer.
    halfway = light.direction + jnp.array([0.0, 0.0, 1.0])
    halfway = halfway / jnp.linalg.norm(halfway)
    mirror = (normal_x * halfway[0] + normal_y * halfway[1] + halfway[2]) / length
    highlight = material.gloss * power(mirror, material.shine) * lit
    highlight = highlight * (material.relief > 0.25)
    around = light.ambient * (0.3 + 0.7 * (1 / length) * (0.3 + 0.7 * lit))[..., None]
    return surface * (around + light.colour * diffuse[..., None]) + (
        light.colour * highlight[..., None] * 0.6
    )


def radiance(
    seen: Visibility,
    primitives: Primitives,
    fields: Float[Array, "fields 2 S S"],
    atlas: Float[Array, "tiles T T"],
    grain: Float[Array, "S S"],
    light: Light,
) -> Float[Array, "S S 3"]:
    """Linear light of every pixel."""
    front = shaded(seen.front, seen.light, primitives, fields, atlas, grain, light)
    behind = shaded(seen.behind, seen.light_behind, primitives, fields, atlas, grain, light)
    return behind + seen.cover[..., None] * (front - behind)
