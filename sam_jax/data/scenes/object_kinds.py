"""The kinds of objects that scenes are made of."""

from typing import Any

from sam_jax.data.scenes.blueprints import Kind, Part, Range

ANY = ("box", "polygon", "ellipse")


def spot(name: str, parent: str = "", **changes) -> Part:
    """A mark painted anywhere on its parent."""
    settings: dict[str, Any] = {
        "outline": ("ellipse", "polygon", "box"),
        "x": (-0.6, 0.6),
        "y": (-0.6, 0.6),
        "length": (0.1, 0.45),
        "width": (0.1, 0.35),
        "angle": (0, 180),
        "exponent": (1.0, 6.0),
        "lobes": (3, 7),
        "roughness": (0, 0.5),
        "chance": 0.5,
        "relief": (0, 0.5),
    }
    return Part(name, inside=True, parent=parent, paint="own", **{**settings, **changes})


def limb(name: str, **changes) -> Part:
    """Something long that sticks out of its parent."""
    settings: dict[str, Any] = {"outline": ("box",), "exponent": (2.0, 4.0), "taper": (-0.6, 0.2)}
    return Part(name, **{**settings, "edge": (1.0, 2.0), "relief": (0.4, 1.0), **changes})


def eye(
    name: str, parent: str, x: Range, y: Range, size: Range = (0.08, 0.2), twin: str = ""
) -> tuple[Part, ...]:
    """A pale disc with a dark one in it."""
    white = Part(
        name, x=x, y=y, length=size, width=size, inside=True, parent=parent, paint="pale", twin=twin
    )
    pupil: dict[str, Any] = {
        "length": (0.4, 0.9),
        "width": (0.4, 0.9),
        "relief": (0.5, 1.0),
        "paint": "dark",
    }
    return white, Part(f"{name} pupil", inside=True, parent=name, **pupil)


THING = Kind(
    "thing",
    (
        limb(
            "far limb",
            outline=("box", "polygon", "lens"),
            x=(-1.1, 1.1),
            y=(-1, -0.4),
            length=(0.3, 0.9),
            width=(0.1, 0.5),
            angle=(0, 180),
            bend=(-0.4, 0.4),
            chance=0.4,
            paint="own",
        ),
        Part(
            "body",
            outline=("ellipse", "box", "polygon"),
            width=(0.35, 1.0),
            bend=(-0.3, 0.3),
            taper=(-0.4, 0.4),
            exponent=(1.2, 6.0),
            lobes=(3, 9),
            depth=(0.0, 0.7),
            roughness=(0.0, 0.6),
            relief=(0.0, 1.0),
            edge=(1, 8),
        ),
        spot("patch", length=(0.3, 0.8), width=(0.3, 0.7), chance=0.6),
        spot("mark", parent="patch", chance=0.6, length=(0.15, 0.6), width=(0.1, 0.5)),
        spot("spot"),
        spot("second spot", chance=0.3),
        Part(
            "knob",
            outline=ANY,
            x=(0.7, 1.2),
            y=(-0.5, 0.5),
            length=(0.2, 0.7),
            width=(0.15, 0.6),
            angle=(-60, 60),
            exponent=(1.5, 6),
            lobes=(3, 8),
            roughness=(0, 0.4),
            chance=0.5,
            paint="own",
        ),
        spot("knob spot", parent="knob", chance=0.5, length=(0.2, 0.6), width=(0.2, 0.6)),
        limb(
            "limb",
            x=(-1.0, 1.0),
            y=(0.6, 1.2),
            length=(0.2, 0.8),
            width=(0.06, 0.3),
            angle=(40, 140),
            bend=(-0.4, 0.4),
            chance=0.4,
        ),
        limb(
            "second limb",
            x=(1.0, -1.0),
            y=(0.6, 1.2),
            length=(0.2, 0.8),
            width=(0.06, 0.3),
            angle=(140, 40),
            bend=(0.4, -0.4),
            chance=0.7,
            twin="limb",
        ),
    ),
)

BLOB = Kind(
    "blob",
    (
        Part("body", width=(0.5, 1.0), roughness=(0.2, 1.0), bend=(-0.5, 0.5), relief=(0, 1.0)),
        spot("spot", roughness=(0, 1.0)),
        spot("second spot", chance=0.4),
        spot("third spot", chance=0.4),
        spot("mark", parent="spot", chance=0.5, length=(0.2, 0.6), width=(0.2, 0.6)),
    ),
    group=0.5,
)

