"""The model under `jax.pmap`: each device encodes its own image and decodes its own clicks.

    XLA_FLAGS=--xla_force_host_platform_device_count=2 python examples/pmap.py

For code that is built on pmap. New code is better off with a mesh (`examples/many_devices.py`).
"""

import argparse

import jax
import numpy as np

import sam_jax


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", nargs="?", default="examples/photos/coffee.jpg")
    parser.add_argument("--checkpoint", default="tiny")
    args = parser.parse_args(argv)

    segmenter = sam_jax.Segmenter.load(args.checkpoint)
    config, params = segmenter.config, segmenter.params
    model = sam_jax.Sam(config)
    devices = jax.local_device_count()

    @jax.pmap
    def encode(params, images):
        return model.apply(params, images, method="encode_image")

    @jax.pmap
    def decode(params, features, prompts):
        return model.apply(params, features, prompts, method="decode")

    # pmap divides the first axis: parameters once a device, images and prompts as many as devices.
    everywhere = jax.tree.map(lambda x: np.broadcast_to(x, (devices, *x.shape)), params)
    image = sam_jax.prepare_image(sam_jax.read_image(args.image), config)
    images = np.stack([image] * devices)[:, None]
    # Another column of four clicks for each device, in the model's frame.
    x, y = np.meshgrid(np.linspace(0.2, 0.8, devices), [0.2, 0.3, 0.4, 0.5], indexing="ij")
    points = np.stack([x, y], axis=-1)[:, None, :, None].astype(np.float32) * config.image_size
    prompts = sam_jax.Prompts(points=points, labels=np.ones(points.shape[:-1], np.int32))

    _, scores = decode(everywhere, encode(everywhere, images), prompts)
    for device, best in enumerate(np.asarray(scores)[:, 0].max(axis=-1)):
        print(f"device {device}: predicted IoU {', '.join(f'{score:.2f}' for score in best)}")


if __name__ == "__main__":
    main()
