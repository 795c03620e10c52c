"""Segment Anything (SAM 1): the table of names and layouts that both directions are driven by."""

import re
from collections.abc import Iterable

from convert.tables import (
    CONVOLUTION,
    HUGGING_FACE,
    LEADING_ONE,
    NAMINGS,
    OFFICIAL,
    UPSCALING,
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
_PROMPT = ("params/prompt_encoder", "prompt_encoder", "prompt_encoder")
_DECODER = ("params/mask_decoder", "mask_decoder", "mask_decoder")
_LAYER = (
    "params/mask_decoder/transformer/layers_{layer}",
    "mask_decoder.transformer.layers.{layer}",
    "mask_decoder.transformer.layers.{layer}",
)


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
    row(
        "constants/prompt_encoder/positional_encoding_gaussian_matrix",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        (
            "shared_image_embedding.positional_embedding",
            "prompt_encoder.shared_embedding.positional_embedding",
        ),
    ),
    row(
        *under(
            _PROMPT,
            "point_embeddings",
            "point_embeddings.{point}.weight",
            "point_embed.{point}.weight",
        ),
        LEADING_ONE,
        stack="point",
    ),
    row(
        *under(
            _PROMPT, "not_a_point_embed", "not_a_point_embed.weight", "not_a_point_embed.weight"
        ),
        LEADING_ONE,
    ),
    row(
        *under(_PROMPT, "no_mask_embed", "no_mask_embed.weight", "no_mask_embed.weight"),
        LEADING_ONE,
    ),
    *layer(
        *under(_PROMPT, "mask_downscaling/conv1", "mask_downscaling.0", "mask_embed.conv1"),
        CONVOLUTION,
    ),
    *norm(
        *under(_PROMPT, "mask_downscaling/norm1", "mask_downscaling.1", "mask_embed.layer_norm1")
    ),
    *layer(
        *under(_PROMPT, "mask_downscaling/conv2", "mask_downscaling.3", "mask_embed.conv2"),
        CONVOLUTION,
    ),
    *norm(
        *under(_PROMPT, "mask_downscaling/norm2", "mask_downscaling.4", "mask_embed.layer_norm2")
    ),
    *layer(
        *under(_PROMPT, "mask_downscaling/conv3", "mask_downscaling.6", "mask_embed.conv3"),
        CONVOLUTION,
    ),
    row(*under(_DECODER, "iou_token", "iou_token.weight", "iou_token.weight"), LEADING_ONE),
    row(*under(_DECODER, "mask_tokens", "mask_tokens.weight", "mask_tokens.weight")),
    *layer(*under(_LAYER, "{attention}/{projection}", *2 * ("{attention}.{projection}",))),
    *norm(*under(_LAYER, "norm{norm}", "norm{norm}", "layer_norm{norm}")),
    *layer(*under(_LAYER, "mlp/lin1", "mlp.lin1", "mlp.lin1")),
    *layer(*under(_LAYER, "mlp/lin2", "mlp.lin2", "mlp.lin2")),
    *layer(
        *under(
            _DECODER,
            "transformer/final_attn_token_to_image/{projection}",
            *2 * ("transformer.final_attn_token_to_image.{projection}",),
        )
    ),
    *norm(
        *under(
            _DECODER,
            "transformer/norm_final_attn",
            "transformer.norm_final_attn",
            "transformer.layer_norm_final_attn",
        )
    ),
    *layer(
        *under(_DECODER, "output_upscaling/conv1", "output_upscaling.0", "upscale_conv1"),
        UPSCALING,
    ),
    *norm(*under(_DECODER, "output_upscaling/norm", "output_upscaling.1", "upscale_layer_norm")),
    *layer(
        *under(_DECODER, "output_upscaling/conv2", "output_upscaling.3", "upscale_conv2"),
        UPSCALING,
    ),
    *layer(
        *under(
            _DECODER,
            "output_hypernetworks_mlps/layers_{hyper}",
            "output_hypernetworks_mlps.{mask}.{hyper}",
            "output_hypernetworks_mlps.{mask}.{hyper}",
        ),
        stack="mask",
    ),
    *layer(
        *under(
            _DECODER,
            "iou_prediction_head/layers_{head}",
            "iou_prediction_head.{head}",
            "iou_prediction_head.{head}",
        )
    ),
)
_HYPERNETWORK_DEPTH = 3
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
        "hyper": mlp_layers(_HYPERNETWORK_DEPTH),
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
