"""The original PyTorch code of SAM 2 as a reference, with values of its own."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax.traverse_util import unflatten_dict

from convert.sam2.reference import build_original_sam2
from convert.sam2.table import entries
from convert.tables import OFFICIAL, to_native
from sam_jax.models.sam2.config import Sam2Config
from sam_jax.models.sam2.sam2 import variable_shapes
from sam_jax.types import Params

# What the original's builders set unless they are told not to.
POSTPROCESSING = {
    "sam_mask_decoder_extra_args": {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    },
    "binarize_mask_from_pts_for_mem_enc": True,
}


def build(config: Sam2Config, seed: int = 0, **options):
    """The original's predictor with random values everywhere, on the CPU."""
    model = build_original_sam2(config, **options)
    randomise(model, seed)
    return model.eval().requires_grad_(False)


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Fills every parameter, so that nothing is zero or one where training moves it."""
    rng = np.random.default_rng(seed)
    for name, tensor in model.state_dict().items():
        values = rng.standard_normal(tuple(tensor.shape), np.float32)
        tensor.copy_(torch.from_numpy(_scaled(name, values)))


def _scaled(name: str, values: np.ndarray) -> np.ndarray:
    *_, module, kind = ("", *name.split("."))
    if kind == "gamma":
        return 0.3 + 0.1 * values
    if "pos_embed" in kind or kind == "bias" or kind.startswith(("maskmem", "no_", "obj")):
        return 0.3 * values
    if name.startswith("sam_mask_decoder.pred_obj_score_head.layers.2"):
        # Objects are there, and then not, depending on the frame.
        return values if values.ndim > 1 else 0.0 * values
    if values.ndim == 1:
        return 1.0 + 0.3 * values
    is_token = module.endswith(("embed", "token", "tokens")) or "point_embeddings" in name
    if is_token or "gaussian" in kind:
        return values
    if name.startswith("sam_mask_decoder.output_upscaling"):
        # A transposed convolution's weight is [in, out, height, width].
        return 2.0 * values * values.shape[0] ** -0.5
    if name.startswith("sam_mask_decoder.output_hypernetworks_mlps"):
        # They weigh channels that GELU has made positive on average. Weights that sum to zero let
        # masks straddle the threshold, where a wrong logit shows.
        values = values - values.mean(axis=0)
    return values * np.prod(values.shape[1:]) ** -0.5


def variables(model: torch.nn.Module, config: Sam2Config) -> Params:
    """The same weights for our model, by the table that users' files are read with."""
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    flat = to_native("weights", entries(config), OFFICIAL, tensors, shapes(config))
    return jax.tree.map(jnp.asarray, unflatten_dict(flat, sep="/"))


@cache
def shapes(config: Sam2Config):
    """Of our variables, by path."""
    from flax.traverse_util import flatten_dict

    return flatten_dict(variable_shapes(config), sep="/")


def relative_error(ours, theirs) -> float:
    """The largest absolute difference over the reference's standard deviation."""
    theirs = np.asarray(theirs, np.float64)
    return float(np.abs(np.asarray(ours, np.float64) - theirs).max() / theirs.std())
