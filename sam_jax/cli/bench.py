"""`sam-jax bench`: our model beside the original and Hugging Face's on this machine."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sam_jax.bench.run import IN_PROCESS, BenchRun, write_readings
from sam_jax.cli.loading import dtype_option
from sam_jax.cli.output_files import FILE
from sam_jax.cli.progress import Steps
from sam_jax.configs import CONFIGS
from sam_jax.converter import load_converter
from sam_jax.errors import InputError
from sam_jax.files import is_stream

if TYPE_CHECKING:
    from sam_jax.bench.report import Measured

RIVALS = ("original", "transformers")
DEFAULT_TASKS = ("memory", "encoder", "prompts-64", "prompt-1")


@click.command(short_help="Times and memory beside the PyTorch packages.")
@click.option(
    "--model",
    type=click.Choice([*CONFIGS]),
    default="vit_b",
    show_default=True,
    help="vit_b, vit_l and vit_h have random weights; tiny has an architecture that the other "
    "packages lack, so they are left out; test is a toy to try the command with.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Readings of each task and package, taken in turn.",
)
@dtype_option
@click.option(
    "--against",
    type=click.Choice(RIVALS),
    multiple=True,
    help="A package to compare with; may be repeated.  [default: those that are installed]",
)
@click.option(
    "--task",
    "tasks",
    type=click.Choice([*IN_PROCESS, "first-mask", "memory"]),
    multiple=True,
    help="What to measure; may be repeated.  [default: encoder, prompts-64, prompt-1, memory]",
)
@click.option("--image", type=FILE, help="The photo for generate and first-mask.")
@click.option("--json", "json_file", type=FILE, help="Also write all readings to this file.")
def bench(
    model: str,
    rounds: int,
    dtype: str,
    against: tuple[str, ...],
    tasks: tuple[str, ...],
    image: Path | None,
    json_file: Path | None,
) -> None:
    """Measures this model beside the original segment-anything and Hugging Face transformers.

    Prints a table of medians, their spread, and ratios. In every round each task runs package after
    package, so that whatever else the machine does slows all of them; ratios are what to look at.
    Packages that are not installed, or have no such model, are left out.

    encoder: an image of the model's size. prompts-64, prompt-1: prompts of one point to
    low-resolution logits. generate: all masks of a photo with a grid of 32x32 points, end to end,
    against the original alone. first-mask: from starting Python to one mask, compilation included,
    with an empty and with a filled cache of compiled programs; what the first encoding and mask
    take beyond the second is compilation. memory: the peak of a process that encodes an image
    twice.
    """
    if json_file is not None:
        _check_json_file(json_file)
    chosen = tuple(dict.fromkeys(tasks or DEFAULT_TASKS))
    photo = _find_photo(image) if {"generate", "first-mask"} & set(chosen) else None
    rivals = _usable(against or RIVALS, model)
    # PyTorch shares an accelerator's memory with us.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from sam_jax.bench.children import OURS_MODULE, run_child
    from sam_jax.bench.machine import describe

    # Asked in a process of its own: a TPU serves one at a time, and those that measure come first.
    found = run_child(OURS_MODULE, "machine", {})
    for line in describe(found):
        click.echo(line)
    work = BenchRun(model, dtype, rounds, rivals, found["jax_device"]["platform"] != "cpu", photo)
    with Steps("readings") as steps:
        measured = work.run(chosen, steps.update)
    title = f"{model}, {dtype}, {rounds} {'round' if rounds == 1 else 'rounds'}"
    _show(measured, title, work.devices)
    if json_file is not None:
        write_readings(json_file, work, measured, found)
        click.echo(f"written to {json_file}")


def _check_json_file(path: Path) -> None:
    """Refuses, before long work, a file that cannot be written."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; --json takes a file, such as bench.json")
    if is_stream(path):
        if not os.access(path, os.W_OK):
            raise InputError(f"{path} cannot be written to; choose another --json")
        return
    existing = path.absolute().parent
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir():
        raise InputError(f"{existing} is not a folder; choose another --json")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{existing} cannot be written to; choose another --json")


def _find_photo(image: Path | None) -> Path:
    """The photo that is given, checked, or the one among the examples."""
    if image is None:
        image = Path(__file__).parents[2] / "examples" / "photos" / "coffee.jpg"
        if not image.is_file():
            raise InputError("generate and first-mask need a photo: add --image PHOTO")
    from sam_jax.images import read_image

    read_image(image)
    return image.absolute()


def _usable(names: Sequence[str], model: str) -> tuple[str, ...]:
    """Those of the rivals that can be imported and have the model; what is missing is said."""
    load_converter()
    from sam_jax.bench.rivals import have_model, missing

    there = []
    for name in dict.fromkeys(names):
        if not have_model(model):
            click.echo(f"{name} is left out: it has no image encoder like {model}'s", err=True)
        elif lacking := missing(name):
            click.echo(f"{name} is left out: {' and '.join(lacking)} not installed", err=True)
        else:
            there.append(name)
    return tuple(there)


def _show(measured: Sequence["Measured"], title: str, devices: dict[str, str]) -> None:
    from sam_jax.bench.report import stage_table, table

    click.echo(f"\n{title}")
    if len(set(devices.values())) > 1:
        click.echo("; ".join(f"{name} on {device}" for name, device in devices.items()))
    click.echo("")
    for line in table(measured):
        click.echo(line)
    for one in measured:
        if "stages" in one.notes:
            click.echo("")
            for line in stage_table(one.notes["stages"]):
                click.echo(line)
        if "masks" in one.notes:
            counts = ", ".join(f"{name} {count}" for name, count in one.notes["masks"].items())
            same = "".join(
                f"; {count} the same in {name}" for name, count in one.notes["same_as_ours"].items()
            )
            click.echo(f"\nmasks: {counts}{same}")
