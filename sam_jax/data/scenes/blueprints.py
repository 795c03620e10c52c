"""How kinds of objects are described: parts with ranges for whatever varies, as tables of numbers.

Kinds are data, so that the program that draws objects is one and the same whatever they are, and
what kind an object is can be drawn under a key too.
"""

from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

import numpy as np

from sam_jax.data.scenes.outlines import FAMILIES

Number = float | int
Range = tuple[Number, Number] | Number
# Parts an object can have, its body included.
SLOTS = 12
# A part may name this many families of outlines, one of which is drawn.
CHOICES = 3
PAINTS = ("same", "own", "dark", "pale")


@dataclass(frozen=True)
class Part:
    """A part of an object; a range (low, high) is drawn from uniformly, also with low > high.

    Places and sizes are relative to the parent: x and y in its half-sizes along its own axes,
    lengths in its mean radius. The body's parent is the object, a circle of radius 1. y points
    down, so that an angle of 90 degrees does.

    Attributes:
      name: unique in its kind.
      outline: families to choose from; see `outlines.radius_table` for the numbers that form them.
      length: half-size along the first axis, and `width` across it.
      angle: of the first axis, in degrees.
      relief: how far it stands out, for its shading: 0 flat, 1 a half-sphere.
      edge: 1 round all over; large where only the rim is.
      chance: how often it is there, if its parent is.
      inside: cut off at the parent's edge and painted on it, right after it. Otherwise it adds to
        the object; in front of what stands before it in the list, behind what follows.
      parent: a part's name; empty for the body's own parts.
      paint: the object's own material, one of its own, or a dark or pale one.
      twin: a part whose random numbers it shares: the other eye, wheel or ear.
    """

    name: str
    outline: tuple[str, ...] = ("ellipse",)
    x: Range = 0.0
    y: Range = 0.0
    length: Range = 1.0
    width: Range = 1.0
    angle: Range = 0.0
    bend: Range = 0.0
    taper: Range = 0.0
    hole: Range = 0.0
    exponent: Range = 2.0
    lobes: Range = 5.0
    depth: Range = 0.4
    roughness: Range = 0.0
    relief: Range = (0.2, 1.0)
    edge: Range = (1.0, 4.0)
    chance: Range = 1.0
    inside: bool = False
    parent: str = ""
    paint: Literal["same", "own", "dark", "pale"] = "same"
    twin: str = ""


@dataclass(frozen=True)
class Kind:
    """A kind of object: its parts in drawing order, one of them named "body".

    Attributes:
      name: what options call it.
      parts: at most `SLOTS`.
      tilt: how far it turns either way from upright, in degrees.
      size: range of the body's half-size, as a fraction of the frame's side.
      group: how readily it comes in numbers, relative to other kinds.
    """

    name: str
    parts: tuple[Part, ...]
    tilt: Number = 180.0
    size: tuple[Number, Number] = (0.05, 0.45)
    group: Number = 0.2


# What of a part is a range of numbers, in the order of the tables' last axis.
RANGES = tuple(
    field.name
    for field in fields(Part)
    if field.name not in ("name", "outline", "inside", "parent", "paint", "twin")
)


class KindTables(NamedTuple):
    """Kinds as arrays over [kinds, slots, ...]; empty slots have a chance of 0.

    Attributes:
      low, high: of each entry of `RANGES`.
      families: `CHOICES` indices into `outlines.FAMILIES`.
      parent: slot of the parent; the body's is its own.
      part: slot of the part of the body that a slot belongs to: itself, or the one it sits on.
      part_of_part: slot of the part of a part likewise; -1 for what is none.
      inside: whether it is cut off at its parent's edge.
      paint: index into `PAINTS`.
      twin: slot whose random numbers it takes.
      body: slot of the body, over [kinds].
      tilt, size, group: of kinds, over [kinds], [kinds, 2] and [kinds].
    """

    low: np.ndarray
    high: np.ndarray
    families: np.ndarray
    parent: np.ndarray
    part: np.ndarray
    part_of_part: np.ndarray
    inside: np.ndarray
    paint: np.ndarray
    twin: np.ndarray
    body: np.ndarray
    tilt: np.ndarray
    size: np.ndarray
    group: np.ndarray


def kind_tables(kinds: tuple[Kind, ...]) -> KindTables:
    """The tables of some kinds, in the order given."""
    shape = (len(kinds), SLOTS)
    slots = np.broadcast_to(np.arange(SLOTS), shape)
    tables = KindTables(
        low=np.ones((*shape, len(RANGES)), np.float32),
        high=np.ones((*shape, len(RANGES)), np.float32),
        families=np.zeros((*shape, CHOICES), np.int32),
        parent=slots.astype(np.int32),
        part=slots.astype(np.int32),
        part_of_part=np.full(shape, -1, np.int32),
        inside=np.zeros(shape, bool),
        paint=np.zeros(shape, np.int32),
        twin=slots.astype(np.int32),
        body=np.array([[part.name for part in kind.parts].index("body") for kind in kinds]),
        tilt=np.array([np.radians(kind.tilt) for kind in kinds], np.float32),
        size=np.array([kind.size for kind in kinds], np.float32),
        group=np.array([kind.group for kind in kinds], np.float32),
    )
    for array in (tables.low, tables.high):
        array[..., RANGES.index("chance")] = 0
    for row, kind in enumerate(kinds):
        names = [part.name for part in kind.parts]
        body = names.index("body")
        for slot, part in enumerate(kind.parts):
            ranges = [getattr(part, name) for name in RANGES]
            low, high = zip(*(r if isinstance(r, tuple) else (r, r) for r in ranges), strict=True)
            tables.low[row, slot], tables.high[row, slot] = low, high
            tables.families[row, slot] = np.resize(
                [FAMILIES.index(name) for name in part.outline], CHOICES
            )
            parent = names.index(part.parent or "body")
            tables.parent[row, slot] = parent
            tables.inside[row, slot] = part.inside
            tables.paint[row, slot] = PAINTS.index(part.paint)
            tables.twin[row, slot] = names.index(part.twin) if part.twin else slot
        for slot in range(len(names)):
            way = [slot]
            while way[-1] != body:
                way.append(int(tables.parent[row, way[-1]]))
            # From the body outwards: the body, a part, a part of that.
            way = way[::-1]
            tables.part[row, slot] = way[min(1, len(way) - 1)]
            if len(way) > 2:
                tables.part_of_part[row, slot] = way[2]
    return tables
