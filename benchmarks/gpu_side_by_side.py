"""Ours beside the original under torch.compile on one NVIDIA GPU, in bfloat16: parity, then speed.

On a machine with a GPU of the Ampere generation or later, its driver, and a C compiler:

    python3 -m venv gpu && . gpu/bin/activate
    pip install -e ".[cuda]" torch torchvision segment-anything==1.0
    python benchmarks/gpu_side_by_side.py --json gpu.json 2> gpu.log

(or, in one line: bash -ec 'python3 -m venv gpu; . gpu/bin/activate;
pip install -e ".[cuda]" torch torchvision segment-anything==1.0;
python benchmarks/gpu_side_by_side.py --json gpu.json'). Where the CUDA libraries that JAX and
PyTorch ask for exclude each other, install PyTorch into an environment of its own, with this
package and without [cuda], and name its interpreter with --original-python.

Each package has a process of its own, with the same random weights. What is printed, in Markdown:

* parity: our float32 (highest precision) against the original's on the same GPU, in standard
  deviations of the original; masks of our bfloat16 against our float32 as IoU, the original's too;
* attention: every implementation against the formula, at the shapes of ViT-B and ViT-H, and its
  time: where the encoder is slow, this says whether attention is what is slow;
* speed: the image encoder for 1 and for 8 images, inputs on the device; `generate` with 32x32
  points on a photo. The packages take turns round by round; medians, and peak memory.

With random weights a filter on predicted IoU would let through all masks or none: both packages get
a threshold that one candidate in twenty passes, and no filter on stability.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gpu_packages import PACKAGES, attention_rows

BATCHES = (1, 8)
PASSING = 0.05
# batch of grids, rows, columns, heads, channels: windows and the whole image.
ATTENTION_SHAPES = {
    "vit_b windows": (25, 14, 14, 12, 64),
    "vit_b image": (1, 64, 64, 12, 64),
    "vit_h windows": (25, 14, 14, 16, 80),
    "vit_h image": (1, 64, 64, 16, 80),
}
ATTENTION = ("reference", "chunked", "gpu")


def parity(ours: dict, ours_16: dict, theirs: dict, theirs_16: dict) -> dict[str, float]:
    """How far apart two packages and two types are; errors in the original's deviations."""

    def error(key: str) -> float:
        return float(np.abs(ours[key] - theirs[key]).max() / theirs[key].std())

    def iou(low: np.ndarray, high: np.ndarray) -> float:
        low, high = low > 0, high > 0
        either = (low | high).sum((-2, -1))
        return float(np.median((low & high).sum((-2, -1)) / np.maximum(either, 1)))

    return {
        "embedding, float32": error("embedding"),
        "logits, float32": error("logits"),
        "predicted IoU, float32 (absolute)": float(np.abs(ours["iou"] - theirs["iou"]).max()),
        "our bfloat16 masks over float32's, median IoU": iou(ours_16["logits"], ours["logits"]),
        "the original's, likewise": iou(theirs_16["logits"], theirs["logits"]),
    }


class Worker:
    """A package in a process of its own, asked one thing at a time."""

    def __init__(self, package: str, model: str, dtype: str, python: str):
        command = [python, __file__, "--worker", package, model, dtype]
        environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        if package != "sam_jax":
            environment["JAX_PLATFORMS"] = "cpu"  # it makes the weights with JAX, and no more
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, **request: Any) -> Any:
        """The answer to one request; whatever the worker prints otherwise goes to stderr."""
        process = self._process
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with status {process.wait()}: {process.args}")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process, which gives back its memory on the device."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def work(package: str, model: str, dtype: str) -> None:
    """Answers requests from standard input until it ends."""
    answers, sys.stdout = sys.stdout, sys.stderr
    runner, task = PACKAGES[package](model, dtype), None
    for line in sys.stdin:
        request, answer = json.loads(line), None
        match request.pop("do"):
            case "device":
                answer = runner.device()
            case "outputs":
                np.savez(request["file"], **runner.outputs())
            case "attention":
                answer = attention_rows(ATTENTION_SHAPES, ATTENTION)
            case "prepare":
                task = getattr(runner, request.pop("task"))(**request)
                for _ in range(3):  # compiles, tunes, records graphs
                    task()
            case "time":
                started = time.perf_counter()
                result = task()
                seconds = time.perf_counter() - started
                answer = {"seconds": seconds, "masks": result if type(result) is int else None}
            case "peak":
                answer = runner.peak_bytes()
        print(json.dumps(answer), file=answers, flush=True)


@contextlib.contextmanager
def both(model: str, dtype: str, pythons: dict[str, str]) -> Iterator[dict[str, Worker]]:
    """A worker for each package."""
    workers = {name: Worker(name, model, dtype, pythons[name]) for name in PACKAGES}
    try:
        yield workers
    finally:
        for worker in workers.values():
            worker.close()


