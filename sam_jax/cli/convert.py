"""`sam-jax convert`: PyTorch files to checkpoints, and back."""

import os
import secrets
from pathlib import Path
from typing import Any

import click

from sam_jax.checkpoints import registry
from sam_jax.checkpoints.weight_files import is_torch_source
from sam_jax.cli.output_files import FILE
from sam_jax.converter import load_converter
from sam_jax.errors import InputError


@click.command(short_help="PyTorch weights to a checkpoint, or back.")
@click.argument("source")
@click.argument("destination", type=FILE)
@click.option(
    "--verify",
    is_flag=True,
    help="Then run the original code and this one side by side, and print the largest error after "
    "each stage; the exit status is 1 if one is beyond its bound. Needs torch and "
    "segment-anything, or sam2.",
)
@click.option("--overwrite", is_flag=True, help="Replace what an earlier call wrote there.")
@click.option(
    "--state-dict",
    metavar="KEY",
    help="Which model to take where SOURCE holds several, such as model or ema.  [default: "
    "averaged weights, where there are some]",
)
def convert(
    source: str, destination: Path, verify: bool, overwrite: bool, state_dict: str | None
) -> None:
    """Converts SOURCE, an official .pth or .pt or a Hugging Face .safetensors file or folder.

    Files of SAM and of SAM 2 are told apart by what they hold. DESTINATION is then a directory for
    --checkpoint. If SOURCE is a checkpoint (a directory, or a name such as vit_b), DESTINATION is a
    .pth file that the original code loads. Names come before files and folders: ./vit_b is one.
    """
    converter = load_converter()
    if verify:
        _check_original_is_there()
    named = registry.named_checkpoint(source)
    path = named or Path(source)
    # Text that is neither a name nor there is most likely a name with a mistake in it.
    if named or not (is_torch_source(path) or path.suffix):
        path = named or registry.checkpoint_path(source)
        if state_dict is not None:
            raise InputError("--state-dict is for PyTorch weights, and SOURCE is a checkpoint")
        info = _export(converter, path, destination, overwrite)
        native, torch_file = path, destination
    else:
        info = converter.convert_checkpoint(
            path, destination, overwrite=overwrite, state_dict=state_dict
        )
        native, torch_file = destination, path
    for line in _description(info):
        click.echo(line)
    click.echo(f"written to {destination}")
    if verify:
        _verify(torch_file, native)


def _export(converter: Any, source: Path, destination: Path, overwrite: bool) -> Any:
    if destination.is_dir():
        raise InputError(f"{destination} is a directory; the export is a file, such as model.pth")
    if not (overwrite and destination.is_file()):
        return converter.export_checkpoint(source, destination)
    aside = destination.with_name(f".{destination.name[:100]}.{secrets.token_hex(8)}.part")
    try:
        info = converter.export_checkpoint(source, aside)
        os.replace(aside, destination)
    finally:
        aside.unlink(missing_ok=True)
    return info


def _description(info: Any) -> list[str]:
    from sam_jax.checkpoints.parameter_counts import count_parameters
    from sam_jax.models.families import family_of

    source = info.source or {}
    naming = f", {source['naming']} naming" if "naming" in source else ""
    naming += f", from {source['state_dict']!r} in the file" if "state_dict" in source else ""
    counts = count_parameters(info.config)
    return [
        f"{family_of(info.config).title}, variant {info.config.name}{naming}",
        f"{sum(counts.values()):,} parameters, fingerprint {info.fingerprint[:16]}",
    ]


def _check_original_is_there() -> None:
    """Before the conversion, not after it."""
    import importlib.util

    # Which of the two originals is needed, only the file says.
    missing = ["torch"] if importlib.util.find_spec("torch") is None else []
    if all(importlib.util.find_spec(n) is None for n in ("segment_anything", "sam2")):
        missing.append("segment_anything")
    if missing:
        raise InputError(
            f"--verify needs the original code, and {' and '.join(missing)} cannot be imported; "
            "run: pip install torch segment-anything"
        )


def _verify(torch_file: Path, native: Path) -> None:
    from convert.verify import format_table, verify

    errors = verify(torch_file, native)
    click.echo(format_table(errors))
    failed = sum(not error.passed for error in errors)
    if failed:
        click.echo(f"error: {failed} of {len(errors)} stages are beyond their bounds", err=True)
        click.get_current_context().exit(1)
