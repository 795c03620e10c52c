"""Prompts as they are typed on the command line."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sam_jax.errors import InputError

if TYPE_CHECKING:
    import numpy as np


class NumbersType(click.ParamType):
    """Numbers with commas between them; what they may be is for `check_prompts` to say."""

    name = "numbers"

    def __init__(self, form: str, example: str, counts: tuple[int, ...]):
        """`form` and `example` are for the error; `counts` are the lengths that it may have."""
        self.form, self.example, self.counts = form, example, counts

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """The numbers."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in value.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) not in self.counts:
            self.fail(f"{value!r} is not {self.form}, for example {self.example}", param, ctx)
        return numbers


class LabelType(click.ParamType):
    """Which value of a mask picture is inside, as `formats.mask_pictures.read_mask` takes it."""

    name = "label"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | tuple[int, ...] | str:
        """A number, three of them, or "alpha"."""
        if not isinstance(value, str) or value == "alpha":
            return value
        parts = value.split(",")
        if len(parts) in (1, 3) and all(part.isascii() and part.isdigit() for part in parts):
            numbers = tuple(int(part) for part in parts)
            return numbers[0] if len(numbers) == 1 else numbers
        self.fail(f"{value!r} is not N, R,G,B or alpha, for example 2 or 255,0,0", param, ctx)


LABEL = LabelType()
POINT = NumbersType("X,Y or X,Y,LABEL", "500,375 or 500,375,0", (2, 3))
BOX = NumbersType("X0,Y0,X1,Y1", "75,275,1725,850", (4,))


def prompt_arrays(
    points: tuple[tuple[float, ...], ...], boxes: tuple[tuple[float, ...], ...], mask: bool
) -> dict[str, list | None]:
    """What `check_prompts` and `Segmenter.predict` take: one prompt, or one for each box.

    All points, one box and the mask are one prompt: one object. Several boxes are several.

    Raises:
      InputError: nothing is given, or points or a mask with several boxes.
    """
    if not (points or boxes or mask):
        raise InputError(
            "no prompt is given: add --point X,Y, --box X0,Y0,X1,Y1 or --mask-input FILE"
        )
    if len(boxes) > 1 and (points or mask):
        other = "--point" if points else "--mask-input"
        raise InputError(
            f"{other} with {len(boxes)} boxes is ambiguous: each box is an object of its own; "
            f"give --object NAME before each one's prompts"
        )
    return {
        "points": [[point[:2] for point in points]] if points else None,
        "labels": [[point[2] if len(point) == 3 else 1 for point in points]] if points else None,
        "boxes": list(boxes) or None,
    }


def read_mask_input(
    path: Path, size_hw: tuple[int, int], config: Any, label: Any = None
) -> "np.ndarray":
    """A mask prompt from a file: logits of an earlier result, or a picture of a mask.

    Args:
      path: a .npy file of [s, s] logits (axes of length 1 before them are dropped), or a picture
        of the image's size, as `formats.mask_pictures.read_mask` reads it.
      size_hw: the image's height and width.
      config: the model's configuration.
      label: which value of a picture is inside.

    Returns:
      Logits [1, s, s].

    Raises:
      InputError: it is missing, damaged, or of another size.
    """
    import numpy as np

    if path.suffix.lower() != ".npy":
        from sam_jax.formats.mask_pictures import read_mask
        from sam_jax.preprocess import mask_to_logits

        mask = read_mask(path, label)
        if mask.shape != size_hw:
            raise InputError(
                f"the mask {path} is {mask.shape[1]}x{mask.shape[0]} pixels, but the image is "
                f"{size_hw[1]}x{size_hw[0]}; they must be of one size"
            )
        return mask_to_logits(mask, config)[None]
    if label is not None:
        raise InputError(f"--label is for pictures, and {path} holds logits; leave it out")
    try:
        # Mapped, not read: a damaged header may claim any size, and is held against the file's.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it is an archive of arrays")
    except FileNotFoundError:
        raise InputError(f"--mask-input: there is no file {path}") from None
    except Exception as error:  # NumPy raises a dozen types for a damaged header
        raise InputError(f"--mask-input: {path} is no NumPy array, or damaged ({error})") from None
    side = config.mask_input_size
    if array.shape[-2:] != (side, side) or array.size != side * side or array.dtype.kind != "f":
        raise InputError(
            f"--mask-input: {path} holds {array.dtype} {array.shape}, not one mask's logits "
            f"({side}, {side}); segment --save-logits writes such files"
        )
    return np.array(array, np.float32).reshape(1, side, side)
