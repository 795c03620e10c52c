"""What `test_sharding.py` runs in a process of its own, where JAX has eight devices."""

import re
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from small_hybrid import SMALL_HYBRID
from test_segmenter import CompilationCount, random_params

from sam_jax import ImageEmbedding, InputError, Prompts, Sam, Segmenter, make_mesh, sharding
from sam_jax.automatic import scoring
from sam_jax.configs import TEST
from sam_jax.inference import mesh_programs
from sam_jax.inference.compiled_model import CompiledModel
from sam_jax.models.features import ImageFeatures

# Heads for eight devices; the rest as small as it goes, for what is compiled a dozen times.
CONFIG = replace(
    TEST,
    name="eight_heads",
    image_encoder=replace(TEST.image_encoder, num_heads=8),
    image_size=64,
    decoder_depth=1,
)
MESHES = ((8, 1), (4, 2), (2, 4), (1, 8))
# Sums over devices, and batches of another size, change the order in which float32 numbers are
# added up, nothing else. In units of the results' standard deviation.
TOLERANCE = 1e-5
LOOSE = {
    "points_per_side": 5,
    "points_per_batch": 2,
    "pred_iou_thresh": -1e6,
    "stability_score_thresh": 0,
    "box_nms_thresh": 1.0,
    "crop_nms_thresh": 1.0,
}


@pytest.fixture(scope="module", autouse=True)
def devices():
    assert jax.device_count() == 8


@pytest.fixture(scope="module")
def params():
    return random_params(CONFIG)


@pytest.fixture(scope="module")
def single(params):
    return Segmenter(CONFIG, params, image_batch=1)


@pytest.fixture(scope="module")
def over(params):
    """A Segmenter over the mesh of these sizes."""
    found = {}

    def make(sizes):
        if sizes not in found:
            mesh = make_mesh(*sizes)
            found[sizes] = Segmenter(CONFIG, params, mesh=mesh, image_batch=1)
        return found[sizes]

    return make


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(1)
    sizes = [(60, 100), (128, 40), (33, 51), (200, 300), (7, 5), (64, 64), (20, 90), (90, 91)]
    return [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes]


@pytest.fixture(scope="module")
def embeddings(single, images):
    return single.encode(images)


def assert_close(found, expected):
    expected = np.asarray(expected)
    error = np.abs(np.asarray(found) - expected).max() / expected.std()
    assert error < TOLERANCE, error


def collectives(function, *args):
    """The names of all operations of the compiled program in which devices meet."""
    text = jax.jit(function).lower(*args).compile().as_text()
    assert "num_partitions=8" in text
    names = r"all-\w+|collective-[\w-]+|reduce-scatter|ragged-[\w-]+|send|recv|partition-id"
    return re.findall(rf" ((?:{names})[\w-]*)\(", text)


def on_mesh(mesh, spec, array):
    return jax.device_put(array, NamedSharding(mesh, spec))


@pytest.fixture(scope="module")
def hybrid():
    """The shipped architecture in miniature: its configuration, and its Segmenter on one device."""
    encoder = replace(SMALL_HYBRID.image_encoder, num_heads=8)
    config = replace(SMALL_HYBRID, name="eight_hybrid", image_encoder=encoder, decoder_depth=1)
    return Segmenter(config, random_params(config), image_batch=1)


@pytest.mark.parametrize("sizes", [(8, 1), (2, 4), (1, 8)])
def test_a_hybrid_encoder_and_its_details_are_as_on_one_device(sizes, hybrid, images):
    segmenter = Segmenter(hybrid.config, hybrid.params, mesh=make_mesh(*sizes), image_batch=1)
    count = 3 if sizes == (8, 1) else 2  # not as many as there are devices
    expected = hybrid.encode(images[:count])
    found = segmenter.encode(images[:count])
    for one, other in zip(found, expected, strict=True):
        assert len(one.finer) == 2
        assert_close(one.features, other.features)
        for finer, expected_finer in zip(one.finer, other.finer, strict=True):
            assert_close(finer, expected_finer)
    given = {name: values[:2] for name, values in ragged_prompts(images).items()}
    both = (segmenter.predict(found[:2], **given), hybrid.predict(expected[:2], **given))
    for one, other in zip(*both, strict=True):
        assert_close(one.logits, other.logits)
        assert_close(one.scores, other.scores)


