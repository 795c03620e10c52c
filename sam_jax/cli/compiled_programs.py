"""Where the command keeps its compiled programs, so that the next run need not compile them."""

import hashlib
import os
import platform
import re
import sys
from contextlib import suppress
from pathlib import Path

from sam_jax import registry

# What takes less to compile is compiled again.
_MIN_SECONDS = "0.2"
# Some thousand programs, of all processors together.
_MAX_BYTES = 512 << 20
# What JAX warns of, with the name of the function that begins those of its entries' files.
DAMAGED = r"Error reading persistent compilation cache entry for '([^']+)'"


def keep_compiled_programs() -> None:
    """Has JAX keep what it compiles, unless the user has chosen a folder for that.

    A folder that cannot be used, and entries that were cut short, cost no more than the time to
    compile. `JAX_COMPILATION_CACHE_DIR` chooses another folder, which is never tidied up;
    `JAX_COMPILATION_CACHE_MAX_SIZE` leaves that to JAX; `JAX_ENABLE_COMPILATION_CACHE=0` keeps
    nothing.

    Raises:
      InputError: there is no such cache folder (`registry.cache_folder`).
    """
    # JAX reads them when it is imported. A program that calls this command has decided for itself.
    if "jax" not in sys.modules and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = compiled_folder()
        # JAX up to 0.10 writes no more under a limit of its own once a process was killed while it
        # wrote (jax-ml/jax#39880).
        if "JAX_COMPILATION_CACHE_MAX_SIZE" not in os.environ:
            _remove_least_used(folder.parent, _MAX_BYTES)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", _MIN_SECONDS)


def forget_damaged(warning: str) -> bool:
    """Removes an entry that JAX has warned it cannot read, before it writes a new one.

    JAX itself replaces none, and compiles again in every run. It names only the function, so that
    the function's other entries go too.

    Returns:
      Whether that is what the warning was of.
    """
    found = re.match(DAMAGED, warning)
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if found and folder == str(compiled_folder()):
        for path in Path(folder).glob(f"{found[1]}-*-cache"):
            with suppress(OSError):
                path.unlink()
    return found is not None


def _remove_least_used(folder: Path, max_bytes: int) -> None:
    """Removes what was not read for the longest time, until the rest is half of the limit.

    Half, so that not every run has something to remove. Another process that misses what is gone
    compiles it again.
    """
    with suppress(OSError):  # There is no folder yet, or another process tidies up too.
        files = [(path, path.stat()) for path in folder.rglob("*") if path.is_file()]
        total = sum(stat.st_size for _, stat in files)
        if total <= max_bytes:
            return
        # Where reading leaves no trace, what was written first goes first.
        for path, stat in sorted(files, key=lambda file: max(file[1].st_atime, file[1].st_mtime)):
            path.unlink()
            total -= stat.st_size
            if total <= max_bytes / 2:
                return


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
