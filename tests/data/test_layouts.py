"""What a folder holds is seen from its files, and said."""

import pytest
from small_datasets import SIZES, write_folder, write_instances, write_tar

from sam_jax.data.coco import CocoInstances
from sam_jax.data.layouts import open_dataset
from sam_jax.data.sa1b import Sa1bFolder, Sa1bTars
from sam_jax.errors import InputError


def test_sa1b_folders_and_tars_are_recognised(tmp_path):
    folder = write_folder(tmp_path / "data")
    shard = write_tar(tmp_path / "shards" / "a.tar", folder)
    write_tar(tmp_path / "shards" / "b.tar", folder)
    for path, kind, count in [
        (folder, Sa1bFolder, 7),
        (tmp_path / "data", Sa1bFolder, 7),
        (shard, Sa1bTars, 7),
        (shard.parent, Sa1bTars, 14),
    ]:
        dataset = open_dataset(path)
        assert type(dataset) is kind and len(dataset) == count
        assert f"{count} images" in dataset.description
    assert "2 tars" in open_dataset(shard.parent).description


@pytest.mark.parametrize("images", ["train2017", "images/train2017", "images", "."])
def test_coco_instances_are_recognised(tmp_path, images):
    folder = write_folder(tmp_path / "written")
    instances = write_instances(tmp_path / "annotations" / "instances_train2017.json", folder)
    (tmp_path / images).mkdir(parents=True, exist_ok=True)
    for image in folder.glob("*.jpg"):
        image.rename(tmp_path / images / image.name)
    for dataset in (
        open_dataset(tmp_path),
        open_dataset(tmp_path, instances),
        open_dataset(tmp_path / images, instances),
    ):
        assert type(dataset) is CocoInstances and len(dataset) == len(SIZES)
        assert "instances_train2017.json" in dataset.description
        assert dataset[0].size_hw == SIZES[0]


def test_what_is_no_dataset_is_told(tmp_path):
    folder = write_folder(tmp_path / "data")
    (tmp_path / "empty").mkdir()
    instances = write_instances(tmp_path / "two" / "annotations" / "instances_a.json", folder)
    write_instances(tmp_path / "two" / "annotations" / "instances_b.json", folder)
    for args, message in [
        (["gone"], "there is no dataset"),
        (["empty"], "no dataset that is known"),
        (["two"], "two has annotations/instances_a.json, annotations/instances_b.json; say which"),
        ([instances], "give the folder of images"),
        (["data/sa_1.jpg"], "no tar file"),
        (["data", "gone.json"], "no such file"),
        (["data/sa_1.jpg", instances], "are not there"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            open_dataset(*(tmp_path / each for each in args))
        assert len(str(caught.value).splitlines()) == 1
