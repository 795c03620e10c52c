"""A line chart of mean IoU over clicks, drawn with Pillow."""

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from sam_jax.formats.overlay import mask_color

SIZE = (810, 460)

# Drawn so much larger, then scaled down: soft edges.
_SUPERSAMPLING = 3
_LEFT, _TOP, _RIGHT, _BOTTOM = 70, 24, 240, 60
_INK, _GRID, _PAPER = (40, 42, 48), (222, 224, 228), (255, 255, 255)
_TEXT, _TICKS = 15, 5

_Number = int | float
_Point = tuple[_Number, _Number]


def clicks_chart(series: Mapping[str, Mapping[int, float]], clicks: Sequence[int]) -> Image.Image:
    """Draws lines of mean IoU, 0 to 1, over numbers of clicks.

    Args:
      series: the mean IoU by number of clicks, by name; a single value is a marker alone.
      clicks: the numbers on the axis.

    Returns:
      An RGB picture of `SIZE`.
    """
    width, height = SIZE
    picture = Image.new("RGB", (width * _SUPERSAMPLING, height * _SUPERSAMPLING), _PAPER)
    pen = _Pen(picture)
    first, last = min(clicks), max(clicks)

    def place(number: int, iou: _Number) -> _Point:
        across = (number - first) / (last - first) if last > first else 0.5
        x = _LEFT + across * (width - _LEFT - _RIGHT)
        return x, height - _BOTTOM - iou * (height - _TOP - _BOTTOM)

    for tick in range(_TICKS + 1):
        iou = tick / _TICKS
        level = place(first, iou)[1]
        pen.line([(_LEFT, level), (width - _RIGHT, level)], _GRID, 1)
        pen.text((_LEFT - 10, level), f"{iou:.1f}", "rm")
    pen.line([(_LEFT, _TOP), (_LEFT, height - _BOTTOM), (width - _RIGHT, height - _BOTTOM)])
    for number in clicks:
        x, y = place(number, 0)
        pen.line([(x, y), (x, y + 5)])
        pen.text((x, y + 10), str(number), "mt")
    pen.text(((_LEFT + width - _RIGHT) / 2, height - 14), "clicks", "mb")
    pen.upright_text((20, (_TOP + height - _BOTTOM) / 2), "mean IoU")
    for number, (name, values) in enumerate(series.items()):
        color = mask_color(number)
        line = [place(n, iou) for n, iou in sorted(values.items())]
        if len(line) > 1:
            pen.line(line, color, 2.5)
        for point in line:
            pen.dot(point, color)
        label = (width - _RIGHT + 24, _TOP + 10 + number * 24)
        pen.dot(label, color)
        pen.text((label[0] + 12, label[1]), name, "lm")
    return picture.resize(SIZE, Image.Resampling.LANCZOS)


class _Pen:
    """Draws in the final picture's pixels on the larger one."""

    def __init__(self, picture: Image.Image):
        self._picture, self._draw = picture, ImageDraw.Draw(picture)
        self._font = ImageFont.load_default(_TEXT * _SUPERSAMPLING)

    def line(self, points: Sequence[_Point], color=_INK, width: _Number = 1.5) -> None:
        self._draw.line(
            [self._larger(point) for point in points],
            color,
            round(width * _SUPERSAMPLING),
            joint="curve",
        )

    def dot(self, centre: _Point, color, radius: _Number = 4.5) -> None:
        self._draw.circle(self._larger(centre), radius * _SUPERSAMPLING, color)

    def text(self, at: _Point, text: str, anchor: str) -> None:
        self._draw.text(self._larger(at), text, _INK, self._font, anchor)

    def upright_text(self, centre: _Point, text: str) -> None:
        """Text from bottom to top, around a point."""
        left, top, right, bottom = self._font.getbbox(text)
        label = Image.new("L", (round(right - left), round(bottom - top)), 0)
        ImageDraw.Draw(label).text((-left, -top), text, 255, self._font)
        label = label.rotate(90, expand=True)
        x, y = self._larger(centre)
        corner = (round(x - label.width / 2), round(y - label.height / 2))
        self._picture.paste(_INK, corner, label)

    def _larger(self, point: _Point) -> _Point:
        return point[0] * _SUPERSAMPLING, point[1] * _SUPERSAMPLING
