"""`sam-jax segment`: prompts on one image to masks."""

import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sam_jax.cli.image_options import page_option, read_with, scale_option
from sam_jax.cli.loading import (
    checkpoint_option,
    dtype_option,
    find_checkpoint,
    load_embedding,
    load_segmenter,
    mention_default,
)
from sam_jax.cli.output_files import FILE, check_output_folder, written_together
from sam_jax.cli.prompt_values import BOX, LABEL, POINT, prompt_arrays, read_mask_input
from sam_jax.errors import InputError
from sam_jax.version import __version__

if TYPE_CHECKING:
    import numpy as np

    from sam_jax.postprocess import MaskPrediction

# A strip of candidates is shown smaller than one picture: its markers and text are drawn larger.
_STRIP_EMPHASIS = 1.6


@click.command(short_help="Masks for points, boxes or a mask on an image.")
@click.argument("image", type=FILE)
@click.option(
    "--point",
    "points",
    type=POINT,
    multiple=True,
    metavar="X,Y[,LABEL]",
    help="A point on the object (LABEL 1, the default) or off it (0), in the image's pixels. "
    "All points of one call belong to one object.",
)
@click.option(
    "--box",
    "boxes",
    type=BOX,
    multiple=True,
    metavar="X0,Y0,X1,Y1",
    help="A box around the object. Several boxes are several objects.",
)
@click.option(
    "--mask-input",
    type=FILE,
    metavar="F",
    help="A rough mask: logits that --save-logits wrote (.npy), or a picture of the image's size.",
)
@click.option(
    "--label",
    type=LABEL,
    metavar="N|R,G,B|alpha",
    help="Which value of the --mask-input picture is the object, where it has several: a palette's "
    "index or gray value, a color, or what is opaque.",
)
@page_option
@scale_option
@click.option(
    "--multimask/--single-mask",
    default=None,
    help="Three candidates for each object, or one mask. Without either: three for a single "
    "point, which may mean a part or the whole, else one.",
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
@dtype_option
def segment(
    image: Path,
    points: tuple[tuple[float, ...], ...],
    boxes: tuple[tuple[float, ...], ...],
    mask_input: Path | None,
    label: Any,
    page: int | None,
    scale: Any,
    multimask: bool | None,
    checkpoint: str | None,
    embedding: Path | None,
    output: Path,
    save_logits: bool,
    dtype: str,
) -> None:
    """Segments what points, boxes or a rough mask on IMAGE say.

    Writes a PNG for each mask, a picture with the masks and prompts drawn on the image, and a JSON
    file with scores, boxes (x, y, width, height), areas and COCO RLE.
    """
    prompts = prompt_arrays(points, boxes, mask_input is not None)
    if multimask is None:
        multimask = len(points) == 1 and not boxes and mask_input is None
    if label is not None and mask_input is None:
        raise InputError("--label is for a picture of a mask; add --mask-input FILE")
    path = find_checkpoint(checkpoint)
    check_output_folder(output)
    _check_not_foreign(output / f"{image.stem}.json")
    from sam_jax.images import read_image

    pixels = read_image(image, page=page, scale=scale)
    _check_points_and_boxes(prompts, pixels.shape[:2])
    segmenter = load_segmenter(path, dtype)
    mask_logits = None
    if mask_input is not None:
        mask_logits = read_mask_input(mask_input, pixels.shape[:2], segmenter.config, label)
    if embedding is not None:
        embedded: Any = load_embedding(embedding, pixels.shape[:2], options=read_with(page, scale))
    else:
        embedded = segmenter.encode(pixels)
    prediction = segmenter.predict(embedded, **prompts, masks=mask_logits, multimask=multimask)
    assert not isinstance(prediction, list)
    mention_default(checkpoint)
    record = {
        "sam_jax": __version__,
        "image": {"file": image.name, "height": pixels.shape[0], "width": pixels.shape[1]}
        | read_with(page, scale),
        "checkpoint": {
            "name": checkpoint or path.name,
            "model": segmenter.config.name,
            "fingerprint": segmenter.fingerprint,
            "dtype": dtype,
        },
        "prompts": _prompt_records(prompts, mask_input),
    }
    _write(output, image.stem, pixels, prediction, record, save_logits)


def _check_points_and_boxes(prompts: dict[str, Any], size_hw: tuple[int, int]) -> None:
    """Before the model is loaded and the image encoded, which may take long."""
    from sam_jax.preprocess import check_prompts

    if prompts["points"] or prompts["boxes"]:
        check_prompts(**prompts, masks=None, size_hw=size_hw, mask_size=0)


def _check_not_foreign(path: Path) -> None:
    """Refuses to replace a JSON file that is not an earlier result, such as an annotation."""
    if path.is_file() and _earlier_record(path) is None:
        raise InputError(f"{path} exists and is no result of this command; choose another --output")


def _earlier_record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    # `sam-jax generate` keeps a table there.
    ours = isinstance(record, dict) and isinstance(record.get("sam_jax"), str)
    return record if ours else None


def _prompt_records(prompts: dict[str, Any], mask_input: Path | None) -> list[dict[str, Any]]:
    count = len(prompts["boxes"] or [None])
    return [
        {
            "points": prompts["points"][i] if prompts["points"] else None,
            "labels": [int(label) for label in prompts["labels"][i]] if prompts["labels"] else None,
            "box": prompts["boxes"][i] if prompts["boxes"] else None,
            "mask_input": str(mask_input) if mask_input else None,
        }
        for i in range(count)
    ]


def _write(
    folder: Path,
    stem: str,
    pixels: "np.ndarray",
    prediction: "MaskPrediction",
    record: dict[str, Any],
    save_logits: bool,
) -> None:
    """Everything appears together, and takes the place of an earlier call's files."""
    import numpy as np

    from sam_jax.formats.png import mask_png
    from sam_jax.formats.rle import encode_rle, mask_area, mask_box

    best = dict(prediction.best())
    entries = []
    lines = []
    with written_together(folder) as aside:
        for index, (prompt, candidate) in enumerate(np.ndindex(prediction.scores.shape)):
            mask = prediction.mask(prompt, candidate)
            entry = {
                "file": f"{stem}_mask_{index}.png",
                "prompt": prompt,
                "candidate": candidate,
                "best": best[prompt] == candidate,
                "score": float(prediction.scores[prompt, candidate]),
                "bbox": mask_box(mask).tolist(),
                "area": int(mask_area(mask)),
                "segmentation": encode_rle(mask),
            }
            (aside / entry["file"]).write_bytes(mask_png(mask))
            if save_logits:
                entry["logits"] = f"{stem}_mask_{index}_logits.npy"
                np.save(aside / entry["logits"], prediction.logits[prompt, candidate])
            entries.append(entry)
            note = ", best" if entry["best"] and len(best) < prediction.scores.size else ""
            empty = ", empty" if not entry["area"] else ""
            lines.append(
                f"{folder / entry['file']}  score {entry['score']:.3f}, "
                f"{entry['area']} pixels{note}{empty}"
            )
        overlay = f"{stem}_overlay.png"
        picture = io.BytesIO()
        _overlay(pixels, prediction, record["prompts"]).save(picture, format="PNG")
        (aside / overlay).write_bytes(picture.getvalue())
        earlier = _earlier_record(folder / f"{stem}.json")
        record = {**record, "overlay": overlay, "masks": entries}
        (aside / f"{stem}.json").write_text(json.dumps(record, indent=1) + "\n")
    _remove_stale(folder, stem, earlier, entries)
    for line in [*lines, str(folder / overlay), str(folder / f"{stem}.json")]:
        click.echo(line)


def _remove_stale(
    folder: Path, stem: str, earlier: dict[str, Any] | None, entries: list[dict[str, Any]]
) -> None:
    """Removes mask files that an earlier call listed and this one did not write again."""
    written = {entry.get(key) for entry in entries for key in ("file", "logits")}
    named = re.compile(re.escape(stem) + r"_mask_\d+(\.png|_logits\.npy)")
    masks = (earlier or {}).get("masks")
    for entry in masks if isinstance(masks, list) else []:
        for key in ("file", "logits"):
            name = entry.get(key) if isinstance(entry, dict) else None
            if isinstance(name, str) and name not in written and named.fullmatch(name):
                (folder / name).unlink(missing_ok=True)


def _overlay(
    pixels: "np.ndarray", prediction: "MaskPrediction", prompts: list[dict[str, Any]]
) -> Any:
    """The best mask of each prompt on one picture; candidates for one prompt side by side."""
    import numpy as np

    from sam_jax.formats.overlay import draw_overlay, side_by_side

    points = [point for prompt in prompts for point in prompt["points"] or []]
    labels = [label for prompt in prompts for label in prompt["labels"] or []]
    boxes = [prompt["box"] for prompt in prompts if prompt["box"]]
    drawn: dict[str, Any] = {
        "points": np.array(points, float) if points else None,
        "labels": np.array(labels) if points else None,
        "boxes": np.array(boxes, float) if boxes else None,
    }
    best = list(prediction.best())
    scores, candidates = prediction.scores, prediction.scores.shape[1]
    if len(best) > 1 or candidates == 1:
        masks = (prediction.mask(*which) for which in best)
        texts = [f"{scores[which]:.2f}" for which in best]
        return draw_overlay(pixels, masks, texts=texts, **drawn)
    panels = []
    for index in range(candidates):
        text = f"{index}   {scores[0, index]:.2f}" + ("   best" if (0, index) in best else "")
        mask = prediction.mask(0, index)
        panels.append(draw_overlay(pixels, [mask], texts=[text], emphasis=_STRIP_EMPHASIS, **drawn))
    return side_by_side(panels)
