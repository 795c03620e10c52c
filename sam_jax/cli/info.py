"""`sam-jax info`: what a checkpoint or a PyTorch file holds."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sam_jax.checkpoints import registry
from sam_jax.checkpoints.weight_files import convert_command, is_torch_source
from sam_jax.converter import load_converter

if TYPE_CHECKING:
    from sam_jax.models.families import ModelConfig


@click.command(short_help="What a checkpoint holds.")
@click.argument("checkpoint", metavar="CHECKPOINT")
def info(checkpoint: str) -> None:
    """Describes CHECKPOINT: a name, a checkpoint directory, or a .pth or .safetensors file.

    Everything is read and checked, and nothing is written. A PyTorch file's fingerprint is the one
    that its checkpoint would have. Names come before files and folders: ./vit_b is one.
    """
    named = registry.named_checkpoint(checkpoint)
    path = named or Path(checkpoint)
    if named is None and path.exists() and is_torch_source(path):
        lines = _of_torch_file(path)
    else:
        lines = _of_checkpoint(named or registry.checkpoint_path(checkpoint))
    for line in lines:
        click.echo(line)


def _of_checkpoint(path: Path) -> list[str]:
    from sam_jax.checkpoints.native import load_checkpoint

    loaded = load_checkpoint(path)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    source = loaded.source or {}
    described = ", ".join(f"{key} {value}" for key, value in source.items()) or "not recorded"
    return [
        f"checkpoint   {path}",
        *_model_lines(loaded.config),
        f"size         {size / 1e6:,.1f} MB on disk",
        f"source       {described}",
        f"fingerprint  {loaded.fingerprint}",
        *_config_lines(loaded.config),
    ]


def _of_torch_file(path: Path) -> list[str]:
    from sam_jax.checkpoints.native import fingerprint

    load_converter()
    from convert.conversion import load_source

    loaded = load_source(path)
    files, found = loaded.files, loaded.state_dict
    lines = [f"file         {files.path}"]
    if len(files.files) > 1:
        lines.append(f"parts        {', '.join(file.name for file in files.files)}")
    lines += [
        *_model_lines(loaded.config),
        f"size         {files.num_bytes() / 1e6:,.1f} MB on disk",
        f"naming       {loaded.naming}",
    ]
    if found.place:
        lines.append(f"state dict   {found.place}")
    if found.left_out:
        lines.append(f"left out     {', '.join(found.left_out[:5])}")
    return [
        *lines,
        f"sha256       {loaded.sha256}",
        f"fingerprint  {fingerprint(loaded.config, loaded.variables)}",
        f"convert it   {convert_command(path)}",
        *_config_lines(loaded.config),
    ]


def _model_lines(config: "ModelConfig") -> list[str]:
    from sam_jax.checkpoints.parameter_counts import count_parameters
    from sam_jax.models.families import family_of

    counts = count_parameters(config)
    lines = [
        f"model        {family_of(config).title}, {config.name}",
        f"parameters   {sum(counts.values()):,}",
    ]
    width = max(16, *map(len, counts))
    return lines + [f"  {part:<{width}} {count:>13,}" for part, count in counts.items()]


def _config_lines(config: "ModelConfig") -> list[str]:
    from sam_jax.configs import config_to_json

    lines = ["configuration"]
    for key, value in config_to_json(config).items():
        if isinstance(value, dict):
            lines += [f"  {key}.{inner}: {json.dumps(v)}" for inner, v in value.items()]
        else:
            lines.append(f"  {key}: {json.dumps(value)}")
    return lines
