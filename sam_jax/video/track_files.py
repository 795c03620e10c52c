"""What a run over a video writes: masks, an overlay, and results.json, in place of earlier ones."""

import io
import json
import os
import re
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from sam_jax.errors import InputError
from sam_jax.files import written_aside
from sam_jax.formats.label_png import label_png
from sam_jax.formats.rle import encode_rle, mask_area, mask_box
from sam_jax.progress import Tell, silent
from sam_jax.video.tracked_masks import TrackedMasks
from sam_jax.video.video_files import VideoWriter, has_pyav

MASKS, OVERLAY_PICTURES, OVERLAY_VIDEO, RESULTS = "masks", "overlay", "overlay.mp4", "results.json"
# Of an overlay whose source does not say.
_FRAMES_PER_SECOND = 24.0
_NUMBERED = re.compile(r"\d{5,}")
_SUFFIXES = {MASKS: (".png", ".json"), OVERLAY_PICTURES: (".jpg",)}


def check_earlier(output: Path, video: Path) -> None:
    """Refuses to remove what this command has not written, or what it is to read.

    Raises:
      InputError: with the path, and what to do.
    """
    mine = [output / name for name in (MASKS, OVERLAY_PICTURES, OVERLAY_VIDEO)]
    if video.resolve() in [path.resolve() for path in mine]:
        raise InputError(f"{video} would be written over; choose another --output")
    for name in (MASKS, OVERLAY_PICTURES):
        if os.path.lexists(output / name) and not (output / name).is_dir():
            raise InputError(f"{output / name} is not a folder; choose another --output")
    for name in (RESULTS, OVERLAY_VIDEO):
        if (output / name).is_dir():
            raise InputError(f"{output / name} is a folder; choose another --output")
    ours = _earlier_record(output) is not None
    for there in (*mine, output / RESULTS):
        empty = there.is_dir() and not any(there.iterdir())
        if there.exists() and not ours and not empty:
            raise InputError(
                f"{there} is there and no result of this command; choose another --output"
            )


def _earlier_record(output: Path) -> dict[str, Any] | None:
    """What an earlier call of this command has noted; None if it is not of this command."""
    try:
        record = json.loads((output / RESULTS).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(record, dict) and {"sam_jax", "video", "ended_by"} <= set(record)
    return record if ours else None


def remove_earlier(output: Path) -> None:
    """Removes the masks and the overlay of an earlier call; other files in their folders stay."""
    record = _earlier_record(output)
    if record is None:
        return
    noted = record.get("frame_names")
    names = {name for name in noted if isinstance(name, str)} if isinstance(noted, list) else set()
    for folder, suffixes in _SUFFIXES.items():
        # Before names were noted, there were no pictures of overlays.
        if not (output / folder).is_dir() or (folder == OVERLAY_PICTURES and noted is None):
            continue
        for old in (output / folder).iterdir():
            if old.suffix in suffixes and (old.stem in names or _NUMBERED.fullmatch(old.stem)):
                old.unlink()
    (output / OVERLAY_VIDEO).unlink(missing_ok=True)
    if (output / OVERLAY_PICTURES).is_dir() and not any((output / OVERLAY_PICTURES).iterdir()):
        (output / OVERLAY_PICTURES).rmdir()


def write_results(output: Path, record: dict[str, Any]) -> None:
    """Writes results.json."""
    with written_aside(output / RESULTS) as file:
        file.write((json.dumps(record, indent=1) + "\n").encode())


def write_masks(output: Path, name: str, found: TrackedMasks, form: str) -> None:
    """Writes the masks of a frame, as a label PNG or as RLE with scores."""
    if form == "png":
        content = label_png(masks_by_number(found), found.size_hw)
    else:
        objects = [
            {
                "object": number,
                "object_score": float(found.object_scores[i]),
                "predicted_iou": float(found.scores[i]),
                "area": int(mask_area(mask)),
                "bbox": mask_box(mask).tolist(),
                "segmentation": encode_rle(mask),
            }
            for i, (number, mask) in enumerate(found)
        ]
        record = {"frame": found.frame_index, "name": name, "objects": objects}
        content = (json.dumps(record) + "\n").encode()
    # Not `with_suffix`: a name may have a point of its own, as t0.25.
    with written_aside(output / MASKS / f"{name}.{'png' if form == 'png' else 'json'}") as file:
        file.write(content)


def masks_by_number(found: TrackedMasks) -> list[np.ndarray]:
    """Masks of objects 1, 2, ...; empty ones for numbers that no object has."""
    masks = dict(found)
    nothing = np.zeros(found.size_hw, bool)
    return [masks.get(number, nothing) for number in range(1, max(masks, default=0) + 1)]


class Overlay:
    """The frames with masks drawn on them: a video, or pictures where PyAV is not installed."""

    def __init__(self, output: Path, frames_per_second: float | None, tell: Tell = silent):
        """Writes nothing yet; `tell` gets a line where it is written as pictures."""
        self._tell = tell
        self._output = output
        self._rate = frames_per_second or _FRAMES_PER_SECOND
        self._writer: VideoWriter | None = None
        self.is_video = has_pyav()
        self.path = output / (OVERLAY_VIDEO if self.is_video else OVERLAY_PICTURES)

    def check_size(self, size_hw: tuple[int, int]) -> None:
        """Refuses frames that no video can have.

        Raises:
          InputError: they are thinner than two pixels.
        """
        if self.is_video and min(size_hw) < 2:
            raise InputError(
                f"frames of {size_hw[1]}x{size_hw[0]} are too small for an overlay; "
                "add --no-overlay"
            )

    def write(self, name: str, picture: np.ndarray) -> None:
        """Adds a frame."""
        if self.is_video:
            if self._writer is None:
                size_hw = (picture.shape[0], picture.shape[1])
                self._writer = VideoWriter(self.path, self._rate, size_hw)
            self._writer.write(picture)
            return
        file = io.BytesIO()
        Image.fromarray(picture).save(file, format="JPEG", quality=90)
        with written_aside(self.path / f"{name}.jpg") as written:
            written.write(file.getvalue())

    def __enter__(self) -> "Overlay":
        if not self.is_video:
            self._tell(
                "PyAV is not installed: the overlay is written as pictures; for a video run "
                "`pip install 'sam-jax[video]'`"
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.__exit__(kind, error, trace)
