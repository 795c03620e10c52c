"""`sam-jax segment`: the same masks as the Segmenter, whole files or none, one-line errors."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam_jax import Segmenter, postprocess
from sam_jax.checkpoints import registry
from sam_jax.configs import TEST
from sam_jax.formats.rle import decode_rle, mask_box
from sam_jax.preprocess import mask_to_logits

OUT = Path("sam-jax-output")


@pytest.fixture(scope="module")
def segmenter(checkpoint):
    return Segmenter.load(checkpoint)


@pytest.fixture
def segment(run, checkpoint):
    def call(*args):
        result = run("segment", "photo.png", "--checkpoint", checkpoint, *args)
        assert result.stderr == ""
        return json.loads((OUT / "photo.json").read_text())

    return call


@pytest.fixture
def refused(run, checkpoint):
    """A call that must be refused and leave nothing behind."""

    def call(*args, image="photo.png"):
        before = sorted(Path().rglob("*"))
        line = run.refused("segment", image, "--checkpoint", checkpoint, *args)
        assert sorted(Path().rglob("*")) == before
        return line

    return call


def read_mask(name):
    picture = Image.open(OUT / name)
    assert picture.mode == "L"
    values = np.asarray(picture)
    assert set(np.unique(values)) <= {0, 255}
    return values > 0


def assert_same_as(record, prediction):
    assert len(record["masks"]) == prediction.scores.size
    places = np.ndindex(prediction.scores.shape)
    for entry, (prompt, candidate) in zip(record["masks"], places, strict=True):
        mask = prediction.mask(prompt, candidate)
        assert (entry["prompt"], entry["candidate"]) == (prompt, candidate)
        np.testing.assert_array_equal(read_mask(entry["file"]), mask)
        np.testing.assert_array_equal(decode_rle(entry["segmentation"]), mask)
        assert entry["area"] == mask.sum()
        assert entry["bbox"] == mask_box(mask).tolist()
        assert entry["score"] == pytest.approx(prediction.scores[prompt, candidate], abs=1e-6)
        best = candidate == prediction.scores[prompt].argmax()
        assert entry["best"] == best


def test_a_point_gives_three_candidates_and_all_files(segment, segmenter, run, checkpoint):
    record = segment("--point", "30,20")
    expected = segmenter.predict(segmenter.encode("photo.png"), points=[[30, 20]])
    assert_same_as(record, expected)
    names = [f"photo_mask_{i}.png" for i in range(3)] + ["photo.json", "photo_overlay.png"]
    assert sorted(p.name for p in OUT.iterdir()) == sorted(names)
    assert record["image"] == {"file": "photo.png", "height": 61, "width": 90}
    assert record["checkpoint"]["fingerprint"] == segmenter.fingerprint
    assert record["checkpoint"]["model"] == "test"
    assert record["prompts"] == [
        {"points": [[30, 20]], "labels": [1], "box": None, "mask_input": None}
    ]
    overlay = Image.open(OUT / "photo_overlay.png")
    assert overlay.mode == "RGB" and overlay.width > 3 * 3 * 90  # enlarged, side by side


def test_it_prints_what_it_wrote(run, checkpoint):
    result = run("segment", "photo.png", "--checkpoint", checkpoint, "--point", "30,20")
    lines = result.stdout.splitlines()
    assert [Path(line.split("  ")[0]).name for line in lines] == [
        *(f"photo_mask_{i}.png" for i in range(3)),
        "photo_overlay.png",
        "photo.json",
    ]
    assert sum(line.endswith(", best") or ", best," in line for line in lines) == 1
    assert all("score " in line and " pixels" in line for line in lines[:3])


@pytest.mark.parametrize(
    "args, prompts, multimask",
    [
        (["--point", "30,20,1", "--point", "60.5,40,0"],
         {"points": [[30, 20], [60.5, 40]], "labels": [1, 0]}, False),
        (["--box", "5,6,70,50"], {"boxes": [5, 6, 70, 50]}, False),
        (["--box", "5,6,70,50", "--point", "30,20"],
         {"boxes": [5, 6, 70, 50], "points": [[30, 20]]}, False),
        (["--box", "5,6,70,50", "--box", "0,0,90,61"],
         {"boxes": [[5, 6, 70, 50], [0, 0, 90, 61]]}, False),
        (["--box", "5,6,70,50", "--box", "0,0,90,61", "--multimask"],
         {"boxes": [[5, 6, 70, 50], [0, 0, 90, 61]]}, True),
        (["--point", "30,20", "--single-mask"], {"points": [[30, 20]]}, False),
    ],
)  # fmt: skip
def test_prompts_mean_what_the_help_says(segment, segmenter, args, prompts, multimask):
    record = segment(*args)
    embedding = segmenter.encode("photo.png")
    assert_same_as(record, segmenter.predict(embedding, **prompts, multimask=multimask))
    if not multimask:
        assert Image.open(OUT / "photo_overlay.png").width == 3 * 90  # enlarged


def test_logits_can_be_fed_back(segment, segmenter):
    first = segment("--point", "30,20", "--save-logits")
    logits = OUT / first["masks"][1]["logits"]
    embedding = segmenter.encode("photo.png")
    expected = segmenter.predict(embedding, points=[[30, 20]]).logits[0, 1]
    np.testing.assert_allclose(np.load(logits), expected, atol=1e-6)
    record = segment("--point", "60,40,0", "--mask-input", logits)
    assert_same_as(
        record,
        segmenter.predict(
            embedding, points=[[60, 40]], labels=[0], masks=expected, multimask=False
        ),
    )
    assert record["prompts"][0]["mask_input"] == str(logits)


def test_a_picture_of_a_mask_becomes_logits(segment, segmenter):
    mask = np.zeros((61, 90), bool)
    mask[10:50, 20:60] = True
    Image.fromarray(np.where(mask, 200, 30).astype(np.uint8)).save("rough.png")
    record = segment("--mask-input", "rough.png")
    embedding, logits = segmenter.encode("photo.png"), mask_to_logits(mask, TEST)
    assert_same_as(record, segmenter.predict(embedding, masks=logits, multimask=False))


def test_a_picture_given_as_logits_is_warned_of_in_one_line(run, checkpoint):
    np.save("mask.npy", np.eye(TEST.mask_input_size, dtype=np.float32))
    args = ("--checkpoint", checkpoint, "--mask-input", "mask.npy")
    result = run("segment", "photo.png", *args)
    (line,) = result.stderr.splitlines()
    assert line.startswith("warning: masks[0] looks like a picture")


def test_a_saved_embedding_gives_the_same_masks(segment, run, checkpoint):
    direct = segment("--point", "30,20")
    run("encode", "photo.png", "--output", "embeddings", "--checkpoint", checkpoint)
    saved = segment("--point", "30,20", "--embedding", "embeddings/photo.png.npz")
    assert saved == direct


def test_embeddings_of_others_are_refused(run, refused, checkpoint, other_checkpoint):
    Image.new("RGB", (91, 61)).save("other.png")
    run("encode", "other.png", "--output", "e", "--checkpoint", checkpoint)
    line = refused("--point", "30,20", "--embedding", "e/other.png.npz")
    assert "of an image of 91x61 pixels, but this one is 90x61" in line
    run("encode", "photo.png", "--output", "e", "--checkpoint", other_checkpoint)
    assert "another model" in refused("--point", "30,20", "--embedding", "e/photo.png.npz")
    assert "does not exist" in refused("--point", "30,20", "--embedding", "nothing.npz")
    assert "not a saved embedding" in refused("--point", "30,20", "--embedding", "photo.png")


def test_bfloat16_is_close_to_float32(segment):
    exact = segment("--box", "5,6,70,50")
    close = segment("--box", "5,6,70,50", "--dtype", "bfloat16")
    assert close["checkpoint"]["dtype"] == "bfloat16"
    assert close["masks"][0]["score"] == pytest.approx(exact["masks"][0]["score"], abs=0.1)


@pytest.mark.parametrize(
    "args, reason",
    [
        ([], "no prompt is given: add --point"),
        (["--point", "abc"], "'abc' is not X,Y or X,Y,LABEL, for example 500,375"),
        (["--point", "1"], "'1' is not X,Y"),
        (["--point", "1,2,1,0"], "is not X,Y"),
        (["--point", "1;2"], "is not X,Y"),
        (["--point", ""], "'' is not X,Y"),
        (["--point"], "requires an argument"),
        (["--box", "1,2,3"], "'1,2,3' is not X0,Y0,X1,Y1, for example"),
        (["--box", "1,2,3,4,5"], "is not X0,Y0,X1,Y1"),
        (["--point", "-5,10"], "(-5, 10)"),
        (["--point", "91,10"], "(91, 10)"),
        (["--point", "nan,10"], "nan"),
        (["--point", "inf,10"], "inf"),
        (["--point", "10,10,2"], "label is 1 (foreground) or 0"),
        (["--box", "50,10,20,40"], "reversed or empty"),
        (["--box", "-5,10,20,40"], "(-5, 10)"),
        (["--box", "5,10,20,40", "--box", "5,10,5,40"], "reversed or empty"),
        (["--point", "1,2", "--box", "1,2,3,4", "--box", "1,2,3,5"],
         "--point with 2 boxes is ambiguous"),
        (["--mask-input", "x.npy", "--box", "1,2,3,4", "--box", "1,2,3,5"],
         "--mask-input with 2 boxes is ambiguous"),
        (["--mask-input", "nothing.npy"], "there is no file nothing.npy"),
        (["--mask-input", "nothing.png"], "nothing.png"),
        (["--point", "1,2", "--dtype", "float16"], "'float16' is not one of"),
        (["--points", "1,2"], "No such option"),
        (["--point", "1,2", "--output", "photo.png"], "photo.png is not a folder"),
        (["--point", "1,2", "--output", "photo.png/out"], "photo.png is not a folder"),
        (["another.png", "--point", "1,2"], "unexpected extra argument"),
    ],
)  # fmt: skip
def test_bad_options_are_refused_in_one_line(refused, args, reason):
    assert reason in refused(*args)


def test_bad_mask_inputs_are_refused(refused):
    side = TEST.mask_input_size
    good = np.ones((side, side), np.float32)
    arrays = {
        "many": np.ones((3, side, side), np.float32),
        "size": np.ones((side, side + 1), np.float32),
        "bytes": np.ones((side, side), np.uint8),
        "flat": np.ones(side * side, np.float32),
    }
    for name, array in arrays.items():
        np.save(f"{name}.npy", array)
        assert "not one mask's logits" in refused("--mask-input", f"{name}.npy")
    np.save("nan.npy", good * np.nan)
    assert "NaN" in refused("--mask-input", "nan.npy")
    np.save("objects.npy", np.array([{"a": 1}]), allow_pickle=True)
    assert "damaged" in refused("--mask-input", "objects.npy")
    np.savez("archive.npz", good)
    Path("archive.npz").rename("archive.npy")
    assert "damaged" in refused("--mask-input", "archive.npy")
    np.save("good.npy", good)
    content = Path("good.npy").read_bytes()
    Path("short.npy").write_bytes(content[: len(content) // 2])
    assert "damaged" in refused("--mask-input", "short.npy")
    huge = content.replace(f"({side}, {side})".encode(), b"(9" + b"0" * 9 + b",)", 1)
    Path("huge.npy").write_bytes(huge)
    assert "damaged" in refused("--mask-input", "huge.npy")
    Image.new("L", (90, 60), 255).save("size.png")
    assert "90x60 pixels, but the image is 90x61" in refused("--mask-input", "size.png")
    Image.new("L", (90, 61), 0).save("empty.png")
    assert "empty" in refused("--mask-input", "empty.png")


def test_bad_images_are_refused(refused):
    Path("empty.png").write_bytes(b"")
    Path("text.png").write_text("not an image")
    Path("short.png").write_bytes(Path("photo.png").read_bytes()[:3000])
    Path("folder").mkdir()
    for name in ("nothing.png", "empty.png", "text.png", "short.png", "folder"):
        assert name in refused("--point", "1,2", image=name)


def test_bad_checkpoints_are_refused(run, checkpoint, folder):
    def refused(name):
        return run.refused("segment", "photo.png", "--point", "1,2", "--checkpoint", name)

    line = refused("vit_b")
    assert line.startswith("vit_b is not downloaded yet (downloaded models lie in ")
    assert line.endswith("); run: sam-jax download vit_b")
    assert "names are: " in refused("vit_x")
    Path("weights.pth").write_bytes(b"")
    assert "sam-jax convert weights.pth DESTINATION" in refused("weights.pth")
    Path("empty").mkdir()
    assert "config.json" in refused("empty")
    assert "name is empty" in refused("")
    Path("damaged").mkdir()
    Path("damaged/config.json").write_text("{")
    assert "damaged" in refused("damaged")
    assert not OUT.exists()


def test_without_a_checkpoint_the_small_one_is_used_and_said_so(run, shipped, monkeypatch):
    result = run("segment", "photo.png", "--point", "30,20")
    (line,) = result.stderr.splitlines()
    assert "small built-in model" in line and "sam-jax download vit_b" in line
    monkeypatch.setattr(registry, "_SHIPPED", shipped.parent / "nowhere")
    assert "sam-jax download vit_b" in run.refused("segment", "photo.png", "--point", "30,20")


def test_results_of_an_earlier_call_are_replaced_and_none_is_left(segment):
    first = segment("--point", "30,20", "--save-logits")
    (OUT / "mine.png").write_bytes(b"")
    (OUT / "photo_mask_7.png").write_bytes(b"not listed, so not ours")
    second = segment("--box", "5,6,70,50")
    assert len(first["masks"]) == 3 and len(second["masks"]) == 1
    kept = {"mine.png", "photo_mask_7.png"}
    names = {"photo_mask_0.png", "photo_overlay.png", "photo.json"}
    assert {p.name for p in OUT.iterdir()} == names | kept


def test_a_tampered_record_makes_nothing_else_be_removed(segment):
    segment("--point", "30,20")
    Path("photo_mask_0.png").write_bytes(b"")
    names = ["../photo_mask_0.png", "photo.png", None, 3, {}]
    record = {"sam_jax": "0", "masks": [{"file": name} for name in names] + [[], "x"]}
    (OUT / "photo.json").write_text(json.dumps(record))
    segment("--point", "30,20")
    assert Path("photo_mask_0.png").exists() and Path("photo.png").exists()


def test_json_files_of_others_are_not_replaced(refused):
    of_generate = '{"image": {}, "annotations": [], "sam_jax": {}}'
    for content in ('{"annotations": []}', "[1]", "no json", of_generate):
        Path("photo.json").write_text(content)
        line = refused("--point", "1,2", "--output", ".")
        assert "photo.json exists and is no result" in line
        assert Path("photo.json").read_text() == content


def full_disk(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail_on_call(function, number):
    calls = []

    def failing(*args, **kwargs):
        calls.append(args)
        return full_disk() if len(calls) == number else function(*args, **kwargs)

    return failing


@pytest.mark.parametrize("number", [1, 3, 4])
def test_a_full_disk_leaves_no_file(refused, monkeypatch, number):
    monkeypatch.setattr(Path, "write_bytes", fail_on_call(Path.write_bytes, number))
    assert "cannot write to sam-jax-output: No space left" in refused("--point", "30,20")
    assert not OUT.exists()


def test_a_full_disk_leaves_earlier_results_as_they_were(segment, refused, monkeypatch):
    segment("--point", "30,20")
    before = {path: path.read_bytes() for path in OUT.iterdir()}
    monkeypatch.setattr(Path, "write_text", full_disk)
    assert "No space left" in refused("--box", "5,6,70,50")
    assert {path: path.read_bytes() for path in OUT.iterdir()} == before


def test_a_failing_rename_leaves_no_half_file(refused, monkeypatch):
    monkeypatch.setattr(os, "replace", full_disk)
    assert "cannot write" in refused("--point", "30,20")
    assert not OUT.exists()


def test_a_folder_in_the_way_of_a_file_changes_nothing(refused):
    (OUT / "photo_overlay.png").mkdir(parents=True)
    assert "photo_overlay.png is a folder" in refused("--point", "30,20")


def test_a_folder_that_cannot_be_written_to(refused, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written to; choose another --output" in refused("--point", "30,20")


def test_an_interruption_leaves_nothing_and_ends_with_130(run, checkpoint, monkeypatch):
    from click.testing import CliRunner

    from sam_jax.cli.main import main

    def interrupt(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(postprocess, "draw_prediction", interrupt)
    args = ["segment", "photo.png", "--point", "1,2", "--checkpoint", str(checkpoint)]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 130 and "Traceback" not in result.stderr
    assert not OUT.exists()
