"""`sam-jax pretrain`: a masked autoencoder from a folder of images."""

from pathlib import Path

import click

from sam_jax.cli.distributed_options import Hosts, training_options
from sam_jax.cli.interruption import interruptible
from sam_jax.cli.output_files import FILE
from sam_jax.cli.train import change_recipe_option, changes_option, tell
from sam_jax.folder_runs.meeting import together


@click.command(short_help="Pre-trains an image encoder.")
@click.argument("config")
@click.option(
    "--output",
    type=FILE,
    required=True,
    metavar="DIR",
    help="Folder of the run: checkpoints, metrics, and at the end model.npz. The same call again "
    "goes on from the newest checkpoint.",
)
@changes_option
@change_recipe_option
@training_options
def pretrain(
    config: str, output: Path, changes: tuple[str, ...], change_recipe: bool, hosts: Hosts | None
) -> None:
    """Pre-trains an encoder as CONFIG says: a TOML file, or a recipe (mae_vit_b, mae_vit_l, ...).

    A masked autoencoder sees a quarter of each image's patches and paints the rest; no masks are
    needed. `sam-jax train --set model.mae=DIR/model.npz` starts from its encoder.
    """
    from sam_jax.train.config import read_values
    from sam_jax.train.mae.pretrain import pretrain_config, pretrain_run

    with interruptible(output):
        options = pretrain_config(read_values(config, changes, "mae_*"))
        with together(hosts):
            path = pretrain_run(options, output, tell, change_recipe)
            tell(f"written to {path}")
