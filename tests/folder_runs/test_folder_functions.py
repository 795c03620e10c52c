"""Runs over folders as functions: no command line, nothing printed, everything told or returned."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from sam_jax import Segmenter
from sam_jax.automatic.options import GenerateOptions
from sam_jax.configs import TEST
from sam_jax.errors import InputError
from sam_jax.folder_runs.encoding import Encoding, encode_images
from sam_jax.folder_runs.generated_files import LABELS
from sam_jax.folder_runs.generation import Generation, generate_images
from sam_jax.folder_runs.hosts import Share, own_share
from sam_jax.folder_runs.image_list import images_of
from sam_jax.folder_runs.index import EMBEDDINGS_INDEX, MASKS_INDEX
from sam_jax.models.sam.sam import variable_shapes


@pytest.fixture(scope="module")
def segmenter():
    rng = np.random.default_rng(0)

    def fill(leaf):
        return rng.normal(0, 0.1, leaf.shape).astype(np.float32)

    return Segmenter(TEST, jax.tree.map(fill, variable_shapes(TEST)))


@pytest.fixture
def photos(tmp_path):
    """A folder with three images, one of which is empty, and a subfolder."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "c.png"):
        pixels = rng.integers(0, 256, (61, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "b.png").write_bytes(b"")
    return folder


class Told:
    """What a run has said."""

    def __init__(self):
        self.steps, self.lines, self.failures = [], [], []
        self.callbacks = {
            "progress": lambda *step: self.steps.append(step),
            "tell": self.lines.append,
            "failed": self.failures.append,
        }


def test_images_are_encoded_and_what_fails_is_told(segmenter, photos, tmp_path, capsys):
    told, out = Told(), tmp_path / "out"
    images = images_of(photos, tell=told.lines.append)
    assert "1 subfolder of" in told.lines[0]
    with own_share(out, None, []) as share:
        result = encode_images(lambda: segmenter, images, share, Encoding(), **told.callbacks)
    assert sorted(result.images) == ["a.png", "c.png"] and list(result.failed) == ["b.png"]
    assert [type(error) for error in told.failures] == [InputError]
    assert told.steps[0] == ("encoding", 0, 3) and told.steps[-1] == ("encoding", 3, 3)
    assert sorted(path.name for path in out.iterdir()) == [
        "a.png.npz",
        "c.png.npz",
        EMBEDDINGS_INDEX,
    ]
    again = Encoding(resume=True)
    with own_share(out, None, []) as share:
        assert encode_images(lambda: segmenter, images, share, again).tried == 1
    assert capsys.readouterr() == ("", "")


def test_masks_are_generated_and_what_fails_is_told(segmenter, photos, tmp_path, capsys):
    told, out = Told(), tmp_path / "out"
    images = images_of(photos)
    options = GenerateOptions(points_per_side=2, pred_iou_thresh=-100.0, stability_score_thresh=0.0)
    generation = Generation(options, endings={LABELS: "labels"}, exports=["coco-rle"])
    with own_share(out, None, []) as share:
        done = generate_images(lambda: segmenter, images, share, generation, **told.callbacks)
    assert sorted(done.result.images) == ["a.png", "c.png"]
    assert list(done.result.failed) == ["b.png"] and len(told.failures) == 1
    assert list(done.written) == [out / "instances_rle.json"]
    assert told.steps[0] == ("generating", 0, 3) and told.steps[-1][0].startswith("writing ")
    index = json.loads((out / MASKS_INDEX).read_text())
    assert [entry["file_name"] for entry in index["images"]] == ["a.png", "c.png"]
    assert (out / "a_labels.png").is_file()
    assert capsys.readouterr() == ("", "")


def test_a_file_of_others_is_refused_before_the_model_is_loaded(photos, tmp_path):
    def load():
        raise AssertionError("loaded")

    out, images = tmp_path / "out", images_of(photos)
    out.mkdir()
    for name in (EMBEDDINGS_INDEX, "a.json"):
        Path(out, name).write_text("{}")
    with pytest.raises(InputError, match="is no result of this command"):
        encode_images(load, images, Share(out), Encoding())
    with pytest.raises(InputError, match="is no result of this command"):
        generate_images(load, images, Share(out), Generation(GenerateOptions()))
