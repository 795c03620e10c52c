"""SA-1B as a folder and as tar shards: the same samples, and clear words where one is damaged."""

import os
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image
from small_datasets import SIZES, edit, write_folder, write_tar

from sam_jax.data import sa1b
from sam_jax.data.sa1b import Sa1bFolder, Sa1bTars
from sam_jax.data.samples import BROKEN_ANNOTATIONS, CANNOT_READ, RecordError, decoded_image
from sam_jax.errors import InputError
from sam_jax.formats.sa1b import read_sa1b


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAM_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def same(first, second):
    return (first.image, first.size_hw, first.segmentations) == (
        second.image,
        second.size_hw,
        second.segmentations,
    )


def test_a_folder_is_read_as_it_was_written(tmp_path):
    folder = write_folder(tmp_path / "data")
    (folder / "sa_100.jpg").write_bytes(b"without annotations")
    (folder / "index.json").write_text("{}")
    for name in ("._sa_1.jpg", "._sa_1.json"):  # what macOS leaves beside files
        (folder / name).write_bytes(b"")
    dataset = Sa1bFolder(folder)
    assert len(dataset) == len(SIZES) and dataset.description.startswith("7 images")
    for index in range(len(dataset)):
        sample, name = dataset[index], dataset.name(index)
        written = read_sa1b((folder / name).with_suffix(".json"))
        assert (sample.name, sample.size_hw) == (name, written.size_hw)
        assert sample.segmentations == [each["segmentation"] for each in written.records]
        with Image.open(folder / name) as image:
            np.testing.assert_array_equal(decoded_image(sample), np.asarray(image))


def test_folders_inside_the_folder_are_read_too(tmp_path):
    write_folder(tmp_path / "data" / "sa_000000", SIZES[:2])
    write_folder(tmp_path / "data" / "sa_000001" / "more", SIZES[2:5], seed=1)
    dataset = Sa1bFolder(tmp_path / "data")
    names = [dataset.name(index) for index in range(len(dataset))]
    assert len(names) == 5 and names[0] == os.path.join("sa_000000", "sa_1.jpg")
    assert [dataset[index].size_hw for index in range(5)] == SIZES[:5]


@pytest.mark.parametrize("prefix", ["", "./", "inside/"])
def test_a_shard_gives_what_its_folder_gives(tmp_path, prefix):
    folder = write_folder(tmp_path / "data")
    shard = write_tar(tmp_path / "shards" / "sa_000000.tar", folder, prefix)
    from_folder, from_shard = Sa1bFolder(folder), Sa1bTars([shard])
    assert len(from_folder) == len(from_shard) == len(SIZES)
    for index in range(len(SIZES)):
        assert same(from_folder[index], from_shard[index])
        assert from_shard.name(index).endswith(from_folder.name(index))
    assert sorted(path.name for path in shard.parent.iterdir()) == [
        "sa_000000.tar",
        "sa_000000.tar.index1.npz",
    ]


