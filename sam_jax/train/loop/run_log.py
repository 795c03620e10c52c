"""What a run tells: a line of metrics now and then, the same as JSON, TensorBoard and pictures.

metrics.jsonl    one object a line: step, learning rate, images a second, the update's metrics
tensorboard/     the same as scalars, and the pictures; needs tensorboardX
pictures/        prompts and masks, step_NUMBER.jpg
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from sam_jax.files import written_aside

# Seconds between lines for a person where metrics are written less often.
_SHOW_EVERY = 20.0


class RunLog:
    """Collects metrics and writes their means."""

    def __init__(self, folder: Path, first_step: int, total: int, echo: Callable[[str], None]):
        """Opens the files; what an earlier run wrote of steps that are done again is dropped.

        Args:
          folder: of the run.
          first_step: updates that were made before.
          total: updates in all.
          echo: takes a line for a person.
        """
        self._folder, self._total, self._echo = folder, total, echo
        self._metrics = folder / "metrics.jsonl"
        # Metrics are of all processes together: one writes them.
        self._writes = jax.process_index() == 0
        self._writer = None
        if self._writes:
            _drop_from(self._metrics, first_step)
            self._writer = _tensorboard(folder / "tensorboard", first_step)
        self.waiting: list[dict[str, Any]] = []
        self._images, self._since = 0, time.monotonic()
        self._shown: float | None = None

    def start(self) -> None:
        """The first update begins: what was before is not counted in its speed."""
        self._since = time.monotonic()

    def is_due(self) -> bool:
        """Whether a line is due for a person: after the first update, and from time to time."""
        return self._shown is None or time.monotonic() - self._shown > _SHOW_EVERY

    def show(self, step: int) -> None:
        """Tells the means since the last line that was written, and writes nothing.

        Args:
          step: updates made.
        """
        record, left = self._means(step)
        self._tell(record, left)

    def add(self, metrics: dict[str, Any], images: int) -> None:
        """Keeps an update's metrics, which may still be computed."""
        self.waiting.append(metrics)
        self._images += images

    def write(self, step: int, learning_rate: float, skipped: int) -> None:
        """Writes the means since the last line.

        Args:
          step: updates made.
          learning_rate: of the last one.
          skipped: records that the input had to leave out so far.
        """
        means, left = self._means(step)
        record = {
            "step": step,
            "learning_rate": learning_rate,
            "images_per_second": means["images_per_second"],
            "skipped_records": skipped,
            **means,
        }
        if self._writes:
            with self._metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        if self._writer:
            for name, value in _scalars(record):
                self._writer.add_scalar(name, value, step)
        self._tell(record, left)
        self.waiting, self._images, self._since = [], 0, time.monotonic()

    def picture(self, step: int, picture: np.ndarray) -> None:
        """Keeps a picture, uint8 [height, width, 3]."""
        path = self._folder / "pictures" / f"step_{step:07d}.jpg"
        with written_aside(path) as file:
            Image.fromarray(picture).save(file, "JPEG", quality=90)
        if self._writer:
            self._writer.add_image("masks", picture, step, dataformats="HWC")

    def close(self) -> None:
        """Ends the files."""
        if self._writer:
            self._writer.close()

    def _means(self, step: int) -> tuple[dict[str, Any], float]:
        """Means since the last line that was written, and the seconds that are left."""
        found = jax.device_get(self.waiting)
        means = jax.tree.map(lambda *values: np.mean(values, axis=0), *found)
        seconds = time.monotonic() - self._since
        record = {"step": step, "images_per_second": self._images / max(seconds, 1e-9)}
        for name, value in means.items():
            if name != "finite":
                record[name] = np.asarray(value, np.float64).tolist()
        return record, (self._total - step) * seconds / max(len(found), 1)

    def _tell(self, record: dict[str, Any], seconds_left: float) -> None:
        self._shown = time.monotonic()
        self._echo(_line(record, self._total, seconds_left))


def _line(record: dict[str, Any], total: int, seconds_left: float) -> str:
    iou = record.get("iou")
    quality = f"  IoU {iou[0]:.3f} to {iou[-1]:.3f}" if iou else ""
    hours, rest = divmod(round(seconds_left), 3600)
    left = f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
    return (
        f"step {record['step']} of {total}  loss {record['loss']:.4f}{quality}  "
        f"{record['images_per_second']:.2f} images/s  about {left} left"
    )


def _scalars(record: dict[str, Any]) -> list[tuple[str, float | int]]:
    scalars = []
    for name, value in record.items():
        if isinstance(value, list):
            scalars += [(f"{name}/pass_{i + 1}", part) for i, part in enumerate(value)]
        elif name != "step":
            scalars.append((name, value))
    return scalars


def _tensorboard(folder: Path, first_step: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=first_step)


def _drop_from(path: Path, step: int) -> None:
    """Removes lines of later steps, and a last line that was cut short."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    with written_aside(path) as file:
        file.write("".join(line + "\n" for line in kept).encode())
