"""Which pixel shows what, against the same geometry written down in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax.data.scenes.layout import Primitives
from sam_jax.data.scenes.outlines import DIRECTIONS, Outline, table_angles
from sam_jax.data.scenes.rendering import visibility

SIDE = 128
MOST = 6
# Pixels whose center is this near an edge, in relative radii, may fall to either side in float32.
ROUNDING = 2e-4


def shape(x, y, a, b, angle=0.0, bend=0.0, hole=0.0, box=False, on=-1, warp=0.0, darkness=0.0):
    """One primitive as plain numbers; the table is a circle's or a square's."""
    cosine, sine = np.abs(np.cos(table_angles())), np.abs(np.sin(table_angles()))
    radius = 1 / np.maximum(cosine, sine) if box else np.ones(DIRECTIONS)
    return dict(
        center=(x, y),
        half_size=(a, b),
        direction=(np.cos(angle), np.sin(angle)),
        bend=bend,
        taper=0.0,
        hole=hole,
        warp=(warp,),
        radius=radius,
        reach=1.5 * max(a, b) * (1 + abs(bend)) + 3 * warp + 0.1 * (darkness > 0),
        drawn_on=on,
        shadow=(0.05, 0.05, 0.2, darkness),
        softness=1.0,
        opacity=1.0,
    )


def primitives(shapes):
    # Always as many, so that one program draws them all.
    filled = shapes + [BACKDROP] * (MOST - len(shapes))

    def column(name):
        return jnp.asarray(np.array([one[name] for one in filled]))

    def value(name):
        return column(name).astype(jnp.float32)

    none = jnp.zeros(MOST, jnp.int32)
    return Primitives(
        outline=Outline(*(value(name) for name in Outline._fields)),
        radius=value("radius"),
        reach=value("reach"),
        material=None,
        object=none,
        part=none,
        part_of_part=none,
        drawn_on=column("drawn_on").astype(jnp.int32),
        shadow=value("shadow"),
        softness=value("softness"),
        opacity=value("opacity"),
        number=jnp.int32(len(shapes)),
    )


def expected(shapes, field):
    """The front of every pixel and how close it is to any edge, from the definition, in float64."""
    y, x = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE
    front = np.zeros((SIDE, SIDE), int)
    margin = np.full((SIDE, SIDE), np.inf)
    for index, one in enumerate(shapes):
        if index == 0:
            continue
        dx = x + one["warp"][0] * field[0] - one["center"][0]
        dy = y + one["warp"][0] * field[1] - one["center"][1]
        cosine, sine = one["direction"]
        a, b = one["half_size"]
        u = (cosine * dx + sine * dy) / a
        v = ((cosine * dy - sine * dx) - one["bend"] * a * (u**2 - 1 / 3)) / b
        square = one["radius"].max() > 1.2
        relative = np.maximum(abs(u), abs(v)) if square else np.hypot(u, v)
        inside = (relative < 1) & (relative > one["hole"])
        if one["drawn_on"] >= 0:
            inside &= front >= one["drawn_on"]
        front[inside] = index
        margin = np.minimum(margin, abs(relative - 1))
        if one["hole"]:
            margin = np.minimum(margin, abs(relative - one["hole"]))
    return front, margin


BACKDROP = shape(0.5, 0.5, 3, 3)
SCENES = {
    "windows of every size, over the frame's edges": [
        BACKDROP,
        shape(0.5, 0.6, 0.45, 0.3, 0.4),
        shape(0.9, 0.1, 0.2, 0.12, 2.0),
        shape(0.02, 0.98, 0.05, 0.03, 1.0),
        shape(0.3, 0.3, 0.02, 0.015),
        shape(-0.1, 0.4, 0.15, 0.15),
    ],
    "rings, strokes, squares": [
        BACKDROP,
        shape(0.4, 0.4, 0.3, 0.25, 0.3, hole=0.6),
        shape(0.5, 0.5, 0.4, 0.03, 0.8, bend=0.4),
        # A square in its own frame; turned by a quarter, the table's corners are met exactly.
        shape(0.7, 0.7, 0.1, 0.2, np.pi / 2, box=True),
    ],
    "painted on a part and what is painted on that": [
        BACKDROP,
        shape(0.4, 0.5, 0.3, 0.2, 0.3),
        shape(0.6, 0.5, 0.2, 0.1, 1.2, on=1),
        shape(0.65, 0.5, 0.1, 0.1, on=2),
        shape(0.4, 0.45, 0.1, 0.3, 1.0),
    ],
    "moved by a field": [
        BACKDROP,
        shape(0.5, 0.5, 0.3, 0.2, 0.3, warp=0.05),
        shape(0.3, 0.7, 0.06, 0.04, warp=0.01),
    ],
}


@pytest.fixture(scope="module")
def draw():
    return jax.jit(visibility)


@pytest.fixture(scope="module")
def field():
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    return np.stack([np.sin(9 * y), np.cos(7 * x)])


@pytest.mark.parametrize("name", SCENES)
def test_every_pixel_shows_what_its_centre_lies_in(draw, field, name):
    shapes = SCENES[name]
    seen = draw(primitives(shapes), jnp.asarray(field[None], jnp.float32))
    front, margin = expected(shapes, field)
    # Between its entries, a square's table is a chord of 1 / cos: up to 3e-4 too far out.
    clear = margin > (5e-4 if "squares" in name else ROUNDING)
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(np.asarray(seen.front)[clear], front[clear])
    assert set(np.unique(front)) == set(range(len(shapes)))


def test_edges_are_soft_and_the_front_has_most_of_its_pixels(draw, field):
    seen = draw(primitives(SCENES["rings, strokes, squares"]), jnp.zeros((1, 2, SIDE, SIDE)))
    cover = np.asarray(seen.cover)
    assert cover.min() >= 0.5 and cover.max() == 1
    soft = cover < 1
    assert 0 < soft.mean() < 0.15
    assert (np.asarray(seen.behind)[soft] != np.asarray(seen.front)[soft]).all()


def test_the_cover_of_edges_is_the_area(draw):
    disc = shape(0.5, 0.5, 0.31, 0.31)
    seen = draw(primitives([BACKDROP, disc]), jnp.zeros((1, 2, SIDE, SIDE)))
    of_disc = np.where(np.asarray(seen.front) == 1, seen.cover, 0)
    of_disc = of_disc + np.where(np.asarray(seen.behind) == 1, 1 - np.asarray(seen.cover), 0)
    # Edges are straight lines to a pixel of this size; corner cases cancel.
    assert abs(of_disc.sum() - np.pi * (0.31 * SIDE) ** 2) < 0.002 * of_disc.sum()


def test_shadows_fall_on_what_is_behind_and_change_no_pixel(draw):
    bare = [BACKDROP, shape(0.7, 0.55, 0.15, 0.1), shape(0.5, 0.5, 0.15, 0.1)]
    dark = [*bare[:2], shape(0.5, 0.5, 0.15, 0.1, darkness=0.8)]
    none = jnp.zeros((1, 2, SIDE, SIDE))
    without, seen = draw(primitives(bare), none), draw(primitives(dark), none)
    np.testing.assert_array_equal(without.front, seen.front)
    light, front = np.asarray(seen.light), np.asarray(seen.front)
    assert (np.asarray(without.light) == 1).all()
    assert (light[front == 2] == 1).all()
    # Down and right of the object, both on the other one and on the backdrop.
    assert light[front == 1].min() < 0.5 and light[front == 0].min() < 0.5
    assert light[: SIDE // 4].min() == 1


def test_what_is_translucent_has_what_is_behind_it_everywhere(draw):
    shapes = [BACKDROP, shape(0.4, 0.5, 0.3, 0.2), {**shape(0.5, 0.5, 0.2, 0.2), "opacity": 0.6}]
    seen = draw(primitives(shapes), jnp.zeros((1, 2, SIDE, SIDE)))
    over = np.asarray(seen.front) == 2
    opaque = draw(
        primitives([*shapes[:2], {**shapes[2], "opacity": 1.0}]), jnp.zeros((1, 2, SIDE, SIDE))
    )
    np.testing.assert_array_equal(seen.front, opaque.front)
    assert np.asarray(seen.cover)[over].max() <= 0.6 + 1e-6
    assert set(np.unique(np.asarray(seen.behind)[over])) == {0, 1}