SHARD = Kind(
    "shard",
    (
        Part(
            "body",
            outline=("polygon",),
            width=(0.4, 1.0),
            lobes=(3, 9),
            depth=(0, 0.9),
            relief=(0, 0.6),
            edge=(3, 10),
        ),
        spot("face", outline=("polygon",), length=(0.4, 0.9), width=(0.4, 0.9)),
        spot("mark", parent="face", chance=0.4),
    ),
    group=0.5,
)

PANEL = Kind(
    "panel",
    (
        Part(
            "body",
            outline=("box",),
            width=(0.4, 1.0),
            exponent=(4, 14),
            taper=(-0.15, 0.15),
            relief=(0, 0.4),
            edge=(6, 14),
        ),
        Part(
            "screen",
            outline=("box",),
            x=(-0.1, 0.1),
            y=(-0.15, 0.05),
            length=(0.7, 1.1),
            width=(0.5, 0.95),
            exponent=(6, 14),
            inside=True,
            chance=0.7,
            paint="own",
            relief=(0, 0.2),
        ),
        spot("picture", parent="screen", chance=0.7, length=(0.2, 0.7), width=(0.2, 0.7)),
        spot("label", parent="screen", outline=("box",), angle=0, exponent=8, width=(0.06, 0.2)),
        Part("button", x=(-0.6, 0.6), y=0.85, length=0.1, width=0.1, inside=True, paint="own"),
        Part("stand", outline=("box",), y=1.1, length=0.25, width=0.3, chance=0.2, paint="own"),
    ),
    tilt=40,
)

COIN = Kind(
    "coin",
    (
        Part("body", width=(0.85, 1.0), relief=(0.1, 0.5), edge=(6, 14)),
        Part(
            "field",
            length=(0.75, 0.9),
            width=(0.75, 0.9),
            inside=True,
            relief=(-0.3, 0.3),
            edge=(8, 14),
            chance=0.7,
        ),
        Part(
            "emblem",
            outline=("ellipse", "polygon", "drop"),
            x=(-0.15, 0.15),
            y=(-0.15, 0.15),
            length=(0.3, 0.6),
            width=(0.25, 0.5),
            angle=(0, 180),
            roughness=(0.3, 1.0),
            relief=(0.3, 0.8),
            inside=True,
            chance=0.7,
        ),
    ),
    size=(0.04, 0.3),
    group=3.0,
)

FRUIT = Kind(
    "fruit",
    (
        limb("stem", x=1.05, length=(0.15, 0.4), width=0.06, angle=(-40, 40), chance=0.5),
        Part(
            "body",
            outline=("ellipse", "drop"),
            width=(0.7, 1.05),
            depth=(0.1, 0.6),
            angle=(-100, -80),
            roughness=(0, 0.25),
            relief=(0.7, 1.1),
            edge=(1.0, 1.6),
        ),
        spot("blemish", roughness=(0.2, 0.8), chance=0.35),
        spot("second blemish", chance=0.2),
        Part(
            "leaf",
            outline=("lens",),
            x=(0.9, 1.2),
            y=(-0.5, 0.5),
            length=(0.3, 0.6),
            width=(0.12, 0.3),
            angle=(-90, 90),
            bend=(-0.4, 0.4),
            chance=0.35,
            paint="own",
        ),
    ),
    size=(0.06, 0.35),
    group=2.0,
)

LEAF = Kind(
    "leaf",
    (
        limb("stalk", x=-1.1, length=(0.3, 0.7), width=(0.03, 0.07), bend=(-0.3, 0.3), chance=0.8),
        Part(
            "body",
            outline=("lens", "lens", "drop"),
            width=(0.25, 0.7),
            bend=(-0.35, 0.35),
            roughness=(0, 0.3),
            depth=(0.1, 0.5),
            relief=(0.0, 0.5),
        ),
        Part("rib", length=(1.2, 1.8), width=(0.02, 0.07), inside=True, chance=0.6, paint="own"),
        spot("spot", chance=0.3),
    ),
    group=2.0,
)

