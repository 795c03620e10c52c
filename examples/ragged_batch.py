"""Images of different sizes, each with its own number of prompts and points, in one call.

python examples/ragged_batch.py
"""

import argparse

import sam_jax


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "images",
        nargs="*",
        default=["examples/photos/coffee.jpg", "examples/photos/chelsea.jpg"],
    )
    parser.add_argument("--checkpoint", default="tiny")
    args = parser.parse_args(argv)

    segmenter = sam_jax.Segmenter.load(args.checkpoint)
    embeddings = segmenter.encode(args.images)

    points, labels = [], []
    for i, embedding in enumerate(embeddings):
        height, width = embedding.size_hw
        # Image i gets i + 1 prompts, and its prompts have one, two, three, ... points.
        prompts = [
            [[width * (k + 1) / (n + 2), height / 2] for k in range(n + 1)] for n in range(i + 1)
        ]
        points.append(prompts)
        labels.append([[1] * len(prompt) for prompt in prompts])

    results = segmenter.predict(embeddings, points=points, labels=labels)
    for path, result in zip(args.images, results, strict=True):
        print(path)
        for prompt, best in result.best():
            mask = result.mask(prompt, best)
            score = result.scores[prompt, best]
            print(
                f"  prompt {prompt}: predicted IoU {score:.2f}, {mask.mean():.1%} of {mask.shape}"
            )


if __name__ == "__main__":
    main()