@pytest.mark.parametrize("sizes", MESHES)
def test_images_are_encoded_as_on_one_device(sizes, over, images, embeddings):
    segmenter = over(sizes)
    for count in (1, 3, 8):
        found = segmenter.encode(images[:count])
        for one, expected in zip(found, embeddings, strict=False):
            assert_close(one.features, expected.features)
            assert one.size_hw == expected.size_hw and one.fingerprint == expected.fingerprint
        assert len(found) == count
    if sizes == (8, 1):  # the same image and program a device
        np.testing.assert_array_equal(found[0].features, embeddings[0].features)


def ragged_prompts(images):
    """One or two prompts of every kind for each of eight images; none for the third."""
    rng = np.random.default_rng(2)
    points = [list(rng.uniform(0, 5, (1 + i % 2, 2, 2))) for i in range(8)]
    points[1][1] = points[1][1][:1]  # another number of points
    labels = [[np.ones(len(xy), int) for xy in prompts] for prompts in points]
    boxes = [None] * 4 + [[[1, 1, 4, 6]]] + [None] * 3
    masks = [None] * 5 + [rng.normal(size=(2, 16, 16)).astype(np.float32)] + [None] * 2
    points[4] = labels[4] = None
    return {"points": points, "labels": labels, "boxes": boxes, "masks": masks}


@pytest.mark.parametrize("sizes", [(8, 1), (2, 4)])
def test_prompts_are_decoded_as_on_one_device(sizes, over, images, single, embeddings):
    segmenter, given = over(sizes), ragged_prompts(images)
    expected = single.predict(embeddings, **given)
    # Many images with few prompts are divided by image; the nine clicks on one by prompt.
    for found, one in zip(segmenter.predict(embeddings, **given), expected, strict=True):
        assert_close(found.logits, one.logits)
        assert_close(found.scores, one.scores)
    clicks = {"points": np.arange(18).reshape(9, 1, 2), "labels": np.ones((9, 1), int)}
    expected = single.predict(embeddings[3], **clicks)
    logits, scores = segmenter.predict_logits(embeddings[3], **clicks)
    assert_close(logits, expected.logits)
    assert_close(scores, expected.scores)
    assert logits.devices() == scores.devices() == embeddings[3].features.devices()


@pytest.fixture
def few_at_once(monkeypatch):
    """Two candidates at once a device: each takes several turns."""
    monkeypatch.setattr(scoring, "MAX_WAITING", 2)
    scoring.crop_frame.cache_clear()
    yield
    scoring.crop_frame.cache_clear()


def assert_same_masks(found, expected):
    """To the last bit: of one embedding, a device computes each mask as it would alone."""
    assert found.report == expected.report and found.report["kept"] > 50
    assert found.records("coco_rle") == expected.records("coco_rle")


@pytest.mark.parametrize("sizes", [(8, 1), (2, 4)])
def test_masks_are_generated_as_on_one_device(sizes, over, single, embeddings, few_at_once):
    expected = single.generate_masks(embeddings[3], **LOOSE)
    assert_same_masks(over(sizes).generate_masks(embeddings[3], **LOOSE), expected)


def test_crops_are_encoded_together(over, single, images, few_at_once, monkeypatch):
    segmenter, crops = over((8, 1)), {**LOOSE, "crop_n_layers": 1}
    expected = single.generate_masks(images[3], **crops)
    batches, encode = [], CompiledModel._encode_batch
    monkeypatch.setattr(
        CompiledModel,
        "_encode_batch",
        lambda self, batch, count: batches.append(len(batch)) or encode(self, batch, count),
    )
    assert_same_masks(segmenter.generate_masks(images[3], **crops), expected)
    assert batches == [5]


def test_an_embedding_from_a_mesh_is_as_any_other(over, single, images, tmp_path):
    embeddings = over((2, 4)).encode(images[:2])
    embeddings[1].save(tmp_path / "one.npz")
    loaded = ImageEmbedding.load(tmp_path / "one.npz")
    click = {"points": [[3, 4]], "labels": [1]}
    expected = over((2, 4)).predict(embeddings[1], **click)
    for segmenter in (single, over((2, 4))):
        assert_close(segmenter.predict(loaded, **click).logits, expected.logits)
    both = single.predict(embeddings, points=[[[3, 4]]] * 2, labels=[[1]] * 2)
    assert_close(both[1].logits, expected.logits)
    # Nothing is compiled for another image and another click.
    compilations = CompilationCount()
    over((2, 4)).predict(over((2, 4)).encode(images[4]), points=[[1, 1]], labels=[0])
    assert compilations.count == 0


