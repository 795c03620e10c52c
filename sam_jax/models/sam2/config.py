"""Architectures of SAM 2 and SAM 2.1 as frozen values (SAM 2 section C.1; the released configs)."""

from dataclasses import dataclass, replace
from typing import Literal

from sam_jax.models.config import (
    ModelConfig,
    check_limits,
    check_rules,
    decoder_limits,
    decoder_rules,
)


@dataclass(frozen=True)
class HieraConfig:
    """A hierarchical ViT: stages of blocks, each of half the resolution and twice the width.

    Attributes:
      embed_dim: channels of the first stage.
      num_heads: its heads; both double with every stage.
      stages: blocks of each stage.
      global_attention_indexes: blocks that attend over the whole grid.
      window_sizes: tokens along a window, for each stage.
      background_size: side of the stored grid of positions; it is resized, and a smaller one of a
        window's size is tiled on top.
    """

    embed_dim: int = 96
    num_heads: int = 1
    stages: tuple[int, ...] = (1, 2, 7, 2)
    global_attention_indexes: tuple[int, ...] = (5, 7, 9)
    window_sizes: tuple[int, ...] = (8, 4, 14, 7)
    background_size: int = 7

    @property
    def patch_size(self) -> int:
        """Pixels along one token of the embedding, which is that of the last stage but one."""
        return 4 << (len(self.stages) - 2)

    @property
    def depth(self) -> int:
        """Blocks of all stages."""
        return sum(self.stages)


@dataclass(frozen=True)
class Sam2Config(ModelConfig):
    """One SAM 2 model: image encoder, prompt encoder, mask decoder, and a memory of past frames.

    `image_size` is the side in pixels to which images and frames are stretched.

    Attributes:
      image_encoder: the Hiera.
      memory_dim: channels of a memory.
      memory_attention_depth: layers in which a frame attends to its memories.
      memory_mlp_dim: channels in their MLPs.
      num_memories: kinds of memory: of frames with prompts, and of the frame k steps before, for k
        from 1.
      max_pointers: frames, at most, from which object pointers are seen.
      occlusion_embedding: whether a memory says that its object is hidden (2.1).
      pointer_times: whether pointers say how long ago they were (2.1).
    """

    image_encoder: HieraConfig = HieraConfig()
    memory_dim: int = 64
    memory_attention_depth: int = 4
    memory_mlp_dim: int = 2048
    num_memories: int = 7
    max_pointers: int = 16
    occlusion_embedding: bool = True
    pointer_times: bool = True

    @property
    def fit(self) -> Literal["pad", "stretch"]:
        """Images and frames are stretched to the square."""
        return "stretch"

    @property
    def has_finer_features(self) -> bool:
        """Always: what the trunk saw at 1/8 and 1/4 of the resolution."""
        return True

    @property
    def grid_size(self) -> int:
        """Rows and columns of tokens of an image's embedding."""
        return self.image_size // self.image_encoder.patch_size


SAM2_1_TINY = Sam2Config(name="sam2.1_tiny")
SAM2_1_SMALL = replace(
    SAM2_1_TINY,
    name="sam2.1_small",
    image_encoder=HieraConfig(stages=(1, 2, 11, 2), global_attention_indexes=(7, 10, 13)),
)
SAM2_1_BASE_PLUS = replace(
    SAM2_1_TINY,
    name="sam2.1_base_plus",
    image_encoder=HieraConfig(
        embed_dim=112,
        num_heads=2,
        stages=(2, 3, 16, 3),
        global_attention_indexes=(12, 16, 20),
        background_size=14,
    ),
)
SAM2_1_LARGE = replace(
    SAM2_1_TINY,
    name="sam2.1_large",
    image_encoder=HieraConfig(
        embed_dim=144,
        num_heads=2,
        stages=(2, 6, 36, 4),
        global_attention_indexes=(23, 33, 43),
        window_sizes=(8, 4, 16, 8),
    ),
)


