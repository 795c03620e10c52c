"""`sam-jax train`: interactive training from a configuration file."""

from pathlib import Path
from typing import Any

import click

from sam_jax.cli.distributed_options import Hosts, training_options
from sam_jax.cli.interruption import interruptible
from sam_jax.cli.output_files import FILE
from sam_jax.errors import InputError
from sam_jax.folder_runs.meeting import together

changes_option = click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="TABLE.KEY=VALUE",
    help="Another value than the file's, such as data.path=photos; may be repeated.",
)

change_recipe_option = click.option(
    "--change-recipe",
    is_flag=True,
    help="Go on with a run although [optimizer], [losses] or [simulation] is another now: a lower "
    "learning rate after a loss that was not finite, or more steps.",
)


@click.command(short_help="Trains a model.")
@click.argument("config")
@click.option(
    "--output",
    type=FILE,
    required=True,
    metavar="DIR",
    help="Folder of the run: checkpoints, metrics, pictures, and at the end the model. The same "
    "call again goes on from the newest checkpoint.",
)
@changes_option
@click.option(
    "--overfit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Train on the same N images again and again, to see whether a model can learn at all.",
)
@change_recipe_option
@training_options
def train(
    config: str,
    output: Path,
    changes: tuple[str, ...],
    overfit: int | None,
    change_recipe: bool,
    hosts: Hosts | None,
) -> None:
    """Trains as CONFIG says: a TOML file, or a recipe by name (vit_b, vit_l, vit_h).

    docs/reference/configuration.md lists every key. The run's folder is written to as it goes:
    metrics.jsonl and tensorboard/ with the metrics, pictures/ with masks of first prompts beside
    the true ones, checkpoints/ to go on from, and model/, a checkpoint for the other commands, at
    the end. Ctrl-C or SIGTERM ends the run after the update it is at, with a checkpoint and status
    130; a second one ends it at once, with the checkpoint before.
    """
    with interruptible(output):
        _train(config, output, changes, overfit, change_recipe, hosts)


def _train(
    config: str,
    output: Path,
    changes: tuple[str, ...],
    overfit: int | None,
    change_recipe: bool,
    hosts: Hosts | None,
) -> None:
    from sam_jax.train.config import config_from_values, read_values

    changes = (
        *changes,
        *([f"data.overfit={overfit}", f"data.batch_size={overfit}"] if overfit else []),
    )
    values = read_values(config, changes)
    if _is_sam2(values):
        from sam_jax.train.clips.runs import clip_config_from_values, train_clips

        if overfit or change_recipe:
            raise InputError("--overfit and --change-recipe are not for SAM 2")
        clips = clip_config_from_values(values)
        with together(hosts):
            tell(f"written to {train_clips(clips, output, tell)}")
        return
    options = config_from_values(values)
    from sam_jax.train.runs import train_run

    with together(hosts):
        model = train_run(options, output, tell, change_recipe)
        tell(f"written to {model}")


def _is_sam2(values: dict[str, Any]) -> bool:
    """Whether the model is SAM 2's, which has tables of its own."""
    from sam_jax.models.sam2.config import SAM2_CONFIGS

    model = values.get("model")
    return isinstance(model, dict) and model.get("name") in SAM2_CONFIGS


def tell(line: str) -> None:
    """Prints a line; the first process of a run speaks for all."""
    import jax

    if jax.process_index() == 0:
        click.echo(line)
