"""COCO instances: loaded by pycocotools, streamed, read back, and everything that can be wrong."""

import contextlib
import copy
import gc
import io
import json
import math
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from sam_jax.errors import InputError
from sam_jax.formats.coco import CocoImage, read_coco, write_coco
from sam_jax.formats.polygons import mask_to_polygons
from sam_jax.formats.rle import decode_rle, encode_rle, mask_box
from sam_jax.formats.sa1b import Sa1bImage

FRAME = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0]], bool)
SCORES = {
    "predicted_iou": 0.9,
    "stability_score": 0.96,
    "crop_box": [0, 0, 4, 3],
    "point_coords": [[1.5, 0.5]],
}
RECORD = {"segmentation": encode_rle(FRAME), "area": 8, "bbox": [0, 0, 2, 2], **SCORES}
IMAGE = Sa1bImage("a.jpg", (3, 4), 0, [RECORD])

# As other programs write it: polygons with fractions, a crowd as run lengths, keys of their own.
FOREIGN_FILE = {
    "info": {"year": 2017},
    "licenses": [{"id": 1, "name": "any"}],
    "categories": [{"id": 18, "name": "dog"}, {"id": 19, "name": "horse"}],
    "images": [
        {"id": 397133, "width": 12, "height": 9, "file_name": "000000397133.jpg", "license": 1},
        {"id": 37777, "width": 4, "height": 3, "file_name": "000000037777.jpg"},
    ],
    "annotations": [
        {
            "id": 1768,
            "image_id": 397133,
            "category_id": 18,
            "iscrowd": 0,
            "area": 702.1057,
            "bbox": [1.0, 2.25, 6.5, 5.0],
            "segmentation": [[1, 2, 7, 2, 7, 7, 1, 7], [8.2, 1.3, 11.4, 1.3, 11.4, 4.1]],
        },
        {
            "id": 900100259690,
            "image_id": 37777,
            "category_id": 19,
            "iscrowd": 1,
            "area": 8,
            "bbox": [0, 0, 3, 3],
            "segmentation": {"size": [3, 4], "counts": [0, 4, 1, 4, 3]},
        },
    ],
}


def loaded(path):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def write_json(path, content):
    path.write_text(json.dumps(content))
    return path


@st.composite
def datasets(draw):
    """Images with masks of some pixels; ids and boxes are of no account."""
    images = []
    for name in draw(st.lists(st.text(), max_size=3)):
        size_hw = draw(st.tuples(st.integers(1, 8), st.integers(1, 8)))
        masks = draw(st.lists(hnp.arrays(bool, size_hw).filter(np.any), max_size=3))
        records = [
            {
                "predicted_iou": draw(st.floats(-1e6, 1e6)),
                **draw(st.sampled_from([{}, SCORES, {"id": 5, "area": -1, "bbox": None}])),
            }
            for _ in masks
        ]
        images.append((name, size_hw, records, masks))
    return images


@given(datasets(), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=60)
def test_any_masks_come_back_here_and_in_pycocotools(tmp_path_factory, dataset, arrays, polygons):
    path = tmp_path_factory.getbasetemp() / "instances.json"
    images = []
    for name, size_hw, records, masks in dataset:
        for record, mask in zip(records, masks, strict=True):
            record["segmentation"] = mask if arrays else encode_rle(mask)
        images.append(Sa1bImage(name, size_hw, 7, records))
    write_coco(path, iter(images), polygons=polygons)
    again, reference = read_coco(path), loaded(path)
    assert len(again) == len(images) == len(reference.imgs)
    annotation_id = 0
    for number, (image, read) in enumerate(zip(images, again, strict=True), 1):
        masks = dataset[number - 1][-1]
        assert (read.file_name, read.size_hw, read.image_id) == (
            image.file_name,
            image.size_hw,
            number,
        )
        annotations = reference.loadAnns(reference.getAnnIds(number))
        columns = zip(image.records, masks, read.records, annotations, strict=True)
        for record, mask, found, annotation in columns:
            annotation_id += 1
            rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            kept = {key: record[key] for key in SCORES if key in record}
            assert found == {
                "id": annotation_id,
                "category_id": 1,
                "iscrowd": 0,
                "segmentation": encode_rle(mask),
                "area": int(coco_mask.area(rle)),
                "bbox": coco_mask.toBbox(rle).tolist(),
                **kept,
            }
            np.testing.assert_array_equal(reference.annToMask(annotation), mask)
            assert isinstance(annotation["segmentation"], list) == polygons
            # Everything but the form of the mask.
            same = {**found, "image_id": number, "segmentation": annotation["segmentation"]}
            assert annotation == same


