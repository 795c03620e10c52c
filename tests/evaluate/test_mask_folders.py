"""Masks of videos in both layouts, and what is wrong with folders."""

import numpy as np
import pytest
from PIL import Image
from video_mask_files import write_davis, write_palette, write_sav

from sam_jax.errors import InputError
from sam_jax.evaluate.mask_folders import DAVIS, SA_V, open_mask_folder, read_video_list

LABELS = np.array([[0, 0, 2], [1, 1, 2]], np.uint8)
MASK = LABELS == 1


def test_davis_has_one_file_for_all_objects(tmp_path):
    write_davis(tmp_path, "b", {"00001": LABELS, "00000": LABELS * 0})
    write_davis(tmp_path, "a", {"00000": LABELS})
    (tmp_path / "results.csv").write_text("")
    (tmp_path / ".hidden").mkdir()
    folder = open_mask_folder(tmp_path)
    assert (folder.root, folder.layout, folder.videos) == (tmp_path, DAVIS, ("a", "b"))
    (track,) = folder.tracks("b")
    assert (track.video, track.name, track.key) == ("b", None, "b")
    frames = dict(track)
    assert list(frames) == ["00000", "00001"]
    assert frames["00000"].masks == {}
    assert frames["00001"].size_hw == (2, 3)
    assert list(frames["00001"].masks) == ["1", "2"]
    np.testing.assert_array_equal(frames["00001"].mask("2"), LABELS == 2)
    np.testing.assert_array_equal(frames["00001"].mask("3"), np.zeros((2, 3), bool))


def test_sav_has_a_folder_for_each_object(tmp_path):
    write_sav(tmp_path, "v", {"001": {"00004": MASK}, "000": {"00000": ~MASK, "00004": MASK}})
    folder = open_mask_folder(tmp_path)
    assert (folder.layout, folder.videos) == (SA_V, ("v",))
    first, second = folder.tracks("v")
    assert (first.name, first.key, first.frames) == ("000", "v/000", ("00000", "00004"))
    assert second.frames == ("00004",)
    frame = first.read("00000")
    assert list(frame.masks) == ["000"]
    np.testing.assert_array_equal(frame.mask("000"), ~MASK)


@pytest.mark.parametrize("value", [1, 7, 255])
def test_any_value_is_the_object_of_a_folder(tmp_path, value):
    write_palette(tmp_path / "v" / "a" / "0.png", MASK * np.uint8(value))
    (track,) = open_mask_folder(tmp_path).tracks("v")
    np.testing.assert_array_equal(track.read("0").mask("a"), MASK)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_few_bits(tmp_path, bits):
    labels = np.minimum(LABELS, 2**bits - 1)
    write_palette(tmp_path / "v" / "0.png", labels, bits=bits)
    assert (tmp_path / "v" / "0.png").read_bytes()[24:26] == bytes([bits, 3])
    (track,) = open_mask_folder(tmp_path).tracks("v")
    found = track.read("0")
    assert set(found.masks) == {str(value) for value in labels.ravel() if value}
    np.testing.assert_array_equal(found.mask("1"), labels == 1)


def test_grey_files_are_read_by_their_values(tmp_path):
    (tmp_path / "v").mkdir()
    Image.fromarray(LABELS.astype(np.uint16) * 300).save(tmp_path / "v" / "0.png")
    Image.fromarray(LABELS).save(tmp_path / "v" / "1.png")
    Image.fromarray(MASK).save(tmp_path / "v" / "2.png")
    (track,) = open_mask_folder(tmp_path).tracks("v")
    assert [list(masks.masks) for _, masks in track] == [["300", "600"], ["1", "2"], ["1"]]


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    write_davis(tmp_path, "v", {str(number): LABELS for number in (10, 9, 100, 0)})
    write_davis(tmp_path, "w", {name: LABELS for name in ("b2", "b10", "a")})
    folder = open_mask_folder(tmp_path)
    assert folder.tracks("v")[0].frames == ("0", "9", "10", "100")
    assert folder.tracks("w")[0].frames == ("a", "b2", "b10")


@pytest.mark.parametrize(
    "inside",
    ["Annotations", "Annotations/480p", "Annotations_6fps", "480p", "Annotations/Full-Resolution"],
)
def test_annotations_are_found_in_the_folder_of_a_dataset(tmp_path, inside):
    (tmp_path / "JPEGImages" / "v").mkdir(parents=True)
    write_davis(tmp_path / inside, "v", {"0": LABELS})
    folder = open_mask_folder(tmp_path)
    assert (folder.root, folder.videos) == (tmp_path / inside, ("v",))


def test_only_the_chosen_videos_are_looked_at(tmp_path):
    write_davis(tmp_path, "a", {"0": LABELS})
    write_sav(tmp_path, "b", {"000": {"0": MASK}})
    assert open_mask_folder(tmp_path, ("b", "c")).videos == ("b",)
    assert open_mask_folder(tmp_path, ("b", "c")).layout == SA_V
    with pytest.raises(InputError, match="mixes layouts: a has PNG files, b folders of objects"):
        open_mask_folder(tmp_path)
    write_palette(tmp_path / "b" / "0.png", LABELS)
    with pytest.raises(InputError, match="b has both PNG files and folders"):
        open_mask_folder(tmp_path)


def test_folders_without_videos(tmp_path):
    with pytest.raises(InputError, match="no videos"):
        open_mask_folder(tmp_path)
    with pytest.raises(InputError, match="absent: No such file"):
        open_mask_folder(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: Not a directory"):
        open_mask_folder(tmp_path / "file")


def whole_png(folder):
    path = folder / "v" / "0.png"
    write_palette(path, np.random.default_rng(0).integers(0, 5, (40, 40), dtype=np.uint8))
    return path


def test_damaged_files(tmp_path):
    path = whole_png(tmp_path)
    content = path.read_bytes()
    (track,) = open_mask_folder(tmp_path).tracks("v")
    assert len(track.read("0").masks) == 4
    for damaged in (b"", content[:20], content[: len(content) // 2], b"GIF89a" + content):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"0\.png"):
            track.read("0")
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        track.read("0")


def test_colours_are_no_labels(tmp_path):
    path = whole_png(tmp_path)
    (track,) = open_mask_folder(tmp_path).tracks("v")
    for mode in ("RGB", "RGBA", "LA"):
        Image.new(mode, (4, 4)).save(path)
        with pytest.raises(InputError, match="those are grey or have a palette"):
            track.read("0")


def test_several_objects_in_a_file_of_one(tmp_path):
    write_palette(tmp_path / "v" / "000" / "0.png", LABELS)
    (track,) = open_mask_folder(tmp_path).tracks("v")
    with pytest.raises(InputError, match="holds several objects, 1, 2; in a folder of an object"):
        track.read("0")


def test_lists_of_videos(tmp_path):
    path = tmp_path / "val.txt"
    path.write_text("bear\n\n  camel \r\nbear\n")
    assert read_video_list(path) == ("bear", "camel")
    for text, message in (
        ("\n", "lists no videos"),
        ("a/b\n", "'a/b' is no name"),
        ("..\n", r"'\.\.' is no name"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_video_list(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="it is no text"):
        read_video_list(path)
    with pytest.raises(InputError, match="No such file"):
        read_video_list(tmp_path / "absent.txt")
