"""Makes the reference pages that are read off the code: configuration keys and the command line.

    python docs/tools/reference_pages.py

Run it after a configuration key or an option of the command has changed; a test says when.
"""

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import click

from sam_jax.cli.main import main as command
from sam_jax.train.clips.runs import ClipTrainConfig
from sam_jax.train.mae.pretrain import PretrainConfig
from sam_jax.train.options import TrainConfig

REFERENCE = Path(__file__).parents[1] / "reference"

CONFIGURATIONS = {
    "Train SAM": (
        TrainConfig,
        "`sam-jax train CONFIG`, where `model.name` is a model of SAM. Without `model.name` it is "
        "`vit_h`.",
    ),
    "Train SAM 2 on clips": (
        ClipTrainConfig,
        "`sam-jax train CONFIG`, where `model.name` is a model of SAM 2, such as `sam2.1_tiny`.",
    ),
    "Pre-train": (PretrainConfig, "`sam-jax pretrain CONFIG`, a masked autoencoder."),
}

# Keys that a file leaves out, as another key decides them.
DECIDED_BY = {
    (TrainConfig, "scenes.image_size"): "data.image_size",
    (TrainConfig, "scenes.masks"): "data.max_masks",
    (ClipTrainConfig, "clips.image_size"): "model.image_size",
    (ClipTrainConfig, "clips.frames"): "data.frames",
    (ClipTrainConfig, "clips.objects"): "data.objects",
}

ABOUT_CONFIGURATIONS = """\
# Configuration keys

Every key of the TOML files that `sam-jax train` and `sam-jax pretrain` take, made from the code by
`docs/tools/reference_pages.py`. A key that a file leaves out has the default given here. Unknown
keys and values of the wrong type are refused before anything runs. `--set TABLE.KEY=VALUE` on the
command line takes precedence over the file: `--set data.path=photos --set optimizer.steps=500`.

"Paper" is Segment Anything (Kirillov et al. 2023); for pre-training, it is Masked Autoencoders (He
et al. 2021). An update is one step of the optimizer. [Training](../training.md) explains what the
keys are for.
"""

ABOUT_COMMANDS = """\
# Command line

Every command and option of `sam-jax`, made from the code by `docs/tools/reference_pages.py`.
`sam-jax COMMAND --help` prints the same.

Exit status: 0 for success, 1 where a check did not hold (`convert --verify`), 2 for an error that
the user can mend, which is one line on stderr, 130 when interrupted.
"""


class Key(NamedTuple):
    """A configuration key.

    Attributes:
      name: with its table, as `--set` takes it.
      default: as TOML.
      kind: of its values, in words.
      unit: empty for a number that has none.
      meaning: a sentence or more, in Markdown.
    """

    name: str
    default: str
    kind: str
    unit: str
    meaning: str


def configuration_page() -> str:
    """Markdown of all configuration keys."""
    parts = [ABOUT_CONFIGURATIONS]
    for title, (config, about) in CONFIGURATIONS.items():
        parts.append(f"## {title}\n\n{about}\n")
        for table, summary, keys in tables_of(config):
            name = f"`[{table}]`" if table else "keys outside all tables"
            parts.append(f"### {title}: {name}\n")
            parts += [f"{summary}\n"] if summary else []
            parts.append(_table(("Key", "Default", "Type, unit", "Meaning"), map(_cells, keys)))
    return "\n".join(parts)


def command_page() -> str:
    """Markdown of all commands and their options."""
    parts = [ABOUT_COMMANDS]
    for name, one in command.commands.items():
        context = click.Context(one, info_name=name)
        usage = " ".join(("sam-jax", name, *one.collect_usage_pieces(context)))
        about = inspect.cleandoc(one.help or "").replace("\b\n", "")
        parts.append(f"## {name}\n\n```text\n{usage}\n```\n\n{about}\n")
        options = [option for option in one.params if isinstance(option, click.Option)]
        parts.append(_table(("Option", "Meaning"), map(_option, options)))
    return "\n".join(parts)


