"""Pages, scale, labels and subfolders on the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from sam_jax import ImageEmbedding, Segmenter
from sam_jax.cli.main import main
from sam_jax.cli.track_prompts import frame_prompts
from sam_jax.embeddings import load_with_about
from sam_jax.formats.rle import decode_rle
from sam_jax.formats.sa1b import read_sa1b
from sam_jax.preprocess import mask_to_logits

OUT = Path("out")


def picture(seed, size_hw=(61, 90)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def pages(folder):
    """A TIFF of two pages: photo.png's picture, and another."""
    with Image.open("photo.png") as photo:
        photo.save("pages.tif", save_all=True, append_images=[picture(9)])
    return Path("pages.tif")


@pytest.fixture
def tree(folder):
    """Images in a folder and its subfolders, some of one name."""
    for number, name in enumerate(("a.png", "left/a.png", "left/deep/b.jpg", "right/a.png")):
        path = Path("photos", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    Path("photos/.hidden").mkdir()
    picture(7).save("photos/.hidden/a.png")
    return Path("photos")


def test_encode_takes_a_page(run, pages, checkpoint):
    args = ("encode", pages, "--output", OUT, "--checkpoint", checkpoint, "--resume")
    result = run(*args)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert "pages.tif' has 2 pages or frames, of which page 0 is read" in line
    segmenter = Segmenter.load(checkpoint)
    first = ImageEmbedding.load(OUT / "pages.tif.npz")
    np.testing.assert_allclose(first.features, segmenter.encode("photo.png").features, atol=1e-5)
    # Another page is another embedding, which --resume makes.
    result = run(*args, "--page", 1)
    assert result.stdout == "out: 1 of 1 images encoded\n" and "warning" not in result.stderr
    second, about = load_with_about(OUT / "pages.tif.npz")
    np.testing.assert_allclose(second.features, segmenter.encode(picture(9)).features, atol=1e-5)
    assert about["page"] == "1"
    assert run(*args, "--page", 1).stdout.startswith("out: 0 of 1 images encoded, 1 were there")
    point = ("--point", "30,20", "--checkpoint", checkpoint)
    line = run.refused("segment", pages, *point, "--embedding", OUT / "pages.tif.npz", "--page", 0)
    assert "was encoded with --page 1, not 0" in line
    run("segment", pages, *point, "--embedding", OUT / "pages.tif.npz", "--page", 1)
    assert "no page 2: it has 2" in run.refused(*args, "--page", 2)
    Path("photos").mkdir()
    picture(0).save("photos/a.png")
    line = run.refused("encode", "photos", *args[2:], "--page", 1)
    assert "--page is for one image" in line


def test_segment_and_generate_take_a_page_and_a_scale(run, generate, pages, checkpoint):
    args = ("--point", "30,20", "--checkpoint", checkpoint, "--output", OUT)
    run("segment", pages, "--page", 1, *args)
    record = json.loads((OUT / "pages.json").read_text())
    assert record["image"] == {"file": "pages.tif", "height": 61, "width": 90, "page": 1}
    segmenter = Segmenter.load(checkpoint)
    expected = segmenter.predict(segmenter.encode(picture(9)), points=[[30, 20]], multimask=True)
    for entry, mask in zip(record["masks"], expected.masks[0], strict=True):
        np.testing.assert_array_equal(decode_rle(entry["segmentation"]), mask)
    gray = np.asarray(Image.open("photo.png").convert("L"))
    Image.fromarray(gray.astype(np.uint16) * 16).save("deep.png")
    result = run("segment", "deep.png", *args)
    assert "give scale='auto' (--scale auto)" in result.stderr
    result = run("segment", "deep.png", *args, "--scale", "auto")
    assert "warning" not in result.stderr
    scaled = json.loads((OUT / "deep.json").read_text())
    assert scaled["image"]["scale"] == "auto"
    assert "not auto or a number" in run.refused("segment", "deep.png", *args, "--scale", "much")
    assert "above 0" in run.refused("segment", "deep.png", *args, "--scale", "0")
    generate("deep.png", "--scale", 4080, "--output", "generated")
    result = generate("deep.png", "--scale", 4080, "--output", "generated", "--resume")
    assert "was there already" in result.stdout
    made_from = read_sa1b("generated/deep.json").extra["sam_jax"]["made_from"]
    assert made_from["scale"] == 4080
    result = generate("deep.png", "--scale", 4095, "--output", "generated", "--resume")
    assert "was there already" not in result.stdout


def test_subfolders_that_are_not_searched_are_told(run, tree, checkpoint):
    args = ("--output", OUT, "--checkpoint", checkpoint)
    result = run("encode", tree, *args)
    assert "2 subfolders of photos not searched, left for example; add --recursive" in result.stderr
    assert "1 of 1 images" in result.stdout
    Path("photos/a.png").unlink()
    line = run.refused("encode", tree, *args)
    assert "no images in 'photos'" in line and "2 subfolders of photos not searched" in line
    assert "--recursive is for a folder" in run.refused("encode", "photo.png", *args, "--recursive")
    # The folder that results go to is not the user's.
    for name in ("left/deep/b.jpg", "left/a.png", "right/a.png"):
        Path("photos", name).unlink()
    for name in ("left/deep", "left", "right"):
        Path("photos", name).rmdir()
    picture(0).save("photos/a.png")
    inside = ("encode", tree, "--output", tree / "out", "--checkpoint", checkpoint)
    assert "not searched" not in run(*inside).stderr + run(*inside).stderr


def test_encode_goes_into_subfolders(run, tree, checkpoint):
    args = ("encode", tree, "--output", OUT, "--checkpoint", checkpoint, "--recursive", "--resume")
    assert run(*args).stdout == "out: 4 of 4 images encoded\n"
    names = ["a.png", "left/a.png", "left/deep/b.jpg", "right/a.png"]
    segmenter = Segmenter.load(checkpoint)
    for name in names:
        saved, direct = ImageEmbedding.load(OUT / f"{name}.npz"), segmenter.encode(tree / name)
        np.testing.assert_allclose(saved.features, direct.features, atol=1e-5)
    index = json.loads((OUT / "index_of_embeddings.json").read_text())
    assert [entry["file_name"] for entry in index["images"]] == names
    assert [entry["result"] for entry in index["images"]] == [f"{name}.npz" for name in names]
    (OUT / "left/deep/b.jpg.npz").unlink()
    killed = OUT / "right" / ".a.png.npz.0123456789abcdef.part"
    (OUT / "right/a.png.npz").unlink()
    killed.write_bytes(b"half")
    assert run(*args).stdout == "out: 2 of 4 images encoded, 2 were there already\n"
    assert not killed.exists()


def test_generate_goes_into_subfolders(generate, run, tree, checkpoint):
    (tree / "right" / "bad.png").write_bytes(b"no image")
    args = ("--recursive", "--format", "coco-rle", "--format", "png", "--overlay")
    names = ["a.png", "left/a.png", "left/deep/b.jpg", "right/a.png"]
    arguments = ["generate", tree, "--checkpoint", checkpoint, "--output", tree / "made", *args]
    arguments += ["--points-per-side", 2, "--pred-iou-thresh", 0, "--stability-score-thresh", 0]
    arguments = [str(one) for one in arguments]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and "right/bad.png" in result.stderr
    made = tree / "made"
    for name in names:
        stem = name.rsplit(".", 1)[0]
        written = read_sa1b(made / f"{stem}.json")
        assert written.file_name == name
        assert set(written.extra["sam_jax"]["files"]) == {
            f"{stem}_labels.png",
            f"{stem}_overlay.jpg",
        }
        assert (made / f"{stem}_labels.png").exists() and (made / f"{stem}_overlay.jpg").exists()
    assert not list(made.rglob(".*"))
    index = json.loads((made / "index_of_masks.json").read_text())
    assert [entry["file_name"] for entry in index["images"]] == names
    assert [entry["file_name"] for entry in index["failed"]] == ["right/bad.png"]
    instances = json.loads((made / "instances_rle.json").read_text())
    assert [image["file_name"] for image in instances["images"]] == names
    # Results in the folder of the images are not taken for images, and nothing is done twice.
    (tree / "right" / "bad.png").unlink()
    (made / "left/a.json").unlink()
    result = CliRunner().invoke(main, [*arguments, "--resume"])
    assert result.exit_code == 0, result.stderr
    assert "1 of 4 images done, 3 were there already" in result.stdout


def labels_picture(colors):
    labels = np.zeros((61, 90), np.uint8)
    labels[5:30, 5:40], labels[35:55, 50:80] = 1, 2
    saved = Image.fromarray(labels, "P")
    saved.putpalette([*colors, *[0] * (768 - len(colors))])
    saved.save("labels.png")
    return labels


@pytest.mark.parametrize("colors", [[0, 0, 0, 236, 95, 103, 101, 64, 32], [0, 0, 0, 128]])
def test_segment_takes_a_label_of_a_mask_picture(run, checkpoint, colors):
    labels = labels_picture(colors)
    args = ("segment", "photo.png", "--checkpoint", checkpoint, "--output", OUT)
    line = run.refused(*args, "--mask-input", "labels.png")
    assert "it has the labels 0, 1, 2; choose one with label=N (--label N)" in line
    run(*args, "--mask-input", "labels.png", "--label", 2)
    record = json.loads((OUT / "photo.json").read_text())
    segmenter = Segmenter.load(checkpoint)
    logits = mask_to_logits(labels == 2, segmenter.config)
    expected = segmenter.predict(segmenter.encode("photo.png"), masks=logits, multimask=False)
    found = decode_rle(record["masks"][0]["segmentation"])
    np.testing.assert_array_equal(found, expected.masks[0, 0])
    assert "add --mask-input" in run.refused(*args, "--point", "3,4", "--label", 1)
    assert "is not N, R,G,B or alpha" in run.refused(
        *args, "--mask-input", "labels.png", "--label", "dog"
    )
    np.save("logits.npy", np.zeros((64, 64), np.float32))
    line = run.refused(*args, "--mask-input", "logits.npy", "--label", 1)
    assert "a label is for pictures, and logits.npy holds logits" in line


def test_track_gives_each_mask_its_label(run, folder):
    labels_picture([0, 0, 0, 128])
    seen = []

    def remember(ctx, *given):
        seen.extend((one.object, one.mask, one.mask_label) for one in frame_prompts(ctx, *given))
        raise SystemExit(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sam_jax.cli.track._video_model", Path)
        patch.setattr("sam_jax.cli.track.frame_prompts", remember)
        words = "--object 1 --mask 0:a.png --label 2 --object 2 --mask 0:a.png --label 1,2,3"
        CliRunner().invoke(
            main,
            [
                "track",
                "clip",
                "--checkpoint",
                "any",
                *words.split(),
                "--object",
                "3",
                "--mask",
                "0:b",
            ],
        )
    assert seen == [
        (1, Path("a.png"), 2),
        (2, Path("a.png"), (1, 2, 3)),
        (3, Path("b"), None),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sam_jax.cli.track._video_model", Path)
        for words in ("--label 1 --mask 0:a.png", "--mask 0:a.png --label 1 --label 2"):
            line = run.refused("track", "clip", "--checkpoint", "any", *words.split())
            assert line == "--label is for the --mask before it; give one after each --mask"
