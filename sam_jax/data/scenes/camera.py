"""What a camera and a file do to a picture: blur, noise, tone, lost pixels, JPEG."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

# The tables of the JPEG standard's annex K.1, for brightness and for color.
LUMINANCE_STEPS = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
CHROMINANCE_STEPS = np.full((8, 8), 99, np.float32)
CHROMINANCE_STEPS[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
# JFIF: rows are Y, Cb, Cr.
TO_YCBCR = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32
)
MOTION_TAPS = 7


class Camera(NamedTuple):
    """One camera's settings, all scalars.

    Attributes:
      blur: standard deviation of defocus, pixels.
      motion: x, y of the way the picture moves while the shutter is open, pixels.
      shrink: factor by which the picture was made smaller before it was enlarged again; 1 for none.
      shot_noise: standard deviation at full brightness, of noise that grows with its square root.
      read_noise: standard deviation of the noise of every pixel.
      noise_grain: 0 for noise of single pixels, 1 for noise smoothed as by demosaicing.
      gains: of the three colors.
      gamma: exponent of the tone curve that follows the square root.
      contrast: of an S-curve, 0 for none.
      sharpening: of edges, 0 for none.
      grey: whether color is dropped.
      jpeg_quality: 1 to 100; above 100 for no compression.
    """

    blur: Array
    motion: Array
    shrink: Array
    shot_noise: Array
    read_noise: Array
    noise_grain: Array
    gains: Array
    gamma: Array
    contrast: Array
    sharpening: Array
    grey: Array
    jpeg_quality: Array


def blur_matrix(side: int, sigma: Float[Array, ""]) -> Float[Array, "side side"]:
    """A Gaussian along one axis as a matrix; at the ends it weighs what there is."""
    position = jnp.arange(side, dtype=jnp.float32)
    distance = position[:, None] - position
    weights = jnp.exp(-0.5 * (distance / jnp.maximum(sigma, 0.1)) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)


def shrink_matrix(side: int, factor: Float[Array, ""]) -> Float[Array, "side side"]:
    """Antialiased reduction by a factor and linear enlargement, along one axis, as a matrix."""
    position = jnp.arange(side, dtype=jnp.float32)
    place = (position[:, None] + 0.5) * factor - 0.5 - position
    triangle = jnp.maximum(1 - jnp.abs(place), 0)
    # Rows beyond the reduced picture take no part.
    down = triangle.T * (position[:, None] < side * factor)
    down = down / jnp.maximum(down.sum(axis=1, keepdims=True), 1e-6)
    last = jnp.ceil(side * factor) - 1
    place = jnp.minimum((position[:, None] + 0.5) * factor - 0.5, last) - position
    up = jnp.maximum(1 - jnp.abs(place), 0)
    up = up / jnp.maximum(up.sum(axis=1, keepdims=True), 1e-6)
    return jnp.where(factor < 0.999, up @ down, jnp.eye(side))


def moved(image: Float[Array, "S S 3"], way: Float[Array, " 2"]) -> Float[Array, "S S 3"]:
    """Motion blur along a straight way that the picture's own place halves."""
    side, reach = image.shape[0], 16
    padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")

    def tap(total, step):
        start = jnp.round(reach + jnp.clip(way * step, -reach, reach)).astype(jnp.int32)
        return total + jax.lax.dynamic_slice(padded, (start[1], start[0], 0), image.shape), None

    steps = jnp.linspace(-0.5, 0.5, MOTION_TAPS)
    total, _ = jax.lax.scan(tap, jnp.zeros((side, side, 3)), steps)
    return total / MOTION_TAPS


def cosine_matrix() -> np.ndarray:
    """The orthonormal type-II cosine transform of 8 numbers."""
    order, place = np.mgrid[:8, :8]
    scale = np.where(order == 0, np.sqrt(1 / 8), np.sqrt(2 / 8))
    return (scale * np.cos((2 * place + 1) * order * np.pi / 16)).astype(np.float32)


