"""Who may import whom: data goes one way, and torch is nowhere at run time."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each part and what of ours it may import. `errors`, `version` and `files` are open to all.
OPEN_TO_ALL = {"errors", "version", "files", "stopping", "forks", "one_line"}
ALLOWED = {
    "version": set(),
    "errors": set(),
    "files": set(),
    "stopping": set(),
    "forks": set(),
    "one_line": set(),
    "shipped": set(),
    "types": set(),
    "configs": set(),
    "sam2_configs": {"configs"},
    "embeddings": {"types"},
    "ops": {"types"},
    "models": {"configs", "sam2_configs", "types", "ops"},
    "tiff": set(),
    "image_files": {"tiff"},
    "pixel_numbers": set(),
    "images": {"types", "tiff", "image_files", "pixel_numbers"},
    "natural_order": set(),
    "frame_folders": {"images", "natural_order"},
    "image_inputs": {"sam2_configs", "ops", "pixel_numbers"},
    "preprocess": {"sam2_configs", "types", "ops", "images", "image_inputs"},
    "prompt_batches": {"preprocess", "types"},
    "postprocess": {"configs", "types", "ops", "images", "preprocess", "formats"},
    "sharding": {"configs", "types", "models"},
    "compiled": {"types", "models", "preprocess", "prompt_batches", "sharding"},
    "formats": {"types", "ops", "image_files", "tiff"},
    "families": {"configs", "sam2_configs", "types", "models"},
    "weight_files": set(),
    "registry": {"shipped", "weight_files"},
    "checkpoints": {"configs", "families", "types", "registry", "weight_files"},
    "compiled_programs": {"registry"},
    "lora": {"types", "sharding"},
    "adapters": {"types", "checkpoints", "lora"},
    "automatic": {
        "configs",
        "types",
        "ops",
        "models",
        "preprocess",
        "postprocess",
        "formats",
        "sharding",
    },
    "segmenter": {
        "adapters",
        "automatic",
        "configs",
        "sam2_configs",
        "types",
        "ops",
        "models",
        "images",
        "embeddings",
        "preprocess",
        "compiled",
        "postprocess",
        "checkpoints",
        "registry",
        "sharding",
    },
    "video": {
        "frame_folders",
        "sam2_configs",
        "types",
        "ops",
        "models",
        "images",
        "preprocess",
        "prompt_batches",
        "checkpoints",
        "registry",
        "segmenter",
    },
    "compat": {
        "configs",
        "types",
        "ops",
        "postprocess",
        "preprocess",
        "compiled",
        "checkpoints",
        "registry",
        "automatic",
        "segmenter",
        "converter",
        "weight_files",
    },
    "data": {
        "configs",
        "types",
        "ops",
        "images",
        "natural_order",
        "frame_folders",
        "preprocess",
        "formats",
        "registry",
    },
    "train": {
        "configs",
        "sam2_configs",
        "types",
        "ops",
        "models",
        "preprocess",
        "formats",
        "checkpoints",
        "registry",
        "sharding",
        "data",
        "embeddings",
        "lora",
        "adapters",
    },
    "evaluate": {
        "natural_order",
        "configs",
        "types",
        "ops",
        "models",
        "images",
        "embeddings",
        "preprocess",
        "postprocess",
        "formats",
        "automatic",
        "segmenter",
        "data",
    },
    "bench": {
        "configs",
        "types",
        "models",
        "preprocess",
        "checkpoints",
        "registry",
        "segmenter",
    },
    "converter": set(),
    "convert": {
        "configs",
        "sam2_configs",
        "families",
        "types",
        "models",
        "checkpoints",
        "weight_files",
        "bench",
    },
}
# The package itself and the command line may use everything.
FREE = {"__init__", "cli"}
TORCH = {"torch", "torchvision", "segment_anything", "sam2", "transformers"}


def every_module():
    for top in ("sam_jax", "convert"):
        for path in sorted((ROOT / top).rglob("*.py")):
            inside = path.relative_to(ROOT / top).parts
            part = "convert" if top == "convert" else inside[0].removesuffix(".py")
            yield pytest.param(path, part, id=str(path.relative_to(ROOT)))


def imported_names(tree):
    """Full dotted names, and whether each import stands at the module's top level."""
    top_level = set(ast.iter_child_nodes(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node in top_level
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node in top_level


@pytest.mark.parametrize("path, part", list(every_module()))
def test_a_module_imports_only_what_its_part_may(path, part):
    assert part in ALLOWED or part in FREE, f"{part} has no rule; add one to docs and here"
    for name, at_top in imported_names(ast.parse(path.read_text())):
        parts = name.split(".")
        if parts[0] == "sam_jax" and part not in FREE:
            allowed = ALLOWED[part] | OPEN_TO_ALL | ({part} if part != "convert" else set())
            assert parts[1] in allowed, f"{path.name} imports {name}"
        if parts[0] == "convert":
            assert part in {"convert", "converter", "cli"}, f"{path.name} imports {name}"
            assert part == "convert" or not at_top, f"{path.name} imports convert at the top"
        if parts[0] in TORCH:
            assert part == "convert" and not at_top, f"{path.name} imports {name}"


def test_every_part_with_a_rule_exists():
    parts = {p.stem for p in (ROOT / "sam_jax").iterdir() if p.suffix == ".py" or p.is_dir()}
    assert set(ALLOWED) - {"convert"} <= parts


def run_python(code, tmp_path):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )


def test_importing_everything_public_loads_no_torch_and_no_convert(tmp_path):
    code = (
        "import sys, sam_jax\n"
        "for name in sam_jax.__all__: getattr(sam_jax, name)\n"
        f"print(sorted(({TORCH!r} | {{'convert'}}) & set(sys.modules)))"
    )
    done = run_python(code, tmp_path)
    assert done.stdout.strip() == "[]", done.stderr


def test_importing_the_package_alone_does_not_load_jax(tmp_path):
    done = run_python("import sys, sam_jax; print('jax' in sys.modules)", tmp_path)
    assert done.stdout.strip() == "False", done.stderr


def test_a_users_own_convert_module_breaks_nothing(tmp_path):
    (tmp_path / "convert.py").write_text("raise RuntimeError('the wrong convert')")
    done = run_python("import sam_jax; sam_jax.Segmenter; print('fine')", tmp_path)
    assert done.stdout.strip() == "fine", done.stderr


def test_no_module_is_named_for_nothing():
    for path in (ROOT / "sam_jax").rglob("*.py"):
        assert path.stem not in {"utils", "helpers", "common", "misc"}
