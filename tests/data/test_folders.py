"""Files below a folder, each once however links lead to it: the same for all that read folders."""

import pytest
from small_datasets import SIZES, write_folder

from sam_jax.data.image_folder import ImageFolder
from sam_jax.data.sa1b import Sa1bFolder


@pytest.fixture
def folder(tmp_path):
    """Three pairs in a folder, and one elsewhere."""
    write_folder(tmp_path / "data" / "a", SIZES[:3])
    write_folder(tmp_path / "elsewhere", SIZES[3:4])
    return tmp_path / "data"


def counts(folder):
    return len(Sa1bFolder(folder)), ImageFolder(folder, 8, 1, seed=0).images


def test_links_back_and_to_what_is_there_add_nothing(folder):
    (folder / "a" / "self").symlink_to(".")
    (folder / "0").symlink_to("a")
    for ending in ("jpg", "json"):
        (folder / f"again.{ending}").symlink_to(folder / "a" / f"sa_1.{ending}")
    assert counts(folder) == (3, 3)


def test_links_to_folders_and_files_elsewhere_are_followed_once(folder):
    elsewhere = folder.parent / "elsewhere"
    for name in ("b", "c"):
        (folder / name).symlink_to(elsewhere)
    assert counts(folder) == (4, 4)
    for name in ("b", "c"):
        (folder / name).unlink()
        for ending in ("jpg", "json"):
            (folder / f"{name}.{ending}").symlink_to(elsewhere / f"sa_1.{ending}")
    assert counts(folder) == (4, 4)


def test_links_to_hidden_files_are_followed(folder):
    """As programs leave them that keep a folder's files by their hashes."""
    (folder / "a").rename(folder / ".store")
    for ending in ("jpg", "json"):
        (folder / f"one.{ending}").symlink_to(folder / ".store" / f"sa_1.{ending}")
    assert counts(folder) == (1, 1)
