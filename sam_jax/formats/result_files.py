"""The files of one image's result: a PNG for each mask, a picture, a JSON file that lists them."""

import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from sam_jax.errors import InputError
from sam_jax.files import written_together
from sam_jax.formats.exports import write_exports
from sam_jax.formats.label_png import label_png
from sam_jax.formats.labelled import DEFAULT_LABEL, checked_label
from sam_jax.formats.png import mask_png
from sam_jax.formats.rle import decode_rle, encode_rle, mask_area, mask_box
from sam_jax.formats.sa1b import Sa1bImage

# What file systems of any kind take in a name.
_UNFIT = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
LABELS, OVERLAY = "_labels.png", "_overlay.png"


@dataclass(frozen=True, eq=False)
class ResultMask:
    """One mask to write.

    Attributes:
      prompt: whose mask it is, as an index.
      candidate: which of the prompt's masks.
      best: whether it has the highest score of those.
      score: predicted IoU.
      mask: its pixels.
      logits: to be written too, at low resolution; or None.
    """

    prompt: int
    candidate: int
    best: bool
    score: float
    mask: Bool[np.ndarray, "height width"]
    logits: Float[np.ndarray, "low low"] | None = None


def write_result(
    folder: Path,
    stem: str,
    size_hw: tuple[int, int],
    masks: Iterable[ResultMask],
    *,
    overlay: Image.Image | None,
    objects: Sequence[str] | None,
    candidates: int,
    labels: bool,
    formats: Sequence[str],
    simplify: float,
    record: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes an image's result; all files appear together, and replace those of an earlier call.

    Args:
      folder: to write to.
      stem: what the names of files begin with.
      size_hw: the image's height and width.
      masks: taken one at a time.
      overlay: a picture of the masks.
      objects: a name for each prompt, which files and entries then have.
      candidates: masks of each prompt.
      labels: whether to write a PNG whose values are the prompts' numbers, from 1 on.
      formats: forms of other programs, as `exports.EXPORTS` names them; best masks alone.
      simplify: how far polygons may be from the outline, in pixels.
      record: what stands in the JSON file before the masks; "image" has the image's name.

    Returns:
      What the JSON file holds.

    Raises:
      InputError: a JSON file of that name is no earlier result, or the folder cannot be written.
    """
    path = folder / f"{stem}.json"
    check_not_foreign(path)
    endings = _name_endings(objects, candidates)
    entries: list[dict[str, Any]] = []
    with written_together(folder) as aside:
        for index, each in enumerate(masks):
            ending = endings[each.prompt][each.candidate] if endings else str(index)
            name = f"{stem}_mask_{ending}"
            entry = _entry(each, f"{name}.png", objects)
            (aside / entry["file"]).write_bytes(mask_png(each.mask))
            if each.logits is not None:
                entry["logits"] = f"{name}_logits.npy"
                np.save(aside / entry["logits"], each.logits)
            entries.append(entry)
        record = dict(record)
        if overlay is not None:
            picture = io.BytesIO()
            overlay.save(picture, format="PNG")
            record["overlay"] = stem + OVERLAY
            (aside / record["overlay"]).write_bytes(picture.getvalue())
        best = [entry for entry in entries if entry["best"]]
        if labels:
            record["labels"] = stem + LABELS
            shown = (decode_rle(entry["segmentation"]) for entry in best)
            (aside / record["labels"]).write_bytes(label_png(shown, size_hw))
        if formats:
            image = Sa1bImage(record["image"]["file"] or stem, size_hw, 1, _export_records(best))
            record["exports"] = write_exports(aside, stem, image, formats, simplify=simplify)
        earlier = earlier_record(path)
        record["masks"] = entries
        (aside / path.name).write_text(json.dumps(record, indent=1) + "\n")
    _remove_stale(folder, stem, earlier, entries)
    return record


def check_not_foreign(path: Path, kind: type = str) -> None:
    """Refuses to replace a JSON file that is not an earlier result, such as an annotation.

    Args:
      path: of the file.
      kind: what earlier results have as "sam_jax": text (segment) or a table (generate).

    Raises:
      InputError: it is there, and is none.
    """
    if path.is_file() and earlier_record(path, kind) is None:
        raise InputError(f"{path} exists and is no result of ours; choose another folder")


def earlier_record(path: Path, kind: type = str) -> dict[str, Any] | None:
    """What an earlier call wrote there; None if it did not."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(record, dict) and isinstance(record.get("sam_jax"), kind)
    return record if ours else None


def check_objects(objects: Sequence[str], prompts: int) -> None:
    """Refuses names of objects that files cannot have, or that are not one a prompt.

    Raises:
      InputError: with the name.
    """
    if len(objects) != prompts:
        raise InputError(f"there are {len(objects)} names of objects for {prompts} prompts")
    for name in objects:
        checked_label(name)
        if _UNFIT.search(name) or name != name.strip(" .") or len(name.encode()) > 100:
            raise InputError(
                f"the object's name {name!r} cannot be part of a file's name; use letters, "
                "digits, - and _"
            )
    folded = [name.casefold() for name in objects]
    for i, name in enumerate(folded):
        if name in folded[:i]:
            raise InputError(f"two objects have the name {objects[i]!r}")


def _name_endings(objects: Sequence[str] | None, candidates: int) -> list[list[str]]:
    if objects is None:
        return []
    if candidates == 1:
        endings = [[name] for name in objects]
    else:
        endings = [[f"{name}_{i}" for i in range(candidates)] for name in objects]
    every = [ending.casefold() for of_one in endings for ending in of_one]
    if len(set(every)) < len(every):
        raise InputError("files of two objects would have one name; choose other names")
    return endings


def _entry(each: ResultMask, file: str, objects: Sequence[str] | None) -> dict[str, Any]:
    return {
        "file": file,
        **({} if objects is None else {"object": objects[each.prompt]}),
        "prompt": each.prompt,
        "candidate": each.candidate,
        "best": each.best,
        "score": each.score,
        "bbox": mask_box(each.mask).tolist(),
        "area": int(mask_area(each.mask)),
        "segmentation": encode_rle(each.mask),
    }


def _export_records(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "label": entry.get("object", DEFAULT_LABEL),
            "segmentation": entry["segmentation"],
            "predicted_iou": entry["score"],
        }
        for entry in entries
    ]


def _remove_stale(
    folder: Path, stem: str, earlier: dict[str, Any] | None, entries: list[dict[str, Any]]
) -> None:
    """Removes mask files that an earlier call listed and this one did not write again."""
    written = {entry.get(key) for entry in entries for key in ("file", "logits")}
    named = re.compile(re.escape(stem) + r"_mask_[^/\\]+(\.png|_logits\.npy)")
    masks = (earlier or {}).get("masks")
    for entry in masks if isinstance(masks, list) else []:
        for key in ("file", "logits"):
            name = entry.get(key) if isinstance(entry, dict) else None
            if isinstance(name, str) and name not in written and named.fullmatch(name):
                (folder / name).unlink(missing_ok=True)
