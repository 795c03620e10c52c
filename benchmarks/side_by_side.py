"""Our model beside the original and Hugging Face's, with the same shapes: times as ratios, memory.

    pip install "sam-jax[test]"
    python benchmarks/side_by_side.py [--model vit_b] [--rounds 5] [--json FILE]

Random weights, one image of 1024x1024, float32 on the CPU. First each package encodes in a process
of its own, for its peak memory, importing and making weights included. Then tasks run in turn in
one process, one package after the other in every round; the table gives medians, the least and
greatest, and our median over each other's.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGES = ("sam_jax", "original", "transformers")
TASKS = ("image encoder", "64 prompts", "1 prompt")
SIDE = 1024


def random_image() -> Any:
    """A normalised input, float32 [1, height, width, 3]."""
    import numpy as np

    return np.random.default_rng(0).standard_normal((1, SIDE, SIDE, 3), np.float32)


def random_points(count: int) -> Any:
    """One point for each prompt, float32 [count, 1, 2]."""
    import numpy as np

    return np.random.default_rng(1).uniform(0, SIDE, (count, 1, 2)).astype(np.float32)


def ours(name: str) -> dict[str, Callable[[], Any]]:
    """What `Segmenter` runs, in the model's frame."""
    import jax
    import numpy as np

    from sam_jax import Segmenter
    from sam_jax.configs import CONFIGS
    from sam_jax.models.sam import variable_shapes
    from sam_jax.preprocess import ImagePrompts

    key = jax.random.key(2)
    shapes = variable_shapes(CONFIGS[name])
    params = jax.tree.map(lambda leaf: 0.05 * jax.random.normal(key, leaf.shape), shapes)
    segmenter = Segmenter(CONFIGS[name], params, fingerprint="random", prompt_batch=64)
    compiled, image = segmenter.compiled, random_image()
    features: list[jax.Array] = []

    def encode() -> None:
        features[:] = jax.block_until_ready(compiled.encode(image))

    def decode(count: int) -> None:
        labels = np.ones((count, 1), np.int32)
        prompts = ImagePrompts(random_points(count), labels)
        jax.block_until_ready(compiled.decode(features, [prompts], True, on_device=True))

    return {TASKS[0]: encode, TASKS[1]: lambda: decode(64), TASKS[2]: lambda: decode(1)}


def original(name: str) -> dict[str, Callable[[], Any]]:
    """segment-anything's parts, called as `predict_torch` calls them."""
    import torch

    from convert.original import build_original
    from sam_jax.configs import CONFIGS

    model = build_original(CONFIGS[name]).eval()
    image = torch.from_numpy(random_image()).permute(0, 3, 1, 2).contiguous()
    features: list[torch.Tensor] = []

    @torch.inference_mode()
    def encode() -> None:
        features[:] = [model.image_encoder(image)]

    @torch.inference_mode()
    def decode(count: int) -> None:
        points = torch.from_numpy(random_points(count)), torch.ones(count, 1, dtype=torch.int)
        sparse, dense = model.prompt_encoder(points=points, boxes=None, masks=None)
        model.mask_decoder(
            image_embeddings=features[0],
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )

    return {TASKS[0]: encode, TASKS[1]: lambda: decode(64), TASKS[2]: lambda: decode(1)}


def transformers(name: str) -> dict[str, Callable[[], Any]]:
    """Hugging Face's SamModel, with its default attention (SDPA)."""
    import torch
    from transformers import SamConfig, SamModel

    from sam_jax.configs import CONFIGS

    vit = CONFIGS[name].image_encoder
    vision = {
        "hidden_size": vit.embed_dim,
        "num_hidden_layers": vit.depth,
        "num_attention_heads": vit.num_heads,
        "mlp_dim": vit.mlp_dim,
        "global_attn_indexes": list(vit.global_attention_indexes),
    }
    model = SamModel(SamConfig(vision_config=vision)).eval()
    image = torch.from_numpy(random_image()).permute(0, 3, 1, 2).contiguous()
    features: list[torch.Tensor] = []

    @torch.inference_mode()
    def encode() -> None:
        features[:] = [model.get_image_embeddings(image)]

    @torch.inference_mode()
    def decode(count: int) -> None:
        points = torch.from_numpy(random_points(count))[None]
        labels = torch.ones(1, count, 1, dtype=torch.int)
        model(image_embeddings=features[0], input_points=points, input_labels=labels)

    return {TASKS[0]: encode, TASKS[1]: lambda: decode(64), TASKS[2]: lambda: decode(1)}


BUILDERS = {"sam_jax": ours, "original": original, "transformers": transformers}


def timed(task: Callable[[], Any]) -> float:
    """Seconds of one run."""
    started = time.perf_counter()
    task()
    return time.perf_counter() - started


def peak_of(package: str, model: str) -> float:
    """Peak memory in GB of a process that encodes one image twice with one package."""
    command = [sys.executable, __file__, "--model", model, "--peak-of", package]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def print_peak(package: str, model: str) -> None:
    encode = BUILDERS[package](model)[TASKS[0]]
    encode()
    encode()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=("vit_b", "vit_l", "vit_h"), default="vit_b")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write all readings, in seconds and GB")
    parser.add_argument("--peak-of", choices=PACKAGES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of:
        print_peak(arguments.peak_of, arguments.model)
        return
    # First: a process starts with its parent's peak.
    peaks = {package: peak_of(package, arguments.model) for package in PACKAGES}
    tasks = {package: BUILDERS[package](arguments.model) for package in PACKAGES}
    for task in TASKS:  # compiles, allocates, and leaves the image's embedding for the decoders
        for package in PACKAGES:
            tasks[package][task]()
    readings: dict[str, dict[str, list[float]]] = {
        task: {package: [] for package in PACKAGES} for task in TASKS
    }
    for _ in range(arguments.rounds):
        for task in TASKS:
            for package in PACKAGES:
                readings[task][package].append(timed(tasks[package][task]))
    print(f"{arguments.model}, {os.cpu_count()} CPU cores, {arguments.rounds} rounds")
    print("| | package | median, s | least to greatest, s | ours over it |")
    print("|---|---|---|---|---|")
    for task in TASKS:
        mine = statistics.median(readings[task]["sam_jax"])
        for package in PACKAGES:
            values = readings[task][package]
            median = statistics.median(values)
            spread = f"{min(values):.3f} to {max(values):.3f}"
            print(f"| {task} | {package} | {median:.3f} | {spread} | {mine / median:.2f} |")
    print("\n| | peak memory of encoding, GB |\n|---|---|")
    for package, peak in peaks.items():
        print(f"| {package} | {peak:.2f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps({"seconds": readings, "peak_gb": peaks}, indent=1))


if __name__ == "__main__":
    main()
