"""The README's first command, run by somebody who has the package alone and no network."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
# Python imports this by itself. Name servers and all else are out of reach.
NO_NETWORK = """
import socket

def refuse(*_, **__):
    raise OSError("a connection was asked for")

for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = socket.create_connection = refuse
"""


def main_command():
    """The installation and what follows it."""
    text = (ROOT / "README.md").read_text()
    block = re.search(r"<!-- main command -->\n```sh\n(.*?)\n```", text, re.DOTALL)
    install, _, rest = block.group(1).partition(" && ")
    return install, rest


def test_the_readme_has_a_main_command():
    install, rest = main_command()
    assert install == "pip install ." and rest.startswith("sam-jax segment examples/photos/")


def output_of(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def cut_off():
    """What runs a program where there is no network at all, if this machine lets us."""
    prefix = ["unshare", "--map-root-user", "--net"]
    found = shutil.which("unshare") and subprocess.run([*prefix, "true"], check=False).returncode
    return prefix if found == 0 else []


@pytest.fixture
def installed(tmp_path):
    """The programs of a fresh virtual environment with our wheel, and only our dependencies."""
    pytest.importorskip("setuptools", minversion="77")
    source, wheels, fresh = (tmp_path / name for name in ("source", "wheels", "fresh"))
    left_out = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for name in ("sam_jax", "convert"):
        shutil.copytree(ROOT / name, source / name, ignore=left_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    output_of(
        *(*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation"),
        *("--wheel-dir", wheels, source),
    )
    shutil.rmtree(source)
    (wheel,) = wheels.glob("sam_jax-*.whl")
    venv.create(fresh, symlinks=True)
    output_of(
        *(*pip, "--python", fresh / "bin" / "python"),
        *("install", "--no-deps", "--no-index", wheel),
    )
    (packages,) = fresh.glob("lib/python*/site-packages")
    others = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "dependencies.pth").write_text("\n".join(others))
    (packages / "sitecustomize.py").write_text(NO_NETWORK)
    return fresh / "bin"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the README's command is for a POSIX shell")
def test_it_works_at_once_without_a_network(installed, tmp_path):
    folder, cache = tmp_path / "folder", tmp_path / "cache"
    shutil.copytree(ROOT / "examples" / "photos", folder / "examples" / "photos")
    apart = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    apart |= {"PATH": f"{installed}{os.pathsep}{os.environ['PATH']}", "SAM_JAX_CACHE": str(cache)}
    where = {"cwd": folder, "env": apart}
    code = "import sam_jax, sitecustomize; print(sam_jax.__file__, sitecustomize.__file__)"
    for file in output_of(installed / "python", "-c", code, **where).stdout.split():
        assert Path(file).is_relative_to(installed.parent)

    _, line = main_command()
    done = output_of(*cut_off(), "sh", "-c", line, **where)
    assert "using the small built-in model 'tiny'" in done.stderr
    assert "Traceback" not in done.stderr and not cache.exists()
    out = folder / "sam-jax-output"
    record = json.loads((out / "coffee.json").read_text())
    assert len(record["masks"]) == 2
    with Image.open(folder / "examples" / "photos" / "coffee.jpg") as photo:
        size = photo.size
    for mask in record["masks"]:
        with Image.open(out / mask["file"]) as picture:
            assert picture.size == size
            pixels = np.asarray(picture) > 0
        assert pixels.sum() == mask["area"] > 0
    with Image.open(out / record["overlay"]) as overlay:
        assert np.std(overlay) > 0
    assert {path.name for path in folder.iterdir()} == {"examples", "sam-jax-output"}
