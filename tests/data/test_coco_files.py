"""COCO datasets as programs write them: the JSON file is found by its content, pictures by name."""

import json
import os
import shutil

import pytest
from PIL import Image
from small_datasets import edit, write_folder, write_instances

from sam_jax.data.coco import CocoInstances
from sam_jax.data.layouts import open_dataset
from sam_jax.data.sa1b import Sa1bFolder
from sam_jax.errors import InputError

NAMES = [f"sa_{number}.jpg" for number in range(1, 8)]


@pytest.fixture
def coco(tmp_path):
    """Writes a dataset: pictures in one place, the JSON in another, names as they are wanted."""
    source = write_folder(tmp_path / "source")
    content = json.loads(
        write_instances(tmp_path / "source.json", source, polygons=True).read_text()
    )
    pixels = {name: (source / name).read_bytes() for name in NAMES}
    shutil.rmtree(source)
    (tmp_path / "source.json").unlink()

    def write(pictures, annotations, file_name="{}", root="ds"):
        """`pictures` is a folder for all, or for each name in turn."""
        folders = [pictures] if isinstance(pictures, str) else pictures
        for number, name in enumerate(NAMES):
            path = tmp_path / root / folders[number % len(folders)] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pixels[name])
        images = [
            {**image, "file_name": file_name.format(image["file_name"])}
            for image in content["images"]
        ]
        path = tmp_path / root / annotations
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**content, "images": images}))
        return tmp_path / root

    return write


def check_whole(dataset):
    assert type(dataset) is CocoInstances and len(dataset) == 7
    for index in range(7):
        sample = dataset[index]
        with Image.open(dataset._images / os.fsdecode(dataset._files[index])) as image:
            assert image.size[::-1] == sample.size_hw
        assert os.path.basename(sample.name.replace("\\", "/")) == NAMES[index]
        assert len(sample.segmentations) == 5


@pytest.mark.parametrize(
    "pictures, annotations, file_name, opened",
    [
        # Roboflow, one split.
        (".", "_annotations.coco.json", "{}", "."),
        (".", "annotations.json", "./{}", "."),
        (".", "labels/result.json", "{}", "."),
        # CVAT.
        ("images/default", "annotations/instances_default.json", "{}", "."),
        ("images", "annotations/instances_default.json", "{}", "images"),
        # COCO's own layout, opened at the pictures, one and two levels below.
        ("train2017", "annotations/instances_train2017.json", "{}", "train2017"),
        ("images/train2017", "annotations/instances_train2017.json", "{}", "images/train2017"),
        # Names that begin at the JSON file, at the folder above, or somewhere on another machine.
        ("images", "annotations.json", "images/{}", "."),
        ("images", "annotations.json", "images/{}", "images"),
        ("images", "annotations/all.json", "../images/{}", "."),
        ("images", "annotations/all.json", "../images/{}", "images"),
        ("JPEGImages", "annotations.json", "JPEGImages\\{}", "."),
        ("images", "annotations.json", "/home/someone/ds/images/{}", "."),
        (".", "annotations.json", "C:\\labels\\new\\{}", "."),
        # Pictures in folders of their own, with bare names.
        (["cats", "dogs", "dogs/small"], "annotations.json", "{}", "."),
        (["pictures/a", "pictures/b"], "train.json", "{}", "pictures"),
        (["a", "b"], "annotations/all.json", "old/{}", "."),
    ],
)
def test_the_file_and_its_pictures_are_found(coco, pictures, annotations, file_name, opened):
    folder = coco(pictures, annotations, file_name)
    dataset = open_dataset(folder / opened)
    check_whole(dataset)
    assert os.path.basename(annotations) in dataset.description
    check_whole(open_dataset(folder / opened, folder / annotations))


@pytest.mark.parametrize(
    "inside, opened", [("images", "."), ("images", ".."), (".", "."), (".", "images/..")]
)
def test_the_folder_may_be_the_working_directory_or_above(coco, monkeypatch, inside, opened):
    folder = coco("images", "annotations.json")
    monkeypatch.chdir(folder / inside)
    check_whole(open_dataset(opened))


