"""Holds results of the original's classes and of ours to the contract: kinds first, then values."""

import numpy as np
import torch
from closeness import IOU_BOUND, MODEL_BOUND, error

# Of every mask's pixels, how many must fall on the original's side.
SAME_PIXELS = 0.9999


def assert_same(ours, theirs, what: str = "result") -> None:
    """The same nesting of the same types, shapes and dtypes; values within the contract."""
    assert type(ours) is type(theirs), f"{what}: {type(ours)} for {type(theirs)}"
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs), what
        for key in theirs:
            assert_same(ours[key], theirs[key], f"{what}[{key!r}]")
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs), what
        for i, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_same(*pair, f"{what}[{i}]")
    elif isinstance(theirs, torch.Tensor):
        assert (ours.dtype, ours.device) == (theirs.dtype, theirs.device), what
        assert not ours.requires_grad
        _assert_same_arrays(ours.numpy(), theirs.numpy(), what)
    elif isinstance(theirs, np.ndarray):
        assert ours.flags.writeable == theirs.flags.writeable, what
        _assert_same_arrays(ours, theirs, what)
    elif isinstance(theirs, float):
        assert abs(ours - theirs) <= IOU_BOUND, what
    else:
        assert ours == theirs, what


def assert_same_records(ours: list[dict], theirs: list[dict]) -> None:
    """The same records in the same order.

    Where a crop has no mask, the original's crop boxes become floats, because PyTorch joins them to
    an empty tensor of floats; ours are whole numbers always.
    """
    assert len(theirs) > 0, "nothing to compare"
    whole = [{**record, "crop_box": [int(x) for x in record["crop_box"]]} for record in theirs]
    assert [record["crop_box"] for record in whole] == [record["crop_box"] for record in theirs]
    assert_same(ours, whole)


def _assert_same_arrays(ours: np.ndarray, theirs: np.ndarray, what: str) -> None:
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), what
    if theirs.ndim <= 2:
        np.testing.assert_allclose(ours, theirs, atol=IOU_BOUND, err_msg=what)
        return
    ours, theirs = (a.reshape(-1, *a.shape[-2:]) for a in (ours, theirs))
    for i in range(len(theirs)):
        if theirs.dtype == bool:
            assert np.mean(ours[i] == theirs[i]) >= SAME_PIXELS, f"{what}, mask {i}"
        else:
            assert error(ours[i], theirs[i]) <= MODEL_BOUND, f"{what}, mask {i}"