def test_many_shards_are_one_dataset(tmp_path):
    folders = [write_folder(tmp_path / name, SIZES[:3], seed=len(name)) for name in ("a", "bb")]
    shards = [write_tar(tmp_path / f"{each.name}.tar", each) for each in folders]
    dataset = Sa1bTars(shards)
    assert len(dataset) == 6 and dataset.name(4) == "bb.tar/sa_2.jpg"
    for index in range(6):
        assert same(dataset[index], Sa1bFolder(folders[index // 3])[index % 3])


def test_a_shard_is_scanned_once_and_again_when_it_changes(tmp_path, cache, monkeypatch):
    folder = write_folder(tmp_path / "data", SIZES[:3])
    shard = write_tar(tmp_path / "shard.tar", folder)
    scans = []
    scanned = sa1b._scanned
    monkeypatch.setattr(sa1b, "_scanned", lambda *args: scans.append(args) or scanned(*args))
    first, second = Sa1bTars([shard]), Sa1bTars([shard])
    assert len(scans) == 1 and same(first[2], second[2])

    shutil.rmtree(folder)
    write_tar(shard, write_folder(tmp_path / "data", SIZES[2:7], seed=3))
    changed = Sa1bTars([shard])
    assert len(scans) == 2 and len(changed) == 5
    assert same(changed[1], Sa1bFolder(tmp_path / "data")[1])

    index = tmp_path / "shard.tar.index1.npz"
    index.write_bytes(index.read_bytes()[:100])
    assert same(Sa1bTars([shard])[1], changed[1]) and len(scans) == 3
    assert not cache.exists()


def test_where_a_shard_cannot_be_written_beside_the_users_cache_is_used(
    tmp_path, cache, monkeypatch
):
    shard = write_tar(tmp_path / "shards" / "one.tar", write_folder(tmp_path / "data"))
    written_aside = sa1b.written_aside

    def read_only(path):
        if path.parent == shard.parent:
            raise PermissionError("read-only")
        return written_aside(path)

    monkeypatch.setattr(sa1b, "written_aside", read_only)
    first = Sa1bTars([shard])
    assert [path.name for path in shard.parent.iterdir()] == ["one.tar"]
    assert len(list((cache / "shards").iterdir())) == 1
    monkeypatch.setattr(sa1b, "_scanned", None)
    assert same(Sa1bTars([shard])[0], first[0])


def test_shards_that_cannot_be_used_are_told(tmp_path, cache):
    folder = write_folder(tmp_path / "data")
    shard = write_tar(tmp_path / "whole.tar", folder)
    content = shard.read_bytes()
    cut = tmp_path / "cut.tar"
    with tarfile.open(shard) as tar:
        header = tar.getmembers()[5].offset
    lengths = [len(content) // 2, len(content) // 3 + 77, header, header + 100, header + 512]
    damaged = content[:header] + b"?" * 512 + content[header + 512 :]
    for wrong in [content[:length] for length in lengths] + [damaged]:
        cut.write_bytes(wrong)
        with pytest.raises(InputError, match="cut.tar.*fetch it again"):
            Sa1bTars([cut])
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as tar:
        tar.add(folder / "sa_1.jpg")
    for wrong in ("packed.tar", "text.tar"):
        (tmp_path / "text.tar").write_text("nothing of a tar file" * 100)
        with pytest.raises(InputError, match=f"{wrong} is no tar file"):
            Sa1bTars([tmp_path / wrong])
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.add(folder / "sa_1.jpg", "a.jpg")
    with pytest.raises(InputError, match="other.tar holds no images"):
        Sa1bTars([tmp_path / "other.tar"])
    with pytest.raises(InputError, match="gone.tar cannot be read"):
        Sa1bTars([tmp_path / "gone.tar"])


def test_a_folder_without_pairs_is_told(tmp_path):
    with pytest.raises(InputError, match="holds no images with a JSON file"):
        Sa1bFolder(tmp_path)
    with pytest.raises(InputError, match="cannot list"):
        Sa1bFolder(tmp_path / "gone")


def test_broken_records_are_told_by_name(tmp_path):
    folder = write_folder(tmp_path / "data")
    dataset = Sa1bFolder(folder)
    (folder / "sa_1.json").write_text('{"image": {"width": 5')
    edit(folder / "sa_2.json", lambda content: content["image"].pop("height"))
    edit(folder / "sa_3.json", lambda content: content["annotations"][1].pop("segmentation"))
    edit(folder / "sa_4.json", lambda content: content.update(annotations=None))
    (folder / "sa_5.json").unlink()
    (folder / "sa_6.jpg").unlink()
    reasons = [BROKEN_ANNOTATIONS] * 4 + [CANNOT_READ] * 2
    for index, reason in enumerate(reasons):
        with pytest.raises(RecordError, match=rf"^sa_{index + 1}\.jpg: ") as caught:
            dataset[index]
        assert caught.value.reason == reason
    assert dataset[6].size_hw == SIZES[6]


def test_a_shard_that_shrinks_while_it_is_used_is_told(tmp_path):
    shard = write_tar(tmp_path / "shard.tar", write_folder(tmp_path / "data"))
    dataset = Sa1bTars([shard])
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(RecordError, match=r"shard\.tar/sa_7\.jpg: .*shorter") as caught:
        dataset[6]
    assert caught.value.reason == CANNOT_READ
