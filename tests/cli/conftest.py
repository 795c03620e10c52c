"""A small checkpoint with random parameters, a few images, and a way to call the command."""

from pathlib import Path

import jax
import numpy as np
import pytest
from click.testing import CliRunner
from generated_folder import ARGS, snapshot
from PIL import Image

from sam_jax.checkpoints import registry, save_checkpoint
from sam_jax.cli.main import main
from sam_jax.configs import TEST
from sam_jax.files import file_sha256
from sam_jax.models.sam.sam import variable_shapes


def random_variables(seed):
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spread = leaf.shape[-2] ** -0.5 if name.endswith("kernel") else 0.3
        return (name.endswith("scale") + spread * rng.normal(size=leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, variable_shapes(TEST))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoints") / "first"
    save_checkpoint(path, TEST, random_variables(0), {"file": "made_up.pth"})
    return path


@pytest.fixture(scope="session")
def other_checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoints") / "second"
    save_checkpoint(path, TEST, random_variables(1))
    return path


@pytest.fixture
def shipped(checkpoint, monkeypatch):
    """The small checkpoint passes for the model in the package."""
    weights = checkpoint.parent
    files = [file for file in checkpoint.rglob("*") if file.is_file()]
    lines = [f"{file_sha256(file)}  {file.relative_to(weights).as_posix()}\n" for file in files]
    (weights / "SHA256SUMS").write_text("".join(lines))
    monkeypatch.setattr(registry, "DEFAULT_CHECKPOINT", checkpoint.name)
    monkeypatch.setattr(registry, "_SHIPPED", weights)
    return checkpoint


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder, with photo.png in it (90 pixels wide, 61 high); no user's cache."""
    monkeypatch.setenv("SAM_JAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    pixels = np.random.default_rng(5).integers(0, 256, (61, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    return tmp_path / "here"


class Run:
    """Calls the command in this process."""

    def __call__(self, *args):
        """The result of a call that must succeed, with nothing but the notice on stderr."""
        result = CliRunner().invoke(main, [str(arg) for arg in args])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.stderr
        return result

    def refused(self, *args, status=2):
        """The one line on stderr of a call that must fail for a reason the user can mend."""
        result = CliRunner().invoke(main, [str(arg) for arg in args])
        if not isinstance(result.exception, SystemExit):
            raise result.exception or AssertionError("nothing was refused")
        assert result.exit_code == status
        lines = result.stderr.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
        return lines[0].removeprefix("error: ")

    def interrupted(self, *args):
        """The result of a call that is asked to stop."""
        result = CliRunner().invoke(main, [str(arg) for arg in args])
        assert isinstance(result.exception, SystemExit) and result.exit_code == 130, result.stderr
        return result


@pytest.fixture
def run():
    return Run()


@pytest.fixture(scope="module")
def programs():
    """Updates that were compiled, by their text."""
    return {}


@pytest.fixture
def compiled_once(monkeypatch, programs):
    """Runs take updates over from each other: they cost far more to compile than to run."""
    from sam_jax.train.loop import loop

    def replaced(lowered):
        text = lowered.as_text()
        if text not in programs:
            options = {"xla_backend_optimization_level": 0}
            programs[text] = lowered.compile(compiler_options=options)
        return programs[text]

    monkeypatch.setattr(loop, "compiled", replaced)


@pytest.fixture
def photos(folder):
    """A folder with four images of one size, and a file that is no image."""
    Path("photos").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.jpg", "b.png", "c.webp", "d.png"):
        pixels = rng.integers(0, 256, (61, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{name}")
    Path("photos/notes.txt").write_text("no image")
    return Path("photos")


@pytest.fixture
def generate(run, checkpoint):
    def call(source, *args):
        return run("generate", source, "--checkpoint", checkpoint, *ARGS, *args)

    return call


@pytest.fixture
def refused(run, checkpoint):
    """A call that must be refused in one line, without a change to any file."""

    def call(source, *args):
        before = snapshot(Path())
        line = run.refused("generate", source, "--checkpoint", checkpoint, *ARGS, *args)
        assert snapshot(Path()) == before
        return line

    return call


@pytest.fixture
def failing(checkpoint):
    """The result of a call that must end with status 2."""

    def call(source, *args):
        arguments = ["generate", source, "--checkpoint", checkpoint, *ARGS, *args]
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == 2
        return result

    return call
