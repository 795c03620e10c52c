"""Fine-tunes the mask decoder on a real photo: coins, some to learn from, others to be tested on.

    python examples/fine_tune.py

About a minute on two CPU cores. The image encoder runs once for each training picture; after that a
step is the decoder alone. Needs more than the library: pip install scikit-image
"""

import argparse
from pathlib import Path

import jax
import numpy as np

import sam_jax
from sam_jax.adapters import save_adapter
from sam_jax.checkpoints import load_checkpoint
from sam_jax.data.samples import Sample
from sam_jax.data.transforms import FrameOptions
from sam_jax.formats.overlay import draw_overlay, side_by_side
from sam_jax.formats.rle import encode_rle
from sam_jax.models.sam import Sam
from sam_jax.registry import checkpoint_path
from sam_jax.sharding import make_mesh
from sam_jax.train.interactive import InteractiveOptions
from sam_jax.train.optimizer import OptimizerOptions, make_optimizer
from sam_jax.train.placement import compile_update
from sam_jax.train.simulation import SimulationOptions
from sam_jax.train.step import initial_state, make_update
from sam_jax.train.tasks import embedded_loss
from sam_jax.train.tune import divide, tuned_loss
from sam_jax.train.tune_embeddings import EmbeddingCache, embed_samples

PICTURES, BATCH, MASKS = 32, 4, 4


def coins() -> tuple[np.ndarray, np.ndarray]:
    """The photo, and the number of its coin (0: none) for every pixel."""
    from scipy import ndimage
    from skimage import data, filters, segmentation

    photo = data.coins()
    # Seeds that are surely background or coin grow up to the edges between them.
    seeds = np.where(photo < 30, 1, 0) + np.where(photo > 150, 2, 0)
    found = ndimage.binary_fill_holes(segmentation.watershed(filters.sobel(photo), seeds) == 2)
    labels, _ = ndimage.label(ndimage.binary_opening(found, iterations=3))
    return np.repeat(photo[..., None], 3, axis=2), labels


def crops(photo: np.ndarray, labels: np.ndarray, count: int) -> list[Sample]:
    """Random parts of a picture, half of them mirrored, with the coins that are whole in them."""
    rng, samples = np.random.default_rng(0), []
    height, width = labels.shape
    sizes = np.bincount(labels.ravel())
    while len(samples) < count:
        side = int(rng.integers(height * 2 // 3, height + 1))
        top, left = rng.integers(0, [height - side + 1, width - side + 1])
        part = (slice(top, top + side), slice(left, left + side))
        if rng.random() < 0.5:
            part = (part[0], slice(left + side - 1, left - 1 if left else None, -1))
        image, there = photo[part], labels[part]
        whole = [n for n in np.unique(there[there > 0]) if (there == n).sum() == sizes[n]]
        if whole:
            masks = [encode_rle(there == n) for n in whole]
            samples.append(Sample(f"crop {len(samples)}", image.copy(), (side, side), masks))
    return samples


def one_click(segmenter: sam_jax.Segmenter, photo: np.ndarray, labels: np.ndarray):
    """The best-rated mask for a click into the middle of each coin, and its IoU with the coin."""
    numbers = np.unique(labels[labels > 0])
    coins = np.stack([labels == n for n in numbers])
    middles = np.array([np.argwhere(coin).mean(axis=0)[::-1] for coin in coins])
    found = segmenter.predict(
        segmenter.encode(photo), points=middles[:, None], labels=np.ones((len(numbers), 1), int)
    )
    masks = np.stack([found.masks[i, best] for i, best in enumerate(found.scores.argmax(axis=1))])
    both, either = (masks & coins).sum(axis=(1, 2)), (masks | coins).sum(axis=(1, 2))
    return masks, middles, both / either


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="tiny")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--output", type=Path, default=Path("fine_tuned"))
    args = parser.parse_args(argv)

    photo, labels = coins()
    half = len(photo) // 2
    upper, lower = (photo[:half], labels[:half]), (photo[half:], labels[half:])
    base = load_checkpoint(checkpoint_path(args.checkpoint))
    before = sam_jax.Segmenter(base.config, base.params)
    masks_before, clicks, iou_before = one_click(before, *lower)
    print(f"before: mean IoU {iou_before.mean():.3f} from one click, {len(clicks)} coins not seen")

    # The slow part, once: the training pictures' embeddings.
    model = Sam(base.config)
    frame = FrameOptions(image_size=base.config.image_size, max_masks=MASKS)
    cache = EmbeddingCache(model, lambda: base.params)
    pictures = embed_samples(cache, crops(*upper, PICTURES), frame)

    # What is trained (the mask decoder) apart from what stays.
    variables = divide(base.params, without_encoder=True)
    rule = OptimizerOptions(
        learning_rate=5e-4, steps=args.steps, warmup_steps=10, schedule="cosine", layer_decay=1.0
    )
    optimizer = make_optimizer(rule, variables["params"], base.config.image_encoder.depth)
    state = initial_state(variables, optimizer, seed=0)
    passes = InteractiveOptions(SimulationOptions(box_probability=0.2, correction_points=1))
    loss = tuned_loss(embedded_loss(model, passes))
    mesh = make_mesh(1, devices=jax.devices()[:1])
    update = compile_update(make_update(loss, optimizer, mesh), state, mesh)
    rng = np.random.default_rng(0)
    for step in range(1, args.steps + 1):
        chosen = rng.choice(PICTURES, BATCH, replace=False)
        batch = jax.tree.map(lambda x, chosen=chosen: x[chosen], pictures)
        state, metrics = update(state, batch)
        if step % 25 == 0 or step == args.steps:
            print(f"step {step}: loss {float(metrics['loss']):.3f}")

    # An adapter is as small as what was trained; Segmenter.load(..., adapter=) merges it again.
    adapter = args.output / "adapter"
    save_adapter(adapter, base.fingerprint, jax.device_get(state.params), overwrite=True)
    after = sam_jax.Segmenter.load(args.checkpoint, adapter=adapter)
    masks_after, clicks, iou_after = one_click(after, *lower)
    print(f"after: mean IoU {iou_after.mean():.3f}")
    pair = [
        draw_overlay(lower[0], masks, points=clicks, labels=np.ones(len(clicks), int))
        for masks in (masks_before, masks_after)
    ]
    picture = args.output / "before_and_after.png"
    side_by_side(pair, max_side=768).save(picture)
    print(f"the adapter is in {adapter}, a picture in {picture}")


if __name__ == "__main__":
    main()
