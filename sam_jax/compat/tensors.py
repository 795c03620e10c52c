"""Arrays of two kinds: NumPy's, and tensors that are used through their own methods alone.

PyTorch is never imported; a tensor that is given brings all that is needed of it.
"""

from typing import Any

import numpy as np

from sam_jax.errors import InputError


def is_tensor(value: Any) -> bool:
    """Whether it is a PyTorch tensor; everything else is taken as NumPy takes it."""
    return hasattr(value, "new_tensor")


def to_numpy(value: Any, dtype: Any, name: str) -> np.ndarray:
    """The values on the host, float32 or an integer type; never to be written to.

    Args:
      value: a tensor, an array or nested lists.
      dtype: of the result.
      name: what an error calls it.

    Raises:
      InputError: it does not hold numbers, or is ragged.
    """
    if is_tensor(value):
        value = value.detach()
        # NumPy has no bfloat16; what any tensor can become is enough for either type.
        value = (value.float() if np.dtype(dtype).kind == "f" else value.int()).cpu().numpy()
    try:
        return np.asarray(value, dtype)
    except (TypeError, ValueError):
        raise InputError(f"{name} cannot be read as an array of numbers") from None


def from_numpy(array: np.ndarray, example: Any) -> Any:
    """The array itself, or, where the example is a tensor, a copy as a tensor on its device.

    Args:
      array: boolean or float32.
      example: what the caller gave.
    """
    if not is_tensor(example):
        return array
    scalar = example.new_zeros(())
    scalar = scalar.bool() if array.dtype == bool else scalar.float()
    return scalar.new_tensor(array)
