"""Masked autoencoders as frozen values."""

from dataclasses import dataclass, replace

from sam_jax.errors import InputError
from sam_jax.models.config import pixel_rules


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
# patch than SAM's, and is brought to it afterwards (`train.mae.mae.sam_encoder_from_mae`).
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
        **pixel_rules(config),
    }
    for rule, holds in rules.items():
        if not holds:
            raise InputError(rule)
