"""Masked autoencoders: tables of names, and PyTorch files to variables of `MaskedAutoencoder`.

The original publishes encoders alone for fine-tuning, and whole models to look at. Its position
tables are fixed, so they are compared with ours and left out.
"""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from convert.conversion import read_tensors
from convert.tables import (
    CONVOLUTION,
    HUGGING_FACE,
    LEADING_ONE,
    NAMINGS,
    OFFICIAL,
    Entry,
    Row,
    expand,
    layer,
    norm,
    row,
    to_native,
    to_torch,
)
from sam_jax.configs import MAE_CONFIGS, MaeConfig
from sam_jax.errors import CheckpointError
from sam_jax.models.mae.mae import MaskedAutoencoder, sincos_positions
from sam_jax.types import Params

_ENCODER, _DECODER = "params/image_encoder", "params/decoder"


def _block_rows(native: str, official: str, huggingface: str) -> tuple[Row, ...]:
    return (
        *norm(f"{native}/norm1", f"{official}.norm1", f"{huggingface}.layernorm_before"),
        *layer(f"{native}/attn/qkv", f"{official}.attn.qkv", f"{huggingface}.attention.qkv_proj"),
        *layer(f"{native}/attn/proj", f"{official}.attn.proj", f"{huggingface}.attention.o_proj"),
        *norm(f"{native}/norm2", f"{official}.norm2", f"{huggingface}.layernorm_after"),
        *layer(f"{native}/mlp/lin1", f"{official}.mlp.fc1", f"{huggingface}.mlp.fc1"),
        *layer(f"{native}/mlp/lin2", f"{official}.mlp.fc2", f"{huggingface}.mlp.fc2"),
    )


# Tokens are [1, 1, channel] in files.
ENCODER_TABLE: tuple[Row, ...] = (
    row(f"{_ENCODER}/cls_token", "cls_token", "vit.embeddings.cls_token", LEADING_ONE),
    *layer(
        f"{_ENCODER}/patch_embed",
        "patch_embed.proj",
        "vit.embeddings.patch_embeddings.projection",
        CONVOLUTION,
    ),
    *_block_rows(f"{_ENCODER}/blocks_{{block}}", "blocks.{block}", "vit.layers.{block}"),
    *norm(f"{_ENCODER}/norm", "norm", "vit.layernorm"),
)
DECODER_TABLE: tuple[Row, ...] = (
    *layer(f"{_DECODER}/decoder_embed", "decoder_embed", "decoder.decoder_embed"),
    row(f"{_DECODER}/mask_token", "mask_token", "decoder.mask_token", LEADING_ONE),
    *_block_rows(
        f"{_DECODER}/decoder_blocks_{{layer}}",
        "decoder_blocks.{layer}",
        "decoder.decoder_layers.{layer}",
    ),
    *norm(f"{_DECODER}/decoder_norm", "decoder_norm", "decoder.decoder_norm"),
    *layer(f"{_DECODER}/decoder_pred", "decoder_pred", "decoder.decoder_pred"),
)
# Of encoder and decoder, by naming.
_POSITIONS = {
    OFFICIAL: ("pos_embed", "decoder_pos_embed"),
    HUGGING_FACE: ("vit.embeddings.position_embeddings", "decoder.decoder_pos_embed"),
}
_CLASS_TOKEN = {OFFICIAL: "cls_token", HUGGING_FACE: "vit.embeddings.cls_token"}
_PATCH_KERNEL = {
    OFFICIAL: "patch_embed.proj.weight",
    HUGGING_FACE: "vit.embeddings.patch_embeddings.projection.weight",
}
_BLOCK_NORM = {
    OFFICIAL: re.compile(r"blocks\.\d+\.norm1\.weight"),
    HUGGING_FACE: re.compile(r"vit\.layers\.\d+\.layernorm_before\.weight"),
}
# The original computes them in float64 or, with a later NumPy, in float32.
_POSITION_TOLERANCE = 1e-4

