"""The types that models compute in, by whatever name."""

import ml_dtypes
import numpy as np
import pytest
import torch

from sam_jax import InputError
from sam_jax.types import compute_dtype, is_whole, jnp

FLOAT32 = ["float32", "fp32", "Float", float, np.float32, np.dtype("float32"), jnp.float32]
BFLOAT16 = ["bf16", "bfloat16", jnp.bfloat16, ml_dtypes.bfloat16, np.dtype(jnp.bfloat16)]


@pytest.mark.parametrize("name", [*FLOAT32, torch.float32, "torch.float32", jnp.dtype("float32")])
def test_float32_by_any_name(name):
    assert compute_dtype(name) is jnp.float32


@pytest.mark.parametrize("name", [*BFLOAT16, torch.bfloat16, "torch.bfloat16"])
def test_bfloat16_by_any_name(name):
    assert compute_dtype(name) is jnp.bfloat16


@pytest.mark.parametrize(
    "other",
    ["float16", "half", "bf61", "", None, 16, torch.float16, np.float64, np.zeros((2, 2)), [], int],
)
def test_other_types_are_refused_in_one_line(other):
    with pytest.raises(InputError, match="memory_dtype .*neither float32 nor bfloat16") as caught:
        compute_dtype(other, "memory_dtype")
    assert "\n" not in str(caught.value)


def test_whole_numbers():
    assert is_whole(3) and is_whole(np.int64(3))
    assert not any(map(is_whole, (3.0, True, np.bool(True), "3", None)))
