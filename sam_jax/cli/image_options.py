"""How image files are read: options of the commands that take images, and which images they are."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
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


@dataclass(frozen=True)
class ImageFile:
    """An image, and its name among the images of a run.

    Attributes:
      path: of the file.
      name: below the folder that was given, with forward slashes; results are named after it.
    """

    path: Path
    name: str

    @property
    def stem(self) -> str:
        """The name without its suffix, folders included."""
        return self.name.removesuffix(PurePosixPath(self.name).suffix)

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __str__(self) -> str:
        return str(self.path)


def images_of(source: Path, recursive: bool = False, output: Path | None = None) -> list[ImageFile]:
    """The images of a folder, sorted by name; or the one file that it is.

    Args:
      source: a folder or a file.
      recursive: with those in its subfolders; hidden ones are left out, and so is `output`.
      output: the folder that results are written to.

    Raises:
      InputError: the folder cannot be read, or holds no image; or `recursive` is for a file.
    """
    from sam_jax.images import list_images

    if not source.is_dir():
        if recursive:
            raise InputError("--recursive is for a folder; leave it out for one image")
        return [ImageFile(source, source.name)]
    if recursive:
        return _images_below(source, output)
    below = _subfolders(source, output)
    hint = f"{len(below)} subfolder{'s' * (len(below) != 1)} of {source} not searched"
    try:
        images = list_images(source)
    except InputError as error:
        raise InputError(f"{error}; {hint}: add --recursive" if below else str(error)) from None
    if below:
        example = f"{below[0].name} for example"
        click.echo(f"{hint}, {example}; add --recursive to include them", err=True)
    return [ImageFile(image, image.name) for image in images]


def _images_below(source: Path, output: Path | None) -> list[ImageFile]:
    from sam_jax.data.folders import files_below
    from sam_jax.images import IMAGE_SUFFIXES

    def select(names: Iterable[str]) -> list[str]:
        return [
            name
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES
        ]

    results = _inside(source, output)
    names = sorted(Path(name).as_posix() for name in files_below(source, select))
    if results is not None:
        names = [name for name in names if not PurePosixPath(name).is_relative_to(results)]
    if not names:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"no images in {str(source)!r} or below: looked for {suffixes}")
    return [ImageFile(source / name, name) for name in names]


def _inside(source: Path, output: Path | None) -> PurePosixPath | None:
    """Where in the source the results go, if they do not go right beside the images."""
    if output is None:
        return None
    source, output = source.resolve(), output.resolve()
    if source == output or not output.is_relative_to(source):
        return None
    return PurePosixPath(output.relative_to(source).as_posix())


def _subfolders(source: Path, output: Path | None) -> list[Path]:
    own = output.resolve() if output else None
    try:
        return sorted(
            path
            for path in source.iterdir()
            if path.is_dir() and not path.name.startswith(".") and path.resolve() != own
        )
    except OSError:  # told when the images are listed
        return []


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
