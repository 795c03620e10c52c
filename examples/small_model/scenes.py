"""Scenes of textured, shaded, overlapping shapes, drawn by seed: pictures that come with masks."""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage


class Scene(NamedTuple):
    """One picture and what can be segmented in it."""

    image: np.ndarray  # uint8 [size, size, 3]
    masks: np.ndarray  # bool [objects, size / 2, size / 2]: visible objects, parts and backgrounds
    size_hw: tuple[int, int]  # the rest of the square is padding


@lru_cache
def noise_bank() -> Float[np.ndarray, "48 384 384"]:
    """Fields of 1/f noise, from rough to smooth; every texture is cut from one of them."""
    rng, side = np.random.default_rng(0), 384
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1.0
    fields = []
    for exponent in np.linspace(0.4, 2.6, 48):
        spectrum = np.fft.rfft2(rng.normal(size=(side, side))) / frequency**exponent
        spectrum[0, 0] = 0.0
        field = np.fft.irfft2(spectrum, (side, side))
        fields.append((field / field.std()).astype(np.float32))
    return np.stack(fields)


@lru_cache
def pixel_grid(size: int) -> Float[np.ndarray, "2 {size} {size}"]:
    """X and y of every pixel's centre, from 0 to 1."""
    line = (np.arange(size, dtype=np.float32) + 0.5) / size
    return np.stack(np.broadcast_arrays(line[None, :], line[:, None]))


def cut_noise(
    rng: np.random.Generator, size: int, smooth: bool = False
) -> Float[np.ndarray, "{size} {size}"]:
    """A random piece of a random noise field."""
    bank = noise_bank()
    field = bank[rng.integers(len(bank) - 10, len(bank)) if smooth else rng.integers(len(bank))]
    y, x = rng.integers(0, field.shape[0] - size + 1, 2)
    piece = field[y : y + size, x : x + size]
    return piece.T if rng.random() < 0.5 else piece


def draw_surface(rng: np.random.Generator, size: int) -> Float[np.ndarray, "{size} {size} 3"]:
    """A colour with texture and shading, filling the whole picture."""
    x, y = pixel_grid(size)
    base = rng.uniform(0.03, 0.97) + rng.normal(0, rng.choice([0.03, 0.12, 0.3]), 3)
    contrast = rng.choice([0.02, 0.06, 0.15, 0.3], p=[0.35, 0.35, 0.2, 0.1])
    other = base + contrast * (rng.choice([-1.0, 1.0]) + 0.5 * rng.normal(size=3))
    pattern = cut_noise(rng, size)
    angle, kind = rng.uniform(0, 2 * np.pi), rng.random()
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if kind < 0.25:
        wave = np.sin(rng.uniform(15, 120) * along + rng.uniform(0, 2) * pattern)
        pattern = np.sign(wave) if rng.random() < 0.3 else wave
        if kind < 0.1:
            pattern = pattern * np.sin(rng.uniform(15, 120) * across)
    shade = 1.0 + rng.uniform(-0.7, 0.7) * (along - along.mean())
    return ((base + (other - base) * pattern[..., None]) * shade[..., None]).astype(np.float32)


