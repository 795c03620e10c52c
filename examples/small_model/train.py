"""Trains a small Segment Anything from scratch on drawn scenes, on the CPU.

    python examples/small_model/train.py --output runs/tiny --minutes 55

The paper's interactive recipe in small: a point or a noisy box, then a click into the error with
the mask fed back. Most of the time goes to scenes of half the model's side, which are cheaper; the
last part runs at full size. Interrupt it at any time: the same command goes on where it was saved.
`--evaluate CHECKPOINT` scores a checkpoint on scenes that training never saw.

Needs SciPy. On one core that other work shared, 55 minutes were 1,148 updates, about 16,000 scenes:
enough for a preview (docs/model_card_tiny.md), far from enough for more.
"""

import argparse
import pickle
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Bool, Float, Int
from scenes import Batch, draw_batch
from tqdm import tqdm

from sam_jax.checkpoints import load_checkpoint, save_checkpoint
from sam_jax.configs import TINY, SamConfig
from sam_jax.models.sam import Sam
from sam_jax.types import LABEL_ABSENT, Params, Prompts

CORRECTIONS = 1  # clicks into the error after the first prompt; the paper makes 8
# Plain cross-entropy where the paper has focal loss: with a thousandth of its updates, the easy
# pixels must pull too. Dice as in the paper.
ENTROPY_WEIGHT, DICE_WEIGHT = 2.0, 1.0
PEAK_LEARNING_RATE, WARM_UP_STEPS = 1e-3, 150
# (share of the time after which it ends, side of the scenes, scenes an update); 4 masks a scene.
STAGES = ((0.75, 128, 16), (1.0, 256, 6))
MASKS_PER_SCENE = 4


def normalise(
    images: Array, size_hw: Int[Array, "B 2"], config: SamConfig
) -> Float[Array, "B S S 3"]:
    """Model input from uint8 images; what lies beyond `size_hw` becomes zero, as in inference."""
    mean, std = jnp.array(config.pixel_mean), jnp.array(config.pixel_std)
    index = jnp.arange(images.shape[1])
    rows, columns = (index < size_hw[:, :1]), (index < size_hw[:, 1:])
    return (images - mean) / std * (rows[:, :, None] & columns[:, None, :])[..., None]


