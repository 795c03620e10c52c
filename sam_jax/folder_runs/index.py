"""What a folder run did: of one process or of all together, and the index that lists it."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sam_jax.errors import InputError
from sam_jax.files import written_aside
from sam_jax.folder_runs.image_list import ImageFile
from sam_jax.version import __version__

MASKS_INDEX = "index_of_masks.json"
EMBEDDINGS_INDEX = "index_of_embeddings.json"
# How every index begins: other files of these names are the user's.
_BEGINNING = b'{"sam_jax":{"index":true,'


@dataclass
class FolderResult:
    """What was done of a folder's images; its fields are what JSON holds.

    Attributes:
      tried: how many images were not finished before.
      images: what the index says of those that are finished now, by name.
      failed: why the others could not be done, by name.
      report: counts by name, such as of masks that a filter dropped.
    """

    tried: int = 0
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    report: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many images there were."""
        return len(self.images) + len(self.failed)

    def failures(self) -> list[InputError]:
        """Why images could not be done."""
        return [InputError(reason) for _, reason in sorted(self.failed.items())]

    def counts(self, done: str) -> str:
        """A line's worth of how many images are done, such as "encoded", and how many are not."""
        words = [f"{self.tried - len(self.failed)} of {self.total} images {done}"]
        words += (
            [f"{self.total - self.tried} were there already"] if self.tried < self.total else []
        )
        words += [f"{len(self.failed)} failed"] if self.failed else []
        return ", ".join(words)


def joined(parts: Iterable[Mapping[str, Any]]) -> FolderResult:
    """One result of the parts of several processes, each as `vars` gives it."""
    whole, report = FolderResult(), Counter[str]()
    for part in parts:
        whole.tried += part["tried"]
        whole.images.update(part["images"])
        whole.failed.update(part["failed"])
        report.update(part["report"])
    whole.report = dict(report)
    return whole


def check_index(path: Path) -> None:
    """Refuses to replace a file that is no index of an earlier run.

    Raises:
      InputError: it is there, and cannot be read or is not ours.
    """
    with suppress(FileNotFoundError):
        try:
            ours = is_index(path)
        except IsADirectoryError:
            ours = False
        except PermissionError as error:
            raise InputError(
                f"cannot read {path}: {error.strerror}; choose another --output"
            ) from None
        if not ours:
            raise InputError(
                f"{path} exists and is no result of this command; choose another --output"
            )


def is_index(path: Path) -> bool:
    """Whether a file is an index, or what a failing disk left of one.

    Raises:
      OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        beginning = file.read(len(_BEGINNING))
    return not beginning.strip(b"\0") or beginning == _BEGINNING


def write_index(path: Path, images: Sequence[ImageFile], result: FolderResult) -> None:
    """Lists the images that are finished and those that failed; the same list is left as it is.

    Raises:
      OSError: it cannot be written.
    """
    failed = [
        {"file_name": image.name, "reason": result.failed[image.name]}
        for image in images
        if image.name in result.failed
    ]
    done = [
        {"file_name": image.name, **result.images[image.name]}
        for image in images
        if image.name in result.images
    ]
    # A line for each, for reading and comparing.
    lists = (f'"{name}":[\n' for name in ("images", "failed"))
    head = _BEGINNING + f'"version":{json.dumps(__version__)}}},\n'.encode()
    content = head + b",\n".join(
        begin.encode() + b",\n".join(_text(entry) for entry in entries) + b"\n]"
        for begin, entries in zip(lists, (done, failed), strict=True)
    )
    content += b"}\n"
    with suppress(OSError):
        if path.read_bytes() == content:
            return
    with written_aside(path) as file:
        file.write(content)


def _text(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode()
