"""What runs on the device: points to candidate masks, and what the filters want to know of them.

Shapes are few and fixed. Full-size logits exist for one candidate and one block of columns at a
time; what leaves the device for a mask is one bit a pixel, which says where its columns change
sides, so that runs are read off without looking at pixels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Float32, Int, UInt8

from sam_jax.inference import mesh_programs
from sam_jax.inference.decoding import decode_prompts
from sam_jax.models.families import Model
from sam_jax.models.features import ImageFeatures
from sam_jax.models.input_frame import InputFrame
from sam_jax.postprocess import mask_matrices
from sam_jax.sharding import ALL, over
from sam_jax.types import FEEDBACK_LIMIT, LABEL_FOREGROUND, ArrayLike, Params, Prompts

# Full-size logits of one candidate that exist at once.
BLOCK_PIXELS = 1 << 22
# Packed masks that wait on the device for the host, and how many there are at most.
PACKED_BYTES = 1 << 25
MAX_WAITING = 64


@struct.dataclass
class Measured:
    """What the filters want to know of K candidates or of one, in the frame of their crop.

    Attributes:
      high: pixels above the mask threshold plus the stability offset.
      low: pixels above it less the offset.
      area: pixels of the mask.
      boxes: x0 y0 x1 y1 of the mask's outermost pixels, all inside it; zeros for an empty mask.
      changes: packed, see `runs.runs_of_changes`.
    """

    high: Int[ArrayLike, "*K"]
    low: Int[ArrayLike, "*K"]
    area: Int[ArrayLike, "*K"]
    boxes: Int[ArrayLike, "*K 4"]
    changes: UInt8[ArrayLike, "*K columns_by_8 rows"]


@dataclass(frozen=True)
class Frame:
    """How low-resolution logits become masks of one crop, in shapes shared with like sizes.

    Attributes:
      rows: [padded height, low], see `postprocess.mask_matrices`; at least one row is padding.
      columns: [blocks, padded width / blocks, low].
      size_hw: the crop's height and width.
      capacity: candidates that a device measures in one call, at most.
      mesh: the devices that share the candidates, if there are more than one.
    """

    rows: jax.Array
    columns: jax.Array
    size_hw: tuple[int, int]
    capacity: int
    mesh: Mesh | None


@lru_cache(maxsize=8)
def crop_frame(
    size_hw: tuple[int, int],
    frame: InputFrame,
    low_res_size: int,
    mesh: Mesh | None = None,
) -> Frame:
    """The frame of crops of this size; crops of a layer, and images of a folder, share them."""
    unpadded = mask_matrices(size_hw, frame, low_res_size)
    height = _bucket(size_hw[0] + 1)
    width = _bucket(size_hw[1])
    blocks = -(-height * width // BLOCK_PIXELS)
    block = -(-width // (8 * blocks)) * 8
    padded_rows = np.zeros((height, low_res_size), np.float32)
    padded_rows[: size_hw[0]] = unpadded[0]
    padded_columns = np.zeros((blocks * block, low_res_size), np.float32)
    padded_columns[: size_hw[1]] = unpadded[1]
    one = height * blocks * block // 8
    capacity = 1 << int(np.log2(min(MAX_WAITING, max(1, PACKED_BYTES // one))))
    matrices = (padded_rows, padded_columns.reshape(blocks, block, low_res_size))
    everywhere = None if mesh is None else NamedSharding(mesh, P())
    rows, columns = jax.device_put(matrices, everywhere)
    return Frame(rows, columns, size_hw, capacity, mesh)


def _bucket(length: int) -> int:
    """The next of 8, 10, 12, 14 times a power of two: few shapes, at most a quarter too much."""
    step = 1 << max(3, (length - 1).bit_length() - 3)
    return -(-length // step) * step


@partial(jax.jit, static_argnames=("model", "mesh"))
def decode_points(
    model: Model,
    params: Params,
    features: ImageFeatures,
    points: Float32[Array, "P 2"],
    mesh: Mesh | None = None,
) -> tuple[Float[Array, "candidates low low"], Float[Array, " candidates"]]:
    """Three candidates for each point: logits and predicted IoU.

    Args:
      model: the architecture.
      params: its variables.
      features: of one image or crop.
      points: (x, y) in the model's frame.
      mesh: devices that share the points, which must be a multiple of them; features and the
        result lie on them.
    """
    labels = jnp.full((1, points.shape[0], 1), LABEL_FOREGROUND, jnp.int32)
    prompts = Prompts(points[None, :, None], labels)
    batch = jax.tree.map(lambda x: x[None], features)
    if mesh is None:
        logits, iou = decode_prompts(model, params, batch, prompts)
    else:
        logits, iou = mesh_programs.decode(model, mesh, params, batch, prompts)
    return logits.reshape(-1, *logits.shape[-2:]), iou.reshape(-1)


@partial(jax.jit, static_argnames=("model",))
def refine_candidates(
    model: Model,
    params: Params,
    features: ImageFeatures,
    points: Float32[Array, "P 2"],
    logits: Float[Array, "candidates low low"],
) -> tuple[Float[Array, "candidates low low"], Float[Array, " candidates"]]:
    """Each candidate decoded again, from its point and its own mask (SAM 2's `use_m2m`).

    Args:
      model: the architecture.
      params: its variables.
      features: of one image or crop.
      points: as for `decode_points`.
      logits: from there.
    """
    own = jnp.repeat(points, logits.shape[0] // points.shape[0], axis=0)
    labels = jnp.full((1, own.shape[0], 1), LABEL_FOREGROUND, jnp.int32)
    masks = jnp.clip(logits, -FEEDBACK_LIMIT, FEEDBACK_LIMIT)[None]
    prompts = Prompts(own[None, :, None], labels, masks=masks)
    batch = jax.tree.map(lambda x: x[None], features)
    refined, iou = decode_prompts(model, params, batch, prompts, False)
    return refined[0, :, 0], iou[0, :, 0]


def measure(
    logits: Float[Array, "candidates low low"],
    chosen: Int[np.ndarray, " chosen"],
    frame: Frame,
    mask_threshold: float,
    stability_offset: float,
) -> Iterator[tuple[Int[np.ndarray, " part"], Measured]]:
    """Measures some of the candidates at the crop's full size, as many at once as have room.

    Args:
      logits: from `decode_points`.
      chosen: which of them; with a mesh, in ascending order.
      frame: of the crop.
      mask_threshold: a pixel is inside where its logit is above.
      stability_offset: see `GenerateOptions.stability_score_offset`.

    Yields:
      Places in `chosen`, and what was measured of these candidates, on the host. Without a mesh the
      places are in order; of many devices, each measures what it decoded.
    """
    thresholds = np.array(
        [mask_threshold, mask_threshold + stability_offset, mask_threshold - stability_offset],
        np.float32,
    )
    size = np.array(frame.size_hw, np.int32)
    devices = 1 if frame.mesh is None else frame.mesh.size
    device, place = np.divmod(chosen, logits.shape[0] // devices)
    turn = np.arange(len(chosen)) - np.searchsorted(device, device)
    for start in range(0, turn.max(initial=-1) + 1, frame.capacity):
        now = np.flatnonzero((turn >= start) & (turn < start + frame.capacity))
        row = device[now] * frame.capacity + turn[now] - start
        places = np.zeros(devices * frame.capacity, np.int32)
        places[row] = place[now]
        counts = np.bincount(device[now], minlength=devices).astype(np.int32)
        small = (places, counts, size, thresholds)
        small = jax.device_put(small) if frame.mesh is None else small
        run = _measure if frame.mesh is None else _measure_over(frame.mesh)
        measured = run(logits, *small[:2], frame.rows, frame.columns, *small[2:])
        yield now, jax.tree.map(partial(_rows, row), jax.device_get(measured))


def _rows(row: Int[np.ndarray, " part"], values: np.ndarray) -> np.ndarray:
    return values[row]


@lru_cache(maxsize=8)
def _measure_over(mesh: Mesh) -> Callable[..., Measured]:
    specs = (P(ALL), P(ALL), P(ALL), P(), P(), P(), P())
    return jax.jit(over(mesh, _measure, specs, P(ALL)))


@jax.jit
def _measure(
    logits: Float[Array, "candidates low low"],
    chosen: Int[Array, " K"],
    count: Int[Array, " 1"],
    rows: Float[Array, "height low"],
    columns: Float[Array, "blocks block low"],
    size_hw: Int[Array, " 2"],
    thresholds: Float[Array, " 3"],
) -> Measured:
    capacity, height = chosen.shape[0], rows.shape[0]
    blocks, block, _ = columns.shape

    def one(i, measured: Measured) -> Measured:
        down = jnp.matmul(rows, logits[chosen[i]], precision=jax.lax.Precision.HIGHEST)
        places = jnp.arange(blocks * block, dtype=jnp.int32).reshape(blocks, block)
        found = jax.lax.map(
            lambda part: _measure_block(down, part[0], part[1], size_hw, thresholds),
            (columns, places),
        )
        changes, inside_x, inside_y, *sums = found
        area, high, low = (jnp.sum(one_sum, dtype=jnp.int32) for one_sum in sums)
        new = Measured(
            high,
            low,
            area,
            _box(inside_x.reshape(-1), jnp.any(inside_y, axis=0)),
            changes.reshape(blocks * block // 8, height),
        )
        return jax.tree.map(lambda all_, value: all_.at[i].set(value), measured, new)

    numbers = jnp.zeros(capacity, jnp.int32)
    empty = Measured(
        numbers,
        numbers,
        numbers,
        jnp.zeros((capacity, 4), jnp.int32),
        jnp.zeros((capacity, blocks * block // 8, height), jnp.uint8),
    )
    return jax.lax.fori_loop(0, count[0], one, empty)


def _measure_block(
    down: Float[Array, "height low"],
    columns: Float[Array, "block low"],
    places: Int[Array, " block"],
    size_hw: Int[Array, " 2"],
    thresholds: Float[Array, " 3"],
) -> tuple[Array, ...]:
    """Some columns of one candidate at full size, transposed: x before y, as RLE reads them."""
    full = jnp.matmul(columns, down.T, precision=jax.lax.Precision.HIGHEST)
    lines = jnp.arange(down.shape[0], dtype=jnp.int32)
    within = (places < size_hw[1])[:, None] & (lines < size_hw[0])[None]
    full = jnp.where(within, full, -jnp.inf)
    mask, high, low = (full > threshold for threshold in thresholds)
    changes = mask ^ jnp.pad(mask[:, :-1], ((0, 0), (1, 0)))
    # Eight columns a byte: whole rows of bytes are combined, never neighboring ones.
    bits = changes.reshape(-1, 8, changes.shape[1]).astype(jnp.uint8)
    weights = jnp.left_shift(jnp.uint8(1), jnp.arange(8, dtype=jnp.uint8))
    packed = jnp.sum(bits * weights[None, :, None], axis=1, dtype=jnp.uint8)
    sums = (jnp.sum(which, dtype=jnp.int32) for which in (mask, high, low))
    return packed, jnp.any(mask, axis=1), jnp.any(mask, axis=0), *sums


def _box(inside_x: Bool[Array, " width"], inside_y: Bool[Array, " height"]) -> Int[Array, " 4"]:
    """First and last True on each axis; zeros where there is none."""
    x0, y0 = jnp.argmax(inside_x), jnp.argmax(inside_y)
    x1 = inside_x.shape[0] - 1 - jnp.argmax(inside_x[::-1])
    y1 = inside_y.shape[0] - 1 - jnp.argmax(inside_y[::-1])
    return jnp.where(jnp.any(inside_x), jnp.array([x0, y0, x1, y1]), 0).astype(jnp.int32)
