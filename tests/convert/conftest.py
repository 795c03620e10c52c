"""A small model of the original's, and its file, for the tests of conversion."""

from pathlib import Path

import numpy as np
import pytest
import torch

from convert.sam.reference import build_original
from sam_jax.configs import TEST


@pytest.fixture(scope="session")
def original():
    """The original at the test size, with no value that is zero or one."""
    torch.manual_seed(0)
    model = build_original(TEST)
    for tensor in model.state_dict().values():
        tensor.add_(0.1 * torch.randn(tensor.shape))
    return model


@pytest.fixture(scope="session")
def state(original) -> dict[str, np.ndarray]:
    """Its state dict."""
    return {name: tensor.numpy() for name, tensor in original.state_dict().items()}


@pytest.fixture(scope="session")
def pth(original, tmp_path_factory) -> Path:
    """Its official file."""
    path = tmp_path_factory.mktemp("official") / "sam_test.pth"
    torch.save(original.state_dict(), path)
    return path
