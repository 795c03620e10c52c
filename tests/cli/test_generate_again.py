"""`sam-jax generate` where something is already: nothing is lost, and nothing stale stays."""

import json
import os
import shutil
from pathlib import Path

import pytest
from generated_folder import (
    OUT,
    fail_on_call,
    masks_equal,
    names,
    read_json,
    snapshot,
)
from PIL import Image
from pycocotools.coco import COCO

from sam_jax import ImageEmbedding, Segmenter
from sam_jax.cli import generate as generate_module
from sam_jax.files import try_lock
from sam_jax.folder_runs import locks
from sam_jax.folder_runs.index import MASKS_INDEX
from sam_jax.formats import sa1b
from sam_jax.formats.sa1b import read_sa1b

INSTANCES = ["instances_polygon.json", "instances_rle.json"]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def replace_by_another(image):
    """Another picture of the same size and time, under the same name."""
    status = os.stat(image)
    with Image.open(image) as before:
        turned = before.rotate(180)
    turned.save(image)
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_json_files_of_others_are_not_replaced(refused, photos, monkeypatch):
    monkeypatch.setattr(generate_module, "load_segmenter", None)
    OUT.mkdir()
    of_dataset = '{"image": {"image_id": 1}, "annotations": []}'
    of_segment = '{"sam_jax": "0.2.0", "masks": []}'
    for content in (of_dataset, of_segment, "[1]", "no json", '"sam_jax"', "3"):
        (OUT / "c.json").write_text(content)
        for args in ([], ["--resume"]):
            assert "c.json exists and is no result" in refused(photos, *args)
    (OUT / "c.json").unlink()
    (OUT / "c.json").mkdir()
    assert "c.json" in refused(photos)
    (OUT / "c.json").rmdir()
    for name, kind in (("instances_rle", "coco-rle"), ("instances_polygon", "polygon")):
        (OUT / f"{name}.json").write_text('{"info": {}, "images": [], "annotations": []}')
        assert f"{name}.json exists and is no result" in refused(photos, "--format", kind)


@pytest.mark.parametrize(
    "name, args", [("c_labels.png", ("--format", "png")), ("c_overlay.jpg", ("--overlay",))]
)
def test_pictures_of_others_are_not_replaced(generate, refused, photos, monkeypatch, name, args):
    OUT.mkdir()
    Image.open(photos / "c.webp").save(OUT / name)
    content = (OUT / name).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(generate_module, "load_segmenter", None)
        for resume in ([], ["--resume"]):
            line = refused(photos, *args, *resume)
            assert f"{name} exists and is no result of this command; choose another" in line
    # Neither are they drawn over, removed or taken for results by runs without pictures.
    generate(photos)
    generate(photos, "--max-masks", "2")
    assert (OUT / name).read_bytes() == content
    assert f"{name} exists and is no result" in refused(photos, *args, "--resume")


def test_pictures_are_known_without_their_json(generate, photos):
    pictures = (photos, "--format", "png", "--overlay", "--resume")
    generate(*pictures)
    whole = contents(OUT)
    # As where a run was killed, a disk failed, or a damaged file was removed.
    (OUT / "a.json").unlink()
    (OUT / "b.json").write_bytes(b"\0" * 100)
    (OUT / "c.json").write_bytes(whole["c.json"][:100])
    (OUT / "c_labels.png").write_bytes(b"")
    result = generate(*pictures)
    assert result.stdout.startswith(f"{OUT}: 3 of 4 images done, 1 were there already\n")
    assert contents(OUT) == whole
    # Then they are of other masks than the JSON files.
    for stem in "abcd":
        (OUT / f"{stem}.json").unlink()
    generate(photos)
    assert names() == ["a.json", "b.json", "c.json", "d.json"]


def test_results_from_before_their_image_was_noted_are_made_again(generate):
    generate("photo.png", "--format", "png")
    whole = contents(OUT)
    record = read_json(OUT / "photo.json")
    del record["sam_jax"]["made_from"]
    (OUT / "photo.json").write_text(json.dumps(record))
    for name in ("photo_labels.png", "photo_overlay.jpg"):
        Image.open(OUT / name).save(OUT / name, **({"comment": b""} if "jpg" in name else {}))
        assert b"sam-jax" not in (OUT / name).read_bytes()
    generate("photo.png", "--format", "png", "--resume")
    assert contents(OUT) == whole


