"""Encode once, keep the embedding, and prompt it later or on another machine.

python examples/saved_embeddings.py examples/photos/coffee.jpg
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

import sam_jax


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", nargs="?", default="examples/photos/coffee.jpg")
    parser.add_argument("--checkpoint", default="tiny")
    args = parser.parse_args(argv)

    segmenter = sam_jax.Segmenter.load(args.checkpoint)
    embedding = segmenter.encode(args.image)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.npz"
        embedding.save(path)
        print(f"{path.stat().st_size / 1e6:.2f} MB for an image of {embedding.size_hw}")
        loaded = sam_jax.ImageEmbedding.load(path)

    height, width = loaded.size_hw
    now = segmenter.predict(embedding, points=[[width / 2, height / 2]])
    later = segmenter.predict(loaded, points=[[width / 2, height / 2]])
    print("the same masks:", np.array_equal(now.masks, later.masks))

    # An embedding knows which model made it, and no other model will take it.
    stranger = sam_jax.Segmenter(segmenter.config, segmenter.params, fingerprint="another model")
    try:
        stranger.predict(loaded, points=[[width / 2, height / 2]])
    except sam_jax.InputError as error:
        print("another model says:", error)


if __name__ == "__main__":
    main()