def draw_shape(
    rng: np.random.Generator, size: int, centre_xy: np.ndarray, radius: float
) -> Bool[np.ndarray, "{size} {size}"]:
    """An ellipse, bar, polygon, ring, blob, stroke or letter, or two of them joined."""
    x, y = pixel_grid(size)
    angle, aspect = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 1.0)
    if rng.random() < 0.35:
        angle = rng.normal(0, 0.05)
    dx, dy = (x - centre_xy[0]) / radius, (y - centre_xy[1]) / radius
    u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    v = v / aspect
    kind = rng.choice(8, p=[0.24, 0.1, 0.18, 0.08, 0.18, 0.1, 0.05, 0.07])
    if kind == 0:  # superellipse: diamond, ellipse, rounded rectangle
        power = rng.choice([1.2, 2.0, 2.0, 3.0, 8.0])
        mask = np.abs(u) ** power + np.abs(v) ** power < 1
    elif kind == 1:  # bar
        mask = (np.abs(u) < 1.2) & (np.abs(v) < rng.uniform(0.06, 0.3) / aspect)
    elif kind == 2:  # convex polygon, as half-planes
        corners = rng.integers(3, 8)
        turn = (np.arange(corners) + rng.uniform(-0.25, 0.25, corners)) * 2 * np.pi / corners
        distances = rng.uniform(0.6, 1.0, corners)
        mask = np.ones((size, size), bool)
        for a, d in zip(turn, distances, strict=True):
            mask &= u * np.cos(a) + v * np.sin(a) < d
    elif kind == 3:  # ring
        distance = np.sqrt(u * u + v * v)
        mask = (distance < 1) & (distance > rng.uniform(0.4, 0.85))
    elif kind == 4:  # Fourier contour
        theta, contour = np.arctan2(v, u), 0.75
        for k in range(1, 6):
            contour = contour + rng.normal(0, 0.22 / k) * np.cos(k * theta + rng.uniform(0, 6.3))
        mask = u * u + v * v < contour * np.abs(contour)
    elif kind == 5:  # ragged blob
        mask = u * u + v * v + 0.45 * cut_noise(rng, size, smooth=True) < 0.8
    else:
        mask = _draw_with_pillow(rng, size, centre_xy, radius, letter=kind == 6)
    if rng.random() < 0.15 and radius > 0.06:
        shift = rng.uniform(-1, 1, 2) * radius
        other = draw_shape(rng, size, centre_xy + shift, radius * rng.uniform(0.3, 0.8))
        mask = mask | other if rng.random() < 0.7 else mask & ~other
    return mask


def _draw_with_pillow(rng, size, centre_xy, radius, letter):
    canvas = Image.new("L", (size, size))
    draw = ImageDraw.Draw(canvas)
    if letter:
        font = ImageFont.load_default(max(8, 2.5 * radius * size))
        text = "".join(rng.choice(list("ABCDEFGHKMNPRSTUXYZ0235689&?"), rng.integers(1, 3)))
        draw.text(tuple(centre_xy * size), text, 255, font, anchor="mm")
    else:
        path = centre_xy + np.cumsum(rng.normal(0, 0.6, (5, 2)), axis=0) * radius
        width = int(max(2, rng.uniform(0.1, 0.4) * radius * size))
        draw.line([tuple(p) for p in path * size], 255, width, joint="curve")
    return np.asarray(canvas) > 127


