"""The overlay: an image with its masks, prompts and scores drawn on it, for people to look at.

Line widths, markers and text are sized by the picture, so that it reads the same at 300 pixels and
at 4,000. Everything is drawn with soft edges.
"""

import colorsys
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Color = tuple[int, int, int]
Box = tuple[int, int, int, int]

# Beyond this a picture is for zooming, which the image itself with its mask files does better.
MAX_SIDE = 3072
# Smaller pictures are enlarged by a whole factor: a marker would cover all of them.
MIN_SIDE = 256

# Far apart from each other and from what photographs are made of; more are generated.
_COLORS: tuple[Color, ...] = (
    (20, 140, 255),
    (255, 120, 0),
    (225, 40, 200),
    (60, 210, 70),
    (250, 210, 0),
    (0, 205, 215),
    (140, 85, 255),
    (255, 65, 85),
)
_FOREGROUND: Color = (22, 180, 70)
_BACKGROUND: Color = (225, 35, 45)
_WHITE: Color = (255, 255, 255)
_INK: Color = (16, 18, 22)

_FILL = 0.45
_OUTSIDE = 0.82  # what is in no mask is darkened this much, so that masks stand out
_SUPERSAMPLING = 4


@dataclass(frozen=True)
class _Layer:
    """One mask in the picture's frame, cut to its box: coverage 0..255, and where it stands."""

    coverage: Image.Image
    left: int
    top: int
    area: float
    color: Color
    text: str


@dataclass(frozen=True)
class _Sizes:
    """Lengths in the picture's pixels."""

    line: float
    marker: float
    text: float

    @classmethod
    def of(cls, width: int, height: int, emphasis: float) -> "_Sizes":
        # The geometric mean: a panorama is neither as large as its width nor as small as its height
        side = math.sqrt(width * height) * emphasis
        return cls(line=max(2.0, side / 400), marker=max(5.0, side / 85), text=max(12.0, side / 42))


def mask_color(index: int) -> Color:
    """The RGB color of the mask with this index: a fixed list, then hues by the golden angle."""
    if index < len(_COLORS):
        return _COLORS[index]
    hue = (index * 0.618034) % 1
    value = (1.0, 0.8, 0.62)[index % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_overlay(
    image: UInt8[np.ndarray, "height width 3"],
    masks: Iterable[Bool[np.ndarray, "height width"]],
    *,
    texts: Sequence[str] = (),
    points: Float[np.ndarray, "points 2"] | None = None,
    labels: Int[np.ndarray, " points"] | None = None,
    boxes: Sequence[Any] | Float[np.ndarray, "boxes 4"] | None = None,
    emphasis: float = 1.0,
    max_side: int = MAX_SIDE,
) -> Image.Image:
    """Draws masks, prompts and scores on an image.

    Args:
      image: RGB.
      masks: in the image's frame; taken one at a time, so they may be made as they are drawn.
      texts: what to write beside each mask, such as its score; left out where there is no room.
      points: (x, y) in the image's pixels; drawn with a plus for foreground, else a minus.
      labels: 1 foreground, anything else background; all foreground if left out.
      boxes: x0 y0 x1 y1 in the image's pixels, each in the color of the mask of its index; None
        for a mask without one.
      emphasis: enlarges lines, markers and text, for a picture that will be shown small.
      max_side: larger images are scaled down to this; very small ones are enlarged.

    Returns:
      An RGB picture.
    """
    picture = _scaled(image, max_side)
    scale_xy = np.array(picture.size) / image.shape[1::-1]
    sizes = _Sizes.of(*picture.size, emphasis)
    layers = []
    for index, mask in enumerate(masks):
        text = texts[index] if index < len(texts) else ""
        layer = _layer(mask, picture.size, sizes, mask_color(index), text)
        if layer is not None:
            layers.append(layer)
    # Large ones first: a small mask inside a large one stays visible.
    layers.sort(key=lambda layer: -layer.area)
    picture = _darkened_outside(picture, layers)
    for layer in layers:
        _draw_layer(picture, layer, sizes)
    if boxes is not None:
        for index, box in enumerate(boxes):
            if box is not None:
                corners = np.asarray(box, float).reshape(2, 2) * scale_xy
                _draw_box(picture, corners, mask_color(index), sizes)
    taken: list[Box] = []
    if points is not None:
        for index, point in enumerate(points):
            foreground = labels is None or int(labels[index]) == 1
            centre = (point + 0.5) * scale_xy
            taken.append(_draw_marker(picture, centre, foreground, sizes))
    for layer in sorted(layers, key=lambda layer: layer.area):
        _draw_text(picture, layer, sizes, taken)
    return picture


def side_by_side(pictures: Sequence[Image.Image], *, max_side: int = MAX_SIDE) -> Image.Image:
    """Pictures of one size in a row, or in a column where they are much wider than high."""
    width, height = pictures[0].size
    in_column = width > 2.5 * height
    count = len(pictures)
    gap = max(2, round(math.sqrt(width * height) / 100))
    length = (height if in_column else width) * count + gap * (count - 1)
    scale = min(1.0, max_side / max(length, height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    gap = max(2, round(gap * scale))
    step = (0, size[1] + gap) if in_column else (size[0] + gap, 0)
    whole = (size[0] + step[0] * (count - 1), size[1] + step[1] * (count - 1))
    strip = Image.new("RGB", whole, _WHITE)
    for index, picture in enumerate(pictures):
        if picture.size != size:
            picture = picture.resize(size, Image.Resampling.LANCZOS)
        strip.paste(picture, (index * step[0], index * step[1]))
    return strip


def _scaled(image: UInt8[np.ndarray, "height width 3"], max_side: int) -> Image.Image:
    picture = Image.fromarray(image)
    longest = max(picture.size)
    if longest > max_side:
        width, height = (max(1, round(side * max_side / longest)) for side in picture.size)
        return picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    factor = -(-MIN_SIDE // longest) if longest < MIN_SIDE else 1
    return picture.resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
    )


def _layer(
    mask: Bool[np.ndarray, "height width"],
    size: tuple[int, int],
    sizes: _Sizes,
    color: Color,
    text: str,
) -> _Layer | None:
    """The mask at the picture's size, with room around it for its contour; None if it is empty."""
    coverage = Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0)))
    if coverage.size != size:
        coverage = coverage.resize(size, Image.Resampling.BOX)
    box = coverage.getbbox()
    if box is None:
        return None
    room = math.ceil(4 * sizes.line) + 1
    left, top = max(0, box[0] - room), max(0, box[1] - room)
    cut = coverage.crop((left, top, min(size[0], box[2] + room), min(size[1], box[3] + room)))
    return _Layer(cut, left, top, float(np.asarray(cut).sum() / 255), color, text)


