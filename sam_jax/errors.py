"""Errors a user can cause. The command line turns each into one line and exit status 2."""


class InputError(ValueError):
    """Something given to sam_jax cannot be used; the message is one line that says what to do."""


class CheckpointError(InputError):
    """A checkpoint is missing, damaged, of another family, or does not fit the model."""
