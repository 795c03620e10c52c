import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax.embeddings import ImageEmbedding, load_with_about, stack_embeddings
from sam_jax.errors import InputError


@pytest.fixture
def embedding():
    features = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4, 8)), jnp.float32)
    return ImageEmbedding(features, (30, 41), "abc123")


def test_a_saved_embedding_comes_back_bit_for_bit(embedding, tmp_path):
    # A name without .npz stays as the user wrote it.
    for name in ("one.npz", "two.embedding", "deep/er/three"):
        embedding.save(tmp_path / name)
        loaded = ImageEmbedding.load(tmp_path / name)
        np.testing.assert_array_equal(loaded.features, embedding.features)
        assert (loaded.size_hw, loaded.fingerprint) == ((30, 41), "abc123")


def test_what_a_file_says_about_its_embedding_comes_back(embedding, tmp_path):
    embedding.save(tmp_path / "e.npz", {"image_sha256": "00ff", "dtype": "bfloat16"})
    loaded, about = load_with_about(tmp_path / "e.npz")
    np.testing.assert_array_equal(loaded.features, embedding.features)
    assert about == {"image_sha256": "00ff", "dtype": "bfloat16"}
    embedding.save(tmp_path / "e.npz")
    assert load_with_about(tmp_path / "e.npz")[1] == {}


def test_files_of_earlier_versions_are_read(embedding, tmp_path):
    header = {"format_version": 1, "size_hw": [30, 41], "fingerprint": "abc123"}
    np.savez(
        tmp_path / "e.npz",
        header=np.frombuffer(json.dumps(header).encode(), np.uint8),
        features=np.asarray(embedding.features),
    )
    loaded, about = load_with_about(tmp_path / "e.npz")
    assert (loaded.size_hw, loaded.fingerprint, about) == ((30, 41), "abc123", {})


def test_an_embedding_is_a_pytree_of_its_features(embedding):
    doubled = jax.tree.map(lambda x: 2 * x, embedding)
    np.testing.assert_array_equal(doubled.features, 2 * embedding.features)
    assert doubled.size_hw == embedding.size_hw


def test_a_failed_save_leaves_the_old_file_and_nothing_else(embedding, tmp_path, monkeypatch):
    path = tmp_path / "e.npz"
    embedding.save(path)
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        embedding.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["e.npz"]


def test_files_that_are_no_embedding_are_refused_in_one_line(embedding, tmp_path):
    good = tmp_path / "good.npz"
    embedding.save(good)
    data = good.read_bytes()
    np.savez(tmp_path / "other.npz", features=np.zeros(3))
    np.savez_compressed(tmp_path / "packed.npz", features=np.zeros((4, 4, 8), np.float32))
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "short.npz").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.npz").write_text("not an archive")
    (tmp_path / "nan.npz").write_bytes(b"")
    jax.tree.map(lambda x: x * jnp.nan, embedding).save(tmp_path / "nan.npz")
    for name in ("missing", "other", "packed", "empty", "short", "text", "nan"):
        with pytest.raises(InputError) as error:
            ImageEmbedding.load(tmp_path / f"{name}.npz")
        assert "\n" not in str(error.value) and f"{name}.npz" in str(error.value)


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(InputError):
        ImageEmbedding.load(tmp_path)


def test_embeddings_of_two_image_sizes_are_stacked_mapped_over_and_taken_apart():
    rng = np.random.default_rng(0)
    first, second = (
        ImageEmbedding(
            jnp.asarray(rng.normal(size=(4, 4, 8)), jnp.float32),
            size_hw,
            "abc",
            (jnp.ones((8, 8, 2)), jnp.ones((16, 16, 1))),
            "toy",
        )
        for size_hw in ((30, 41), (700, 5))
    )
    batch = stack_embeddings([first, second])
    assert batch.sizes_hw.tolist() == [[30, 41], [700, 5]]
    found = jax.jit(jax.vmap(lambda one: one.features.embedding.sum() + one.sizes_hw[0]))(batch)
    expected = [one.features.sum() + one.size_hw[0] for one in (first, second)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    for one, again in zip((first, second), batch.unstack(), strict=True):
        assert (again.size_hw, again.fingerprint, again.model) == (one.size_hw, "abc", "toy")
        jax.tree.map(np.testing.assert_array_equal, again, one)
    with pytest.raises(InputError, match="list of embeddings is empty"):
        stack_embeddings([])
    with pytest.raises(InputError, match="different models"):
        stack_embeddings([first, second.replace(fingerprint="other")])
    with pytest.raises(InputError, match=r"\(2, 4, 8\) and \(4, 4, 8\) do not stack"):
        stack_embeddings([first, second.replace(features=second.features[:2])])