def test_results_of_other_runs_are_replaced(generate):
    OUT.mkdir()
    (OUT / "photo.json").write_text('{"image": {}, "sam_jax": {}}')
    generate("photo.png", "--format", "png", "--format", "coco-rle")
    entry = read_sa1b(OUT / "photo.json").extra["sam_jax"]
    assert set(entry["files"]) == {"photo_labels.png", "photo_overlay.jpg"}
    generate("photo.png", "--no-overlay", "--max-masks", "2", "--format", "coco-rle")
    assert len(read_sa1b(OUT / "photo.json").records) == 2
    # The pictures were of other masks.
    assert not (OUT / "photo_labels.png").exists() and not (OUT / "photo_overlay.jpg").exists()
    assert len(COCO(str(OUT / "instances_rle.json")).anns) == 2


def test_resume_skips_what_is_finished(generate, photos):
    args = (photos, "--format", "png", "--format", "coco-rle", "--resume")
    generate(*args)
    before = snapshot(OUT)
    whole = {path: path.read_bytes() for path in before}
    (OUT / "b.json").write_bytes((OUT / "b.json").read_bytes()[:200])
    (OUT / "c.json").write_bytes(b"")
    result = generate(*args)
    assert result.stdout.startswith(f"{OUT}: 2 of 4 images done, 2 were there already\n")
    assert {path: path.read_bytes() for path in before} == whole
    again = snapshot(OUT)
    kept = {path for path in before if again[path] == before[path]}
    assert kept == {OUT / f"{stem}{end}" for stem in "ad" for end in (".json", "_labels.png")}


def test_resume_does_again_what_another_model_or_other_options_made(
    generate, photos, other_checkpoint, monkeypatch
):
    # What a type is called decides, so this one need not be compiled, too.
    monkeypatch.setattr(generate_module, "load_segmenter", lambda path, _: Segmenter.load(path))
    generate(photos)
    options = []
    for change, done in (
        # Batches of another size change no mask, and this preset only what is given here.
        (["--points-per-batch", "16", "--preset", "fast"], 0),
        (["--max-masks", "4"], 4),
        (["--dtype", "bfloat16"], 4),
        (["--checkpoint", other_checkpoint], 4),
    ):
        options += change
        result = generate(photos, "--resume", *options)
        assert result.stdout.startswith(f"{OUT}: {done} of 4 images done")


def test_resume_does_an_image_again_that_was_replaced(generate, photos):
    generate(photos)
    replace_by_another(photos / "b.png")
    os.utime(photos / "c.webp")
    result = generate(photos, "--resume")
    assert result.stdout.startswith(f"{OUT}: 1 of 4 images done, 3 were there already\n")
    # Its masks are not drawn on the new image, either.
    replace_by_another(photos / "d.png")
    generate(photos, "--format", "png", "--resume")
    generate(photos, "--format", "png", "--output", "whole")
    for name in ("b.json", "d.json", "d_labels.png"):
        assert (OUT / name).read_bytes() == Path("whole", name).read_bytes()
    assert read_json(OUT / "a.json")["annotations"] == read_json("whole/a.json")["annotations"]


def test_resume_draws_missing_pictures_without_the_model(generate, photos, monkeypatch):
    generate(photos, "--overlay", "--output", "whole", "--format", "png")
    generate(photos, "--output", "out")
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(Segmenter, "generate_masks", None)
        generate(photos, "--output", "out", "--overlay", "--resume")
        generate(photos, "--output", "out", "--format", "png", "--resume")
        entry = read_sa1b("out/a.json").extra["sam_jax"]
        assert entry["files"] == {"a_overlay.jpg": "overlay", "a_labels.png": "labels"}
        stamps = snapshot(Path("out"))
        both = ("--overlay", "--format", "png", "--resume")
        result = generate(photos, "--output", "out", *both)
        assert result.stdout.startswith("out: 0 of 4 images done, 4 were there already")
        assert snapshot(Path("out")) == stamps
        Path("out/b_overlay.jpg").unlink()
        result = generate(photos, "--output", "out", *both)
        assert result.stdout.startswith("out: 1 of 4 images done, 3 were there already")
    for path in (Path("whole", name) for name in names(Path("whole"))):
        if path.suffix == ".json":
            assert json.loads(before[path.name])["annotations"] == read_json(path)["annotations"]
        else:
            assert (Path("out") / path.name).read_bytes() == path.read_bytes()


def test_saved_embeddings_are_used(generate, failing, run, photos, checkpoint, other_checkpoint):
    generate(photos, "--output", "direct")
    run("encode", photos, "--output", "e", "--checkpoint", checkpoint)
    Path("e/c.webp.npz").unlink()
    result = generate(photos, "--embeddings", "e")
    assert "embeddings used for 3 of 4 images" in result.stdout.splitlines()
    assert [masks_equal(OUT / f"{s}.json", f"direct/{s}.json") for s in "abcd"] == [True] * 4
    run("encode", photos / "a.jpg", "--output", "e", "--checkpoint", other_checkpoint)
    Image.new("RGB", (91, 61)).save("b.png")
    run("encode", "b.png", "--output", "e", "--checkpoint", checkpoint)
    Path("e/d.png.npz").write_bytes(b"damaged")
    result = failing(photos, "--embeddings", "e", "--output", "out")
    assert names(Path("out")) == ["c.json"]
    first, second, third, _ = result.stderr.splitlines()[-4:]
    assert "e/a.jpg.npz" in first and "another model" in first
    assert "e/b.png.npz is the embedding of an image of 91x61 pixels" in second
    assert "d.png.npz" in third and "damaged" in third


