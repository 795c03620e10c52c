"""Procedural scenes a second, and a sheet of them to look at.

    python benchmarks/scenes.py [--sizes 256 1024] [--batches 1 8] [--sheet docs/images/scenes.jpg]

For every size and batch: seconds to compile, and images a second over batches drawn one after the
other, the median of --rounds. The sheet has pictures of training kinds above and the same with the
outlines of their masks below: wholes yellow, parts cyan, parts of parts magenta, background white.
"""

import argparse
import statistics
import time
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from sam_jax.data.scenes.batches import SceneBatches
from sam_jax.data.scenes.scenes import Scene, SceneOptions, scene
from sam_jax.files import written_aside

# By level: wholes, parts, parts of parts, background.
COLOURS = np.array([[255, 220, 0], [0, 230, 255], [255, 60, 220], [255, 255, 255]], np.uint8)


def measure(options: SceneOptions, batch_size: int, rounds: int) -> None:
    batches = SceneBatches(options, seed=0, batch_size=batch_size)
    start = time.perf_counter()
    jax.block_until_ready(next(batches))
    first = time.perf_counter() - start
    readings = []
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(next(batches))
        readings.append(time.perf_counter() - start)
    rate = batch_size / statistics.median(readings)
    side = options.image_size
    print(f"{side}x{side}, batch {batch_size}: {rate:.1f} images/s, first batch {first:.1f} s")


def outlined(drawn: Scene) -> np.ndarray:
    """The image with the inner border of every mask that has weight, larger ones first."""
    image = np.array(drawn.image)
    masks = np.asarray(drawn.masks)[np.asarray(drawn.weights) > 0]
    levels = np.asarray(drawn.levels)[np.asarray(drawn.weights) > 0]
    for k in np.argsort(-masks.sum(axis=(1, 2))):
        padded = np.pad(masks[k], 1)
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        image[masks[k] & ~inner] = COLOURS[levels[k]]
    return image


def sheet(options: SceneOptions, seed: int, across: int, down: int) -> Image.Image:
    """Scenes of a seed side by side, each above its outlines."""
    draw = jax.jit(lambda i: scene(jax.random.fold_in(jax.random.key(seed), i), options))
    rows = []
    for row in range(down):
        drawn = [jax.device_get(draw(row * across + column)) for column in range(across)]
        rows.append(np.concatenate([one.image for one in drawn], axis=1))
        rows.append(np.concatenate([outlined(one) for one in drawn], axis=1))
    return Image.fromarray(np.concatenate(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=[256])
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sheet", type=Path, help="write a sheet of scenes to this JPEG file")
    parser.add_argument("--seed", type=int, default=0, help="of the sheet")
    parser.add_argument("--across", type=int, default=5)
    parser.add_argument("--down", type=int, default=3)
    args = parser.parse_args()
    for side in args.sizes:
        for batch_size in args.batches:
            measure(SceneOptions(image_size=side), batch_size, args.rounds)
    if args.sheet:
        picture = sheet(SceneOptions(), args.seed, args.across, args.down)
        with written_aside(args.sheet) as file:
            picture.save(file, "jpeg", quality=60)
        print(f"wrote {args.sheet}")


if __name__ == "__main__":
    main()
