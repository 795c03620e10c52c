"""Resampling matrices against PyTorch's interpolate."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from sam_jax.ops.resample import (
    cubic_matrix,
    linear_matrix,
    resize_position_grid,
    resize_position_line,
)

lengths = st.integers(1, 200)


def torch_linear(size_in, size_out):
    return functional.interpolate(
        torch.eye(size_in, dtype=torch.float64)[None], size=size_out, mode="linear"
    )[0].numpy()


def torch_cubic(size_in, size_out):
    # A second axis that keeps its length takes no part.
    image = torch.eye(size_in, dtype=torch.float64)[None, :, :, None]
    out = functional.interpolate(image, size=(size_out, 1), mode="bicubic", align_corners=False)
    return out[0, :, :, 0].numpy()


@settings(max_examples=300, deadline=None)
@given(size_in=lengths, size_out=lengths)
@example(256, 1024)
@example(683, 427)
@example(1024, 1)
@example(1, 1024)
@example(127, 13)
def test_the_linear_matrix_is_pytorchs(size_in, size_out):
    matrix = linear_matrix(size_in, size_out)
    np.testing.assert_allclose(matrix.T, torch_linear(size_in, size_out), rtol=0, atol=1e-10)
    assert np.count_nonzero(matrix, axis=1).max() <= 2


@settings(max_examples=300, deadline=None)
@given(size_in=lengths, size_out=lengths)
@example(64, 40)
@example(64, 96)
@example(1, 9)
def test_the_cubic_matrix_is_pytorchs(size_in, size_out):
    matrix = cubic_matrix(size_in, size_out)
    np.testing.assert_allclose(matrix.T, torch_cubic(size_in, size_out), rtol=0, atol=1e-10)
    assert np.count_nonzero(matrix, axis=1).max() <= 4


@settings(max_examples=100, deadline=None)
@given(size_in=lengths, size_out=lengths)
def test_resampling_keeps_a_constant(size_in, size_out):
    for matrix in (linear_matrix(size_in, size_out), cubic_matrix(size_in, size_out)):
        np.testing.assert_allclose(matrix.sum(axis=1), 1.0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size_hw", [(7, 10), (12, 5), (8, 9), (1, 30)])
def test_position_grids_are_resized_as_by_pytorch(size_hw):
    table = np.random.default_rng(0).normal(size=(8, 9, 3)).astype(np.float32)
    out = resize_position_grid(jnp.asarray(table), size_hw)
    image = torch.from_numpy(table).permute(2, 0, 1)[None]
    expected = functional.interpolate(image, size=size_hw, mode="bicubic", align_corners=False)
    np.testing.assert_allclose(out, expected[0].permute(1, 2, 0).numpy(), rtol=0, atol=5e-6)


@pytest.mark.parametrize("length", [1, 5, 14, 15, 16, 27, 61])
def test_position_lines_are_resized_as_by_pytorch(length):
    table = np.random.default_rng(0).normal(size=(15, 3)).astype(np.float32)
    out = resize_position_line(jnp.asarray(table), length)
    expected = functional.interpolate(torch.from_numpy(table.T)[None], size=length, mode="linear")
    np.testing.assert_allclose(out, expected[0].T.numpy(), rtol=0, atol=5e-6)


def test_tables_that_fit_are_left_alone():
    rng = np.random.default_rng(0)
    grid = jnp.asarray(rng.normal(size=(4, 6, 2)), jnp.float32)
    line = jnp.asarray(rng.normal(size=(7, 2)), jnp.float32)
    np.testing.assert_array_equal(resize_position_grid(grid, (4, 6)), grid)
    np.testing.assert_array_equal(resize_position_line(line, 7), line)
