"""The machine that measurements are of, and the versions of what ran."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from sam_jax.version import __version__

DISTRIBUTIONS = (
    "jax",
    "jaxlib",
    "flax",
    "numpy",
    "torch",
    "torchvision",
    "segment-anything",
    "transformers",
)


def machine() -> dict[str, Any]:
    """CPU, cores, memory, system, JAX's default device, and versions of what is installed."""
    import jax

    device = jax.devices()[0]
    return {
        "cpu": _cpu(),
        "cores": _usable_cores(),
        "memory_gb": _memory_gb(),
        "system": platform.platform(),
        "jax_device": {"platform": device.platform, "kind": device.device_kind},
        "load_at_start": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        # Ours is not asked of the installation, which may be older than the code, or of other code.
        "versions": {
            "sam-jax": __version__,
            **{name: found for name in DISTRIBUTIONS if (found := _version(name))},
        },
    }


def describe(found: dict[str, Any]) -> list[str]:
    """The machine in lines for people."""
    memory = f", {found['memory_gb']:.0f} GB" if found["memory_gb"] else ""
    device = found["jax_device"]
    accelerator = "" if device["platform"] == "cpu" else f"; JAX runs on {device['kind']}"
    load = found["load_at_start"]
    busy = "" if load is None else f"; load at the start {load:.1f}"
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return [
        f"{found['cpu']}, {found['cores']} cores{memory}{accelerator}{busy}",
        f"{found['system']}, Python {found['python']}",
        versions,
    ]


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _usable_cores() -> int:
    """What this process may run on, which in a container may be fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_gb() -> float | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):  # Windows does not tell
        return None


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
