"""Checkpoints by name: those in the package, and the official ones, downloaded when asked for.

Names are looked up in the package (`sam_jax/weights/NAME`) and in the user's cache folder
(`checkpoints/NAME`), which the environment variable SAM_JAX_CACHE moves. A known name means that
model whatever the current folder holds; "./NAME" is the folder. Nothing is ever fetched but by
`download`.
"""

import http.client
import os
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

import platformdirs

from sam_jax.checkpoints.shipped import check_shipped, listed_sums
from sam_jax.checkpoints.weight_files import convert_command, is_torch_name
from sam_jax.errors import CheckpointError, InputError
from sam_jax.files import file_sha256, try_lock
from sam_jax.version import __version__

DEFAULT_CHECKPOINT = "tiny"

_SHIPPED = Path(__file__).parents[1] / "weights"
_TIMEOUT_S = 30
_CHUNK_BYTES = 1 << 20
# Attempts in a row that bring nothing new; a long download may be cut any number of times.
_ATTEMPTS = 5
# Statuses that asking again does not change.
_PERMANENT = {400, 401, 403, 404, 410, 451}


@dataclass(frozen=True)
class OfficialWeights:
    """A file of published weights; `num_bytes` is None where the size is not on record."""

    url: str
    sha256: str
    num_bytes: int | None = None


_SAM = "https://dl.fbaipublicfiles.com/segment_anything/"
_SAM2_1 = "https://dl.fbaipublicfiles.com/segment_anything_2/092824/"
OFFICIAL_WEIGHTS = {
    "vit_b": OfficialWeights(
        _SAM + "sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        375_042_383,
    ),
    "vit_l": OfficialWeights(
        _SAM + "sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "vit_h": OfficialWeights(
        _SAM + "sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        2_564_550_879,
    ),
    "sam2.1_tiny": OfficialWeights(
        _SAM2_1 + "sam2.1_hiera_tiny.pt",
        "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
        156_008_466,
    ),
    "sam2.1_small": OfficialWeights(
        _SAM2_1 + "sam2.1_hiera_small.pt",
        "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
        184_416_285,
    ),
    "sam2.1_base_plus": OfficialWeights(
        _SAM2_1 + "sam2.1_hiera_base_plus.pt",
        "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
        323_606_802,
    ),
    "sam2.1_large": OfficialWeights(
        _SAM2_1 + "sam2.1_hiera_large.pt",
        "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
        898_083_611,
    ),
}


@runtime_checkable
class Progress(Protocol):
    """What `download` reports to while it works."""

    def update(self, done: int, total: int | None) -> None:
        """So many bytes are there, of so many, where the total is known."""

    def note(self, text: str) -> None:
        """Something happened that a person would want to know."""


class _Silent:
    def update(self, done: int, total: int | None) -> None:
        pass

    def note(self, text: str) -> None:
        pass


def cache_folder() -> Path:
    """Where downloads and their converted checkpoints are kept.

    Raises:
      InputError: SAM_JAX_CACHE is in the home of a user who does not exist.
    """
    chosen = os.environ.get("SAM_JAX_CACHE")
    try:
        return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("sam-jax"))
    except RuntimeError:
        raise InputError(f"SAM_JAX_CACHE={chosen!r} is in nobody's home; name a folder") from None


def shipped_names() -> list[str]:
    """Names of the checkpoints inside the package, also of those whose files were lost since."""
    names = {path.parent.name for path in _SHIPPED.glob("*/config.json")}
    with suppress(OSError, ValueError):
        names |= {name.split("/")[0] for name in listed_sums(_SHIPPED)}
    return sorted(names)


def known_names() -> list[str]:
    """Every name that stands for a model: those in the package, and the official ones."""
    return list(dict.fromkeys([*shipped_names(), *OFFICIAL_WEIGHTS]))


def named_checkpoint(name: str | os.PathLike) -> Path | None:
    """The directory of the model that a known name means, or None for what is a path.

    Text without a path separator that is a known name means that model, whatever the current folder
    holds: a warning says so where it holds something of that name. "./vit_b" and `Path` objects are
    always paths. "sam_vit_b" and "SAM-ViT-B" mean "vit_b".

    Raises:
      CheckpointError: an official name that is not downloaded yet, or a model in the package whose
        files are not those of the release.
    """
    if not isinstance(name, str):
        return None
    known = official_name(name)
    if name in shipped_names():
        check_shipped(_SHIPPED / name)
        path = _SHIPPED / name
    elif known is not None:
        path = _installed(known)
        if not _is_checkpoint(path):
            raise CheckpointError(
                f"{known} is not downloaded yet (downloaded models lie in {path.parent}); "
                f"run: sam-jax download {known}"
            )
    else:
        return None
    if os.path.lexists(name):
        warnings.warn(
            f"{name!r} means the model of that name, not the one in the current folder; write "
            f"./{name} for that",
            UserWarning,
            stacklevel=1,
        )
    return path


