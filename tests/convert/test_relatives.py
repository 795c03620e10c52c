"""Relatives are named for what they are, and no model that is read is taken for one."""

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import convert
from convert.relatives import describe_relative
from convert.sam import table as sam
from convert.sam2 import table as sam2
from convert.tables import NAMINGS
from sam_jax.configs import CONFIGS
from sam_jax.errors import CheckpointError
from sam_jax.models.sam2.config import SAM2_CONFIGS

SAM_DECODER = [
    *(f"prompt_encoder.point_embeddings.{i}.weight" for i in range(4)),
    "mask_decoder.iou_token.weight",
    "mask_decoder.mask_tokens.weight",
]
SAM2_DECODER = [f"sam_{name}" for name in SAM_DECODER] + ["memory_encoder.out_proj.weight"]
VIT = [
    "image_encoder.pos_embed",
    *(f"image_encoder.blocks.{i}.attn.{n}" for i in range(12) for n in ("qkv.weight", "rel_pos_h")),
]
HIERA = [f"image_encoder.trunk.blocks.{i}.norm1.weight" for i in range(12)]
TINY_VIT = [
    "image_encoder.patch_embed.seq.0.c.weight",
    "image_encoder.layers.0.blocks.0.conv1.c.weight",
    "image_encoder.layers.1.blocks.0.local_conv.c.weight",
]
HQ = ["hf_token.weight", "hf_mlp.layers.0.weight", "embedding_maskfeature.0.weight"]
RELATIVES = {
    "a MobileSAM or TinySAM": TINY_VIT + SAM_DECODER,
    "an HQ-SAM checkpoint": VIT
    + SAM_DECODER
    + [f"mask_decoder.{n}" for n in [*HQ, "compress_vit_feat.0.weight"]],
    "an HQ-SAM checkpoint (": [*HQ, "compress_vit_feat.0.weight", "embedding_encoder.0.weight"],
    "a light HQ-SAM": TINY_VIT + SAM_DECODER + [f"mask_decoder.{n}" for n in HQ],
    "an HQ-SAM 2": HIERA + SAM2_DECODER + [f"sam_mask_decoder.{n}" for n in HQ],
    "an EdgeTAM": ["image_encoder.trunk.body.stem.0.c.weight", *SAM2_DECODER],
    "an EdgeTAM checkpoint (SAM 2 with a RepViT image encoder and a perceiver": [
        "image_encoder.trunk.body.stem.0.c.weight",
        "spatial_perceiver.latents",
        *SAM2_DECODER,
    ],
    "an EfficientTAM": [*HIERA, "image_encoder.neck.convs.0.conv_1x1.weight", *SAM2_DECODER],
    "an EdgeSAM": [
        "image_encoder.features.0.0.c.weight", "image_encoder.fuse_stage2.weight", *SAM_DECODER,
    ],
    "an EfficientSAM": [
        *VIT,
        "prompt_encoder.invalid_points.weight",
        "prompt_encoder.point_embeddings.weight",
        "mask_decoder.final_output_upscaling_layers.0.0.weight",
    ],
    "an EfficientViT-SAM": ["image_encoder.backbone.input_stem.op_list.0.x", *SAM_DECODER],
    "a SAM 3": [
        "detector.backbone.vision_backbone.trunk.blocks.0.attn.qkv.weight",
        *(f"tracker.{name}" for name in SAM2_DECODER),
    ],
    "a SAM 3 checkpoint": ["detector_model.vision_encoder.backbone.x", "tracker_neck.y"],
    "a Segment Anything checkpoint with adapter layers": [
        *VIT, *SAM_DECODER, "image_encoder.blocks.0.Adapter.channel.0.weight",
    ],
    "a Segment Anything checkpoint with adapter layers in": [
        *VIT, *SAM_DECODER, "image_encoder.prompt_generator.shared_mlp.weight",
    ],
    "LoRA weights of Segment Anything": [
        *SAM_DECODER, "base_model.model.vision_encoder.layers.0.attn.qkv.lora_A.weight",
    ],
    "LoRA weights of SAMed": ["w_a_000", "w_b_000", *SAM_DECODER],
    "a YOLO or FastSAM": ["model.0.conv.weight", "model.22.cv2.0.0.conv.weight"],
    "a masked autoencoder": ["cls_token", "blocks.0.norm1.weight", "decoder_blocks.0.norm1.weight"],
    "a plain ViT or DINO backbone": ["cls_token", "blocks.0.norm1.weight", "blocks.0.ls1.gamma"],
    "Segment Anything's image encoder alone": VIT,
    "Segment Anything's image encoder alone; ": [n.removeprefix("image_encoder.") for n in VIT],
    "Segment Anything's prompt encoder and mask decoder alone": [
        *SAM_DECODER, *(f"mask_decoder.transformer.layers.{i}.norm1.weight" for i in range(4)),
    ],
    "SAM 2's image encoder alone": ["pos_embed_window", "blocks.0.norm1.weight"],
    "a mask decoder alone": ["iou_token.weight", "transformer.layers.0.norm1.weight"],
}  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("what", RELATIVES)
def test_a_relative_is_named_in_one_line(tmp_path, what, prefix):
    tensors = {prefix + name: torch.ones(2) for name in RELATIVES[what]}
    torch.save({"model": tensors, "epoch": 1}, tmp_path / "file.pt")
    with pytest.raises(CheckpointError) as error:
        convert.read_source(tmp_path / "file.pt")
    line = str(error.value)
    assert f"this is {what}" in line and "sam_jax does not read it" in line
    assert str(tmp_path / "file.pt") in line and "\n" not in line


def test_hugging_faces_hq_sam_is_named(tmp_path):
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        model = transformers.SamHQModel(transformers.SamHQConfig())
    names = list(model.state_dict())
    save_file({name: np.ones(1, np.float32) for name in names}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="this is an HQ-SAM checkpoint"):
        convert.read_source(tmp_path)


@pytest.mark.parametrize("naming", NAMINGS)
def test_no_model_that_is_read_is_a_relative(naming):
    configs = [config for config in CONFIGS.values() if config.name != "tiny"]
    tables = [sam.entries(config) for config in configs]
    tables += [sam2.entries(config) for config in SAM2_CONFIGS.values()]
    for entries in tables:
        names = [name for entry in entries for aliases in entry.names[naming] for name in aliases]
        assert describe_relative(names) is None


@pytest.mark.parametrize("suffix, kind", [(".onnx", "an ONNX program"), (".h5", "a Keras file")])
def test_other_formats_are_named(tmp_path, suffix, kind):
    (tmp_path / f"model{suffix}").write_bytes(b"\x08\x07\x12\x07pytorch and so on")
    with pytest.raises(CheckpointError, match=f"is {kind}, which sam_jax does not read"):
        convert.read_source(tmp_path / f"model{suffix}")
