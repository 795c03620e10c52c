"""Images, clicks and everything in an image over all devices there are.

    python examples/many_devices.py

Without accelerators, on eight simulated devices that share the processor:

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python examples/many_devices.py --model 2
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
    parser.add_argument("--model", type=int, default=1, help="devices that share one image")
    args = parser.parse_args(argv)

    mesh = sam_jax.make_mesh(model=args.model)  # the other axis, data, takes the rest
    segmenter = sam_jax.Segmenter.load(args.checkpoint, mesh=mesh)
    print(f"{mesh.shape['data']} parts of a batch, {mesh.shape['model']} devices an image")

    # From here on as on one device: a batch of images over `data` ...
    embeddings = segmenter.encode(args.images)
    # ... and prompts, or the points of a grid, over all devices.
    for path, embedding in zip(args.images, embeddings, strict=True):
        height, width = embedding.size_hw
        clicks = [[[width * x / 4, height / 2]] for x in (1, 2, 3)]
        result = segmenter.predict(embedding, points=clicks, labels=[[1]] * 3)
        found = segmenter.generate_masks(embedding, preset="fast")
        best = ", ".join(f"{score:.2f}" for score in result.scores.max(axis=1))
        print(f"{path}: predicted IoU of three clicks {best}; {len(found)} masks in all")


if __name__ == "__main__":
    main()