def test_there_is_one_category_and_pycocotools_prints_the_rest(tmp_path):
    path = tmp_path / "made" / "instances.json"
    write_coco(path, [IMAGE])
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
        coco.info()
    assert coco.loadCats(coco.getCatIds()) == [
        {"id": 1, "name": "object", "supercategory": "object"}
    ]
    assert coco.getImgIds(catIds=[1]) == [1]


def test_polygons_are_whole_numbers_and_simplified_on_request(tmp_path):
    ys, xs = np.mgrid[:80, :90]
    disc = (xs - 44.7) ** 2 + (ys - 38.2) ** 2 < 30**2
    disc &= (xs - 44.7) ** 2 + (ys - 38.2) ** 2 > 10**2
    image = Sa1bImage("disc", (80, 90), 0, [{**RECORD, "segmentation": disc}])
    path = tmp_path / "instances.json"
    corners = []
    for simplify in (0.0, 1.0):
        write_coco(path, [image], polygons=True, simplify=simplify)
        (annotation,) = json.loads(path.read_text())["annotations"]
        (polygon,) = annotation["segmentation"]
        assert all(isinstance(n, int) for n in polygon)
        assert [polygon] == mask_to_polygons(disc, simplify=simplify)
        assert annotation["area"] == disc.sum() and annotation["bbox"] == mask_box(disc).tolist()
        corners.append(len(polygon))
    assert corners[1] < corners[0] / 4
    ((record,),) = (image.records for image in read_coco(path))
    again = decode_rle(record["segmentation"])
    assert 0.95 < (again & disc).sum() / (again | disc).sum() < 1


def test_images_are_taken_once_and_one_at_a_time(tmp_path):
    path = tmp_path / "instances.json"
    taken, alive = [], []

    def images():
        for index in range(6):
            gc.collect()
            alive.append(sum(reference() is not None for reference in taken))
            assert not path.exists()
            record = {**RECORD, "predicted_iou": index / 8}
            image = Sa1bImage(f"{index}.jpg", (3, 4), 0, [record] * index)
            taken.append(weakref.ref(image))
            yield image
            del image, record

    write_coco(path, images())
    # The one that is being replaced by the next, at most.
    assert len(taken) == 6 and max(alive) <= 1
    assert [len(image.records) for image in read_coco(path)] == [0, 1, 2, 3, 4, 5]
    # What was written does not wait in memory: it is on the disk before the last image is taken.
    sizes = []

    def watched():
        for index in range(3):
            sizes.append(sum(file.stat().st_size for file in tmp_path.glob(".*.part")))
            yield Sa1bImage(f"{index}.jpg", (3, 4), 0, [RECORD] * 200)

    write_coco(path, watched())
    assert sizes[0] < sizes[1] < sizes[2] and sizes[2] > 40_000


def test_masks_without_a_pixel_are_left_out_and_their_nan_with_them(tmp_path):
    empty = {**RECORD, "segmentation": np.zeros((3, 4), bool), "stability_score": math.nan}
    path = tmp_path / "instances.json"
    write_coco(path, [Sa1bImage("a", (3, 4), 0, [empty, RECORD, empty])], polygons=True)
    coco = loaded(path)
    assert list(coco.anns) == [1]
    np.testing.assert_array_equal(coco.annToMask(coco.anns[1]), FRAME)


