"""`sam-jax convert` and `info`: both ways, what is printed, and what is refused."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest
from click.testing import CliRunner
from generated_folder import snapshot

import convert.verify
from convert.verify import StageError
from sam_jax.checkpoints.native import load_checkpoint, save_checkpoint
from sam_jax.checkpoints.parameter_counts import count_parameters
from sam_jax.cli.main import main
from sam_jax.configs import CONFIGS, TEST, TINY
from sam_jax.models.sam.sam import variable_shapes


@pytest.fixture
def torch_file(run, checkpoint):
    run("convert", checkpoint, "model.pth")
    return Path("model.pth")


def test_a_checkpoint_survives_the_way_there_and_back(run, checkpoint, torch_file):
    result = run("convert", torch_file, "back")
    assert load_checkpoint("back").fingerprint == load_checkpoint(checkpoint).fingerprint
    assert result.stdout.splitlines() == [
        "Segment Anything (SAM 1), variant test, official naming",
        f"{sum(count_parameters(TEST).values()):,} parameters, "
        f"fingerprint {load_checkpoint(checkpoint).fingerprint[:16]}",
        "written to back",
    ]
    assert load_checkpoint("back").source["file"] == "model.pth"


def test_names_can_be_exported(run, checkpoint, tmp_path, torch_file):
    installed = tmp_path / "cache" / "checkpoints" / "vit_b"
    installed.parent.mkdir(parents=True)
    installed.symlink_to(checkpoint)
    run("convert", "vit_b", "named.pth")
    assert Path("named.pth").read_bytes() == torch_file.read_bytes()


def test_what_is_there_is_replaced_only_when_told_so(run, checkpoint, torch_file):
    run("convert", torch_file, "back")
    assert "exists already" in run.refused("convert", torch_file, "back")
    assert "exists already" in run.refused("convert", checkpoint, torch_file)
    before = torch_file.read_bytes()
    torch_file.write_bytes(b"something else")
    run("convert", checkpoint, torch_file, "--overwrite")
    assert torch_file.read_bytes() == before
    run("convert", torch_file, "back", "--overwrite")
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("")
    assert "no checkpoint" in run.refused("convert", torch_file, "mine", "--overwrite")
    assert "is a directory" in run.refused("convert", checkpoint, "mine", "--overwrite")
    assert sorted(path.name for path in Path().iterdir()) == [
        "back", "mine", "model.pth", "photo.png",
    ]  # fmt: skip


def test_user_errors_are_one_line(run, checkpoint):
    Path("empty.pth").write_bytes(b"")
    Path("folder").mkdir()
    assert "empty.pth is empty" in run.refused("convert", "empty.pth", "out")
    assert "no file nothing.pth" in run.refused("convert", "nothing.pth", "out")
    assert "'nothing' is neither" in run.refused("convert", "nothing", "out")
    assert "folder" in run.refused("convert", "folder", "out.pth")
    assert "photo.png is neither" in run.refused("convert", "photo.png", "out")
    assert "Missing argument 'DESTINATION'" in run.refused("convert", "empty.pth")
    assert not Path("out").exists() and not Path("out.pth").exists()


def test_another_module_named_convert_is_named(run, monkeypatch):
    other = ModuleType("convert")
    other.__file__ = "/home/me/convert.py"
    monkeypatch.setitem(sys.modules, "convert", other)
    assert "/home/me/convert.py hides" in run.refused("convert", "model.pth", "out")


def test_another_module_named_convert_is_not_run(run, folder, monkeypatch):
    Path("convert.py").write_text("raise SystemExit('it was run')")
    monkeypatch.delitem(sys.modules, "convert")
    monkeypatch.syspath_prepend(folder)
    assert f"{folder / 'convert.py'} hides" in run.refused("convert", "model.pth", "out")


def test_verify_needs_the_original_and_says_so_first(run, torch_file, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find_spec(name)
    )
    line = run.refused("convert", torch_file, "out", "--verify")
    assert "pip install torch segment-anything" in line
    assert not Path("out").exists()


@pytest.mark.parametrize("direction", ["there", "back"])
@pytest.mark.parametrize("relative, status", [(1e-6, 0), (1e-3, 1), (float("nan"), 1)])
def test_verify_prints_the_table_and_fails_beyond_the_bound(
    checkpoint, torch_file, monkeypatch, direction, relative, status
):
    asked = []

    def verify(source, native):
        asked.append((str(source), str(native)))
        return [StageError("neck", relative, 1.0, relative, 2e-4)]

    monkeypatch.setattr(convert.verify, "verify", verify)
    # The comparison is made up here, so it runs where PyTorch is not installed, too.
    find_spec, references = importlib.util.find_spec, {"torch", "segment_anything"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: name in references or find_spec(name)
    )
    native, exported = str(checkpoint), "again.pth"
    args = [str(torch_file), "out"] if direction == "there" else [native, exported]
    result = CliRunner().invoke(main, ["convert", *args, "--verify"])
    assert asked == [(str(torch_file), "out") if direction == "there" else (exported, native)]
    assert result.exit_code == status
    assert "neck" in result.stdout and ("FAILED" in result.stdout) == bool(status)
    assert result.stderr == ("error: 1 of 1 stages are beyond their bounds\n" if status else "")


def test_parameters_are_counted_by_part():
    counts = count_parameters(CONFIGS["vit_b"])
    assert counts["image_encoder"] == 89_670_912
    assert sum(counts.values()) == 93_735_728  # the original's, with its random frequencies


def test_info_describes_a_checkpoint(run, checkpoint):
    result = run("info", checkpoint)
    loaded = load_checkpoint(checkpoint)
    for text in (loaded.fingerprint, "made_up.pth", 'name: "test"', "image_encoder.depth: 2"):
        assert text in result.stdout
    total = sum(np.size(leaf) for leaf in leaves(loaded.params))
    assert f"parameters   {total:,}" in result.stdout


def leaves(tree):
    if isinstance(tree, dict):
        for branch in tree.values():
            yield from leaves(branch)
    else:
        yield tree


@pytest.fixture
def hybrid():
    """A checkpoint of the shipped architecture, which the original code lacks."""
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape, np.float32), variable_shapes(TINY)
    )
    return save_checkpoint("hybrid", TINY, variables)


@pytest.mark.parametrize("options", [[], ["--overwrite"], ["--verify"]])
def test_a_model_that_the_original_lacks_has_no_pytorch_file(run, hybrid, options, monkeypatch):
    find_spec, references = importlib.util.find_spec, {"torch", "segment_anything"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: name in references or find_spec(name)
    )
    Path("taken.pth").write_text("mine")
    before = snapshot(Path())
    for destination in ("out.pth", *(["taken.pth"] if "--overwrite" in options else [])):
        line = run.refused("convert", "hybrid", destination, *options)
        assert line == (
            "tiny has an image encoder of our own, which the original code cannot run: there is no "
            "PyTorch file of it"
        )
    assert snapshot(Path()) == before


def test_info_describes_a_hybrid_model(run, hybrid):
    lines = run("info", "hybrid").stdout.splitlines()
    assert "model        Segment Anything (SAM 1), tiny" in lines
    assert f"fingerprint  {hybrid.fingerprint}" in lines
    assert "  image_encoder.stem_dims: [16, 48, 96]" in lines
    assert not any("window_size" in line for line in lines)
    counts = count_parameters(TINY)
    assert f"parameters   {sum(counts.values()):,}" in lines


def test_info_describes_a_pytorch_file_and_writes_nothing(run, checkpoint, torch_file):
    before = sorted(Path().rglob("*"))
    result = run("info", torch_file)
    assert load_checkpoint(checkpoint).fingerprint in result.stdout
    assert "naming       official" in result.stdout
    assert "sam-jax convert model.pth DESTINATION" in result.stdout
    assert sorted(Path().rglob("*")) == before


def test_info_refuses_in_one_line(run):
    assert "run: sam-jax download vit_h" in run.refused("info", "vit_h")
    assert "names are: " in run.refused("info", "nothing")
    assert "photo.png" in run.refused("info", "photo.png")


def test_names_come_before_folders_and_files_in_info_and_convert(run, checkpoint, torch_file):
    Path("tiny").mkdir()
    (Path("tiny") / "model.safetensors").write_bytes(b"not read")
    result = run("info", "tiny")
    assert "model        Segment Anything (SAM 1), tiny" in result.stdout
    assert result.stderr.splitlines() == [
        "warning: 'tiny' means the model of that name, not the one in the current folder; write "
        "./tiny for that"
    ]
    assert "tiny/model.safetensors" in run.refused("info", "./tiny")
    Path("vit_b").symlink_to(torch_file)
    for command in (["info", "vit_b"], ["convert", "vit_b", "out.pth"]):
        assert "run: sam-jax download vit_b" in run.refused(*command)
    assert "naming       official" in run("info", "./vit_b").stdout


def test_where_in_a_file_the_weights_were_is_said(run, checkpoint, torch_file):
    torch = pytest.importorskip("torch")
    state = torch.load(torch_file)
    averaged = {name: value / 2 for name, value in state.items()}
    torch.save({"model": {f"module.{n}": v for n, v in state.items()}, "ema": averaged}, "run.pth")
    result = run("convert", "run.pth", "averaged")
    assert "official naming, from 'ema' in the file" in result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith("warning: run.pth holds several models; 'ema' is taken, not 'model'")
    assert "state dict   ema" in run("info", "run.pth").stdout
    run("convert", "run.pth", "plain", "--state-dict", "model")
    assert load_checkpoint("plain").fingerprint == load_checkpoint(checkpoint).fingerprint
    assert load_checkpoint("averaged").fingerprint != load_checkpoint(checkpoint).fingerprint
    assert "SOURCE is a checkpoint" in run.refused(
        "convert", checkpoint, "out.pth", "--state-dict", "model"
    )
