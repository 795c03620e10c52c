"""YOLO's segmentation labels: a folder with a text file an image, a line a mask.

A line is the class, then x y of a polygon's points as parts of the image's width and height. The
format has one polygon for a mask: holes and further parts are joined to it by lines that are walked
both ways, as the tool's own converter from COCO does.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float

from sam_jax.errors import InputError
from sam_jax.files import part_name
from sam_jax.formats.labelled import checked_label, labelled_masks
from sam_jax.formats.polygons import mask_to_polygons
from sam_jax.formats.sa1b import Sa1bImage

# The first line of data.yaml, by which a folder of ours is known.
_MARK = "# Written by sam_jax"


def write_yolo(
    folder: str | os.PathLike,
    images: Iterable[Sa1bImage],
    *,
    simplify: float = 0.0,
    labels: Sequence[str] = (),
) -> None:
    """Writes labels for YOLO segmentation: `data.yaml` and `labels/NAME.txt` for each image.

    The folder appears whole or not at all. Put the images into `images/` beside `labels/`; in a
    folder that is written again, all but `data.yaml` and `labels/` stays. A mask's `label` is its
    class, "object" where it has none. Polygons are in pixel corners, as COCO's; a mask's holes and
    parts are joined into one polygon, which readers that fill by the even-odd rule draw right but
    for a line of pixels along each joint.

    Args:
      folder: made, or replaced where an earlier call wrote it.
      images: taken once and one at a time; `label` and `segmentation` of the records are used.
      simplify: how far polygons may be from the mask's outline, in pixels.
      labels: names of the first classes in their order; others follow as they come.

    Raises:
      InputError: a record is wrong; two images differ in their suffix alone; or the folder holds
        something else.
      OSError: it cannot be written; what was there before is left.
    """
    classes = {checked_label(label): number for number, label in enumerate(labels)}
    with _replaced(Path(folder)) as aside:
        (aside / "labels").mkdir()
        for image in images:
            name = PurePosixPath("labels", _below(image.file_name)).with_suffix(".txt")
            path = aside / name
            if path.exists():
                raise InputError(f"two images would be written to {name}; rename one")
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = []
            for each in labelled_masks(image):
                number = classes.setdefault(each.label, len(classes))
                polygon = one_polygon(mask_to_polygons(each.mask, simplify=simplify))
                height, width = image.size_hw
                parts = (polygon / (width, height)).ravel()
                lines.append(" ".join([str(number), *(f"{part:.6g}" for part in parts)]))
            path.write_text("".join(line + "\n" for line in lines))
        names = "".join(f"  {number}: {json.dumps(label)}\n" for label, number in classes.items())
        (aside / "data.yaml").write_text(
            f"{_MARK}: put the images into images/.\npath: .\ntrain: images\nval: images\n"
            f"names:{' {}' if not names else ''}\n{names}"
        )


def _below(file_name: str) -> PurePosixPath:
    """A file name with its subfolders, which YOLO looks for in `images/` and `labels/` alike."""
    path = PurePosixPath(file_name)
    inside = not path.is_absolute() and ".." not in path.parts
    return path if inside else PurePosixPath(path.name)


def is_yolo_folder(folder: Path) -> bool:
    """Whether an earlier call of `write_yolo` wrote it, or nothing is in it."""
    try:
        with open(folder / "data.yaml", encoding="utf-8", errors="replace") as file:
            return file.readline().startswith(_MARK)
    except OSError:
        return folder.is_dir() and not any(folder.iterdir())


def one_polygon(polygons: Sequence[Sequence[float]]) -> Float[np.ndarray, "points 2"]:
    """Polygons joined into one: each to those before it, where a point of it is nearest.

    The joint is a line from point to point and back, so that by the even-odd rule nothing is added.

    Args:
      polygons: at least one, as `mask_to_polygons` gives them.
    """
    rings = [np.array(polygon, np.float64).reshape(-1, 2) for polygon in polygons]
    whole = rings[0]
    if len(rings) > 1:
        from scipy.spatial import KDTree

        for ring in rings[1:]:
            distances, nearest = KDTree(whole).query(ring)
            start = int(np.argmin(distances))
            at = int(nearest[start])
            turned = np.roll(ring, -start, axis=0)
            # There, around, and back: both ends of the joint come twice.
            whole = np.concatenate([whole[: at + 1], turned, turned[:1], whole[at:]])
    return whole


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `folder`; what others put there stays."""
    if os.path.lexists(folder) and not is_yolo_folder(folder):
        raise InputError(f"{folder} exists and is no earlier result; choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(part_name(folder.name))
    aside.mkdir()
    try:
        yield aside
        if not folder.exists():
            os.replace(aside, folder)
            return
        if (folder / "labels").exists():
            os.replace(folder / "labels", aside / "earlier labels")
        for name in ("labels", "data.yaml"):
            os.replace(aside / name, folder / name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
