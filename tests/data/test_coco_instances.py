"""COCO instances read image by image, with their masks as `read_coco` has them."""

import json

import numpy as np
import pytest
from small_datasets import SIZES, edit, write_folder, write_instances

from sam_jax.data.coco import CocoInstances
from sam_jax.data.pipeline import training_batches
from sam_jax.data.samples import (
    BROKEN_ANNOTATIONS,
    CANNOT_READ,
    NOT_LISTED,
    RecordError,
    mask_counts,
)
from sam_jax.data.transforms import FrameOptions, framed
from sam_jax.errors import InputError
from sam_jax.formats.coco import read_coco
from sam_jax.formats.rle import decode_rle, mask_to_counts


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "images")


@pytest.fixture
def instances(tmp_path, folder):
    return write_instances(tmp_path / "instances.json", folder)


@pytest.mark.parametrize("polygons", [False, True])
def test_masks_are_those_of_the_file(tmp_path, folder, polygons):
    path = write_instances(tmp_path / "instances.json", folder, polygons)
    dataset, expected = CocoInstances(path, [folder]), read_coco(path)
    assert len(dataset) == len(SIZES) and "35 objects" in dataset.description
    for index, image in enumerate(expected):
        sample = dataset[index]
        assert (sample.name, sample.size_hw) == (image.file_name, image.size_hw)
        assert sample.image == (folder / image.file_name).read_bytes()
        assert len(sample.segmentations) == len(image.records)
        for number, record in enumerate(image.records):
            np.testing.assert_array_equal(
                mask_counts(sample, number), mask_to_counts(decode_rle(record["segmentation"]))
            )


def test_the_library_of_coco_reads_the_same_masks(tmp_path, folder):
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO

    path = write_instances(tmp_path / "instances.json", folder, polygons=True)
    dataset, theirs = CocoInstances(path, [folder]), COCO(str(path))
    for index, image_id in enumerate(theirs.getImgIds()):
        annotations = theirs.loadAnns(theirs.getAnnIds(imgIds=image_id))
        for number, annotation in enumerate(annotations):
            np.testing.assert_array_equal(
                mask_counts(dataset[index], number),
                mask_to_counts(theirs.annToMask(annotation).astype(bool)),
            )


def test_crowds_and_images_without_objects_are_left_out(instances, folder):
    def change(content):
        for annotation in content["annotations"]:
            # All of image 2, one of image 3.
            annotation["iscrowd"] = int(annotation["image_id"] == 2 or annotation["id"] == 11)
        content["annotations"] = [each for each in content["annotations"] if each["image_id"] != 5]

    edit(instances, change)
    dataset = CocoInstances(instances, [folder])
    samples = [dataset[index] for index in range(len(dataset))]
    assert [sample.name for sample in samples] == [f"sa_{i}.jpg" for i in (1, 3, 4, 6, 7)]
    assert [len(sample.segmentations) for sample in samples] == [5, 4, 5, 5, 5]


