"""Points, boxes and a second look: segment one photo the way a person clicks.

python examples/points_and_boxes.py examples/photos/coffee.jpg
"""

import argparse

import numpy as np

import sam_jax


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", nargs="?", default="examples/photos/coffee.jpg")
    parser.add_argument("--checkpoint", default="tiny")
    args = parser.parse_args(argv)

    segmenter = sam_jax.Segmenter.load(args.checkpoint)
    # Encoding is the slow part. It happens once; every prompt below reuses the embedding.
    embedding = segmenter.encode(args.image)
    height, width = embedding.size_hw

    # One click is ambiguous: a part, the object, or the group it stands in? Ask for all three.
    centre = [width / 2, height / 2]
    clicked = segmenter.predict(embedding, points=[centre], labels=[1])
    for score, mask in zip(clicked.scores[0], clicked.masks[0], strict=True):
        print(f"click: predicted IoU {score:.2f}, {mask.mean():.1%} of the image")

    # A second click says "not this". The best mask so far goes back in as logits.
    _, best = next(clicked.best())
    corrected = segmenter.predict(
        embedding,
        points=[centre, [1, 1]],
        labels=[1, 0],
        masks=clicked.logits[0, best],
        multimask=False,
    )
    print(f"after a background click: {corrected.masks[0, 0].mean():.1%} of the image")

    # Several boxes are several objects, decoded in one call.
    boxes = np.array([[0, 0, width / 2, height], [width / 2, 0, width, height]])
    boxed = segmenter.predict(embedding, boxes=boxes, multimask=False)
    for box, mask in zip(boxes, boxed.masks[:, 0], strict=True):
        print(f"box {box.astype(int).tolist()}: {mask.mean():.1%} of the image")


if __name__ == "__main__":
    main()
