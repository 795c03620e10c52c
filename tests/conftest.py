"""Shapes in signatures are checked at run time in every test; compiled programs are shared.

Most models here are so small that they run in less time than XLA takes to optimize them. So what is
compiled is not optimized, by a factor of five or more in time, but in modules marked `optimised`,
which run for longer; and in the slow and exhaustive suites, where XLA does all that it does for
users.
"""

import os
import sys
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

ROOT = Path(__file__).parents[1]

# Not what pytrees are: their fields hold whatever `jax.tree.map` puts there (shapes, shardings).
# Nor the options: what they say of values of the wrong type is for users.
UNCHECKED = {
    "sam_jax.types",
    "sam_jax.embeddings",
    "sam_jax.models.features",
    "sam_jax.models.sam2.values",
    "sam_jax.data.batches",
    "sam_jax.data.scenes.clips",
    "sam_jax.video.state",
    "sam_jax.train.loop.state",
    "sam_jax.automatic.options",
}

# Every run tries the same examples, however slow the machine is. The smoke suite has none.
with suppress(ImportError):
    from hypothesis import settings

    settings.register_profile("steady", derandomize=True, deadline=None)
    settings.load_profile("steady")

# What is compiled is compiled once for all files, workers and child processes, however small: what
# is read takes a quarter of the time. JAX reads this when it is first imported; workers have it
# from the process that starts them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _compiled = tempfile.TemporaryDirectory(prefix="sam-jax-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

modules = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "sam_jax").rglob("*.py"))
    if path.stem != "__init__"
]
install_import_hook(
    [*(module for module in modules if module not in UNCHECKED), "convert"], "beartype.beartype"
)


# XLA's newer way to compile what it fuses takes most of the time that is left.
_OLDER_FUSIONS = "xla_cpu_use_fusion_emitters"


def pytest_configure(config):
    """XLA reads its flags when it compiles for the first time; child processes have them too."""
    if _is_quick(config) and "PYTEST_XDIST_WORKER" not in os.environ and _xla_has_older_fusions():
        given = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{given} --{_OLDER_FUSIONS}=false".strip()


def _is_quick(config) -> bool:
    wanted = config.option.markexpr.replace("not slow", "").replace("not exhaustive", "")
    return "slow" not in wanted and "exhaustive" not in wanted


def _xla_has_older_fusions() -> bool:
    """XLA ends a process that gives it a flag it does not know; later releases dropped this one."""
    return version("jaxlib").startswith("0.10.")


@pytest.fixture(autouse=True, scope="module")
def programs_of_a_module(request):
    """Optimized or not; and gone with it, for those of all modules take many gigabytes."""
    quick = _is_quick(request.config) and not request.node.get_closest_marker("optimised")
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(quick))
    if "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_disable_most_optimizations", quick)
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