STROKE = Kind(
    "stroke",
    (
        Part(
            "body",
            outline=("box",),
            width=(0.03, 0.14),
            bend=(-0.7, 0.7),
            taper=(-0.5, 0.5),
            exponent=(2.0, 10.0),
            relief=(0.3, 1.0),
            edge=(1, 3),
        ),
        Part(
            "tip",
            outline=("box",),
            x=(0.75, 1.0),
            length=(0.4, 1.2),
            width=1.5,
            exponent=8,
            inside=True,
            chance=0.6,
            paint="own",
        ),
        Part("band", x=(-0.6, 0.4), length=(0.2, 0.7), width=2, inside=True, paint="own"),
    ),
    size=(0.12, 0.5),
    group=0.8,
)

RING = Kind(
    "ring",
    (
        Part(
            "body",
            outline=("ellipse", "ellipse", "box"),
            width=(0.5, 1.0),
            hole=(0.35, 0.85),
            exponent=(2, 6),
            roughness=(0, 0.2),
            relief=(0.3, 1.0),
            edge=(1, 3),
        ),
        spot("gem", x=0.9, y=0.0, chance=0.4, length=(0.2, 0.5), width=(0.2, 0.5)),
    ),
    size=(0.06, 0.4),
    group=0.8,
)

STAR = Kind(
    "star",
    (
        Part(
            "body",
            outline=("star",),
            lobes=(4, 12),
            depth=(0.2, 0.6),
            exponent=(1.0, 4.0),
            relief=(0, 0.8),
        ),
        Part("middle", length=(0.2, 0.5), width=(0.2, 0.5), inside=True, chance=0.6, paint="own"),
    ),
    group=1.0,
)

LEG: dict[str, Any] = {
    "y": (0.9, 1.15),
    "length": (0.45, 0.8),
    "width": (0.08, 0.2),
    "angle": (75, 105),
}
ANIMAL = Kind(
    "animal",
    (
        limb("far hind leg", x=(-0.75, -0.45), **LEG),
        limb("far fore leg", x=(0.4, 0.7), **LEG),
        limb(
            "tail",
            x=(-1.1, -0.95),
            y=(-0.5, 0.2),
            length=(0.3, 1.0),
            width=(0.05, 0.22),
            angle=(150, 240),
            bend=(-0.5, 0.5),
            chance=0.85,
        ),
        Part(
            "body",
            outline=("ellipse", "box"),
            width=(0.4, 0.75),
            exponent=(2.0, 3.0),
            bend=(-0.15, 0.15),
            roughness=(0, 0.25),
            relief=(0.5, 1.0),
            edge=(1, 2),
        ),
        spot("patch", chance=0.5, roughness=(0.2, 0.8)),
        limb("near hind leg", x=(-0.8, -0.5), **LEG),
        limb("near fore leg", x=(0.45, 0.75), twin="near hind leg", **LEG),
        Part(
            "ear",
            outline=("lens", "ellipse", "polygon"),
            x=(-0.7, -0.2),
            y=(-1.1, -0.7),
            length=(0.3, 0.6),
            width=(0.15, 0.3),
            angle=(50, 110),
            lobes=3,
            parent="head",
        ),
        Part(
            "head",
            outline=("ellipse", "drop"),
            x=(0.9, 1.3),
            y=(-1.1, -0.3),
            length=(0.4, 0.7),
            width=(0.3, 0.55),
            angle=(-20, 40),
            depth=(0.2, 0.5),
            relief=(0.6, 1.0),
            edge=(1, 2),
        ),
        *eye("eye", "head", (0.2, 0.4), (-0.4, -0.1)),
        spot("nose", parent="head", x=(0.85, 1.0), y=(0, 0.3), chance=0.7),
    ),
    tilt=20,
    size=(0.07, 0.32),
)

