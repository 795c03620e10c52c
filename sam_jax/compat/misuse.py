"""Errors that code written for the original may catch by their built-in types."""

from sam_jax.errors import InputError


class MisuseError(InputError, AssertionError):
    """What the original asserts does not hold."""


class NoImageError(InputError, RuntimeError):
    """A predictor is asked for something before an image is set."""
