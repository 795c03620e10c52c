"""`sam-jax download`: official weights into the cache folder."""

from pathlib import Path

import click

from sam_jax.checkpoints import registry
from sam_jax.cli.progress import ProgressBar
from sam_jax.converter import load_converter


@click.command(short_help="Official weights, checked and converted.")
@click.argument("name")
@click.option("--url", help="A mirror to download from; the file's SHA-256 must be the same.")
@click.option("--keep", is_flag=True, help="Keep the downloaded .pth file too.")
@click.option("--force", is_flag=True, help="Do it again although the checkpoint is there.")
def download(name: str, url: str | None, keep: bool, force: bool) -> None:
    """Downloads official weights (NAME is vit_b, sam2.1_tiny, ...) and converts them.

    A download that was cut short goes on where it stopped. Size and SHA-256 are checked before the
    file is used. Afterwards --checkpoint NAME uses them. They lie in checkpoints/ in the user's
    cache folder, or in the folder that SAM_JAX_CACHE names.
    """
    converter = load_converter()  # what is in its way is told before the download
    converted: list[Path] = []

    def convert(file: Path, destination: Path) -> None:
        bar.note(f"converting {file.name}")
        converter.convert_checkpoint(file, destination, overwrite=force)
        converted.append(destination)

    with ProgressBar(f"downloading {name}", "B") as bar:
        path = registry.download(name, convert, url=url, keep=keep, force=force, progress=bar)
    known = registry.official_name(name)
    click.echo(f"{known} {'is ready' if converted else 'was there already'}: {path}")
    click.echo(f"use it with: sam-jax segment IMAGE --point X,Y --checkpoint {known}")
