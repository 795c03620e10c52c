"""Animated pictures and pages of a TIFF are the frames of a video, without PyAV."""

import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from sam_jax.errors import InputError
from sam_jax.video.frames import CutVideoWarning, open_video


@pytest.fixture(autouse=True)
def no_pyav(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)


def picture(i):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, : 8 * i + 8] = (255, 255, 0)
    return image


def save(path, count=6, noise=False, **options):
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 256, (48, 64, 3), np.uint8) if noise else picture(i) for i in range(count)
    ]
    first, *more = map(Image.fromarray, images)
    first.save(path, save_all=True, append_images=more, **options)
    return images


@pytest.mark.parametrize(
    "name, options",
    [
        ("a.gif", {"duration": [100, 100, 40, 40, 40, 40]}),
        ("a.webp", {"duration": [100, 100, 40, 40, 40, 40], "lossless": True}),
        ("a.png", {"duration": [100, 100, 40, 40, 40, 40]}),
        ("misnamed.mp4", {"duration": [100, 100, 40, 40, 40, 40], "format": "GIF"}),
    ],
)
def test_an_animated_picture_gives_its_frames_and_times(tmp_path, name, options):
    images = save(tmp_path / name, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        video = open_video(tmp_path / name)
        found = list(video)
    assert (video.length, video.frames_per_second, video.names) == (6, 10.0, None)
    np.testing.assert_array_equal(np.stack(found), np.stack(images))
    assert video.frame_times == pytest.approx([0, 0.1, 0.2, 0.24, 0.28, 0.32])
    assert len(list(video)) == 6  # again


def test_a_picture_for_programs_without_animation_is_no_frame(tmp_path):
    images = save(tmp_path / "a.png", duration=40, default_image=True)
    video = open_video(tmp_path / "a.png")
    np.testing.assert_array_equal(np.stack(list(video)), images[1:])
    assert (video.length, video.frames_per_second) == (5, 25.0)


def test_pages_and_single_pictures_are_said_to_be_frames(tmp_path):
    images = save(tmp_path / "stack.tif")
    with pytest.warns(UserWarning, match="stack.tif has 6 pages, which are taken as the frames"):
        video = open_video(tmp_path / "stack.tif")
    np.testing.assert_array_equal(np.stack(list(video)), np.stack(images))
    assert (video.length, video.frames_per_second, video.frame_times) == (6, None, None)
    for name in ("one.jpg", "one.gif", "one.png", "one.webp", "one.tif"):
        Image.fromarray(images[0]).save(tmp_path / name)
        with pytest.warns(UserWarning, match=f"{name} has one picture, which is taken"):
            assert len(list(open_video(tmp_path / name))) == 1


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.tif", "a.webp"])
def test_a_cut_file_gives_what_is_there_and_says_so(tmp_path, name):
    path = tmp_path / name
    images = save(path, noise=True, duration=40)
    whole = list(open_video(path)) if name != "a.tif" else images
    content = path.read_bytes()
    path.write_bytes(content[: int(0.95 * len(content))])
    if name == "a.webp":  # which its library reads whole or not
        with pytest.raises(InputError, match="it is cut short, and at least .* bytes are missing"):
            open_video(path)
        return
    video = open_video(path)
    with pytest.warns(CutVideoWarning, match="is cut short: 5 of 6 pictures"):
        np.testing.assert_array_equal(np.stack(list(video)), np.stack(whole[:5]))


def test_damaged_files_are_named(tmp_path):
    save(tmp_path / "a.gif", noise=True)
    content = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "a.gif").write_bytes(content[:400])
    with pytest.raises(InputError, match="a.gif cannot be read as a video"):
        open_video(tmp_path / "a.gif")


def test_a_video_file_needs_pyav_and_says_how_to_get_it(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    with pytest.raises(InputError, match=r"run `pip install 'sam-jax\[video\]'`"):
        open_video(tmp_path / "clip.mp4")