def click(key: Array, region: Bool[Array, "B P h w"], targets: Bool[Array, "B P h w"]):
    """A pixel drawn from each region (from anywhere if it is empty): image (x, y) and its label."""
    width = region.shape[-1]
    chance = jax.random.uniform(key, region.shape) * jnp.where(region, 1.0, 1e-3)
    flat = chance.reshape(*chance.shape[:2], -1).argmax(-1)
    labels = jnp.take_along_axis(targets.reshape(chance.shape[:2] + (-1,)), flat[..., None], -1)
    xy = jnp.stack([flat % width, flat // width], -1)
    return 2.0 * xy + 0.5, labels[..., 0].astype(jnp.int32)


def noisy_boxes(
    key: Array, targets: Bool[Array, "B P h w"], noise: float = 0.1
) -> Float[Array, "B P 4"]:
    """Tight boxes with noise: a tenth of the side, 2% of the image at most (SAM, appendix A)."""
    size = 2 * targets.shape[-1]
    columns, rows = targets.any(2), targets.any(3)
    low = jnp.stack([columns.argmax(-1), rows.argmax(-1)], -1) * 2.0
    high = size - jnp.stack([columns[..., ::-1].argmax(-1), rows[..., ::-1].argmax(-1)], -1) * 2.0
    offset = noise * jnp.tile(high - low, 2) * jax.random.normal(key, (*targets.shape[:2], 4))
    boxes = jnp.concatenate([low, high], -1) + jnp.clip(offset, -0.02 * size, 0.02 * size)
    return jnp.clip(boxes, 0, size)


def first_prompts(key: Array, targets: Bool[Array, "B P h w"]):
    """Half points, half boxes, as two tokens each: points [B, P, 2, 2] and labels [B, P, 2]."""
    keys = jax.random.split(key, 3)
    xy, labels = click(keys[0], targets, targets)
    point = jnp.stack([xy, jnp.zeros_like(xy)], 2)
    point_labels = jnp.stack([labels, jnp.full_like(labels, LABEL_ABSENT)], -1)
    corners = noisy_boxes(keys[1], targets).reshape(*xy.shape[:2], 2, 2)
    boxed = jax.random.bernoulli(keys[2], shape=xy.shape[:2])[..., None]
    return jnp.where(boxed[..., None], corners, point), jnp.where(
        boxed, jnp.arange(2, 4), point_labels
    )


def mask_losses(logits: Float[Array, "B P M h w"], targets: Bool[Array, "B P 1 h w"]):
    """Weighted cross-entropy + dice of every mask, and its true IoU, each [B, P, M]."""
    target = targets.astype(jnp.float32)
    probability = jax.nn.sigmoid(logits)
    entropy = jax.nn.softplus(jnp.where(targets, -logits, logits))
    overlap = (probability * target).sum((-2, -1))
    dice = 1 - (2 * overlap + 1) / (probability.sum((-2, -1)) + target.sum((-2, -1)) + 1)
    chosen = logits > 0
    iou = (chosen & targets).sum((-2, -1)) / jnp.maximum((chosen | targets).sum((-2, -1)), 1)
    return ENTROPY_WEIGHT * entropy.mean((-2, -1)) + DICE_WEIGHT * dice, iou


def interactive_loss(params: Params, model: Sam, batch: Batch, key: Array):
    """The paper's loop in small: first prompt, then clicks into the error with the mask fed back.

    Returns:
      The loss summed over rounds, and the mean IoU after each round.
    """
    keys = jax.random.split(key, CORRECTIONS + 2)
    embedding = model.apply(
        params, normalise(batch.images, batch.size_hw, model.config), method="encode_image"
    )
    targets = batch.masks
    absent = jnp.full((*targets.shape[:2], CORRECTIONS), LABEL_ABSENT)
    points, labels = first_prompts(keys[0], targets)
    points = jnp.concatenate([points, jnp.zeros((*absent.shape, 2))], 2)
    labels = jnp.concatenate([labels, absent], 2)
    # In part of the second rounds nothing new is given: the single mask must do with one prompt.
    alone = jax.random.bernoulli(keys[1], 0.25, targets.shape[:2])
    previous, present, total, ious = None, None, 0.0, []
    for i in range(CORRECTIONS + 1):
        prompts = Prompts(points=points, labels=labels, masks=previous, mask_present=present)
        decode = partial(model.apply, method="decode")
        logits, predicted = decode(params, embedding, prompts, i == 0)
        losses, iou = mask_losses(logits, targets[:, :, None])
        # Only the best of three masks learns; a touch of the others keeps them from dying.
        total += losses.min(-1).mean() + (0.05 * losses.mean() if i == 0 else 0.0)
        # All predicted IoUs learn, as SAM 2 does it: the ranking of the three is what is used.
        total += ((predicted - jax.lax.stop_gradient(iou)) ** 2).mean()
        best = predicted.argmax(-1)[..., None]
        ious.append(jnp.take_along_axis(iou, best, -1).mean())
        previous = jax.lax.stop_gradient(
            jnp.take_along_axis(logits, best[..., None, None], 2)[:, :, 0]
        )
        if i < CORRECTIONS:
            xy, label = click(keys[2 + i], (previous > 0) != targets, targets)
            present = ~alone if i == 0 else jnp.ones_like(alone)
            label = jnp.where(present, label, LABEL_ABSENT)
            points, labels = points.at[:, :, 2 + i].set(xy), labels.at[:, :, 2 + i].set(label)
    return total, jnp.stack(ious)


@struct.dataclass
class TrainState:
    """Everything a run needs to go on: saved and resumed as one."""

    step: Int[Array, ""]
    variables: Params  # {"params", "constants"}; the optimiser sees the first only
    optimizer: Any


def make_optimizer() -> optax.GradientTransformation:
    """AdamW without its learning rate, which follows the clock; no decay on norms and biases."""

    def decayed(params):
        return jax.tree.map(lambda x: x.ndim > 1, params)

    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.scale_by_adam(b2=0.99),
        optax.add_decayed_weights(0.03, mask=decayed),
    )


def initial_state(config: SamConfig, optimizer: optax.GradientTransformation) -> TrainState:
    """A fresh model and optimiser."""
    image = jnp.zeros((1, config.image_size, config.image_size, 3))
    prompts = Prompts(points=jnp.zeros((1, 1, 1, 2)), labels=jnp.zeros((1, 1, 1), jnp.int32))
    variables = jax.jit(Sam(config).init)(jax.random.key(0), image, prompts)
    return TrainState(jnp.array(0), variables, optimizer.init(variables["params"]))


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def update(
    model: Sam,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batch: Batch,
    learning_rate: Float[Array, ""],
):
    """One update: (state, batch) -> (state, loss, mean IoU after each round)."""

    def loss_of(params):
        variables = {**state.variables, "params": params}
        key = jax.random.fold_in(jax.random.key(1), state.step)
        return interactive_loss(variables, model, batch, key)

    params = state.variables["params"]
    (loss, ious), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
    changes, optimizer_state = optimizer.update(gradients, state.optimizer, params)
    params = optax.apply_updates(params, jax.tree.map(lambda x: -learning_rate * x, changes))
    variables = {**state.variables, "params": params}
    return TrainState(state.step + 1, variables, optimizer_state), loss, ious


def batches(seed: int, start: int, progress) -> Iterator[Batch]:
    """Batches from one process that draws ahead; `progress()` tells the share of time used."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:

        def submit(step):
            _, side, count = next(
                stage for stage in STAGES if progress() < stage[0] or stage is STAGES[-1]
            )
            return pool.submit(draw_batch, seed, step, count, MASKS_PER_SCENE, side)

        queue = [submit(start + i) for i in range(4)]
        while True:
            batch = queue.pop(0).result()
            start += 1
            queue.append(submit(start + 3))
            yield batch


def train(folder: Path, minutes: float, config: SamConfig = TINY, seed: int = 7) -> None:
    """Trains for some minutes of running time in all; saves every two minutes and at the end."""
    model, optimizer = Sam(config), make_optimizer()
    saved = folder / "state.pickle"
    folder.mkdir(parents=True, exist_ok=True)
    spent, state = 0.0, None
    if saved.exists():
        spent, state = pickle.loads(saved.read_bytes())
    state = initial_state(config, optimizer) if state is None else jax.tree.map(jnp.asarray, state)
    start = time.monotonic() - spent

    def progress():
        return (time.monotonic() - start) / (60 * minutes)

    def save():
        part = saved.with_suffix(".part")
        part.write_bytes(pickle.dumps((time.monotonic() - start, jax.tree.map(np.asarray, state))))
        part.replace(saved)

    step, last_save = int(state.step), time.monotonic()
    bar = tqdm(batches(seed, step, progress), initial=step, unit="update", mininterval=10)
    for batch in bar:
        share = min(progress(), 1.0)
        cosine = 0.03 + 0.97 * 0.5 * (1 + np.cos(np.pi * share))
        rate = PEAK_LEARNING_RATE * min(1, (step + 1) / WARM_UP_STEPS) * cosine
        state, loss, ious = update(model, optimizer, state, batch, jnp.float32(rate))
        step += 1
        bar.set_postfix(loss=f"{loss:.2f}", iou=np.round(ious, 2).tolist(), done=f"{share:.0%}")
        if time.monotonic() - last_save > 120 or share >= 1:
            save()
            last_save = time.monotonic()
        if share >= 1:
            break
    source = {"trained_with": "examples/small_model/train.py", "updates": step, "seed": seed}
    save_checkpoint(
        folder / "checkpoint", config, state.variables, source, dtype=jnp.float16, overwrite=True
    )
    print(f"{folder / 'checkpoint'}: {step} updates")


def evaluate(checkpoint: Path, scenes: int = 64, seed: int = 1_000_003) -> dict[str, float]:
    """Mean IoU on scenes of another seed: one click (best by score, best of three), and a box."""
    loaded = load_checkpoint(checkpoint)
    model, params = Sam(loaded.config), loaded.params
    scores: dict[str, list[float]] = {"click": [], "click_oracle": [], "box": []}
    predicted_and_real: list[tuple[float, float]] = []

    @jax.jit
    def decode(batch, key):
        images = normalise(batch.images, batch.size_hw, loaded.config)
        embedding = model.apply(params, images, method="encode_image")
        xy, labels = click(key, batch.masks, batch.masks)
        prompts = {
            "click": Prompts(points=xy[:, :, None], labels=labels[:, :, None]),
            "box": Prompts(boxes=noisy_boxes(key, batch.masks, noise=0.0)),
        }
        out = {}
        for name, prompt in prompts.items():
            logits, predicted = model.apply(
                params, embedding, prompt, name == "click", method="decode"
            )
            out[name] = (mask_losses(logits, batch.masks[:, :, None])[1], predicted)
        return out

    for step in range(scenes // 4):
        batch = draw_batch(seed, step, 4, MASKS_PER_SCENE, loaded.config.image_size)
        out = jax.tree.map(np.asarray, decode(batch, jax.random.key(step)))
        real, predicted = out["click"]
        best = predicted.argmax(-1)[..., None]
        scores["click"] += np.take_along_axis(real, best, -1).ravel().tolist()
        scores["click_oracle"] += real.max(-1).ravel().tolist()
        scores["box"] += out["box"][0].ravel().tolist()
        predicted_and_real += zip(predicted.ravel().tolist(), real.ravel().tolist(), strict=True)
    result = {name: float(np.mean(values)) for name, values in scores.items()}
    ranks = np.argsort(np.argsort(np.array(predicted_and_real), axis=0), axis=0)
    result["rank_correlation"] = float(np.corrcoef(ranks.T)[0, 1])
    return result


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/tiny"))
    parser.add_argument("--minutes", type=float, default=55)
    parser.add_argument("--evaluate", type=Path, metavar="CHECKPOINT")
    args = parser.parse_args(argv)
    if args.evaluate:
        for name, value in evaluate(args.evaluate).items():
            print(f"{name}: {value:.3f}")
    else:
        train(args.output, args.minutes)


if __name__ == "__main__":
    main()
