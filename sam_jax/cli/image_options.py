"""How image files are read: options of the commands that take images."""

from pathlib import Path
from typing import Any

import click

from sam_jax.errors import InputError


class _ScaleType(click.ParamType):
    name = "scale"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | str:
        """The number that is white, or "auto"; what it may be is for `read_image` to say."""
        if not isinstance(value, str) or value == "auto":
            return value
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is not auto or a number, for example 4095", param, ctx)


page_option = click.option(
    "--page",
    type=click.IntRange(0),
    metavar="N",
    help="Which page of a multi-page TIFF, or frame of an animation, from 0.  [default: 0]",
)
scale_option = click.option(
    "--scale",
    type=_ScaleType(),
    metavar="auto|MAX",
    help="Which value is white in images deeper than 8 bits, such as 4095 where 12 bits are stored "
    "in 16. auto: the most that as many bits hold as the image needs.  [default: the type's most]",
)
recursive_option = click.option(
    "--recursive",
    is_flag=True,
    help="Also the images in DIR's subfolders; their results go to subfolders of the same names.",
)


def check_page(page: int | None, source: Path) -> None:
    """Refuses a page for a folder.

    Raises:
      InputError: it is one.
    """
    if page is not None and source.is_dir():
        raise InputError("--page is for one image; leave it out for a folder")


def read_with(page: int | None, scale: float | str | None) -> dict[str, Any]:
    """What records say of how an image was read; nothing where nothing was chosen."""
    given = {"page": page, "scale": scale}
    return {name: value for name, value in given.items() if value is not None}
