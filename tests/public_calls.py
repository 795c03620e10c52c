"""Everything public, called once on small random models, and what each call gives as NumPy arrays.

    python -m tests.public_calls OUTPUT.npz [NAME ...]

What `test_jax_modes.py` and `test_pickling.py` compare with itself in other circumstances.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax import GenerateOptions, Prompts, Sam, Sam2, Segmenter, Tracker, compat, mask_to_logits
from sam_jax.configs import TEST
from sam_jax.data.batches import TrainingBatch
from sam_jax.models.sam.sam import variable_shapes
from sam_jax.models.sam2.config import SAM2_TEST
from tests.small_hybrid import SMALL_HYBRID
from tests.small_sam2 import small_variables

# One block each: what is compiled in tens of circumstances must be small.
SMALL_SAM = replace(TEST, name="small_sam", image_size=64, decoder_depth=1)
SMALL_SAM2 = SAM2_TEST
EVERYTHING = {
    "points_per_side": 2,
    "points_per_batch": 4,
    "pred_iou_thresh": -1e6,
    "stability_score_thresh": 0.0,
    "box_nms_thresh": 1.0,
}
SIZE = (40, 60)


def picture(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def sam_variables(config: Any) -> Any:
    """NumPy variables away from what initialization gives."""
    rng = np.random.default_rng(1)

    def fill(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        centre = 1.0 if name.endswith("scale") else 0.0
        spread = leaf.shape[-2] ** -0.5 if name.endswith("kernel") else 0.3
        return (centre + spread * rng.normal(size=leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, variable_shapes(config))


def small_segmenter(name: str, **options: Any) -> Segmenter:
    if name == "sam2":
        return Segmenter(SMALL_SAM2, small_variables(), **options)
    config = {"sam": SMALL_SAM, "hybrid": SMALL_HYBRID}[name]
    return Segmenter(config, sam_variables(config), **options)


def small_tracker(**options: Any) -> Tracker:
    return Tracker(SMALL_SAM2, small_variables(), max_objects=2, **options)


def prompt_kinds(segmenter: Segmenter) -> dict[str, dict[str, Any]]:
    """Prompts of every kind for an image of `SIZE`."""
    side = segmenter.config.mask_input_size
    mask = np.zeros(SIZE, bool)
    mask[10:30, 15:40] = True
    return {
        "point": {"points": [[30, 20]]},
        "points": {"points": [[[30, 20], [5, 5]], [[1, 2], [3, 4]]], "labels": [[1, 0], [1, 1]]},
        "ragged": {"points": [[[30, 20]], [[1, 2], [3, 4], [7, 9]]]},
        "box": {"boxes": [10, 10, 40, 30]},
        "box and point": {"boxes": [[10, 10, 40, 30]], "points": [[[20, 20]]], "labels": [[0]]},
        "mask": {"masks": mask_to_logits(mask, segmenter.config)},
        "mask and point": {
            "masks": np.linspace(-3, 3, side * side, dtype=np.float32).reshape(1, side, side),
            "points": [[[20, 20]]],
        },
        "nothing": {"boxes": np.zeros((0, 4))},
    }


def segmenter_calls(segmenter: Segmenter) -> Iterator[tuple[str, Any]]:
    """What a Segmenter does, in all its ways."""
    embedding = segmenter.encode(picture())
    yield "features", (embedding.features, embedding.finer)
    others = segmenter.encode([picture(), picture(1, (50, 30))])
    yield "batch of features", [one.features for one in others]
    kinds = prompt_kinds(segmenter)
    for name, prompts in kinds.items():
        for multimask in (True, False):
            found = segmenter.predict(embedding, **prompts, multimask=multimask)
            yield f"{name} {multimask}", (found.scores, found.logits, found.masks)
        yield f"{name} on the device", segmenter.predict_logits(embedding, **prompts)
    batch = segmenter.predict(
        others, points=[[[[30, 20]]], None], boxes=[None, [[2, 3, 20, 40], [1, 1, 9, 9]]]
    )
    yield "batch", [(one.scores, one.logits) for one in batch]
    yield "batch on the device", segmenter.predict_logits(others, boxes=[[1, 2, 9, 9], None])
    yield "generated", _generated(segmenter.generate(picture(), **EVERYTHING))
    yield "of an embedding", _generated(segmenter.generate(embedding, **EVERYTHING))
    more = {**EVERYTHING, "crop_n_layers": 1, "nms": "mask", "min_mask_region_area": 4}
    yield "with crops", _generated(segmenter.generate(picture(), **more))
    if segmenter.config.fit == "stretch":
        yield "refined", _generated(segmenter.generate(embedding, use_m2m=True, **EVERYTHING))


def _generated(records: list[dict[str, Any]]) -> Any:
    keys = ("segmentation", "bbox", "predicted_iou", "stability_score")
    assert records
    return [[np.asarray(record[key]) for key in keys] for record in records]


def tracker_calls(tracker: Tracker) -> Iterator[tuple[str, Any]]:
    """What a Tracker does."""
    frames = [picture(seed) for seed in range(4)]
    state = tracker.start(SIZE)
    state = tracker.prompt(state, frames[0], "a", points=[[30, 20], [5, 5]], labels=[1, 0])
    state = tracker.prompt(state, frames[0], "b", box=[10, 10, 40, 30])
    for i, frame in enumerate([frames[0], frames[1], None, frames[2]]):
        state, found = tracker.step(state, frame)
        yield f"step {i}", (found.logits, found.object_scores, found.scores, found.masks)
    state = tracker.prompt(state, frames[1], "a", points=[[12, 13]], frame_index=1)
    state = tracker.remove(state, "b")
    mask = np.zeros(SIZE, bool)
    mask[10:30, 15:40] = True
    state = tracker.prompt(state, tracker.encode(frames[3]), 7, mask=mask)
    for backward in (False, True):
        state, found = tracker.step(state, frames[3], backward=backward)
        yield f"step after, {backward}", (found.logits, found.object_scores, found.scores)
    yield "state", state.bank


def short_tracker_calls(tracker: Tracker) -> Iterator[tuple[str, Any]]:
    """A click, and two frames: what `tracker_calls` compiles most for."""
    state = tracker.prompt(tracker.start(SIZE), picture(), "a", points=[[30, 20]])
    for seed in range(2):
        state, found = tracker.step(state, picture(seed))
        yield f"step {seed}", (found.logits, found.object_scores, found.scores)


def compat_calls(sam: compat.Sam) -> Iterator[tuple[str, Any]]:
    """What the original's classes do."""
    predictor = compat.SamPredictor(sam)
    predictor.set_image(picture())
    yield "features", predictor.features
    points, labels = np.array([[30, 20], [5, 5]]), np.array([1, 0])
    side = sam.prompt_encoder.mask_input_size[0]
    low_res = np.linspace(-3, 3, side * side, dtype=np.float32).reshape(1, side, side)
    for multimask in (True, False):
        yield f"points {multimask}", predictor.predict(points, labels, multimask_output=multimask)
    yield "box and mask", predictor.predict(box=np.array([10, 10, 40, 30]), mask_input=low_res)
    boxes = predictor.transform.apply_boxes_torch(np.array([[1, 2, 9, 9], [3, 3, 30, 20]]), SIZE)
    yield "boxes", predictor.predict_torch(None, None, boxes)
    yield "no boxes", predictor.predict_torch(None, None, boxes[:0])
    batch = [
        {
            "image": np.moveaxis(predictor.transform.apply_image(picture(i)), -1, 0),
            "original_size": SIZE,
            "boxes": boxes,
        }
        for i in range(2)
    ]
    yield "batch", [list(one.values()) for one in sam(batch, True)]
    generator = compat.SamAutomaticMaskGenerator(sam, **EVERYTHING)
    yield "generated", _generated(generator.generate(picture()))


