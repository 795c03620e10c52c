"""A contact sheet: each object as it was outlined, after one click, and from its box."""

from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw, ImageOps

from sam_jax.evaluate.clicks import centre_point
from sam_jax.evaluate.interactive import mask_iou, tight_box
from sam_jax.evaluate.selection import EvaluatedImage
from sam_jax.formats.overlay import draw_overlay

_PANEL = 220
_CAPTION = 16
_GAP = 6
_ACROSS = 3
# Of an object's longer side, what is shown around it.
_AROUND = 0.25

Mask = Bool[np.ndarray, "height width"]


class Sheet:
    """Takes images one by one; the most confident of three masks is shown."""

    def __init__(self) -> None:
        self._tiles: list[Image.Image] = []

    def add(self, image: EvaluatedImage, names: list[str]) -> None:
        """Prompts the image's segmenter, and draws what comes of it.

        Args:
          image: with its objects.
          names: of the objects.
        """
        for place, name in enumerate(names):
            truth = image.mask(place)
            point = np.array([centre_point(truth)], np.float32)
            box = tight_box(truth)
            of_click = _best(image, points=point[None], labels=np.ones((1, 1), np.int32))
            of_box = _best(image, boxes=box[None])
            part = _around(box, truth.shape)
            pixels, origin = image.pixels[part], np.array([part[1].start, part[0].start])
            shift = np.tile(origin, 2)
            panels = [
                draw_overlay(pixels, [truth[part]], emphasis=2.0),
                draw_overlay(pixels, [of_click[part]], points=point - origin, emphasis=2.0),
                draw_overlay(pixels, [of_box[part]], boxes=(box - shift)[None], emphasis=2.0),
            ]
            scores = f"click {mask_iou(of_click, truth):.2f}, box {mask_iou(of_box, truth):.2f}"
            self._tiles.append(_tile(panels, f"{image.name}: {name}, {scores}"))

    def picture(self) -> Image.Image:
        """All objects so far."""
        width, height = self._tiles[0].size
        down = -(-len(self._tiles) // _ACROSS)
        size = (_ACROSS * (width + _GAP), down * (height + _GAP))
        sheet = Image.new("RGB", size, "white")
        for number, tile in enumerate(self._tiles):
            row, column = divmod(number, _ACROSS)
            sheet.paste(tile, (column * (width + _GAP), row * (height + _GAP)))
        return sheet


def _best(image: EvaluatedImage, **prompt: Any) -> Mask:
    prediction = image.segmenter.predict(image.embedding, **prompt)
    return prediction.mask(0, int(np.argmax(prediction.scores[0])))


def _around(box: np.ndarray, size_hw: tuple[int, ...]) -> tuple[slice, slice]:
    margin = _AROUND * max(box[2] - box[0], box[3] - box[1]) + 4
    x0, y0 = np.maximum(box[:2] - margin, 0).astype(int).tolist()
    x1, y1 = np.minimum(box[2:] + margin + 1, size_hw[::-1]).astype(int).tolist()
    return np.s_[y0:y1, x0:x1]


def _tile(panels: list[Image.Image], caption: str) -> Image.Image:
    tile = Image.new("RGB", (len(panels) * _PANEL, _PANEL + _CAPTION), "white")
    for place, panel in enumerate(panels):
        tile.paste(ImageOps.pad(panel, (_PANEL, _PANEL), color="white"), (place * _PANEL, _CAPTION))
    ImageDraw.Draw(tile).text((2, 2), caption, fill="black")
    return tile
