"""What docs/own_data.md tells a person to type does what the page says."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from sam_jax.cli.main import main
from sam_jax.data.layouts import open_dataset
from sam_jax.formats.coco import write_coco
from sam_jax.formats.rle import encode_rle
from sam_jax.formats.sa1b import Sa1bImage
from sam_jax.train.config import config_from_values, read_values

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", (ROOT / "docs/own_data.md").read_text(), re.DOTALL)


def blocks(language):
    return [text for found, text in BLOCKS if found == language]


def commands():
    lines = "".join(blocks("sh")).splitlines()
    return [shlex.split(line) for line in lines if line.startswith("sam-jax ")]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Ten pictures with two discs each, labeled, in the working directory."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows, columns = np.indices((90, 120))
    Path("photos").mkdir()
    images = []
    for number in range(1, 11):
        pixels = rng.integers(0, 60, (90, 120, 3), dtype=np.uint8)
        masks = []
        for x in (30, 85):
            mask = np.hypot(rows - rng.integers(30, 60), columns - x) < rng.integers(10, 22)
            pixels[mask] += np.uint8(150)
            masks.append({"segmentation": encode_rle(mask)})
        Image.fromarray(pixels).save(f"photos/{number:04}.jpg")
        images.append(Sa1bImage(f"{number:04}.jpg", (90, 120), number, masks))
    write_coco("photos/annotations.json", images, polygons=True)
    (split,) = (text for text in blocks("python") if "annotations.json" in text)
    exec(compile(split, "split", "exec"), {})
    (toml,) = blocks("toml")
    Path("tune.toml").write_text(toml)
    return tmp_path


def test_the_split_keeps_every_picture_and_object_once(photos):
    whole = json.loads(Path("photos/annotations.json").read_text())
    parts = [json.loads(Path(f"{name}.json").read_text()) for name in ("train", "val")]
    assert [len(part["images"]) for part in parts] == [8, 2]
    for key in ("images", "annotations"):
        together = sorted((each for part in parts for each in part[key]), key=lambda x: x["id"])
        assert together == sorted(whole[key], key=lambda x: x["id"])
    assert parts[0]["categories"] == whole["categories"]
    for name, count in (("train", 8), ("val", 2)):
        assert f"{count} images with {2 * count} objects" in (
            open_dataset("photos", f"{name}.json").description
        )


def test_the_configuration_is_one_and_finds_its_files_from_anywhere(photos, monkeypatch):
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    config = config_from_values(read_values("../tune.toml"))
    assert config.tune.method == "decoder"
    assert len(open_dataset(config.data.path, config.data.annotations)) == 8


def test_every_command_has_the_options_that_it_is_given():
    found = commands()
    assert {words[1] for words in found} == {"evaluate", "train", "segment", "generate", "merge"}
    for words in found:
        command = main.get_command(click.Context(main), words[1])
        command.make_context(words[1], words[2:])


@pytest.mark.slow
def test_the_page_from_its_first_command_to_its_last(photos):
    pytest.importorskip("grain")
    changes = ["optimizer.steps=2", "optimizer.warmup_steps=0", "optimizer.decay_steps=[]"]
    changes += ["data.batch_size=2", "data.max_masks=2", "data.workers=0"]
    changes += ["simulation.correction_points=0", "simulation.mask_only_passes=0"]
    short = {
        "train": [word for change in changes for word in ("--set", change)],
        "generate": ["--points-per-side", "4"],
    }
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SAM_JAX_CACHE": str(photos / "cache")}
    for words in commands():
        call = [sys.executable, "-m", "sam_jax.cli.main", *words[1:], *short.get(words[1], [])]
        done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (words, done.stderr)
    for path in ("before", "after", "embeddings", "RUN/model", "RUN/adapter", "MERGED", "masks"):
        assert Path(path).is_dir(), path
    (use,) = (text for text in blocks("python") if "Segmenter" in text)
    ran = subprocess.run(
        [sys.executable, "-c", use], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