def test_resume_does_again_what_another_embedding_was_used_for(generate, run, photos, checkpoint):
    generate(photos, "--output", "direct")
    run("encode", photos, "--output", "e", "--checkpoint", checkpoint)
    with_embeddings = (photos, "--embeddings", "e", "--resume")
    generate(*with_embeddings)
    result = generate(*with_embeddings)
    assert result.stdout.startswith(f"{OUT}: 0 of 4 images done, 4 were there already\n")
    # As a model in bfloat16 gives it.
    embedding = ImageEmbedding.load("e/b.png.npz")
    rounded = embedding.features.astype("bfloat16").astype("float32")
    embedding.replace(features=rounded).save("e/b.png.npz")
    Path("e/c.webp.npz").unlink()
    result = generate(*with_embeddings)
    assert result.stdout.startswith(f"{OUT}: 2 of 4 images done, 2 were there already\n")
    generate(photos, "--embeddings", "e", "--output", "whole")
    assert contents(OUT) == contents(Path("whole"))
    # Nor are masks from an embedding taken for the image's own.
    result = generate(photos, "--overlay", "--no-overlay", "--resume")
    assert result.stdout.startswith(f"{OUT}: 3 of 4 images done, 1 were there already\n")
    assert contents(OUT) == contents(Path("direct"))


def test_embeddings_of_images_that_were_replaced_are_refused(
    generate, failing, run, photos, checkpoint
):
    encode = ("encode", photos, "--output", "e", "--checkpoint", checkpoint, "--resume")
    run(*encode)
    replace_by_another(photos / "b.png")
    failed = failing(photos, "--embeddings", "e").stderr.splitlines()[-2]
    assert failed.startswith("failed: e/b.png.npz is the embedding of another image than")
    assert names() == ["a.json", "c.json", "d.json"]
    assert "1 of 4 images encoded, 3 were there already" in run(*encode).stdout
    result = generate(photos, "--embeddings", "e", "--resume")
    assert result.stdout.startswith(f"{OUT}: 1 of 4 images done, 3 were there already\n")


def test_a_damaged_result_is_named_and_can_be_made_again(generate, failing, photos):
    generate(photos)
    content = read_json(OUT / "b.json")
    content["annotations"][0]["bbox"] = "wide"
    (OUT / "b.json").write_text(json.dumps(content))
    line = failing(photos, "--format", "polygon", "--resume").stderr.splitlines()[-1]
    assert "bbox" in line and f"remove {OUT / 'b.json'} and go on with --resume" in line
    (OUT / "b.json").unlink()
    result = generate(photos, "--format", "polygon", "--resume")
    assert result.stdout.startswith(f"{OUT}: 1 of 4 images done, 3 were there already\n")


def test_what_killed_runs_left_is_removed_and_nothing_else(generate, photos):
    OUT.mkdir()
    end = "0123456789abcdef.part"
    for name in (f".a.json.{end}", f".instances_rle.json.{end}", f".z.json.{end}", ".a.json.part"):
        (OUT / name).write_bytes(b"half")
    (OUT / f".b.json.{end}").mkdir()
    (OUT / f".b.json.{end}" / "b_labels.png").write_bytes(b"half")
    (OUT / ".sam-jax.lock").write_bytes(b"")
    generate(photos)
    hidden = [name for name in names() if name.startswith(".")]
    assert hidden == [".a.json.part", f".z.json.{end}"]


def test_a_second_run_in_the_same_folder_is_refused(generate, refused, photos, monkeypatch):
    """It would take the files that the first is about to move for what a killed run has left."""
    write, lines = sa1b.write_sa1b, []

    def writing(*args, **kwargs):
        lines.append(refused(photos, "--resume"))
        write(*args, **kwargs)

    monkeypatch.setattr(sa1b, "write_sa1b", writing)
    result = generate(photos)
    assert result.stdout.startswith(f"{OUT}: 4 of 4 images done\n")
    expected = f"another run is writing to {OUT}; wait for its end, or choose another --output"
    assert lines == [expected] * 4
    assert names() == ["a.json", "b.json", "c.json", "d.json"]


