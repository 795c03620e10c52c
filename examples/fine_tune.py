"""Fine-tunes a model on something it does not know: the words of a photographed page.

python examples/fine_tune.py

Two lines of text are learned from, the three below them are what the result is tested on: one click
in a word should give the word. About two minutes on two CPU cores. With --method lora the image
encoder learns too, which takes longer. The example needs more than the library itself:
pip install "sam-jax[train]" scikit-image
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import sam_jax
from sam_jax.checkpoints.native import read_info
from sam_jax.checkpoints.registry import checkpoint_path
from sam_jax.formats.coco import write_coco
from sam_jax.formats.overlay import draw_overlay, side_by_side
from sam_jax.formats.rle import encode_rle
from sam_jax.formats.sa1b import Sa1bImage
from sam_jax.train.config import config_from_values
from sam_jax.train.runs import train_run

# Rows of the page: where its text begins, the gap between the second and the third line, the end.
BEGIN, GAP, END = 45, 85, 140


def page() -> tuple[np.ndarray, np.ndarray]:
    """The photo, and the number of its word (0: none) for every pixel."""
    try:
        from skimage import data, filters, measure, morphology
    except ImportError:
        raise SystemExit("the photo comes with scikit-image: pip install scikit-image") from None

    photo = data.page()
    ink = photo < filters.threshold_local(photo, 51, offset=10)
    # Gaps between letters are closed; those between words are wider.
    words = measure.label(morphology.closing(ink, np.ones((5, 5))))
    for word in measure.regionprops(words):
        if word.area < 60:  # dirt, dots
            words[words == word.label] = 0
    return np.repeat(photo[..., None], 3, axis=2), words


def rows(photo: np.ndarray, words: np.ndarray, top: int, bottom: int):
    """Some rows of the photo, and the masks of the words that are whole in them."""
    part, sizes = words[top:bottom], np.bincount(words.ravel())
    whole = [n for n in np.unique(part) if n and (part == n).sum() == sizes[n]]
    return photo[top:bottom], np.stack([part == n for n in whole])


def write_training_set(folder: Path, photo: np.ndarray, words: np.ndarray, count: int) -> None:
    """The upper lines, higher and higher in the picture, as COCO: pictures and annotations.json."""
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for number in range(count):
        picture, masks = rows(photo, words, BEGIN - number, GAP)
        Image.fromarray(picture).save(folder / f"{number}.png")
        records = [{"segmentation": encode_rle(mask)} for mask in masks]
        images.append(Sa1bImage(f"{number}.png", picture.shape[:2], number, records))
    write_coco(folder / "annotations.json", images)


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
        "data": {"path": str(data), "batch_size": 2, "max_masks": 8, "workers": 0},
        "optimizer": {
            "learning_rate": 1e-3,
            "steps": steps,
            "warmup_steps": steps // 10,
            "schedule": "cosine",
        },
        "simulation": {"box_probability": 0.0, "correction_points": 0, "mask_only_passes": 0},
        "tune": {
            "method": method,
            # The image encoder runs once for each image, if nothing in it is trained.
            "cached_embeddings": str(data / "embeddings") if method == "decoder" else "",
        },
        "run": {"log_every": 20, "picture_every": 0, "data": 1},
    }


def one_click(segmenter: sam_jax.Segmenter, picture: np.ndarray, words: np.ndarray):
    """The best-rated mask for a click into the middle of each word, and its IoU with the word."""
    middles = np.array([np.argwhere(word).mean(axis=0)[::-1] for word in words])
    found = segmenter.predict(
        segmenter.encode(picture), points=middles[:, None], labels=np.ones((len(words), 1), int)
    )
    masks = found.masks[np.arange(len(words)), found.scores.argmax(axis=1)]
    both, either = (masks & words).sum(axis=(1, 2)), (masks | words).sum(axis=(1, 2))
    drawn = draw_overlay(picture, masks, points=middles, labels=np.ones(len(words), int))
    return drawn, both / either


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="tiny")
    parser.add_argument("--method", choices=["decoder", "lora"], default="decoder")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--output", type=Path, default=Path("fine_tuned"))
    args = parser.parse_args(argv)

    photo, words = page()
    unseen = rows(photo, words, GAP, END)
    before, iou = one_click(sam_jax.Segmenter.load(args.checkpoint), *unseen)
    print(f"before: mean IoU {iou.mean():.3f} from one click, {len(iou)} words not trained on")

    lines, run = args.output / "lines", args.output / f"{args.method}_{args.steps}_steps"
    write_training_set(lines, photo, words, count=24)
    config = config_from_values(settings(args.checkpoint, lines, args.method, args.steps))
    train_run(config, run)

    adapter = run / "adapter"
    size = sum(file.stat().st_size for file in adapter.iterdir())
    after, iou = one_click(sam_jax.Segmenter.load(args.checkpoint, adapter=adapter), *unseen)
    print(f"after: mean IoU {iou.mean():.3f} with an adapter of {size / 1e6:.1f} MB, {adapter}")
    side_by_side([before, after], max_side=768).save(run / "before_and_after.png")
    print(f"a picture of both is {run / 'before_and_after.png'}")


if __name__ == "__main__":
    main()
