"""SA-1B's JSON: there and back, files as the dataset has them, and everything that can be wrong."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from sam_jax.errors import InputError
from sam_jax.formats.rle import decode_rle, encode_rle
from sam_jax.formats.sa1b import Sa1bImage, read_sa1b, write_sa1b

MASK = np.array([[0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], bool)
RECORD = {
    "segmentation": encode_rle(MASK),
    "area": 3,
    "bbox": [1, 0, 1, 1],
    "predicted_iou": 0.9,
    "stability_score": 0.96,
    "crop_box": [0, 0, 4, 3],
    "point_coords": [[1.5, 0.5]],
}
# The form of a file of the dataset, with a mask of ours.
DATASET_FILE = {
    "image": {"image_id": 1, "width": 4, "height": 3, "file_name": "sa_1.jpg"},
    "annotations": [
        {
            "bbox": [1.0, 0.0, 2.0, 2.0],
            "area": 3,
            "segmentation": {"size": [3, 4], "counts": encode_rle(MASK)["counts"]},
            "predicted_iou": 0.9244155883789062,
            "point_coords": [[1.40625, 0.5]],
            "crop_box": [0.0, 0.0, 4.0, 3.0],
            "id": 532_418_551,
            "stability_score": 0.9685600399971008,
        }
    ],
}

numbers = st.floats(-1e6, 1e6)
boxes = st.lists(st.integers(0, 5000), min_size=4, max_size=4)


@st.composite
def images(draw):
    """An image's size and records with masks of some pixels, as arrays."""
    size_hw = draw(st.tuples(st.integers(1, 8), st.integers(1, 8)))
    masks = draw(st.lists(hnp.arrays(bool, size_hw).filter(np.any), max_size=4))
    records = [
        {
            "segmentation": mask,
            "area": int(mask.sum()),
            "bbox": draw(boxes),
            "predicted_iou": draw(numbers),
            "stability_score": draw(st.floats(0, 1)),
            "crop_box": draw(boxes),
            "point_coords": draw(st.lists(st.lists(numbers, min_size=2, max_size=2), max_size=3)),
        }
        for mask in masks
    ]
    return size_hw, records


def in_form(mask, form):
    if form == "array":
        return mask
    rle = encode_rle(mask)
    if form == "text":
        return rle
    if form == "bytes":
        return coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    columns = mask.T.ravel()
    ends = [*(np.flatnonzero(columns[1:] != columns[:-1]) + 1), columns.size]
    runs = np.diff(ends, prepend=0).tolist()
    return {"size": rle["size"], "counts": [0, *runs] if columns[0] else runs}


def write_json(path, content):
    path.write_text(json.dumps(content))
    return path


@given(
    images(),
    st.sampled_from(["array", "text", "bytes", "list"]),
    st.text(),
    st.integers(0, 2**63 - 1),
    st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.booleans())),
)
@settings(deadline=None, max_examples=60)
def test_any_records_come_back(tmp_path_factory, image, form, file_name, image_id, extra):
    size_hw, records = image
    extra = {key: extra[key] for key in extra if key not in ("image", "annotations")}
    path = tmp_path_factory.getbasetemp() / "records.json"
    given_records = [{**r, "segmentation": in_form(r["segmentation"], form)} for r in records]
    write_sa1b(
        path,
        iter(given_records),
        file_name=file_name,
        size_hw=size_hw,
        image_id=image_id,
        extra=extra,
    )
    expected = [
        {**record, "segmentation": encode_rle(record["segmentation"]), "id": number}
        for number, record in enumerate(records, 1)
    ]
    again = read_sa1b(path)
    assert again == Sa1bImage(file_name, size_hw, image_id, expected, extra)
    # And once more: what was read can be written.
    write_sa1b(path, again.records, file_name=file_name, size_hw=size_hw, image_id=image_id)
    assert read_sa1b(path) == Sa1bImage(file_name, size_hw, image_id, expected, {})


def test_a_file_of_the_dataset_is_read(tmp_path):
    image = read_sa1b(write_json(tmp_path / "sa_1.json", DATASET_FILE))
    assert (image.file_name, image.size_hw, image.image_id) == ("sa_1.jpg", (3, 4), 1)
    (record,) = image.records
    np.testing.assert_array_equal(decode_rle(record["segmentation"]), MASK)
    assert record["id"] == 532_418_551 and record["predicted_iou"] == 0.9244155883789062
    assert record["bbox"] == [1, 0, 2, 2] and all(isinstance(n, int) for n in record["bbox"])
    assert record["point_coords"] == [[1.40625, 0.5]] and image.extra == {}