@pytest.mark.parametrize("kinds", [None, (AxisType.Explicit, AxisType.Auto)])
def test_axes_of_another_kind_are_no_matter(kinds, params, over, images):
    mesh = jax.make_mesh((2, 4), ("data", "model"), kinds)
    assert AxisType.Explicit in mesh.axis_types
    found, usual = Segmenter(CONFIG, params, mesh=mesh, image_batch=1), over((2, 4))
    clicks = {"points": [[[3, 4]] * 9], "labels": [[1] * 9]}
    for embedding, one in zip(found.encode(images[:2]), usual.encode(images[:2]), strict=True):
        np.testing.assert_array_equal(embedding.features, one.features)
        logits = found.predict(embedding, **clicks).logits
        np.testing.assert_array_equal(logits, usual.predict(one, **clicks).logits)
    records = [one.generate_masks(images[1], **LOOSE) for one in (found, usual)]
    iou = [one.candidates.predicted_iou for one in records]
    np.testing.assert_array_equal(*iou)


def test_embeddings_of_many_meshes_share_a_call(params, single, over, images, embeddings):
    apart = [
        Segmenter(CONFIG, params, mesh=make_mesh(1, 2, devices=jax.devices()[i : i + 2]))
        for i in (4, 6)
    ]
    elsewhere = Segmenter(CONFIG, jax.device_put(params, jax.devices()[3]))
    makers = [single, *apart, elsewhere]
    mixed = [one.encode(image) for one, image in zip(makers, images, strict=False)]
    assert len({str(one.features.devices()) for one in mixed}) == 4
    clicks = {"points": [[[3, 4]]] * 4, "labels": [[1]] * 4}
    expected = single.predict(embeddings[:4], **clicks)
    for segmenter, device in ((single, 0), (elsewhere, 3), (over((2, 4)), 0)):
        found = segmenter.predict_logits(mixed, **clicks)
        for (logits, scores), one in zip(found, expected, strict=True):
            assert_close(logits, one.logits)
            assert_close(scores, one.scores)
            assert logits.devices() == {jax.devices()[device]}
    whole = single.generate_masks(embeddings[1], **LOOSE)
    found = elsewhere.generate_masks(mixed[1], **LOOSE)
    assert_close(found.candidates.predicted_iou, whole.candidates.predicted_iou)


@pytest.mark.parametrize("sizes", MESHES)
def test_encoding_sums_twice_a_block_over_model_and_exchanges_nothing_else(sizes, params):
    mesh = make_mesh(*sizes)
    placed = sharding.place_params(CONFIG, params, mesh)
    images = on_mesh(mesh, P("data"), np.zeros((8, 64, 64, 3), np.float32))
    encode = partial(mesh_programs.encode_images, Sam(CONFIG), mesh)
    sums = 2 * CONFIG.image_encoder.depth if mesh.shape["model"] > 1 else 0
    assert collectives(encode, placed, images) == ["all-reduce"] * sums


@pytest.mark.parametrize("by_image", [False, True])
def test_decoding_and_measuring_exchange_nothing(by_image, params):
    mesh = make_mesh(2, 4)
    placed = sharding.place_params(CONFIG, params, mesh)
    shape = (8, 1, 2) if by_image else (1, 8, 2)
    spec = P(sharding.ALL) if by_image else P(None, sharding.ALL)
    prompts = Prompts(np.zeros((*shape, 2), np.float32), np.ones(shape, np.int32))
    features = ImageFeatures(np.zeros((shape[0], 4, 4, 32), np.float32))
    features = on_mesh(mesh, P(sharding.ALL) if by_image else P(), features)
    decode = partial(mesh_programs.decode, Sam(CONFIG), mesh, by_image=by_image)
    assert collectives(decode, placed, features, on_mesh(mesh, spec, prompts)) == []
    frame = scoring.crop_frame((60, 100), CONFIG.frame, 16, mesh)
    divided = partial(on_mesh, mesh, P(sharding.ALL))
    places = divided(np.zeros(8 * frame.capacity, np.int32))
    logits, counts = divided(np.zeros((16, 16, 16), np.float32)), divided(np.ones(8, np.int32))
    thresholds = np.zeros(3, np.float32)
    args = (logits, places, counts, frame.rows, frame.columns, np.ones(2, np.int32), thresholds)
    assert collectives(scoring._measure_over(mesh), *args) == []