def test_any_spelling_of_the_same_json_is_read(tmp_path, folder, instances):
    content = json.loads(instances.read_text())
    (folder / "sa_1.jpg").rename(folder / "größe-图.jpg")
    content["images"][0]["file_name"] = "größe-图.jpg"
    # Images first and annotations first, mixed up, with spaces, escapes and a byte order mark.
    rng = np.random.default_rng(0)
    content["annotations"] = [content["annotations"][i] for i in rng.permutation(35)]
    mixed = {"images": content["images"], "annotations": content["annotations"], "info": [1, "]"]}
    for other in (
        json.dumps(mixed).encode(),
        json.dumps(dict(reversed(mixed.items())), indent=1, ensure_ascii=False).encode(),
        b"\xef\xbb\xbf \n" + json.dumps(mixed, ensure_ascii=False).encode("utf-8"),
    ):
        instances.write_bytes(other)
        dataset = CocoInstances(instances, [folder])
        assert dataset.name(0) == "größe-图.jpg" and len(dataset) == 7
        for index in range(7):
            assert dataset[index].segmentations == [
                each["segmentation"]
                for each in content["annotations"]
                if each["image_id"] == index + 1
            ]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "no JSON"),
        (b"[]", "no JSON"),
        (b'{"images": [', "cut short"),
        (b'{"annotations": [{"image_id": 1} {"image_id": 1}]', "cut short"),
        (b'{"images": {}}', "no JSON"),
        (b'{"images": []}', "annotations: missing"),
        (b'{"info": {}}', "annotations and images: missing"),
        (b'{"images": [], "annotations": []}', "no objects"),
        (b'{"images": [], "annotations": [3]}', r"annotations\[0\]: this is a int"),
        (b'{"images": [{"id": 1}], "annotations": []}', r"images\[0\]: file_name is missing"),
        (
            b'{"images": [{"id": 1, "file_name": "a\\u0000"}], "annotations": []}',
            r"images\[0\]: .*zero character",
        ),
        (
            b'{"images": [{"id": 1, "file_name": "\\ud800"}], "annotations": []}',
            r"images\[0\]: .*no text that a file",
        ),
        (b'{"images": [], "annotations": [{"id": 1}]}', r"annotations\[0\]: image_id is missing"),
        (b'{"images": [], "annotations": [{"image_id": 7}]}', "image 7, which is not listed"),
        (b'{"annotations": ' + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_damaged_file_is_told(tmp_path, content, message):
    path = tmp_path / "instances.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        CocoInstances(path, [tmp_path])
    assert "instances.json" in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_missing_files_are_told(tmp_path, instances, folder):
    with pytest.raises(InputError, match="there is no such file"):
        CocoInstances(tmp_path / "gone.json", [folder])
    with pytest.raises(
        InputError, match="looked for sa_1.jpg and others in .*elsewhere, .*nowhere"
    ):
        CocoInstances(instances, [tmp_path / "elsewhere", tmp_path / "nowhere"])
    assert len(CocoInstances(instances, [tmp_path / "elsewhere", folder])) == 7


def test_broken_records_are_told_by_name(instances, folder):
    dataset = CocoInstances(instances, [folder])
    (folder / "sa_2.jpg").unlink()
    with pytest.raises(RecordError, match=r"^sa_2\.jpg: ") as caught:
        dataset[1]
    assert caught.value.reason == CANNOT_READ
    instances.write_bytes(b"{}")
    with pytest.raises(RecordError, match=r"^sa_3\.jpg: ") as caught:
        dataset[2]
    assert caught.value.reason == BROKEN_ANNOTATIONS


def test_one_bad_entry_is_left_out_and_counted(instances, folder):
    whole = CocoInstances(instances, [folder])
    samples = [whole[index] for index in range(6)]

    def spoil(content):
        images, annotations = content["images"], content["annotations"]
        del images[6]["height"]  # so that its five annotations are of an image that is not listed
        images += [dict(images[0]), {"id": 50, "width": 3, "height": 3}, None]
        segmentation = annotations[0]["segmentation"]
        annotations += [{"id": 90, "image_id": 99, "segmentation": segmentation}]
        annotations += [{"id": 91, "segmentation": segmentation}, None, {"id": 92, "image_id": "1"}]

    edit(instances, spoil)
    dataset = CocoInstances(instances, [folder])
    assert dataset.left_out == {BROKEN_ANNOTATIONS: 7, NOT_LISTED: 6}
    assert "6 images with 30 objects" in dataset.description
    assert "13 entries" in dataset.description and "entries" not in whole.description
    # Named: the first entry that is broken, and the images that are not listed.
    assert "7 broken annotations (annotations[36]: image_id is missing)" in dataset.description
    unknown = "6 annotations of unknown images (images 7, 99, which are not listed)"
    assert unknown in dataset.description and len(dataset.description.splitlines()) == 1
    assert [dataset[index] for index in range(6)] == samples
    with training_batches(dataset, FrameOptions(64, 2), batch_size=6) as batches:
        next(batches)
        assert batches.skipped() == dataset.left_out


def test_many_unknown_images_are_counted_and_some_named(instances, folder):
    def spoil(content):
        content["annotations"] += [{"id": 100 + i, "image_id": 50 + i} for i in range(1500)]

    edit(instances, spoil)
    dataset = CocoInstances(instances, [folder])
    unknown = "1,500 annotations of unknown images (images 50, 51, 52, 53, 54 and 1,495 more, which"
    assert unknown in dataset.description
    edit(instances, lambda content: content.update(annotations=content["annotations"][-1500:]))
    with pytest.raises(
        InputError,
        match="be used: 1,500 annotations of unknown images .images 50, 51, .*are not listed",
    ):
        CocoInstances(instances, [folder])


@pytest.mark.parametrize(
    "bad",
    [
        {"segmentation": [[1, 2, 3, 4]]},
        {"segmentation": [[1, 2, 3]]},
        {"segmentation": None},
        {"segmentation": {"size": [2, 2], "counts": [0, 4]}},
        {"bbox": [1, 2, 3, 4]},
    ],
)
def test_a_bad_object_is_left_out_without_its_image(instances, folder, bad):
    def spoil(content):
        content["annotations"].insert(0, {"id": 90, "image_id": 1, **bad})

    options = FrameOptions(64, 9, max_area=1.0)
    before = framed(CocoInstances(instances, [folder])[0], options, np.random.default_rng(0))
    edit(instances, spoil)
    sample = CocoInstances(instances, [folder])[0]
    after = framed(sample, options, np.random.default_rng(0))
    np.testing.assert_array_equal(after.image, before.image)
    assert len(sample.segmentations) == 6 and len(after.masks) == len(before.masks) == 5

    # Alone, it is no image to learn from.
    edit(instances, lambda content: content.update(annotations=content["annotations"][:1]))
    with pytest.raises(RecordError, match=r"^sa_1\.jpg: "):
        framed(CocoInstances(instances, [folder])[0], options, np.random.default_rng(0))
