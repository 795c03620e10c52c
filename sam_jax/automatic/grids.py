"""Where the points stand, and how an image is cut into crops and tiles."""

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float64

from sam_jax.automatic.options import GenerateOptions

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Crop:
    """A part of the image that is encoded by itself: x0 y0 x1 y1 in pixels, and its layer."""

    box: Box
    layer: int

    @property
    def size_hw(self) -> tuple[int, int]:
        """Its height and width."""
        x0, y0, x1, y1 = self.box
        return y1 - y0, x1 - x0


def point_grid(points_per_side: int) -> Float64[np.ndarray, "n 2"]:
    """Points (x, y) from 0 to 1 in the middle of n by n equal cells, row by row."""
    offset = 1 / (2 * points_per_side)
    line = np.linspace(offset, 1 - offset, points_per_side)
    return np.stack([np.tile(line, points_per_side), np.repeat(line, points_per_side)], axis=-1)


def layer_points(options: GenerateOptions, layer: int) -> Float64[np.ndarray, "n 2"]:
    """The points of a crop layer, (x, y) from 0 to 1 of the crop."""
    if options.point_grids is not None:
        return options.point_grids[layer]
    assert options.points_per_side is not None  # one of the two is given
    factor = options.crop_n_points_downscale_factor
    return point_grid(int(options.points_per_side / factor**layer))


def image_crops(size_hw: tuple[int, int], options: GenerateOptions) -> list[Crop]:
    """The image itself and the crops of every layer, as the original cuts them; or the tiles.

    Layer i has 2^i crops a side. Neighbors overlap by `crop_overlap_ratio` of the short side,
    halved from layer to layer; crops at the right and bottom end with the image.
    """
    if options.tile_size is not None:
        return _tiles(size_hw, options.tile_size, options.tile_overlap)
    height, width = size_hw
    crops = [Crop((0, 0, width, height), 0)]
    for layer in range(1, options.crop_n_layers + 1):
        count = 2**layer
        overlap = int(options.crop_overlap_ratio * min(size_hw) * (2 / count))
        crop_width, crop_height = (
            math.ceil((overlap * (count - 1) + side) / count) for side in (width, height)
        )
        for i, j in product(range(count), repeat=2):
            x0, y0 = i * (crop_width - overlap), j * (crop_height - overlap)
            box = (x0, y0, min(x0 + crop_width, width), min(y0 + crop_height, height))
            # A sliver of an image has no pixel left for its last crops.
            if box[0] < box[2] and box[1] < box[3]:
                crops.append(Crop(box, layer))
    return crops


def _tiles(size_hw: tuple[int, int], tile_size: int, tile_overlap: float) -> list[Crop]:
    """Tiles of one size that cover the image and overlap at least so much, row by row."""
    step = max(1, tile_size - math.ceil(tile_size * tile_overlap))
    ys, xs = (_tile_starts(side, tile_size, step) for side in size_hw)
    height, width = size_hw
    return [
        Crop((x, y, min(x + tile_size, width), min(y + tile_size, height)), 0)
        for y, x in product(ys, xs)
    ]


def _tile_starts(side: int, tile_size: int, step: int) -> list[int]:
    """Spread evenly, so that the last tile is as large as the others."""
    room = max(0, side - tile_size)
    count = math.ceil(room / step) + 1
    return [round(room * i / max(1, count - 1)) for i in range(count)]