def test_no_images_are_a_file_without_any(tmp_path):
    write_coco(tmp_path / "instances.json", [])
    assert read_coco(tmp_path / "instances.json") == []
    assert loaded(tmp_path / "instances.json").anns == {}


@pytest.mark.parametrize(
    "record, reason",
    [
        ({}, "record 1 of image 'b.jpg': segmentation is missing"),
        (None, "record 1 of image 'b.jpg': this is a NoneType"),
        ({**RECORD, "stability_score": math.nan}, "record 1 .* stability_score: .*NaN"),
        ({**RECORD, "segmentation": FRAME.T}, "record 1 .* of 3x4 pixels, the image of 4x3"),
    ],
)
def test_a_wrong_record_leaves_the_file_that_was_there(tmp_path, record, reason):
    path = tmp_path / "instances.json"
    path.write_text("before")
    images = [IMAGE, Sa1bImage("b.jpg", (3, 4), 0, [])]
    images[1].records.extend([RECORD, record])
    with pytest.raises(InputError, match=reason) as caught:
        write_coco(path, images)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_an_error_while_images_are_made_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "instances.json"
    path.write_text("before")

    def images():
        yield IMAGE
        raise RuntimeError("the disk went away")

    with pytest.raises(RuntimeError, match="the disk went away"):
        write_coco(path, images())
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"simplify": 1.0}, "simplify is for polygons"),
        ({"polygons": True, "simplify": -1.0}, "simplify is a distance"),
        ({"polygons": True, "simplify": math.nan}, "simplify is a distance"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, reason):
    with pytest.raises(InputError, match=reason):
        write_coco(tmp_path / "instances.json", [IMAGE], **options)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_program_is_read(tmp_path):
    path = write_json(tmp_path / "instances.json", FOREIGN_FILE)
    dog, horse = read_coco(path)
    assert (dog.file_name, dog.size_hw, dog.image_id) == ("000000397133.jpg", (9, 12), 397133)
    (record,) = dog.records
    assert {key: record[key] for key in record if key != "segmentation"} == {
        "id": 1768,
        "category_id": 18,
        "iscrowd": 0,
        "area": 702.1057,
        "bbox": [1, 2.25, 6.5, 5],
    }
    mask = decode_rle(record["segmentation"])
    expected = np.zeros((9, 12), bool)
    expected[2:7, 1:7] = True
    np.testing.assert_array_equal(mask[:, :8], expected[:, :8])
    reference = loaded(path)
    theirs = reference.annToMask(reference.anns[1768]) == 1
    assert mask[:, 8:].any() and np.count_nonzero(mask != theirs) <= 3  # along a slanted edge
    assert horse == CocoImage(
        "000000037777.jpg",
        (3, 4),
        37777,
        [
            {
                "id": 900100259690,
                "category_id": 19,
                "iscrowd": 1,
                "segmentation": encode_rle(reference.annToMask(reference.anns[900100259690]) == 1),
                "area": 8,
                "bbox": [0, 0, 3, 3],
            }
        ],
    )


def test_images_without_masks_are_there_and_annotations_may_come_in_any_order(tmp_path):
    content = copy.deepcopy(FOREIGN_FILE)
    content["annotations"].reverse()
    content["images"].append({"id": 5, "width": 2, "height": 1, "file_name": "empty.jpg"})
    images = read_coco(write_json(tmp_path / "instances.json", content))
    assert [image.image_id for image in images] == [397133, 37777, 5]
    assert [[record["id"] for record in image.records] for image in images] == [
        [1768],
        [900100259690],
        [],
    ]


def places(value, path=()):
    """The way to every entry of a JSON value, but not into what is read of no account."""
    children = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    for key, child in children:
        if key not in ("info", "licenses", "categories", "license"):
            yield (*path, key)
            yield from places(child, (*path, key))