MUZZLE: dict[str, Any] = {"length": (0.3, 0.55), "width": (0.25, 0.5)}
PORTRAIT = Kind(
    "portrait",
    (
        Part(
            "shoulders",
            outline=("box", "ellipse"),
            x=(1.5, 1.9),
            length=(1.2, 1.9),
            width=(0.7, 1.1),
            angle=90,
            exponent=(2, 4),
            relief=(0.4, 0.9),
            chance=0.8,
        ),
        Part(
            "ear",
            outline=("lens", "ellipse", "polygon"),
            x=(-0.95, -0.6),
            y=(-0.9, -0.5),
            length=(0.3, 0.6),
            width=(0.2, 0.4),
            angle=(-170, -130),
            lobes=3,
        ),
        Part(
            "other ear",
            outline=("lens", "ellipse", "polygon"),
            x=(-0.95, -0.6),
            y=(0.9, 0.5),
            length=(0.3, 0.6),
            width=(0.2, 0.4),
            angle=(170, 130),
            lobes=3,
            twin="ear",
        ),
        Part(
            "body",
            outline=("ellipse", "box", "drop"),
            width=(0.75, 1.05),
            depth=(0.1, 0.3),
            angle=(80, 100),
            exponent=(2, 3.5),
            roughness=(0, 0.2),
            relief=(0.6, 1.0),
            edge=(1, 2),
        ),
        # The head's first axis points down.
        spot("fringe", x=(-1.0, -0.7), y=(-0.3, 0.3), length=(0.5, 0.8), width=(0.7, 1.1)),
        *eye("left eye", "body", (-0.3, -0.1), (0.35, 0.5), (0.1, 0.22)),
        *eye("right eye", "body", (-0.3, -0.1), (-0.35, -0.5), (0.1, 0.22), twin="left eye"),
        Part("muzzle", x=(0.3, 0.5), inside=True, paint="pale", chance=0.7, **MUZZLE),
        spot("nose", parent="muzzle", x=(-0.6, -0.2), y=0.0, chance=0.9, angle=90),
    ),
    tilt=25,
    size=(0.08, 0.33),
)

BIRD = Kind(
    "bird",
    (
        limb("leg", x=(-0.1, 0.2), y=(1.0, 1.3), length=(0.3, 0.6), width=0.05, angle=(70, 110)),
        Part(
            "tail",
            outline=("polygon", "lens"),
            x=(-1.4, -1.0),
            y=(-0.3, 0.4),
            length=(0.4, 0.9),
            width=(0.12, 0.3),
            angle=(-20, 20),
        ),
        Part(
            "beak",
            outline=("drop", "lens"),
            x=(1.4, 1.7),
            y=(-0.9, -0.5),
            length=(0.15, 0.4),
            width=(0.08, 0.14),
            depth=(0.3, 0.8),
            paint="own",
        ),
        Part(
            "body",
            outline=("drop", "ellipse"),
            width=(0.45, 0.7),
            depth=(0.1, 0.5),
            bend=(-0.2, 0.2),
            relief=(0.6, 1),
            edge=(1, 2),
        ),
        Part(
            "head",
            x=(0.85, 1.15),
            y=(-0.9, -0.5),
            length=(0.35, 0.55),
            width=(0.3, 0.5),
            relief=(0.6, 1.0),
            edge=(1, 2),
        ),
        *eye("eye", "head", (0.2, 0.4), (-0.3, 0.0), (0.12, 0.25)),
        Part(
            "wing",
            outline=("lens", "drop"),
            x=(-0.5, 0.0),
            y=(-0.3, 0.2),
            length=(0.6, 1.2),
            width=(0.25, 0.5),
            angle=(-30, 20),
            bend=(-0.2, 0.2),
            paint="own",
        ),
        spot("wing bar", parent="wing", chance=0.5, length=(0.2, 0.7), width=(0.1, 0.4)),
    ),
    tilt=40,
    size=(0.06, 0.3),
)

FISH = Kind(
    "fish",
    (
        Part(
            "tail",
            outline=("polygon", "lens", "star"),
            x=(-1.3, -1.0),
            length=(0.3, 0.55),
            width=(0.3, 0.7),
            lobes=3,
            paint="own",
        ),
        Part("fin", outline=("lens",), y=(-1.1, -0.8), length=(0.3, 0.7), width=(0.15, 0.4)),
        Part(
            "body",
            outline=("lens", "ellipse"),
            width=(0.3, 0.7),
            bend=(-0.2, 0.2),
            relief=(0.5, 1.0),
            edge=(1, 2),
        ),
        spot("stripe", x=(-0.4, 0.4), angle=(80, 100), length=(0.7, 1.4), width=(0.08, 0.25)),
        spot("second stripe", x=(-0.6, 0.2), angle=(80, 100), length=1.2, width=(0.08, 0.2)),
        *eye("eye", "body", (0.6, 0.75), (-0.3, 0.0), (0.08, 0.16)),
        spot("side fin", x=(0, 0.3), y=(0, 0.3), outline=("lens",), chance=0.6),
    ),
    tilt=60,
    group=1.0,
)

