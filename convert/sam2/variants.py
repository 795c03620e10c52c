"""The configuration of a SAM 2 file, told from its tensors' names and shapes."""

from collections.abc import Iterable, Mapping

from convert.tables import HUGGING_FACE, OFFICIAL, Shape
from sam_jax.errors import CheckpointError
from sam_jax.models.sam2.config import SAM2_CONFIGS, Sam2Config

_TRUNK = {OFFICIAL: "image_encoder.trunk.", HUGGING_FACE: "vision_encoder.backbone."}
_EMBED = {OFFICIAL: "patch_embed.proj.bias", HUGGING_FACE: "patch_embed.projection.bias"}
# What 2.1 added: either of them says that a file is of that release.
_OCCLUSION = ("no_obj_embed_spatial", "occlusion_spatial_embedding_parameter")
_POINTER_TIMES = ("obj_ptr_tpos_proj.", "temporal_positional_encoding_projection_layer.")


def detect_sam2_naming(names: Iterable[str]) -> str:
    """The naming that the tensors of a SAM 2 file follow.

    Raises:
      CheckpointError: they have no image encoder of either naming.
    """
    names = list(names)
    counts = {
        naming: sum(name.startswith(mark) for name in names) for naming, mark in _TRUNK.items()
    }
    naming = max(counts, key=lambda one: counts[one])
    if not counts[naming]:
        raise CheckpointError(
            "it holds parts of SAM 2, but no image encoder: none of its tensors is named "
            + " or ".join(f"{mark}..." for mark in _TRUNK.values())
        )
    return naming


def infer_sam2_config(shapes: Mapping[str, Shape], naming: str) -> Sam2Config:
    """The released configuration with the file's width and number of blocks.

    Windows, blocks with global attention and the threshold leave no trace in the tensors: other
    sizes than the released ones cannot be told.

    Args:
      shapes: of the file's tensors, by name.
      naming: that the names follow.

    Raises:
      CheckpointError: no released model has such an image encoder.
    """
    trunk = _TRUNK[naming]
    width = shapes.get(trunk + _EMBED[naming], (0,))[0]
    blocks = {
        name.removeprefix(trunk + "blocks.").split(".")[0]
        for name in shapes
        if name.startswith(trunk + "blocks.")
    }
    depth = sum(one.isdigit() for one in blocks)
    # Half of what 2.1 added is enough: what is missing then is reported.
    occlusion = any(name in shapes for name in _OCCLUSION)
    times = any(name.startswith(_POINTER_TIMES) for name in shapes)
    for preset in SAM2_CONFIGS.values():
        encoder = preset.image_encoder
        near = encoder.depth == depth and width in (0, encoder.embed_dim)
        if near and preset.occlusion_embedding == preset.pointer_times == (occlusion or times):
            return preset
    known = ", ".join(
        f"{one.name} ({one.image_encoder.depth} blocks from {one.image_encoder.embed_dim} channels)"
        for one in SAM2_CONFIGS.values()
        if one.pointer_times
    )
    raise CheckpointError(
        f"it holds a SAM 2 image encoder of {depth} blocks from {width} channels, whose windows "
        f"cannot be told; there are {known}; give the configuration"
    )
