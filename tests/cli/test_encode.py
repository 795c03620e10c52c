"""`sam-jax encode`: one embedding a file, the good ones done whatever the others are."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from generated_folder import full_disk
from PIL import Image

from sam_jax import ImageEmbedding, Segmenter, embeddings
from sam_jax.cli import encode as encode_module
from sam_jax.cli.main import main
from sam_jax.embeddings import load_with_about
from sam_jax.folder_runs.index import EMBEDDINGS_INDEX
from sam_jax.inference.compiled_model import CompiledModel


@pytest.fixture
def photos(folder):
    """A folder with three images of two sizes, two of one stem, and a file that is no image."""
    Path("photos").mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a.jpg", (40, 50)), ("a.png", (61, 90)), ("b.webp", (61, 90))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(f"photos/{name}")
    Path("photos/notes.txt").write_text("no image")
    return Path("photos")


def outputs():
    """Without the index, which every run of a folder writes."""
    return sorted(path.name for path in Path("out").iterdir() if path.name != EMBEDDINGS_INDEX)


def test_without_a_checkpoint_the_small_one_is_used_and_said_so(run, shipped):
    result = run("encode", "photo.png", "--output", "out")
    (notice,) = [line for line in result.stderr.splitlines() if "built-in model" in line]
    assert "sam-jax download vit_b" in notice
    embedding = ImageEmbedding.load("out/photo.png.npz")
    assert embedding.fingerprint == Segmenter.load(shipped).fingerprint


@pytest.mark.parametrize("batch_size", [1, 2])
def test_every_image_of_a_folder_is_encoded(run, photos, checkpoint, batch_size):
    args = ("--checkpoint", checkpoint, "--batch-size", batch_size)
    result = run("encode", photos, "--output", "out", *args)
    assert result.stdout == "out: 3 of 3 images encoded\n"
    assert "encoding: 3 of 3 images" in result.stderr.splitlines()
    assert outputs() == ["a.jpg.npz", "a.png.npz", "b.webp.npz"]
    segmenter = Segmenter.load(checkpoint)
    for name in ("a.jpg", "a.png", "b.webp"):
        saved, direct = ImageEmbedding.load(f"out/{name}.npz"), segmenter.encode(photos / name)
        np.testing.assert_allclose(saved.features, direct.features, atol=1e-5)
        assert saved.size_hw == direct.size_hw and saved.fingerprint == segmenter.fingerprint


@pytest.mark.parametrize("batch_size, batches", [(1, [1] * 8), (8, [8]), (3, [2, 1, 2, 1, 2])])
def test_the_batch_size_is_the_encoders(run, checkpoint, monkeypatch, batch_size, batches):
    Path("many").mkdir()
    for number in range(8):
        Image.new("RGB", (90, 61), (number, 0, 0)).save(f"many/{number}.png")
    encode_batch, counts = CompiledModel._encode_batch, []

    def counting(self, batch, count):
        counts.append(len(batch))
        return encode_batch(self, batch, count)

    monkeypatch.setattr(CompiledModel, "_encode_batch", counting)
    run("encode", "many", "--output", "out", "--checkpoint", checkpoint, "--batch-size", batch_size)
    # Powers of two: few shapes to compile.
    assert counts == batches


def test_one_image_is_encoded(run, checkpoint):
    result = run("encode", "photo.png", "--output", "out/deep", "--checkpoint", checkpoint)
    assert result.stdout == "out/deep: 1 of 1 images encoded\n"
    assert ImageEmbedding.load("out/deep/photo.png.npz").size_hw == (61, 90)


def test_what_cannot_be_read_is_listed_and_the_rest_done(photos, checkpoint):
    (photos / "c.png").write_bytes(b"")
    (photos / "aa.png").write_bytes((photos / "a.png").read_bytes()[:2000])
    args = ["encode", str(photos), "--output", "out", "--checkpoint", str(checkpoint)]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 2
    assert outputs() == ["a.jpg.npz", "a.png.npz", "b.webp.npz"]
    assert result.stdout == "out: 3 of 5 images encoded, 2 failed\n"
    *_, first, second, last = result.stderr.splitlines()
    assert first.startswith("failed: ") and "aa.png" in first
    assert second.startswith("failed: ") and "c.png" in second
    assert last.startswith("error: 2 of 5 images could not be encoded")


def test_resume_skips_what_is_done_by_this_model(run, photos, checkpoint, other_checkpoint):
    args = ("encode", photos, "--output", "out", "--resume", "--checkpoint")
    run(*args, checkpoint)
    Path("out/a.png.npz").write_bytes(b"damaged")
    Path("out/b.webp.npz").unlink()
    kept = Path("out/a.jpg.npz").stat().st_mtime_ns
    result = run(*args, checkpoint)
    assert result.stdout == "out: 2 of 3 images encoded, 1 were there already\n"
    assert Path("out/a.jpg.npz").stat().st_mtime_ns == kept
    assert ImageEmbedding.load("out/a.png.npz").size_hw == (61, 90)
    result = run(*args, other_checkpoint)
    assert result.stdout == "out: 3 of 3 images encoded\n"
    result = run(*args, other_checkpoint)
    assert result.stdout == "out: 0 of 3 images encoded, 3 were there already\n"


def test_resume_encodes_again_what_other_images_or_types_gave(run, photos, checkpoint, monkeypatch):
    # What a type is called decides, so this one need not be compiled, too.
    def load(path, dtype, image_batch):
        return Segmenter.load(path)

    monkeypatch.setattr(encode_module, "load_segmenter", load)
    args = ("encode", photos, "--output", "out", "--resume", "--checkpoint", checkpoint)
    run(*args)
    status = os.stat(photos / "a.png")
    with Image.open(photos / "a.png") as image:
        image.rotate(180).save(photos / "a.png")
    os.utime(photos / "a.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.utime(photos / "b.webp")
    result = run(*args)
    assert result.stdout == "out: 1 of 3 images encoded, 2 were there already\n"
    direct = Segmenter.load(checkpoint).encode(photos / "a.png")
    saved = ImageEmbedding.load("out/a.png.npz")
    np.testing.assert_allclose(saved.features, direct.features, atol=1e-5)
    result = run(*args, "--dtype", "bfloat16")
    assert result.stdout == "out: 3 of 3 images encoded\n"
    # What is saved without a word of the image is not known to be of it.
    direct.save("out/a.png.npz")
    result = run(*args, "--dtype", "bfloat16")
    assert result.stdout == "out: 1 of 3 images encoded, 2 were there already\n"


def test_without_resume_everything_is_made_again(run, photos, checkpoint):
    shutil.rmtree(photos)
    args = ("encode", "photo.png", "--output", "out", "--checkpoint", checkpoint)
    run(*args)
    Path("out/photo.png.npz").write_bytes(b"damaged")
    run(*args)
    assert ImageEmbedding.load("out/photo.png.npz").size_hw == (61, 90)


def test_user_errors_are_one_line(run, checkpoint):
    def refused(*args):
        return run.refused("encode", *args, "--checkpoint", checkpoint)

    Path("empty").mkdir()
    Path("empty.png").write_bytes(b"")
    assert "empty.png' is empty" in refused("empty.png", "--output", "out")
    assert "no images in 'empty'" in refused("empty", "--output", "out")
    assert "nothing.png" in refused("nothing.png", "--output", "out")
    assert "Missing option '--output'" in refused("photo.png")
    assert "photo.png is not a folder" in refused("photo.png", "--output", "photo.png")
    assert "--batch-size" in refused("photo.png", "--output", "out", "--batch-size", "0")
    assert not Path("out").exists()


def test_a_full_disk_leaves_no_half_file(run, checkpoint, monkeypatch):
    monkeypatch.setattr(embeddings.np, "savez", full_disk)
    line = run.refused("encode", "photo.png", "--output", "out", "--checkpoint", checkpoint)
    assert line.startswith("cannot write out/photo.png.npz: No space left on device")
    assert not Path("out").exists()


def test_what_a_killed_run_left_is_removed(run, photos, checkpoint):
    Path("out").mkdir()
    end = "0123456789abcdef.part"
    for name in ("a.png", "z.png"):
        Path(f"out/.{name}.npz.{end}").write_bytes(b"half")
    run("encode", photos, "--output", "out", "--checkpoint", checkpoint)
    assert outputs() == [f".z.png.npz.{end}", "a.jpg.npz", "a.png.npz", "b.webp.npz"]


def test_a_second_run_in_the_same_folder_is_refused(run, photos, checkpoint, monkeypatch):
    args = ("encode", photos, "--output", "out", "--checkpoint", checkpoint)
    save = ImageEmbedding.save

    def saving(*arguments):
        line = run.refused(*args, "--resume")
        assert line.startswith("another run is writing to out; wait for its end")
        save(*arguments)

    monkeypatch.setattr(ImageEmbedding, "save", saving)
    assert run(*args).stdout == "out: 3 of 3 images encoded\n"
    assert outputs() == ["a.jpg.npz", "a.png.npz", "b.webp.npz"]


def test_the_index_is_of_what_is_there(run, photos, checkpoint, monkeypatch):
    args = ("encode", photos, "--output", "out", "--checkpoint", checkpoint, "--resume")
    path = Path("out", EMBEDDINGS_INDEX)
    run(*args)
    whole, stamp = path.read_bytes(), path.stat().st_mtime_ns
    entries = json.loads(whole)["images"]
    assert [entry["result"] for entry in entries] == outputs()
    about = [load_with_about(f"out/{name}")[1]["image_sha256"] for name in outputs()]
    assert [entry["image_sha256"] for entry in entries] == about
    run(*args)
    assert path.stat().st_mtime_ns == stamp
    # Before an embedding is replaced, it goes.
    Path("out/b.webp.npz").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(embeddings.np, "savez", full_disk)
        run.refused(*args[:-1])
    assert not path.exists()
    run(*args)
    assert path.read_bytes() == whole
    path.write_text("a user's")
    assert f"{EMBEDDINGS_INDEX} exists and is no result" in run.refused(*args)
    assert path.read_text() == "a user's"
