"""Where the command keeps its compiled programs, so that the next run need not compile them."""

import hashlib
import os
import platform
import sys
from pathlib import Path

from sam_jax import registry

# What takes less to compile is compiled again.
_MIN_SECONDS = "0.2"


def keep_compiled_programs() -> None:
    """Has JAX keep what it compiles, unless the user has chosen a folder for that.

    A folder that cannot be used, and entries that were cut short, cost no more than the time to
    compile. `JAX_COMPILATION_CACHE_DIR` chooses another folder; `JAX_ENABLE_COMPILATION_CACHE=0`
    keeps nothing.
    """
    # JAX reads them when it is imported. A program that calls this command has decided for itself.
    if "jax" not in sys.modules and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(compiled_folder())
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", _MIN_SECONDS)


def compiled_folder() -> Path:
    """The folder for programs compiled on processors like this one.

    A home may be shared by machines, and what was compiled for one processor can crash on another;
    JAX tells accelerators apart, but not the processors of the host.
    """
    known = hashlib.sha256(platform.machine().encode())
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if not line.strip():
                    break  # the first processor is enough
                if line.startswith(("model name", "flags", "Features", "CPU part")):
                    known.update(line.encode())
    except OSError:
        known.update(platform.processor().encode())
    return registry.cache_folder() / "compiled" / known.hexdigest()[:16]
