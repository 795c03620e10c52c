"""Which pictures of a folder are frames: never masks among them, never two of one name."""

import warnings

import numpy as np
import pytest
from PIL import Image

from sam_jax.errors import InputError
from sam_jax.frame_folders import frame_files
from sam_jax.video.frames import open_video

PHOTO = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
GREY = np.full((48, 64), 90, np.uint8)
MASK = np.zeros((48, 64), np.uint8)


def write(folder, *names, content=None):
    for name in names:
        picture = content
        if picture is None:
            picture = PHOTO if name.lower().endswith(("jpg", "jpeg", "jfif")) else MASK
        Image.fromarray(picture).save(folder / name)


def names(folder):
    return [path.name for path in frame_files(folder)]


@pytest.mark.parametrize(
    "jpegs, others",
    [
        (["0.jpg", "1.jpg", "10.jpg"], ["0.png", "1.png", "10.png"]),
        (["0.JPG", "1.jpeg", "2.jfif"], ["0.PNG", "1.webp", "2.tif"]),
        (["0.jpg", "1.jpg", "2.jpg"], ["1.png"]),
        (["5.jpg", "6.jpg"], ["00005.png", "00006.png"]),
        (["5.jpg", "6.jpg"], ["5_mask.png", "6_mask.png"]),
        (["frame_5.jpg", "frame_6.jpg"], ["mask_5.png", "mask_6.png"]),
        (["a.jpg", "b.jpg"], ["a.gif", "b.bmp"]),
    ],
)
def test_of_frames_and_their_masks_the_jpegs_are_taken_and_it_is_said(tmp_path, jpegs, others):
    write(tmp_path, *jpegs, *others)
    with pytest.warns(UserWarning, match="the JPEGs are taken as the frames") as said:
        assert names(tmp_path) == jpegs
    assert len(said) == 1
    with pytest.warns(UserWarning):
        video = open_video(tmp_path)
    assert video.names == tuple(name.rpartition(".")[0] for name in jpegs)
    assert video.length == len(list(video)) == len(jpegs)


def test_grey_jpegs_with_masks_of_few_colors(tmp_path):
    write(tmp_path, "0.jpg", content=GREY)
    write(tmp_path, "0.png", content=np.where(PHOTO > 128, np.uint8(200), np.uint8(0)))
    with pytest.warns(UserWarning, match="the JPEGs are taken"):
        assert names(tmp_path) == ["0.jpg"]


@pytest.mark.parametrize(
    "given, message",
    [
        (["0.jpg", "0.png", "1.png"], "0.png goes with 0.jpg, but 1.png with no JPEG"),
        (["0.png", "0.webp", "1.png"], "0.png and 0.webp, two frames of one name"),
        (["0.jpg", "0.jpeg"], "0.jpeg and 0.jpg, two frames of one name"),
        (["0.png", "0_mask.png"], "0.png and 0_mask.png, which is named as its mask"),
        (["a0.jpg", "mask-a0.jpg"], "a0.jpg and mask-a0.jpg, which is named as its mask"),
    ],
)
def test_folders_that_leave_open_what_is_a_frame_are_refused(tmp_path, given, message):
    write(tmp_path, *given)
    with pytest.raises(InputError, match=message):
        open_video(tmp_path)


def test_grey_jpegs_beside_photos_are_refused(tmp_path):
    write(tmp_path, "0.jpg", content=GREY)
    write(tmp_path, "0.png", content=PHOTO)
    with pytest.raises(InputError, match="cannot be told which are the frames"):
        open_video(tmp_path)


def test_frames_of_several_kinds_are_one_video_and_it_is_said(tmp_path):
    write(tmp_path, "0.jpg", "1.jpeg", "2.png")
    with pytest.warns(UserWarning, match="several kinds .* all are taken as frames"):
        assert names(tmp_path) == ["0.jpg", "1.jpeg", "2.png"]


def test_frames_are_in_order_and_nothing_is_said_of_plain_folders(tmp_path):
    write(tmp_path, "t10.jpg", "t0.5.jpg", "t0.25.JPG", "t-1.jpeg", ".hidden.jpg", "._t0.5.jpg")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "masks").mkdir()
    write(tmp_path / "masks", "t10.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        video = open_video(tmp_path)
    assert video.names == ("t-1", "t0.25", "t0.5", "t10")
    assert video.frame_times is None and video.cut is None
