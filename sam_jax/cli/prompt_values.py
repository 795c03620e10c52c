"""Prompts as they are typed on the command line."""

from typing import Any

import click


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
