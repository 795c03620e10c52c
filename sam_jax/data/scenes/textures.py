"""Random textures: an atlas of tiles for the surfaces of one scene, and smooth fields.

Tiles are periodic with zero mean and unit standard deviation. Most are filtered noise: a power law
of random slope and anisotropy, as natural images have, or a band of frequencies, which gives
ripples, spots and stripes that are never quite regular. One has cells, one is laid out regularly.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

POWER_LAW_TILES = 4
BANDED_TILES = 2
TILES = POWER_LAW_TILES + BANDED_TILES + 2
CELLS = 40


def standardized(tile: Float[Array, "*tiles side side"]) -> Float[Array, "*tiles side side"]:
    """With zero mean and unit standard deviation."""
    tile = tile - tile.mean(axis=(-2, -1), keepdims=True)
    return tile / (tile.std(axis=(-2, -1), keepdims=True) + 1e-6)


def filtered_noise(key: PRNGKeyArray, side: int) -> Float[Array, "tiles side side"]:
    """Noise under random spectra: power laws first, then bands."""
    count = POWER_LAW_TILES + BANDED_TILES
    phase_key, spectrum_key = jax.random.split(key)
    u = jax.random.uniform(spectrum_key, (6, count, 1, 1))
    fy = jnp.fft.fftfreq(side)[:, None] * side
    fx = jnp.fft.rfftfreq(side)[None, :] * side
    cosine, sine = jnp.cos(jnp.pi * u[0]), jnp.sin(jnp.pi * u[0])
    stretch = 1 + 7 * u[1] ** 3
    frequency = jnp.sqrt(
        (cosine * fx + sine * fy) ** 2 + (stretch * (cosine * fy - sine * fx)) ** 2
    )
    slope = 0.9 + 1.1 * u[2]
    power = jnp.maximum(frequency, 1.0) ** -slope
    # Waves a tile; a narrow band of directions where the stretch is large.
    center = 4 * (side / 24) ** u[3]
    band = jnp.exp(-0.5 * ((frequency - center) / (center * (0.12 + 0.25 * u[4]))) ** 2)
    band = band + 0.03 * u[5] * power
    is_power = jnp.arange(count)[:, None, None] < POWER_LAW_TILES
    spectrum = jnp.where(is_power, power, band) * (fx + jnp.abs(fy) > 0)
    white = jnp.fft.rfft2(jax.random.normal(phase_key, (count, side, side)))
    return standardized(jnp.fft.irfft2(white * spectrum, s=(side, side)))


def cells(key: PRNGKeyArray, side: int) -> Float[Array, "side side"]:
    """Cells around random points: their own gray each, dark seams, or domes, in some mixture."""
    u = jax.random.uniform(key, (CELLS + 2, 3))
    points, grey = u[:CELLS, :2], u[:CELLS, 2]
    # Fewer points make larger cells.
    used = jnp.arange(CELLS) < 8 + (CELLS - 8) * u[CELLS, 0]
    grid = (jnp.arange(side) + 0.5) / side

    def nearest(carry, point):
        first, second, shade = carry
        (x, y), point_grey, is_used = point
        dx, dy = jnp.abs(grid - x), jnp.abs(grid - y)
        dx, dy = jnp.minimum(dx, 1 - dx), jnp.minimum(dy, 1 - dy)
        distance = jnp.where(is_used, dx[None, :] ** 2 + dy[:, None] ** 2, 9.0)
        shade = jnp.where(distance < first, point_grey, shade)
        second = jnp.minimum(second, jnp.maximum(first, distance))
        return (jnp.minimum(first, distance), second, shade), None

    far = jnp.full((side, side), 9.0)
    (first, second, shade), _ = jax.lax.scan(
        nearest, (far, far, jnp.zeros((side, side))), (points, grey, used)
    )
    first, second = jnp.sqrt(first), jnp.sqrt(second)
    seams = jnp.minimum((second - first) * 20, 1.0)
    weights = u[CELLS + 1] ** 3
    weights = weights / weights.sum()
    return standardized(4 * weights[0] * shade + 3 * weights[1] * seams - 9 * weights[2] * first)


def regular_pattern(key: PRNGKeyArray, side: int) -> Float[Array, "side side"]:
    """Stripes, checks, dots or bricks, a whole number of them a tile."""
    u = jax.random.uniform(key, (6,))
    grid = (jnp.arange(side) + 0.5) / side
    across = jnp.round(3 + 9 * u[0])
    down = jnp.round(3 + 9 * u[1])
    row = jnp.floor(grid * down)[:, None]
    x = grid[None, :] * across + jnp.where(u[5] < 0.5, 0.5 * (row % 2), 0.0)
    y = jnp.broadcast_to(grid[:, None] * down, (side, side))
    wave_x, wave_y = jnp.sin(2 * jnp.pi * x), jnp.sin(2 * jnp.pi * y)
    edge = jnp.minimum(jnp.abs(x % 1 - 0.5), jnp.abs(y % 1 - 0.5))
    joints = jnp.maximum(jnp.abs(x % 1 - 0.5), jnp.abs(y % 1 - 0.5))
    stripes = jnp.broadcast_to(wave_y, (side, side))
    patterns = jnp.stack(
        [stripes, wave_x * wave_y, wave_x + wave_y, jnp.minimum((0.5 - joints) * 8, 1), edge]
    )
    pattern = standardized(patterns[jnp.floor(5 * u[2]).astype(jnp.int32)])
    sharpness = 1 + 7 * u[3]
    return standardized(jnp.tanh(sharpness * pattern))


def texture_atlas(key: PRNGKeyArray, side: int) -> Float[Array, "tiles side side"]:
    """The tiles of one scene, `TILES` of them."""
    noise_key, cell_key, pattern_key = jax.random.split(key, 3)
    return jnp.concatenate(
        [
            filtered_noise(noise_key, side),
            cells(cell_key, side)[None],
            regular_pattern(pattern_key, side)[None],
        ]
    )


def sampled(
    atlas: Float[Array, "tiles side side"],
    tile: Int[Array, "*plane"],
    u: Float[Array, "*plane"],
    v: Float[Array, "*plane"],
) -> Float[Array, "*plane"]:
    """Bilinear values of a tile, repeated over the plane; one period is 1."""
    side = atlas.shape[-1]
    flat = atlas.reshape(-1)
    u, v = u * side, v * side
    u_low, v_low = jnp.floor(u), jnp.floor(v)
    u_part, v_part = u - u_low, v - v_low
    column, row = u_low.astype(jnp.int32) % side, v_low.astype(jnp.int32) % side
    next_column, next_row = (column + 1) % side, (row + 1) % side
    start = tile * side * side
    top = start + row * side
    bottom = start + next_row * side
    upper = flat[top + column] * (1 - u_part) + flat[top + next_column] * u_part
    lower = flat[bottom + column] * (1 - u_part) + flat[bottom + next_column] * u_part
    return upper * (1 - v_part) + lower * v_part


def spline_matrix(cells_across: int, points: int, side: int) -> np.ndarray:
    """Values at `side` places of a cubic B-spline over so many cells, from its control points."""
    position = (np.arange(side) + 0.5) / side * cells_across + 1
    distance = np.abs(position[:, None] - np.arange(points))
    near = 2 / 3 - distance**2 + distance**3 / 2
    return np.where(distance < 1, near, np.maximum(2 - distance, 0) ** 3 / 6).astype(np.float32)


def smooth_fields(
    key: PRNGKeyArray, cells_across: tuple[int, ...], channels: int, side: int
) -> Float[Array, "fields channels side side"]:
    """Noise without structure finer than a cell: small random grids, enlarged smoothly.

    Cubic splines have a continuous slope, so that edges moved by them are smooth.
    """
    points = max(cells_across) + 3
    grids = jax.random.normal(key, (len(cells_across), channels, points, points))
    weights = jnp.stack([jnp.asarray(spline_matrix(n, points, side)) for n in cells_across])
    # The spline halves the spread in two dimensions, roughly.
    return 2.0 * jnp.einsum("fyi,fcij,fxj->fcyx", weights, grids, weights)
