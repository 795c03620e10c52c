"""SA-1B for training: folders of sa_1.jpg beside sa_1.json, and its tar shards, read in place.

A shard is not unpacked: where its members lie is found once by reading their headers, and kept
beside the shard, or in the user's cache where that cannot be written.
"""

import hashlib
import os
import tarfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from jaxtyping import Int64

from sam_jax.data.fingerprints import fingerprint
from sam_jax.data.folders import files_below
from sam_jax.data.samples import BROKEN_ANNOTATIONS, CANNOT_READ, Sample, blaming
from sam_jax.errors import InputError
from sam_jax.files import written_aside
from sam_jax.formats.sa1b import checked_list, checked_size, entry, naming, parse_json
from sam_jax.images import IMAGE_SUFFIXES

# Of the files that keep where a shard's members lie. Another layout of them is another ending.
_INDEX_ENDING = ".index1.npz"
# Of the JSON files beside images, to see whether they are SA-1B's.
_LOOKED_INTO = 20


def sa1b_sample(name: str, image: bytes, annotations: bytes) -> Sample:
    """A sample of an image file and the JSON file that belongs to it; no mask is decoded.

    Raises:
      RecordError: the JSON is damaged or has no size or masks.
    """
    with blaming(BROKEN_ANNOTATIONS, name):
        content = parse_json(annotations)
        with naming("image"):
            size_hw = checked_size(entry(content, "image"))
        masks = checked_list(content, "annotations")
        return Sample(name, image, size_hw, [entry(mask, "segmentation") for mask in masks])


class Sa1bFolder:
    """Images with a JSON file of the same name beside them, in a folder and those inside it."""

    def __init__(self, folder: str | os.PathLike):
        """Lists the folder.

        Raises:
          InputError: it cannot be listed, or holds no such pair.
        """
        self._folder = Path(folder)
        # As bytes of one length: eleven million names as strings would fill a gigabyte.
        self._names = np.array(sorted(_pairs(self._folder)), np.bytes_)
        if not len(self):
            raise InputError(f"{folder} holds no images with a JSON file of the same name beside")

    @property
    def description(self) -> str:
        """What it is, and of how many images."""
        return f"{len(self):,} images with SA-1B JSON in {self._folder}"

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """The image's path inside the folder."""
        return os.fsdecode(self._names[index])

    def __getitem__(self, index: int) -> Sample:
        """Reads a sample; raises RecordError where it cannot be used."""
        name = self.name(index)
        path = self._folder / name
        with blaming(CANNOT_READ, name):
            image, annotations = path.read_bytes(), path.with_suffix(".json").read_bytes()
        return sa1b_sample(name, image, annotations)

    def fingerprint(self) -> str:
        """Changes with the images' names and sizes."""
        return fingerprint(self._folder, self._names)


class Sa1bTars:
    """Tar shards as SA-1B is released in, each of images with their JSON files."""

    def __init__(self, shards: Sequence[str | os.PathLike]):
        """Finds what is where in the shards; quick where that has been found before.

        Raises:
          InputError: one cannot be read, is no tar file or is cut short; or none holds an image
            with its JSON file.
        """
        self._shards = [Path(shard) for shard in shards]
        indices = [_shard_index(shard) for shard in self._shards]
        self._names = np.concatenate([names for names, _ in indices])
        self._spans = np.concatenate([spans for _, spans in indices])
        self._shard_of = np.repeat(np.arange(len(indices)), [len(names) for names, _ in indices])
        if not len(self):
            raise InputError(f"{self._where()} holds no images with a JSON file of the same name")

    @property
    def description(self) -> str:
        """What it is, and of how many images."""
        return f"{len(self):,} images with SA-1B JSON in {self._where()}"

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """The shard's name and the image's in it."""
        shard = self._shards[self._shard_of[index]]
        return f"{shard.name}/{os.fsdecode(self._names[index])}"

    def __getitem__(self, index: int) -> Sample:
        """Reads a sample; raises RecordError where it cannot be used."""
        name = self.name(index)
        with blaming(CANNOT_READ, name):
            # Not kept open: a thousand shards would be a thousand open files.
            with open(self._shards[self._shard_of[index]], "rb") as file:
                image, annotations = (_read(file, *span) for span in self._spans[index].tolist())
        return sa1b_sample(name, image, annotations)

    def fingerprint(self) -> str:
        """Changes with names, sizes and places of the images and their JSON files."""
        return fingerprint(Path(), [], self._names, self._spans, self._shard_of)

    def _where(self) -> str:
        first = self._shards[0]
        return (
            str(first) if len(self._shards) == 1 else f"{len(self._shards)} tars of {first.parent}"
        )


