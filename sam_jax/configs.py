"""Architectures as frozen values; the presets differ only in what `dataclasses.replace` changes."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sam_jax.errors import CheckpointError, InputError


@dataclass(frozen=True)
class ImageEncoderConfig:
    """A plain ViT with windowed and global attention (SAM section A.5, ViTDet).

    `table_size_hw` is the token grid that the position tables are stored for. The encoder
    resizes them when it is given another grid.
    """

    patch_size: int = 16
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072
    window_size: int = 14
    global_attention_indexes: tuple[int, ...] = (2, 5, 8, 11)
    table_size_hw: tuple[int, int] = (64, 64)

    @property
    def token_size(self) -> int:
        """Pixels along one token of the blocks."""
        return self.patch_size


@dataclass(frozen=True)
class HybridEncoderConfig:
    """Convolutions where pixels are many, attention where they are few: for small models.

    Attributes:
      stem_dims: channels at 1/2, 1/4 and 1/8 of the resolution, which convolutions work on.
      embed_dim: channels at 1/16 of it, where the blocks are, each over the whole grid.
      depth: blocks.
      num_heads: of their attention.
      mlp_dim: channels in their MLPs.
      table_size_hw: the grid of 1/16 that the position tables are stored for; the encoder resizes
        them when it is given another one.
    """

    stem_dims: tuple[int, int, int] = (16, 48, 96)
    embed_dim: int = 192
    depth: int = 6
    num_heads: int = 4
    mlp_dim: int = 576
    table_size_hw: tuple[int, int] = (16, 16)

    @property
    def patch_size(self) -> int:
        """Pixels along one pixel of the embedding."""
        return 8

    @property
    def token_size(self) -> int:
        """Pixels along one token of the blocks."""
        return 16


@dataclass(frozen=True)
class SamConfig:
    """One Segment Anything model: image encoder, prompt encoder and mask decoder.

    `image_size` is the length in pixels to which `Segmenter` scales an image's longest side; the
    model itself takes any height and width that are multiples of the patch size.
    """

    name: str
    image_encoder: ImageEncoderConfig | HybridEncoderConfig = ImageEncoderConfig()
    image_size: int = 1024
    embed_dim: int = 256
    mask_in_channels: int = 16
    decoder_depth: int = 2
    decoder_num_heads: int = 8
    decoder_mlp_dim: int = 2048
    attention_downsample_rate: int = 2
    num_multimask_outputs: int = 3
    iou_head_depth: int = 3
    iou_head_hidden_dim: int = 256
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    mask_threshold: float = 0.0

    @property
    def stretches(self) -> bool:
        """Whether images are stretched to the square, as for SAM 2; SAM's are padded."""
        return False

    @property
    def mask_input_size(self) -> int:
        """Side of the low-resolution logits and of mask prompts, in pixels (256 at 1024)."""
        return 4 * self.image_size // self.image_encoder.patch_size

    @property
    def detail_channels(self) -> int:
        """Channels of an image's embedding that only the decoder's upscaling sees.

        A hybrid encoder hands on what it saw at 1/4 and 1/2 of the resolution: 4 and 16 pixels in
        each of the embedding's.
        """
        if isinstance(self.image_encoder, HybridEncoderConfig):
            return 4 * (self.embed_dim // 4) + 16 * (self.embed_dim // 8)
        return 0

    @property
    def embedding_channels(self) -> int:
        """All channels of an image's embedding, as `Sam.encode_image` gives it."""
        return self.embed_dim + self.detail_channels


VIT_B = SamConfig(name="vit_b")
VIT_L = replace(
    VIT_B,
    name="vit_l",
    image_encoder=ImageEncoderConfig(
        embed_dim=1024,
        depth=24,
        num_heads=16,
        mlp_dim=4096,
        global_attention_indexes=(5, 11, 17, 23),
    ),
)
VIT_H = replace(
    VIT_B,
    name="vit_h",
    image_encoder=ImageEncoderConfig(
        embed_dim=1280,
        depth=32,
        num_heads=16,
        mlp_dim=5120,
        global_attention_indexes=(7, 15, 23, 31),
    ),
)
# The shipped model: its embedding has 1/8 of the resolution, because with the usual 1/16 the masks
# of a 256-pixel input would be 64 pixels wide.
TINY = SamConfig(
    name="tiny",
    image_encoder=HybridEncoderConfig(),
    image_size=256,
    embed_dim=96,
    decoder_num_heads=4,
    decoder_mlp_dim=256,
    iou_head_hidden_dim=96,
)
# Every part of the real thing in miniature: windows that do not divide the grid, a global block,
# three masks, and a decoder narrow enough to compile in seconds.
TEST = SamConfig(
    name="test",
    image_encoder=ImageEncoderConfig(
        embed_dim=32,
        depth=2,
        num_heads=2,
        mlp_dim=64,
        window_size=3,
        global_attention_indexes=(1,),
        table_size_hw=(8, 8),
    ),
    image_size=128,
    embed_dim=32,
    decoder_num_heads=2,
    decoder_mlp_dim=64,
    iou_head_hidden_dim=32,
)

CONFIGS = {config.name: config for config in (VIT_B, VIT_L, VIT_H, TINY, TEST)}


@dataclass(frozen=True)
class MaeConfig:
    """A masked autoencoder, which pre-trains an image encoder (He et al. 2021, arXiv 2111.06377).

    `patch_size` to `mlp_dim` are the encoder's; it has no windows, and attends over the patches
    that it sees. `image_size` is the side of the crops that it is trained on, in pixels; the model
    itself takes any height and width that are multiples of the patch size. With
    `normalize_targets`, each patch's pixels are to be predicted with mean 0 and variance 1.
    """

    name: str
    patch_size: int = 16
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072
    decoder_embed_dim: int = 512
    decoder_depth: int = 8
    decoder_num_heads: int = 16
    decoder_mlp_dim: int = 2048
    image_size: int = 224
    mask_ratio: float = 0.75
    normalize_targets: bool = True
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    @property
    def grid_size(self) -> int:
        """Rows and columns of patches of a training crop."""
        return self.image_size // self.patch_size

    def visible(self, patches: int) -> int:
        """How many of an image's patches the encoder sees."""
        # In this order, as the original: other orders of rounding differ by one for some ratios.
        return int(patches * (1 - self.mask_ratio))


# By the name of the model whose image encoder each pre-trains. The paper's largest has a finer
# patch than SAM's, and is brought to it afterwards (`train.mae.sam_encoder_from_mae`).
MAE_VIT_B = MaeConfig(name="vit_b")
MAE_VIT_L = replace(MAE_VIT_B, name="vit_l", embed_dim=1024, depth=24, num_heads=16, mlp_dim=4096)
MAE_VIT_H = replace(
    MAE_VIT_B,
    name="vit_h",
    patch_size=14,
    embed_dim=1280,
    depth=32,
    num_heads=16,
    mlp_dim=5120,
)
MAE_TEST = MaeConfig(
    name="test",
    embed_dim=32,
    depth=2,
    num_heads=2,
    mlp_dim=64,
    decoder_embed_dim=16,
    decoder_depth=1,
    decoder_num_heads=2,
    decoder_mlp_dim=32,
    image_size=64,
)

MAE_CONFIGS = {config.name: config for config in (MAE_VIT_B, MAE_VIT_L, MAE_VIT_H, MAE_TEST)}


def config_to_json(config: Any) -> dict[str, Any]:
    """The configuration as nested dicts of JSON values."""
    return dataclasses.asdict(config)


def config_from_json(values: Any, cls: Any = SamConfig) -> Any:
    """The configuration, of a class, that `config_to_json` wrote.

    Raises:
      CheckpointError: a key is missing or unknown, or a value has the wrong type.
    """
    return _dataclass_from_json(cls, values, "config")


def decoder_limits(config: Any) -> dict[str, tuple[int, int, int]]:
    """Value, least and largest of what SAM and SAM 2 have in common: all but the encoder."""
    return {
        "image_size": (config.image_size, 1, 32768),
        "embed_dim": (config.embed_dim, 8, 16384),
        "mask_in_channels": (config.mask_in_channels, 4, 16384),
        "decoder_depth": (config.decoder_depth, 1, 64),
        "decoder_num_heads": (config.decoder_num_heads, 1, 1024),
        "decoder_mlp_dim": (config.decoder_mlp_dim, 1, 65536),
        "attention_downsample_rate": (config.attention_downsample_rate, 1, 1024),
        "num_multimask_outputs": (config.num_multimask_outputs, 1, 64),
        "iou_head_depth": (config.iou_head_depth, 1, 64),
        "iou_head_hidden_dim": (config.iou_head_hidden_dim, 1, 65536),
    }


def check_limits(limits: Mapping[str, tuple[int, int, int]]) -> None:
    """Refuses the first value that is not between its limits.

    Args:
      limits: value, least and largest, by the field's name.

    Raises:
      CheckpointError: with the field and what it may be.
    """
    for name, (value, low, high) in limits.items():
        if not low <= value <= high:
            raise CheckpointError(f"{name} must be between {low} and {high}, not {str(value)[:20]}")


def check_config(config: SamConfig) -> None:
    """Refuses configurations that describe no model, or one too large to be meant.

    Raises:
      CheckpointError: with the field and what it may be.
    """
    vit = config.image_encoder
    limits = {
        "patch_size": (vit.patch_size, 1, 256),
        "image_encoder.embed_dim": (vit.embed_dim, 1, 16384),
        "depth": (vit.depth, 1, 128),
        "num_heads": (vit.num_heads, 1, 1024),
        "image_encoder.mlp_dim": (vit.mlp_dim, 1, 65536),
    }
    for i, size in enumerate(vit.table_size_hw):
        limits[f"table_size_hw[{i}]"] = (size, 1, 2048)
    global_blocks: tuple[int, ...] = ()
    if isinstance(vit, HybridEncoderConfig):
        limits |= {f"stem_dims[{i}]": (dim, 1, 4096) for i, dim in enumerate(vit.stem_dims)}
    else:
        limits["window_size"] = (vit.window_size, 0, 1024)
        global_blocks = vit.global_attention_indexes
    check_limits({**limits, **decoder_limits(config)})
    rules = {
        "table_size_hw must be two numbers": len(vit.table_size_hw) == 2,
        "stem_dims must be three numbers": not isinstance(vit, HybridEncoderConfig)
        or len(vit.stem_dims) == 3,
        "global_attention_indexes must be below depth": all(
            0 <= i < vit.depth for i in global_blocks
        ),
        "num_heads must divide image_encoder.embed_dim": vit.embed_dim % vit.num_heads == 0,
        "image_size must be a multiple of patch_size": config.image_size % vit.patch_size == 0,
        "embed_dim must be a multiple of 8": config.embed_dim % 8 == 0,
        "mask_in_channels must be a multiple of 4": config.mask_in_channels % 4 == 0,
        "decoder_num_heads x attention_downsample_rate must divide embed_dim": config.embed_dim
        % (config.decoder_num_heads * config.attention_downsample_rate)
        == 0,
        "pixel_mean must be three finite numbers": len(config.pixel_mean) == 3
        and all(map(math.isfinite, config.pixel_mean)),
        "pixel_std must be three positive numbers": len(config.pixel_std) == 3
        and all(0 < value < math.inf for value in config.pixel_std),
        "mask_threshold must be finite": math.isfinite(config.mask_threshold),
    }
    for rule, holds in rules.items():
        if not holds:
            raise CheckpointError(rule)


def check_mae_config(config: MaeConfig) -> None:
    """Refuses configurations that describe no masked autoencoder.

    Raises:
      InputError: with the fields and what they may be.
    """
    for name, value in vars(config).items():
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise InputError(f"{name} must be at least 1, not {value}")
    tokens = config.grid_size**2
    rules = {
        "image_size must be a multiple of patch_size": config.image_size % config.patch_size == 0,
        "num_heads must divide embed_dim": config.embed_dim % config.num_heads == 0,
        "decoder_num_heads must divide decoder_embed_dim": config.decoder_embed_dim
        % config.decoder_num_heads
        == 0,
        # Sines and cosines of two axes.
        "embed_dim and decoder_embed_dim must be multiples of 4": config.embed_dim % 4 == 0
        and config.decoder_embed_dim % 4 == 0,
        "mask_ratio must leave some of an image's patches visible and mask others": 0
        < config.mask_ratio
        < 1
        and 0 < config.visible(tokens) < tokens,
        "pixel_mean must be three finite numbers": len(config.pixel_mean) == 3
        and all(map(math.isfinite, config.pixel_mean)),
        "pixel_std must be three positive numbers": len(config.pixel_std) == 3
        and all(0 < value < math.inf for value in config.pixel_std),
    }
    for rule, holds in rules.items():
        if not holds:
            raise InputError(rule)


def _dataclass_from_json(cls: Any, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise CheckpointError(f"{where} must be a JSON object, not {type(values).__name__}")
    hints = typing.get_type_hints(cls)
    if values.keys() != hints.keys():
        missing = sorted(hints.keys() - values.keys())
        unknown = sorted(values.keys() - hints.keys(), key=str)
        raise CheckpointError(f"{where}: missing keys {missing}, unknown keys {unknown}")
    fields = {
        key: _value_from_json(hint, values[key], f"{where}.{key}") for key, hint in hints.items()
    }
    return cls(**fields)


def _value_from_json(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, types.UnionType):
        # Of several classes, the one whose first key is there.
        kinds = typing.get_args(hint)
        given = value if isinstance(value, dict) else {}
        matching = [kind for kind in kinds if dataclasses.fields(kind)[0].name in given]
        hint = (matching or kinds)[0]
    if dataclasses.is_dataclass(hint):
        return _dataclass_from_json(hint, value, where)
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        if not isinstance(value, (list, tuple)):
            raise CheckpointError(f"{where} must be a list, not {value!r}")
        length = len(typing.get_args(hint))
        if typing.get_args(hint)[-1] is not Ellipsis and len(value) != length:
            raise CheckpointError(f"{where} must be a list of {length}, not {value!r}")
        return tuple(_value_from_json(item, v, f"{where}[{i}]") for i, v in enumerate(value))
    accepted = (int, float) if hint is float else hint
    if not isinstance(value, accepted) or isinstance(value, bool) != (hint is bool):
        raise CheckpointError(f"{where} must be {hint.__name__}, not {value!r}")
    return hint(value)
