"""The configuration of a SAM file, told from its tensors' names and shapes."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from convert.sam.table import entries
from convert.tables import HUGGING_FACE, OFFICIAL, Shape
from sam_jax.configs import CONFIGS, ImageEncoderConfig, SamConfig, check_config
from sam_jax.errors import CheckpointError

# Where each naming counts blocks and layers.
_BLOCKS = {OFFICIAL: "image_encoder.blocks.", HUGGING_FACE: "vision_encoder.layers."}
_LAYERS = "mask_decoder.transformer.layers."
_HYPERNETWORKS = "mask_decoder.output_hypernetworks_mlps."
_HEAD = "mask_decoder.iou_prediction_head."
_MAX_COUNT = 128
_MAX_CONFIG_BYTES = 1 << 20

_VIT = "params/image_encoder"
_PROMPT = "params/prompt_encoder"
_DECODER = "params/mask_decoder"


def infer_config(
    shapes: Mapping[str, Shape], naming: str, decoder_num_heads: int | None = None
) -> SamConfig:
    """The configuration of a file.

    Tensors that say the same thing vote, so that one missing or misshapen tensor ends in a report
    about that tensor. Blocks whose tables of relative positions fit the position table are global;
    where all are, a window's size cannot be told and does not matter.

    What no shape tells is the decoder's number of heads, the pixel statistics and the threshold.
    They are those of the preset with the same shapes. Where there is none, they are the original's,
    which always has 8 heads; where 8 do not divide the decoder's channels, 4, 2 or 1.

    Args:
      shapes: of the file's tensors, by name.
      naming: that the names follow.
      decoder_num_heads: where the file comes with it.

    Raises:
      CheckpointError: no model has such shapes.
    """
    counts = SamConfig(
        name="custom",
        image_encoder=replace(ImageEncoderConfig(), depth=_count(shapes, _BLOCKS[naming])),
        decoder_depth=_count(shapes, _LAYERS),
        num_multimask_outputs=_count(shapes, _HYPERNETWORKS) - 1,
        iou_head_depth=len({n.rpartition(".")[0] for n in shapes if n.startswith(_HEAD)}) or 3,
    )
    found = _native_shapes(shapes, naming, counts)
    config = _infer_decoder(replace(counts, image_encoder=_infer_encoder(found, counts)), found)
    heads = decoder_num_heads or config.decoder_num_heads
    if decoder_num_heads is None:
        while heads > 1 and config.embed_dim % (heads * config.attention_downsample_rate):
            heads //= 2
    config = _named(replace(config, decoder_num_heads=heads), decoder_num_heads is not None)
    check_config(config)
    return config


def _infer_encoder(found: Mapping[str, Shape], counts: SamConfig) -> ImageEncoderConfig:
    default, depth = ImageEncoderConfig(), counts.image_encoder.depth
    blocks = [f"{_VIT}/blocks_{i}" for i in range(depth)]
    dim = _vote(
        found,
        default.embed_dim,
        (f"{_VIT}/patch_embed/bias", 0),
        (f"{_VIT}/pos_embed", 2),
        *((f"{block}/norm1/scale", 0) for block in blocks),
    )
    head_dim = _vote(found, 64, *((f"{block}/attn/rel_pos_h", 1) for block in blocks))
    lengths_hw = [
        tuple(found.get(f"{block}/attn/rel_pos_{axis}", (0,))[0] for axis in "hw")
        for block in blocks
    ]
    # A table for n positions has 2n - 1 rows; where one of the two is missing, the other tells.
    sizes_hw = [((h or w) // 2 + 1, (w or h) // 2 + 1) if h or w else None for h, w in lengths_hw]
    known = [size for size in sizes_hw if size]
    table = found.get(f"{_VIT}/pos_embed", (0, 0))[:2]
    if table not in known and len(set(known)) > 1:
        table = max(known)  # the position table is missing or misshapen
    table_hw = (table[0], table[-1]) if all(table) else default.table_size_hw
    windows = Counter(size[0] for size in known if size != table_hw)
    return ImageEncoderConfig(
        patch_size=_vote(found, default.patch_size, (f"{_VIT}/patch_embed/kernel", 0)),
        embed_dim=dim,
        depth=depth,
        num_heads=max(dim // max(head_dim, 1), 1),
        mlp_dim=_vote(found, default.mlp_dim, *_hidden(f"{block}/mlp" for block in blocks)),
        window_size=windows.most_common(1)[0][0] if windows else default.window_size,
        global_attention_indexes=tuple(i for i, size in enumerate(sizes_hw) if size == table_hw),
        table_size_hw=table_hw,
    )


def _infer_decoder(config: SamConfig, found: Mapping[str, Shape]) -> SamConfig:
    vit = config.image_encoder
    dim = _vote(
        found,
        config.embed_dim,
        (f"{_VIT}/neck/norm1/scale", 0),
        (f"{_VIT}/neck/norm2/scale", 0),
        (f"{_PROMPT}/no_mask_embed", 0),
        (f"{_PROMPT}/not_a_point_embed", 0),
        (f"{_DECODER}/iou_token", 0),
    )
    attention = f"{_DECODER}/transformer/final_attn_token_to_image"
    internal_dim = _vote(found, dim, *((f"{attention}/{name}_proj/bias", 0) for name in "qkv"))
    head = f"{_DECODER}/iou_prediction_head"
    last = config.iou_head_depth - 1
    masks = _vote(
        found,
        config.num_multimask_outputs + 1,
        (f"{_DECODER}/mask_tokens", 0),
        (f"{head}/layers_{last}/bias", 0),
        told=(config.num_multimask_outputs + 1,),  # by the number of hypernetworks
    )
    layers = [f"{_DECODER}/transformer/layers_{i}" for i in range(config.decoder_depth)]
    return replace(
        config,
        image_size=vit.patch_size * max(vit.table_size_hw),
        embed_dim=dim,
        mask_in_channels=_vote(
            found,
            config.mask_in_channels,
            (f"{_PROMPT}/mask_downscaling/conv2/bias", 0),
            (f"{_PROMPT}/mask_downscaling/norm2/scale", 0),
            (f"{_PROMPT}/mask_downscaling/conv3/kernel", 2),
        ),
        decoder_mlp_dim=_vote(
            found, config.decoder_mlp_dim, *_hidden(f"{layer}/mlp" for layer in layers)
        ),
        attention_downsample_rate=max(dim // max(internal_dim, 1), 1),
        num_multimask_outputs=masks - 1,
        iou_head_hidden_dim=_vote(
            found,
            config.iou_head_hidden_dim,
            *((f"{head}/layers_{i}/bias", 0) for i in range(last)),
            *((f"{head}/layers_{i}/kernel", 1) for i in range(last)),
        ),
    )


def _hidden(mlps: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Where the hidden width of MLPs of two layers can be read."""
    for mlp in mlps:
        yield from ((f"{mlp}/lin1/bias", 0), (f"{mlp}/lin1/kernel", 1), (f"{mlp}/lin2/kernel", 0))


