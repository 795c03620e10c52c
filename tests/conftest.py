"""Shapes in signatures are checked at run time in every test."""

from pathlib import Path

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

modules = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "sam_jax").rglob("*.py"))
    if path.stem != "__init__"
]
install_import_hook(
    [*(module for module in modules if module not in UNCHECKED), "convert"], "beartype.beartype"
)
