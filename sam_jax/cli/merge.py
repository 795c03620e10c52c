"""`sam-jax merge`: a checkpoint and an adapter of it, as one checkpoint."""

from pathlib import Path

import click

from sam_jax.checkpoints import registry
from sam_jax.cli.output_files import FILE


@click.command(short_help="A checkpoint with an adapter merged.")
@click.argument("checkpoint")
@click.argument("adapter", type=FILE)
@click.argument("destination", type=FILE)
@click.option("--overwrite", is_flag=True, help="Replace a checkpoint that is there already.")
def merge(checkpoint: str, adapter: Path, destination: Path, overwrite: bool) -> None:
    """Merges ADAPTER, which fine-tuning wrote, into CHECKPOINT, the model that was tuned.

    DESTINATION is then a directory for --checkpoint, and `sam-jax convert` makes a .pth file of it
    for the original code. An adapter of another model is refused.
    """
    path = registry.checkpoint_path(checkpoint)
    from sam_jax.adapters.adapter_files import merge_adapter
    from sam_jax.checkpoints.native import check_destination

    check_destination(destination, overwrite=overwrite)
    info = merge_adapter(path, adapter, destination, overwrite=overwrite)
    click.echo(f"{info.config.name}, fingerprint {info.fingerprint[:16]}")
    click.echo(f"written to {destination}")
