"""What a scene holds and where: objects of a few species, their parts, materials and light.

All numbers are drawn here; rendering is then a function of them. Lengths are fractions of the
frame's side, (x, y) with y down.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from sam_jax.data.scenes.blueprints import CHOICES, RANGES, SLOTS, KindTables
from sam_jax.data.scenes.materials import Material, draw_materials
from sam_jax.data.scenes.outlines import TABLE_DRAWS, Outline, radius_table

# Objects that repeat share a species; at most so many in a scene.
SPECIES = 6
# Backdrop, ground, side: objects 0, 1, 2.
BACKGROUND_OBJECTS = 3
# One random number chooses the family, then one for each range, then those of the radius table.
PART_DRAWS = 1 + len(RANGES) + TABLE_DRAWS
# Fields that displace outlines: so many waves over the frame, roughly.
WARP_CELLS = (3, 10, 32)


class Chances(NamedTuple):
    """How often scenes and objects have what; all floats from 0 to 1."""

    group: float
    dominant: float
    low_contrast: float
    horizon: float
    side: float
    shadow: float
    translucent: float
    same_material: float


class Objects(NamedTuple):
    """Objects in drawing order, from the back, over [objects].

    Attributes:
      kind: row of the tables; the backgrounds' follow the others.
      species: like objects share one.
      center, size, angle: of the object's circle; the angle in radians.
      mirrored: -1 or 1.
      present: whether it is there at all.
    """

    kind: Array
    species: Array
    center: Array
    size: Array
    angle: Array
    mirrored: Array
    present: Array


class Primitives(NamedTuple):
    """What is drawn, from the back to the front, over [primitives]; `number` of them are real.

    Attributes:
      outline: where each lies.
      radius: tables, [primitives, directions].
      reach: half-side of a square around the center that holds it and its shadow.
      material: how it looks.
      object: index of the object; 0 to 2 are the background's.
      part: number of the part of the body that it belongs to, unique in the scene.
      part_of_part: likewise; -1 for what is none.
      drawn_on: for what is painted inside its parent, the parent's index; else -1.
      shadow: x, y of the shadow's offset, its softness in relative radii, its darkness.
      softness: width of the edge in pixels.
      opacity: 1 unless translucent.
      number: how many there are; the rest only fill the arrays.
    """

    outline: Outline
    radius: Array
    reach: Array
    material: Material
    object: Array
    part: Array
    part_of_part: Array
    drawn_on: Array
    shadow: Array
    softness: Array
    opacity: Array
    number: Array


def lerp(low: Array | float, high: Array | float, part: Array) -> Array:
    """Between two values."""
    return low + (high - low) * part


def log_lerp(low: Array | float, high: Array | float, part: Array) -> Array:
    """Between two positive values, evenly in their logarithm."""
    return jnp.exp(lerp(jnp.log(low), jnp.log(high), part))


def draw_objects(
    key: PRNGKeyArray,
    objects: int,
    tables: KindTables,
    extent: Float[Array, " 2"],
    chances: Chances,
) -> Objects:
    """Which objects there are, and where.

    Args:
      key: random.
      objects: how many there are at most, besides the background's.
      tables: of the kinds to use, then of the three backgrounds.
      extent: width and height of the image as fractions of the frame's side.
      chances: how often there are groups, and a horizon and the like.
    """
    scene_key, species_key, own_key = jax.random.split(key, 3)
    u = jax.random.uniform(scene_key, (14,))
    v = jax.random.uniform(species_key, (SPECIES, 2 + tables.group.shape[0]))
    w = jax.random.uniform(own_key, (objects, 6))
    index = jnp.arange(objects)
    grouped = u[0] < chances.group
    group = jnp.where(grouped, jnp.floor(3 + (objects - 3) * u[1] ** 1.5), 0).astype(jnp.int32)
    second = jnp.where(grouped & (u[2] < 0.3), jnp.floor(0.6 * objects * u[3]), 0)
    others = jnp.where(grouped, jnp.floor(4 * u[3]), jnp.floor(1 + 11 * u[3]))
    second, others = second.astype(jnp.int32), others.astype(jnp.int32)
    species = jnp.where(
        index < group,
        0,
        jnp.where(index < group + second, 1, 2 + (index - group - second) % (SPECIES - 2)),
    )
    # Kinds of groups are those that come in numbers; the others' are drawn evenly.
    kinds = tables.group.shape[0] - BACKGROUND_OBJECTS
    repeated = jnp.log(jnp.asarray(tables.group[:kinds]))
    preference = jnp.where(jnp.arange(SPECIES)[:, None] < 2, repeated, 0.0)
    # The largest of these is a draw by preference (Gumbel).
    kind_of = jnp.argmax(preference - jnp.log(-jnp.log(v[:, 2 : 2 + kinds] + 1e-9)), axis=1)
    limits = jnp.asarray(tables.size)[kind_of]
    alone = log_lerp(limits[:, 0], limits[:, 1], v[:, 0])
    # Small where there are many, so that they do not pile up.
    crowd = jnp.where(jnp.arange(SPECIES) == 0, group, second)
    many = 0.55 * jnp.sqrt(extent.prod() / jnp.maximum(crowd, 3)) * log_lerp(0.35, 1.0, v[:, 0])
    size_of = jnp.where(jnp.arange(SPECIES) < 2, jnp.minimum(many, limits[:, 1]), alone)
    size = size_of[species] * log_lerp(0.8, 1.25, w[:, 0])
    dominant = ~grouped & (u[4] < chances.dominant) & (index == 0)
    size = jnp.where(dominant, limits[2, 1] * lerp(0.75, 1.2, w[:, 0]), size)
    # A sequence that spreads points evenly, from a random start (generalized golden ratio).
    spread = u[5:7] + index[:, None] * jnp.array([0.7548777, 0.5698403])
    center = (spread + 0.12 * (w[:, 1:3] - 0.5)) % 1.0
    center = lerp(0.02, 0.98, center)
    center = jnp.where(dominant[:, None], lerp(0.35, 0.65, w[:, 1:3]), center) * extent
    tilt_of = jnp.asarray(tables.tilt)[kind_of]
    angle = tilt_of[species] * (2 * w[:, 3] - 1)
    mirrored = jnp.where(w[:, 4] < 0.5, -1.0, 1.0)
    present = index < jnp.minimum(group + second + others, objects)
    # Larger ones further back, mostly.
    place = -jnp.log(size) + 1.2 * w[:, 5]
    order = jnp.argsort(jnp.where(present, place, jnp.inf))
    middle = extent / 2
    horizon = extent[1] * lerp(0.15, 0.85, u[7])
    sideways = extent[0] * lerp(0.15, 0.85, u[8])
    huge = 3.0
    backgrounds = Objects(
        kind=kinds + jnp.arange(3),
        species=SPECIES + jnp.arange(3),
        center=jnp.stack(
            [
                middle,
                jnp.array([middle[0], horizon + huge]),
                jnp.array([sideways + huge * jnp.where(u[9] < 0.5, -1, 1), middle[1]]),
            ]
        ),
        size=jnp.full(3, huge),
        angle=jnp.stack([jnp.zeros(()), 0.1 * (u[10] - 0.5), 0.6 * (u[11] - 0.5)]),
        mirrored=jnp.ones(3),
        present=jnp.stack(
            [
                jnp.ones((), bool),
                u[12] < chances.horizon,
                u[13] < chances.side,
            ]
        ),
    )
    things = Objects(kind_of[species], species, center, size, angle, mirrored, present)
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b[order]]), backgrounds, things)


def placed_parts(
    drawn: dict[str, Array], parent: Int[Array, "objects slots"]
) -> tuple[Array, Array, Array, Array]:
    """Places of parts in their object's circle: x, y, half-sizes (length, width), angle.

    Args:
      drawn: values of `RANGES`, over [objects, slots], relative to the parent.
      parent: slot of each; the body's is its own.
    """
    rows = jnp.arange(parent.shape[0])[:, None]
    is_body = parent == jnp.arange(parent.shape[1])
    angle = jnp.radians(drawn["angle"])
    place = (drawn["x"], drawn["y"], drawn["length"], drawn["width"], angle)
    local = place
    # Bodies are right from the start; each pass settles one more generation.
    for _ in range(3):
        px, py, length, width, turned = (value[rows, parent] for value in place)
        x, y = local[0] * length, local[1] * width
        unit = jnp.sqrt(length * width)
        cosine, sine = jnp.cos(turned), jnp.sin(turned)
        child = (
            px + cosine * x - sine * y,
            py + sine * x + cosine * y,
            local[2] * unit,
            local[3] * unit,
            turned + local[4],
        )
        place = jax.tree.map(lambda own, new: jnp.where(is_body, own, new), local, child)
    x, y, length, width, angle = place
    return x, y, jnp.stack([length, width], axis=-1), angle


def draw_outlines(
    key: PRNGKeyArray, objects: Objects, tables: KindTables
) -> tuple[Outline, dict[str, Array], Array, Array]:
    """Parts of all objects.

    Returns:
      Outlines over [objects, slots]; the values of `RANGES`; families; random numbers for tables.
    """
    species_key, own_key = jax.random.split(key)
    count = objects.kind.shape[0]
    shape = (SPECIES + BACKGROUND_OBJECTS, SLOTS, PART_DRAWS)
    shared = jax.random.uniform(species_key, shape)[objects.species]
    # Members of a species vary a little; reflected, so that numbers stay in range.
    own = jax.random.uniform(own_key, (count, SLOTS, PART_DRAWS), minval=-0.1, maxval=0.1)
    # Whether a part is there is the species' matter, and so is its family.
    fixed = jnp.zeros(PART_DRAWS).at[jnp.array([0, 1 + RANGES.index("chance")])].set(1.0)
    u = jnp.abs(shared + own * (1 - fixed))
    u = jnp.where(u > 1, 2 - u, u)
    rows = jnp.arange(count)[:, None]
    twin = jnp.asarray(tables.twin)[objects.kind]
    u = u[rows, twin]
    low, high = jnp.asarray(tables.low)[objects.kind], jnp.asarray(tables.high)[objects.kind]
    values = lerp(low, high, u[..., 1 : 1 + len(RANGES)])
    chance = RANGES.index("chance")
    values = values.at[..., chance].set(u[..., 1 + chance] < high[..., chance])
    drawn = {name: values[..., k] for k, name in enumerate(RANGES)}
    choice = jnp.floor(u[..., 0] * (CHOICES - 1e-3)).astype(jnp.int32)
    families = jnp.asarray(tables.families)[objects.kind]
    family = jnp.take_along_axis(families, choice[..., None], axis=-1)[..., 0]
    x, y, half_size, angle = placed_parts(drawn, jnp.asarray(tables.parent)[objects.kind])
    flip = objects.mirrored[:, None]
    x, angle = x * flip, jnp.where(flip < 0, jnp.pi - angle, angle)
    cosine, sine = jnp.cos(objects.angle)[:, None], jnp.sin(objects.angle)[:, None]
    center = jnp.stack([cosine * x - sine * y, sine * x + cosine * y], axis=-1)
    size = objects.size[:, None, None]
    angle = angle + objects.angle[:, None]
    direction = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    # Displacement is the object's: its parts move with it. Fine fields only little of it.
    # The last numbers of a body's table are those of its finest waves: any will do.
    amount = shared[:, 0, -len(WARP_CELLS) :] ** 3
    warp = amount * objects.size[:, None] * jnp.array([0.12, 0.05, 0.015])
    warp = jnp.where(objects.species[:, None] >= SPECIES, amount * 0.02, warp)
    outline = Outline(
        center=objects.center[:, None] + size * center,
        half_size=size * half_size,
        direction=direction,
        bend=drawn["bend"] * flip,
        taper=drawn["taper"],
        hole=jnp.maximum(drawn["hole"], 0.0),
        warp=jnp.broadcast_to(warp[:, None], (count, SLOTS, len(WARP_CELLS))),
    )
    return outline, drawn, family, u[..., 1 + len(RANGES) :]


def chosen_parts(
    present: Bool[Array, "objects slots"], limit: int
) -> tuple[Int[Array, " limit"], Int[Array, ""]]:
    """Numbers of the parts that are drawn, in order, and how many; no object is left half drawn."""
    ends = jnp.cumsum(present.sum(axis=1))
    kept = (present & (ends <= limit)[:, None]).reshape(-1)
    order = jnp.argsort(~kept, stable=True)[:limit]
    return order.astype(jnp.int32), kept.sum().astype(jnp.int32)


def draw_primitives(
    key: PRNGKeyArray,
    objects: Objects,
    tables: KindTables,
    limit: int,
    light_xy: Float[Array, " 2"],
    chances: Chances,
) -> Primitives:
    """Everything that is drawn in a scene, at most `limit` primitives."""
    outline_key, material_key, own_key = jax.random.split(key, 3)
    outline, drawn, family, numbers = draw_outlines(outline_key, objects, tables)
    parent = jnp.asarray(tables.parent)[objects.kind]
    rows = jnp.arange(parent.shape[0])[:, None]
    present = drawn["chance"] > 0
    for _ in range(2):
        present = present & present[rows, parent]
    present = present & objects.present[:, None]
    order, count = chosen_parts(present, limit)
    row, slot = order // SLOTS, order % SLOTS

    def pick(value):
        return value[row, slot]

    outline = Outline(*(pick(value) for value in outline))
    drawn = {name: pick(value) for name, value in drawn.items()}
    radius = jax.vmap(radius_table)(
        pick(family),
        drawn["exponent"],
        drawn["lobes"],
        drawn["depth"],
        drawn["roughness"],
        pick(numbers),
    )
    kind = objects.kind[row]
    part_of_part = jnp.asarray(tables.part_of_part)[kind, slot]
    u = jax.random.uniform(own_key, (SPECIES + BACKGROUND_OBJECTS, 8))
    own = u[objects.species[row]]
    background = row < BACKGROUND_OBJECTS
    inside = jnp.asarray(tables.inside)[kind, slot]
    size = objects.size[row]
    casts = (u[0, 0] < chances.shadow) & ~background & ~inside
    height = size * lerp(0.15, 0.8, own[:, 1] ** 1.5)
    shadow = jnp.stack(
        [
            -light_xy[0] * height,
            -light_xy[1] * height,
            lerp(0.08, 0.6, own[:, 2]),
            jnp.where(casts, lerp(0.4, 0.95, u[0, 3]), 0.0),
        ],
        axis=-1,
    )
    translucent = (own[:, 4] < chances.translucent) & ~background
    extent = outline.half_size.max(axis=-1) * radius.max(axis=-1)
    stretch = 1 + jnp.abs(outline.bend) + jnp.abs(outline.taper)
    soft = 1 + jnp.where(casts, shadow[:, 2], 0.0)
    reach = extent * stretch * soft + jnp.abs(shadow[:, :2]).max(axis=-1)
    reach = reach + 3.5 * outline.warp.sum(axis=-1)
    is_species = jnp.arange(SPECIES + BACKGROUND_OBJECTS) < SPECIES
    material = draw_materials(
        material_key,
        species=objects.species[row],
        slot=jnp.asarray(tables.twin)[kind, slot],
        paint=jnp.asarray(tables.paint)[kind, slot],
        object_index=row,
        backdrop=SPECIES,
        borrows=is_species & (u[:, 6] < chances.same_material),
        blends=is_species & (u[:, 7] < chances.low_contrast),
        objects=objects.kind.shape[0],
    )
    turned = jnp.where(background, 0.0, objects.angle[row])
    cosine, sine = jnp.cos(turned), jnp.sin(turned)
    turn = jnp.stack([cosine, sine, -sine, cosine], axis=-1).reshape(-1, 2, 2)
    # Small things have finer textures, though not in proportion.
    finer = jnp.where(background, 1.0, jnp.minimum((0.35 / size) ** 0.5, 2.5))
    material = material._replace(
        origin=objects.center[row],
        axes=finer[:, None, None] * jnp.einsum("nij,njk->nik", material.axes, turn),
        relief=drawn["relief"],
        edge=drawn["edge"],
        bulge=jnp.where(background, 0.0, 0.5 * jnp.maximum(drawn["relief"], 0)),
        recedes=jnp.stack([(row == 1) * (own[:, 0] < 0.6), objects.center[row, 1] - size], -1),
    )
    parent_number = row * SLOTS + jnp.asarray(tables.parent)[kind, slot]
    drawn_on = jnp.searchsorted(jnp.where(jnp.arange(limit) < count, order, 2**30), parent_number)
    return Primitives(
        outline=outline,
        radius=radius,
        reach=reach,
        material=material,
        object=row,
        part=row * SLOTS + jnp.asarray(tables.part)[kind, slot],
        part_of_part=jnp.where(part_of_part < 0, -1, row * SLOTS + part_of_part),
        drawn_on=jnp.where(inside, drawn_on, -1).astype(jnp.int32),
        shadow=shadow,
        softness=jnp.where(
            background, lerp(1.0, 6.0, own[:, 5] ** 4), lerp(1.0, 3.0, own[:, 5] ** 6)
        ),
        opacity=jnp.where(translucent, lerp(0.35, 0.8, own[:, 3]), 1.0),
        number=count,
    )
