"""Paths are relative to what names them, and a run is the same from wherever it is started."""

import json
import os
from pathlib import Path

import pytest

from sam_jax import InputError
from sam_jax.train.config import FREE_TO_CHANGE, differences, read_values
from sam_jax.train.loop.loop import run_folder
from sam_jax.train.paths import PATH_KEYS

RUN = """
[model]
checkpoint = "start/model"
mae = "mae.npz"
[data]
path = "photos"
annotations = "labels/train.json"
[tune]
cached_embeddings = "kept"
"""
GIVEN = {
    ("model", "checkpoint"): "start/model",
    ("model", "mae"): "mae.npz",
    ("data", "path"): "photos",
    ("data", "annotations"): "labels/train.json",
    ("tune", "cached_embeddings"): "kept",
}


def forbidden(earlier, values):
    return [name for name in differences(earlier, values) if name not in FREE_TO_CHANGE]


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    (folder / "configs").mkdir(parents=True)
    (folder / "configs/run.toml").write_text(RUN)
    monkeypatch.chdir(folder)
    return folder


def begin(values, folder):
    """A run that writes its configuration and ends."""
    with run_folder(Path(folder), values, forbidden) as keep:
        keep()


@pytest.mark.parametrize("where", [".", "configs", ".."])
def test_paths_of_a_file_are_relative_to_its_folder(project, monkeypatch, where):
    monkeypatch.chdir(where)
    for source in (project / "configs/run.toml", os.path.relpath(project / "configs/run.toml")):
        values = read_values(str(source))
        for (table, key), path in GIVEN.items():
            assert os.path.abspath(values[table][key]) == str(project / "configs" / path)
    assert GIVEN.keys() == set(PATH_KEYS)


def test_paths_of_changes_are_relative_to_the_working_directory(project):
    changes = [f"{table}.{key}={path}" for (table, key), path in GIVEN.items()]
    for source in ("configs/run.toml", "vit_b"):
        values = read_values(source, changes)
        assert {(table, key): values[table][key] for table, key in GIVEN} == GIVEN


def test_names_and_absolute_paths_stay(project, monkeypatch):
    text = '[model]\ncheckpoint = "{}"\n[data]\npath = "{}"\n'
    monkeypatch.setenv("HOME", "/home/someone")
    for checkpoint, path in [
        ("tiny", "scenes"),
        ("SAM-ViT-B", "scenes:held-out"),
        ("sam2.1_tiny", "clips"),
        ("/models/a", "/data/photos"),
        ("", ""),
    ]:
        Path("configs/run.toml").write_text(text.format(checkpoint, path))
        values = read_values("configs/run.toml")
        assert (values["model"]["checkpoint"], values["data"]["path"]) == (checkpoint, path)
    Path("configs/run.toml").write_text(text.format("./tiny", "~/photos"))
    values = read_values("configs/run.toml")
    assert values["model"]["checkpoint"] == "configs/./tiny"
    assert values["data"]["path"] == "/home/someone/photos"
    assert read_values("vit_b", ["data.path=~/x"])["data"]["path"] == "/home/someone/x"


def test_wrong_kinds_of_value_are_left_to_the_check_of_the_configuration(project):
    Path("configs/run.toml").write_text("model = 3\n[data]\npath = 7\n")
    assert read_values("configs/run.toml") == {"model": 3, "data": {"path": 7}}


def test_the_same_run_goes_on_from_another_working_directory(project, monkeypatch):
    begin(read_values("configs/run.toml"), "run")
    kept = json.loads(Path("run/config.json").read_text())
    assert kept["data"]["path"] == str(project / "configs/photos")
    monkeypatch.chdir("configs")
    begin(read_values("run.toml"), "../run")
    other = read_values("run.toml", ["data.path=elsewhere"])
    with pytest.raises(InputError, match=r"another configuration \(data.path\)"):
        begin(other, "../run")


@pytest.mark.parametrize("moved", ["project", "project/run"])
def test_a_run_goes_on_after_it_was_moved_alone_or_with_its_data(project, monkeypatch, moved):
    begin(read_values("configs/run.toml"), "run")
    monkeypatch.chdir(project.parent)
    os.rename(moved, "moved")
    config = "moved/configs/run.toml" if moved == "project" else "project/configs/run.toml"
    folder = "moved/run" if moved == "project" else "moved"
    begin(read_values(config), folder)
    # And once more: the folder knows its new place.
    begin(read_values(config), folder)
    with pytest.raises(InputError, match=r"another configuration \(model.mae\)"):
        begin(read_values(config, ["model.mae=mae.npz"]), folder)


def test_folders_of_earlier_versions_have_paths_from_the_working_directory(project):
    Path("run").mkdir()
    Path("run/config.json").write_text(json.dumps({"data": {"path": "photos"}, "steps": 3}))
    begin({"data": {"path": "photos"}, "steps": 3}, "run")
    Path("run/config.json").write_text(json.dumps({"data": {"path": "photos"}, "steps": 3}))
    with pytest.raises(InputError, match=r"another configuration \(data.path\)"):
        begin({"data": {"path": "configs/photos"}, "steps": 3}, "run")
