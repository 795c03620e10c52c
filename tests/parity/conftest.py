import jax
import original
import pytest

from sam_jax.configs import TEST


@pytest.fixture(autouse=True, scope="session")
def highest_precision():
    """Parity is judged without the reduced precision that accelerators multiply in by default."""
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture(scope="session")
def small():
    """The original in miniature, and its weights as our variables."""
    model = original.build(TEST, seed=1)
    return model, original.variables(model, TEST)