def test_the_json_is_what_the_dataset_has(tmp_path):
    path = tmp_path / "made" / "sa_1.json"
    record = {**RECORD, "id": 532_418_551, "note": "not written"}
    write_sa1b(path, [record], file_name="sa_1.jpg", size_hw=(3, 4), image_id=1, extra={"by": "us"})
    content = json.loads(path.read_text())
    assert content["image"] == DATASET_FILE["image"] and content["by"] == "us"
    (annotation,) = content["annotations"]
    assert annotation.keys() == DATASET_FILE["annotations"][0].keys()
    assert annotation == {**RECORD, "id": 532_418_551}
    # What the CLI knows an unfinished file by.
    assert path.read_bytes().startswith(b'{"image":')


def test_fractions_and_forms_of_numbers_are_kept_or_made_plain(tmp_path):
    record = {
        **RECORD,
        "segmentation": MASK,
        "area": np.int64(3),
        "bbox": np.array([1.0, 0.25, 1.0, 1.0], np.float32),
        "predicted_iou": np.float32(0.9),
        "stability_score": np.float64(1.0),
        "crop_box": (np.uint8(0), 0, 4, 3),
        "point_coords": np.array([[1, 2]]),
        "id": np.int32(7),
    }
    path = tmp_path / "a.json"
    extra = {"numbers": np.arange(3), "number": np.float32(0.5)}
    write_sa1b(path, [record], file_name="a", size_hw=(3, 4), extra=extra)
    image = read_sa1b(path)
    assert image.records == [
        {
            **RECORD,
            "bbox": [1, 0.25, 1, 1],
            "predicted_iou": float(np.float32(0.9)),
            "stability_score": 1.0,
            "point_coords": [[1.0, 2.0]],
            "id": 7,
        }
    ]
    assert isinstance(image.records[0]["stability_score"], float)
    assert image.extra == {"numbers": [0, 1, 2], "number": 0.5}


def test_masks_without_a_pixel_are_left_out_and_their_nan_with_them(tmp_path):
    empty = {**RECORD, "area": 0, "stability_score": math.nan}
    records = [
        {**empty, "segmentation": np.zeros((3, 4), bool)},
        RECORD,
        {**empty, "segmentation": encode_rle(np.zeros((3, 4), bool))},
    ]
    path = tmp_path / "a.json"
    write_sa1b(path, records, file_name="a", size_hw=(3, 4))
    assert read_sa1b(path).records == [{**RECORD, "id": 1}]


def without(key):
    return {k: v for k, v in RECORD.items() if k != key}


@pytest.mark.parametrize(
    "record, reason",
    [
        (None, "record 1: this is a NoneType"),
        *((without(key), f"record 1: {key} is missing") for key in RECORD),
        ({**RECORD, "predicted_iou": math.nan}, "record 1: predicted_iou: .*NaN"),
        ({**RECORD, "stability_score": np.float32("inf")}, "record 1: stability_score: .*NaN"),
        ({**RECORD, "area": 10**5000}, "record 1: area"),
        ({**RECORD, "area": True}, "record 1: area: there is a bool"),
        ({**RECORD, "bbox": [1, 2, 3]}, "record 1: bbox: a box is a list of 4"),
        ({**RECORD, "bbox": [1, 2, 3, math.nan]}, "record 1: bbox: .*NaN"),
        ({**RECORD, "bbox": [1, 2, 3, -1]}, "record 1: bbox: .*negative"),
        ({**RECORD, "point_coords": [1.0, 2.0]}, "record 1: point_coords"),
        ({**RECORD, "segmentation": MASK.T}, "record 1: the segmentation is of 3x4 pixels"),
        ({**RECORD, "segmentation": encode_rle(MASK.T)}, "of 3x4 pixels, the image of 4x3"),
        ({**RECORD, "segmentation": MASK.astype(int)}, "record 1: .*boolean"),
        ({**RECORD, "segmentation": {"size": [3, 4], "counts": ";"}}, "record 1: .*add up"),
        ({**RECORD, "id": "7"}, "record 1: an id"),
    ],
)
def test_a_wrong_record_leaves_the_file_that_was_there(tmp_path, record, reason):
    path = tmp_path / "a.json"
    path.write_text("before")
    with pytest.raises(InputError, match=reason) as caught:
        write_sa1b(path, [RECORD, record], file_name="a", size_hw=(3, 4))
    assert "\n" not in str(caught.value)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"extra": {"image": 1}}, "'image' in extra"),
        ({"extra": {"annotations": []}}, "'annotations' in extra"),
        ({"extra": {"mean": math.nan}}, "JSON cannot hold"),
        ({"extra": {"mean": np.float32("nan")}}, "JSON cannot hold"),
        ({"extra": {"where": Path()}}, "JSON cannot hold it: there is a PosixPath"),
        ({"size_hw": (0, 4)}, "whole numbers from 1 on"),
        ({"size_hw": (4, 3)}, "record 0: the segmentation is of 4x3"),
    ],
)
def test_wrong_options_leave_the_file_that_was_there(tmp_path, options, reason):
    path = tmp_path / "a.json"
    path.write_text("before")
    with pytest.raises(InputError, match=reason):
        write_sa1b(path, [RECORD], **{"file_name": "a", "size_hw": (3, 4), **options})
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_ids_are_kept_if_all_have_one_and_must_differ(tmp_path):
    path = tmp_path / "a.json"

    def ids(*given_ids):
        records = [RECORD if i is None else {**RECORD, "id": i} for i in given_ids]
        write_sa1b(path, records, file_name="a", size_hw=(3, 4))
        return [record["id"] for record in read_sa1b(path).records]

    assert ids(9, 3) == [9, 3]
    assert ids(None, 3) == ids(None, None) == [1, 2]
    with pytest.raises(InputError, match="same id"):
        ids(3, 3)


