"""Where compiled programs are kept, so that the next process need not compile them."""

import hashlib
import os
import platform
import re
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from sam_jax.checkpoints import registry
from sam_jax.errors import InputError

_mending = False

# What takes less to compile is compiled again.
_MIN_SECONDS = "0.2"
_FOLDER = "JAX_COMPILATION_CACHE_DIR"
_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
# Says to this process and its children that the folder is one of ours.
_OURS = "SAM_JAX_COMPILED_PROGRAMS"
# Some thousand programs, of all processors together.
_MAX_BYTES = 512 << 20
# What JAX warns of, with the name of the function that begins those of its entries' files.
DAMAGED = r"Error reading persistent compilation cache entry for '([^']+)'"


def cache_compiled_programs(folder: str | os.PathLike | None = None) -> Path:
    """Keeps what JAX compiles in a folder, for later processes, as the `sam-jax` command does.

    To be called once, before the first image; JAX may be in use already. The folder is kept below
    512 MiB by removing what was not read for the longest time, entries that are cut short are
    compiled and written again, and processors of different kinds have subfolders of their own.
    Child processes use it too. Whoever can write to the folder can run code in this process.

    Args:
      folder: where; made if it is not there. None takes the folder that JAX has been told to use
        (`jax_compilation_cache_dir`), which is then left to JAX, else the command's own.

    Returns:
      The folder in use.

    Raises:
      InputError: the folder cannot be used.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    if folder is not None and not os.fspath(folder):
        raise InputError("the folder's name is empty; leave it out for the default one")
    mine = os.environ.get(_OURS)
    told = jax.config.values["jax_compilation_cache_dir"]
    if folder is None and told and told != mine:
        return Path(told)
    try:
        above = None if folder is None else Path(folder).expanduser()
        chosen = compiled_folder(above)
        chosen.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{folder or 'the cache folder'} cannot keep programs: {reason}") from None
    _remove_least_used(chosen.parent, _MAX_BYTES, "*-cache" if above else "*")
    os.environ[_FOLDER] = os.environ[_OURS] = str(chosen)
    jax.config.update("jax_compilation_cache_dir", str(chosen))
    if _SECONDS not in os.environ:
        os.environ[_SECONDS] = _MIN_SECONDS
        jax.config.update("jax_persistent_cache_min_compile_time_secs", float(_MIN_SECONDS))
    # What was compiled before this call has settled, for JAX, that nothing is kept.
    compilation_cache.reset_cache()
    _mend_as_jax_warns()
    return chosen


def keep_compiled_programs() -> None:
    """What the command does: as `cache_compiled_programs`, before JAX is imported.

    A folder that cannot be used, and entries that were cut short, cost no more than the time to
    compile. `JAX_COMPILATION_CACHE_DIR` chooses another folder, which is never tidied up;
    `JAX_COMPILATION_CACHE_MAX_SIZE` leaves that to JAX; `JAX_ENABLE_COMPILATION_CACHE=0` keeps
    nothing.

    Raises:
      InputError: there is no such cache folder (`registry.cache_folder`).
    """
    # JAX reads them when it is imported. A program that calls this command has decided for itself.
    if "jax" not in sys.modules and _FOLDER not in os.environ:
        folder = compiled_folder()
        # JAX up to 0.10 writes no more under a limit of its own once a process was killed while it
        # wrote (jax-ml/jax#39880).
        if "JAX_COMPILATION_CACHE_MAX_SIZE" not in os.environ:
            _remove_least_used(folder.parent, _MAX_BYTES)
        os.environ[_FOLDER] = os.environ[_OURS] = str(folder)
        os.environ.setdefault(_SECONDS, _MIN_SECONDS)


def forget_damaged(warning: str) -> bool:
    """Removes an entry that JAX has warned it cannot read, before it writes a new one.

    JAX itself replaces none, and compiles again in every run. It names only the function, so that
    the function's other entries go too.

    Returns:
      Whether that is what the warning was of.
    """
    found = re.match(DAMAGED, warning)
    folder = os.environ.get(_FOLDER)
    if found and folder and folder in (os.environ.get(_OURS), str(compiled_folder())):
        for path in Path(folder).glob(f"{found[1]}-*-cache"):
            with suppress(OSError):
                path.unlink()
    return found is not None


def _mend_as_jax_warns() -> None:
    """Removes damaged entries as JAX warns of them, and shows all other warnings as before."""
    global _mending
    if _mending:
        return
    _mending = True
    before = warnings.showwarning

    def show(message: Warning | str, *where: Any, **options: Any) -> None:
        if not forget_damaged(str(message)):
            before(message, *where, **options)

    warnings.filterwarnings("always", DAMAGED, UserWarning)
    warnings.showwarning = show


def _remove_least_used(folder: Path, max_bytes: int, pattern: str = "*") -> None:
    """Removes what was not read for the longest time, until the rest is half of the limit.

    Half, so that not every run has something to remove. Another process that misses what is gone
    compiles it again.
    """
    with suppress(OSError):  # There is no folder yet, or another process tidies up too.
        files = [(path, path.stat()) for path in folder.rglob(pattern) if path.is_file()]
        total = sum(stat.st_size for _, stat in files)
        if total <= max_bytes:
            return
        # Where reading leaves no trace, what was written first goes first.
        for path, stat in sorted(files, key=lambda file: max(file[1].st_atime, file[1].st_mtime)):
            path.unlink()
            total -= stat.st_size
            if total <= max_bytes / 2:
                return


def compiled_folder(above: Path | None = None) -> Path:
    """The folder for programs compiled on processors like this one.

    Args:
      above: the folder that holds it; the command's own if left out.

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
    return (above or registry.cache_folder() / "compiled") / known.hexdigest()[:16]