def holds_pairs(folder: Path) -> bool:
    """Whether there are images with SA-1B's JSON files beside them, in the folder or inside it.

    Other programs write a JSON file beside each image too: the first few are looked into. Damaged
    ones count.
    """
    first = islice(_pairs(folder), _LOOKED_INTO)
    return any(_may_be_sa1b((folder / os.fsdecode(name)).with_suffix(".json")) for name in first)


def _may_be_sa1b(path: Path) -> bool:
    try:
        content = parse_json(path.read_bytes())
    except (InputError, OSError):
        return True
    return isinstance(content, dict) and {"image", "annotations"} <= content.keys()


def _pairs(folder: Path) -> Iterable[bytes]:
    return map(os.fsencode, files_below(folder, _with_json))


def _with_json(names: Iterable[str]) -> list[str]:
    """The names of images that have a JSON file of the same name; one for each JSON file."""
    names = {name for name in names if not os.path.basename(name).startswith(".")}
    stems = {name.removesuffix(".json") for name in names if name.endswith(".json")}
    images: dict[str, str] = {}
    for name in sorted(names):
        stem, suffix = os.path.splitext(name)
        if stem in stems and suffix.lower() in IMAGE_SUFFIXES:
            images.setdefault(stem, name)
    return list(images.values())


def _shard_index(shard: Path) -> tuple[np.ndarray, Int64[np.ndarray, "images 2 2"]]:
    """Names of a shard's images; begin and length of each image, and of its JSON file."""
    # Not at the top: it brings all that checkpoints need, which processes that read do not.
    from sam_jax.checkpoints.registry import cache_folder

    try:
        status = shard.stat()
    except OSError as error:
        raise InputError(f"{shard} cannot be read: {error.strerror}") from error
    stamp = [status.st_size, status.st_mtime_ns]
    path_hash = hashlib.sha256(os.fsencode(shard.resolve())).hexdigest()[:16]
    places = [
        shard.with_name(shard.name + _INDEX_ENDING),
        cache_folder() / "shards" / f"{shard.name}.{path_hash}{_INDEX_ENDING}",
    ]
    for place in places:
        # Damaged or of another shard: it is made anew.
        with suppress(Exception), np.load(place, allow_pickle=False) as index:
            if index["stamp"].tolist() == stamp:
                return index["names"], index["spans"]
    names, spans = _scanned(shard, status.st_size)
    for place in places:
        with suppress(OSError):
            with written_aside(place) as file:
                np.savez(file, stamp=np.array(stamp), names=names, spans=spans)
            break
    return names, spans


def _scanned(shard: Path, size: int) -> tuple[np.ndarray, Int64[np.ndarray, "images 2 2"]]:
    members: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if member.isreg() and not member.issparse():
                    name = str(PurePosixPath(member.name))
                    members[name] = (member.offset_data, member.size)
            end = tar.offset
        with open(shard, "rb") as file:
            file.seek(end)
            is_end = file.read(tarfile.BLOCKSIZE) == tarfile.NUL * tarfile.BLOCKSIZE
    except OSError as error:
        raise InputError(f"{shard} cannot be read: {error.strerror or error}") from error
    except tarfile.TarError as error:
        raise InputError(
            f"{shard} is no tar file that can be read in place ({error}); fetch it again, or "
            "unpack it if it is compressed"
        ) from error
    # At a damaged header, and at the end of the file, `tarfile` stops without a word.
    if not is_end or any(begin + length > size for begin, length in members.values()):
        raise InputError(f"{shard} is damaged or cut short at byte {end}; fetch it again")
    images = sorted(_with_json(members))
    spans = [(members[name], members[os.path.splitext(name)[0] + ".json"]) for name in images]
    return (
        np.array([os.fsencode(name) for name in images], np.bytes_),
        np.array(spans, np.int64).reshape(-1, 2, 2),
    )


def _read(file: BinaryIO, begin: int, length: int) -> bytes:
    file.seek(begin)
    content = file.read(length)
    if len(content) < length:
        raise InputError("the shard is shorter than it was")
    return content
