"""YOLO's labels, read back by supervision and by OpenCV's filling, as the tool fills polygons."""

import numpy as np
import pytest
from labelled_images import SIZE, image_of, near_outline, some_masks
from PIL import Image

from sam_jax.errors import InputError
from sam_jax.formats.polygons import mask_to_polygons, polygons_to_mask
from sam_jax.formats.yolo import one_polygon, write_yolo

MASKS = some_masks()


def read_lines(path, size_hw=SIZE):
    """The documented form: class, then x y in parts of width and height."""
    found = []
    for line in path.read_text().splitlines():
        number, *numbers = line.split()
        points = np.array(numbers, float).reshape(-1, 2)
        assert points.min() >= 0 and points.max() <= 1
        found.append((int(number), points * size_hw[::-1]))
    return found


def joints(mask):
    """Pixels that a line between parts or to a hole may touch: between them, within the box."""
    ys, xs = np.nonzero(mask)
    area = np.zeros_like(mask)
    # OpenCV takes a pixel's corner for its center: the lower and right ends are one further.
    area[ys.min() : ys.max() + 2, xs.min() : xs.max() + 2] = True
    return area


@pytest.mark.parametrize("name", MASKS)
def test_polygons_give_back_the_mask(tmp_path, name):
    write_yolo(tmp_path / "yolo", [image_of([MASKS[name]])])
    ((number, points),) = read_lines(tmp_path / "yolo" / "labels" / "a photo.txt")
    assert number == 0
    # Six digits are a thousandth of a pixel; whole corners come back.
    corners = np.round(points)
    assert np.abs(points - corners).max() < 1e-3
    np.testing.assert_array_equal(polygons_to_mask([corners.ravel().tolist()], SIZE), MASKS[name])


@pytest.mark.parametrize("name", MASKS)
def test_supervision_reads_it(tmp_path, name):
    import supervision

    images = [image_of([MASKS[name]], "b.png", ['a dog: "big"']), image_of([], "empty.png")]
    write_yolo(tmp_path / "yolo", images)
    (tmp_path / "images").mkdir()
    for image in images:
        Image.new("RGB", SIZE[::-1]).save(tmp_path / "images" / image.file_name)
    dataset = supervision.DetectionDataset.from_yolo(
        images_directory_path=str(tmp_path / "images"),
        annotations_directory_path=str(tmp_path / "yolo" / "labels"),
        data_yaml_path=str(tmp_path / "yolo" / "data.yaml"),
        force_masks=True,
    )
    assert dataset.classes == ['a dog: "big"']
    found = {path.rsplit("/")[-1]: detections for path, _, detections in dataset}
    assert len(found["empty.png"]) == 0
    (mask,) = found["b.png"].mask
    wrong = mask != MASKS[name]
    # OpenCV draws the outline and the joints, a pixel wide, into the mask.
    allowed = near_outline(MASKS[name])
    if name in ("ring", "parts"):
        assert (wrong & ~allowed).sum() <= 2 * sum(SIZE)
        allowed |= joints(MASKS[name])
    assert not (wrong & ~allowed).any()


def test_classes_are_numbered_as_they_come_after_those_given(tmp_path):
    masks = [MASKS["disc"], MASKS["ring"], MASKS["corner"]]
    image = image_of(masks, labels=["dog", "cat", "dog"])
    write_yolo(tmp_path / "yolo", [image], labels=["bird", "cat"])
    lines = read_lines(tmp_path / "yolo" / "labels" / "a photo.txt")
    assert [number for number, _ in lines] == [2, 1, 2]
    names = (tmp_path / "yolo" / "data.yaml").read_text().partition("names:\n")[2]
    assert names == '  0: "bird"\n  1: "cat"\n  2: "dog"\n'


def test_joined_polygons_enclose_what_the_parts_do():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random((17, 23)) > rng.uniform(0.2, 0.9)
        if mask.any():
            ring = one_polygon(mask_to_polygons(mask)).ravel().tolist()
            np.testing.assert_array_equal(polygons_to_mask([ring], mask.shape), mask)


def test_masks_without_a_pixel_are_left_out(tmp_path):
    write_yolo(tmp_path / "yolo", [image_of([np.zeros(SIZE, bool)])])
    assert (tmp_path / "yolo" / "labels" / "a photo.txt").read_text() == ""


def test_an_earlier_folder_is_replaced_and_the_images_in_it_stay(tmp_path):
    folder = tmp_path / "yolo"
    write_yolo(folder, [image_of([MASKS["disc"]], "old.jpg")])
    (folder / "images").mkdir()
    (folder / "images" / "mine.jpg").write_bytes(b"mine")
    write_yolo(folder, [image_of([MASKS["disc"]], "new.jpg")])
    assert [file.name for file in (folder / "labels").iterdir()] == ["new.txt"]
    assert (folder / "images" / "mine.jpg").read_bytes() == b"mine"
    assert [file.name for file in tmp_path.iterdir()] == ["yolo"]


def test_folders_of_others_and_names_that_collide_change_nothing(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "data.yaml").write_text("names: [a]\n")
    with pytest.raises(InputError, match="is no earlier result"):
        write_yolo(tmp_path / "theirs", [image_of([])])
    with pytest.raises(InputError, match="two images would be written to labels/b.txt"):
        write_yolo(tmp_path / "yolo", [image_of([], "b.jpg"), image_of([], "b.png")])
    assert [file.name for file in tmp_path.iterdir()] == ["theirs"]