def _darkened_outside(picture: Image.Image, layers: Sequence[_Layer]) -> Image.Image:
    if not layers:
        return picture
    inside = Image.new("L", picture.size, 0)
    for layer in layers:
        inside.paste(255, (layer.left, layer.top), layer.coverage)
    dark = picture.point([round(value * _OUTSIDE) for value in range(256)] * 3)
    return Image.composite(picture, dark, inside)


def _draw_layer(picture: Image.Image, layer: _Layer, sizes: _Sizes) -> None:
    """A translucent fill, a contour in the color itself, and a thin dark edge around that."""
    half = sizes.line / 2
    where = (layer.left, layer.top)
    fill = layer.coverage.point([round(value * _FILL) for value in range(256)])
    picture.paste(layer.color, where, fill)
    # Blurring an edge gives, near it, a picture of the distance from it: the normal distribution.
    # Just wide enough to tell distances in the bands below; thin objects vanish in a wider blur.
    blur = max(0.8, 0.6 * sizes.line)
    soft = layer.coverage.filter(ImageFilter.GaussianBlur(blur))
    distance = [blur * NormalDist().inv_cdf((v + 0.5) / 256) for v in range(256)]
    bands = [(_INK, 0.45, half + max(1.0, sizes.line / 2)), (layer.color, 1.0, half)]
    for color, opacity, reach in bands:
        band = [round(255 * opacity * min(1.0, max(0.0, reach + 0.5 - abs(d)))) for d in distance]
        picture.paste(color, where, soft.point(band))


def _draw_box(
    picture: Image.Image, corners: Float[np.ndarray, "2 2"], color: Color, sizes: _Sizes
) -> None:
    draw = ImageDraw.Draw(picture)
    line = max(2, round(sizes.line * 1.2))
    edge = max(1, round(sizes.line / 2))
    (x0, y0), (x1, y1) = np.round(corners).astype(int).tolist()
    x1, y1 = max(x0, x1 - 1), max(y0, y1 - 1)
    for grow, width, paint in ((edge, line + 2 * edge, _WHITE), (0, line, color)):
        draw.rectangle((x0 - grow, y0 - grow, x1 + grow, y1 + grow), outline=paint, width=width)