def checkpoint_path(name: str | os.PathLike) -> Path:
    """The directory of a checkpoint, by name or path; downloads nothing.

    Names come first, as `named_checkpoint` has it.

    Raises:
      CheckpointError: an official name that is not downloaded yet, an unknown name, a PyTorch file,
        nothing at that path, or a model in the package whose files are not those of the release.
    """
    if not isinstance(name, str | os.PathLike):
        raise CheckpointError(
            f"a checkpoint is given by its name or its directory, not by {type(name).__name__}"
        )
    if not os.fspath(name):
        raise CheckpointError("the checkpoint's name is empty; give a name or a directory")
    known = named_checkpoint(name)
    if known is not None:
        return known
    path = Path(os.fsdecode(name))
    if name == DEFAULT_CHECKPOINT and not path.exists():
        raise CheckpointError(
            f"this installation has no built-in model {name!r}; run: sam-jax download vit_b, "
            "then name the checkpoint vit_b"
        )
    if is_torch_name(path) and not path.is_dir():
        missing = "" if path.exists() else ", and there is none at that path"
        raise CheckpointError(
            f"{path} names a PyTorch file{missing}; a checkpoint is made from one by: "
            f"{convert_command(path)}"
        )
    if not os.path.lexists(path):
        what = f"{str(path)!r} is neither a checkpoint directory nor a known name"
        if not isinstance(name, str) or os.path.dirname(name):
            what = f"there is no checkpoint at {os.fsdecode(name)}"
        raise CheckpointError(
            f"{what}; names are: {', '.join(known_names())}; downloaded models lie in "
            f"{_installed_folder()}"
        )
    return path


def official_name(name: str) -> str | None:
    """The registered name that a spelling such as "sam_vit_b" or "ViT-B" means, or None."""
    plain = name.lower().replace("-", "_").removeprefix("sam_")
    return plain if plain in OFFICIAL_WEIGHTS else None


