"""The square that a model sees, and where an image lies in it."""

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class InputFrame:
    """How images get into a model's input.

    Attributes:
      side: of the input, in pixels.
      fit: "pad" keeps an image's proportions and fills the bottom and right with the mean color
        (SAM); "stretch" fills the square (SAM 2).
      pixel_mean: subtracted from RGB values from 0 to 255.
      pixel_std: what they are divided by then.
    """

    side: int
    fit: Literal["pad", "stretch"]
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]

    def image_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) in the frame, without padding, of an image of this size."""
        return (self.side, self.side) if self.fit == "stretch" else resized_hw(size_hw, self.side)

    def with_side(self, side: int) -> "InputFrame":
        """The same frame at another size."""
        return replace(self, side=side)


def resized_hw(size_hw: tuple[int, int], image_size: int) -> tuple[int, int]:
    """The (height, width) of an image scaled so that its longest side is `image_size` pixels.

    Rounds half up, as the original's `ResizeLongestSide` does; unlike it, never below 1.
    """
    scale = image_size / max(size_hw)
    height, width = (max(1, int(side * scale + 0.5)) for side in size_hw)
    return height, width
