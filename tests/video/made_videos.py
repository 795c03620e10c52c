"""Video files of many kinds, all whole, that a header's counts and durations do not describe."""

import io
from fractions import Fraction
from functools import partial

import numpy as np
import pytest

av = pytest.importorskip("av")

FRAMES = 30
RATE = 25


def picture(i, height=48, width=64):
    """Noise, so that no packet is so small that a cut would miss it."""
    image = np.random.default_rng(i).integers(40, 80, (height, width, 3), np.uint8)
    image[10:20, i : i + 10] = 200
    return image


def encoded(stream, pts, scale):
    packets = []
    for i, at in enumerate(pts):
        frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
        frame.pts, frame.time_base = at, scale
        if i % 10 == 0:
            frame.pict_type = av.video.frame.PictureType.I
        packets += stream.encode(frame)
    return packets + stream.encode()


def sound(stream, seconds):
    packets, size = [], stream.codec_context.frame_size or 1024
    for at in range(0, int(seconds * 48000), size):
        wave = 0.1 * np.sin(np.arange(at, at + size) / 20, dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, at, Fraction(1, 48000)
        packets += stream.encode(frame)
    return packets + stream.encode()


def made(
    path,
    codec="libx264",
    pix_fmt="yuv420p",
    muxer=None,
    coder=None,
    pts=None,
    seconds=None,
    pipe=None,
):
    """Writes a file with `FRAMES` frames; `pts` in milliseconds, `seconds` of sound."""
    with av.open(
        pipe or str(path), "w", format=FORMS[path.suffix], options=muxer or {}
    ) as container:
        stream = container.add_stream(codec, rate=RATE, options=coder or {})
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        scale = Fraction(1, 1000) if pts else Fraction(1, RATE)
        stream.codec_context.time_base = scale
        if seconds:
            audio = container.add_stream("aac", rate=48000)
        packets = encoded(stream, pts or range(FRAMES), scale)
        if seconds:
            packets += sound(audio, seconds)
        for packet in sorted(packets, key=lambda one: one.dts * one.time_base):
            container.mux(packet)


def piped(path, **options):
    """The same where the muxer cannot go back and note lengths."""
    with open(path, "wb") as file:
        made(path, pipe=_Pipe(file), **options)


class _Pipe:
    def __init__(self, file):
        self.write = file.write


def copied(path, first=10):
    """Packets from one on, with their times, as a copy without encoding has them."""
    made(path, coder={"bf": "0"})
    with av.open(io.BytesIO(path.read_bytes())) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in [one for one in source.demux(video=0) if one.dts is not None][first:]:
            packet.stream = stream
            container.mux(packet)


def with_more_behind(path):
    made(path)
    path.write_bytes(path.read_bytes() + b"\xf3\x91\x00\x81camera" * 9)


def recorded(path):
    """A WebM file as browsers record it: no length of the whole, nor of the segment or clusters."""
    made(path, "libvpx", muxer={"live": "1"})
    content = bytearray(path.read_bytes())
    for name in (bytes.fromhex("18538067"), bytes.fromhex("1f43b675")):
        at = content.find(name)
        while at >= 0:
            field = at + 4
            count = 9 - content[field].bit_length()
            content[field] |= 0xFF >> count
            content[field + 1 : field + count] = b"\xff" * (count - 1)
            at = content.find(name, field + count)
    path.write_bytes(content)


def with_count(path, change):
    """An AVI file whose headers count more frames, or fewer, or do not say (None)."""
    made(path, "mjpeg", "yuvj420p")
    content = bytearray(path.read_bytes())
    for name, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
        at = content.index(name) + offset
        count = int.from_bytes(content[at : at + 4], "little")
        content[at : at + 4] = (0 if change is None else count + change).to_bytes(4, "little")
    path.write_bytes(content)


def uneven():
    rng = np.random.default_rng(0)
    return [0, *np.cumsum(rng.choice([10, 40, 200, 900], FRAMES - 1)).tolist()]


FAST = {"movflags": "faststart"}
LATE = [5000 + 40 * i for i in range(FRAMES)]
EARLY = [40 * (i - 10) for i in range(FRAMES)]
EDITED = FAST | {"avoid_negative_ts": "disabled", "use_editlist": "1"}
FORMS = {
    ".mp4": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".avi": "avi",
    ".flv": "flv",
    ".wmv": "asf",
}


# By name, how each is made.
WHOLE = {
    "index_last.mp4": made,
    "index_first.mp4": partial(made, muxer=FAST),
    "in_fragments.mp4": partial(
        made, muxer={"movflags": "frag_keyframe+empty_moov"}, coder={"g": "10"}
    ),
    "b_frames.mp4": partial(made, muxer=FAST, coder={"bf": "3", "g": "30"}),
    "uneven.mp4": partial(made, muxer=FAST, pts=uneven()),
    "edit_list.mp4": partial(made, muxer=EDITED, pts=EARLY, coder={"bf": "0"}),
    "late_start.mp4": partial(made, muxer=FAST, pts=LATE),
    "longer_sound.mp4": partial(made, muxer=FAST, seconds=4),
    "copied.mp4": copied,
    "camera_data_behind.mp4": with_more_behind,
    "quicktime.mov": partial(made, muxer=FAST),
    "matroska.mkv": made,
    "uneven.mkv": partial(made, pts=uneven()),
    "late_start.mkv": partial(made, pts=LATE),
    "longer_sound.mkv": partial(made, seconds=4),
    "copied.mkv": copied,
    "lossless.mkv": partial(made, codec="ffv1", pix_fmt="yuv444p"),
    "piped.mkv": piped,
    "vp9.webm": partial(made, codec="libvpx-vp9"),
    "recorded.webm": recorded,
    "mpeg4.avi": partial(made, codec="mpeg4"),
    "mjpeg.avi": partial(made, codec="mjpeg", pix_fmt="yuvj420p"),
    "one_too_many.avi": partial(with_count, change=1),
    "one_too_few.avi": partial(with_count, change=-1),
    "no_count.avi": partial(with_count, change=None),
    "flash.flv": made,
    "windows.wmv": partial(made, codec="mpeg4"),
}
# What is shown of those that show less than all.
SHOWN = {"edit_list.mp4": 20, "copied.mp4": 20, "copied.mkv": 20}
