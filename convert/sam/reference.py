"""The original PyTorch model, where PyTorch and its package are installed: the reference."""

import importlib
import importlib.util
import sys
from functools import cache, partial
from types import ModuleType
from typing import Any

from sam_jax.configs import ImageEncoderConfig, SamConfig
from sam_jax.errors import InputError

_PACKAGE = "segment_anything"


def build_original(config: SamConfig) -> Any:
    """The original's model for a configuration, on the CPU, its weights at their random start.

    Raises:
      InputError: PyTorch or the original is not installed, or the configuration is one that the
        original cannot express.
    """
    vit = config.image_encoder
    if not isinstance(vit, ImageEncoderConfig):
        raise InputError(f"{config.name} has an image encoder of our own, which the original lacks")
    height, width = vit.table_size_hw
    if height != width:
        raise InputError(
            f"the original takes square inputs only, and this model's tables are {height}x{width}"
        )
    parts = _modeling()
    import torch

    image_size = height * vit.patch_size
    encoder = parts.ImageEncoderViT(
        img_size=image_size,
        patch_size=vit.patch_size,
        embed_dim=vit.embed_dim,
        depth=vit.depth,
        num_heads=vit.num_heads,
        mlp_ratio=vit.mlp_dim / vit.embed_dim,
        out_chans=config.embed_dim,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=vit.window_size,
        global_attn_indexes=vit.global_attention_indexes,
    )
    prompt_encoder = parts.PromptEncoder(
        embed_dim=config.embed_dim,
        image_embedding_size=(height, width),
        input_image_size=(image_size, image_size),
        mask_in_chans=config.mask_in_channels,
    )
    mask_decoder = parts.MaskDecoder(
        num_multimask_outputs=config.num_multimask_outputs,
        transformer=parts.TwoWayTransformer(
            depth=config.decoder_depth,
            embedding_dim=config.embed_dim,
            num_heads=config.decoder_num_heads,
            mlp_dim=config.decoder_mlp_dim,
            attention_downsample_rate=config.attention_downsample_rate,
        ),
        transformer_dim=config.embed_dim,
        iou_head_depth=config.iou_head_depth,
        iou_head_hidden_dim=config.iou_head_hidden_dim,
    )
    model = parts.Sam(encoder, prompt_encoder, mask_decoder)
    return model.eval()


@cache
def _modeling() -> ModuleType:
    """The original's `modeling` package.

    The package around it imports torchvision for its predictor, which nothing here needs: unless it
    is loaded already, an empty module takes its place while `modeling` is imported.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or importlib.util.find_spec("torch") is None:
        raise InputError(
            "comparing with the original needs PyTorch and the original code; "
            "run `pip install torch segment-anything`"
        )
    if _PACKAGE in sys.modules:
        return importlib.import_module(f"{_PACKAGE}.modeling")
    bare = ModuleType(_PACKAGE)
    bare.__path__ = list(spec.submodule_search_locations or [])
    sys.modules[_PACKAGE] = bare
    try:
        return importlib.import_module(f"{_PACKAGE}.modeling")
    finally:
        # Whoever imports the package later gets all of it.
        for name in [n for n in sys.modules if n.split(".")[0] == _PACKAGE]:
            del sys.modules[name]
