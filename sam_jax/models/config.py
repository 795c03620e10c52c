"""What the configurations of all families have: input, prompt encoder and mask decoder."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sam_jax.errors import CheckpointError
from sam_jax.models.input_frame import InputFrame


@dataclass(frozen=True)
class ModelConfig:
    """One model of a family, which adds its `image_encoder` and what else it has.

    `image_size` is the side of the model's input in pixels; the model itself takes any height and
    width that are multiples of the patch size.
    """

    name: str
    # Each family's own; its `patch_size` is the number of pixels along one of the embedding.
    image_encoder: Any = None
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
    def fit(self) -> Literal["pad", "stretch"]:
        """Whether images are padded to the square of the input, or stretched to it."""
        return "pad"

    @property
    def frame(self) -> InputFrame:
        """How images get into the model's input."""
        return InputFrame(self.image_size, self.fit, self.pixel_mean, self.pixel_std)

    @property
    def mask_input_size(self) -> int:
        """Side of the low-resolution logits and of mask prompts, in pixels (256 at 1024)."""
        return 4 * self.image_size // self.image_encoder.patch_size

    @property
    def has_finer_features(self) -> bool:
        """Whether the encoder hands features of finer resolutions to the decoder's upscaling."""
        return False

    def feature_shapes(self, side: int) -> tuple[tuple[int, int, int], ...]:
        """Shapes of an image's features: the embedding, of that side, and finer ones."""
        embedding, dim = (side, side, self.embed_dim), self.embed_dim
        if not self.has_finer_features:
            return (embedding,)
        return embedding, (2 * side, 2 * side, dim // 4), (4 * side, 4 * side, dim // 8)


def decoder_limits(config: ModelConfig) -> dict[str, tuple[int, int, int]]:
    """Value, least and largest of the fields that all families have."""
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


def decoder_rules(config: ModelConfig) -> dict[str, bool]:
    """What must hold of the fields that all families have."""
    return {
        "embed_dim must be a multiple of 8": config.embed_dim % 8 == 0,
        "mask_in_channels must be a multiple of 4": config.mask_in_channels % 4 == 0,
        "decoder_num_heads x attention_downsample_rate must divide embed_dim": config.embed_dim
        % (config.decoder_num_heads * config.attention_downsample_rate)
        == 0,
        **pixel_rules(config),
        "mask_threshold must be finite": math.isfinite(config.mask_threshold),
    }


def pixel_rules(config: Any) -> dict[str, bool]:
    """What must hold of `pixel_mean` and `pixel_std`."""
    return {
        "pixel_mean must be three finite numbers": len(config.pixel_mean) == 3
        and all(map(math.isfinite, config.pixel_mean)),
        "pixel_std must be three positive numbers": len(config.pixel_std) == 3
        and all(0 < value < math.inf for value in config.pixel_std),
    }


def check_rules(rules: Mapping[str, bool]) -> None:
    """Refuses the first that does not hold.

    Raises:
      CheckpointError: its text.
    """
    for rule, holds in rules.items():
        if not holds:
            raise CheckpointError(rule)
