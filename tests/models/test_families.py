"""Families: a new one touches no file of another, and nobody else asks which one a model is of."""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import sam_jax
from sam_jax.errors import CheckpointError
from sam_jax.models import families
from sam_jax.models.config import ModelConfig, check_limits, check_rules, decoder_limits
from sam_jax.models.families import Family, register_family
from sam_jax.models.features import ImageFeatures
from sam_jax.models.mask_decoder import MaskDecoder
from sam_jax.models.prompt_encoder import PromptEncoder
from sam_jax.types import Prompts

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class PatchesConfig:
    patch_size: int = 8


@dataclass(frozen=True)
class ToyConfig(ModelConfig):
    image_encoder: PatchesConfig = PatchesConfig()
    depth: int = 1

    @property
    def fit(self):
        return "stretch"


class Toy(nn.Module):
    """One convolution, and the prompt encoder and mask decoder that families share."""

    config: ToyConfig
    dtype: Any = jnp.float32

    def setup(self):
        patch = (self.config.image_encoder.patch_size,) * 2
        self.embed = nn.Conv(self.config.embed_dim, patch, patch, dtype=self.dtype)
        self.prompt_encoder = PromptEncoder(self.config, self.dtype)
        self.mask_decoder = MaskDecoder(self.config, self.dtype)

    def __call__(self, images, prompts):
        return self.decode(self.encode_image(images), prompts)

    def encode_image(self, images):
        return ImageFeatures(self.embed(images))

    def decode(self, features, prompts, multimask=True):
        grid_hw = features.embedding.shape[1:3]
        embedded = self.prompt_encoder(prompts, grid_hw)
        positions = self.prompt_encoder.dense_positions(grid_hw)
        return self.mask_decoder(features, positions, *embedded, multimask)


def check_toy(config: ToyConfig) -> None:
    check_limits({"depth": (config.depth, 1, 4), **decoder_limits(config)})
    check_rules({"embed_dim must be a multiple of 8": config.embed_dim % 8 == 0})


def toy_shapes(config: ToyConfig) -> Any:
    prompts = Prompts(jnp.zeros((1, 1, 1, 2)), jnp.zeros((1, 1, 1), jnp.int32))
    images = jnp.zeros((1, 8, 8, 3))
    return jax.eval_shape(lambda: Toy(config).init(jax.random.key(0), images, prompts))


TOY = Family(
    "toy", "Toy family", ToyConfig, check_toy, Toy, toy_shapes, generate_defaults={"max_masks": 3}
)
CONFIG = ToyConfig(
    "toy_64", image_size=64, embed_dim=16, decoder_depth=1, decoder_num_heads=2, decoder_mlp_dim=16
)


@pytest.fixture
def toy():
    register_family(TOY)
    yield TOY
    del families.FAMILIES["toy"]


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    shapes = toy_shapes(CONFIG)
    return jax.tree.map(lambda x: rng.normal(0, 0.2, x.shape).astype(np.float32), shapes)


def test_a_family_of_a_users_own_segments_generates_and_is_saved(toy, params, tmp_path):
    image = np.random.default_rng(1).integers(0, 256, (40, 90, 3), np.uint8)
    segmenter = sam_jax.Segmenter(CONFIG, params)
    embedding = segmenter.encode(image)
    assert embedding.features.shape == (8, 8, 16) and embedding.finer == ()
    found = segmenter.predict(embedding, points=[[45, 20]], labels=[1])
    # Stretched: the middle of the image is the middle of the frame.
    prompts = Prompts(jnp.full((1, 1, 1, 2), 32.0), jnp.ones((1, 1, 1), jnp.int32))
    features = ImageFeatures(embedding.features[None])
    logits, scores = Toy(CONFIG).apply(params, features, prompts, method="decode")
    np.testing.assert_allclose(found.logits, logits[0], atol=1e-5)
    np.testing.assert_allclose(found.scores, scores[0], atol=1e-5)
    assert found.masks.shape == (1, 3, 40, 90)
    loose = {"pred_iou_thresh": -1e6, "stability_score_thresh": 0.0, "points_per_side": 2}
    assert len(segmenter.generate_masks(image, **loose).records()) <= 3

    sam_jax.save_checkpoint(tmp_path / "model", CONFIG, params)
    again = sam_jax.Segmenter.load(tmp_path / "model")
    assert again.config == CONFIG
    repeated = again.predict(again.encode(image), points=[[45, 20]], labels=[1])
    np.testing.assert_array_equal(repeated.logits, found.logits)
    model, loaded = sam_jax.load_model(tmp_path / "model")
    assert isinstance(model, Toy)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    with pytest.raises(CheckpointError, match="'toy_64', a model for images"):
        sam_jax.Tracker.load(tmp_path / "model")
    with pytest.raises(sam_jax.InputError, match="Toy family runs on one device"):
        sam_jax.Segmenter(CONFIG, params, mesh=sam_jax.make_mesh(devices=jax.devices()[:1]))


def test_a_family_that_is_not_registered_is_named(toy, params, tmp_path):
    sam_jax.save_checkpoint(tmp_path / "model", CONFIG, params)
    del families.FAMILIES["toy"]
    try:
        with pytest.raises(CheckpointError, match="family 'toy'; this sam_jax reads 'sam' and"):
            sam_jax.load_checkpoint(tmp_path / "model")
        with pytest.raises(TypeError, match="ToyConfig is a configuration of no registered family"):
            sam_jax.Segmenter(CONFIG, params)
    finally:
        register_family(TOY)


def test_a_name_or_a_class_of_configurations_is_registered_once(toy):
    with pytest.raises(ValueError, match="'toy' is registered already"):
        register_family(TOY)


OF_FAMILIES = {"SamConfig", "Sam2Config", "Sam", "Sam2"}


def outside_of_families():
    for top in ("sam_jax", "convert"):
        for path in sorted((ROOT / top).rglob("*.py")):
            inside = path.relative_to(ROOT).parts
            if inside[:2] != ("sam_jax", "models") and top != "convert":
                yield pytest.param(path, id="/".join(inside))


@pytest.mark.parametrize("path", outside_of_families())
def test_nobody_else_asks_which_family_a_model_is_of(path):
    tree = ast.parse(path.read_text())
    # compat's own `Sam` is a class of that name.
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and "compat" not in node.module
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
            asked = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
            assert not (asked & OF_FAMILIES & imported - own), f"line {node.lineno}"
        assert getattr(node, "attr", "") != "stretches", f"line {node.lineno}"