def nested(depth, value=0):
    for _ in range(depth):
        value = [value]
    return value


JUNK = [
    None, True, "", "\n\n", "7", -1, 2, 0.5, 1e300, 10**30, [], [[]], [None] * 4, ["\n", "\n"],
    [1e300] * 6, [[1e300] * 6], [[-1e8, 0, 1e8, 0, 0, 1e8]], [[0, 0, 1, 1]], [[0] * 7], {},
    {"size": [3, 4]}, {"size": "\n\n", "counts": "\n"}, {"size": [{}, []], "counts": []},
    {"size": [1 << 20, 1 << 20], "counts": [1 << 40]}, nested(200),
]  # fmt: skip


@pytest.mark.parametrize("place", list(places(FOREIGN_FILE)), ids=str)
def test_junk_anywhere_is_refused_in_one_line_or_read(tmp_path, place):
    path = tmp_path / "instances.json"
    refused = 0
    for junk in [..., *JUNK]:
        content = copy.deepcopy(FOREIGN_FILE)
        *way, last = place
        container = content
        for key in way:
            container = container[key]
        if junk is ...:
            del container[last]
        else:
            container[last] = junk
        try:
            images = read_coco(write_json(path, content))
        except InputError as error:
            assert "instances.json" in str(error) and "\n" not in str(error)
            if place[0] == "annotations" and len(place) > 2:
                assert f"annotations[{place[1]}]: " in str(error)
            refused += 1
        else:
            found = [decode_rle(r["segmentation"]).shape for i in images for r in i.records]
            assert len(found) == len(content["annotations"])
    assert refused >= len(JUNK) // 2


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "no JSON"),
        (b"[]", "this is a list"),
        (b'{"images":[]}', "annotations is missing"),
        (b'{"images":{},"annotations":[]}', "images is a dict, not a list"),
        (json.dumps(FOREIGN_FILE).replace("702.1057", "NaN").encode(), "holds NaN"),
        (json.dumps(FOREIGN_FILE).replace("702.1057", "1e999").encode(), "area: .*NaN"),
        (json.dumps(FOREIGN_FILE).replace("8.2", "1e999").encode(), r"\[0\]: .*polygon 1 .*NaN"),
        (json.dumps(FOREIGN_FILE).encode().replace(b"jpg", b"\xff"), "UTF-8"),
        (b'{"images":' + b"[" * 100_000, "nested too deeply|no JSON"),
        (json.dumps(FOREIGN_FILE).encode()[:-40], "cut short"),
    ],
)
def test_a_damaged_file_is_refused_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "instances.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        read_coco(path)
    assert "instances.json" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda c: c["images"][1].update(id=397133), r"images\[1\]: the id 397133 is there twice"),
        (lambda c: c["annotations"][1].update(id=1768), r"annotations\[1\]: the id 1768 is there"),
        (lambda c: c["annotations"][1].update(image_id=1), r"annotations\[1\]: there is no image"),
        (
            lambda c: [each.update(image_id=n) for n, each in enumerate(c["annotations"], 1)],
            r"annotations\[0\]: .*the image_id 1, 2.* such annotations\)",
        ),
        (lambda c: c["annotations"][0].update(iscrowd=2), r"annotations\[0\]: iscrowd"),
        (
            lambda c: c["images"][1].update(width=3, height=4),
            r"annotations\[1\]: .* of 4x3 pixels, the image of 3x4",
        ),
        (
            lambda c: c["images"][0].update(width=1 << 15, height=1 << 15),
            r"images\[0\]: .* more than any image",
        ),
    ],
)
def test_entries_that_do_not_fit_together_are_refused(tmp_path, change, reason):
    content = copy.deepcopy(FOREIGN_FILE)
    change(content)
    with pytest.raises(InputError, match=reason):
        read_coco(write_json(tmp_path / "instances.json", content))


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_coco(tmp_path / "missing.json")
