"""AdamW or Muon, with the paper's schedule, layer-wise learning rates and frozen parameters.

Paths are those of the parameters, joined by slashes: `image_encoder/blocks_0/attn/qkv/kernel`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from sam_jax.errors import InputError
from sam_jax.types import Params

_BLOCK = re.compile(r"^image_encoder/(?:trunk/)?blocks_(\d+)/")
_BELOW_BLOCKS = re.compile(
    r"^image_encoder/(?:trunk/)?(patch_embed/|pos_embed(_window)?$|cls_token$"
    # Of a hybrid encoder.
    r"|stem_\d+/|conv_block_[48]/|norm_[48]/)"
)

# The size of an entry of Adam's update, as it is usually seen (Liu et al. 2025).
_ADAM_SIZE = 0.2


@dataclass(frozen=True)
class OptimizerOptions:
    """How parameters follow gradients; the defaults are the paper's for ViT-H.

    Attributes:
      learning_rate: the highest learning rate of the schedule.
      steps: [updates] length of the run.
      warmup_steps: [updates] length of the warm-up, in which the learning rate grows linearly to
        `learning_rate`.
      warmup_start: [fraction of `learning_rate`] learning rate of the first update (paper: silent;
        ViTDet: 0.001).
      schedule: after the warm-up, "step" multiplies the rate by `decay_factor` at each of
        `decay_steps`; "cosine" lets it fall to zero at the last update.
      decay_steps: [updates] after how many updates "step" lowers the rate (paper: 60,000 and 86,666
        of 90,000).
      decay_factor: what "step" multiplies the rate by each time.
      weight_decay: AdamW's weight decay; in an update it is multiplied by the learning rate.
      decay_all: weight decay for biases, norms, position tables and learned tokens too, which are
        left out otherwise (paper: silent; ViTDet-H decays all, SAM 2 neither biases nor norms).
      rule: "adamw" (the paper's), or "muon": the momentum of every matrix is made orthogonal before
        it is followed (Jordan et al. 2024), which learns in fewer steps from nothing. What is no
        matrix stays with AdamW, and so do the kernels of an encoder's queries, keys and values,
        which a run holds by heads. Muon's steps are scaled to AdamW's length (Liu et al. 2025,
        arXiv 2502.16982), so one learning rate serves both.
      momentum: Muon's momentum.
      beta1: AdamW's decay rate of the mean of gradients.
      beta2: AdamW's decay rate of the mean of squared gradients.
      layer_decay: factor of the learning rate for each block further from the decoder: block i of L
        has `layer_decay ** (L - i)`, what is below the blocks `layer_decay ** (L + 1)`, all else 1.
      clip_norm: largest norm of the whole gradient; 0 for no clipping (paper: silent; SAM 2: 0.1).
      frozen: regular expressions, searched in paths such as
        `image_encoder/blocks_0/attn/qkv/kernel`; parameters that match any stay as they are.
    """

    learning_rate: float = 8e-4
    steps: int = 90_000
    warmup_steps: int = 250
    warmup_start: float = 0.001
    schedule: Literal["step", "cosine"] = "step"
    decay_steps: tuple[int, ...] = (60_000, 86_666)
    decay_factor: float = 0.1
    weight_decay: float = 0.1
    decay_all: bool = False
    rule: Literal["adamw", "muon"] = "adamw"
    momentum: float = 0.95
    beta1: float = 0.9
    beta2: float = 0.999
    layer_decay: float = 0.8
    clip_norm: float = 0.0
    frozen: tuple[str, ...] = ()


def learning_rate(options: OptimizerOptions) -> Callable[[Any], Any]:
    """The learning rate as a function of the updates that were made before."""
    peak = options.learning_rate
    rest = max(options.steps - options.warmup_steps, 1)

    def rate(step: Any) -> Any:
        step = jnp.asarray(step, jnp.float32)
        ramp = jnp.minimum(step / max(options.warmup_steps, 1), 1.0)
        warmup = options.warmup_start + (1 - options.warmup_start) * ramp
        if options.schedule == "cosine":
            done = jnp.clip((step - options.warmup_steps) / rest, 0.0, 1.0)
            decay = 0.5 * (1 + jnp.cos(jnp.pi * done))
        else:
            passed = sum((step >= at).astype(jnp.float32) for at in options.decay_steps)
            decay = options.decay_factor ** jnp.asarray(passed)
        return peak * decay * jnp.where(step < options.warmup_steps, warmup, 1.0)

    return rate


def layer_scale(path: str, depth: int, decay: float) -> float:
    """The factor of a parameter's learning rate, see `OptimizerOptions.layer_decay`.

    Args:
      path: of the parameter.
      depth: blocks of the encoder.
      decay: for each.
    """
    block = _BLOCK.match(path)
    if block:
        return decay ** (depth - int(block.group(1)))
    return decay ** (depth + 1) if _BELOW_BLOCKS.match(path) else 1.0


def decays(path: str, ndim: int) -> bool:
    """Whether weight decay is for a parameter: kernels only."""
    return path.endswith("kernel") and ndim > 1


def make_optimizer(
    options: OptimizerOptions, params: Params, depth: int
) -> optax.GradientTransformation:
    """The update rule for such parameters.

    Args:
      options: what it is.
      params: the tree under "params", arrays or their shapes.
      depth: blocks of the encoder, for `layer_decay`.

    Raises:
      InputError: a pattern of frozen parameters is not a regular expression, or matches none; or
        nothing is left to be trained.
    """
    names = paths(params)
    frozen = frozen_names(options.frozen, names)
    if len(frozen) == len(jax.tree.leaves(names)):
        raise InputError("frozen: the patterns match every parameter, nothing would be trained")

    def mask(tree: Any) -> Any:
        if options.decay_all:
            return jax.tree.map(lambda _: True, tree)
        return jax.tree.map(lambda path, leaf: decays(path, np.ndim(leaf)), paths(tree), tree)

    def scaled(updates: Any, params: Any = None) -> Any:
        del params
        return jax.tree.map(
            lambda path, x: x * layer_scale(path, depth, options.layer_decay),
            paths(updates),
            updates,
        )

    direction = optax.scale_by_adam(options.beta1, options.beta2)
    if options.rule == "muon":
        rules = {"matrix": _muon(options.momentum), "other": direction}
        direction = optax.partition(rules, _matrices)
    # A link either way: a run may be gone on from with clipping, or without.
    norm = options.clip_norm
    clip = optax.clip_by_global_norm(norm) if norm else optax.identity()
    rule = optax.chain(
        clip,
        direction,
        optax.add_decayed_weights(options.weight_decay, mask),
        optax.stateless(scaled),
        optax.scale_by_learning_rate(learning_rate(options)),
    )
    # Frozen parameters have no state: a fine-tuned decoder's optimizer is as small as the decoder.
    labels = jax.tree.map(lambda name: "frozen" if name in frozen else "trained", names)
    return optax.partition({"trained": rule, "frozen": optax.set_to_zero()}, labels)


def _matrices(tree: Any) -> Any:
    """For each array, whether it is the kernel of a linear layer ("matrix") or not ("other").

    A convolution is one over all its window's pixels, if the window has a middle: those without
    are patch embeddings and transposed ones.
    """

    def kind(path: str, leaf: Any) -> str:
        shape = np.shape(leaf)
        convolution = len(shape) == 4 and shape[0] == shape[1] and shape[0] % 2 == 1
        matrix = path.endswith("kernel") and (len(shape) == 2 or convolution)
        return "matrix" if matrix else "other"

    return jax.tree.map(kind, paths(tree), tree)


def _muon(momentum: float) -> optax.GradientTransformation:
    """Orthogonal updates whose entries are as large as Adam's: 0.2 in the mean square's root."""

    def as_long_as_adams(updates: Any, params: Any = None) -> Any:
        del params

        def one(x: jax.Array) -> jax.Array:
            return x * (_ADAM_SIZE * max(x.size // x.shape[-1], x.shape[-1]) ** 0.5)

        return jax.tree.map(one, updates)

    def in_and_out(tree: Any) -> Any:
        def one(x: jax.Array) -> optax.contrib.MuonDimensionNumbers:
            last = np.ndim(x) - 1
            return optax.contrib.MuonDimensionNumbers(tuple(range(last)), (last,))

        return jax.tree.map(one, tree)

    return optax.chain(
        optax.contrib.scale_by_muon(beta=momentum, weight_dimension_numbers=in_and_out),
        optax.stateless(as_long_as_adams),
    )


def paths(tree: Any) -> Any:
    """The same tree with every array's path in its place."""

    def name(path, _):
        return jax.tree_util.keystr(path, simple=True, separator="/")

    return jax.tree_util.tree_map_with_path(name, tree)


def frozen_names(patterns: Sequence[str], names: Any) -> set[str]:
    """Those of the paths that `OptimizerOptions.frozen` leaves out.

    Args:
      patterns: these.
      names: a tree of paths, from `paths`.

    Raises:
      InputError: a pattern is not a regular expression, or matches none.
    """
    every = jax.tree.leaves(names)
    found: set[str] = set()
    for pattern in patterns:
        try:
            matching = {name for name in every if re.search(pattern, name)}
        except re.error as error:
            raise InputError(f"frozen: {pattern!r} is no regular expression: {error}") from None
        if not matching:
            raise InputError(f"frozen: {pattern!r} matches no parameter; {every[0]} is one")
        found |= matching
    return found
