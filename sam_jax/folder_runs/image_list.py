"""Which images a run is over, and what each is called among them."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sam_jax.errors import InputError
from sam_jax.progress import Tell, silent


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


def images_of(
    source: Path, recursive: bool = False, output: Path | None = None, tell: Tell = silent
) -> list[ImageFile]:
    """The images of a folder, sorted by name; or the one file that it is.

    Args:
      source: a folder or a file.
      recursive: with those in its subfolders; hidden ones are left out, and so is `output`.
      output: the folder that results are written to.
      tell: gets a line where there are subfolders that are left out.

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
        tell(f"{hint}, {example}; add --recursive to include them")
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
