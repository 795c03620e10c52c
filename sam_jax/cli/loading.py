"""What the commands load: a Segmenter by name or path."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sam_jax.checkpoints import registry

if TYPE_CHECKING:
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


def load_segmenter(path: Path, dtype: str, **options: Any) -> "Segmenter":
    """The Segmenter of a checkpoint directory, computing in the named type; options of `load`."""
    import jax.numpy as jnp

    from sam_jax.segmenter import Segmenter

    return Segmenter.load(path, dtype=jnp.dtype(dtype), **options)