def tables_of(config: Any) -> Iterator[tuple[str, str, list[Key]]]:
    """The tables of a configuration: name, what each is about, and its keys."""
    yield from _tables(config, config, "", "")


def meanings(cls: Any) -> dict[str, str]:
    """What a class says of each of its attributes, in its "Attributes:" section."""
    lines = inspect.cleandoc(cls.__doc__ or "").splitlines()
    found: dict[str, str] = {}
    name = ""
    for line in lines[lines.index("Attributes:") + 1 :] if "Attributes:" in lines else []:
        start = re.match(r"  (\w+): (.*)", line)
        if start:
            name = start[1]
            found[name] = start[2]
        elif line.startswith("    ") and name:
            found[name] += f" {line.strip()}"
        elif line and not line.startswith(" "):
            break
    return found


def _tables(config: Any, cls: Any, table: str, about: str) -> Iterator[tuple[str, str, list[Key]]]:
    hints, known, default = typing.get_type_hints(cls), meanings(cls), cls()
    keys, inner = [], []
    for field in dataclasses.fields(cls):
        name = f"{table}.{field.name}" if table else field.name
        hint, text = hints[field.name], known.get(field.name, "")
        if dataclasses.is_dataclass(hint):
            first = inspect.cleandoc(hint.__doc__ or "").split("\n\n")[0]
            inner.append((hint, name, _sentence(text) or first))
            continue
        unit, meaning = re.fullmatch(r"(?:\[([^]]*)\] )?(.*)", text).groups()
        if decides := DECIDED_BY.get((config, name)):
            meaning = f"Decided by `{decides}`; a file leaves it out."
        value = _toml(getattr(default, field.name))
        keys.append(Key(name, value, _kind(hint), unit or "", _sentence(meaning)))
    if keys:
        yield table, about, keys
    for part in inner:
        yield from _tables(config, *part)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _kind(hint: Any) -> str:
    if typing.get_origin(hint) is tuple:
        return f"list ({_kind(typing.get_args(hint)[0])})"
    if typing.get_origin(hint) is Literal:
        return " or ".join(f"`{_toml(one)}`" for one in typing.get_args(hint))
    return {int: "whole number", float: "number", bool: "true or false", str: "text"}[hint]


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return f"'{value}'" if "\\" in value else f'"{value}"'
    return f"{value:_}" if isinstance(value, int) else repr(value)


def _option(option: click.Option) -> tuple[str, str]:
    """A row of a command's table; the words are ours, as click's vary with its version."""
    names = " / ".join((*option.opts, *option.secondary_opts))
    limits, kind = "", option.type
    if isinstance(kind, click.IntRange | click.FloatRange):
        ends = (("from", kind.min), ("to", kind.max))
        limits = " ".join(f"{word} {end}" for word, end in ends if end is not None)
    if not option.is_flag:
        choices = "|".join(map(str, kind.choices)) if isinstance(kind, click.Choice) else ""
        number = "N" if kind.name.startswith("integer") else "NUMBER"
        plain = number if kind.name.startswith(("integer", "float")) else "TEXT"
        names += f" {option.metavar or choices or plain}"
    shown = option.show_default
    default = shown if isinstance(shown, str) else str(option.default) if shown else ""
    facts = [limits, f"default: `{default}`" if default else "", "required" * option.required]
    extra = "; ".join(filter(None, facts))
    return _code(names), _cell(f"{option.help or ''} ({extra})" if extra else option.help or "")


def _cells(key: Key) -> tuple[str, ...]:
    kind = f"{key.kind}, {key.unit}" if key.unit else key.kind
    return _code(key.name), _code(key.default), _cell(kind), _cell(key.meaning)


def _table(titles: tuple[str, ...], rows: Any) -> str:
    lines = [titles, ("---",) * len(titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{_cell(text)}`"


PAGES = {"configuration.md": configuration_page, "command_line.md": command_page}

if __name__ == "__main__":
    for file, page in PAGES.items():
        (REFERENCE / file).write_text(page(), encoding="utf-8")
        print(f"written: {REFERENCE / file}")
