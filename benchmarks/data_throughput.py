"""Images a second of the training data alone: read, decoded, resized, masks drawn, batched.

No model runs. Photos and masks are made up, of the size and number that SA-1B has: 1500 x 2250
pixels with about a hundred masks each, most of them small. Reading is from the file system's cache
after the first round.

    python benchmarks/data_throughput.py                  # 40 photos, about two minutes
    python benchmarks/data_throughput.py --workers 8 --workers 16 --images 200
"""

import json
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from PIL import Image

from sam_jax.data.layouts import open_dataset
from sam_jax.data.pipeline import training_batches
from sam_jax.data.transforms import FrameOptions
from sam_jax.formats.rle import encode_rle, mask_area, mask_box

SIZE_HW = (1500, 2250)


def photo(rng: np.random.Generator) -> Image.Image:
    """Smooth colors with some grain: a JPEG of about 700 kB, as those of SA-1B are."""
    height, width = SIZE_HW
    coarse = rng.integers(0, 256, (height // 30, width // 30, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    grain = rng.normal(0, 5, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8))


def mask(rng: np.random.Generator) -> np.ndarray:
    """A blob with a wavy outline; areas spread over more than three orders of magnitude."""
    height, width = SIZE_HW
    radius = 10 ** rng.uniform(1.0, 2.7)
    centre_y, centre_x = rng.uniform(0, height), rng.uniform(0, width)
    reach = int(1.6 * radius)
    top, left = max(0, int(centre_y) - reach), max(0, int(centre_x) - reach)
    y, x = np.ogrid[top : int(centre_y) + reach, left : int(centre_x) + reach]
    y, x = y - centre_y, x - centre_x
    angle = np.arctan2(y, x)
    waves = 1 + sum(
        0.1 * np.sin(count * angle + rng.uniform(0, 2 * np.pi)) for count in (2, 3, 5, 9, 17)
    )
    blob = (np.hypot(y, x) < radius * waves)[: height - top, : width - left]
    drawn = np.zeros(SIZE_HW, bool)
    drawn[top : top + blob.shape[0], left : left + blob.shape[1]] = blob
    return drawn


def make_dataset(folder: Path, images: int, masks: int) -> None:
    rng = np.random.default_rng(0)
    # Drawing them takes longest: photos share masks, each has its own hundred of them.
    drawn = []
    for number in range(2 * masks):
        each = mask(rng)
        drawn.append(
            {
                "id": number,
                "segmentation": encode_rle(each),
                "area": int(mask_area(each)),
                "bbox": mask_box(each).tolist(),
                "predicted_iou": 0.9,
                "stability_score": 0.95,
                "crop_box": [0, 0, SIZE_HW[1], SIZE_HW[0]],
                "point_coords": [[0.0, 0.0]],
            }
        )
    image = {"width": SIZE_HW[1], "height": SIZE_HW[0]}
    for number in range(images):
        name = f"sa_{number}"
        photo(rng).save(folder / f"{name}.jpg", quality=85)
        chosen = rng.choice(len(drawn), masks, replace=False)
        content = {
            "image": {"image_id": number, "file_name": f"{name}.jpg", **image},
            "annotations": [drawn[index] for index in chosen],
        }
        (folder / f"{name}.json").write_text(json.dumps(content))


@click.command(help=__doc__)
@click.option("--workers", multiple=True, default=(0, 1, 2), help="Worker processes; repeatable.")
@click.option("--images", default=40, help="Photos that are made, and read in each round.")
@click.option("--masks", default=100, help="Masks of each photo.")
@click.option("--max-masks", default=64, help="Masks that are taken of each photo.")
@click.option("--batch-size", default=4)
@click.option("--rounds", default=3, help="Timed after one that is not.")
def main(
    workers: tuple[int, ...], images: int, masks: int, max_masks: int, batch_size: int, rounds: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_dataset(Path(folder), images, masks)
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        dataset = open_dataset(folder)
        click.echo(f"{len(dataset)} images of {size / images / 1e3:.0f} kB with their JSON")
        steps = -(-images // batch_size)
        for count in workers:
            options = FrameOptions(max_masks=max_masks)
            with training_batches(
                dataset, options, batch_size=batch_size, workers=count
            ) as batches:
                seconds, own = [], []
                for _ in range(rounds + 1):
                    begin, own_begin = time.perf_counter(), time.process_time()
                    for _ in range(steps):
                        next(batches)
                    seconds.append(time.perf_counter() - begin)
                    own.append(time.process_time() - own_begin)
            rates = sorted(steps * batch_size / each for each in seconds[1:])
            click.echo(
                f"{count} workers: {rates[len(rates) // 2]:.1f} images a second "
                f"({rates[0]:.1f} to {rates[-1]:.1f} in {rounds} rounds); of this process "
                f"{1e3 * min(own[1:]) / steps / batch_size:.1f} ms of CPU time an image"
            )


if __name__ == "__main__":
    main()
