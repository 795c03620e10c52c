"""Shapes in signatures are checked at run time in every test."""

import pkgutil
from pathlib import Path

from jaxtyping import install_import_hook

ROOT = Path(__file__).parents[1]

# Not `types`: a pytree's fields hold whatever `jax.tree.map` puts there (shapes, shardings).
checked = [
    f"sam_jax.{module.name}"
    for module in pkgutil.iter_modules([str(ROOT / "sam_jax")])
    if module.name != "types"
]
install_import_hook([*checked, "convert"], "beartype.beartype")
