"""Prompts of a video: which object, in which frame."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Values of a label PNG.
MAX_OBJECT = 255


@dataclass
class FramePrompt:
    """All that is said of one object in one frame."""

    object: int
    frame: int
    points: list[tuple[float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    box: tuple[float, ...] | None = None
    mask: Path | None = None
    mask_label: Any = None
