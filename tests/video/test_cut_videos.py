"""A file that ends before its container says is known as cut; what is whole never is."""

import warnings

import numpy as np
import pytest

from sam_jax.errors import InputError
from sam_jax.video.declared_size import missing_bytes
from sam_jax.video.frames import CutVideoWarning, open_video
from tests.video.made_videos import FRAMES, SHOWN, WHOLE, made


def read(path):
    """All frames, and what is said of them."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        frames = list(open_video(path))
    return frames, [str(one.message) for one in said if one.category is CutVideoWarning]


@pytest.mark.parametrize("name", WHOLE)
def test_only_cut_files_are_said_to_be_cut(tmp_path, name):
    path = tmp_path / name
    WHOLE[name](path)
    whole, said = read(path)
    assert (len(whole), said) == (SHOWN.get(name, FRAMES), [])
    assert missing_bytes(path) == 0
    content = path.read_bytes()
    for part in (0.1, 0.7, 0.95):
        path.write_bytes(content[: int(part * len(content))])
        try:
            frames, said = read(path)
        except InputError as error:  # not even the first frame is there, or the index is not
            assert "is cut short" in str(error)
            continue
        assert len(said) == 1 and f"is cut short: {len(frames)} " in said[0]
        # Nothing that was made up for what is missing.
        assert all(map(np.array_equal, frames, whole))


def test_most_of_a_cut_file_is_read(tmp_path):
    for name in ("index_first.mp4", "matroska.mkv", "recorded.webm", "quicktime.mov"):
        path = tmp_path / name
        WHOLE[name](path)
        content = path.read_bytes()
        path.write_bytes(content[: int(0.95 * len(content))])
        video = open_video(path)
        with pytest.warns(CutVideoWarning, match="bytes are missing"):
            assert 0.75 * FRAMES < len(list(video)) < FRAMES
        assert "is cut short" in video.cut


def test_no_frame_is_left_out_where_only_sound_is_missing(tmp_path):
    path = tmp_path / "video.mp4"
    WHOLE["longer_sound.mp4"](path)
    path.write_bytes(path.read_bytes()[:-100])
    frames, said = read(path)
    assert len(frames) == FRAMES and f"{FRAMES} of {FRAMES} frames could be read" in said[0]


def test_a_reader_that_stops_early_hears_nothing(tmp_path):
    path = tmp_path / "video.mkv"
    made(path)
    path.write_bytes(path.read_bytes()[:-500])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_video(path) as video:
            for _, _ in zip(range(3), video, strict=False):
                pass
    assert video.cut is None


def test_media_data_that_go_on_to_the_end_of_the_file(tmp_path):
    """A box of length 0 does: then the index tells what is missing."""
    path = tmp_path / "video.mp4"
    WHOLE["index_first.mp4"](path)
    content = bytearray(path.read_bytes())
    at = content.index(b"mdat") - 4
    content[at : at + 4] = bytes(4)
    path.write_bytes(content)
    assert read(path)[1] == []
    path.write_bytes(content[:-1000])
    frames, said = read(path)
    assert len(frames) < FRAMES and "is cut short" in said[0]


def test_lengths_that_are_nonsense_do_not_hang_or_crash(tmp_path):
    rng = np.random.default_rng(0)
    starts = {
        "mp4": b"\0\0\0\x18ftypisom",
        "mkv": bytes.fromhex("1a45dfa3"),
        "avi": b"RIFF\xff\xff\xff\xffAVI ",
        "flv": b"FLV\x01\x05\0\0\0\x09\0\0\0\0",
        "wmv": bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),
        "ogv": b"OggS\0\x02",
        "ts": b"G@\0\x10",
        "none": b"",
    }
    path = tmp_path / "file"
    for start in starts.values():
        for length in (0, 1, 7, 20, 300):
            path.write_bytes(start + rng.integers(0, 256, length, np.uint8).tobytes())
            assert missing_bytes(path) >= 0
            path.write_bytes(start + bytes(length))
            assert missing_bytes(path) >= 0
