"""The shipped architecture with random weights, as users call it: images, prompts, everything."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_vit import SMALL_VIT
from test_segmenter import random_params

from sam_jax import ImageEmbedding, InputError, Prompts, Sam, Segmenter, compat
from sam_jax.checkpoints.native import save_checkpoint
from sam_jax.configs import TEST, TINY
from sam_jax.models.features import ImageFeatures

# Batching changes the order in which XLA sums, nothing else: float32 rounding over some twenty
# layers, on logits of this many standard deviations.
CLOSE = 5e-5
CHANNELS = TINY.embed_dim
# As the original's predictor has them: with the 4 pixels of 1/4 and the 16 of 1/2 of each.
PACKED = 96 + 4 * 24 + 16 * 12


@pytest.fixture(scope="module")
def params():
    return random_params(TINY)


@pytest.fixture(scope="module")
def segmenter(params):
    return Segmenter(TINY, params)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((120, 200), (77, 31))]


@pytest.fixture(scope="module")
def embeddings(segmenter, images):
    return segmenter.encode(images)


def assert_close(found, expected):
    expected = np.asarray(expected)
    assert np.abs(np.asarray(found) - expected).max() < CLOSE * expected.std()


def test_an_embedding_has_details_and_prompts_on_it_are_the_models_own(
    segmenter, params, images, embeddings
):
    assert embeddings[0].features.shape == (32, 32, CHANNELS)
    assert [one.shape for one in embeddings[0].finer] == [(64, 64, 24), (128, 128, 12)]
    xy = np.array([[50.0, 20.0], [9.0, 33.0]])
    frame = (xy * [256 / 200, 154 / 120]).astype(np.float32)
    prompts = Prompts(points=jnp.asarray(frame)[None, None], labels=jnp.array([[[1, 0]]]))
    features = ImageFeatures(embeddings[0].features, embeddings[0].finer)
    logits, scores = jax.jit(
        lambda params, features, prompts: Sam(TINY).apply(
            params, features, prompts, True, method="decode"
        )
    )(params, jax.tree.map(lambda x: x[None], features), prompts)
    found = segmenter.predict(embeddings[0], points=xy, labels=[1, 0])
    assert found.logits.shape == (1, 3, 128, 128) and found.masks.shape == (1, 3, 120, 200)
    assert_close(found.logits, logits[0])
    np.testing.assert_allclose(found.scores, scores[0], atol=1e-4)
    on_device = segmenter.predict_logits(embeddings[0], points=xy, labels=[1, 0])
    np.testing.assert_allclose(on_device[1], found.scores, atol=1e-6)
    assert_close(on_device[0], found.logits)


def test_a_ragged_batch_equals_one_by_one_calls(segmenter, images, embeddings):
    mask = np.random.default_rng(2).normal(size=(1, 128, 128)).astype(np.float32)
    prompts = [
        {"points": [[[5, 6]], [[50, 20], [99, 59], [1, 1]]], "labels": [[1], [1, 0, 1]]},
        {"boxes": [[2, 3, 30, 70]], "masks": mask},
    ]
    names = ("points", "labels", "boxes", "masks")
    lists = {name: [one.get(name) for one in prompts] for name in names}
    together = segmenter.predict(embeddings, **lists)
    for image, one, result in zip(images, prompts, together, strict=True):
        alone = segmenter.predict(segmenter.encode(image), **one)
        assert_close(result.logits, alone.logits)
        np.testing.assert_allclose(result.scores, alone.scores, atol=1e-4)


def test_a_saved_embedding_serves_as_the_first_did(segmenter, embeddings, tmp_path):
    embeddings[1].save(tmp_path / "one.npz")
    loaded = ImageEmbedding.load(tmp_path / "one.npz")
    np.testing.assert_array_equal(loaded.features, embeddings[1].features)
    box = {"boxes": [2, 3, 30, 70]}
    found, expected = (segmenter.predict(one, **box) for one in (loaded, embeddings[1]))
    np.testing.assert_array_equal(found.logits, expected.logits)


@pytest.mark.parametrize("channels", [CHANNELS - 1, CHANNELS + 1])
def test_features_without_their_details_or_with_others_are_refused(segmenter, embeddings, channels):
    features = jnp.resize(embeddings[0].features, (32, 32, channels))
    with pytest.raises(InputError, match=rf"\(32, 32, {channels}\), not \(side, side, {CHANNELS}"):
        segmenter.predict(embeddings[0].replace(features=features), boxes=[2, 3, 30, 70])


def test_another_models_embedding_is_refused(segmenter, images):
    other = Segmenter(SMALL_VIT, random_params(SMALL_VIT))
    with pytest.raises(InputError, match="made by another model"):
        segmenter.predict(other.encode(images[0]), boxes=[2, 3, 30, 70])


def test_masks_of_everything_are_those_of_the_points_one_by_one(segmenter, images, embeddings):
    loose = {
        "points_per_side": 4,
        "pred_iou_thresh": -1e6,
        "stability_score_thresh": 0.0,
        "box_nms_thresh": 1.0,
    }
    records = segmenter.generate(embeddings[0], **loose)
    assert len(records) > 10
    assert [r["area"] for r in records] == [
        r["area"] for r in segmenter.generate(images[0], **loose)
    ]
    points = np.array([record["point_coords"] for record in records])
    found = segmenter.predict(embeddings[0], points=points)
    for record, masks in zip(records, found.masks, strict=True):
        assert record["segmentation"].shape == (120, 200)
        different = (masks != record["segmentation"]).mean(axis=(1, 2))
        # Grids are decoded in other batches: a logit near 0 may fall on either side.
        assert different.min() < 1e-3


def test_another_input_size_and_bfloat16(params, images):
    small = Segmenter(replace(TINY, image_size=136), params, dtype=jnp.bfloat16)
    embedding = small.encode(images[1])
    assert embedding.features.shape == (17, 17, CHANNELS)
    assert embedding.features.dtype == jnp.float32
    found = small.predict(embedding, points=[[9, 30]])
    assert found.logits.shape == (1, 3, 68, 68) and np.isfinite(found.logits).all()
    assert found.logits.dtype == np.float32


@pytest.fixture(scope="module")
def native(params, tmp_path_factory):
    path = tmp_path_factory.mktemp("hybrid") / "tiny"
    save_checkpoint(path, TINY, params)
    return path


def test_a_loaded_checkpoint_is_the_model_that_was_saved(segmenter, native, embeddings):
    loaded = Segmenter.load(native)
    assert loaded.config == TINY and loaded.fingerprint == segmenter.fingerprint
    click = {"points": [[9, 30]]}
    assert_close(
        loaded.predict(embeddings[1], **click).logits,
        segmenter.predict(embeddings[1], **click).logits,
    )


def test_the_originals_predictor_keeps_and_takes_features_with_details(
    segmenter, native, images, embeddings
):
    predictor = compat.SamPredictor(compat.sam_model_registry["tiny"](native))
    predictor.set_image(images[0])
    masks, scores, low = predictor.predict(np.array([[50.0, 20.0]]), np.array([1]))
    found = segmenter.predict(embeddings[0], points=[[50, 20]])
    assert (masks != found.masks[0]).mean() < 1e-3
    np.testing.assert_allclose(scores, found.scores[0], atol=1e-4)
    assert_close(low, found.logits[0])

    kept = predictor.features
    assert kept.shape == (1, PACKED, 32, 32)
    assert_close(kept[0, :CHANNELS].transpose(1, 2, 0), embeddings[0].features)
    other = compat.SamPredictor(predictor.model)
    other.original_size, other.input_size = predictor.original_size, predictor.input_size
    other.features, other.is_image_set = kept, True
    again = other.predict(np.array([[50.0, 20.0]]), np.array([1]))
    for one, expected in zip(again, (masks, scores, low), strict=True):
        np.testing.assert_array_equal(one, expected)
    with pytest.raises(InputError, match=rf"features must be \[1, {PACKED}, 32, 32\], not"):
        other.features = kept[:, : TINY.embed_dim]


def test_the_originals_registry_tells_it_from_a_plain_vit(tmp_path, native):
    save_checkpoint(tmp_path / "vit", replace(TEST, name="tiny"), random_params(TEST))
    with pytest.raises(InputError, match=r"holds a tiny \(2 blocks .*, not tiny \(6 blocks"):
        compat.sam_model_registry["tiny"](tmp_path / "vit")
    with pytest.raises(InputError, match=r"holds a tiny \(6 blocks .*, not vit_b \(12 blocks"):
        compat.sam_model_registry["vit_b"](native)
