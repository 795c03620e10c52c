"""Images as the models' encoders take them: one image in NumPy, or a batch in JAX.

An encoder takes float32 [B, side, side, 3] in RGB order: (value - mean) / deviation of values from
0 to 255, with `config.pixel_mean` and `config.pixel_std`. SAM keeps an image's proportions and pads
it with zeros, the mean color, at the bottom and right; SAM 2 stretches it to the square.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Shaped, UInt8
from PIL import Image

from sam_jax.errors import InputError
from sam_jax.forks import refuse_forked
from sam_jax.models.config import ModelConfig
from sam_jax.models.input_frame import resized_hw
from sam_jax.ops.resample import antialiased_matrix
from sam_jax.pixel_numbers import FLOAT_SLACK


def resize_image(
    image: UInt8[np.ndarray, "height width 3"], image_size: int
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    """Scales the longest side to `image_size` with Pillow's antialiased bilinear filter."""
    height, width = resized_hw(image.shape[:2], image_size)
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.array(resized)


def prepare_image(
    image: UInt8[np.ndarray, "height width 3"], config: ModelConfig
) -> Float32[np.ndarray, "size size 3"]:
    """The encoder's input for one image, as the originals' image predictors make it.

    For SAM resized, normalized, then zero-padded at the bottom and right: the original's
    `ResizeLongestSide` followed by `Sam.preprocess`. Padding comes after normalizing, so that it
    holds the mean color. For SAM 2 stretched to the square, without rounding to eight bits, and
    normalized: its `SAM2Transforms`. `image[None]` is then a batch of one for
    `model.apply(params, images, method="encode_image")`.

    Args:
      image: as `read_image` gives it: uint8, RGB.
      config: the model's configuration (`segmenter.config`, `VIT_B`, ...): of either family.

    Raises:
      InputError: the image has another shape or type.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise InputError(
            f"prepare_image takes uint8 [height, width, 3], not {image.dtype} {image.shape}; "
            "read_image makes that of any image"
        )
    frame = config.frame
    if frame.fit == "stretch":
        return normalized(_stretched(image, frame.side), config)
    resized = resize_image(image, frame.side)
    height, width = resized.shape[:2]
    padded = np.zeros((frame.side, frame.side, 3), np.float32)
    padded[:height, :width] = normalized(resized, config)
    return padded


def normalized(pixels: Any, config: Any) -> Any:
    """RGB values from 0 to 255 as encoders take them: (value - mean) / deviation, float32.

    Args:
      pixels: [..., 3] of any type; a NumPy or a JAX array, and so is the result.
      config: whose `pixel_mean` and `pixel_std`; a model's or its frame.
    """
    xp = jnp if isinstance(pixels, jax.Array) else np
    shape = (1,) * (pixels.ndim - 1) + (3,)
    mean = xp.array(config.pixel_mean, xp.float32).reshape(shape)
    std = xp.array(config.pixel_std, xp.float32).reshape(shape)
    return (pixels.astype(xp.float32) - mean) / std


def prepare_images(
    images: Shaped[Array, "batch height width 3"] | Shaped[np.ndarray, "batch height width 3"],
    config: ModelConfig,
) -> Float32[Array, "batch size size 3"]:
    """The encoder's input for a batch of images of one size, in JAX: for `jit`, `vmap` and `grad`.

    `prepare_image` of each: for SAM to within one of 255 levels, as Pillow rounds between its two
    steps, whose order is its own; for SAM 2 to within 0.001. Floats are not rounded on the way, so
    that gradients pass. A size of images is a program of its own; `config` is static
    (`jax.jit(prepare_images, static_argnums=1)`).

    Args:
      images: RGB; uint8, or floats in [0, 1].
      config: the model's configuration, of either family.

    Raises:
      InputError: images of another shape or type, or floats outside [0, 1] (where values are known,
        that is not under `jit`).
    """
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
        raise InputError(
            f"prepare_images takes [batch, height, width, 3], not shape {tuple(images.shape)}"
        )
    floats = jnp.issubdtype(images.dtype, jnp.floating)
    if not floats and images.dtype != jnp.uint8:
        raise InputError(f"prepare_images takes uint8 or floats in [0, 1], not {images.dtype}")
    if floats and not isinstance(images, jax.core.Tracer):
        low, high = map(float, jax.device_get((images.min(), images.max())))
        if not (low >= -FLOAT_SLACK and high <= 1 + FLOAT_SLACK):
            raise InputError(
                f"prepare_images got floats from {low:g} to {high:g}; floats must lie in [0, 1], "
                "so divide by 255 or give uint8"
            )
    refuse_forked()
    if isinstance(images, np.ndarray):
        images = jax.device_put(images)
    return _prepared(images, config)


@partial(jax.jit, static_argnums=1)
def _prepared(
    images: Shaped[Array, "batch height width 3"], config: ModelConfig
) -> Float32[Array, "batch size size 3"]:
    floats = jnp.issubdtype(images.dtype, jnp.floating)
    frame, size_hw = config.frame, (images.shape[1], images.shape[2])
    side, (height, width) = frame.side, frame.image_hw(size_hw)
    values = jnp.asarray(images, jnp.float32) * (255 if floats else 1)
    # Pillow rounds SAM's bytes after each of the two steps; SAM 2 computes in floats.
    in_bytes = not floats and frame.fit == "pad"
    values = _resampled(values, 2, width, in_bytes)
    values = _resampled(values, 1, height, in_bytes)
    padding = ((0, 0), (0, side - height), (0, side - width), (0, 0))
    return jnp.pad(normalized(values, config), padding)


def _resampled(
    values: Float32[Array, "batch height width 3"], axis: int, size: int, in_bytes: bool
) -> Float32[Array, "batch new_height new_width 3"]:
    """One axis by Pillow's antialiased bilinear filter."""
    if values.shape[axis] == size:
        return values
    matrix = jnp.asarray(antialiased_matrix(values.shape[axis], size), jnp.float32)
    pattern = "yh,bhwc->bywc" if axis == 1 else "xw,bhwc->bhxc"
    out = jnp.einsum(pattern, matrix, values, precision=jax.lax.Precision.HIGHEST)
    return jnp.floor(out + 0.5) if in_bytes else out


def _stretched(
    image: UInt8[np.ndarray, "height width 3"], side: int
) -> Float32[np.ndarray, "side side 3"]:
    """An image as a square, by Pillow's antialiased bilinear filter on floating-point numbers."""
    channels = (Image.fromarray(image[..., i].astype(np.float32)) for i in range(3))
    resized = [one.resize((side, side), Image.Resampling.BILINEAR) for one in channels]
    return np.stack([np.asarray(one) for one in resized], axis=-1)