def test_absolute_names_are_taken_as_they_are(coco, tmp_path):
    folder = coco("images", "annotations.json", str(tmp_path / "ds/images") + "/{}")
    check_whole(open_dataset(folder))


def test_names_of_lvis_come_from_its_addresses(coco):
    folder = coco("train2017", "lvis_v1_train.json")

    def change(content):
        for image in content["images"]:
            image["coco_url"] = f"http://images.cocodataset.org/train2017/{image.pop('file_name')}"

    edit(folder / "lvis_v1_train.json", change)
    assert len(open_dataset(folder)) == len(open_dataset(folder / "train2017")) == 7


def test_json_files_of_other_kinds_are_passed_over(coco):
    folder = coco("images", "labels.json")
    content = json.loads((folder / "labels.json").read_text())
    captions = [{"id": 1, "image_id": 1, "caption": "a segmentation of images"}]
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}]
    for name, other in {
        "captions.json": {**content, "annotations": captions},
        "detections.json": {**content, "annotations": boxes},
        "classes.json": ["images", "annotations"],
        "results.json": content["annotations"],
        "package.json": {"name": "images"},
        "empty.json": None,
    }.items():
        (folder / name).write_text(json.dumps(other))
    (folder / "none.json").write_bytes(b"")
    (folder / "cut.json").write_bytes((folder / "labels.json").read_bytes()[:200])
    (folder / ".hidden.json").write_bytes((folder / "labels.json").read_bytes())
    (folder / "folder.json").mkdir()
    check_whole(open_dataset(folder))


def test_json_files_beside_each_picture_that_are_of_another_program_are_passed_over(coco):
    folder = coco("images", "annotations.json")
    for name in NAMES:
        content = {"version": "5.4.1", "shapes": [], "imagePath": name, "imageData": None}
        (folder / "images" / name).with_suffix(".json").write_text(json.dumps(content))
    check_whole(open_dataset(folder))
    check_whole(open_dataset(folder / "images"))
    (folder / "annotations.json").unlink()
    with pytest.raises(InputError, match=r"no dataset that is known.*sa_1\.json.*another kind"):
        open_dataset(folder / "images")


def test_sa1b_stays_sa1b_under_a_folder_with_a_coco_file(coco, tmp_path):
    folder = coco("other", "annotations.json")
    write_folder(folder / "sa")
    dataset = open_dataset(folder / "sa")
    assert type(dataset) is Sa1bFolder and len(dataset) == 7


def test_one_picture_with_a_coco_file_of_its_name(tmp_path):
    (tmp_path / "a").mkdir()
    folder = write_folder(tmp_path / "b", sizes=[(30, 40)])
    write_instances(tmp_path / "a" / "sa_1.json", folder)
    shutil.copy(folder / "sa_1.jpg", tmp_path / "a")
    assert type(open_dataset(tmp_path / "a")) is CocoInstances
    assert type(open_dataset(folder)) is Sa1bFolder


def test_several_files_are_named_and_one_can_be_chosen(coco):
    folder = coco("images", "a.json")
    shutil.copy(folder / "a.json", folder / "b.json")
    for opened in (folder, folder / "images"):
        with pytest.raises(InputError, match=r"a\.json, .*b\.json; say which.*data\.annotations"):
            open_dataset(opened)
        check_whole(open_dataset(opened, folder / "b.json"))


def test_of_splits_each_folder_has_its_own_file(coco):
    """Pictures of splits may have the same names."""
    for split in ("train", "valid"):
        folder = coco(split, f"{split}/_annotations.coco.json")
    with pytest.raises(InputError, match=r"train/_ann.*valid/_ann.*the folder of one of them"):
        open_dataset(folder)
    for split in ("train", "valid"):
        assert f"{split}/_annotations" in open_dataset(folder / split).description
    for split in ("train", "valid"):
        (folder / split / "_annotations.coco.json").rename(folder / f"{split}.json")
    for split in ("train", "valid"):
        assert f"{split}.json" in open_dataset(folder / split).description
    edit(
        folder / "valid.json",
        lambda content: [
            image.update(file_name=f"valid/{image['file_name']}") for image in content["images"]
        ],
    )
    (folder / "train.json").unlink()
    check_whole(open_dataset(folder / "valid"))
    with pytest.raises(InputError, match="no dataset that is known"):
        open_dataset(folder / "train")


