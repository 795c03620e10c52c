"""What a run of `sam-jax generate` has left, and disks that are full."""

import errno
import json
import os
from pathlib import Path

from sam_jax.folder_runs.index import MASKS_INDEX
from sam_jax.formats.rle import decode_rle
from sam_jax.formats.sa1b import read_sa1b

OUT = Path("sam-jax-generated")
# The model knows nothing: everything passes, boxes are alike, and five masks are kept.
KNOBS = {
    "points_per_side": 4,
    "pred_iou_thresh": 0.0,
    "stability_score_thresh": 0.0,
    "box_nms_thresh": 1.0,
    "max_masks": 5,
}
ARGS = [
    text for name, value in KNOBS.items() for text in (f"--{name.replace('_', '-')}", str(value))
]


def snapshot(folder):
    """Every file under a folder, with what shows that it was not written again."""
    return {
        path: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def names(folder=OUT):
    """Without the index, which every run of a folder writes."""
    return sorted(path.name for path in folder.iterdir() if path.name != MASKS_INDEX)


def masks_of(path):
    return [decode_rle(record["segmentation"]) for record in read_sa1b(path).records]


def masks_equal(one, other):
    pairs = zip(masks_of(one), masks_of(other), strict=True)
    return all((a == b).all() for a, b in pairs)


def read_json(path):
    return json.loads(Path(path).read_text())


def full_disk(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail_on_call(function, number):
    calls = []

    def failing(*args, **kwargs):
        calls.append(args)
        return full_disk() if len(calls) == number else function(*args, **kwargs)

    return failing
