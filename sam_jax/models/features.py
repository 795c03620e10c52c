"""What image encoders return, in every family."""

import jax
from flax import struct
from jaxtyping import Array, Float

from sam_jax.one_line import one_line


@struct.dataclass
class ImageFeatures:
    """All that the image encoder says of an image, or of a batch of them.

    Attributes:
      embedding: what the decoder's transformer sees; at 1/16 of the resolution, a hybrid encoder's
        at 1/8.
      finer: at two and at four times the embedding's resolution, with a quarter and an eighth of
        its channels, for the decoder's upscaling; empty where the encoder has none.
    """

    embedding: Float[Array, "*B h w C"]
    finer: tuple[jax.Array, ...] = ()

    __repr__ = one_line


def in_blocks(
    x: Float[Array, "B H W C"], levels: int, dtype: jax.typing.DTypeLike
) -> Float[Array, "B 1 h w ..."]:
    """Pixels in the order in which the decoder's upscaling leaves them, for all prompts.

    Args:
      x: at 2 ** levels times the embedding's resolution.
      levels: how often the upscaling has doubled it.
      dtype: compute type.

    Returns:
      [B, 1, h, w, then 2, 2 (row and column) for each level, C].
    """
    batch, height, width, channel = x.shape
    rows, columns = height >> levels, width >> levels
    x = x.reshape(batch, 1, rows, *(2,) * levels, columns, *(2,) * levels, channel)
    row_axes = range(3, 3 + levels)
    column_axes = range(4 + levels, 4 + 2 * levels)
    pairs = [axis for pair in zip(row_axes, column_axes, strict=True) for axis in pair]
    return x.transpose(0, 1, 2, 3 + levels, *pairs, 4 + 2 * levels).astype(dtype)