MUG = Kind(
    "mug",
    (
        Part(
            "handle",
            x=(0.95, 1.15),
            y=(-0.2, 0.2),
            length=(0.35, 0.6),
            width=(0.3, 0.6),
            hole=(0.5, 0.75),
            chance=0.7,
        ),
        Part("saucer", y=(0.9, 1.0), length=(1.3, 1.8), width=(0.2, 0.5), chance=0.4, paint="own"),
        Part(
            "body",
            outline=("box",),
            width=(0.8, 1.2),
            exponent=(3, 8),
            relief=(0.5, 1.0),
            edge=(1, 3),
        ),
        spot("print", y=(0.0, 0.5), chance=0.5),
        Part(
            "rim",
            y=(-1.0, -0.8),
            length=(0.92, 1.1),
            width=(0.15, 0.4),
            relief=(-0.3, 0.3),
            edge=8,
        ),
        Part(
            "drink",
            y=(0.0, 0.1),
            length=(1.3, 1.6),
            width=(0.35, 0.55),
            inside=True,
            parent="rim",
            paint="own",
            relief=0.0,
        ),
        spot("foam", parent="drink", chance=0.3),
    ),
    tilt=15,
    size=(0.06, 0.3),
    group=0.6,
)

BOTTLE = Kind(
    "bottle",
    (
        Part("neck", outline=("box",), x=(-1.5, -1.1), length=(0.5, 0.9), width=(0.15, 0.35)),
        Part(
            "cap",
            outline=("box",),
            x=(-1.1, -0.8),
            length=(0.25, 0.5),
            width=(0.7, 0.85),
            exponent=6,
            parent="neck",
            paint="own",
        ),
        Part(
            "body",
            outline=("box",),
            width=(0.3, 0.6),
            angle=(88, 92),
            exponent=(3, 8),
            taper=(-0.1, 0.3),
            relief=(0.6, 1.0),
            edge=(1, 2),
        ),
        Part(
            "label",
            outline=("box", "ellipse"),
            x=(-0.2, 0.3),
            length=(0.4, 0.8),
            width=(0.6, 1.3),
            exponent=12,
            inside=True,
            chance=0.8,
            paint="own",
        ),
        spot("emblem", parent="label", chance=0.8),
        spot("line", parent="label", outline=("box",), angle=90, length=(0.4, 0.7), width=0.08),
    ),
    tilt=25,
    size=(0.07, 0.33),
    group=0.6,
)

PANE: dict[str, Any] = {
    "outline": ("box",),
    "exponent": 10.0,
    "inside": True,
    "paint": "own",
    "relief": (-0.2, 0),
}
WINDOW: dict[str, Any] = {"length": (0.16, 0.24), "width": (0.16, 0.28), **PANE}
HOUSE = Kind(
    "house",
    (
        Part(
            "chimney", outline=("box",), x=(-0.6, 0.6), y=-1.5, length=0.12, width=0.4, exponent=9
        ),
        Part(
            "body",
            outline=("box",),
            width=(0.6, 1.3),
            exponent=14,
            relief=(0, 0.15),
            edge=12,
        ),
        Part("door", x=(-0.2, 0.2), y=(0.5, 0.7), **{**WINDOW, "width": (0.4, 0.5)}),
        Part("knob", x=0.7, length=0.1, width=0.1, parent="door", inside=True, paint="pale"),
        Part("window", x=-0.6, y=(-0.4, 0.1), **WINDOW),
        Part("bar", outline=("box",), length=1.5, width=0.1, parent="window", inside=True),
        Part("second window", x=0.6, y=(-0.4, 0.1), twin="window", **WINDOW),
        Part("third window", x=0.0, y=(-0.4, 0.1), twin="window", chance=0.6, **WINDOW),
        Part(
            "roof",
            outline=("polygon", "box"),
            y=(-1.3, -1.0),
            length=(0.4, 0.8),
            width=(1.2, 1.7),
            angle=90,
            lobes=3,
            depth=0.0,
            exponent=1.2,
            paint="own",
            relief=(0, 0.2),
        ),
    ),
    tilt=8,
    size=(0.06, 0.35),
    group=0.5,
)

