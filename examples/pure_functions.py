"""The model as pure functions under your own jit, vmap and grad.

Moves a click uphill on the predicted IoU: the gradient of the model's own confidence with respect
to where the click is.

    python examples/pure_functions.py examples/photos/coffee.jpg
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import sam_jax


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", nargs="?", default="examples/photos/coffee.jpg")
    parser.add_argument("--checkpoint", default="tiny")
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args(argv)

    segmenter = sam_jax.Segmenter.load(args.checkpoint)
    config, params = segmenter.config, segmenter.params
    model = sam_jax.Sam(config)  # an architecture; params is a value; apply is a pure function

    image = sam_jax.prepare_image(sam_jax.read_image(args.image), config)
    encode = jax.jit(lambda params, images: model.apply(params, images, method="encode_image"))
    features = encode(params, image[None])

    def confidence(point_xy):
        """Predicted IoU of the best mask for one click, in the model's frame."""
        prompts = sam_jax.Prompts(
            points=point_xy[None, None, None], labels=jnp.ones((1, 1, 1), jnp.int32)
        )
        _, iou = model.apply(params, features, prompts, True, method="decode")
        return iou.max()

    # Sixteen clicks side by side, each with its gradient, compiled once.
    step = jax.jit(jax.vmap(jax.value_and_grad(confidence)))
    grid = np.linspace(0.2, 0.6, 4) * config.image_size
    points = jnp.asarray([[x, y] for y in grid for x in grid], jnp.float32)
    for i in range(args.steps):
        iou, slope = step(points)
        print(f"step {i}: mean predicted IoU {iou.mean():.4f}, best {iou.max():.4f}")
        length = jnp.linalg.norm(slope, axis=-1, keepdims=True)
        points = jnp.clip(points + slope / jnp.maximum(length, 1e-6), 0, config.image_size - 1)


if __name__ == "__main__":
    main()