# Hugging Face's published files have names of before version 5 of transformers.
_RENAMED = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^vit\.encoder\.layer\.", "vit.layers."),
        (r"\.attention\.attention\.query\.", ".attention.q_proj."),
        (r"\.attention\.attention\.key\.", ".attention.k_proj."),
        (r"\.attention\.attention\.value\.", ".attention.v_proj."),
        (r"\.attention\.output\.dense\.", ".attention.o_proj."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"(\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    )
)
_JOINED = ".qkv_proj."
_PARTS = (".q_proj.", ".k_proj.", ".v_proj.")


def read_mae(
    path: str | os.PathLike, config: MaeConfig | None = None
) -> tuple[MaeConfig, Params, str]:
    """Reads a PyTorch file of a masked autoencoder, whole or its encoder alone, strictly.

    Args:
      path: as for `conversion.read_source`.
      config: the architecture; by default told from shapes, see `infer_config`.

    Returns:
      The configuration, variables as from `from_state_dict`, and the naming.

    Raises:
      CheckpointError: the file is damaged, or its tensors are not a masked autoencoder's.
    """
    tensors = read_tensors(path)
    try:
        naming = detect_naming(tensors)
        config = config or infer_config(tensors, naming)
        return config, from_state_dict(config, tensors, naming), naming
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def from_state_dict(
    config: MaeConfig, tensors: Mapping[str, np.ndarray], naming: str = OFFICIAL
) -> Params:
    """Variables for `MaskedAutoencoder(config)`, float32; strict.

    Without any tensor of the decoder, those of the encoder alone.

    Raises:
      CheckpointError: lists everything missing, unexpected and misshapen, or says that a position
        table is not the fixed one.
    """
    tensors = _joined(tensors) if naming == HUGGING_FACE else dict(tensors)
    dims = config.embed_dim, config.decoder_embed_dim
    for name, dim in zip(_POSITIONS[naming], dims, strict=True):
        if name in tensors:
            _check_positions(name, tensors.pop(name), config, dim)
    table = entries(config)
    if not any(name.startswith(("decoder", "mask_token")) for name in tensors):
        table = entries(config, decoder=False)
    title = f"the tensors ({naming} names) are not those of the autoencoder {config.name!r}:"
    flat = to_native(title, table, naming, tensors, _flat_shapes(config))
    return unflatten_dict(flat, sep="/")


def to_state_dict(
    config: MaeConfig, variables: Params, naming: str = OFFICIAL
) -> dict[str, np.ndarray]:
    """A PyTorch model's state dict, as NumPy arrays, position tables included.

    Args:
      config: the architecture.
      variables: for `MaskedAutoencoder(config)`, or of its encoder alone.
      naming: Hugging Face's is that of transformers 5.
    """
    whole = "decoder" in variables["params"]
    flat = {name: np.asarray(array) for name, array in flatten_dict(variables, sep="/").items()}
    tensors = to_torch(entries(config, decoder=whole), naming, flat)
    dims = (config.embed_dim, config.decoder_embed_dim)[: 2 if whole else 1]
    for name, dim in zip(_POSITIONS[naming], dims, strict=False):
        tensors[name] = _position_tensor(config, dim)
    return _parted(tensors) if naming == HUGGING_FACE else tensors


def entries(config: MaeConfig, decoder: bool = True) -> list[Entry]:
    """Every tensor of a configuration, with its place, names and layout."""

    def indexes(count: int) -> list[Mapping[str, str]]:
        return [{place: str(i) for place in ("native", *NAMINGS)} for i in range(count)]

    ranges = {"block": indexes(config.depth), "layer": indexes(config.decoder_depth)}
    return expand(ENCODER_TABLE + (DECODER_TABLE if decoder else ()), ranges)


