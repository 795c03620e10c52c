"""SAM's architectures as frozen values; presets differ only in what `replace` changes."""

from dataclasses import dataclass, replace

from sam_jax.models.config import (
    ModelConfig,
    check_limits,
    check_rules,
    decoder_limits,
    decoder_rules,
)


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
class SamConfig(ModelConfig):
    """One Segment Anything model: image encoder, prompt encoder and mask decoder.

    `Segmenter` scales an image's longest side to `image_size` and pads the other.
    """

    image_encoder: ImageEncoderConfig | HybridEncoderConfig = ImageEncoderConfig()

    @property
    def has_finer_features(self) -> bool:
        """Whether the encoder is a hybrid one, which hands on what it saw at 1/4 and 1/2."""
        return isinstance(self.image_encoder, HybridEncoderConfig)


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
        **decoder_rules(config),
    }
    check_rules(rules)
