"""The model in the package: what it is, how large, and that no other takes its place."""

import shutil
from pathlib import Path

import pytest

import sam_jax
from sam_jax import CheckpointError, Segmenter, load_checkpoint
from sam_jax.checkpoints import registry
from sam_jax.checkpoints.registry import checkpoint_path
from sam_jax.checkpoints.shipped import SUMS, listed_sums
from sam_jax.configs import TINY
from sam_jax.files import file_sha256

WEIGHTS = Path(sam_jax.__file__).parent / "weights"
NAMES = ["tiny"]


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the package's weights in their place."""
    monkeypatch.setattr(registry, "_SHIPPED", tmp_path / "weights")
    return Path(shutil.copytree(WEIGHTS, tmp_path / "weights"))


def refused(name="tiny"):
    with pytest.raises(CheckpointError) as error:
        checkpoint_path(name)
    assert "\n" not in str(error.value) and "install sam-jax again" in str(error.value)
    return str(error.value)


def test_the_shipped_model_is_the_configuration_it_says():
    assert registry.shipped_names() == NAMES and registry.DEFAULT_CHECKPOINT == "tiny"
    checkpoint = load_checkpoint(checkpoint_path("tiny"))
    assert checkpoint.config == TINY
    assert checkpoint.source and checkpoint.generate


def test_it_is_what_is_loaded_where_none_is_named_and_the_log_says_so(caplog):
    unnamed = Segmenter.load()
    (record,) = caplog.records
    named = Segmenter.load("tiny")
    # Where nobody set up logging, Python writes what is of this level to stderr.
    assert len(caplog.records) == 1 and (record.name, record.levelname) == (
        "sam_jax.segmenter",
        "WARNING",
    )
    text = record.getMessage()
    assert "'tiny'" in text and "`sam-jax download vit_b`" in text and "\n" not in text
    assert unnamed.fingerprint == named.fingerprint


def test_the_package_stays_small():
    assert sum(file.stat().st_size for file in WEIGHTS.rglob("*") if file.is_file()) < 25e6


def test_every_file_is_listed_with_its_hash():
    files = [file for file in WEIGHTS.rglob("*") if file.is_file() and file.name != SUMS]
    found = {file.relative_to(WEIGHTS).as_posix(): file_sha256(file) for file in files}
    assert found == listed_sums(WEIGHTS)
    assert list(found) and sorted(found) == list(listed_sums(WEIGHTS))


@pytest.mark.parametrize("change", ["one bit", "shorter", "missing"])
def test_a_changed_file_is_refused_in_one_line_that_names_it(copy, change):
    file = max((copy / "tiny").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if change == "missing":
        file.unlink()
    else:
        file.write_bytes(content if change == "one bit" else content[:-1])
    assert file.name in refused()
    with pytest.raises(CheckpointError, match="not as it was released"):
        Segmenter.load()


def test_a_model_that_is_lost_is_not_replaced_by_a_folder_of_its_name(copy, tmp_path, monkeypatch):
    shutil.copytree(copy / "tiny", tmp_path / "elsewhere" / "tiny")
    monkeypatch.chdir(tmp_path / "elsewhere")
    (copy / "tiny" / "config.json").unlink()
    assert "config.json" in refused()


@pytest.mark.parametrize("text", [None, "", "no list\n\n", "00  other/config.json\n", b"\xff\xfe"])
def test_without_its_line_in_a_list_a_model_is_refused(copy, text):
    (copy / SUMS).unlink()
    if text is not None:
        (copy / SUMS).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert SUMS in refused()


def test_files_are_hashed_once_a_process(copy, monkeypatch):
    counted = []
    monkeypatch.setattr(
        "sam_jax.checkpoints.shipped.file_sha256",
        lambda file: counted.append(file) or file_sha256(file),
    )
    assert checkpoint_path("tiny") == checkpoint_path("tiny") == copy / "tiny"
    assert len(counted) == len(listed_sums(copy))


def test_a_path_is_the_callers_own_business(copy):
    (copy / SUMS).unlink()
    assert checkpoint_path(copy / "tiny") == copy / "tiny"
    assert checkpoint_path(str(copy / "tiny")) == copy / "tiny"
