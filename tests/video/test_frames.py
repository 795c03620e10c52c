"""Frames come from files, folders, arrays and iterables, one at a time and in order."""

import gc
import os
import weakref

import numpy as np
import pytest
from PIL import Image

from sam_jax.errors import InputError
from sam_jax.natural_order import in_order
from sam_jax.video.frames import open_video
from sam_jax.video.video_files import VideoWriter

av = pytest.importorskip("av")


def picture(i, height=48, width=64):
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2] = (10 * i) % 250
    image[: height // 3, width // 2 :, 2] = 200
    return image


def write(path, frames, codec="mpeg4", pix_fmt="yuv420p", rate=10):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "mpeg4", "yuv420p"),
        ("a.mkv", "ffv1", "yuv444p"),
        ("a.avi", "mjpeg", "yuvj420p"),
        ("a.mkv", "ffv1", "gray"),
        ("a.mkv", "ffv1", "yuv420p10le"),
    ],
)
def test_a_file_gives_its_frames(tmp_path, name, codec, pix_fmt):
    frames = [picture(i) for i in range(12)]
    write(tmp_path / name, frames, codec, pix_fmt)
    with open_video(tmp_path / name) as video:
        assert video.size_hw == (48, 64)
        assert video.frames_per_second == 10
        found = list(video)
    assert len(found) == 12
    for one, other in zip(found, frames, strict=True):
        assert one.dtype == np.uint8
        # Codecs lose something; the left half's gray says which frame it is.
        assert abs(float(one[:, 4:28].mean()) - float(other[:, 4:28].mean())) < 6
    assert len(list(video)) == 12  # again


def test_pictures_are_in_the_order_of_their_numbers(tmp_path):
    for i in (10, 9, 0, 100):
        Image.fromarray(picture(i)).save(tmp_path / f"frame{i}.png")
    video = open_video(tmp_path)
    assert (video.length, video.size_hw, video.frames_per_second) == (4, (48, 64), None)
    for frame, i in zip(video, (0, 9, 10, 100), strict=True):
        np.testing.assert_array_equal(frame, picture(i))
    names = [tmp_path / name for name in ("b.png", "a.png", "c1.png")]
    assert in_order(names) == sorted(names)
    for stems in (
        ("1305031102.175304", "1305031102.975304", "1305031103.011690"),
        ("2024-01-01_12-30-58", "2024-01-01_12-31-02", "2024-01-01_12-31-40"),
        ("frame_1_640x480", "frame_2_640x480", "frame_10_640x480"),
    ):
        names = [tmp_path / f"{stem}.png" for stem in stems]
        assert in_order(names[::-1]) == names


def test_names_may_have_gaps_spaces_and_other_letters(tmp_path):
    folder = tmp_path / "vidéo 视频"
    folder.mkdir()
    for i in (20, 3, 7):
        Image.fromarray(picture(i)).save(folder / f"bild {i} ü.png")
    assert [int(frame[0, 0, 0]) for frame in open_video(folder)] == [30, 70, 200]


def test_arrays_lists_and_generators(tmp_path):
    frames = np.stack([picture(i) for i in range(3)])
    np.testing.assert_array_equal(np.stack(list(open_video(frames))), frames)
    np.testing.assert_array_equal(np.stack(list(open_video(list(frames)))), frames)
    grey = open_video(frames[..., 0])
    np.testing.assert_array_equal(next(iter(grey)), np.repeat(frames[0, ..., :1], 3, axis=2))
    once = open_video(one for one in frames)
    assert once.length is None and not once.can_restart
    np.testing.assert_array_equal(np.stack(list(once)), frames)
    assert list(once) == []


def test_a_dropped_frame_is_passed_on():
    found = list(open_video([None, picture(1), None, picture(2)]))
    assert [one is None for one in found] == [True, False, True, False]


def test_a_long_video_is_never_in_memory():
    seen = []
    video = open_video(picture(i % 20) for i in range(300))
    for frame in video:
        seen.append(weakref.ref(frame))
        if len(seen) % 100 == 0:
            gc.collect()
            assert sum(one() is not None for one in seen) < 4
    assert len(seen) == 300


def bad_sources(folder):
    (folder / "text.mp4").write_text("this is no video")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "none").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    return {
        "does not exist": folder / "missing.mp4",
        "cannot be read as a video": folder / "text.mp4",
        "empty.mp4 cannot be read": folder / "empty.mp4",
        "no images": folder / "none",
        "is no file": folder / "pipe.mp4",
        "File name too long": "x" * 5000,
        "path is empty": "",
        "has no frames": [],
        "not of shape": np.zeros((0, 4, 4, 3), np.uint8),
        "not int": 3,
        "frame 0: an image is": ["x", 5][1:],
    }


def test_what_cannot_be_read_says_so(tmp_path):
    for message, source in bad_sources(tmp_path).items():
        with pytest.raises(InputError, match=message):
            list(open_video(source))


def test_a_frame_of_another_size_is_named():
    frames = [picture(0), picture(1), picture(2, 30, 64)]
    with pytest.raises(InputError, match="frame 2 of the video is 64x30, but .* 64x48"):
        list(open_video(frames))


def test_a_file_that_breaks_off_is_named(tmp_path):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (64, 64, 3)).astype(np.uint8) for _ in range(40)]
    write(tmp_path / "a.mkv", frames, "ffv1", "yuv444p")
    whole = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 3])
    seen = 0
    try:
        for _ in open_video(tmp_path / "cut.mkv"):
            seen += 1
    except InputError as error:
        assert str(seen) in str(error)
    assert 5 < seen < 20


def test_a_video_is_written_whole_and_kept_when_something_goes_wrong(tmp_path):
    path = tmp_path / "out" / "video.mp4"
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, 12.5, (49, 63)) as writer:
        for i in range(7):
            writer.write(picture(i, 49, 63))
        raise KeyboardInterrupt
    video = open_video(path)
    assert video.size_hw == (48, 62) and len(list(video)) == 7
    assert video.frames_per_second == 12.5
    assert [one.name for one in path.parent.iterdir()] == ["video.mp4"]
    with VideoWriter(tmp_path / "nothing.mp4", 30.0, (8, 8)):
        pass
    assert not (tmp_path / "nothing.mp4").exists()
