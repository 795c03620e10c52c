"""The GPU comparison's own code, on the CPU with the small configuration."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
SCRIPT = FOLDER / "gpu_side_by_side.py"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("gpu_side_by_side")
    for name in ("gpu_side_by_side", "gpu_packages"):
        sys.modules.pop(name, None)


@pytest.fixture
def precision():
    """What the float32 run sets for its process is not left to the next test."""
    before = jax.config.jax_default_matmul_precision
    yield
    jax.config.update("jax_default_matmul_precision", before)


def outputs(script, package, dtype):
    return script.PACKAGES[package]("test", dtype).outputs()


def test_it_compares_the_same_model_on_the_same_image(script, precision):
    ours, theirs = (outputs(script, package, "float32") for package in ("sam_jax", "original"))
    assert ours["logits"].shape == (64, 3, 32, 32)
    found = script.parity(ours, ours, theirs, theirs)
    # The contract for float32 (docs/architecture.md).
    assert found["embedding, float32"] < 2e-4 and found["logits, float32"] < 2e-4
    assert found["predicted IoU, float32 (absolute)"] < 1e-4
    other = {**theirs, "logits": -theirs["logits"]}
    found = script.parity(ours, other, theirs, theirs)
    assert found["our bfloat16 masks over float32's, median IoU"] < 0.1
    assert found["the original's, likewise"] == 1


@pytest.mark.slow
def test_bfloat16_runs_are_near_float32_in_both_packages(script, precision):
    runs = [
        outputs(script, package, dtype)
        for package in ("sam_jax", "original")
        for dtype in ("float32", "bfloat16")
    ]
    found = script.parity(*runs)
    # Random masks of 32x32 pixels, with much border: less than a trained model's 0.99.
    assert found["our bfloat16 masks over float32's, median IoU"] > 0.95
    assert found["the original's, likewise"] > 0.95


@pytest.mark.slow
def test_both_generate_masks_with_one_threshold(script, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "parity"))
    importlib.import_module("original").segment_anything()  # where torchvision is not installed
    monkeypatch.setattr(sys.modules["gpu_packages"], "POINTS_A_SIDE", 6)
    ours, theirs = (package("test", "bfloat16") for package in script.PACKAGES.values())
    threshold = float(np.quantile(theirs.outputs()["iou"], 0.8))
    counts = [runner.generator(threshold)() for runner in (ours, theirs)]
    assert min(counts) > 0
    # Of 108 candidates, some lie on the threshold, and suppression follows.
    assert abs(counts[0] - counts[1]) <= 5


def test_attention_is_compared_with_the_formula(script):
    rows = script.attention_rows({"small": (2, 5, 3, 2, 8)}, ("reference", "chunked"))
    assert [row["implementation"] for row in rows] == ["reference", "chunked"]
    assert all(0 < row["error"] < 0.1 and row["seconds"] > 0 for row in rows)
    json.dumps(rows)  # as workers hand them over


def test_the_report_has_a_line_for_everything(script):
    reading = {"seconds": 0.5, "masks": 7}
    speed = [
        {"task": "encoder", "batch": 8, "package": "sam_jax", "peak_bytes": 2e9},
        {"task": "generator", "threshold": 0.1, "package": "original", "peak_bytes": 3e9},
    ]
    text = "\n".join(
        script.report(
            {
                "devices": {"sam_jax": "a GPU, JAX 1", "original": "a GPU, PyTorch 2"},
                "attention": [
                    {"shape": "s", "implementation": "gpu", "error": 0.02, "seconds": 0.001}
                ],
                "models": [
                    {
                        "model": "vit_b",
                        "parity": {"embedding, float32": 3e-6},
                        "speed": [{**row, "readings": [reading]} for row in speed],
                    }
                ],
            }
        )
    )
    assert "| s | gpu | 0.020 | 1.000 |" in text
    assert "| embedding, float32 | 3.00e-06 |" in text
    assert "| encoder, 8 | sam_jax | 16.00 | 16.00 to 16.00 | 2.00 | 7 |" in text
    assert "| generate, 32x32 | original | 2.00 | 2.00 to 2.00 | 3.00 | 7 |" in text


@pytest.mark.slow
def test_a_worker_answers_one_request_after_the_other(script, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(SCRIPT.parents[1]))
    worker = script.Worker("sam_jax", "test", "float32", sys.executable)
    try:
        assert "JAX" in worker.ask(do="device")
        assert worker.ask(do="prepare", task="encoder", batch=2) is None
        assert worker.ask(do="time")["seconds"] > 0
    finally:
        worker.close()


def test_without_a_gpu_it_refuses_in_one_line():
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, SCRIPT, "--models", "vit_b"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "finds no NVIDIA GPU" in done.stderr
