"""Relatives of Segment Anything whose files sam_jax does not read, told by their tensors' names."""

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class _Relative:
    """What is told of a file.

    Attributes:
      what: the kind of file, and what is different in it.
      marks: patterns; each must match the start of a name, behind any prefix.
      remedy: what to do about it.
    """

    what: str
    marks: tuple[str, ...]
    remedy: str = ""


_MERGE = "merge it into the model in PyTorch, save that model's state_dict(), and convert that file"
_BACKBONE = "a whole model also has a prompt encoder and a mask decoder"
_TINY_VIT = r"image_encoder\.(patch_embed\.seq|layers\.\d+\.blocks\.\d+\.(conv1|local_conv))\."

# The first that matches counts: what is special before what is general.
_RELATIVES = (
    _Relative(
        "LoRA weights of Segment Anything, low-rank updates beside or without the model",
        (r"(lora_[AB]|lora_(a|b|down|up|embedding_[AB])|linear_[ab]_[qkv])\b",),
        _MERGE,
    ),
    _Relative(
        "LoRA weights of SAMed, low-rank updates without the model",
        (r"w_a_\d+$", r"w_b_\d+$"),
        _MERGE,
    ),
    _Relative(
        "a light HQ-SAM checkpoint (MobileSAM's image encoder, and a mask decoder with a "
        "high-quality token)",
        (_TINY_VIT, r"mask_decoder\.(hf_token|hf_mlp)\."),
    ),
    _Relative(
        "an HQ-SAM 2 checkpoint (a mask decoder with a high-quality token)",
        (r"sam_mask_decoder\.(hf_token|hf_mlp)\.", r"sam_mask_decoder\.embedding_maskfeature\."),
    ),
    _Relative(
        "an HQ-SAM checkpoint (a mask decoder with a high-quality token)",
        (r"(mask_decoder\.)?(hf_token|hq_token)\.", r"(mask_decoder\.)?(hf_mlp|hq_mask_mlp)\."),
    ),
    _Relative(
        "an HQ-SAM checkpoint (a mask decoder with a high-quality token)",
        (
            r"(mask_decoder\.)?(hf_token|hq_token)\.",
            r"(mask_decoder\.)?(compress_vit_feat|compress_vit_conv1|embedding_maskfeature)\.",
        ),
    ),
    _Relative("a MobileSAM or TinySAM checkpoint (a TinyViT image encoder)", (_TINY_VIT,)),
    _Relative(
        "an EdgeTAM checkpoint (SAM 2 with a RepViT image encoder and a perceiver for its memory)",
        (r"spatial_perceiver\.",),
    ),
    _Relative(
        "an EdgeTAM checkpoint (SAM 2 with a RepViT image encoder)",
        (r"(image_encoder\.trunk\.body|vision_encoder\.backbone\.timm_model)\.",),
    ),
    _Relative(
        "an EfficientTAM checkpoint (SAM 2 with a plain ViT as its image encoder)",
        (r"image_encoder\.neck\.convs\.0\.conv_1x1\.", r"image_encoder\.trunk\."),
    ),
    _Relative(
        "an EdgeSAM or RepViT-SAM checkpoint (a RepViT image encoder)",
        (r"image_encoder\.(features\.\d+|fuse_stage\d)\.",),
    ),
    _Relative(
        "an EfficientSAM checkpoint (a decoder and prompt tokens of its own)",
        (r"(prompt_encoder\.(invalid_points|bbox_top_left_embeddings)"
         r"|mask_decoder\.final_output_upscaling_layers)\.",),
    ),
    _Relative(
        "an EfficientViT-SAM checkpoint (an EfficientViT image encoder)",
        (r"image_encoder\.backbone\.(input_stem|stages)\.",),
    ),
    _Relative(
        "a SAM 3 checkpoint (a detector that takes text, and a tracker)",
        (r"(detector(_model)?|tracker(_model|_neck)?)\.",),
    ),
    _Relative(
        "a Segment Anything checkpoint with adapter layers in its image encoder (SAM-Med2D, "
        "Medical SAM Adapter, SAM-Adapter, ...)",
        (r"image_encoder\.(blocks\.\d+\.(Adapter|MLP_Adapter|Space_Adapter|Depth_Adapter)"
         r"|prompt_generator)\b",),
    ),
    _Relative("a YOLO or FastSAM checkpoint", (r"model\.\d+\.(conv|cv\d|m)\.",)),
    _Relative(
        "a Grounding DINO checkpoint, a detector that takes text",
        (r"(bert|text_backbone)\.", r"transformer\."),
    ),
    _Relative(
        "a CLIP model, without masks", (r"(visual|vision_model|text_model)\.", r"logit_scale$")
    ),
)  # fmt: skip
# Only where there is no model at all.
_ALONE = (
    _Relative(
        "a masked autoencoder",
        (r"(cls_token|vit\.embeddings\.cls_token)$", r"decoder(_blocks)?\."),
        "an encoder to train from; convert.mae.table.read_mae reads it",
    ),
    _Relative(
        "a plain ViT or DINO backbone, or a masked autoencoder's encoder",
        (
            r"(cls_token|(vit\.)?embeddings\.cls_token)$",
            r"((vit\.)?(encoder\.layer|layers)|blocks)\.",
        ),
        f"{_BACKBONE}; convert.mae.table.read_mae reads masked autoencoders",
    ),
    _Relative(
        "SAM 2's image encoder alone",
        (r"(trunk\.)?pos_embed_window$", r"(trunk\.)?blocks\."),
        _BACKBONE,
    ),
    _Relative(
        "Segment Anything's image encoder alone",
        (r"pos_embed$", r"(blocks|layers)\.\d+\.attn\.rel_pos_h$"),
        _BACKBONE,
    ),
    _Relative(
        "a mask decoder alone", (r"(iou_token|mask_tokens)\.weight$", r"transformer\.layers\."),
        "a whole model also has an image encoder and a prompt encoder",
    ),
)  # fmt: skip
_WHOLE_PARTS = {
    "image encoder": ("image_encoder.", "vision_encoder."),
    "prompt encoder": ("prompt_encoder.", "sam_prompt_encoder."),
    "mask decoder": ("mask_decoder.", "sam_mask_decoder."),
}
# Fewer tensors than any part has are told one by one, as missing.
_FEWEST = 8