TYRE: dict[str, Any] = {
    "length": (0.26, 0.4),
    "width": (0.26, 0.4),
    "y": (0.85, 1.0),
    "paint": "dark",
}
VEHICLE = Kind(
    "vehicle",
    (
        Part("cabin", outline=("box",), y=-1.0, length=(0.6, 0.9), width=(0.4, 0.7), exponent=4),
        Part("glass", length=(0.8, 0.9), width=(0.5, 0.6), parent="cabin", **PANE),
        Part("pillar", outline=("box",), length=0.05, width=1, parent="glass", inside=True),
        Part("body", outline=("box",), width=(0.3, 0.5), exponent=(4, 8)),
        spot("light", x=0.9, y=(-0.4, 0), chance=0.8),
        Part("wheel", x=(-0.65, -0.5), **TYRE),
        Part("hub", length=0.5, width=0.5, inside=True, parent="wheel", paint="pale"),
        Part("front wheel", x=(0.65, 0.5), twin="wheel", **TYRE),
        Part("front hub", length=0.5, width=0.5, inside=True, parent="front wheel", paint="pale"),
    ),
    tilt=12,
    size=(0.07, 0.32),
)

CROWN: dict[str, Any] = {"roughness": (0.3, 0.9), "relief": (0.4, 0.9), "paint": "own"}
TREE = Kind(
    "tree",
    (
        Part(
            "body",
            outline=("box",),
            width=(0.08, 0.2),
            angle=(85, 95),
            exponent=5,
            taper=(-0.1, 0.4),
            bend=(-0.2, 0.2),
        ),
        Part("crown", x=-1.2, length=(1.8, 2.8), width=(1.6, 2.6), **CROWN),
        spot("fruit", parent="crown", outline=("ellipse",), length=0.12, width=0.12),
        Part("lobe", x=-1.0, y=(-6, -2), length=(1, 1.8), width=(0.9, 1.6), **CROWN),
        Part("other lobe", x=-1.0, y=(6, 2), length=(1, 1.8), width=(0.9, 1.6), **CROWN),
    ),
    tilt=10,
    size=(0.08, 0.3),
    group=0.6,
)

FLOWER = Kind(
    "flower",
    (
        limb("stalk", y=(2.0, 2.5), length=(1.2, 1.8), width=0.07, angle=90, bend=(-0.2, 0.2)),
        Part(
            "leaf", outline=("lens",), x=0.4, y=2.4, length=0.6, width=0.2, angle=-30, paint="own"
        ),
        Part("body", outline=("star",), lobes=(5, 12), depth=(0.3, 0.6), exponent=(0.5, 1.2)),
        Part("heart", length=(0.2, 0.45), width=(0.2, 0.45), inside=True, paint="own"),
        Part("dot", length=0.4, width=0.4, inside=True, parent="heart", paint="dark", chance=0.5),
    ),
    tilt=40,
    size=(0.05, 0.25),
    group=1.5,
)

MUSHROOM = Kind(
    "mushroom",
    (
        Part(
            "body",
            outline=("box",),
            width=(0.2, 0.45),
            angle=90,
            exponent=3,
            bend=(-0.2, 0.2),
            taper=(0, 0.3),
        ),
        Part(
            "cap",
            outline=("ellipse", "drop", "polygon"),
            x=(-1.2, -0.9),
            length=(1.2, 2.0),
            width=(0.7, 1.2),
            angle=-90,
            depth=0.3,
            relief=(0.7, 1.0),
            paint="own",
        ),
        spot("spot", parent="cap", length=(0.15, 0.3), width=(0.15, 0.3)),
        spot("second spot", parent="cap", length=(0.15, 0.3), width=(0.15, 0.3)),
        spot("third spot", parent="cap", length=(0.15, 0.3), width=(0.15, 0.3)),
    ),
    tilt=20,
    size=(0.05, 0.25),
    group=1.0,
)

