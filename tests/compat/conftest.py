"""The original package and ours as the same set of names, and small files that both can read."""

import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]
# The reference and the measure of closeness belong to the parity tests.
sys.path.insert(0, str(ROOT / "tests" / "parity"))

import original  # noqa: E402

from convert.sam.reference import build_original  # noqa: E402
from sam_jax import compat  # noqa: E402
from sam_jax.configs import TEST  # noqa: E402


@pytest.fixture(autouse=True, scope="session")
def highest_precision():
    """Parity is judged without the reduced precision that accelerators multiply in by default."""
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture(scope="session")
def theirs():
    """The original's names; "small" in the registry stands for a model that runs in a test."""

    def build_small(checkpoint):
        model = build_original(TEST)
        model.load_state_dict(torch.load(checkpoint))
        return model

    package = original.segment_anything()
    from segment_anything.utils.transforms import ResizeLongestSide

    return SimpleNamespace(
        sam_model_registry={**package.sam_model_registry, "small": build_small},
        SamPredictor=package.SamPredictor,
        SamAutomaticMaskGenerator=package.SamAutomaticMaskGenerator,
        ResizeLongestSide=ResizeLongestSide,
    )


@pytest.fixture(scope="session")
def ours():
    """Our module, which knows "small" too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(compat.sam_model_registry, "small", compat.load_sam)
        yield compat


@pytest.fixture(scope="session")
def pth(tmp_path_factory) -> Path:
    """Random weights as torch.save writes them; masks straddle the threshold everywhere."""
    path = tmp_path_factory.mktemp("weights") / "sam_small.pth"
    torch.save(original.build(TEST, seed=1).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def sparse_pth(tmp_path_factory) -> Path:
    """Random weights whose masks are many, small and certain enough to pass the generator."""
    state = original.build(TEST, seed=6).state_dict()
    for i in range(4):
        last = f"mask_decoder.output_hypernetworks_mlps.{i}.layers.2"
        state[f"{last}.bias"] -= 0.25 * (i > 0)
        for kind in ("weight", "bias"):
            state[f"{last}.{kind}"] *= 300
    state["mask_decoder.iou_prediction_head.layers.2.bias"][1:] += torch.tensor([-1.02, 0.11, 1.02])
    path = tmp_path_factory.mktemp("weights") / "sam_sparse.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="session")
def chelsea() -> np.ndarray:
    """A photo of 451 by 300 pixels, width first."""
    return np.array(Image.open(ROOT / "examples" / "photos" / "chelsea.jpg"))


@pytest.fixture(scope="session")
def coffee() -> np.ndarray:
    """A photo of 600 by 400 pixels."""
    return np.array(Image.open(ROOT / "examples" / "photos" / "coffee.jpg"))


@pytest.fixture(scope="session")
def small_chelsea(chelsea) -> np.ndarray:
    """The photo at a sixth of its pixels, for the original's generator to be done in time."""
    return np.array(Image.fromarray(chelsea).resize((180, 120)))
