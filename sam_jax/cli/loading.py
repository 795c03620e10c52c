"""What the commands load: a Segmenter by name or path, an embedding of an image."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sam_jax.checkpoints import registry
from sam_jax.errors import InputError

if TYPE_CHECKING:
    from sam_jax.embeddings import ImageEmbedding
    from sam_jax.segmenter import Segmenter

checkpoint_option = click.option(
    "--checkpoint",
    metavar="NAME|PATH",
    help="A name (tiny, vit_b, sam2.1_tiny, ...) or a checkpoint directory.  [default: tiny]",
)
dtype_option = click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Type to compute in; parameters stay float32.",
)


def find_checkpoint(checkpoint: str | None) -> Path:
    """The directory of the checkpoint, or of the small default.

    Raises:
      CheckpointError: there is none.
    """
    name = registry.DEFAULT_CHECKPOINT if checkpoint is None else checkpoint
    return registry.checkpoint_path(name)


def mention_default(checkpoint: str | None) -> None:
    """Says on stderr, where no checkpoint is named, that the small one is in use."""
    if checkpoint is None:
        click.echo(
            f"using the small built-in model {registry.DEFAULT_CHECKPOINT!r}; for the official "
            "weights run `sam-jax download vit_b` and add --checkpoint vit_b",
            err=True,
        )


def load_segmenter(path: Path, dtype: str) -> "Segmenter":
    """The Segmenter of a checkpoint directory, computing in the named type."""
    import jax.numpy as jnp

    from sam_jax.segmenter import Segmenter

    return Segmenter.load(path, dtype=jnp.dtype(dtype))


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
