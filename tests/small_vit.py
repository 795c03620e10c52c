"""A small model of SAM's own architecture with trained weights, which the original runs too."""

from pathlib import Path

from sam_jax.configs import ImageEncoderConfig, SamConfig

# The name is the one in its checkpoint. Its patches are finer than the original's.
SMALL_VIT = SamConfig(
    name="tiny",
    image_encoder=ImageEncoderConfig(
        patch_size=8,
        embed_dim=128,
        depth=6,
        num_heads=4,
        mlp_dim=384,
        window_size=8,
        global_attention_indexes=(2, 5),
        table_size_hw=(32, 32),
    ),
    image_size=256,
    embed_dim=96,
    decoder_num_heads=4,
    decoder_mlp_dim=256,
    iou_head_hidden_dim=96,
)
# Trained on drawn scenes.
SMALL_VIT_CHECKPOINT = Path(__file__).parent / "weights" / "trained_vit"
