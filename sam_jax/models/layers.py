"""Small layers that several parts share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from sam_jax.errors import InputError
from sam_jax.types import ArrayLike

# PyTorch's names for two constants of LayerNorm: the encoder and every convolutional norm use the
# first, the mask decoder's transformer keeps PyTorch's default.
EPSILON = 1e-6
TRANSFORMER_EPSILON = 1e-5


def check_images(images: Shaped[Array, "..."]) -> None:
    """Refuses what cannot be an encoder's input: pixels as files have them.

    Raises:
      InputError: the type is no floating-point one, which is known under `jit` too.
    """
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(
            f"images are {images.dtype}, but an encoder takes normalized floats; make them with "
            "sam_jax.prepare_image, or for a batch under jit sam_jax.prepare_images"
        )


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """GELU by the error function, not its tanh approximation."""

    # As PyTorch computes it. The complementary error function is more precise far below zero, costs
    # a TPU twice the time, and a CPU less memory: there XLA does not repack the product's weights.
    def by_erf(x):
        return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))

    def by_erfc(x):
        return jax.nn.gelu(x, approximate=False)

    return jax.lax.platform_dependent(x, tpu=by_erf, default=by_erfc)


def materialize(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The value itself, which XLA's TPU compiler is told to make once and keep.

    Else it may keep every term of a residual stream instead, to add them all up where the sum is
    used, and fuse two products into one that is slower than both.
    """
    return jax.lax.platform_dependent(x, tpu=jax.lax.optimization_barrier, default=lambda x: x)


def add_to_channels(x: Float[Array, "..."], vector: Float[ArrayLike, "..."]) -> Float[Array, "..."]:
    """A sum over the last axes, in the type of `x`; the vector's missing axes are spelled out.

    So it works where `jax_numpy_rank_promotion` allows no broadcasting between ranks.
    """
    return x + jax.lax.broadcast_to_rank(jnp.asarray(vector, x.dtype), x.ndim)


class LayerNorm(nn.LayerNorm):
    """LayerNorm over channels; statistics in float32, the variance in two passes as PyTorch's."""

    epsilon: float = EPSILON
    use_fast_variance: bool = False

    def __call__(
        self, x: Float[Array, "... channel"], *, mask: Array | None = None
    ) -> Float[Array, "... channel"]:
        """Normalizes the last axis."""
        # Flax mixes the compute type with float32, also where the user allows no such thing.
        with jax.numpy_dtype_promotion("standard"):
            return super().__call__(x, mask=mask)


class Dense(nn.Module):
    """A linear layer whose products are summed in float32.

    So are an accelerator's by themselves. XLA's CPU compiler, asked for a bfloat16 product, turns
    the operands to float32 first; asked for a float32 one, it uses the processor's own bfloat16
    instructions, which takes half the time. The bias is added in the compute type: in float32, a
    TPU would keep the decoder's projections of the image that wide (1,159 MB instead of 692).

    Attributes:
      features: of the output.
      dtype: compute type; parameters are float32.
      summed_over: the axis of a device mesh over which the channels of the input are divided; each
        device holds those rows of the kernel, and the sum over devices is the product.
      kernel_init: what the kernel starts as.
    """

    features: int
    dtype: Any = jnp.float32
    summed_over: str | None = None
    kernel_init: Callable = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "... channel"]) -> Float[Array, "... {self.features}"]:
        """Applies the layer to the last axis."""
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        x, kernel = x.astype(self.dtype), jnp.asarray(kernel, self.dtype)
        out = jnp.matmul(x, kernel, preferred_element_type=jnp.float32)
        if self.summed_over is not None:
            out = jax.lax.psum(out, self.summed_over)
        return add_to_channels(out.astype(self.dtype), bias)


