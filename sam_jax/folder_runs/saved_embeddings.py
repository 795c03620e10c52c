"""Embeddings that a run has kept, held against the image that they are to be of."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam_jax.errors import InputError

if TYPE_CHECKING:
    from sam_jax.embeddings import ImageEmbedding


def load_embedding(
    path: Path,
    size_hw: tuple[int, int],
    image_sha256: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> "ImageEmbedding":
    """A saved embedding of an image of this size.

    Args:
      path: of the embedding.
      size_hw: height and width of the image.
      image_sha256: of the image's file, to be held against what `sam-jax encode` noted.
      options: --page and --scale as they are given, to be held against the same.

    Raises:
      InputError: the file is no embedding, or of another image.
    """
    from sam_jax.embeddings import load_with_about

    embedding, about = load_with_about(path)
    if embedding.size_hw != size_hw:
        raise InputError(
            f"{path} is the embedding of an image of {embedding.size_hw[1]}x"
            f"{embedding.size_hw[0]} pixels, but this one is {size_hw[1]}x{size_hw[0]}"
        )
    if image_sha256 is not None and about.get("image_sha256", image_sha256) != image_sha256:
        raise InputError(
            f"{path} is the embedding of another image than the one of that name now; encode it "
            "again"
        )
    for name, default in (("page", "0"), ("scale", "None")):
        wanted, found = str((options or {}).get(name, default)), about.get(name, default)
        if options is not None and wanted != found:
            raise InputError(
                f"{path} was encoded with --{name} {found}, not {wanted}; encode it again"
            )
    return embedding
