"""Errors a user can cause. The command line turns each into one line and exit status 2."""

import re
import sys
import warnings
from types import FrameType

# With what checks its annotations; the command calls it as a user's program does.
_LIBRARY = re.compile(r"(sam_jax\.(?!cli\b)|jaxtyping\b|beartype\b)")


class InputError(ValueError):
    """Something given to sam_jax cannot be used; the message is one line that says what to do."""


class CheckpointError(InputError):
    """A checkpoint is missing, damaged, of another family, or does not fit the model."""


def warn_caller(message: str) -> None:
    """A `UserWarning` that names the caller's line: the first one outside of the library."""
    frame: FrameType | None = sys._getframe(1)
    level = 2
    while frame is not None and _LIBRARY.match(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)