def _draw_marker(
    picture: Image.Image, centre: Float[np.ndarray, " 2"], foreground: bool, sizes: _Sizes
) -> Box:
    """A disc with a white ring and a plus or a minus; returns the box that it covers."""
    radius = sizes.marker
    ring, edge = radius * 1.28, radius * 1.42
    half = math.ceil(edge) + 1
    corner = np.floor(centre).astype(int) - half
    n = _SUPERSAMPLING
    tile = Image.new("RGBA", (2 * half * n, 2 * half * n), (*_INK, 0))
    draw = ImageDraw.Draw(tile)
    x, y = ((centre - corner) * n).tolist()
    color = _FOREGROUND if foreground else _BACKGROUND
    for reach, paint in ((edge, (*_INK, 150)), (ring, _WHITE), (radius, color)):
        r = reach * n
        draw.ellipse((x - r, y - r, x + r, y + r), fill=paint)
    arm, thick = radius * 0.56 * n, radius * 0.15 * n
    draw.rectangle((x - arm, y - thick, x + arm, y + thick), fill=_WHITE)
    if foreground:
        draw.rectangle((x - thick, y - arm, x + thick, y + arm), fill=_WHITE)
    tile = tile.resize((2 * half, 2 * half), Image.Resampling.BOX)
    left, top = corner.tolist()
    picture.paste(tile, (left, top), tile)
    return left, top, left + 2 * half, top + 2 * half


def _draw_text(
    picture: Image.Image,
    layer: _Layer,
    sizes: _Sizes,
    taken: list[Box],
) -> None:
    """Writes the text on a plate of the mask's color at the first free place near the mask."""
    if not layer.text:
        return
    font = ImageFont.load_default(round(sizes.text))
    x0, y0, x1, y1 = font.getbbox(layer.text)
    pad = sizes.text * 0.32
    width, height = math.ceil(x1 - x0 + 2 * pad), math.ceil(y1 - y0 + 2 * pad)
    where = _free_place(picture.size, layer, (width, height), sizes, taken)
    if where is None:
        return
    left, top = where
    n = _SUPERSAMPLING
    plate = Image.new("L", (width * n, height * n), 0)
    ImageDraw.Draw(plate).rounded_rectangle(
        (0, 0, width * n - 1, height * n - 1), radius=height * n * 0.24, fill=255
    )
    picture.paste(layer.color, (left, top), plate.resize((width, height), Image.Resampling.BOX))
    red, green, blue = layer.color
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > 135
    ink = _INK if bright else _WHITE
    position = (left + pad - x0, top + pad - y0)
    ImageDraw.Draw(picture).text(position, layer.text, fill=ink, font=font)
    taken.append((left, top, left + width, top + height))


def _free_place(
    picture_size: tuple[int, int],
    layer: _Layer,
    size: tuple[int, int],
    sizes: _Sizes,
    taken: Sequence[Box],
) -> tuple[int, int] | None:
    """The top left corner of a plate above, inside, below or beside the mask, off what is taken."""
    width, height = size
    if width > picture_size[0] or height > picture_size[1]:
        return None
    cut_right, cut_bottom = layer.left + layer.coverage.width, layer.top + layer.coverage.height
    # Above the mask's highest pixel, where the eye finds it, not at the corner of an empty box.
    columns = np.asarray(layer.coverage) > 127
    first_row = int(np.argmax(columns.any(axis=1)))
    highest = np.flatnonzero(columns[first_row])
    centre = (layer.left + cut_right) / 2
    middle = layer.left + float(np.median(highest)) if highest.size else centre
    gap = sizes.line
    places = [
        (middle - width / 2, layer.top + first_row - height - gap),
        (middle - width / 2, layer.top + first_row + 3 * gap),
        (layer.left, layer.top - height),
        (centre - width / 2, (layer.top + cut_bottom - height) / 2),
        (centre - width / 2, cut_bottom + gap),
        (cut_right - width, cut_bottom - height),
        (cut_right + gap, layer.top),
        (layer.left - width - gap, layer.top),
    ]
    limit_x, limit_y = picture_size[0] - width, picture_size[1] - height
    for x, y in places:
        left, top = round(min(max(x, 0), limit_x)), round(min(max(y, 0), limit_y))
        box = (left, top, left + width, top + height)
        if not any(_overlap(box, other) for other in taken):
            return left, top
    return None


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
