"""The models inside the package: files whose SHA-256 is known, and checked before they are used.

`weights/SHA256SUMS` lists every file below `weights/`, as `sha256sum` writes it; with a new model,
`examples/tiny/ship.py` does. After another change:

    cd sam_jax/weights
    find * -type f ! -name SHA256SUMS | LC_ALL=C sort | xargs sha256sum > SHA256SUMS
"""

from functools import cache
from pathlib import Path

from sam_jax.errors import CheckpointError
from sam_jax.files import file_sha256

SUMS = "SHA256SUMS"


def listed_sums(weights: Path) -> dict[str, str]:
    """The SHA-256, in hexadecimal, of every file in a folder's list, by its path there.

    Raises:
      OSError: the list cannot be read.
      ValueError: it is no such list.
    """
    lines = (weights / SUMS).read_text().splitlines()
    pairs = [line.split(maxsplit=1) for line in lines]
    # An asterisk marks files that were read as binary ones.
    return {name.removeprefix("*"): sha256 for sha256, name in pairs}


@cache
def check_shipped(path: Path) -> None:
    """Refuses a model in the package whose files are not those that are listed; asks once.

    Args:
      path: of its checkpoint, beside the list.

    Raises:
      CheckpointError: one is missing or another, or the list is.
    """
    weights, name = path.parent, path.name
    try:
        listed = listed_sums(weights)
        files = {file: sha for file, sha in listed.items() if file.startswith(f"{name}/")}
        wrong = [file for file, sha in files.items() if file_sha256(weights / file) != sha]
        wrong = wrong if f"{name}/config.json" in files else [SUMS]
    except OSError as error:
        wrong = [Path(error.filename or SUMS).name]
    except ValueError:
        wrong = [SUMS]
    if wrong:
        raise CheckpointError(
            f"the built-in model {name!r} is not as it was released: {wrong[0]} in {weights} is "
            "missing or was changed; install sam-jax again"
        )