def _of_2024(config: Sam2Config) -> Sam2Config:
    """The first release of a model, without what 2.1 added."""
    name = config.name.replace("2.1", "2")
    return replace(config, name=name, occlusion_embedding=False, pointer_times=False)


SAM2_TINY, SAM2_SMALL, SAM2_BASE_PLUS, SAM2_LARGE = map(
    _of_2024, (SAM2_1_TINY, SAM2_1_SMALL, SAM2_1_BASE_PLUS, SAM2_1_LARGE)
)
# Every part of the real thing in miniature: windows that do not divide the grid, a pooled window, a
# global block. What the original fixes in its code, which is a reference for tests, is as there.
SAM2_TEST = Sam2Config(
    name="sam2_test",
    image_encoder=HieraConfig(
        embed_dim=8,
        stages=(1, 1, 2, 1),
        global_attention_indexes=(3,),
        window_sizes=(8, 4, 6, 3),
        background_size=5,
    ),
    image_size=128,
    embed_dim=32,
    memory_dim=8,
    memory_attention_depth=2,
    memory_mlp_dim=64,
)

SAM2_CONFIGS = {
    config.name: config
    for config in (
        SAM2_1_TINY,
        SAM2_1_SMALL,
        SAM2_1_BASE_PLUS,
        SAM2_1_LARGE,
        SAM2_TINY,
        SAM2_SMALL,
        SAM2_BASE_PLUS,
        SAM2_LARGE,
        SAM2_TEST,
    )
}


def check_sam2_config(config: Sam2Config) -> None:
    """Refuses configurations that describe no model, or one too large to be meant.

    Raises:
      CheckpointError: with the field and what it may be.
    """
    hiera = config.image_encoder
    limits = {
        "image_encoder.embed_dim": (hiera.embed_dim, 1, 4096),
        "image_encoder.num_heads": (hiera.num_heads, 1, 256),
        "image_encoder.background_size": (hiera.background_size, 1, 1024),
        "depth": (hiera.depth, 1, 256),
        "memory_dim": (config.memory_dim, 4, 16384),
        "memory_attention_depth": (config.memory_attention_depth, 1, 64),
        "memory_mlp_dim": (config.memory_mlp_dim, 1, 65536),
        "num_memories": (config.num_memories, 2, 256),
        "max_pointers": (config.max_pointers, 2, 1024),
    }
    check_limits({**limits, **decoder_limits(config)})
    windows = hiera.window_sizes
    coarsest = 2 * hiera.patch_size
    rules = {
        "image_encoder.stages must be four numbers above 0": len(hiera.stages) == 4
        and min(hiera.stages) > 0,
        "image_encoder.window_sizes must be four numbers to 1024, the first three even": len(
            windows
        )
        == 4
        and all(0 < size <= 1024 for size in windows)
        and not any(size % 2 for size in windows[:-1]),
        "image_encoder.num_heads must divide image_encoder.embed_dim": hiera.embed_dim
        % hiera.num_heads
        == 0,
        "global_attention_indexes must be below the number of blocks, and no first of a stage": all(
            0 <= i < hiera.depth and i not in _stage_starts(hiera)
            for i in hiera.global_attention_indexes
        ),
        f"image_size must be a multiple of {coarsest}": config.image_size % coarsest == 0,
        "the first window must divide the grid of the first stage": config.image_size
        % (4 * windows[0])
        == 0,
        "memory_dim must be a multiple of 4 and divide embed_dim": config.memory_dim % 4 == 0
        and config.embed_dim % config.memory_dim == 0,
        **decoder_rules(config),
    }
    check_rules(rules)


def _stage_starts(hiera: HieraConfig) -> list[int]:
    """The first blocks of all stages but the first, which halve the grid."""
    return [sum(hiera.stages[:i]) for i in range(1, len(hiera.stages))]
