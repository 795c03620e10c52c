"""What a command can change where memory runs out."""

import sys
from collections.abc import Sequence

_DTYPE, _MODEL = "--dtype bfloat16", "a smaller model (--checkpoint)"
_KEYS = (
    "a lower data.batch_size",
    "a higher run.accumulate",
    "model.remat = true",
    'model.dtype = "bfloat16"',
    "fewer reader processes (data.workers)",
)
# By the name of a command.
_WAYS = {
    "segment": (_DTYPE, _MODEL, "a smaller image", "fewer prompts at a time"),
    "generate": ("a lower --points-per-batch", _DTYPE, _MODEL, "smaller images"),
    "encode": ("a lower --batch-size", _DTYPE, _MODEL),
    "evaluate": ("a lower --max-masks", _DTYPE, _MODEL),
    "track": ("fewer objects at a time", _DTYPE, _MODEL, "smaller frames"),
    "bench": (_DTYPE, "a smaller --model", "fewer of --task"),
    "train": ("a lower data.max_masks", *_KEYS),
    "pretrain": _KEYS[:-1],
}


def out_of_memory(error: Exception, command: str | None, given: Sequence[str]) -> str:
    """The line for a person.

    Args:
      error: a MemoryError, or JAX's.
      command: the name of the one that ran out of memory; None if it is not known.
      given: its arguments, as they were typed.
    """
    what = "out of memory" if isinstance(error, MemoryError) else "the device ran out of memory"
    ways = list(_WAYS.get(command or "", ("a smaller model",)))
    if any("bfloat16" in word for word in given):
        ways = [way for way in ways if "bfloat16" not in way]
    ways.append("a machine with more memory" if _on_cpu() else "the CPU (JAX_PLATFORMS=cpu)")
    return f"{what}; use {', '.join(ways[:-1])}, or {ways[-1]}"


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error is of memory, the machine's or a device's."""
    return isinstance(error, MemoryError) or (
        type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError")
        and "RESOURCE_EXHAUSTED" in str(error)
    )


def _on_cpu() -> bool:
    if "jax" not in sys.modules:
        return True
    import jax

    return jax.default_backend() == "cpu"
