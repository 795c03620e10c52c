"""Segment Anything (SAM 1): the table of names and layouts that both directions are driven by."""

import re
from collections.abc import Iterable

from convert.decoder_rows import HYPERNETWORK_DEPTH, decoder_rows, prompt_rows, upscaling_rows
from convert.tables import (
    CONVOLUTION,
    HUGGING_FACE,
    LEADING_ONE,
    NAMINGS,
    OFFICIAL,
    Entry,
    Row,
    expand,
    indexes,
    layer,
    mlp_layers,
    norm,
    row,
    texts,
    under,
)
from sam_jax.configs import ImageEncoderConfig, SamConfig
from sam_jax.errors import CheckpointError

_BLOCK = (
    "params/image_encoder/blocks_{block}",
    "image_encoder.blocks.{block}",
    "vision_encoder.layers.{block}",
)
_NECK = ("params/image_encoder/neck", "image_encoder.neck", "vision_encoder.neck")
_DECODER = ("params/mask_decoder", "mask_decoder", "mask_decoder")


# Each line: our path, the original's name, Hugging Face's name. The original registers its pixel
# statistics as buffers that are not saved, so they stand in no file.
TABLE: tuple[Row, ...] = (
    *layer(
        "params/image_encoder/patch_embed",
        "image_encoder.patch_embed.proj",
        "vision_encoder.patch_embed.projection",
        CONVOLUTION,
    ),
    row(
        "params/image_encoder/pos_embed",
        "image_encoder.pos_embed",
        "vision_encoder.pos_embed",
        LEADING_ONE,
    ),
    *norm(*under(_BLOCK, "norm1", "norm1", "layer_norm1")),
    *layer(*under(_BLOCK, "attn/qkv", "attn.qkv", "attn.qkv")),
    *layer(*under(_BLOCK, "attn/proj", "attn.proj", "attn.proj")),
    row(*under(_BLOCK, "attn/rel_pos_h", "attn.rel_pos_h", "attn.rel_pos_h")),
    row(*under(_BLOCK, "attn/rel_pos_w", "attn.rel_pos_w", "attn.rel_pos_w")),
    *norm(*under(_BLOCK, "norm2", "norm2", "layer_norm2")),
    *layer(*under(_BLOCK, "mlp/lin1", "mlp.lin1", "mlp.lin1")),
    *layer(*under(_BLOCK, "mlp/lin2", "mlp.lin2", "mlp.lin2")),
    row(*under(_NECK, "conv1/kernel", "0.weight", "conv1.weight"), CONVOLUTION),
    *norm(*under(_NECK, "norm1", "1", "layer_norm1")),
    row(*under(_NECK, "conv2/kernel", "2.weight", "conv2.weight"), CONVOLUTION),
    *norm(*under(_NECK, "norm2", "3", "layer_norm2")),
    *prompt_rows("prompt_encoder"),
    *decoder_rows(_DECODER, ("mlp.lin1", "mlp.lin2"), ("mlp.lin1", "mlp.lin2")),
    *upscaling_rows(_DECODER, *(f"output_upscaling/{name}" for name in ("conv1", "norm", "conv2"))),
)
_ANOTHER_FAMILY = {
    "SAM 2": re.compile(
        r"image_encoder\.trunk\.|memory_attention\.|memory_encoder\.|sam_mask_decoder\."
        r"|vision_encoder\.backbone\."
    ),
}
_MARKS = {OFFICIAL: "image_encoder.", HUGGING_FACE: "vision_encoder."}


def entries(config: SamConfig) -> list[Entry]:
    """Every tensor of a configuration, with its place, names and layout.

    Raises:
      CheckpointError: the original code has no such model.
    """
    if not isinstance(config.image_encoder, ImageEncoderConfig):
        raise CheckpointError(
            f"{config.name} has an image encoder of our own, which the original code cannot "
            "run: there is no PyTorch file of it"
        )
    ranges = {
        "block": indexes(config.image_encoder.depth),
        "layer": indexes(config.decoder_depth),
        "point": indexes(4),
        "mask": indexes(config.num_multimask_outputs + 1),
        "norm": indexes(4, start=1),
        "attention": texts("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token"),
        "projection": texts("q_proj", "k_proj", "v_proj", "out_proj"),
        "hyper": mlp_layers(HYPERNETWORK_DEPTH),
        "head": mlp_layers(config.iou_head_depth),
    }
    return expand(TABLE, ranges)


def is_sam(names: Iterable[str]) -> bool:
    """Whether tensors of these names are SAM's."""
    return any(name.startswith(mark) for name in names for mark in _MARKS.values())


def detect_naming(names: Iterable[str]) -> str:
    """The naming that a file's tensors follow.

    Raises:
      CheckpointError: they are of another family, or of none that is known.
    """
    names = list(names)
    for family, pattern in _ANOTHER_FAMILY.items():
        if any(map(pattern.match, names)):
            raise CheckpointError(
                f"it holds a model of the family {family}, not of Segment Anything (SAM 1)"
            )
    counts = {naming: sum(n.startswith(mark) for n in names) for naming, mark in _MARKS.items()}
    naming = max(NAMINGS, key=lambda one: counts[one])
    if not counts[naming]:
        raise CheckpointError(
            "it holds no Segment Anything model: none of its tensors is named "
            + " or ".join(f"{mark}..." for mark in _MARKS.values())
        )
    return naming
