"""The whole of it on real photos: the original's SamPredictor against Segmenter, same weights.

Weights are random, so masks mean nothing; each stays between the bounds of the contract all the
same, and each straddles the threshold. Run with -s to see how far the two are apart.
"""

import gc
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import original
import photos
import pytest
import torch
from closeness import IOU_BOUND, MODEL_BOUND, error

from convert import convert_checkpoint
from sam_jax.configs import TEST, VIT_B, VIT_H, VIT_L
from sam_jax.segmenter import Segmenter

pytestmark = pytest.mark.optimised

# Of every mask's pixels at the photo's own size, how many must fall on the original's side.
SAME_PIXELS = 0.9999


@dataclass
class Apart:
    """The largest distances seen between port and original."""

    embedding: float = 0.0
    logits: float = 0.0
    iou: float = 0.0
    other_pixels: float = 0.0

    def widen(self, **distances: float) -> None:
        """Keeps the larger of what was seen and what is given."""
        for name, distance in distances.items():
            setattr(self, name, max(getattr(self, name), distance))

    def check(self, record_property, label: str) -> None:
        """Reports the distances and holds them to the contract."""
        for field in fields(self):
            record_property(field.name, getattr(self, field.name))
        print(
            f"\n{label}: embedding {self.embedding:.1e}, logits {self.logits:.1e} of std, "
            f"IoU {self.iou:.1e}, other pixels {self.other_pixels:.1e}"
        )
        assert 0 < self.embedding <= MODEL_BOUND
        assert 0 < self.logits <= MODEL_BOUND
        assert self.iou <= IOU_BOUND
        assert self.other_pixels <= 1 - SAME_PIXELS


class Pair:
    """The original's predictor and our Segmenter with the same random weights."""

    def __init__(self, config, seed):
        model = original.build(config, seed)
        # The way that users go: a published file, told what it is by nothing but its tensors.
        with tempfile.TemporaryDirectory() as folder:
            torch.save(model.state_dict(), Path(folder, "model.pth"))
            convert_checkpoint(Path(folder, "model.pth"), Path(folder, "native"))
            self.segmenter = Segmenter.load(Path(folder, "native"))
        assert self.segmenter.config == config
        self.predictor = original.segment_anything().SamPredictor(model)

    def compare(self, image: np.ndarray, prompts: dict[str, dict]) -> Apart:
        """Every prompt on one image, and what mask feedback makes of it."""
        self.predictor.set_image(image)
        embedding = self.segmenter.encode(image)
        apart, foreground = Apart(), []
        reference = self.predictor.features[0].permute(1, 2, 0)
        apart.widen(embedding=error(embedding.features, reference))
        for prompt in prompts.values():
            # Multimask first: its most likely mask is fed back into the single prediction.
            for multimask in (True, False):
                theirs = self.predictor.predict(**to_original(prompt), multimask_output=multimask)
                ours = self.segmenter.predict(embedding, **prompt, multimask=multimask)
                widen_by(apart, ours, theirs)
                foreground.append(theirs[0].mean(axis=(1, 2)))
            fed_back = theirs[2][0]
            for prompt_again in ({**prompt, "masks": fed_back}, {"masks": fed_back}):
                theirs = self.predictor.predict(**to_original(prompt_again), multimask_output=False)
                ours = self.segmenter.predict(embedding, **prompt_again, multimask=False)
                widen_by(apart, ours, theirs)
                foreground.append(theirs[0].mean(axis=(1, 2)))
        # Masks that are all one thing would agree without showing anything.
        foreground = np.concatenate(foreground)
        assert np.mean((0.02 < foreground) & (foreground < 0.98)) > 0.8, foreground
        return apart


def to_original(prompt: dict) -> dict:
    names = {"points": "point_coords", "labels": "point_labels", "boxes": "box"}
    out = {names[key]: np.array(value) for key, value in prompt.items() if key != "masks"}
    if "masks" in prompt:
        out["mask_input"] = prompt["masks"][None]
    return out


def widen_by(apart: Apart, ours, theirs) -> None:
    masks, iou, logits = theirs
    assert ours.masks.shape == (1, *masks.shape)
    apart.widen(
        logits=max(error(*pair) for pair in zip(ours.logits[0], logits, strict=True)),
        iou=float(np.abs(ours.scores[0] - iou).max()),
        other_pixels=float(np.max(np.mean(ours.masks[0] != masks, axis=(1, 2)))),
    )


def prompts_for(image: np.ndarray) -> dict[str, dict]:
    """Prompts in the photo's own pixels, fractions included."""
    height, width = image.shape[:2]

    def at(*fractions):
        return np.array(fractions) * [width, height]

    box = [0.21 * width, 0.15 * height, 0.77 * width, 0.9 * height]
    return {
        "point": {"points": at((0.5, 0.4)), "labels": [1]},
        "points": {"points": at((0.5, 0.4), (0.1, 0.95), (0.62, 0.33)), "labels": [1, 0, 1]},
        "box": {"boxes": box},
        "box and points": {"boxes": box, "points": at((0.4, 0.5), (0.7, 0.2)), "labels": [1, 0]},
    }


@pytest.fixture(scope="module")
def small_pair():
    return Pair(TEST, seed=1)


@pytest.fixture(scope="module")
def vit_b():
    yield Pair(VIT_B, seed=1)
    # Half a gigabyte twice, not to be carried through the rest of the suite.
    gc.collect()


@pytest.mark.parametrize("name", photos.NAMES)
def test_the_model_in_miniature_equals_the_original(small_pair, name, record_property):
    image = photos.photo(name)
    small_pair.compare(image, prompts_for(image)).check(record_property, f"test, {name}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["astronaut, 501x333"])
def test_vit_b_equals_the_original(vit_b, name, record_property):
    image = photos.photo(name)
    vit_b.compare(image, prompts_for(image)).check(record_property, f"vit_b, {name}")


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["coffee", "rocket, 333x501", "retina", *photos.EXTRA])
def test_vit_b_equals_the_original_on_more_photos(vit_b, name, record_property):
    image = photos.photo(name)
    vit_b.compare(image, prompts_for(image)).check(record_property, f"vit_b, {name}")


@pytest.mark.slow
def test_bfloat16_masks_overlap_with_float32_ones(vit_b):
    image = photos.photo("coffee")
    exact = vit_b.segmenter
    rough = Segmenter(VIT_B, exact.params, dtype=jnp.bfloat16, fingerprint=exact.fingerprint)
    embeddings = exact.encode(image), rough.encode(image)
    overlaps = []
    for prompt in prompts_for(image).values():
        for multimask in (True, False):
            one, other = (
                segmenter.predict(embedding, **prompt, multimask=multimask).masks[0]
                for segmenter, embedding in zip((exact, rough), embeddings, strict=True)
            )
            both, either = np.sum(one & other, axis=(1, 2)), np.sum(one | other, axis=(1, 2))
            overlaps += list(both / either)
    print(
        f"\nbfloat16: mask IoU with float32 from {min(overlaps):.4f}, mean {np.mean(overlaps):.4f}"
    )
    # Random weights leave many more pixels near the threshold than trained ones: 0.9902 was the
    # least when this was written.
    assert min(overlaps) >= 0.99


@pytest.mark.exhaustive
@pytest.mark.parametrize("config", [VIT_L, VIT_H], ids=lambda config: config.name)
def test_larger_encoders_equal_the_original(config, record_property):
    image = photos.photo("chelsea")
    prompts = prompts_for(image)
    few = {name: prompts[name] for name in ("point", "box and points")}
    Pair(config, seed=1).compare(image, few).check(record_property, f"{config.name}, chelsea")