def short_compat_calls(sam: compat.Sam) -> Iterator[tuple[str, Any]]:
    """A box, and everything: what `compat_calls` and a Segmenter have in common."""
    predictor = compat.SamPredictor(sam)
    predictor.set_image(picture())
    yield "box", predictor.predict(box=np.array([10, 10, 40, 30]))
    generator = compat.SamAutomaticMaskGenerator(sam, **EVERYTHING)
    yield "generated", _generated(generator.generate(picture()))


def pure_calls() -> Iterator[tuple[str, Any]]:
    """The models as functions, under a `jit`, `vmap` and `grad` of the caller's."""
    points = np.array([[[[20.0, 30.0], [4.0, 5.0]]]], np.float32)
    labels = np.array([[[1, 0]]], np.int32)
    boxes = np.array([[[3.0, 4.0, 30.0, 40.0]]], np.float32)
    masks = np.linspace(-3, 3, 16 * 16, dtype=np.float32).reshape(1, 1, 16, 16)
    for config in (SMALL_SAM, SMALL_HYBRID):
        model, params = Sam(config), jax.device_put(sam_variables(config))
        images = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
        encode = jax.jit(lambda params, x, m=model: m.apply(params, x, method="encode_image"))
        features = encode(params, images)
        yield f"{config.name} features", features
        decode = jax.jit(lambda params, x, p, m=model: m.apply(params, x, p, None, method="decode"))
        low = jnp.asarray(masks)
        if config is SMALL_HYBRID:
            low = jnp.repeat(jnp.repeat(low, 2, axis=2), 2, axis=3)
        prompts = Prompts(points, labels, boxes, low)
        yield f"{config.name} decoded", decode(params, features, prompts)

        def confidence(xy, model=model, params=params, features=features):
            click = Prompts(points=xy[None, None, None], labels=jnp.ones((1, 1, 1), jnp.int32))
            return model.apply(params, features, click, True, method="decode")[1].max()

        clicks = jnp.asarray([[20.0, 30.0], [5.0, 6.0]], jnp.float32)
        yield f"{config.name} slopes", jax.jit(jax.vmap(jax.value_and_grad(confidence)))(clicks)
    model2, variables = Sam2(SMALL_SAM2), jax.device_put(small_variables())
    images = np.random.default_rng(0).normal(size=(1, 128, 128, 3)).astype(np.float32)
    whole = jax.jit(lambda params, x, p: model2.apply(params, x, p))
    decoded = whole(variables, images, Prompts(points, labels, boxes))
    yield "sam2", (decoded.logits, decoded.iou, decoded.tokens, decoded.object_score)


