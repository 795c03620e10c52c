"""How far from the reference a result may be, and how that is measured."""

import numpy as np

# The contract for image embeddings and low-resolution logits (docs/architecture.md).
MODEL_BOUND = 2e-4
# One part alone in float32, at a few hundred tokens: a tenth of what the whole model is allowed.
PART_BOUND = 2e-5
IOU_BOUND = 1e-4


def error(ours, reference) -> float:
    """The largest absolute error in units of the reference's standard deviation."""
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    assert ours.shape == reference.shape
    assert np.isfinite(reference).all()
    spread = reference.std()
    # A constant reference would prove nothing.
    assert spread > 1e-3 * np.abs(reference).max()
    return float(np.abs(ours - reference).max() / spread)


def assert_close(ours, reference, bound: float = PART_BOUND, what: str = "") -> None:
    """Fails where any value is further than `bound` standard deviations from the reference."""
    measured = error(ours, reference)
    assert measured <= bound, f"{what} is off by {measured:.2e} standard deviations"