def detect_naming(tensors: Mapping[str, np.ndarray]) -> str:
    """The naming that a file's tensors follow.

    Raises:
      CheckpointError: they are not of a masked autoencoder.
    """
    for naming, name in _CLASS_TOKEN.items():
        if name in tensors:
            return naming
    raise CheckpointError(
        "it holds no masked autoencoder: none of its tensors is named "
        + " or ".join(_CLASS_TOKEN.values())
    )


def infer_config(tensors: Mapping[str, np.ndarray], naming: str) -> MaeConfig:
    """The paper's model with a file's width, depth and patch, for the file's own size of images.

    Raises:
      CheckpointError: there is none; no shape tells how many heads others have.
    """
    tensors = _joined(tensors) if naming == HUGGING_FACE else tensors
    kernel = np.shape(tensors.get(_PATCH_KERNEL[naming], ()))
    depth = sum(_BLOCK_NORM[naming].fullmatch(name) is not None for name in tensors)
    positions = np.shape(tensors.get(_POSITIONS[naming][0], ()))
    for config in MAE_CONFIGS.values():
        sizes = (config.embed_dim, 3, config.patch_size, config.patch_size)
        if kernel == sizes and depth == config.depth:
            side = math.isqrt(max(positions[1] - 1, 0)) if len(positions) == 3 else 0
            return replace(config, image_size=side * config.patch_size or config.image_size)
    raise CheckpointError(
        f"its encoder, of {depth} blocks and a patch kernel of {kernel}, is none of the paper's; "
        "give the configuration"
    )


def _flat_shapes(config: MaeConfig) -> Mapping[str, jax.ShapeDtypeStruct]:
    images = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, 3), jnp.float32)
    noise = jax.ShapeDtypeStruct((1, config.grid_size**2), jnp.float32)
    init = MaskedAutoencoder(config).init
    return flatten_dict(jax.eval_shape(init, jax.random.key(0), images, noise), sep="/")


def _position_tensor(config: MaeConfig, dim: int) -> np.ndarray:
    """The table as files have it: a row of zeros for the class token, then the grid's."""
    grid = sincos_positions((config.grid_size,) * 2, dim).reshape(1, -1, dim)
    return np.concatenate([np.zeros((1, 1, dim), np.float32), grid], axis=1)


def _check_positions(name: str, tensor: np.ndarray, config: MaeConfig, dim: int) -> None:
    expected = _position_tensor(config, dim)
    if tensor.shape != expected.shape:
        raise CheckpointError(
            f"wrong shape: {name} is {tensor.shape}, not {expected.shape}; give the configuration "
            "of the images that it was trained on"
        )
    difference = np.abs(tensor.astype(np.float32) - expected).max()
    if not difference <= _POSITION_TOLERANCE:
        raise CheckpointError(
            f"{name} is not the fixed table of sines and cosines of a masked autoencoder "
            f"(it differs by {difference:.1g}), so the model would not compute the same"
        )


def _joined(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Under the names of transformers 5, queries', keys' and values' projections as one."""
    tensors = dict(tensors)
    for name in list(tensors):
        new = name
        for pattern, replacement in _RENAMED:
            new = pattern.sub(replacement, new)
        tensors[new] = tensors.pop(name)
    for name in [name for name in tensors if _PARTS[0] in name]:
        parts = [name.replace(_PARTS[0], part) for part in _PARTS]
        # Where one is missing, the report says so of what they would be together.
        if all(part in tensors for part in parts):
            joined = np.concatenate([tensors.pop(part) for part in parts])
            tensors[name.replace(_PARTS[0], _JOINED)] = joined
    return tensors


def _parted(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `_joined`, under the new names."""
    parted = {}
    for name, tensor in tensors.items():
        if _JOINED in name:
            for part, array in zip(_PARTS, np.split(tensor, 3), strict=True):
                parted[name.replace(_JOINED, part)] = array
        else:
            parted[name] = tensor
    return parted
