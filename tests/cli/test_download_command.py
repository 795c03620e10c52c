"""`sam-jax download`: from a server to a checkpoint that other commands use by name."""

import functools
import hashlib
import http.server
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from sam_jax.checkpoints import registry
from sam_jax.checkpoints.native import load_checkpoint
from sam_jax.checkpoints.registry import OfficialWeights
from sam_jax.cli.main import main


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def url(run, checkpoint, tmp_path, monkeypatch):
    """Where a server offers the small model, registered as vit_b."""
    (tmp_path / "served").mkdir()
    file = tmp_path / "served" / "small.pth"
    run("convert", checkpoint, file)
    content = file.read_bytes()
    official = OfficialWeights(
        "http://127.0.0.1:9/small.pth", hashlib.sha256(content).hexdigest(), len(content)
    )
    monkeypatch.setitem(registry.OFFICIAL_WEIGHTS, "vit_b", official)
    monkeypatch.setattr(registry, "_pause", lambda failures: None)
    handler = functools.partial(QuietHandler, directory=str(file.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/small.pth"
    server.shutdown()
    server.server_close()


def downloads():
    folder = registry.cache_folder() / "downloads"
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_downloaded_weights_are_used_by_name(run, url, checkpoint):
    result = run("download", "vit_b", "--url", url)
    path = registry.cache_folder() / "checkpoints" / "vit_b"
    assert result.stdout.splitlines() == [
        f"vit_b is ready: {path}",
        "use it with: sam-jax segment IMAGE --point X,Y --checkpoint vit_b",
    ]
    assert "converting small.pth" in result.stderr.splitlines()
    assert load_checkpoint(path).fingerprint == load_checkpoint(checkpoint).fingerprint
    assert downloads() == []
    run("segment", "photo.png", "--point", "1,2", "--checkpoint", "vit_b")
    assert "vit_b was there already" in run("download", "sam-vit-b", "--url", url).stdout


def test_the_file_is_kept_and_the_work_repeated_when_told_so(run, url):
    run("download", "vit_b", "--url", url, "--keep")
    assert downloads() == ["small.pth"]
    result = run("download", "vit_b", "--url", url, "--force")
    assert "vit_b is ready" in result.stdout and downloads() == []


def test_errors_are_one_line_and_install_nothing(run, url, tmp_path):
    served = Path(tmp_path / "served" / "small.pth")
    assert "HTTP status 404" in run.refused("download", "vit_b", "--url", url + "x")
    assert "names are: vit_b, vit_l, vit_h" in run.refused("download", "vit_x")
    assert "http://" in run.refused("download", "vit_b", "--url", "small.pth")
    content = bytearray(served.read_bytes())
    content[1000] ^= 1
    served.write_bytes(bytes(content))
    result = CliRunner().invoke(main, ["download", "vit_b", "--url", url])
    assert result.exit_code == 2 and result.stdout == ""
    progress, line = result.stderr.splitlines()
    assert progress == "downloading vit_b: 0.4 of 0.4 MB"
    assert line.startswith("error: ") and "not the official file" in line
    assert downloads() == []
    assert "run: sam-jax download vit_b" in run.refused("info", "vit_b")


def test_a_cache_folder_that_cannot_be_is_one_line(run, monkeypatch):
    monkeypatch.setenv("SAM_JAX_CACHE", "~nobody-of-this-name/cache")
    assert "SAM_JAX_CACHE" in run.refused("download", "vit_b")
    assert "SAM_JAX_CACHE" in run.refused("info", "vit_b")
