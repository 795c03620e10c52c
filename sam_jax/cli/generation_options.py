"""The knobs of automatic mask generation, as options of a command."""

import math
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sam_jax.errors import InputError

if TYPE_CHECKING:
    from sam_jax.automatic.options import GenerateOptions

# As in `automatic.options`, which is not imported here: help must not wait for NumPy.
PRESET_NAMES = ("default", "fast", "dense", "paper")
# As in `formats.exports`, for the same reason.
EXPORT_NAMES = ("coco-rle", "polygon", "yolo", "labelme", "label-studio", "cvat")
# Those that `--simplify` is for.
_WITH_POLYGONS = ("polygon", "yolo")

# Every field of GenerateOptions that can be typed, its type, and what raising it does.
_KNOBS: tuple[tuple[str, Any, str], ...] = (
    (
        "points_per_side",
        int,
        "Ask a grid of this many points squared. Raising it finds smaller objects, in a time that "
        "grows with its square.",
    ),
    (
        "points_per_batch",
        int,
        "Points decoded at once. Raising it is faster on an accelerator and takes more of its "
        "memory; the masks stay the same.",
    ),
    (
        "pred_iou_thresh",
        float,
        "Lowest quality the model predicts for a mask. Raising it keeps fewer, better masks.",
    ),
    (
        "stability_score_thresh",
        float,
        "Lowest stability of a mask, 0 to 1. Raising it drops masks with vague outlines.",
    ),
    (
        "stability_score_offset",
        float,
        "How much the logits' threshold moves to measure stability. Raising it lowers every score.",
    ),
    (
        "box_nms_thresh",
        float,
        "Overlap, 0 to 1, from which two masks are the same. Raising it keeps more "
        "near-duplicates.",
    ),
    (
        "crop_n_layers",
        int,
        "Layer i also looks at 2^i by 2^i crops of the image. Raising it finds small objects, and "
        "takes 4^i encodings a layer.",
    ),
    (
        "crop_nms_thresh",
        float,
        "As --box-nms-thresh, between crops or tiles. Raising it keeps more near-duplicates.",
    ),
    (
        "crop_overlap_ratio",
        float,
        "Overlap of crops, as a part of the image's short side. Raising it finds more at the "
        "crops' edges, in larger crops.",
    ),
    (
        "crop_n_points_downscale_factor",
        int,
        "Each layer of crops has this many times fewer points a side. Raising it is faster and "
        "misses more in crops.",
    ),
    (
        "min_mask_region_area",
        int,
        "Fill holes and remove islands of fewer pixels. Raising it smooths more away.",
    ),
    ("min_mask_area", int, "Drop masks of fewer pixels. Raising it drops larger ones, too."),
    (
        "max_mask_area_ratio",
        float,
        "Drop masks that cover this part of the image, 0 to 1, or more. Raising it keeps more of "
        "the background.",
    ),
    (
        "nms",
        click.Choice(["box", "mask"]),
        "Tell duplicates by the overlap of boxes, or of the masks themselves, which keeps nested "
        "objects and takes longer.",
    ),
    ("max_masks", int, "Keep this many masks, of the highest predicted quality. Raising it: more."),
    (
        "tile_size",
        int,
        "Cut a very large image into overlapping tiles of this many pixels and join the masks. "
        "Raising it: fewer tiles, coarser masks.",
    ),
    (
        "tile_overlap",
        float,
        "Overlap of tiles, 0 to 0.5. Raising it joins masks over the seams more surely, with more "
        "tiles.",
    ),
    (
        "use_m2m",
        bool,
        "Decode each mask once more, from its point and itself (SAM 2): smoother masks, for about "
        "three times the decoder's time.",
    ),
)


def generation_options(command: Callable) -> Callable:
    """Adds `--preset` and an option for each knob; one that is not given is None."""
    for name, kind, text in reversed(_KNOBS):
        if kind is bool:
            option = click.option(_typed(name), is_flag=True, default=None, help=text)
        else:
            option = click.option(_typed(name), type=kind, help=text)
        command = option(command)
    return click.option(
        "--preset",
        type=click.Choice(PRESET_NAMES),
        default="default",
        show_default=True,
        help="Values of the options below that neither you nor the checkpoint gives: the "
        "original's, a quarter of its points, four times as many with a layer of crops, or the SAM "
        "paper's own settings.",
    )(command)


def chosen_options(
    preset: str, knobs: dict[str, Any], checkpoint: Path | None = None
) -> "GenerateOptions":
    """A preset with the knobs that are given, checked.

    Args:
      preset: its name.
      knobs: by name; those that are not given are None.
      checkpoint: a directory, whose own values come between the two.

    Raises:
      InputError: a value is out of its range; the option has the name that was typed.
    """
    from sam_jax.automatic.options import generate_options

    given = {name: value for name, value in knobs.items() if value is not None}
    for name, value in given.items():
        # JSON, which holds the options, has no such numbers.
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{_typed(name)} is a number, not {value}")
    if checkpoint is not None:
        from sam_jax.checkpoints.native import read_info
        from sam_jax.models.families import family_of

        info = read_info(checkpoint)
        given = {**family_of(info.config).generate_defaults, **info.generate, **given}
    try:
        return generate_options(preset, **given)
    except InputError as error:
        names = "|".join(re.escape(name) for name, _, _ in _KNOBS)
        message = re.sub(rf"\b({names})\b", lambda match: _typed(match[0]), str(error))
        raise InputError(message) from None


def checked_simplify(simplify: float | None, formats: Collection[str]) -> float:
    """How far polygons may be from the outline, in pixels; 0 if nothing is said.

    Raises:
      InputError: it is no distance, or no format has polygons.
    """
    if simplify is None:
        return 0.0
    if not set(_WITH_POLYGONS) & set(formats):
        raise InputError("--simplify is for polygons; add --format polygon or --format yolo")
    if not 0 <= simplify < math.inf:
        raise InputError(f"--simplify is a number of pixels from 0 on, not {simplify}")
    return simplify


def _typed(name: str) -> str:
    return "--" + name.replace("_", "-")
