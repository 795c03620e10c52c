"""CompiledModel: any number of images and prompts in few shapes, and programs that are shared."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_segmenter import ATOL, CompilationCount, random_params

from sam_jax.configs import TEST
from sam_jax.inference.compiled_model import CompiledModel
from sam_jax.models.features import ImageFeatures
from sam_jax.models.sam.sam import Sam
from sam_jax.preprocess import ImagePrompts

NO_POINT = ImagePrompts(np.zeros((0, 1, 2), np.float32), np.zeros((0, 1), np.int32))


@pytest.fixture(scope="module")
def compiled():
    return CompiledModel(Sam(TEST), jax.device_put(random_params(TEST)), 4, 1)


@pytest.fixture(scope="module")
def inputs():
    return np.random.default_rng(0).normal(size=(5, 128, 128, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def features(compiled, inputs):
    return compiled.encode(inputs)


def points(count, seed):
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 128, (count, 2, 2)).astype(np.float32)
    return ImagePrompts(xy, np.ones((count, 2), np.int32))


def test_inputs_are_taken_batch_by_batch_in_powers_of_two(inputs, monkeypatch):
    taken, calls = [], []

    def one_by_one(count):
        taken.clear()
        for i in range(count):
            taken.append(i)
            yield inputs[i % len(inputs)]

    def encode(model, params, batch):
        calls.append((len(taken), len(batch)))
        return tuple(map(ImageFeatures, jnp.asarray(batch)))

    monkeypatch.setattr(
        "sam_jax.inference.compiled_model._encoder", lambda platform, mesh=None: encode
    )
    for image_batch in (4, 7):
        compiled = CompiledModel(Sam(TEST), {"params": jnp.zeros(1)}, image_batch, 1)
        features = compiled.encode(one_by_one(7))
        np.testing.assert_array_equal([one.embedding for one in features[5:]], inputs[:2])
        assert len(features) == 7
    assert calls == [(4, 4), (7, 2), (7, 1)] * 2


def test_programs_are_made_for_the_device_of_the_parameters(compiled, inputs, monkeypatch):
    """Not for the platform that JAX prefers, whose kernels this one may not have."""
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    # An architecture of its own: traced here, and nowhere before.
    model = Sam(dataclasses.replace(TEST, name="of another name"))
    there = dataclasses.replace(compiled, model=model)
    [features] = there.encode(inputs[:1])
    [(_, scores)] = there.decode([features], [points(2, 0)], True)
    [(_, expected)] = compiled.decode(compiled.encode(inputs[:1]), [points(2, 0)], True)
    np.testing.assert_allclose(scores, expected, atol=ATOL)


def test_results_belong_to_their_images(compiled, features):
    counts = (1, 0, 2, 1)
    prompts = [points(count, seed) if count else NO_POINT for seed, count in enumerate(counts)]
    results = compiled.decode(features[:4], prompts, True)
    assert [scores.shape for _, scores in results] == [(count, 3) for count in counts]
    assert [logits.shape for logits, _ in results] == [(count, 3, 32, 32) for count in counts]
    for one, given, (logits, scores) in zip(features[:4], prompts, results, strict=True):
        assert scores.dtype == logits.dtype == np.float32
        if given.num_prompts:
            [(alone_logits, alone)] = compiled.decode([one], [given], True, on_device=True)
            assert isinstance(alone, jax.Array)
            np.testing.assert_allclose(scores, alone, atol=ATOL)
            np.testing.assert_allclose(logits, alone_logits, atol=ATOL)


def test_images_without_prompts_have_no_results(compiled, features):
    for on_device, kind in ((False, np.ndarray), (True, jax.Array)):
        [(logits, scores)] = compiled.decode(features[:1], [NO_POINT], False, on_device=on_device)
        assert isinstance(scores, kind) and isinstance(logits, kind)
        assert scores.shape == (0, 1) and logits.shape == (0, 1, 32, 32)
        assert scores.dtype == logits.dtype == np.float32


def test_models_of_one_architecture_share_what_is_compiled(compiled, inputs, features):
    [(logits, _)] = compiled.decode(features[:1], [points(2, 0)], True)
    compilations = CompilationCount()
    other = CompiledModel(Sam(TEST), jax.device_put(random_params(TEST, seed=1)), 4, 1)
    others = other.encode(inputs[:4])
    [(other_logits, _)] = other.decode(others[:1], [points(2, 0)], True)
    assert compilations.count == 0
    assert np.abs(np.asarray(others[0].embedding) - np.asarray(features[0].embedding)).max() > 0.1
    assert np.abs(other_logits - logits).max() > 0.1
