"""The reference: every configuration key and option is on a page that is up to date."""

import dataclasses
import importlib.util
import re
import typing
from pathlib import Path

import pytest

import convert
import sam_jax
from sam_jax.errors import InputError
from sam_jax.train.clips.runs import ClipTrainConfig, clip_config_from_values
from sam_jax.train.config import config_from_values
from sam_jax.train.mae.pretrain import PretrainConfig
from sam_jax.train.options import TrainConfig

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


def load_generator():
    path = ROOT / "docs" / "tools" / "reference_pages.py"
    spec = importlib.util.spec_from_file_location("reference_pages", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pages = load_generator()


def leaf_keys(cls, table=""):
    """Dotted names of all keys, found without the generator."""
    for field in dataclasses.fields(cls):
        hint = typing.get_type_hints(cls)[field.name]
        name = f"{table}{field.name}"
        if dataclasses.is_dataclass(hint):
            yield from leaf_keys(hint, f"{name}.")
        else:
            yield name


@pytest.mark.parametrize("config", [TrainConfig, ClipTrainConfig, PretrainConfig])
def test_every_configuration_key_is_listed_once_with_type_default_and_meaning(config):
    keys = [key for *_, found in pages.tables_of(config) for key in found]
    assert sorted(key.name for key in keys) == sorted(leaf_keys(config))
    for key in keys:
        assert key.default and key.kind, key
        assert len(key.meaning) > 10, f"{key.name} has no meaning in its class's docstring"


@pytest.mark.parametrize("file", pages.PAGES)
def test_a_generated_page_is_what_the_code_gives_today(file):
    written = (REFERENCE / file).read_text(encoding="utf-8")
    assert written == pages.PAGES[file](), "run: python docs/tools/reference_pages.py"


def test_every_section_of_attributes_names_fields_that_exist():
    for config in (TrainConfig, ClipTrainConfig, PretrainConfig):
        for field in dataclasses.fields(config):
            hint = typing.get_type_hints(config)[field.name]
            if dataclasses.is_dataclass(hint):
                known = {one.name for one in dataclasses.fields(hint)}
                assert pages.meanings(hint).keys() <= known


@pytest.mark.parametrize("config, name", pages.DECIDED_BY)
def test_a_key_that_another_one_decides_is_refused_in_a_file(config, name):
    read, values = config_from_values, {"data": {"path": "scenes"}, "model": {"name": "tiny"}}
    if config is ClipTrainConfig:
        read, values = clip_config_from_values, {"data": {"path": "clips"}}
    read(values)
    table, key = name.split(".")
    with pytest.raises(InputError, match=f"{table}.*{key}"):
        read({**values, table: {key: 64}})


def test_a_unit_stands_in_brackets_before_the_meaning():
    class Options:
        """Something.

        Attributes:
          side: [pixels] of a
            square.
          name: of it.

        Raises:
          InputError: never.
        """

    found = pages.meanings(Options)
    assert found == {"side": "[pixels] of a square.", "name": "of it."}


def documented():
    """What the reference pages ask mkdocstrings for."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(REFERENCE.glob("*.md"))]
    return set(re.findall(r"^::: ([\w.]+)$", "\n".join(texts), re.MULTILINE))


def test_every_public_name_is_in_the_reference():
    found = documented()
    for name in sam_jax.__all__:
        assert f"sam_jax.{name}" in found, f"add '::: sam_jax.{name}' to a page of docs/reference"
    assert {
        "sam_jax.compat",
        "sam_jax.formats",
        "sam_jax.sharding",
        "sam_jax.adapters.adapter_files",
    } <= found
    page = (REFERENCE / "convert.md").read_text(encoding="utf-8")
    for name in convert.__all__:
        assert name in page
    index = (REFERENCE / "index.md").read_text(encoding="utf-8")
    for name in sam_jax.__all__:
        assert f"`{name}`" in index, f"add `{name}` to docs/reference/index.md"
