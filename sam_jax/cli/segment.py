"""`sam-jax segment`: prompts on one image to masks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from sam_jax.cli.generation_options import EXPORT_NAMES, checked_simplify
from sam_jax.cli.image_options import page_option, read_with, scale_option
from sam_jax.cli.loading import (
    checkpoint_option,
    dtype_option,
    find_checkpoint,
    load_segmenter,
    mention_default,
)
from sam_jax.cli.option_order import InOrder
from sam_jax.cli.output_files import FILE, check_output_folder
from sam_jax.cli.prompt_values import BOX, LABEL, POINT
from sam_jax.cli.segment_prompts import object_prompts
from sam_jax.errors import InputError
from sam_jax.folder_runs.saved_embeddings import load_embedding
from sam_jax.object_prompts import ObjectPrompt, predict_objects, read_mask_prompt


@click.command(cls=InOrder, short_help="Masks for points, boxes or a mask on an image.")
@click.argument("image", type=FILE)
@click.option(
    "--object",
    "objects",
    multiple=True,
    metavar="NAME",
    help="The object that the prompts after it are about. Each has its points, box or mask, and "
    "gets a mask.",
)
@click.option(
    "--point",
    "points",
    type=POINT,
    multiple=True,
    metavar="X,Y[,LABEL]",
    help="A point on the object (LABEL 1, the default) or off it (0), in the image's pixels. "
    "All points belong to one object, unless --object says otherwise.",
)
@click.option(
    "--box",
    "boxes",
    type=BOX,
    multiple=True,
    metavar="X0,Y0,X1,Y1",
    help="A box around the object. Several boxes without --object are several objects.",
)
@click.option(
    "--mask-input",
    "mask_inputs",
    type=FILE,
    multiple=True,
    metavar="F",
    help="A rough mask: logits that --save-logits wrote (.npy), or a picture of the image's size.",
)
@click.option(
    "--label",
    "mask_labels",
    type=LABEL,
    multiple=True,
    metavar="N|R,G,B|alpha",
    help="Which value of the --mask-input picture before it is the object, where it has several: a "
    "palette's index or gray value, a color, or what is opaque.",
)
@page_option
@scale_option
@click.option(
    "--multimask/--single-mask",
    default=None,
    help="Three candidates for each object, or one mask. Without either: three for a single "
    "point, which may mean a part or the whole, else one; of several objects the best each.",
)
@click.option(
    "--clean/--no-clean",
    default=None,
    help="Fill small holes of masks and remove small islands. Without either: for the small "
    "built-in model and what was tuned from it.",
)
@click.option(
    "--clean-area",
    type=click.IntRange(min=0),
    metavar="N",
    help="With --clean, which it implies: small means fewer than N pixels of the image.  "
    "[default: a cell of the image embedding]",
)
@checkpoint_option
@click.option(
    "--embedding",
    type=FILE,
    metavar="F",
    help="The image's embedding, as `sam-jax encode` wrote it with the same checkpoint.",
)
@click.option(
    "--output",
    type=FILE,
    default=Path("sam-jax-output"),
    show_default=True,
    metavar="DIR",
    help="Folder to write to; earlier results of the same name are replaced.",
)
@click.option("--save-logits", is_flag=True, help="Also write each mask's logits (.npy).")
@click.option(
    "--label-map",
    is_flag=True,
    help="Also write photo_labels.png, whose values are 0 for background and the objects' numbers "
    "from 1 on; the smaller mask is on top.",
)
@click.option(
    "--format",
    "formats",
    type=click.Choice(EXPORT_NAMES),
    multiple=True,
    help="Also write the masks (the best of each object) for other programs; may be repeated.",
)
@click.option(
    "--simplify",
    type=float,
    metavar="PX",
    help="How far polygons (of polygon and yolo) may be from the mask's outline.  "
    "[default: 0, exact]",
)
@dtype_option
@click.pass_context
def segment(
    ctx: click.Context,
    image: Path,
    objects: tuple[str, ...],
    points: tuple[tuple[float, ...], ...],
    boxes: tuple[tuple[float, ...], ...],
    mask_inputs: tuple[Path, ...],
    mask_labels: tuple[Any, ...],
    page: int | None,
    scale: Any,
    multimask: bool | None,
    clean: bool | None,
    clean_area: int | None,
    checkpoint: str | None,
    embedding: Path | None,
    output: Path,
    save_logits: bool,
    label_map: bool,
    formats: tuple[str, ...],
    simplify: float | None,
    dtype: str,
) -> None:
    """Segments what points, boxes or a rough mask on IMAGE say.

    Writes a PNG for each mask, a picture with the masks and prompts drawn on the image, and a JSON
    file with scores, boxes (x, y, width, height), areas and COCO RLE.

        sam-jax segment photo.jpg --object cup --point 310,220 --object spoon --box 20,30,90,200
    """
    prompts = object_prompts(ctx, objects, points, boxes, mask_inputs, mask_labels)
    distance = checked_simplify(simplify, formats)
    if clean is False and clean_area is not None:
        raise InputError("--clean-area is for --clean; leave out --no-clean")
    path = find_checkpoint(checkpoint)
    check_output_folder(output)
    from sam_jax.formats.result_files import check_not_foreign
    from sam_jax.images import read_image

    check_not_foreign(output / f"{image.stem}.json")
    pixels = read_image(image, page=page, scale=scale)
    size_hw = pixels.shape[:2]
    _check_points_and_boxes(prompts, size_hw)
    segmenter = load_segmenter(path, dtype)
    masks = [
        None
        if one.mask is None
        else read_mask_prompt(one.mask, size_hw, segmenter.config, one.mask_label)
        for one in prompts
    ]
    reading = read_with(page, scale)
    if embedding is not None:
        embedded: Any = load_embedding(embedding, size_hw, options=reading)
    else:
        embedded = segmenter.encode(pixels)
    if clean is None and clean_area is None:
        clean = _cleans_by_default(segmenter.config.name)
    area = bool(clean) if clean_area is None else clean_area
    prediction = predict_objects(segmenter, embedded, prompts, masks, multimask, area)
    mention_default(checkpoint)
    described = {
        "name": checkpoint or path.name,
        "model": segmenter.config.name,
        "fingerprint": segmenter.fingerprint,
        "dtype": dtype,
    }
    record = prediction.save(
        output,
        pixels,
        name=image.stem,
        prompts=[record for one in prompts for record in one.records()],
        objects=[str(one.name) for one in prompts] if objects else None,
        label_map=label_map,
        logits=save_logits,
        formats=formats,
        simplify=distance,
        about={"image": _image_record(image, size_hw) | reading, "checkpoint": described},
    )
    for line in _written(output, image.stem, record):
        click.echo(line)


def _cleans_by_default(model: str) -> bool:
    """Whether holes and islands are the rule in this model's masks."""
    from sam_jax.configs import TINY

    return model == TINY.name


