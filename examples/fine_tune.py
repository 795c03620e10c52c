"""Fine-tunes a model on a real photo: coins, some to learn from, others to be tested on.

python examples/fine_tune.py --method decoder

About a minute on two CPU cores. With --method lora the image encoder learns too: better, and
somewhat slower. The example needs more than the library itself:
pip install "sam-jax[train]" scikit-image
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import sam_jax
from sam_jax.checkpoints import read_info
from sam_jax.formats.overlay import draw_overlay, side_by_side
from sam_jax.formats.rle import encode_rle
from sam_jax.formats.sa1b import write_sa1b
from sam_jax.registry import checkpoint_path
from sam_jax.train.config import config_from_values
from sam_jax.train.runs import train_run


def coins() -> tuple[np.ndarray, np.ndarray]:
    """The photo, and the number of its coin (0: none) for every pixel."""
    try:
        from skimage import data, filters, measure, morphology, segmentation
    except ImportError:
        raise SystemExit("the photo comes with scikit-image: pip install scikit-image") from None
    from scipy.ndimage import binary_fill_holes

    photo = data.coins()
    # Seeds that are surely background or coin grow up to the edges between them.
    seeds = np.where(photo < 30, 1, 0) + np.where(photo > 150, 2, 0)
    grown = binary_fill_holes(segmentation.watershed(filters.sobel(photo), seeds) == 2)
    labels = measure.label(morphology.opening(grown, morphology.disk(3)))
    return np.repeat(photo[..., None], 3, axis=2), labels


def write_crops(folder: Path, photo: np.ndarray, labels: np.ndarray, count: int) -> None:
    """Random parts of a photo with the coins that are whole in them, in SA-1B's layout."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    height, width = labels.shape
    sizes = np.bincount(labels.ravel())
    number = 0
    while number < count:
        size_hw = rng.integers([height * 2 // 3, width * 2 // 3], [height + 1, width + 1])
        top, left = rng.integers(0, [height, width] - size_hw + 1)
        rows, columns = slice(top, top + size_hw[0]), slice(left, left + size_hw[1])
        step = int(rng.choice([-1, 1]))  # half of them are mirrored
        image, there = photo[rows, columns][:, ::step], labels[rows, columns][:, ::step]
        masks = [there == n for n in range(1, len(sizes)) if (there == n).sum() == sizes[n]]
        if masks:
            number += 1
            Image.fromarray(image).save(folder / f"{number}.png")
            path, name = folder / f"{number}.json", f"{number}.png"
            write_sa1b(
                path,
                [record(mask) for mask in masks],
                file_name=name,
                size_hw=there.shape,
                image_id=number,
            )


def record(mask: np.ndarray) -> dict:
    """A true mask as SA-1B has it."""
    ys, xs = np.nonzero(mask)
    x, y = int(xs.min()), int(ys.min())
    return {
        "segmentation": encode_rle(mask),
        "area": int(mask.sum()),
        "bbox": [x, y, int(xs.max()) - x + 1, int(ys.max()) - y + 1],
        "predicted_iou": 1.0,
        "stability_score": 1.0,
        "crop_box": [0, 0, mask.shape[1], mask.shape[0]],
        "point_coords": [[float(x), float(y)]],
    }


def settings(checkpoint: str, data: Path, method: str, steps: int) -> dict:
    """What a TOML file for `sam-jax train` would say."""
    return {
        "model": {
            "name": read_info(checkpoint_path(checkpoint)).config.name,
            "checkpoint": checkpoint,
            "dtype": "float32",
            "drop_path": 0.0,
            "decoder_dropout": 0.0,
        },
        "data": {"path": str(data), "batch_size": 2, "max_masks": 4, "workers": 0},
        "optimizer": {
            "learning_rate": 5e-4,
            "steps": steps,
            "warmup_steps": 10,
            "schedule": "cosine",
        },
        "simulation": {"box_probability": 0.2, "correction_points": 0},
        "tune": {
            "method": method,
            # The image encoder runs once for each image, if nothing in it is trained.
            "cached_embeddings": str(data / "embeddings") if method == "decoder" else "",
        },
        "run": {"log_every": 25, "picture_every": 0, "data": 1},
    }


def one_click(segmenter: sam_jax.Segmenter, photo: np.ndarray, labels: np.ndarray):
    """The best-rated mask for a click into the middle of each coin, and its IoU with the coin."""
    coins = np.stack([labels == n for n in np.unique(labels) if n])
    middles = np.array([np.argwhere(coin).mean(axis=0)[::-1] for coin in coins])
    found = segmenter.predict(
        segmenter.encode(photo), points=middles[:, None], labels=np.ones((len(coins), 1), int)
    )
    masks = found.masks[np.arange(len(coins)), found.scores.argmax(axis=1)]
    both, either = (masks & coins).sum(axis=(1, 2)), (masks | coins).sum(axis=(1, 2))
    picture = draw_overlay(photo, masks, points=middles, labels=np.ones(len(coins), int))
    return picture, both / either


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="tiny")
    parser.add_argument("--method", choices=["decoder", "lora"], default="decoder")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--output", type=Path, default=Path("fine_tuned"))
    args = parser.parse_args(argv)

    photo, labels = coins()
    half = len(photo) // 2
    unseen = photo[half:], labels[half:]
    before, iou = one_click(sam_jax.Segmenter.load(args.checkpoint), *unseen)
    print(f"before: mean IoU {iou.mean():.3f} from one click, {len(iou)} coins not trained on")

    crops, run = args.output / "crops", args.output / f"{args.method}_{args.steps}_steps"
    write_crops(crops, photo[:half], labels[:half], count=32)
    config = config_from_values(settings(args.checkpoint, crops, args.method, args.steps))
    train_run(config, run)

    adapter = run / "adapter"
    size = sum(file.stat().st_size for file in adapter.iterdir())
    after, iou = one_click(sam_jax.Segmenter.load(args.checkpoint, adapter=adapter), *unseen)
    print(f"after: mean IoU {iou.mean():.3f} with an adapter of {size / 1e6:.1f} MB, {adapter}")
    side_by_side([before, after], max_side=768).save(run / "before_and_after.png")
    print(f"a picture of both is {run / 'before_and_after.png'}")


if __name__ == "__main__":
    main()
