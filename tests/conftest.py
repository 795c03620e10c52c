"""Shapes in signatures are checked at run time in every test; compiled programs are shared."""

import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

ROOT = Path(__file__).parents[1]

# Not what pytrees are: their fields hold whatever `jax.tree.map` puts there (shapes, shardings).
# Nor the options: what they say of values of the wrong type is for users.
UNCHECKED = {
    "sam_jax.types",
    "sam_jax.data.batches",
    "sam_jax.train.state",
    "sam_jax.automatic.options",
}

# Every run tries the same examples, however slow the machine is. The smoke suite has none.
with suppress(ImportError):
    from hypothesis import settings

    settings.register_profile("steady", derandomize=True, deadline=None)
    settings.load_profile("steady")

# What takes long to compile is compiled once for all files, workers and child processes. JAX reads
# this when it is first imported; workers have it from the process that starts them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _compiled = tempfile.TemporaryDirectory(prefix="sam-jax-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name

modules = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "sam_jax").rglob("*.py"))
    if path.stem != "__init__"
]
install_import_hook(
    [*(module for module in modules if module not in UNCHECKED), "convert"], "beartype.beartype"
)


@pytest.fixture(autouse=True, scope="module")
def programs_go_with_their_module():
    """Compiled programs of all modules together take many gigabytes."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