def _image_record(image: Path, size_hw: tuple[int, ...]) -> dict[str, Any]:
    return {"file": image.name, "height": size_hw[0], "width": size_hw[1]}


def _check_points_and_boxes(prompts: Sequence[ObjectPrompt], size_hw: tuple[int, int]) -> None:
    """Before the model is loaded and the image encoded, which may take long."""
    from sam_jax.preprocess import check_prompts

    for prompt in prompts:
        if prompt.points or prompt.boxes:
            try:
                check_prompts(**prompt.arrays(), masks=None, size_hw=size_hw, mask_size=0)
            except InputError as error:
                where = "" if prompt.name is None else f"object {prompt.name}: "
                raise InputError(f"{where}{error}") from None


def _written(folder: Path, stem: str, record: dict[str, Any]) -> list[str]:
    """A line for each file, with what is known of its mask."""
    entries = record["masks"]
    several = len(entries) > sum(entry["best"] for entry in entries)
    lines = []
    for entry in entries:
        note = ", best" if entry["best"] and several else ""
        empty = ", empty" if not entry["area"] else ""
        lines.append(
            f"{folder / entry['file']}  score {entry['score']:.3f}, "
            f"{entry['area']} pixels{note}{empty}"
        )
    others = [record["overlay"], record.get("labels"), *record.get("exports", {}).values()]
    return lines + [str(folder / name) for name in (*others, f"{stem}.json") if name]
