"""Outlines of objects: one family of shapes, given by a radius for every direction.

A shape is star-shaped in its own frame: a table holds its radius by direction. Bending, tapering
and a smooth displacement of the plane then make what no radius can: bananas, cables, ragged edges.
Lengths are fractions of the frame's side; (x, y) as everywhere, y pointing down.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Directions in a radius table.
DIRECTIONS = 128
FAMILIES = ("ellipse", "box", "polygon", "lens", "star", "drop")
# Random numbers that one radius table takes: phases and amplitudes of harmonics, half-planes.
TABLE_DRAWS = 26
HARMONICS = 8
HALF_PLANES = 10


class Outline(NamedTuple):
    """Where a shape lies and how it is deformed; every field may have leading axes.

    Attributes:
      center: x, y.
      half_size: along its own first and second axis.
      direction: of the first axis, a unit vector x, y.
      bend: how far the ends of the first axis leave it, as a fraction of its half-length.
      taper: relative change of width from the middle to the end of the first axis.
      hole: of a ring, the inner edge as a fraction of the radius; 0 for none.
      warp: how much of each displacement field moves the plane.
    """

    center: Array
    half_size: Array
    direction: Array
    bend: Array
    taper: Array
    hole: Array
    warp: Array


def pseudo_angle(x: Array, y: Array) -> Array:
    """Direction of (x, y) as a number in [0, 4): an angle without trigonometry."""
    slope = y / (jnp.abs(x) + jnp.abs(y) + 1e-9)
    return jnp.where(x >= 0, 1.0 + slope, 3.0 - slope)


def table_angles() -> np.ndarray:
    """The angle in radians of each entry of a radius table."""
    turn = 4.0 * np.arange(DIRECTIONS) / DIRECTIONS
    slope = np.where(turn <= 2, turn - 1, 3 - turn)
    return np.arctan2(slope, np.where(turn <= 2, 1, -1) * (1 - np.abs(slope)))


def radius_table(
    family: Int[Array, ""],
    exponent: Float[Array, ""],
    lobes: Float[Array, ""],
    depth: Float[Array, ""],
    roughness: Float[Array, ""],
    draws: Float[Array, " numbers"],
) -> Float[Array, " directions"]:
    """The radius in every direction of a shape about as large as the unit circle.

    Args:
      family: index into `FAMILIES`.
      exponent: of the superellipse "box", from 1 (a diamond) through 2 (a circle) to a rectangle;
        sharpness of a star's rays and of a drop's tip.
      lobes: rays of a star; sides of a polygon.
      depth: of a star's notches; irregularity of a polygon; length of a drop's tip.
      roughness: amplitude of random harmonics on the logarithm of the radius.
      draws: uniform random numbers, `TABLE_DRAWS` of them.
    """
    angle = jnp.asarray(table_angles(), jnp.float32)
    cosine, sine = jnp.abs(jnp.cos(angle)), jnp.abs(jnp.sin(angle))
    box = (cosine**exponent + sine**exponent) ** (-1 / exponent)
    lens = 2 / (sine + jnp.sqrt(sine**2 + 4 * cosine**2))
    wave = 0.5 + 0.5 * jnp.cos(jnp.round(lobes) * angle)
    star = 1 - depth * (1 - wave ** (exponent / 2))
    drop = 0.8 + depth * jnp.maximum(jnp.cos(angle), 0.0) ** (2 * exponent)
    side = jnp.arange(HALF_PLANES)
    jitter = draws[:HALF_PLANES] - 0.5
    facing = 2 * jnp.pi * (side + depth * jitter) / jnp.round(lobes)
    away = 0.75 * (1 + depth * (jitter[::-1]))
    reach = away[:, None] / jnp.maximum(jnp.cos(angle - facing[:, None]), 0.05)
    reach = jnp.where(side[:, None] < jnp.round(lobes), reach, 9.0)
    polygon = jnp.minimum(reach.min(axis=0), 1.6)
    radius = jnp.stack([jnp.ones_like(angle), box, polygon, lens, star, drop])[family]
    order = jnp.arange(2, 2 + HARMONICS)[:, None]
    phase = 2 * jnp.pi * draws[HALF_PLANES : HALF_PLANES + HARMONICS, None]
    size = 2 * draws[HALF_PLANES + HARMONICS : TABLE_DRAWS, None] * order**-1.3
    waves = (size * jnp.cos(order * angle + phase)).sum(axis=0)
    return radius * jnp.exp(roughness * waves)


def displaced(
    warp: Float[Array, "*leading fields"],
    x: Float[Array, "*plane"],
    y: Float[Array, "*plane"],
    fields: Float[Array, "fields 2 *plane"],
) -> tuple[Float[Array, "*plane"], Float[Array, "*plane"]]:
    """Points of the plane after the displacement that `warp` makes of the fields."""
    for k in range(fields.shape[0]):
        x = x + warp[..., k] * fields[k, 0]
        y = y + warp[..., k] * fields[k, 1]
    return x, y


def own_frame(outline: Outline, x: Array, y: Array) -> tuple[Array, Array]:
    """Coordinates in a shape's frame, where an undeformed ellipse is the unit circle."""
    x, y = x - outline.center[..., 0], y - outline.center[..., 1]
    cosine, sine = outline.direction[..., 0], outline.direction[..., 1]
    length, width = outline.half_size[..., 0], outline.half_size[..., 1]
    along = (cosine * x + sine * y) / length
    across = (cosine * y - sine * x) / length
    across = across - outline.bend * (along**2 - 1 / 3)
    across = across * length / width / (1 + outline.taper * jnp.clip(along, -1.3, 1.3))
    return along, across


def relative_radius(along: Array, across: Array, radius: Callable[[Array], Array]) -> Array:
    """Distance from the center as a fraction of the outline's in that direction.

    Args:
      along: first coordinate in the shape's frame.
      across: second.
      radius: looks up table entries, given integer indices in [0, DIRECTIONS).
    """
    position = pseudo_angle(along, across) * (DIRECTIONS / 4)
    low = jnp.floor(position)
    part = position - low
    low = low.astype(jnp.int32) % DIRECTIONS
    edge = radius(low) * (1 - part) + radius((low + 1) % DIRECTIONS) * part
    return jnp.sqrt(along**2 + across**2) / edge


def outside(relative: Array, hole: Array) -> Array:
    """Negative inside a shape or ring, 0 on its edge, positive outside, in relative radii."""
    return jnp.where(hole > 0, jnp.maximum(relative - 1, hole - relative), relative - 1)