CELL = Kind(
    "cell",
    (
        Part(
            "body",
            width=(0.6, 1.0),
            roughness=(0, 0.5),
            bend=(-0.2, 0.2),
            relief=(-0.4, 0.5),
            edge=(4, 12),
        ),
        spot("nucleus", outline=("ellipse",), length=(0.25, 0.55), width=(0.25, 0.5), chance=0.85),
        spot("nucleolus", parent="nucleus", length=(0.15, 0.4), width=(0.15, 0.4), chance=0.5),
        spot("vacuole", outline=("ellipse",), chance=0.3),
    ),
    size=(0.04, 0.25),
    group=3.0,
)

TOOL = Kind(
    "tool",
    (
        Part(
            "head",
            outline=("ellipse", "box", "polygon"),
            x=(0.95, 1.15),
            length=(0.8, 1.8),
            width=(0.6, 1.4),
            angle=(0, 90),
            exponent=(2, 8),
            lobes=(3, 6),
            hole=(-1.0, 0.6),
            paint="own",
        ),
        Part(
            "body",
            outline=("box",),
            width=(0.07, 0.2),
            exponent=(2, 8),
            taper=(-0.4, 0.4),
            bend=(-0.2, 0.2),
        ),
        Part("grip", x=-0.6, length=(0.8, 1.6), width=2, inside=True, chance=0.6, paint="own"),
        Part("eyelet", x=-0.9, length=0.3, width=0.3, inside=True, chance=0.4, paint="dark"),
    ),
    size=(0.1, 0.4),
    group=0.5,
)

LAMP = Kind(
    "lamp",
    (
        Part("foot", x=2.2, length=(0.7, 1.1), width=(0.2, 0.4), angle=90, paint="own"),
        Part("stand", outline=("box",), x=1.4, length=0.9, width=0.07),
        Part(
            "body",
            outline=("box",),
            y=-0.6,
            width=(0.5, 0.9),
            angle=90,
            taper=(0.2, 0.5),
            exponent=8,
        ),
        spot("band", outline=("box",), angle=90, length=0.15, width=2),
    ),
    tilt=12,
    size=(0.06, 0.28),
)

WING: dict[str, Any] = {
    "outline": ("drop", "ellipse", "lens"),
    "width": (0.6, 1.1),
    "depth": (0.2, 0.6),
}
BUTTERFLY = Kind(
    "butterfly",
    (
        Part("wing", x=-0.4, y=-4, length=(1.2, 2), angle=(-140, -110), paint="own", **WING),
        Part("wing eye", x=0.4, length=0.3, width=0.3, parent="wing", inside=True, paint="dark"),
        Part("other wing", x=-0.4, y=4, length=(1.2, 2), angle=(140, 110), twin="wing", **WING),
        Part("hind wing", x=0.5, y=-3, length=(0.8, 1.4), angle=(-70, -40), paint="own", **WING),
        Part("other hind wing", x=0.5, y=3, length=(0.8, 1.4), angle=(70, 40), **WING),
        Part("body", outline=("box",), width=(0.1, 0.2), angle=90, relief=(0.6, 1.0)),
        Part("head", x=-1.1, length=0.35, width=0.35),
    ),
    size=(0.06, 0.25),
    group=0.8,
)

KINDS = (
    *(THING, BLOB, SHARD, PANEL, COIN, FRUIT, LEAF, STROKE, RING, STAR, ANIMAL, PORTRAIT, BIRD),
    *(FISH, MUG, BOTTLE, HOUSE, VEHICLE, TREE, FLOWER, MUSHROOM, CELL, TOOL, LAMP, BUTTERFLY),
)
KIND_NAMES = tuple(kind.name for kind in KINDS)
# Kinds that training never sees, to tell what it learned of objects as such: one simple outline,
# one with a stalk, one with wheels, one symmetric, one thin.
HELD_OUT_KINDS = ("star", "flower", "vehicle", "butterfly", "lamp")
TRAINING_KINDS = tuple(name for name in KIND_NAMES if name not in HELD_OUT_KINDS)

# What fills the picture behind the objects: everything, below a horizon, beside an edge.
BACKGROUNDS = (
    Kind("backdrop", (Part("body", outline=("box",), exponent=20.0, relief=0.0),)),
    Kind(
        "ground",
        (Part("body", outline=("box",), exponent=20.0, relief=(0, 0.05), edge=14.0),),
        tilt=6,
    ),
    Kind(
        "side",
        (Part("body", outline=("box",), exponent=20.0, relief=(0, 0.05), edge=14.0),),
        tilt=30,
    ),
)
