"""Who may import whom: data goes one way, and torch is nowhere at run time."""

import ast
import builtins
import subprocess
import symtable
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the bottom to the top: a part imports what stands on its own line or below, and parts of one
# line do not go round in a circle. `docs/architecture.md` draws the same.
HOUSE = [
    "version errors progress stopping natural_order converter",
    "types files forks one_line lazy_names",
    "ops",
    "tiff image_files pixel_numbers images frame_folders formats",
    "configs models",
    "image_inputs preprocess postprocess embeddings sharding",
    "checkpoints adapters data",
    "inference",
    "automatic",
    "segmenter video",
    "object_prompts",
    "evaluate",
    "train",
    "folder_runs",
    "bench",
    "compat",
]
LINE_OF = {part: line for line, parts in enumerate(HOUSE) for part in parts.split()}
# What `convert` reads of the package.
FOR_CONVERT = {"configs", "models", "types", "errors", "version", "files", "checkpoints"}
# The package itself and the command line may use everything.
FREE = {"__init__", "cli"}
# What is measured beside ours runs in child processes of its own.
RIVALS = {"rivals.py", "rival_children.py"}
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
    assert part in LINE_OF or part in FREE | {"convert"}, f"{part} has no line in the house"
    rival = path.name in RIVALS
    for name, at_top in imported_names(ast.parse(path.read_text())):
        parts = name.split(".")
        if parts[0] == "sam_jax" and part == "convert":
            assert parts[1] in FOR_CONVERT, f"{path.name} imports {name}"
        elif parts[0] == "sam_jax" and part not in FREE:
            assert LINE_OF[parts[1]] <= LINE_OF[part], f"{path.name} imports {name}"
        if parts[0] == "convert" and part != "convert":
            assert part in {"converter", "cli"} or rival, f"{path.name} imports {name}"
            assert rival or not at_top, f"{path.name} imports convert at the top"
        if parts[0] in TORCH:
            assert (part == "convert" or rival) and not at_top, f"{path.name} imports {name}"


def test_parts_do_not_import_each_other_in_a_circle():
    seen = {part: set() for part in LINE_OF}
    for path, part in (each.values for each in every_module()):
        if part in LINE_OF:
            names = (name.split(".") for name, _ in imported_names(ast.parse(path.read_text())))
            seen[part] |= {name[1] for name in names if name[0] == "sam_jax"} - {part}
    TopologicalSorter(seen).prepare()


def test_only_the_command_line_knows_of_the_command_line():
    for path, part in (each.values for each in every_module()):
        if part != "cli":
            names = {name for name, _ in imported_names(ast.parse(path.read_text()))}
            assert not {name for name in names if name.split(".")[0] in {"click", "tqdm"}}, path


def test_jaxs_private_modules_are_used_in_one_place():
    for path, _ in (each.values for each in every_module()):
        names = {name for name, _ in imported_names(ast.parse(path.read_text()))}
        private = {
            name for name in names if name.startswith("jax._") or name.startswith("jaxlib._")
        }
        assert not private or path.name == "process_numbers.py", path


def test_every_part_of_the_house_exists():
    parts = {p.stem for p in (ROOT / "sam_jax").iterdir() if p.suffix == ".py" or p.is_dir()}
    assert set(LINE_OF) <= parts


def undefined_names(code):
    """Names that a module reads, in any of its scopes, and neither it nor Python defines.

    Shape strings of annotations are strings here: what they hold is no name.
    """
    module = symtable.symtable(code, "", "exec")
    scopes, defined, read = [module], {*dir(builtins), "__file__", "__path__"}, set()
    for scope in scopes:
        scopes += scope.get_children()
        for symbol in scope.get_symbols():
            of_module = scope is module or symbol.is_global()
            if of_module and (symbol.is_assigned() or symbol.is_imported()):
                defined.add(symbol.get_name())
            elif of_module and symbol.is_referenced():
                read.add(symbol.get_name())
    return read - defined


# The linter and the type checker cannot tell a name that is not there from a shape string.
@pytest.mark.parametrize("path, _", list(every_module()))
def test_every_name_that_a_module_reads_is_defined(path, _):
    assert not undefined_names(path.read_text())


def test_undefined_names_are_found_in_every_scope():
    code = (
        "import os\n"
        "def f(x: 'batch height') -> lost_type: return [os, x, len, later, lost]\n"
        "class C:\n"
        "    own = 1\n"
        "    also = own + lost_in_class\n"
        "    def g(self): return (lambda: own), [y for y in lost_in_list], late()\n"
        "def late():\n"
        "    global set_by_a_function\n"
        "    set_by_a_function = __file__\n"
        "later = set_by_a_function\n"
    )
    lost = {"lost", "lost_type", "lost_in_class", "lost_in_list", "own"}
    assert undefined_names(code) == lost


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