def download(
    name: str,
    convert: Callable[[Path, Path], Any],
    *,
    url: str | None = None,
    keep: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Fetches official weights and has them converted into the cache folder.

    What an earlier call left half done is resumed. Size and SHA-256 are checked before `convert`
    sees the file. Two calls at once, also in two processes, do the work once.

    Args:
      name: a registered name.
      convert: called with the checked file and the checkpoint directory to make.
      url: a mirror to fetch from; the file must be the same.
      keep: leave the downloaded file in the cache folder afterwards.
      force: do it again although the checkpoint is there; `convert` then has to replace it.
      progress: is told how far it is.

    Returns:
      The checkpoint directory; at once, if it is there already.

    Raises:
      CheckpointError: an unknown name, no connection, a server that refuses, a wrong file, or no
        room on the disk.
    """
    known = official_name(name)
    if known is None:
        if name in shipped_names():
            raise CheckpointError(f"{name!r} is inside the package; there is nothing to download")
        names = ", ".join(OFFICIAL_WEIGHTS)
        raise CheckpointError(f"no official weights are named {name!r}; names are: {names}")
    weights = OFFICIAL_WEIGHTS[known]
    if url is not None and not url.startswith(("http://", "https://")):
        raise CheckpointError(f"the address {url!r} does not start with http:// or https://")
    progress = progress or _Silent()
    destination = _installed(known)
    file = cache_folder() / "downloads" / weights.url.rsplit("/", 1)[-1]
    if _is_checkpoint(destination) and not force:
        return destination
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        destination.parent.mkdir(parents=True, exist_ok=True)
        with _locked(file.with_name(file.name + ".lock"), known, progress):
            if _is_checkpoint(destination) and not force:
                return destination
            _fetch_checked(weights, url or weights.url, file, progress)
            convert(file, destination)
            if not keep:
                file.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"cannot write to the cache folder {cache_folder()}: {error.strerror or error}; "
            "make room there, or set SAM_JAX_CACHE to another folder, and run it again"
        ) from error
    return destination


def _installed_folder() -> Path:
    return cache_folder() / "checkpoints"


def _installed(name: str) -> Path:
    return _installed_folder() / name


def _is_checkpoint(path: Path) -> bool:
    return (path / "config.json").is_file()


def _fetch_checked(weights: OfficialWeights, url: str, file: Path, progress: Progress) -> None:
    """Makes `file` the wanted file: fetched whole, size and hash right, or not there at all."""
    if file.exists():
        if file_sha256(file) == weights.sha256:
            return
        file.unlink()
    part = file.with_name(file.name + ".part")
    resumed = part.exists() and part.stat().st_size > 0
    _fetch(url, part, weights.num_bytes, progress)
    found = file_sha256(part)
    if found != weights.sha256 and resumed:
        # What was resumed may have begun as another file, or been damaged on the disk.
        progress.note("the resumed file is damaged; fetching it from the beginning")
        part.unlink()
        _fetch(url, part, weights.num_bytes, progress)
        found = file_sha256(part)
    if found != weights.sha256:
        size = part.stat().st_size
        part.unlink()
        raise CheckpointError(
            f"what {url} sent ({size} bytes) is not the official file: its SHA-256 is "
            f"{found[:16]}..., not {weights.sha256[:16]}...; it was removed, nothing is installed"
        )
    os.replace(part, file)


def _fetch(url: str, part: Path, num_bytes: int | None, progress: Progress) -> None:
    """Fetches into `part`, from where it ends, through as many connections as it takes."""
    failures, farthest = 0, _size(part)
    while True:
        try:
            if _fetch_once(url, part, num_bytes, progress):
                return
            reason = "the connection was cut"
        except CheckpointError:
            raise
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"HTTP status {error.code} {error.reason}".strip()
            if error.code in _PERMANENT:
                raise CheckpointError(
                    f"{url} cannot be downloaded: {reason}; name a mirror with --url"
                ) from error
        except (
            urllib.error.URLError,
            http.client.HTTPException,
            ConnectionError,
            TimeoutError,
        ) as e:
            reason = str(getattr(e, "reason", "") or e or type(e).__name__)
        except ValueError as error:
            raise CheckpointError(f"{url!r} is not a usable address: {error}") from error
        reached = _size(part)
        failures = 0 if reached > farthest else failures + 1
        farthest = max(farthest, reached)
        if failures >= _ATTEMPTS:
            raise CheckpointError(
                f"{url} cannot be downloaded: {reason}; check the connection and run it again, "
                "it goes on where it stopped"
            )
        progress.note(f"{reason}; trying again from {reached >> 20} MB on")
        _pause(failures)


def _fetch_once(url: str, part: Path, num_bytes: int | None, progress: Progress) -> bool:
    """One request for what `part` lacks; whether it is complete then, as far as sizes tell."""
    start = _size(part)
    if num_bytes is not None and start > num_bytes:
        part.unlink()
        start = 0
    if start and start == num_bytes:
        return True
    headers = {"User-Agent": f"sam-jax/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            if response.status == 206 and _range_start(response) != start:
                part.unlink()
                return False
            # A server that knows no ranges sends everything.
            start = start if response.status == 206 else 0
            total = _announced(response, start)
            if num_bytes is not None and total is not None and total != num_bytes:
                raise CheckpointError(
                    f"{url} offers a file of {total} bytes, but the official one has {num_bytes}; "
                    "it was not downloaded"
                )
            with open(part, "ab" if start else "wb") as file:
                done = _copy(response, file, start, num_bytes or total, progress)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        # Nothing behind what is there: it is complete, or longer than the file has become.
        if error.headers.get("Content-Range", "").strip() == f"bytes */{start}":
            return True
        part.unlink()
        return False
    expected = num_bytes or total
    return done == expected if expected is not None else True


def _copy(response: Any, file: BinaryIO, done: int, total: int | None, progress: Progress) -> int:
    progress.update(done, total)
    while chunk := _read(response):
        file.write(chunk)
        done += len(chunk)
        progress.update(done, total)
        if total is not None and done > total:
            break
    return done


def _read(response: Any) -> bytes:
    try:
        return response.read(_CHUNK_BYTES)
    except OSError as error:  # TLS and sockets have many; none of them is the disk's
        raise ConnectionError(str(error) or type(error).__name__) from error


def _announced(response: Any, start: int) -> int | None:
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() else None


def _range_start(response: Any) -> int | None:
    text = response.headers.get("Content-Range", "").removeprefix("bytes ").split("-")[0]
    return int(text) if text.isdigit() else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _pause(failures: int) -> None:
    time.sleep(min(2.0**failures, 15.0))


@contextmanager
def _locked(path: Path, name: str, progress: Progress) -> Iterator[None]:
    """Holds the file's lock, which the system releases however this process ends."""
    # Without locks, two downloads at once spoil each other's file, which the hash check finds.
    with open(path, "ab") as file:
        if not try_lock(file):
            progress.note(f"{name} is being downloaded by another process; waiting for it")
            while not try_lock(file):
                time.sleep(0.2)
        yield