def measure(model: str, rounds: int, pythons: dict[str, str]) -> dict[str, Any]:
    """Everything about one model."""
    found: dict[str, Any] = {"model": model}
    outputs: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for dtype in ("float32", "bfloat16"):
            with both(model, dtype, pythons) as workers:
                for name, worker in workers.items():
                    file = str(Path(folder, f"{name}_{dtype}.npz"))
                    worker.ask(do="outputs", file=file)
                    with np.load(file) as arrays:
                        outputs[f"{name}_{dtype}"] = dict(arrays)
        order = ("sam_jax_float32", "sam_jax_bfloat16", "original_float32", "original_bfloat16")
        found["parity"] = parity(*(outputs[name] for name in order))
    threshold = float(np.quantile(outputs["original_bfloat16"]["iou"], 1 - PASSING))
    tasks: list[dict[str, Any]] = [{"task": "encoder", "batch": batch} for batch in BATCHES]
    tasks.append({"task": "generator", "threshold": threshold})
    found["speed"] = []
    for task in tasks:
        # A new pair for each task: peaks are of one task, and one's memory is not in another's way.
        with both(model, "bfloat16", pythons) as workers:
            readings: dict[str, list[dict]] = {name: [] for name in workers}
            for worker in workers.values():
                worker.ask(do="prepare", **task)
            for _ in range(rounds):
                for name, worker in workers.items():
                    readings[name].append(worker.ask(do="time"))
            for name, worker in workers.items():
                row = {**task, "package": name, "peak_bytes": worker.ask(do="peak")}
                found["speed"].append(row | {"readings": readings[name]})
    return found


def report(results: dict[str, Any]) -> Iterator[str]:
    """The results as Markdown, line by line."""
    yield f"{results['devices']['sam_jax']}; {results['devices']['original']}\n"
    yield "| attention, bfloat16 | implementation | largest error, deviations | ms |"
    yield "|---|---|---|---|"
    for row in results["attention"]:
        cells = row["shape"], row["implementation"], f"{row['error']:.3f}"
        yield f"| {' | '.join(cells)} | {1e3 * row['seconds']:.3f} |"
    for found in results["models"]:
        yield f"\n| {found['model']}: parity | |\n|---|---|"
        for key, value in found["parity"].items():
            yield f"| {key} | {value:.2e} |" if value < 0.1 else f"| {key} | {value:.4f} |"
        yield "\n| task | package | images/s | least to greatest | peak, GB | masks |"
        yield "|---|---|---|---|---|---|"
        for row in found["speed"]:
            images = row.get("batch", 1)
            rates = sorted(images / one["seconds"] for one in row["readings"])
            masks = row["readings"][-1]["masks"]
            title = f"encoder, {images}" if row["task"] == "encoder" else "generate, 32x32"
            spread = f"{rates[0]:.2f} to {rates[-1]:.2f}"
            cells = title, row["package"], f"{statistics.median(rates):.2f}", spread
            peak = f"{row['peak_bytes'] / 1e9:.2f}"
            yield f"| {' | '.join(cells)} | {peak} | {'' if masks is None else masks} |"


# Prints one line where something is missing, in the interpreter that is to run a package.
CHECKS = {
    "sam_jax": "import jax\ntry: jax.devices('cuda')\nexcept RuntimeError: print('JAX finds no "
    'NVIDIA GPU: pip install "sam-jax[cuda]" where one is\')',
    "original": "try:\n import torch, torchvision, segment_anything\n"
    " if not torch.cuda.is_available(): print('PyTorch finds no NVIDIA GPU')\n"
    "except ImportError as error: print(f'{error}: "
    "pip install torch torchvision segment-anything==1.0')",
}


def check(pythons: dict[str, str]) -> None:
    """Ends with status 2 and one line where a package cannot run on a GPU here."""
    for name, code in CHECKS.items():
        done = subprocess.run([pythons[name], "-c", code], capture_output=True, text=True)
        problem = done.stdout.strip() or (done.stderr.strip().splitlines() or [""])[-1]
        if done.returncode or done.stdout.strip():
            print(f"error: {problem}", file=sys.stderr)
            raise SystemExit(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--models", nargs="+", choices=("vit_b", "vit_l", "vit_h"), default=["vit_b", "vit_h"]
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--original-python", default=sys.executable, help="interpreter for PyTorch")
    parser.add_argument("--json", type=Path, help="also write everything, in seconds and bytes")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(*arguments.worker)
        return
    pythons = {"sam_jax": sys.executable, "original": arguments.original_python}
    check(pythons)
    with both("test", "bfloat16", pythons) as workers:
        results = {
            "devices": {name: worker.ask(do="device") for name, worker in workers.items()},
            "attention": workers["sam_jax"].ask(do="attention"),
            "models": [],
        }
    for model in arguments.models:
        results["models"].append(measure(model, arguments.rounds, pythons))
        if arguments.json:  # after each model: what was measured is kept
            aside = arguments.json.with_suffix(".part")
            aside.write_text(json.dumps(results, indent=1) + "\n")
            aside.replace(arguments.json)
    print("\n".join(report(results)))


if __name__ == "__main__":
    main()
