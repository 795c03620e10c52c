"""The shipped model's architecture in miniature, for tests that compile much of it."""

from dataclasses import replace

from sam_jax.configs import TINY, HybridEncoderConfig

SMALL_HYBRID = replace(
    TINY,
    name="small_hybrid",
    image_encoder=HybridEncoderConfig(
        stem_dims=(4, 6, 8), embed_dim=16, depth=2, num_heads=2, mlp_dim=24, table_size_hw=(3, 3)
    ),
    image_size=64,
    embed_dim=16,
    decoder_num_heads=2,
    decoder_mlp_dim=16,
    iou_head_hidden_dim=16,
)