def test_an_exchange_that_is_not_meant_would_be_seen():
    mesh = make_mesh(2, 4)
    array = on_mesh(mesh, P("model"), np.zeros((8, 8), np.float32))
    assert collectives(lambda x: x - x[::-1] @ x, array)  # left to XLA
    gather = partial(jax.lax.all_gather, axis_name="model")
    assert collectives(sharding.over(mesh, gather, P("model"), P()), array) == ["all-gather"]


def test_each_device_holds_its_heads_and_hidden_channels(params):
    mesh = make_mesh(2, 4)
    placed = sharding.place_params(CONFIG, params, mesh)
    block = placed["params"]["image_encoder"]["blocks_0"]
    whole = params["params"]["image_encoder"]["blocks_0"]["attn"]["qkv"]["kernel"]
    shapes = jax.tree.map(lambda x: x.addressable_shards[0].data.shape, block)
    assert shapes["attn"]["qkv"] == {"kernel": (32, 3, 2, 4), "bias": (3, 2, 4)}
    assert shapes["attn"]["proj"] == {"kernel": (8, 32), "bias": (32,)}
    assert shapes["mlp"]["lin1"] == {"kernel": (32, 16), "bias": (16,)}
    assert shapes["mlp"]["lin2"] == {"kernel": (16, 32), "bias": (32,)}
    for shard in block["attn"]["qkv"]["kernel"].addressable_shards:
        heads = np.arange(8) // 2 == np.argwhere(mesh.devices == shard.device)[0, 1]
        expected = np.asarray(whole).reshape(32, 3, 8, 4)[:, :, heads]
        np.testing.assert_array_equal(shard.data, expected)
    joined = sharding.join_heads(placed)
    jax.tree.map(np.testing.assert_array_equal, joined, params)


def test_an_optimisers_state_lies_where_its_parameters_do(params):
    mesh = make_mesh(1, 8)
    split = sharding.split_heads(CONFIG, params)["params"]
    state = jax.eval_shape(optax.adamw(1e-3).init, split)
    found = sharding.shardings(state, mesh)
    expected = sharding.shardings(split, mesh)
    assert found[0].mu == found[0].nu == expected
    assert found[0].count.spec == P()


def test_pmap_takes_the_pure_functions(params, images, embeddings):
    model = Sam(CONFIG)
    inputs = np.random.default_rng(3).normal(size=(8, 1, 64, 64, 3)).astype(np.float32)
    xy = np.random.default_rng(4).uniform(0, 64, (8, 1, 2, 1, 2)).astype(np.float32)
    prompts = Prompts(xy, np.ones(xy.shape[:-1], np.int32))

    def encode(params, images):
        return model.apply(params, images, method="encode_image").embedding

    def decode(params, features, prompts):
        return model.apply(params, ImageFeatures(features), prompts, method="decode")

    features = jax.pmap(encode, in_axes=(None, 0))(params, inputs)
    logits, _ = jax.pmap(decode, in_axes=(None, 0, 0))(params, features, prompts)
    expected = jax.jit(encode)(params, inputs[:, 0])
    assert_close(features[:, 0], expected)
    together = jax.tree.map(lambda x: x[:, 0], prompts)
    assert_close(logits[:, 0], jax.jit(decode)(params, features[:, 0], together)[0])


def test_meshes_that_do_not_fit_are_refused(params):
    for sizes in ((3, 1), (None, 3), (8, 2)):
        with pytest.raises(InputError, match="8 devices|there are 8"):
            make_mesh(*sizes)
    assert dict(make_mesh(model=2).shape) == {"data": 4, "model": 2}
    assert make_mesh(1, 2, devices=jax.devices()[4:6]).devices.flat[0] == jax.devices()[4]
    with pytest.raises(InputError, match="does not divide the 2 heads.*may be 1, 2"):
        Segmenter(TEST, random_params(TEST), mesh=make_mesh(2, 4))
    with pytest.raises(InputError, match="not \\('data', 'model'\\)"):
        Segmenter(CONFIG, params, mesh=jax.make_mesh((8,), ("x",)))
    odd = {"blocks_0": {"mlp": {"lin1": {"bias": jnp.zeros(12)}}}}
    with pytest.raises(InputError, match="lin1/bias has shape .* model=8 does not divide 12"):
        sharding.shardings(odd, make_mesh(1, 8))