def test_a_lock_that_its_owner_removes_meanwhile_locks_nothing(refused, photos, monkeypatch):
    OUT.mkdir()

    def lock(file):
        Path(file.name).unlink()
        return try_lock(file)

    monkeypatch.setattr(locks, "try_lock", lock)
    assert refused(photos).startswith("another run is writing to")


def test_a_folder_in_the_way_of_a_picture_changes_nothing(generate, failing):
    generate("photo.png", "--no-overlay")
    (OUT / "photo_overlay.jpg").mkdir()
    before = snapshot(OUT)
    assert "photo_overlay.jpg exists and is no result" in failing("photo.png").stderr
    assert snapshot(OUT) == before


def test_instances_of_other_masks_do_not_stay(generate, failing, photos, monkeypatch):
    both = ("--format", "coco-rle", "--format", "polygon")
    generate(photos, *both)
    whole = snapshot(OUT)
    # Nothing changes the masks here.
    generate(photos, "--resume")
    assert snapshot(OUT) == whole
    shutil.copy(photos / "a.jpg", photos / "e.jpg")
    generate(photos, "--overlay", "--resume")
    assert {name: whole[OUT / name] for name in INSTANCES} == {
        name: snapshot(OUT)[OUT / name] for name in INSTANCES
    }
    # Before the first image has others, they go: here it is stopped by a full disk.
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail_on_call(os.replace, 2))
        failing(photos, "--max-masks", "2", *both[:2])
    assert not set(INSTANCES) & set(names())
    # Those of others stay.
    (OUT / INSTANCES[0]).write_text("{}")
    generate(photos, "--max-masks", "2")
    assert (OUT / INSTANCES[0]).read_text() == "{}"


def test_the_index_is_of_what_is_there(generate, failing, refused, photos, monkeypatch):
    path = OUT / MASKS_INDEX
    generate(photos)
    index = read_json(path)
    assert [entry["file_name"] for entry in index["images"]] == [
        "a.jpg",
        "b.png",
        "c.webp",
        "d.png",
    ]
    entry = index["images"][2]
    made_from = read_json(OUT / "c.json")["sam_jax"]["made_from"]
    assert (entry["result"], entry["masks"]) == ("c.json", 5)
    assert entry["image_sha256"] == made_from["image_sha256"]
    # A single image adds nothing, but takes away what it belies.
    generate("photo.png", "--resume")
    assert read_json(path) == index
    generate(photos / "a.jpg", "--max-masks", "2", "--no-overlay")
    assert not path.exists()
    Path(photos, "b.png").write_bytes(b"")
    failing(photos, "--resume")
    index = read_json(path)
    assert [entry["masks"] for entry in index["images"]] == [5, 5, 5]
    assert index["failed"] == [{"file_name": "b.png", "reason": index["failed"][0]["reason"]}]
    # It goes before the first image has other masks: here a full disk stops it then.
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail_on_call(os.replace, 2))
        failing(photos, "--max-masks", "3")
    assert not path.exists()
    path.write_text('{"sam_jax": "a user\'s"}')
    assert f"{MASKS_INDEX} exists and is no result" in refused(photos, "--resume")
    shutil.copy(photos / "a.jpg", photos / f"{path.stem}.jpg")
    assert f"takes the name of {MASKS_INDEX}" in refused(photos)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("change", [("--ids",), ("--no-overlay", "--max-masks", "2")])
def test_wherever_a_run_is_killed_it_is_gone_on_with(generate, checkpoint, monkeypatch, change):
    """At each step that others can see; both what was there and what is asked for can follow."""
    segmenter = Segmenter.load(checkpoint)
    monkeypatch.setattr(generate_module, "load_segmenter", lambda *_: segmenter)
    first = ("photo.png", "--resume", "--format", "png", "--format", "coco-rle")
    generate(*first, "--output", "first")
    shutil.copytree("first", "second")
    second = (*first, *change)
    generate(*second, "--output", "second")
    wanted = {name: contents(Path(name)) for name in ("first", "second")}
    assert wanted["first"] != wanted["second"]

    def stopping(step, number):
        def counted(*args, **kwargs):
            seen = OUT in (Path(args[0]).parent, Path(args[-1]).parent)
            if seen and next(number, None) is None:
                raise Killed
            return step(*args, **kwargs)

        return counted

    def is_killed(number):
        steps = iter(range(number))
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", stopping(os.replace, steps))
            patch.setattr(Path, "unlink", stopping(Path.unlink, steps))
            # Nothing of a process that is killed tidies up.
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)
            try:
                generate(*second)
            except Killed:
                return True
        return False

    number, killed = 0, True
    while killed:
        for name, args in (("first", first), ("second", second)):
            shutil.copytree("first", OUT)
            killed = is_killed(number)
            generate(*args)
            assert contents(OUT) == wanted[name], number
            shutil.rmtree(OUT)
        number += 1
    assert number > 4
