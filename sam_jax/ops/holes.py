"""Small holes of masks."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# A filled pixel's logit, as in the original of SAM 2.
FILLED = 0.1


def fill_small_holes(
    logits: Float[Array, "height width"], area: int
) -> Float[Array, "height width"]:
    """A mask's logits with the small components of its background, with diagonals, made part of it.

    Labels spread from pixel to pixel, no further than a component of `area` pixels can reach. What
    they have not settled by then is larger.

    Args:
      logits: above 0 inside.
      area: of the largest hole that is filled, in pixels; static. 0 fills none.
    """
    if area == 0:
        return logits
    height, width = logits.shape
    outside = logits <= 0
    nothing = height * width
    places = jnp.arange(nothing, dtype=jnp.int32).reshape(height, width)
    labels = jnp.where(outside, places, nothing)

    def least_around(x):
        least = np.int32(-nothing)
        return -jax.lax.reduce_window(-x, least, jax.lax.max, (3, 3), (1, 1), ((1, 1), (1, 1)))

    def spread(_, labels):
        return jnp.where(outside, least_around(labels), nothing)

    labels = jax.lax.fori_loop(0, area, spread, labels)
    sizes = jnp.zeros(nothing + 1, jnp.int32).at[labels.ravel()].add(1)
    unsettled = outside & (least_around(labels) != labels)
    grows = jnp.zeros(nothing + 1, bool).at[labels.ravel()].max(unsettled.ravel())
    hole = outside & (sizes[labels] <= area) & ~grows[labels]
    return jnp.where(hole, FILLED, logits)