def jpeg_steps(quality: Float[Array, ""]) -> Float[Array, "3 8 8"]:
    """Quantization steps of Y, Cb, Cr at a quality, by the rule of the IJG's library."""
    quality = jnp.round(quality)
    percent = jnp.where(quality < 50, jnp.floor(5000 / quality), 200 - 2 * quality)
    tables = jnp.stack([jnp.asarray(LUMINANCE_STEPS)] + 2 * [jnp.asarray(CHROMINANCE_STEPS)])
    return jnp.clip(jnp.floor((tables * percent + 50) / 100), 1, 255)


def jpeg(image: Float[Array, "S S 3"], quality: Float[Array, ""]) -> Float[Array, "S S 3"]:
    """What JPEG compression leaves of an image of 0 to 255: color halved, 8x8 blocks rounded.

    Args:
      image: RGB; the side is a multiple of 8.
      quality: 1 to 100, as IJG's library counts.
    """
    side = image.shape[0]
    colour = (
        jnp.einsum("yxc,dc->dyx", image, jnp.asarray(TO_YCBCR))
        - jnp.array([128.0, 0, 0])[:, None, None]
    )
    halved = colour[1:].reshape(2, side // 2, 2, side // 2, 2).mean(axis=(2, 4))
    halved = halved.repeat(2, axis=1).repeat(2, axis=2)
    colour = jnp.concatenate([colour[:1], halved])
    blocks = colour.reshape(3, side // 8, 8, side // 8, 8)
    cosine = jnp.asarray(cosine_matrix())
    waves = jnp.einsum("pi,cyixj,qj->cypxq", cosine, blocks, cosine)
    steps = jpeg_steps(quality)[:, None, :, None, :]
    waves = jnp.round(waves / steps) * steps
    blocks = jnp.einsum("pi,cypxq,qj->cyixj", cosine, waves, cosine)
    colour = blocks.reshape(3, side, side) + jnp.array([128.0, 0, 0])[:, None, None]
    return jnp.einsum("dyx,cd->yxc", colour, jnp.asarray(np.linalg.inv(TO_YCBCR)))


def photograph(
    key: PRNGKeyArray, radiance: Float[Array, "S S 3"], camera: Camera
) -> Float[Array, "S S 3"]:
    """A picture of 0 to 255 from linear light, where 1 is about white."""
    side = radiance.shape[0]
    blurred = jax.lax.cond(
        jnp.abs(camera.motion).max() > 0.5, moved, lambda image, _: image, radiance, camera.motion
    )
    along = shrink_matrix(side, camera.shrink) @ blur_matrix(side, camera.blur)
    blurred = jnp.einsum("yi,ijc,xj->yxc", along, blurred, along)
    noise = jax.random.normal(key, (side, side, 3))
    # Mostly of brightness: cameras smooth the noise of colors away.
    noise = 0.5 * noise + 0.5 * noise.sum(axis=-1, keepdims=True)
    neighbours = jnp.roll(noise, 1, 0) + jnp.roll(noise, 1, 1) + jnp.roll(noise, (1, 1), (0, 1))
    noise = noise + camera.noise_grain * neighbours
    spread = jnp.sqrt(camera.shot_noise**2 * jnp.maximum(blurred, 0) + camera.read_noise**2)
    light = jnp.maximum(blurred + spread * noise, 0) * camera.gains
    tone = jnp.sqrt(light) ** camera.gamma
    # Highlights roll off instead of ending at a wall.
    tone = jnp.where(tone > 0.8, 1 - 0.2 * jnp.exp(-(tone - 0.8) / 0.2), tone)
    tone = tone + camera.contrast * (tone * tone * (3 - 2 * tone) - tone)
    near = (jnp.roll(tone, 1, 0) + jnp.roll(tone, -1, 0) + jnp.roll(tone, 1, 1)) / 4
    near = near + jnp.roll(tone, -1, 1) / 4
    tone = jnp.clip(tone + camera.sharpening * (tone - near), 0, 1)
    brightness = (tone @ jnp.asarray(TO_YCBCR[0]))[..., None]
    picture = 255 * jnp.where(camera.grey, brightness, tone)
    compressed = jpeg(picture, jnp.minimum(camera.jpeg_quality, 100))
    return jnp.clip(jnp.where(camera.jpeg_quality > 100, picture, compressed), 0, 255)
