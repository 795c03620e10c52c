"""`sam-jax track`: objects through a video, and whatever stops it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from sam_jax.checkpoints.native import save_checkpoint
from sam_jax.cli.main import main
from sam_jax.formats.label_png import read_label_png
from sam_jax.formats.rle import decode_rle
from sam_jax.models.sam2.config import SAM2_TEST
from sam_jax.video.tracker import Tracker
from sam_jax.video.video_files import VideoWriter
from tests.small_sam2 import small_variables
from tests.video.made_videos import made

pytest.importorskip("av")

SIZE = (66, 88)


def frames(count=5):
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    for i in range(count):
        image = np.zeros((*SIZE, 3), np.uint8)
        image[(x - 20 - 4 * i) ** 2 + (y - 30) ** 2 < 150] = (220, 40, 40)
        image[50:, 60:] = (30, 200, 60)
        yield image


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "sam2"
    save_checkpoint(path, SAM2_TEST, small_variables())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "frames"
    path.mkdir()
    for i, image in enumerate(frames()):
        Image.fromarray(image).save(path / f"{i:05d}.png")
    return path


def run(*args):
    result = CliRunner().invoke(main, ["track", *map(str, args)], catch_exceptions=False)
    return result.exit_code, result.output


def in_order(folder):
    return sorted(path.name for path in (folder / "masks").iterdir())


def test_masks_are_the_trackers(model, folder, tmp_path):
    mask = np.zeros(SIZE, np.uint8)
    mask[50:, 60:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    code, output = run(
        *(folder, "--checkpoint", model, "--output", tmp_path / "out"),
        *("--point", "0:20,30", "--point", "0:80,5,0", "--object", 3),
        *("--mask", f"2:{tmp_path / 'mask.png'}", "--object", 1, "--box", "3:10,10,50,50"),
    )
    assert code == 0, output
    tracker = Tracker.load(model)
    state = tracker.start(SIZE, num_frames=5)
    for i, frame in enumerate(frames()):
        if i == 0:
            points = [[20, 30], [80, 5]]
            state = tracker.prompt(state, frame, 1, points=points, labels=[1, 0])
        if i == 2:
            state = tracker.prompt(state, frame, 3, mask=mask > 0)
        if i == 3:  # a correction of what was followed to here
            state, _ = tracker.step(state, frame)
            state = tracker.prompt(state, frame, 1, box=[10, 10, 50, 50], frame_index=i)
        state, found = tracker.step(state, frame, frame_index=i)
        labels = read_label_png(tmp_path / "out" / "masks" / f"{i:05d}.png")
        areas = {number: mask.sum() for number, mask in found}
        for number, mask_ in found:
            smaller = [m for n, m in found if areas[n] < areas[number]]
            visible = mask_ & ~np.logical_or.reduce([np.zeros(SIZE, bool), *smaller])
            assert ((labels == number) <= mask_).all()
            assert (visible <= (labels == number)).all()
        assert set(np.unique(labels)) <= {0, *found.object_ids}
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert record["frames"] == 5 and record["ended_by"] == "the end of the video"
    assert [one["object"] for one in record["prompts"]] == [1, 3, 1]
    assert (tmp_path / "out" / "overlay.mp4").stat().st_size > 1000


def test_rle_says_the_same_and_takes_the_place_of_earlier_results(model, folder, tmp_path):
    args = (folder, "--checkpoint", model, "--output", tmp_path, "--point", "0:20,30")
    assert run(*args, "--no-overlay")[0] == 0
    labels = [read_label_png(tmp_path / "masks" / name) for name in in_order(tmp_path)]
    code, output = run(*args, "--format", "rle", "--no-overlay", "--max-frames", 3)
    assert code == 0 and "3 frames" in output
    assert in_order(tmp_path) == ["00000.json", "00001.json", "00002.json"]
    assert not (tmp_path / "overlay.mp4").exists()
    for i, name in enumerate(in_order(tmp_path)):
        record = json.loads((tmp_path / "masks" / name).read_text())
        (one,) = record["objects"]
        np.testing.assert_array_equal(decode_rle(one["segmentation"]), labels[i] == 1)
        assert record["frame"] == i and one["object"] == 1


def test_frames_before_the_first_prompt_are_empty(model, folder, tmp_path):
    code, output = run(
        folder, "--checkpoint", model, "--output", tmp_path, "--box", "3:10,10,50,50"
    )
    assert code == 0, output
    labels = [read_label_png(tmp_path / "masks" / name) for name in in_order(tmp_path)]
    assert [one.any() for one in labels[:3]] == [False] * 3 and len(labels) == 5


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "no prompt is given"),
        (("--point", "0:1"), "is not F:X,Y"),
        (("--point", "-1:5,5"), "is not F:X,Y"),
        (("--point", "x"), "is not F:X,Y"),
        (("--point", "0:5,5,7"), "a label is 1"),
        (("--object", "2", "--object", "3", "--point", "0:5,5"), "--object 2 has no prompt"),
        (("--object", "0", "--point", "0:5,5"), "0 is not in the range"),
        (("--box", "0:1,1,5,5", "--box", "0:2,2,6,6"), "has two boxes"),
        (("--point", "0:500,5"), "outside the image"),
        (("--box", "0:9,9,5,5"), "reversed or empty"),
        (("--point", "7:5,5"), "there is no frame 7: .* has 5, from 0 to 4"),
        (("--point", "3:5,5", "--max-frames", "3"), "on frame 3, and --max-frames 3 ends before"),
        (("--mask", "0:nowhere.png"), "nowhere.png"),
    ],
)
def test_prompts_that_cannot_be_used_are_named(model, folder, tmp_path, args, message):
    code, output = run(folder, "--checkpoint", model, "--output", tmp_path / "out", *args)
    assert code == 2
    import re

    assert re.search(message, output), output
    assert not (tmp_path / "out").exists()


def test_videos_and_models_that_cannot_be_used_are_named(model, folder, tmp_path):
    point = ("--point", "0:5,5", "--output", tmp_path / "out")
    (tmp_path / "text.mp4").write_text("no video")
    assert "does not exist" in run(tmp_path / "none.mp4", "--checkpoint", model, *point)[1]
    code, output = run(tmp_path / "text.mp4", "--checkpoint", model, *point)
    assert code == 2 and "cannot be read as a video" in output
    code, output = run("", "--checkpoint", model, *point)
    assert code == 2 and "is empty" in output
    assert "run `sam-jax download sam2.1_tiny`" in run(folder, *point)[1]
    assert "is 'tiny', a model for images" in run(folder, "--checkpoint", "tiny", *point)[1]
    assert "is not downloaded yet" in run(folder, "--checkpoint", "sam2.1_tiny", *point)[1]
    # A name with a dot in it is a name to the other commands, too.
    for command in (["convert", "sam2.1_tiny", str(tmp_path / "out.pt")], ["info", "sam2.1_tiny"]):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 2 and "sam2.1_tiny is not downloaded yet" in result.output
    assert not (tmp_path / "out").exists()
    (tmp_path / "out" / "masks").mkdir(parents=True)
    (tmp_path / "out" / "masks" / "mine.png").write_bytes(b"")
    assert "no result of this command" in run(folder, "--checkpoint", model, *point)[1]


def test_what_is_read_is_not_written_over(model, folder, tmp_path):
    args = ("--checkpoint", model, "--point", "0:20,30", "--output", tmp_path)
    assert run(folder, *args)[0] == 0
    for name in ("masks", "overlay.mp4"):
        before = (tmp_path / name).stat().st_mtime_ns
        code, output = run(tmp_path / name, *args)
        assert code == 2 and "would be written over" in output
        assert (tmp_path / name).stat().st_mtime_ns == before
    assert len(in_order(tmp_path)) == 5
    # What an earlier call has written does not stay beside what this one writes.
    assert run(folder, *args, "--no-overlay")[0] == 0
    assert not (tmp_path / "overlay.mp4").exists()
    for name in ("masks", "results.json", "overlay.mp4"):
        other = tmp_path / f"odd {name}"
        if name == "masks":
            other.mkdir()
            (other / name).write_text("")
        else:
            (other / name).mkdir(parents=True)
        code, output = run(folder, *args[:-1], other)
        assert code == 2 and "choose another --output" in output
        assert len(list(other.iterdir())) == 1


def test_frames_too_small_for_an_overlay_are_followed_without_one(model, tmp_path):
    (tmp_path / "thin").mkdir()
    for i in range(2):
        Image.fromarray(np.full((40, 1, 3), 80 * i, np.uint8)).save(tmp_path / "thin" / f"{i}.png")
    args = (tmp_path / "thin", "--checkpoint", model, "--output", tmp_path / "out")
    code, output = run(*args, "--point", "0:0,20")
    assert code == 2 and "add --no-overlay" in output and not (tmp_path / "out").exists()
    assert run(*args, "--point", "0:0,20", "--no-overlay")[0] == 0
    assert read_label_png(tmp_path / "out" / "masks" / "1.png").shape == (40, 1)


def test_a_prompt_beyond_the_end_of_a_file_is_said_at_the_end(model, tmp_path):
    with VideoWriter(tmp_path / "video.mp4", 10.0, SIZE) as writer:
        for frame in frames(3):
            writer.write(frame)
    code, output = run(
        *(tmp_path / "video.mp4", "--checkpoint", model, "--output", tmp_path / "out"),
        *("--point", "0:20,30", "--point", "9:20,30"),
    )
    assert code == 2 and "there is no frame 9" in output
    assert in_order(tmp_path / "out") == ["00000.png", "00001.png", "00002.png"]
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert record["frame_names"] == ["00000", "00001", "00002"]
    assert record["clip_frames_per_second"] == 10
    assert record["frame_times"] == pytest.approx([0, 0.1, 0.2])
    assert record["run_frames_per_second"] > 0 and "frames_per_second" not in record


def test_without_pyav_frames_keep_their_names_and_the_overlay_is_pictures(
    model, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "clip").mkdir()
    stems = ["t-1", "t0.25", "t0.5", "t7", "t10"]
    for stem, image in zip(stems, frames(), strict=True):
        Image.fromarray(image).save(tmp_path / "clip" / f"{stem}.jpg")
        Image.fromarray(image[..., 0]).save(tmp_path / "clip" / f"{stem}.png")
    out = tmp_path / "out"
    args = ("--checkpoint", model, "--output", out, "--point", "0:20,30")
    code, output = run(tmp_path / "clip", *args)
    assert code == 0, output
    assert output.count("PyAV is not installed: the overlay is written as pictures") == 1
    assert output.count("the JPEGs are taken as the frames") == 1
    assert set(in_order(out)) == {f"{stem}.png" for stem in stems}
    assert {path.name for path in (out / "overlay").iterdir()} == {f"{stem}.jpg" for stem in stems}
    with Image.open(out / "overlay" / "t10.jpg") as drawn:
        assert drawn.height >= SIZE[0]
    record = json.loads((out / "results.json").read_text())
    assert record["frame_names"] == stems and record["ended_by"] == "the end of the video"
    assert record["frame_times"] is None and record["clip_frames_per_second"] is None
    # Another clip's results take their place; what is not of this command stays.
    (out / "masks" / "mine.png").write_bytes(b"mine")
    code, output = run(tmp_path / "clip", *args, "--max-frames", 1, "--no-overlay")
    assert code == 0 and in_order(out) == ["mine.png", "t-1.png"], output
    assert not (out / "overlay").exists()
    # An animated picture is read without PyAV, a video file is not.
    first, *more = [Image.fromarray(image) for image in frames(2)]
    first.save(tmp_path / "clip.gif", save_all=True, append_images=more, duration=50)
    code, output = run(tmp_path / "clip.gif", *args, "--no-overlay")
    assert code == 0 and in_order(out) == ["00000.png", "00001.png", "mine.png"], output
    assert json.loads((out / "results.json").read_text())["frame_times"] == [0, 0.05]
    (tmp_path / "clip.mp4").write_bytes(b"0000")
    code, output = run(tmp_path / "clip.mp4", *args)
    assert code == 2 and "pip install 'sam-jax[video]'" in output and output.count("\n") == 1


def test_a_cut_video_is_an_error_and_the_masks_of_what_is_there_are_kept(model, tmp_path):
    made(tmp_path / "clip.mkv")
    content = (tmp_path / "clip.mkv").read_bytes()
    (tmp_path / "clip.mkv").write_bytes(content[: len(content) // 2])
    args = ("--checkpoint", model, "--output", tmp_path / "out", "--point", "0:20,30")
    code, output = run(tmp_path / "clip.mkv", *args, "--format", "rle")
    done = len(in_order(tmp_path / "out"))
    assert code == 2 and 5 < done < 25
    errors = [line for line in output.splitlines() if "cut short" in line]
    assert len(errors) == 1 and f"is cut short: {done} frames could be read" in errors[0]
    assert errors[0].startswith("error: ") and "warning" not in output
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert record["frames"] == done and "is cut short" in record["ended_by"]
    assert (tmp_path / "out" / "overlay.mp4").exists()
    # What was asked for is there.
    code, output = run(tmp_path / "clip.mkv", *args, "--max-frames", 2, "--no-overlay")
    assert code == 0 and len(in_order(tmp_path / "out")) == 2, output


@pytest.mark.parametrize("name", ["tiny", "vit_b", "sam_vit_h", None])
def test_the_kind_of_model_is_looked_at_first(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "av", None)
    args = [] if name is None else ["--checkpoint", name]
    code, output = run(tmp_path / "no.mp4", *args, "--output", "/dev/null/no")
    assert code == 2 and output.count("\n") == 1
    assert "video needs" in output and "run `sam-jax download sam2.1_tiny`" in output


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_done(model, tmp_path):
    with VideoWriter(tmp_path / "video.mp4", 10.0, SIZE) as writer:
        for frame in frames(400):
            writer.write(frame)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "sam_jax.cli.main", "track", str(tmp_path / "video.mp4")]
    command += ["--checkpoint", str(model), "--output", str(out), "--point", "0:20,30"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        while not (out / "masks" / "00004.png").exists():
            assert child.poll() is None, child.communicate()[0]
            time.sleep(0.05)
        os.kill(child.pid, signal.SIGINT)
        output = child.communicate(timeout=60)[0]
    finally:
        child.kill()
    assert child.returncode == 130, output
    assert "Traceback" not in output
    record = json.loads((out / "results.json").read_text())
    done = record["frames"]
    assert record["ended_by"] == "an interruption" and 3 <= done < 400
    assert len(in_order(out)) == done
    for name in in_order(out):
        read_label_png(out / "masks" / name)
    import av

    with av.open(str(out / "overlay.mp4")) as container:
        assert len(list(container.decode(video=0))) == done


def test_files_of_others_stay(model, folder, tmp_path):
    args = (folder, "--checkpoint", model, "--point", "0:20,30", "--output", tmp_path / "mine")
    (tmp_path / "mine" / "masks").mkdir(parents=True)
    (tmp_path / "mine" / "masks" / "00001.png").write_bytes(b"mine")
    (tmp_path / "mine" / "results.json").write_text('{"mine": 1}')
    code, output = run(*args)
    assert code == 2 and "no result of this command" in output
    assert (tmp_path / "mine" / "masks" / "00001.png").read_bytes() == b"mine"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "overlay.mp4").write_bytes(b"mine")
    code, output = run(*args[:-1], tmp_path / "other")
    assert code == 2 and "overlay.mp4 is there and no result" in output


def test_a_mask_that_shows_nothing_is_refused(model, folder, tmp_path):
    Image.fromarray(np.full(SIZE, 3, np.uint8)).save(tmp_path / "labels.png")
    mask = ("--mask", f"0:{tmp_path / 'labels.png'}", "--output", tmp_path / "out")
    code, output = run(folder, "--checkpoint", model, *mask)
    assert code == 2 and "shows no object" in output


def test_more_objects_than_a_tracker_has_room_for_by_itself(model, folder, tmp_path):
    prompts = [
        word for i in range(17) for word in ("--object", i + 1, "--point", f"0:{3 + 4 * i},20")
    ]
    args = (folder, "--checkpoint", model, "--max-frames", 1, "--output", tmp_path / "out")
    code, output = run(*args, *prompts)
    assert code == 0, output


def test_a_name_with_a_colon_and_a_title_that_is_no_text(model, tmp_path, monkeypatch):
    import av

    monkeypatch.chdir(tmp_path)
    with VideoWriter("plain.mp4", 10.0, SIZE) as writer:
        for frame in frames(2):
            writer.write(frame)
    with av.open("plain.mp4") as source, av.open(str(tmp_path / "12:30.mkv"), "w") as titled:
        titled.metadata["title"] = "cafe"
        stream = titled.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                titled.mux(packet)
    content = Path("12:30.mkv").read_bytes()
    assert content.count(b"cafe") == 1
    Path("12:30.mkv").write_bytes(content.replace(b"cafe", b"caf\xe9"))
    args = ("--checkpoint", model, "--point", "0:20,30", "--output", "o:7")
    code, output = run("12:30.mkv", *args)
    assert code == 0, output
    assert len(in_order(tmp_path / "o:7")) == 2