def test_of_cocos_own_files_the_instances_are_taken(coco):
    folder = coco("train2017", "annotations/instances_train2017.json")
    for kind in ("person_keypoints", "stuff"):
        shutil.copy(
            folder / "annotations/instances_train2017.json",
            folder / f"annotations/{kind}_train2017.json",
        )
    for opened in (folder, folder / "train2017"):
        assert "instances_train2017.json" in open_dataset(opened).description


def test_a_picture_that_is_there_twice_is_refused_by_name(coco):
    folder = coco(["a", "b"], "annotations.json")
    shutil.copy(folder / "a" / NAMES[0], folder / "b")
    with pytest.raises(InputError, match=r"sa_1\.jpg is there 2 times, as a/sa_1.jpg, b/sa_1.jpg"):
        open_dataset(folder)


def test_a_picture_that_is_missing_is_counted_and_named(coco):
    folder = coco(["a", "b"], "annotations.json")
    (folder / "a" / NAMES[2]).unlink()
    dataset = open_dataset(folder)
    assert "1 images are not there (sa_3.jpg)" in dataset.description and len(dataset) == 7
    with pytest.raises(InputError, match=r"^sa_3\.jpg: No such file"):
        dataset[2]


@pytest.mark.parametrize("without", [{"segmentation": []}, {"segmentation": None}, {}])
def test_labels_without_masks_are_refused(coco, without):
    folder = coco(".", "_annotations.coco.json")

    def change(content):
        for annotation in content["annotations"]:
            del annotation["segmentation"]
            annotation.update(without)

    edit(folder / "_annotations.coco.json", change)
    for given in ([], [folder / "_annotations.coco.json"]):
        with pytest.raises(InputError, match=r"_annotations\.coco\.json has boxes but no masks"):
            open_dataset(folder, *given)


def test_a_path_from_the_wrong_folder_is_told_with_the_right_one(coco, monkeypatch):
    folder = coco("images", "annotations.json")
    monkeypatch.chdir(folder.parent)
    with pytest.raises(InputError, match=r"'ds/annotations\.json' is there; paths on the command"):
        open_dataset("ds", "annotations.json")


def test_a_file_whose_pictures_are_elsewhere_is_named(coco):
    folder = coco("images", "annotations.json")
    shutil.rmtree(folder / "images")
    with pytest.raises(InputError, match=r"images of .*annotations\.json are not there"):
        open_dataset(folder)


def test_big_json_is_recognised_without_being_parsed(coco, monkeypatch):
    """Only the file that is opened is parsed: COCO's own of other splits have 450 MB."""
    folder = coco("train", "annotations/instances_train.json")
    shutil.copy(folder / "annotations/instances_train.json", folder / "annotations/val.json")
    edit(
        folder / "annotations/val.json",
        lambda content: [image.update(file_name="gone.jpg") for image in content["images"]],
    )
    read = []
    text = CocoInstances.__init__

    def spied(self, annotations, *args):
        read.append(annotations.name)
        text(self, annotations, *args)

    monkeypatch.setattr(CocoInstances, "__init__", spied)
    assert len(open_dataset(folder / "train")) == 7 and read == ["instances_train.json"]


def test_a_file_without_objects_and_one_of_other_images_say_so(coco):
    folder = coco(".", "a.json")

    def of_unknown_images(content):
        for annotation in content["annotations"]:
            annotation["image_id"] += 1000

    edit(folder / "a.json", of_unknown_images)
    with pytest.raises(InputError, match=r"can be used: 35 annotations of unknown images \("):
        open_dataset(folder)
    edit(folder / "a.json", lambda content: content["annotations"].clear())
    with pytest.raises(InputError, match="it has no objects, or only crowds"):
        open_dataset(folder)


def test_names_no_file_can_have_are_left_out(coco):
    folder = coco(".", "annotations.json")

    def change(content):
        for image, name in zip(content["images"], ["\ud800", "a\0", ""], strict=False):
            image["file_name"] = name

    edit(folder / "annotations.json", change)
    dataset = open_dataset(folder)
    assert [dataset.name(index) for index in range(len(dataset))] == NAMES[3:]
