"""The original PyTorch code of SAM 2, where it is installed: the reference."""

import importlib.util
from functools import partial
from typing import Any

from sam_jax.errors import InputError
from sam_jax.models.sam2.config import Sam2Config

_INSTALL = (
    "comparing with the original of SAM 2 needs PyTorch and the original code; run `pip install "
    "torch hydra-core iopath`, then `SAM2_BUILD_CUDA=0 pip install --no-build-isolation --no-deps "
    "sam2==1.1.0`"
)


def build_original_sam2(config: Sam2Config, **options: Any) -> Any:
    """The original's video predictor for a configuration, on the CPU, weights at random.

    It is the base model with methods of its own, so it serves for images too.

    Args:
      config: what it is to be.
      **options: of the original's `SAM2VideoPredictor`, such as `fill_hole_area`.

    Raises:
      InputError: PyTorch or the original is not installed, or the configuration is one that the
        original cannot express.
    """
    if any(importlib.util.find_spec(name) is None for name in ("torch", "sam2")):
        raise InputError(_INSTALL)
    fixed = (
        config.mask_in_channels,
        config.decoder_depth,
        config.decoder_num_heads,
        config.decoder_mlp_dim,
        config.iou_head_depth,
        config.iou_head_hidden_dim,
        config.num_multimask_outputs,
    )
    if fixed != (16, 2, 8, 2048, 3, 256, 3):
        raise InputError("the original of SAM 2 has one size of prompt encoder and mask decoder")
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
    from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
    from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
    from sam2.modeling.position_encoding import PositionEmbeddingSine
    from sam2.modeling.sam.transformer import RoPEAttention
    from sam2.sam2_video_predictor import SAM2VideoPredictor

    hiera, dim, memory_dim = config.image_encoder, config.embed_dim, config.memory_dim
    trunk = Hiera(
        embed_dim=hiera.embed_dim,
        num_heads=hiera.num_heads,
        stages=hiera.stages,
        window_pos_embed_bkg_spatial_size=(hiera.background_size,) * 2,
        window_spec=hiera.window_sizes,
        global_att_blocks=hiera.global_attention_indexes,
    )
    sines = partial(PositionEmbeddingSine, normalize=True, scale=None, temperature=10000)
    neck = FpnNeck(
        sines(dim),
        dim,
        trunk.channel_list,
        fpn_top_down_levels=[2, 3],
        fpn_interp_model="nearest",
    )
    attention = partial(
        RoPEAttention,
        rope_theta=10000.0,
        feat_sizes=(config.grid_size,) * 2,
        embedding_dim=dim,
        num_heads=1,
        downsample_rate=1,
        dropout=0.1,
    )
    layer = MemoryAttentionLayer(
        activation="relu",
        dim_feedforward=config.memory_mlp_dim,
        dropout=0.1,
        pos_enc_at_attn=False,
        self_attention=attention(),
        d_model=dim,
        pos_enc_at_cross_attn_keys=True,
        pos_enc_at_cross_attn_queries=False,
        cross_attention=attention(rope_k_repeat=True, kv_in_dim=memory_dim),
    )
    memory_encoder = MemoryEncoder(
        out_dim=memory_dim,
        position_encoding=sines(memory_dim),
        mask_downsampler=MaskDownSampler(dim, kernel_size=3, stride=2, padding=1),
        fuser=Fuser(CXBlock(dim, kernel_size=7, padding=3), num_layers=2),
        in_dim=dim,
    )
    times = config.pointer_times
    model = SAM2VideoPredictor(
        image_encoder=ImageEncoder(trunk, neck, scalp=1),
        memory_attention=MemoryAttention(
            d_model=dim,
            pos_enc_at_input=True,
            layer=layer,
            num_layers=config.memory_attention_depth,
        ),
        memory_encoder=memory_encoder,
        num_maskmem=config.num_memories,
        image_size=config.image_size,
        backbone_stride=hiera.patch_size,
        sigmoid_scale_for_mem_enc=20.0,
        sigmoid_bias_for_mem_enc=-10.0,
        use_mask_input_as_output_without_sam=True,
        directly_add_no_mem_embed=True,
        no_obj_embed_spatial=config.occlusion_embedding,
        use_high_res_features_in_sam=True,
        multimask_output_in_sam=True,
        iou_prediction_use_sigmoid=True,
        use_obj_ptrs_in_encoder=True,
        max_obj_ptrs_in_encoder=config.max_pointers,
        add_tpos_enc_to_obj_ptrs=times,
        proj_tpos_enc_in_obj_ptrs=times,
        use_signed_tpos_enc_to_obj_ptrs=times,
        only_obj_ptrs_in_the_past_for_eval=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        fixed_no_obj_ptr=True,
        multimask_output_for_tracking=True,
        use_multimask_token_for_obj_ptr=True,
        multimask_min_pt_num=0,
        multimask_max_pt_num=1,
        use_mlp_for_obj_ptr_proj=True,
        **options,
    )
    return model.eval()