def draw_scene(seed: tuple[int, ...], size: int) -> Scene:
    """The scene that belongs to a seed; it holds at least one mask."""
    rng = np.random.default_rng(seed)
    short = size if rng.random() < 0.4 else int(size * rng.uniform(0.5, 1.0))
    size_hw = (short, size) if rng.random() < 0.7 else (size, short)
    extent = np.array(size_hw[::-1]) / size
    image = draw_surface(rng, size)
    owner = np.zeros((size, size), np.int16)  # which object shows
    part = np.zeros((size, size), np.int16)  # which part of it
    for i in range(1, rng.integers(0, 3) + 1):  # regions of the background
        x, y = pixel_grid(size)
        angle, bend = rng.uniform(0, 2 * np.pi), rng.choice([0.0, 0.02, 0.15])
        line = (x - extent[0] * rng.random()) * np.cos(angle)
        line += (y - extent[1] * rng.random()) * np.sin(angle)
        region = line + bend * cut_noise(rng, size, smooth=True) < 0
        image = np.where(region[..., None], draw_surface(rng, size), image)
        owner[region] = i
    alike = rng.random() < 0.25  # a shelf of similar things
    shape_seed, count = rng.integers(1 << 30), rng.integers(1, 13 if alike else 10)
    scale = np.exp(rng.uniform(np.log(0.04), np.log(0.2)))
    for i in range(3, count + 3):
        radius = np.exp(rng.uniform(np.log(0.03), np.log(0.42)))
        shape_rng = rng
        if alike:
            radius, shape_rng = scale * rng.uniform(0.85, 1.15), np.random.default_rng(shape_seed)
        centre = rng.random(2) * extent
        mask = draw_shape(shape_rng, size, centre, radius)
        image = paint(rng, image, mask, centre, radius)
        owner[mask], part[mask] = i, 0
        for j in range(rng.choice(3, p=[0.5, 0.3, 0.2]) if radius > 0.08 else 0):
            inner = centre + rng.uniform(-0.5, 0.5, 2) * radius
            size_ratio = rng.uniform(0.15, 0.5)
            piece = mask & draw_shape(rng, size, inner, radius * size_ratio)
            image = paint(rng, image, piece, inner, radius * size_ratio, shadow=False)
            part[piece] = 100 + 10 * i + j
    valid = np.zeros((size, size), bool)
    valid[: size_hw[0], : size_hw[1]] = True
    found = [owner == i for i in range(count + 3)] + [part == j for j in np.unique(part) if j]
    masks = np.stack(found) & valid
    masks = masks.reshape(len(masks), size // 2, 2, size // 2, 2).sum((2, 4)) >= 2
    area = masks.sum((1, 2)) / (size_hw[0] * size_hw[1] / 4)
    kept = masks[(area > 0.0025) & (area < 0.9)]
    if not len(kept):
        return draw_scene((*seed, 1), size)
    return Scene(photograph(rng, image), kept, size_hw)


def paint(rng, image, mask, centre_xy, radius, shadow=True):
    """Lays a surface over the image where the mask is, with a soft edge, shading and shadow."""
    size = len(mask)
    x, y = pixel_grid(size)
    surface = draw_surface(rng, size)
    if rng.random() < 0.4:  # a rounded thing, lit from a side
        light = centre_xy + rng.uniform(-0.6, 0.6, 2) * radius
        distance = ((x - light[0]) ** 2 + (y - light[1]) ** 2) / radius**2
        surface = surface * (1.25 - rng.uniform(0.1, 0.6) * np.minimum(distance, 2))[..., None]
    if rng.random() < 0.15:  # nearly what lies behind it
        surface = 0.35 * surface + 0.65 * image[mask].mean(0) if mask.any() else surface
    if shadow and rng.random() < 0.4:
        shift = np.round(rng.normal(0, 0.15, 2) * radius * size).astype(int)
        dark = np.roll(mask, tuple(shift), (0, 1)).astype(np.float32)
        dark = ndimage.uniform_filter(dark, max(3, int(rng.uniform(0.05, 0.4) * radius * size)))
        image = image * (1 - rng.uniform(0.2, 0.7) * dark)[..., None]
    alpha = ndimage.uniform_filter(mask.astype(np.float32), 3)
    alpha = np.where(mask, np.maximum(alpha, 0.6), np.minimum(alpha, 0.4))[..., None]
    return image + alpha * (surface - image)


def photograph(rng, image):
    """The camera: light, exposure, lens blur and sensor noise; uint8."""
    size = len(image)
    light = 1 + rng.choice([0.0, 0.1, 0.25]) * cut_noise(rng, size, smooth=True)
    image = image * np.maximum(light, 0.2)[..., None] * rng.uniform(0.6, 1.3)
    if rng.random() < 0.05:
        image = np.repeat(image.mean(-1, keepdims=True), 3, -1)
    if rng.random() < 0.5:
        image = ndimage.gaussian_filter(image, (*[rng.uniform(0.3, 1.0)] * 2, 0))
    image = image + rng.normal(0, 1, image.shape) * rng.choice([0.0, 0.01, 0.04])
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


class Batch(NamedTuple):
    """What one update sees; S is the side of the images."""

    images: Any  # uint8 [B, S, S, 3]
    size_hw: Any  # int32 [B, 2]
    masks: Any  # bool [B, P, S / 2, S / 2]


def draw_batch(seed: int, step: int, batch: int, prompts: int, size: int) -> Batch:
    """Scenes with `prompts` of their masks each; the same for the same arguments, anywhere."""
    scenes = [draw_scene((seed, step, i), size) for i in range(batch)]
    rng = np.random.default_rng((seed, step))
    masks = [
        scene.masks[rng.permutation(np.resize(rng.permutation(len(scene.masks)), prompts))]
        for scene in scenes
    ]
    images = np.stack([scene.image for scene in scenes])
    return Batch(images, np.array([s.size_hw for s in scenes], np.int32), np.stack(masks))