def training_calls() -> Iterator[tuple[str, Any]]:
    """Two updates of interactive training."""
    from sam_jax.sharding import make_mesh, split_heads
    from sam_jax.train.interactive.passes import InteractiveOptions
    from sam_jax.train.interactive.simulation import SimulationOptions
    from sam_jax.train.loop.optimizer import OptimizerOptions, make_optimizer
    from sam_jax.train.loop.step import initial_state, make_update
    from sam_jax.train.loop.tasks import interactive_loss

    config = SMALL_SAM
    variables = split_heads(config, sam_variables(config))
    masks = np.zeros((2, 2, 64, 64), bool)
    masks[:, 0, 10:30, 5:40] = masks[:, 1, 20:50, 20:40] = True
    batch = TrainingBatch(
        images=np.stack([picture(i, (64, 64)) for i in range(2)]),
        sizes_hw=np.array([[64, 50], [64, 64]], np.int32),
        masks=np.packbits(masks, axis=-1),
        weights=np.array([[1.0, 1.0], [1.0, 0.0]], np.float32),
    )
    options = InteractiveOptions(SimulationOptions(correction_points=1))
    optimizer = make_optimizer(
        OptimizerOptions(warmup_steps=0, learning_rate=1e-9), variables["params"], depth=2
    )
    # Flax's dropout draws other numbers under x64.
    model = Sam(config, drop_path=0.5)
    update = jax.jit(make_update(interactive_loss(model, options), optimizer, make_mesh(1, 1)))
    state = initial_state(variables, optimizer, seed=0)
    for _ in range(2):
        state, metrics = update(state, batch)
    yield "metrics", metrics
    yield "state", (state.step, state.params, state.opt_state)