def test_what_cannot_be_written_is_an_os_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        write_sa1b(tmp_path / "file" / "a.json", [RECORD], file_name="a", size_hw=(3, 4))


def places(value, path=()):
    """The way to every entry of a JSON value."""
    children = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


def nested(depth, value=0):
    for _ in range(depth):
        value = [value]
    return value


JUNK = [
    None, True, "", "\n\n", "7", -1, 2, 0.5, 1e300, 10**30, [], [[]], [None] * 4, ["\n", "\n"],
    [1e300] * 4, [-1] * 4, {}, {"size": [3, 4]}, {"size": "\n\n", "counts": "\n"},
    {"size": [{}, []], "counts": []}, {"size": [1 << 20, 1 << 20], "counts": [1 << 40]},
    nested(200),
]  # fmt: skip


@pytest.mark.parametrize("place", list(places(DATASET_FILE)), ids=str)
def test_junk_anywhere_is_refused_in_one_line_or_read(tmp_path, place):
    path = tmp_path / "a.json"
    refused = 0
    for junk in [..., *JUNK]:
        content = copy.deepcopy(DATASET_FILE)
        *way, last = place
        container = content
        for key in way:
            container = container[key]
        if junk is ...:
            del container[last]
        else:
            container[last] = junk
        try:
            image = read_sa1b(write_json(path, content))
        except InputError as error:
            assert "a.json" in str(error) and "\n" not in str(error)
            if place[0] == "annotations" and len(place) > 2:
                assert "annotations[0]: " in str(error)
            refused += 1
        else:
            write_sa1b(path, image.records, file_name=image.file_name, size_hw=image.size_hw)
    assert refused >= len(JUNK) // 2 or place == ("annotations", 0)


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "no JSON"),
        (b"[]", "this is a list"),
        (b"null", "this is a NoneType"),
        (b"{}", "image is missing"),
        (b'{"image":{}}', "image: height is missing"),
        (json.dumps(DATASET_FILE).replace("0.9244155883789062", "NaN").encode(), "holds NaN"),
        (json.dumps(DATASET_FILE).replace("1.40625", "-Infinity").encode(), "holds -Infinity"),
        (json.dumps(DATASET_FILE).replace("1.40625", "1e999").encode(), r"point_coords: .*NaN"),
        (json.dumps(DATASET_FILE).replace("1.40625", "9" * 5000).encode(), "no JSON"),
        (json.dumps(DATASET_FILE).encode().replace(b"sa_1", b"sa_\xe9"), "UTF-8"),
        (json.dumps(DATASET_FILE).encode("utf-16"), "UTF-8"),
        (b'{"image":' + b"[" * 100_000, "nested too deeply|no JSON"),
        (b"\xff\xd8\xff\xe0 a picture", "UTF-8"),
        (bytes(1000), "no JSON"),
    ],
)
def test_a_damaged_file_is_refused_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        read_sa1b(path)
    assert "a.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "a.json"
    content = json.dumps(DATASET_FILE).encode()
    for length in range(0, len(content), 3):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"a\.json"):
            read_sa1b(path)


def test_a_byte_order_mark_is_no_damage(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(DATASET_FILE).encode())
    assert len(read_sa1b(path).records) == 1


def test_an_id_is_there_once(tmp_path):
    content = copy.deepcopy(DATASET_FILE)
    content["annotations"] *= 2
    with pytest.raises(InputError, match=r"annotations\[1\]: the id 532418551 is there twice"):
        read_sa1b(write_json(tmp_path / "a.json", content))


def test_the_sizes_of_image_and_mask_must_agree(tmp_path):
    content = copy.deepcopy(DATASET_FILE)
    content["image"].update(width=3, height=4)
    with pytest.raises(InputError, match=r"annotations\[0\]: .* of 4x3 pixels, the image of 3x4"):
        read_sa1b(write_json(tmp_path / "a.json", content))


@pytest.mark.parametrize("name", ["missing.json", ".", "nothing\0.json"])
def test_what_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="no such file"):
        read_sa1b(tmp_path / name)
