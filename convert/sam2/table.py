"""SAM 2 and 2.1: the table of names and layouts that both directions are driven by."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from convert.decoder_rows import HYPERNETWORK_DEPTH, decoder_rows, prompt_rows, upscaling_rows
from convert.tables import (
    CONVOLUTION,
    HUGGING_FACE,
    LEADING_ONE,
    LINEAR,
    NAMINGS,
    OFFICIAL,
    POINTWISE,
    Entry,
    Layout,
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
from sam_jax.models.sam2.config import Sam2Config

_ENCODER = ("params/image_encoder", "image_encoder", "vision_encoder")
_TRUNK = ("params/image_encoder/trunk", "image_encoder.trunk", "vision_encoder.backbone")
_BLOCK = under(_TRUNK, "blocks_{block}", "blocks.{block}", "blocks.{block}")
_DECODER = ("params/mask_decoder", "sam_mask_decoder", "mask_decoder")
_MEMORY_LAYER = (
    "params/memory_attention/layers_{memory_layer}",
    "memory_attention.layers.{memory_layer}",
    "memory_attention.layers.{memory_layer}",
)
_MEMORY_ENCODER = ("params/memory_encoder", "memory_encoder", "memory_encoder")
_FUSER = under(
    _MEMORY_ENCODER, "fuser_{fuser}", "fuser.layers.{fuser}", "memory_fuser.layers.{fuser}"
)

# Positions as PyTorch has them, channels first, behind an axis of length 1.
_POSITIONS = Layout((1, 2, 0), ones=(0,))

_ENCODER_ROWS: tuple[Row, ...] = (
    row(*under(_TRUNK, "pos_embed", "pos_embed", "pos_embed"), _POSITIONS),
    row(*under(_TRUNK, "pos_embed_window", "pos_embed_window", "pos_embed_window"), _POSITIONS),
    *layer(
        *under(_TRUNK, "patch_embed", "patch_embed.proj", "patch_embed.projection"), CONVOLUTION
    ),
    *norm(*under(_BLOCK, "norm1", "norm1", "layer_norm1")),
    *layer(*under(_BLOCK, "attn/qkv", "attn.qkv", "attn.qkv")),
    *layer(*under(_BLOCK, "attn/proj", "attn.proj", "attn.proj")),
    *norm(*under(_BLOCK, "norm2", "norm2", "layer_norm2")),
    *layer(*under(_BLOCK, "mlp/lin1", "mlp.layers.0", "mlp.proj_in")),
    *layer(*under(_BLOCK, "mlp/lin2", "mlp.layers.1", "mlp.proj_out")),
    *layer(
        *under(_TRUNK, "blocks_{widened}/proj", "blocks.{widened}.proj", "blocks.{widened}.proj")
    ),
    *layer(
        *under(_ENCODER, "lateral_{stage}", "neck.convs.{stage}.conv", "neck.convs.{stage}"),
        POINTWISE,
    ),
    *layer(
        "params/image_encoder/stride4",
        "sam_mask_decoder.conv_s0",
        "mask_decoder.conv_s0",
        POINTWISE,
    ),
    *layer(
        "params/image_encoder/stride8",
        "sam_mask_decoder.conv_s1",
        "mask_decoder.conv_s1",
        POINTWISE,
    ),
)
_DECODER_ROWS: tuple[Row, ...] = (
    row(*under(_DECODER, "obj_score_token", *2 * ("obj_score_token.weight",)), LEADING_ONE),
    *decoder_rows(_DECODER, ("mlp.layers.0", "mlp.layers.1"), ("mlp.proj_in", "mlp.proj_out")),
    *upscaling_rows(_DECODER, "upscale1", "upscale_norm", "upscale2"),
    *layer(
        *under(
            _DECODER, "pred_obj_score_head/layers_{three}", *2 * ("pred_obj_score_head.{three}",)
        )
    ),
)
_MEMORY_ROWS: tuple[Row, ...] = (
    *layer(*under(_MEMORY_LAYER, "{looks}/{projection}", *2 * ("{looks}.{projection}",))),
    *layer(*under(_MEMORY_LAYER, "linear{two}", *2 * ("linear{two}",))),
    *norm(
        *under(_MEMORY_LAYER, "norm{memory_norm}", "norm{memory_norm}", "layer_norm{memory_norm}")
    ),
    *norm("params/memory_attention/norm", "memory_attention.norm", "memory_attention.layer_norm"),
    *layer(
        *under(
            _MEMORY_ENCODER,
            "mask_downsampler/conv{halving}",
            "mask_downsampler.encoder.{halving}",
            "mask_downsampler.layers.{halving}.conv",
        ),
        CONVOLUTION,
    ),
    *norm(
        *under(
            _MEMORY_ENCODER,
            "mask_downsampler/norm{halving_norm}",
            "mask_downsampler.encoder.{halving_norm}",
            "mask_downsampler.layers.{halving_norm}.layer_norm",
        )
    ),
    *layer(
        *under(_MEMORY_ENCODER, "pix_feat_proj", "pix_feat_proj", "feature_projection"), POINTWISE
    ),
    row(*under(_FUSER, "dwconv_kernel", "dwconv.weight", "depthwise_conv.weight"), CONVOLUTION),
    row(*under(_FUSER, "dwconv_bias", "dwconv.bias", "depthwise_conv.bias")),
    *norm(*under(_FUSER, "norm", "norm", "layer_norm")),
    *layer(*under(_FUSER, "pwconv{two}", "pwconv{two}", "pointwise_conv{two}")),
    row(*under(_FUSER, "gamma", "gamma", "scale")),
    *layer(*under(_MEMORY_ENCODER, "out_proj", "out_proj", "projection"), POINTWISE),
    *layer(
        "params/object_pointer_projection/layers_{three}",
        "obj_ptr_proj.{three}",
        "object_pointer_proj.{three}",
    ),
    *layer("params/mask_downsample", "mask_downsample", "mask_downsample", CONVOLUTION),
    row(
        "params/memory_times",
        "maskmem_tpos_enc",
        "memory_temporal_positional_encoding",
        Layout(ones=(1, 2)),
    ),
    row("params/no_memory_embed", "no_mem_embed", "no_memory_embedding", Layout(ones=(0, 1))),
    row(
        "params/no_memory_positions",
        "no_mem_pos_enc",
        "no_memory_positional_encoding",
        Layout(ones=(0, 1)),
    ),
    row("params/no_object_pointer", "no_obj_ptr", "no_object_pointer", LEADING_ONE),
)
_OCCLUSION_ROW = row(
    "params/occlusion_embed",
    "no_obj_embed_spatial",
    "occlusion_spatial_embedding_parameter",
    LEADING_ONE,
)
_POINTER_TIME_ROWS = layer(
    "params/pointer_time_projection",
    "obj_ptr_tpos_proj",
    "temporal_positional_encoding_projection_layer",
    LINEAR,
)
# The one table that Hugging Face keeps whole where the original keeps its rows apart.
_POINTS = "prompt_encoder.point_embed"


def entries(config: Sam2Config) -> list[Entry]:
    """Every tensor of a configuration, with its place, names and layout."""
    hiera = config.image_encoder
    halvings = hiera.patch_size.bit_length() - 1
    starts = [sum(hiera.stages[:i]) for i in range(1, len(hiera.stages))]
    stages = len(hiera.stages)
    ranges: dict[str, Sequence[Mapping[str, str]]] = {
        "block": indexes(hiera.depth),
        "widened": texts(*map(str, starts)),
        # Files have the coarsest stage first.
        "stage": [
            {"native": str(i), **{naming: str(stages - 1 - i) for naming in NAMINGS}}
            for i in range(stages)
        ],
        "layer": indexes(config.decoder_depth),
        "memory_layer": indexes(config.memory_attention_depth),
        "point": indexes(4),
        "mask": indexes(config.num_multimask_outputs + 1),
        "norm": indexes(4, start=1),
        "memory_norm": indexes(3, start=1),
        "two": indexes(2, start=1),
        "fuser": indexes(2),
        "attention": texts("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token"),
        "looks": texts("self_attn", "cross_attn_image"),
        "projection": [
            *texts("q_proj", "k_proj", "v_proj"),
            {"native": "out_proj", OFFICIAL: "out_proj", HUGGING_FACE: "o_proj"},
        ],
        "three": mlp_layers(3),
        "hyper": mlp_layers(HYPERNETWORK_DEPTH),
        "head": mlp_layers(config.iou_head_depth),
        # Convolution, norm and GELU in turn, numbered together by the original.
        "halving": _halvings(halvings, 0),
        "halving_norm": _halvings(halvings, 1),
    }
    out_conv = under(
        _MEMORY_ENCODER,
        "mask_downsampler/out_conv",
        f"mask_downsampler.encoder.{3 * halvings}",
        "mask_downsampler.final_conv",
    )
    rows = [*_ENCODER_ROWS, *prompt_rows("sam_prompt_encoder"), *_DECODER_ROWS, *_MEMORY_ROWS]
    rows += layer(*out_conv, POINTWISE)
    rows += [_OCCLUSION_ROW] if config.occlusion_embedding else []
    rows += _POINTER_TIME_ROWS if config.pointer_times else ()
    return expand(rows, ranges)


def points_apart(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Hugging Face's tensors with the rows of the table of points under names of their own."""
    table = tensors.get(f"{_POINTS}.weight")
    rest = {name: value for name, value in tensors.items() if name != f"{_POINTS}.weight"}
    if table is None:
        return rest
    if table.ndim != 2:
        return dict(tensors)  # refused as unexpected
    return {**rest, **{f"{_POINTS}.{i}.weight": table[i : i + 1] for i in range(len(table))}}


def points_together(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The other way round."""
    names = [name for name in tensors if name.startswith(f"{_POINTS}.")]
    rest = {name: value for name, value in tensors.items() if name not in names}
    return {**rest, f"{_POINTS}.weight": np.concatenate([tensors[name] for name in sorted(names)])}


def _halvings(count: int, place: int) -> list[Mapping[str, str]]:
    return [
        {"native": str(i), OFFICIAL: str(3 * i + place), HUGGING_FACE: str(i)} for i in range(count)
    ]


def is_sam2(names: Iterable[str]) -> bool:
    """Whether tensors are named as those of SAM 2 are, in either naming."""
    marks = (
        "image_encoder.trunk.",
        "vision_encoder.backbone.",
        "memory_attention.",
        "memory_encoder.",
        "sam_mask_decoder.",
        "sam_prompt_encoder.",
    )
    return any(name.startswith(marks) for name in names)
