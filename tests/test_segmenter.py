"""The Segmenter on a small random model: batches, buckets, threads and refusals."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax import CheckpointError, InputError, Segmenter
from sam_jax.configs import TEST
from sam_jax.embeddings import ImageEmbedding
from sam_jax.models.features import ImageFeatures
from sam_jax.models.sam.sam import Sam, variable_shapes
from sam_jax.ops.mask_regions import clean_mask

# Batching changes the order in which XLA sums, nothing else: float32 rounding over a dozen layers,
# on logits of order one.
ATOL = 2e-5


def random_params(config, seed=0):
    """Variables away from what initialization gives: no table, bias or norm is trivial."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        centre = 1.0 if name.endswith("scale") else 0.0
        spread = leaf.shape[-2] ** -0.5 if name.endswith("kernel") else 0.3
        return jnp.asarray(centre + spread * rng.normal(size=leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(fill, variable_shapes(config))


@pytest.fixture(scope="module")
def params():
    return random_params(TEST)


@pytest.fixture(scope="module")
def segmenter(params):
    return Segmenter(TEST, params, prompt_batch=8)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(1)
    sizes = [(60, 100), (128, 40), (33, 51), (200, 300), (7, 5)]
    return [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes]


@pytest.fixture(scope="module")
def embeddings(segmenter, images):
    return segmenter.encode(images)


def assert_same(a, b):
    np.testing.assert_allclose(a.logits, b.logits, atol=ATOL)
    np.testing.assert_allclose(a.scores, b.scores, atol=ATOL)
    assert a.size_hw == b.size_hw


def test_a_list_of_images_is_encoded_as_each_alone(segmenter, images, embeddings):
    for image, embedding in zip(images, embeddings, strict=True):
        alone = segmenter.encode(image)
        np.testing.assert_allclose(embedding.features, alone.features, atol=ATOL)
        assert embedding.size_hw == image.shape[:2]


def test_a_ragged_batch_equals_one_by_one_calls(segmenter, embeddings):
    rng = np.random.default_rng(2)
    mask = rng.normal(size=(2, 32, 32)).astype(np.float32) * 4
    prompts = [
        # Three prompts with one, three and two points.
        {
            "points": [[[5, 6]], [[50, 20], [99, 59], [1, 1]], [[3, 3], [4, 50]]],
            "labels": [[1], [1, 0, 1], [0, 1]],
        },
        {"boxes": [[2, 3, 30, 100]]},
        {"points": [[[10, 10]], [[50, 32]]], "labels": [[1], [0]], "masks": mask},
        {"points": [[[10, 10], [20, 20]]], "labels": [[1, 0]], "boxes": [[0, 0, 150, 150]]},
        {"masks": mask[:1]},
    ]
    names = ("points", "labels", "boxes", "masks")
    lists = {name: [one.get(name) for one in prompts] for name in names}
    together = segmenter.predict(embeddings, **lists)
    for embedding, one, result in zip(embeddings, prompts, together, strict=True):
        assert_same(result, segmenter.predict(embedding, **one))
        assert result.masks.shape[2:] == embedding.size_hw


def test_ragged_prompts_of_one_image_equal_each_prompt_alone(segmenter, embeddings):
    points = [[[5, 6]], [[50, 20], [99, 59], [1, 1], [7, 7], [8, 30]], [[3, 3], [4, 50]]]
    labels = [[1], [1, 0, 1, 1, 0], [0, 1]]
    together = segmenter.predict(embeddings[0], points=points, labels=labels)
    for i, (p, n) in enumerate(zip(points, labels, strict=True)):
        alone = segmenter.predict(embeddings[0], points=p, labels=n)
        np.testing.assert_allclose(together.logits[i : i + 1], alone.logits, atol=ATOL)
        np.testing.assert_allclose(together.scores[i : i + 1], alone.scores, atol=ATOL)


def test_more_prompts_than_fit_one_call_equal_each_alone(segmenter, embeddings):
    points = np.random.default_rng(3).uniform(0, 60, (19, 1, 2))
    labels = np.ones((19, 1), int)
    together = segmenter.predict(embeddings[0], points=points, labels=labels)
    assert together.logits.shape == (19, 3, 32, 32)
    for i in (0, 7, 8, 18):
        alone = segmenter.predict(embeddings[0], points=points[i], labels=labels[i])
        np.testing.assert_allclose(together.logits[i : i + 1], alone.logits, atol=ATOL)


def test_padding_equals_the_models_own_answer(segmenter, params, embeddings):
    """Buckets against the module called directly with exactly the prompts given."""
    from sam_jax.types import Prompts

    xy = np.array([[50.0, 20.0], [9.0, 33.0]])
    # 60x100 pixels become 77x128.
    frame = (xy * [128 / 100, 77 / 60]).astype(np.float32)
    prompts = Prompts(points=jnp.asarray(frame)[None, None], labels=jnp.array([[[1, 0]]]))
    logits, scores = Sam(TEST).apply(
        params, ImageFeatures(embeddings[0].features[None]), prompts, True, method="decode"
    )
    ours = segmenter.predict(embeddings[0], points=xy, labels=[1, 0])
    np.testing.assert_allclose(ours.logits, logits[0], atol=ATOL)
    np.testing.assert_allclose(ours.scores, scores[0], atol=ATOL)


def test_a_single_prompt_may_leave_out_the_prompt_axis(segmenter, embeddings):
    box, mask = [2, 3, 30, 50], np.full((32, 32), 2.5, np.float32)
    with_axis = segmenter.predict(
        embeddings[0], points=[[[5, 6], [9, 9]]], labels=[[1, 0]], boxes=[box], masks=mask[None]
    )
    without = segmenter.predict(
        embeddings[0], points=[[5, 6], [9, 9]], labels=[1, 0], boxes=box, masks=mask
    )
    assert_same(with_axis, without)
    assert with_axis.logits.shape == (1, 3, 32, 32)


def test_predict_logits_stays_on_the_device_and_equals_predict(segmenter, embeddings):
    given = {"points": [[[5, 6]], [[9, 9]], [[1, 30]]], "labels": [[1], [1], [0]]}
    logits, scores = segmenter.predict_logits(embeddings[0], **given)
    assert isinstance(scores, jax.Array) and isinstance(logits, jax.Array)
    result = segmenter.predict(embeddings[0], **given)
    np.testing.assert_array_equal(scores, result.scores)
    np.testing.assert_array_equal(logits, result.logits)
    pairs = segmenter.predict_logits(embeddings[:2], points=[[[5, 6]], [[9, 9]]])
    assert [s.shape for _, s in pairs] == [(1, 3), (1, 3)]


def test_cleaning_changes_masks_alone_and_is_off_unless_asked_for(segmenter, embeddings):
    points = {"points": [[[5, 6]]], "labels": [[1]]}
    plain = segmenter.predict(embeddings[0], **points)
    assert plain.clean_area == 0
    assert segmenter.predict(embeddings[0], **points, clean=False).clean_area == 0
    cleaned = segmenter.predict(embeddings[0], **points, clean=200)
    assert_same(plain, cleaned)
    for index in range(3):
        expected = clean_mask(plain.mask(0, index), 200)
        np.testing.assert_array_equal(cleaned.mask(0, index), expected)
    areas = [
        one.clean_area
        for one in segmenter.predict(embeddings[:2], points=[[[5, 6]], [[9, 9]]], clean=True)
    ]
    # A cell is 4 by 4 pixels of logits, of which 32 stand for the longest side.
    assert areas == [round(16 * (max(e.size_hw) / 32) ** 2) for e in embeddings[:2]]
    with pytest.raises(InputError, match="clean is True, False or an area"):
        segmenter.predict(embeddings[0], **points, clean=-1)


def test_logits_can_be_fed_back(segmenter, embeddings):
    first = segmenter.predict(embeddings[0], points=[[5, 6]])
    _, index = next(first.best())
    again = segmenter.predict(
        embeddings[0],
        points=[[5, 6], [40, 40]],
        labels=[1, 0],
        masks=first.logits[0, index],
        multimask=False,
    )
    assert again.logits.shape == (1, 1, 32, 32)


def test_the_callers_arrays_are_left_alone(segmenter, embeddings, images):
    image = images[0].copy()
    points, boxes = np.array([[[5.0, 6.0]]]), np.array([[1.0, 2.0, 30.0, 40.0]])
    masks = np.full((1, 32, 32), 3.0)
    copies = [x.copy() for x in (points, boxes, masks)]
    segmenter.encode(image)
    segmenter.predict(embeddings[0], points=points, boxes=boxes, masks=masks)
    np.testing.assert_array_equal(image, images[0])
    for now, before in zip((points, boxes, masks), copies, strict=True):
        np.testing.assert_array_equal(now, before)


def test_embeddings_of_another_model_are_refused(segmenter, embeddings):
    other = Segmenter(TEST, random_params(TEST, seed=9))
    with pytest.raises(InputError, match="made by another model"):
        other.predict(embeddings[0], points=[[5, 6]])
    with pytest.raises(InputError, match="image 1: the embedding was made by another model"):
        segmenter.predict(
            [embeddings[0], replace(embeddings[1], fingerprint="x")], points=[[[1, 1]]] * 2
        )
    with pytest.raises(InputError, match="needs an embedding"):
        segmenter.predict(np.zeros((8, 8, 3), np.uint8), points=[[5, 6]])


@pytest.mark.parametrize("part", [np.s_[:, :3], np.s_[..., :3], np.s_[0]])
def test_an_embedding_cut_to_pieces_is_refused(segmenter, embeddings, part):
    broken = replace(embeddings[0], features=embeddings[0].features[part])
    with pytest.raises(InputError, match="encode the image again"):
        segmenter.predict(broken, points=[[5, 6]])


def test_parameters_of_another_configuration_are_listed_at_once(params):
    with pytest.raises(CheckpointError) as error:
        Segmenter(replace(TEST, embed_dim=64), params)
    assert str(error.value).count("wrong shape") > 10


@pytest.mark.parametrize("options", [{"dtype": jnp.float16}, {"image_batch": 0}])
def test_options_out_of_range_are_refused(params, options):
    with pytest.raises(InputError):
        Segmenter(TEST, params, **options)


def test_a_loaded_embedding_gives_the_same_answer(segmenter, embeddings, tmp_path):
    embeddings[0].save(tmp_path / "e.npz")
    loaded = ImageEmbedding.load(tmp_path / "e.npz")
    a = segmenter.predict(loaded, points=[[5, 6]])
    b = segmenter.predict(embeddings[0], points=[[5, 6]])
    np.testing.assert_array_equal(a.logits, b.logits)


def test_another_input_size_works_end_to_end(params, images):
    small = Segmenter(replace(TEST, image_size=96), params)
    result = small.predict(small.encode(images[0]), points=[[5, 6]])
    assert result.logits.shape == (1, 3, 24, 24) and result.masks.shape == (1, 3, 60, 100)
    with pytest.raises(InputError, match="not a multiple of the patch size"):
        Segmenter(replace(TEST, image_size=100), params)


@pytest.mark.parametrize(
    "given, says",
    [
        ({"points": [[1, 1]]}, "points must be a list with one entry an image"),
        ({"points": np.zeros((2, 1, 2))}, "points must be a list with one entry an image"),
        ({"points": [[[1, 1]], [[500, 1]]]}, "image 1: "),
        ({"points": [[[1, 1]], [[1]]]}, "image 1: "),
    ],
)
def test_bad_lists_say_which_image(segmenter, embeddings, given, says):
    with pytest.raises(InputError) as error:
        segmenter.predict(embeddings[:2], **given)
    assert says in str(error.value)


def test_empty_lists_are_refused(segmenter):
    with pytest.raises(InputError):
        segmenter.encode([])
    with pytest.raises(InputError):
        segmenter.predict([], points=[])


class CompilationCount:
    """Counts XLA compilations through JAX's own events."""

    def __init__(self):
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event, duration, **_):
        self.count += event == "/jax/core/compile/backend_compile_duration"


def test_clicking_compiles_nothing_after_the_first_calls(params, images):
    compilations = CompilationCount()
    # A configuration of its own, so that no other test has compiled for it.
    config = replace(TEST, name="clicks", decoder_mlp_dim=48)
    segmenter = Segmenter(config, random_params(config))

    def click(image, clicks):
        embedding = segmenter.encode(image)
        result = segmenter.predict(embedding, points=[[5, 3]])
        for n in range(2, clicks + 1):
            points = np.random.default_rng(n).uniform(0, 5, (n, 2))
            result = segmenter.predict(
                embedding,
                points=points,
                labels=np.arange(n) % 2,
                masks=result.logits[0, 0],
                multimask=False,
            )
        segmenter.predict(embedding, boxes=[[0, 0, 4, 4]])
        return result.masks

    click(images[0], clicks=8)
    warm = compilations.count
    assert warm > 0, "the counter sees compilations"
    for image in images[1:]:
        click(image, clicks=8)
    assert compilations.count == warm


def test_two_threads_sharing_a_segmenter_get_right_answers(segmenter, images):
    def answer(i):
        image = images[i % 3]
        x = 1 + i % 5
        embedding = segmenter.encode(image)
        return segmenter.predict(embedding, points=[[x, 4]]).logits

    expected = [answer(i) for i in range(15)]
    barrier = threading.Barrier(4)

    def worker(_):
        barrier.wait()
        return [answer(i) for i in range(15)]

    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(worker, range(4)):
            for got, want in zip(results, expected, strict=True):
                np.testing.assert_array_equal(got, want)


def test_bfloat16_computes_close_to_float32(params, images):
    exact = Segmenter(TEST, params)
    rough = Segmenter(TEST, params, dtype=jnp.bfloat16)
    assert jax.tree.leaves(rough.params)[0].dtype == jnp.float32
    a = exact.predict(exact.encode(images[0]), points=[[5, 6]])
    b = rough.predict(rough.encode(images[0]), points=[[5, 6]])
    assert b.logits.dtype == np.float32
    # bfloat16 keeps 8 bits; a dozen layers of it stay within a few percent of the logits' spread.
    assert np.abs(a.logits - b.logits).max() / a.logits.std() < 0.15


NONE_AT_ALL = [
    {"boxes": np.zeros((0, 4))},
    {"boxes": []},
    {"points": np.zeros((0, 2))},
    {"points": np.zeros((0, 3, 2)), "labels": np.zeros((0, 3))},
    {"points": [], "labels": [], "boxes": []},
    {"masks": np.zeros((0, 32, 32))},
]


@pytest.mark.parametrize("prompts", NONE_AT_ALL)
def test_no_prompts_give_no_masks(segmenter, embeddings, images, prompts):
    found = segmenter.predict(embeddings[0], **prompts, multimask=False)
    assert found.scores.shape == (0, 1) and found.logits.shape == (0, 1, 32, 32)
    assert found.masks.shape == (0, 1, *images[0].shape[:2]) and list(found.best()) == []
    logits, scores = segmenter.predict_logits(embeddings[0], **prompts)
    assert isinstance(logits, jax.Array)
    assert scores.shape == (0, 3) and logits.shape == (0, 3, 32, 32)


@pytest.mark.parametrize("empty", [{}, *NONE_AT_ALL])
def test_an_image_without_prompts_leaves_the_others_theirs(segmenter, embeddings, empty):
    box = [[1, 2, 30, 30]]
    given = {"points": [None] * 3, "labels": [None] * 3, "masks": [None] * 3}
    given |= {name: [None, value, None] for name, value in empty.items()}
    given["boxes"] = [box, empty.get("boxes"), box]
    found = segmenter.predict(embeddings[:3], **given)
    assert [len(one.scores) for one in found] == [1, 0, 1]
    assert found[1].masks.shape[1:] == (3, *embeddings[1].size_hw)
    for i in (0, 2):
        assert_same(found[i], segmenter.predict(embeddings[i], boxes=box))


def test_no_clicks_beside_a_box_are_none(segmenter, embeddings):
    box = [1, 2, 30, 30]
    alone = segmenter.predict(embeddings[0], boxes=box)
    assert_same(segmenter.predict(embeddings[0], boxes=box, points=np.zeros((0, 2))), alone)


@pytest.mark.parametrize(
    "prompts, message",
    [
        ({}, "no prompt is given"),
        ({"labels": []}, "no prompt is given"),
        ({"boxes": np.zeros((0, 3))}, r"not shape \(0, 3\)"),
        ({"points": np.zeros((2, 0, 2))}, "points are empty"),
        ({"points": [], "labels": [1]}, "points are empty"),
        ({"points": [[[3, 4]]], "boxes": np.zeros((0, 4))}, "boxes are empty"),
    ],
)
def test_what_is_only_half_empty_is_refused(segmenter, embeddings, prompts, message):
    with pytest.raises(InputError, match=message):
        segmenter.predict(embeddings[0], **prompts)


@pytest.mark.parametrize("name", ["image_batch", "prompt_batch"])
@pytest.mark.parametrize("value", [0, True])
def test_numbers_of_a_batch_are_whole(params, name, value):
    with pytest.raises(InputError, match=f"{name} must be a whole number, at least 1, not"):
        Segmenter(TEST, params, **{name: value})