def describe_relative(names: Iterable[str]) -> str | None:
    """What a file with these names is, and what to do about it; None where it may be a SAM model.

    Args:
      names: of its tensors, as in the file or without what stands before them.
    """
    names = list(names)
    alone = () if any(name.startswith(_ANY_PART) for name in names) else _ALONE
    for one in (*_RELATIVES, *alone):
        if all(_any_matches(mark, names) for mark in one.marks):
            return _sentence(one.what, one.remedy)
    return _parts_alone(names)


def describe_class(class_name: str) -> str | None:
    """What a file is that holds a whole object of a class of this name."""
    if class_name.startswith(("ultralytics.", "models.yolo", "models.common")):
        return _sentence("a YOLO or FastSAM checkpoint", "")
    return None


_ANY_PART = tuple(mark for marks in _WHOLE_PARTS.values() for mark in marks)


def _sentence(what: str, remedy: str) -> str:
    return f"this is {what}; sam_jax does not read it{f': {remedy}' if remedy else ''}"


def _any_matches(mark: str, names: list[str]) -> bool:
    pattern = re.compile(rf"(?:.*\.)?(?:{mark})")
    return any(pattern.match(name) for name in names)


def _parts_alone(names: list[str]) -> str | None:
    """Says so where a file holds some parts of a model and not a tensor of another."""
    there = {
        part: sum(name.startswith(marks) for name in names) for part, marks in _WHOLE_PARTS.items()
    }
    missing = [part for part, count in there.items() if not count]
    present = [part for part, count in there.items() if count]
    if not missing or not present or sum(there.values()) < _FEWEST:
        return None
    return _sentence(
        f"Segment Anything's {' and '.join(present)} alone",
        f"a whole model also has {' and '.join(f'a {part}' for part in missing)}".replace(
            "a image", "an image"
        ),
    )