class Projection(nn.Module):
    """The parameters of a linear layer, to be changed before they are used."""

    channels: int
    features: int

    def setup(self):
        """Kernel and bias."""
        init = nn.initializers.lecun_normal()
        self.kernel = self.param("kernel", init, (self.channels, self.features), jnp.float32)
        self.bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)

    def __call__(self) -> tuple[Array, Array]:
        """Kernel [channels, features] and bias, float32."""
        return jnp.asarray(self.kernel), jnp.asarray(self.bias)


def drop_path(
    x: Float[Array, "batch ..."], draws: Float[Array, " batch"] | None, rate: float
) -> Float[Array, "batch ..."]:
    """Stochastic depth: a residual branch is left out for some images (Huang et al. 2016).

    Args:
      x: the branch.
      draws: a uniform number for each image: below `rate`, its branch is zeros; the others are
        scaled up by as much. None keeps all as they are.
      rate: how often.
    """
    if draws is None or rate == 0:
        return x
    kept = draws.reshape(-1, *(1,) * (x.ndim - 1)) >= rate
    return jnp.where(kept, x / (1 - rate), 0.0).astype(x.dtype)


class MLPBlock(nn.Module):
    """Two linear layers with an activation between.

    Attributes:
      hidden_dim: channels between the two; with `model_axis`, those of one device.
      activation: between the two.
      dtype: compute type.
      model_axis: the axis of a device mesh over which the hidden channels are divided, if any.
      kernel_init: what both kernels start as.
    """

    hidden_dim: int
    activation: Callable = gelu
    dtype: Any = jnp.float32
    model_axis: str | None = None
    kernel_init: Callable = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "... channel"]) -> Float[Array, "... channel"]:
        """Applies the block to the last axis."""
        init = self.kernel_init
        hidden = Dense(self.hidden_dim, self.dtype, kernel_init=init, name="lin1")(x)
        hidden = self.activation(hidden)
        return Dense(x.shape[-1], self.dtype, self.model_axis, init, name="lin2")(hidden)


class MLP(nn.Module):
    """Linear layers with ReLU between them: `depth` layers, the last one linear."""

    hidden_dim: int
    output_dim: int
    depth: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... channel"]) -> Float[Array, "... {self.output_dim}"]:
        """Applies the layers to the last axis."""
        for i in range(self.depth - 1):
            x = nn.relu(Dense(self.hidden_dim, dtype=self.dtype, name=f"layers_{i}")(x))
        return Dense(self.output_dim, dtype=self.dtype, name=f"layers_{self.depth - 1}")(x)


class StackedDense(nn.Module):
    """One linear layer per position of the second-to-last axis, as a single batched product."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... stack channel"]) -> Float[Array, "... stack features"]:
        """Applies layer i of the stack to row i."""
        stack, channel = x.shape[-2:]
        init = nn.initializers.lecun_normal(batch_axis=(0,))
        kernel = self.param("kernel", init, (stack, channel, self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (stack, self.features), jnp.float32)
        kernel = jnp.asarray(kernel, self.dtype)
        out = jnp.einsum("...sc,scf->...sf", x.astype(self.dtype), kernel)
        return add_to_channels(out, bias)


class Upscale(nn.Module):
    """A transposed convolution of kernel 2 and stride 2: each pixel becomes a 2x2 block.

    With no overlap between blocks it is one matrix product. The block's rows and columns stay axes
    of their own: what works on single pixels can follow, and one copy at the end bring all of them
    into place.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*pixels channel"]
    ) -> Float[Array, "*pixels 2 2 {self.features}"]:
        """Doubles height and width, in blocks."""
        channel = x.shape[-1]
        init = nn.initializers.lecun_normal(in_axis=0, out_axis=3)
        kernel = self.param("kernel", init, (channel, 2, 2, self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        kernel = jnp.asarray(kernel, self.dtype)
        x = x.astype(self.dtype)
        out = jnp.einsum("...c,cijf->...ijf", x, kernel, preferred_element_type=jnp.float32)
        return add_to_channels(out.astype(self.dtype), bias)
