import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_jax.ops.windows import join_windows, partition_windows


# Every new shape costs XLA a compilation, hence few examples and no deadline.
@settings(max_examples=12, deadline=None)
@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 17),
    width=st.integers(1, 17),
    window=st.integers(1, 9),
)
def test_joining_undoes_partitioning(batch, height, width, window):
    x = np.random.default_rng(0).normal(size=(batch, height, width, 2)).astype(np.float32)
    windows = partition_windows(jnp.asarray(x), window)
    assert windows.shape[0] == batch * -(-height // window) * -(-width // window)
    np.testing.assert_array_equal(join_windows(windows, (height, width)), x)


def test_windows_run_row_by_row_and_are_padded_with_zeros():
    x = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)
    windows = np.asarray(partition_windows(jnp.asarray(x), 3))
    padded = np.pad(x, ((0, 0), (0, 1), (0, 2), (0, 0)))
    for image, row, column in np.ndindex(2, 2, 3):
        expected = padded[image, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
        np.testing.assert_array_equal(windows[6 * image + 3 * row + column], expected)


def test_padding_holds_what_is_asked_for():
    x = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)
    fill = np.float32([1, 2, 3])
    windows = np.asarray(partition_windows(jnp.asarray(x), 3, fill=jnp.asarray(fill)))
    assert windows.shape == (2 * 2 * 3, 3, 3, 3)
    padded = np.broadcast_to(fill, (2, 6, 9, 3)).copy()
    padded[:, :5, :7] = x
    np.testing.assert_array_equal(windows, partition_windows(jnp.asarray(padded), 3))
    np.testing.assert_array_equal(join_windows(jnp.asarray(windows), (5, 7)), x)


@pytest.mark.parametrize("size_hw", [(5, 7), (6, 3)])
def test_gradients_pass_through_unchanged(size_hw):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, *size_hw, 2)), jnp.float32)

    def scalar(x):
        return 0.5 * jnp.sum(join_windows(partition_windows(x, 3), size_hw) ** 2)

    np.testing.assert_array_equal(jax.grad(scalar)(x), x)