def _named(config: SamConfig, heads_known: bool) -> SamConfig:
    """The preset with these shapes, or the configuration as it is."""
    for preset in CONFIGS.values():
        unseen = {
            name: getattr(preset, name)
            for name in ("name", "pixel_mean", "pixel_std", "mask_threshold")
        }
        if not heads_known:
            unseen["decoder_num_heads"] = preset.decoder_num_heads
        if replace(config, **unseen) == preset:
            return preset
    return config


def _native_shapes(shapes: Mapping[str, Shape], naming: str, counts: SamConfig) -> dict[str, Shape]:
    """The shapes, in our layout, of the tensors that the table knows; of stacks, of one tensor."""
    found = {}
    for entry in entries(counts):
        present = [n for aliases in entry.names[naming] for n in aliases if n in shapes]
        shape = entry.row.layout.native_shape(shapes[present[0]]) if present else None
        if shape is not None:
            found[entry.native] = shape
    return found


def _count(names: Mapping[str, Shape], prefix: str) -> int:
    """How many blocks, layers or MLPs there are, counting those of which half is there."""
    matches = (re.match(re.escape(prefix) + r"(\d{1,6})\.", name) for name in names)
    per_index = Counter(int(match[1]) for match in matches if match)
    if not per_index:
        return 1
    half = max(per_index.values()) / 2
    count = 1 + max(index for index, tensors in per_index.items() if tensors >= half)
    if count > _MAX_COUNT:
        raise CheckpointError(f"it has {count} of {prefix}*, more than any model that can be meant")
    return count


def _vote(
    found: Mapping[str, Shape],
    default: int,
    *places: tuple[str, int],
    told: tuple[int, ...] = (),
) -> int:
    """The size that most of these (path, axis) have, of those that are there, and of `told`."""
    there = (found[path][axis] for path, axis in places if axis < len(found.get(path, ())))
    sizes = Counter([*there, *told])
    return sizes.most_common(1)[0][0] if sizes else default


def huggingface_heads(path: Path) -> int | None:
    """The decoder's number of heads, from the config.json beside the file, where there is one."""
    beside = path.with_name("config.json")
    try:
        if not beside.is_file() or beside.stat().st_size > _MAX_CONFIG_BYTES:
            return None
        values = json.loads(beside.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{beside} is damaged; get it again or remove it") from error
    decoder = values.get("mask_decoder_config") if isinstance(values, dict) else None
    heads = decoder.get("num_attention_heads") if isinstance(decoder, dict) else None
    return heads if type(heads) is int and heads > 0 else None