def public_objects() -> dict[str, Any]:
    """One of each public kind, all of them in use already."""
    segmenter, tracker = small_segmenter("sam"), small_tracker()
    embedding = segmenter.encode(picture())
    prediction = segmenter.predict(embedding, points=[[30, 20]])
    state = tracker.prompt(tracker.start(SIZE), picture(), "a", points=[[30, 20]])
    state, tracked = tracker.step(state, picture())
    sam = compat.Sam(segmenter)
    predictor = compat.SamPredictor(sam)
    predictor.set_image(picture())
    assert prediction.masks.any() and tracked.masks.shape == (1, *SIZE)  # as they keep them
    return {
        "segmenter": segmenter,
        "compiled": segmenter.compiled,
        "embedding": embedding,
        "prediction": prediction,
        "masks": segmenter.generate_masks(embedding, **EVERYTHING),
        "tracker": tracker,
        "frame": tracker.encode(picture(1)),
        "state": state,
        "tracked": tracked,
        "sam": sam,
        "predictor": predictor,
        "generator": compat.SamAutomaticMaskGenerator(sam, **EVERYTHING),
        "model": (Sam(SMALL_SAM), Sam2(SMALL_SAM2), SMALL_SAM, SMALL_SAM2),
        "prompts": Prompts(jnp.ones((1, 1, 1, 2)), jnp.ones((1, 1, 1), jnp.int32)),
        "options": GenerateOptions(points_per_side=3),
    }


def answers(objects: dict[str, Any]) -> list[np.ndarray]:
    """What the objects of `public_objects` say, all of them asked together."""
    segmenter, tracker, sam = objects["segmenter"], objects["tracker"], objects["sam"]
    embedding, predictor = objects["embedding"], objects["predictor"]
    state, tracked = tracker.step(objects["state"], objects["frame"])
    model, model2, config, config2 = objects["model"]
    assert (model.config, model2.config) == (config, config2)
    assert sam.segmenter.params is segmenter.params is segmenter.compiled.params
    assert objects["options"].points_per_side == 3
    found = [
        segmenter.encode(picture(1)).features,
        segmenter.predict(embedding, points=[[30, 20]]).masks,
        objects["compiled"].encode([np.ones((64, 64, 3), np.float32)])[0],
        objects["prediction"].masks,
        _generated(objects["masks"].records()),
        tracked.logits,
        state.bank.recent.frame,
        objects["tracked"].masks,
        predictor.predict(box=np.array([10, 10, 40, 30])),
        _generated(objects["generator"].generate(picture())),
        objects["prompts"],
    ]
    return [np.asarray(leaf) for leaf in jax.tree.leaves(found)]


CALLS: dict[str, Callable[[], Iterator[tuple[str, Any]]]] = {
    "sam": lambda: segmenter_calls(small_segmenter("sam")),
    "sam in bfloat16": lambda: segmenter_calls(small_segmenter("sam", dtype=jnp.bfloat16)),
    "hybrid": lambda: segmenter_calls(small_segmenter("hybrid")),
    "sam2": lambda: segmenter_calls(small_segmenter("sam2")),
    "tracker": lambda: tracker_calls(small_tracker()),
    "compat": lambda: compat_calls(compat.Sam(small_segmenter("sam"))),
    "pure": pure_calls,
    "training": training_calls,
}


# A part of these, for where all of them would take too long.
SHORT_CALLS: dict[str, Callable[[], Iterator[tuple[str, Any]]]] = {
    "short tracker": lambda: short_tracker_calls(small_tracker()),
    "short compat": lambda: short_compat_calls(compat.Sam(small_segmenter("sam"))),
}


def results(name: str) -> dict[str, np.ndarray]:
    """What the calls of a name give, array by array."""
    found = {}
    for call, value in {**CALLS, **SHORT_CALLS}[name]():
        for i, leaf in enumerate(jax.tree.leaves(value)):
            array = np.asarray(leaf)
            if array.dtype.name == "bfloat16":
                array = array.astype(np.float32)
            found[f"{name}: {call}, {i}"] = array
    return found


if __name__ == "__main__":
    merged = {k: v for name in sys.argv[2:] or CALLS for k, v in results(name).items()}
    np.savez(sys.argv[1], **merged)
